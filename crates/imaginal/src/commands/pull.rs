use std::time::Instant;

use clap::Parser;
use imaginal_hub::{Aliases, Error, Event, Located, Settings, Target, pull};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{Common, Failure};

/// Download a model into the Hugging Face cache
#[derive(Parser, Debug)]
#[command(
    long_about = "Download a model into the Hugging Face cache, where every verb finds it by the same name without a network. What is there is not downloaded again, what broke off goes on, and every file is checked against the hash that the hub has for it. From a repository with GGUF files one is taken: the quantization that is named, else Q4_K_M, else the next best. From another, config.json, the tokenizer and the safetensors are",
    after_help = "Examples:
  imaginal pull qwen3:4b                          # an alias, see `imaginal alias`
  imaginal pull Qwen/Qwen3-4B-GGUF:Q8_0
  imaginal pull org/name:some-file.gguf
  imaginal pull org/name@v1.0                     # a branch, tag or commit
  imaginal pull lab://team/model                  # a registry of your own, see `imaginal alias --help`

Environment: HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE as in huggingface_hub;
SSL_CERT_FILE and HTTPS_PROXY where the network needs them."
)]
pub struct Pull {
    /// An alias, or org/name with `:` and a quantization or file
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// The target of a name, with the settings of its registry.
pub(crate) fn target(name: &str) -> Result<(Target, Settings), Failure> {
    let settings = Settings::from_env()?;
    let aliases = Aliases::open(&settings.aliases)?;
    let target = match aliases.resolve(name)? {
        Some(target) => target,
        None => match Target::parse(name) {
            // A repository without an organisation: those in the cache can be named, and pulled again.
            Ok(target) if settings.cache.scan().iter().any(|m| m.repo == target.repo) => target,
            _ => {
                let near = aliases.near(name);
                let hint =
                    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
                return Err(Error::Name { name: name.into(), problem: format!("there is no such alias{hint}") }.into());
            }
        },
    };
    let settings = aliases.settings(&target, &settings)?;
    Ok((target, settings))
}

impl Pull {
    /// Runs the verb.
    ///
    /// # Errors
    /// The hub does not have the model, does not answer, or sends something else; the disk is full.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut documents = Vec::new();
        for name in &self.names {
            let (target, settings) = target(name)?;
            let start = Instant::now();
            let mut screen = Screen::default();
            let result = pull(&target, name, &settings, &mut |event| screen.show(event));
            screen.bar.finish_and_clear();
            let located = result?;
            if common.json {
                documents.push(document(name, &located, &target, &screen));
            } else {
                println!("{}", located.path.display());
                eprintln!(
                    "{name}: {} in {}, {} of it downloaded in {:.1} s",
                    DecimalBytes(located.bytes),
                    count(located.files.len()),
                    DecimalBytes(screen.downloaded),
                    start.elapsed().as_secs_f64()
                );
            }
        }
        if common.json {
            println!("{}", serde_json::to_string_pretty(&json!({ "models": documents }))?);
        }
        Ok(())
    }
}

/// A number of files in words.
pub(crate) fn count(files: usize) -> String {
    format!("{files} file{}", if files == 1 { "" } else { "s" })
}

fn document(name: &str, located: &Located, target: &Target, screen: &Screen) -> serde_json::Value {
    json!({
        "name": name,
        "target": target.to_string(),
        "path": located.path,
        "files": located.files,
        "bytes": located.bytes,
        "downloaded": screen.downloaded,
        "commit": located.commit,
    })
}

/// What the user sees meanwhile, on stderr; a bar if that is a terminal.
struct Screen {
    bar: ProgressBar,
    from: u64,
    downloaded: u64,
}

impl Default for Screen {
    fn default() -> Screen {
        Screen { bar: ProgressBar::hidden(), from: 0, downloaded: 0 }
    }
}

impl Screen {
    fn show(&mut self, event: Event) {
        match event {
            Event::Plan { files, bytes, .. } => {
                let size = bytes.map_or(String::new(), |b| format!(", {}", DecimalBytes(b)));
                eprintln!("{}{size}", count(files.len()));
            }
            Event::Begin { file, bytes, from } => {
                let template =
                    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
                let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                self.bar.finish_and_clear();
                self.bar = ProgressBar::new(bytes).with_style(style).with_message(file.to_owned());
                self.bar.set_position(from);
                self.bar.reset_eta();
                self.from = from;
                if from > 0 {
                    self.say(format!("{file}: going on at {}", DecimalBytes(from)));
                }
            }
            Event::Progress { bytes, .. } => self.bar.set_position(bytes),
            Event::Done { file, bytes, cached } => {
                self.bar.finish_and_clear();
                if !cached {
                    self.downloaded += bytes - self.from.min(bytes);
                    self.from = 0;
                }
                let how = if cached { "in the cache" } else { "downloaded and checked" };
                eprintln!("{file}: {}, {how}", DecimalBytes(bytes));
            }
            Event::Waiting { why, pause } => self.say(format!("{why}; again in {:.0} s", pause.as_secs_f64())),
            Event::Warning(what) => self.say(format!("warning: {what}")),
            _ => {}
        }
    }

    fn say(&self, line: String) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
