use clap::Parser;
use imaginal_models::ARCHS;
use serde_json::json;

use crate::cli::{Common, Failure};

/// List what this build knows
#[derive(Parser, Debug)]
#[command(arg_required_else_help = true, after_help = "Example:\n  imaginal list --architectures")]
pub struct List {
    /// The architectures that can be loaded, with the names that Hugging Face gives them
    #[arg(long, required = true)]
    architectures: bool,
}

impl List {
    /// Runs the verb.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
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
                println!("{:10} {}  ({})", a.name, a.doc, classes.join(", "));
            }
        }
        Ok(())
    }
}
