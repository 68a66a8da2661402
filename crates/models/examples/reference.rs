//! Compares models with the logits that lie beside them, as tests/reference.rs does, but tells of every directory:
//!
//!     cargo run -p imaginal-models --example reference -- DIR...
//!
//! A directory holds config.json, weights and expected.safetensors (`tools/reference` writes them), perhaps model.gguf.

use std::path::Path;

use imaginal_files::{OpenOptions, SafeTensors};
use imaginal_models::{LoadOptions, Loaded, Model, Rows, SaveOptions};
use imaginal_tensor::{Device, no_grad};

#[path = "../tests/common/encoder.rs"]
mod encoder;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    for dir in std::env::args().skip(1) {
        let dir = Path::new(&dir);
        println!("{}", dir.display());
        let files = [("hf", dir.to_path_buf()), ("gguf", dir.join("model.gguf"))];
        for (kind, path) in files.into_iter().filter(|f| f.1.exists()) {
            match check(dir, &path, kind == "hf") {
                Ok(differences) => println!("  {kind}: {differences}"),
                Err(error) => println!("  {kind}: {error}"),
            }
        }
    }
}

fn check(dir: &Path, path: &Path, save: bool) -> Result<String> {
    let file = SafeTensors::open(dir.join("expected.safetensors"), OpenOptions::default())?;
    let tensor = |name: &str| file.tensor(name);
    let model = Loaded::open(path, &LoadOptions::default())?.model;
    if model.config().arch().encoder.is_some() {
        let expected = encoder::Expected::open(dir);
        let mut told: Vec<String> =
            expected.differences(&model).iter().map(|(what, d)| format!("{what} {d:.1e}")).collect();
        if save {
            told.push(match model.to_gguf(None, &SaveOptions::default()) {
                Ok(bytes) => {
                    let again = Loaded::from_gguf_bytes("saved", bytes, &Device::Cpu)?.model;
                    let worst = expected.differences(&again).into_iter().fold(0f32, |m, (_, d)| m.max(d));
                    format!("saved {worst:.1e}")
                }
                Err(error) => format!("not saved: {error}"),
            });
        }
        return Ok(told.join(", "));
    }
    let tokens = tensor("tokens")?.bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b) as u32);
    let tokens: Vec<u32> = tokens.collect();
    let logits = tensor("logits")?.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
    let logits: Vec<f32> = logits.collect();
    let worst = |got: &[f32]| match got.len() == logits.len() {
        true => {
            got.iter().zip(&logits).fold(0f32, |m, (a, b)| if a.is_nan() { f32::NAN } else { m.max((a - b).abs()) })
        }
        false => f32::INFINITY,
    };
    let batch = |model: &Model| -> Result<f32> {
        let logits = no_grad(|| model.forward(&Model::ids(&tokens)?, None, Rows::All))?;
        Ok(worst(&logits.to_vec::<f32>()?))
    };
    let mut told = format!("batch {:.1e}", batch(&model)?);
    for piece in [1, 7] {
        let mut state = model.state(1)?;
        let mut all = Vec::new();
        for part in tokens.chunks(piece) {
            all.extend(model.forward(&Model::ids(part)?, Some(&mut state), Rows::All)?.to_vec::<f32>()?);
        }
        told += &format!(", by {piece} {:.1e}", worst(&all));
    }
    if save {
        told += &match model.to_gguf(None, &SaveOptions::default()) {
            Ok(bytes) => match Loaded::from_gguf_bytes("saved", bytes, &Device::Cpu) {
                Ok(again) => format!(", saved {:.1e}", batch(&again.model)?),
                Err(error) => format!(", saved: {error}"),
            },
            Err(error) => format!(", not saved: {error}"),
        };
    }
    Ok(told)
}
