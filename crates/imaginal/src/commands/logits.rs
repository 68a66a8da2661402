use std::path::PathBuf;

use clap::Parser;
use imaginal_files::safetensors::{Dtype, SafeTensorsWriter, TensorSpec};
use imaginal_models::{Model, Rows};
use imaginal_tensor::{Tensor, no_grad};
use serde_json::json;

use crate::cli::{CacheArgs, Common, Failure};
use crate::find;

/// Write the logits of given tokens to a safetensors file
#[derive(Parser, Debug)]
#[command(
    long_about = "Write the logits of given tokens to a safetensors file: tensor `logits`, f32, [tokens, vocabulary], a row for every position",
    after_help = "Examples:\n  imaginal logits default --tokens 1,2,3 --out logits.safetensors\n  imaginal logits ./tiny-llama --tokens 5,6,7,8 --stepwise --out steps.safetensors"
)]
pub struct Logits {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    model: String,
    /// Token ids
    #[arg(long, value_delimiter = ',', required = true, value_name = "IDS")]
    tokens: Vec<u32>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// One token at a time through the model's state, instead of all at once
    #[arg(long)]
    stepwise: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

impl Logits {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded, a token is not in its vocabulary, or the file cannot be written.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut loaded = find::load(&self.model, common)?;
        self.cache.apply(&mut loaded.model)?;
        let model = &loaded.model;
        let logits = no_grad(|| self.compute(model))?;
        let (tokens, vocab) = (logits.dim(0)?, logits.dim(1)?);
        let spec = TensorSpec { name: "logits".into(), dtype: Dtype::F32, shape: vec![tokens, vocab] };
        let mut file = SafeTensorsWriter::create(&self.out, &Default::default(), &[spec])?;
        let bytes: Vec<u8> = logits.to_vec::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        file.append(&bytes)?;
        file.finish()?;
        if common.json {
            println!("{}", json!({ "out": self.out, "tokens": tokens, "vocab": vocab }));
        } else {
            eprintln!("wrote {tokens} × {vocab} logits to {}", self.out.display());
        }
        Ok(())
    }

    fn compute(&self, model: &Model) -> Result<Tensor, Failure> {
        let mut state = model.state(1)?;
        if !self.stepwise {
            return Ok(model.forward(&Model::ids(&self.tokens)?, Some(&mut state), Rows::All)?.squeeze(0)?);
        }
        let mut rows = Vec::with_capacity(self.tokens.len());
        for &token in &self.tokens {
            rows.push(model.forward(&Model::ids(&[token])?, Some(&mut state), Rows::All)?.squeeze(0)?);
        }
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }
}
