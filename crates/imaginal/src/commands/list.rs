use clap::Parser;
use imaginal_models::ARCHS;
use serde_json::json;

use super::inventory;
use crate::cli::{Common, Failure};

/// List the models on this machine, or the architectures that this build knows
#[derive(Parser, Debug)]
#[command(
    long_about = "List the models on this machine: the built-in one, those in the Hugging Face cache and in the caches of your registries, and those in the current folder; or the architectures that this build knows",
    after_help = "Examples:\n  imaginal list\n  imaginal list --json\n  imaginal list --architectures"
)]
pub struct List {
    /// The architectures that can be loaded, with the names that Hugging Face gives them
    #[arg(long)]
    architectures: bool,
    /// The architectures as a page of Markdown
    #[arg(long, requires = "architectures", conflicts_with = "json")]
    markdown: bool,
}

impl List {
    /// Runs the verb.
    ///
    /// # Errors
    /// Standard output is closed, or the file of aliases cannot be read.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        if self.markdown {
            print!("{}", imaginal_models::arch::markdown());
            return Ok(());
        }
        if self.architectures { architectures(common) } else { models(common) }
    }
}

/// The models on this machine, in columns.
fn models(common: &Common) -> Result<(), Failure> {
    let rows = inventory::rows()?;
    if common.json {
        let rows: Vec<_> = rows.iter().map(inventory::Row::json).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "models": rows }))?);
        return Ok(());
    }
    let rows: Vec<[String; 5]> = rows.iter().map(inventory::Row::cells).collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for [name, size, format, source, architecture] in &rows {
        let [a, b, c, d] = widths;
        println!("{name:a$}  {size:>b$}  {format:c$}  {source:d$}  {architecture}");
    }
    Ok(())
}

/// The table of architectures.
fn architectures(common: &Common) -> Result<(), Failure> {
    if common.json {
        let rows: Vec<_> = ARCHS
            .iter()
            .map(|a| {
                let classes: Vec<_> = a.hf.iter().map(|h| h.class).collect();
                let types: Vec<_> = a.hf.iter().map(|h| h.model_type).collect();
                json!({ "name": a.name, "about": a.doc, "hf_classes": classes, "hf_model_types": types })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "architectures": rows }))?);
    } else {
        for a in ARCHS {
            let classes: Vec<_> = a.hf.iter().map(|h| h.class).collect();
            println!("{:14} {}  ({})", a.name, a.doc, classes.join(", "));
        }
    }
    Ok(())
}
