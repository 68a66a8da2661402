use clap::Parser;
use imaginal_hub::{Aliases, Settings};
use serde_json::json;

use crate::cli::{Common, Failure};

/// List, set or remove short names of models
#[derive(Parser, Debug)]
#[command(
    long_about = "List, set or remove short names of models. The built-in ones stand for well-known models; yours come first and may replace them",
    after_help = "Examples:
  imaginal alias                                  # all of them
  imaginal alias helper Qwen/Qwen3-4B-GGUF:Q8_0
  imaginal alias --remove helper

They are kept in imaginal/aliases.toml in the configuration folder (~/.config; IMAGINAL_ALIASES names another file), where
hubs of your own have their place too:

  [aliases]
  helper = \"Qwen/Qwen3-4B-GGUF:Q8_0\"
  ours = \"lab://team/model\"

  [registries.lab]
  endpoint = \"https://models.lab.example\"
  token_env = \"LAB_TOKEN\"     # the variable with the token; HF_TOKEN is never sent there
  cache = \"/data/lab\"         # default: registries/lab beside the hub's cache"
)]
pub struct Alias {
    /// The short name
    #[arg(requires = "target")]
    name: Option<String>,
    /// What it stands for: [REGISTRY://]org/name[@revision][:file or quantization]
    target: Option<String>,
    /// Remove this alias of yours
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    remove: Option<String>,
}

impl Alias {
    /// Runs the verb.
    ///
    /// # Errors
    /// The file cannot be read or written, or the names make no sense.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut aliases = Aliases::open(&Settings::from_env()?.aliases)?;
        if let Some(name) = &self.remove {
            if !aliases.set(name, None)? {
                return Err(format!("{}: there is no alias {name:?} to remove", aliases.path().display()).into());
            }
        } else if let (Some(name), Some(target)) = (&self.name, &self.target) {
            aliases.set(name, Some(target))?;
        }
        if common.json {
            let rows: Vec<_> = aliases
                .iter()
                .map(|(name, target, own)| json!({ "name": name, "target": target, "built_in": !own }))
                .collect();
            println!("{}", serde_json::to_string_pretty(&json!({ "file": aliases.path(), "aliases": rows }))?);
        } else if self.name.is_none() && self.remove.is_none() {
            for (name, target, own) in aliases.iter() {
                println!("{name:20} {target}{}", if own { "  (yours)" } else { "" });
            }
        }
        Ok(())
    }
}
