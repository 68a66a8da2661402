use clap::Parser;
use indicatif::DecimalBytes;
use serde_json::json;

use super::pull::{count, target};
use crate::cli::{Common, Failure};

/// Remove a pulled model from the cache
#[derive(Parser, Debug)]
#[command(
    long_about = "Remove a pulled model from the cache: the one that is named, with the files that no other model uses, or the whole repository where it holds one model only. Files elsewhere are yours to remove",
    after_help = "Examples:\n  imaginal rm qwen3:4b\n  imaginal rm Qwen/Qwen3-4B-GGUF:Q8_0\n  imaginal rm Qwen/Qwen3-4B-GGUF --all"
)]
pub struct Rm {
    /// An alias, or org/name with `:` and a quantization or file
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Remove a repository with several models in the cache
    #[arg(long)]
    all: bool,
}

impl Rm {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model is not in the cache, the name stands for several, or a file cannot be removed.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut documents = Vec::new();
        for name in &self.names {
            let (target, settings) = target(name)?;
            let removed = settings.cache.remove(&target, name, self.all)?;
            documents.push(json!({ "name": name, "files": removed.files, "bytes": removed.bytes }));
            if !common.json {
                println!("{name}: {} removed, {} free", count(removed.files.len()), DecimalBytes(removed.bytes));
            }
        }
        if common.json {
            println!("{}", serde_json::to_string_pretty(&json!({ "removed": documents }))?);
        }
        Ok(())
    }
}
