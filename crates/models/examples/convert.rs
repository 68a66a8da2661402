//! Writes a model as GGUF: `convert MODEL OUT.gguf [FORMAT]`, where MODEL is a GGUF file or a Hugging Face directory.

use imaginal_models::{LoadOptions, Loaded, SaveOptions};
use imaginal_numeric::Format;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, rest @ ..] = args.as_slice() else {
        return Err("usage: convert MODEL OUT.gguf [FORMAT]".into());
    };
    let name = rest.first().map_or("f32", String::as_str);
    let format = Format::from_name(name).ok_or_else(|| format!("{name:?} is no format"))?;
    let Loaded { model, tokenizer, .. } = Loaded::open(model, &LoadOptions::default())?;
    model.save_gguf(out, tokenizer.as_ref(), &SaveOptions { format, ..SaveOptions::default() })?;
    eprintln!("{out}: {} parameters in {name}", model.config().parameters());
    Ok(())
}
