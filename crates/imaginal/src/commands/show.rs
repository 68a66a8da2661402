use std::collections::HashMap;
use std::path::Path;

use clap::Parser;
use imaginal_files::Gguf;
use imaginal_files::gguf::ValueRef;
use imaginal_models::Model;
use imaginal_nn::Module;
use imaginal_numeric::Format;
use serde_json::{Value, json};

use super::inspect;
use crate::cli::{Common, Failure};
use crate::find::{self, Place};

/// Say what a model file holds
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal show default\n  imaginal show model.gguf --tensors\n  imaginal show ./Qwen3-0.6B --json\n  imaginal show weights.safetensors            # without a configuration: its layers, as far as they are recognised"
)]
pub struct Show {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    model: String,
    /// List every tensor with its shape and the number format it is held in
    #[arg(long)]
    tensors: bool,
    /// List the metadata of a GGUF file
    #[arg(long)]
    metadata: bool,
}

impl Show {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let place = find::place(&self.model)?;
        if let Some(weights) = place.path().map(inspect::open).transpose()?.flatten() {
            return inspect::show(&self.model, &weights, self.tensors, common.json);
        }
        let loaded = find::load(&self.model, common)?;
        let (model, config) = (&loaded.model, loaded.model.config());
        let held = held(model);
        let tensors: Vec<Value> = (config.tensors().iter())
            .map(|t| {
                let (format, bytes) = held.get(&t.name).copied().unzip();
                json!({ "name": t.name, "shape": t.shape, "format": format.map(|f| f.name()), "bytes": bytes })
            })
            .collect();
        let tokenizer = loaded.tokenizer.as_ref().map(|t| {
            json!({ "tokens": t.vocab_size(), "pre": t.pre(), "bos": t.bos(), "eos": t.eos(), "chat_template": !t.chat_templates().is_empty() })
        });
        let mut summary = json!({
            "model": self.model,
            "path": place.path(),
            "name": config.name(),
            "architecture": config.arch().name,
            "parameters": config.parameters(),
            "bytes": model.bytes(),
            "layers": config.layers().len(),
            "hidden": config.hidden(),
            "vocab": config.vocab(),
            "context": config.context(),
            "tied": config.tied(),
            "tokenizer": tokenizer,
        });
        if common.json {
            summary["tensors"] = Value::Array(tensors);
            if let Some(gguf) = gguf(&place)? {
                summary["metadata"] = gguf.metadata().iter().map(|(k, v)| (k.to_owned(), brief(v))).collect();
            }
            println!("{}", serde_json::to_string_pretty(&summary)?);
            return Ok(());
        }
        for (key, value) in summary.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()) {
            match value {
                Value::String(s) => println!("{key:>14}  {s}"),
                v => println!("{key:>14}  {v}"),
            }
        }
        if self.metadata {
            println!();
            match gguf(&place)? {
                Some(gguf) => gguf.metadata().iter().for_each(|(k, v)| println!("{k} = {}", brief(v))),
                None => eprintln!("{} is no GGUF file: it has no metadata", self.model),
            }
        }
        if self.tensors {
            println!();
            for t in config.tensors() {
                let format = held.get(&t.name).map_or("", |(format, _)| format.name());
                println!("{:40} {format:8} {:?}", t.name, t.shape);
            }
        }
        Ok(())
    }
}

/// The number format that each tensor is held in, and its bytes.
fn held(model: &Model) -> HashMap<String, (Format, usize)> {
    let mut held = HashMap::new();
    model.slots("", &mut |name, slot| {
        held.insert(name, (slot.format(), slot.bytes()));
    });
    held
}

/// The file, where the model is one GGUF file.
fn gguf(place: &Place) -> Result<Option<Gguf>, Failure> {
    // A directory has none.
    if place.path().is_some_and(Path::is_dir) { Ok(None) } else { find::gguf(place).map(Some) }
}

/// A value of the metadata: arrays by their length, long texts cut short.
fn brief(value: ValueRef<'_>) -> Value {
    const MOST: usize = 200;
    match value {
        ValueRef::U8(x) => json!(x),
        ValueRef::I8(x) => json!(x),
        ValueRef::U16(x) => json!(x),
        ValueRef::I16(x) => json!(x),
        ValueRef::U32(x) => json!(x),
        ValueRef::I32(x) => json!(x),
        ValueRef::U64(x) => json!(x),
        ValueRef::I64(x) => json!(x),
        ValueRef::F32(x) => json!(x),
        ValueRef::F64(x) => json!(x),
        ValueRef::Bool(x) => json!(x),
        ValueRef::String(s) => match s.char_indices().nth(MOST) {
            Some((at, _)) => json!(format!("{}…", &s[..at])),
            None => json!(s),
        },
        ValueRef::Array(a) => json!(format!("[{} values]", a.len())),
    }
}
