use std::path::{Path, PathBuf};

use clap::Parser;
use imaginal_files::Gguf;
use imaginal_models::morph::{Importance, Morphed, RECIPES, Recipe, morph};
use imaginal_models::{LoadOptions, Loaded, SaveOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{Common, Failure};
use crate::find;

/// Write a model file with its weights in another number format
#[derive(Parser, Debug)]
#[command(
    long_about = "Write a model file with its weights in another number format, tensor by tensor. A format is one of `imaginal formats`, or a mix by its usual name: q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m. Embedding and output keep at least q6_k; a matrix whose rows are no whole blocks gets a format a little wider",
    after_help = "Examples:\n  imaginal morph model-f16.gguf q4_k_m model-q4_k_m.gguf\n  imaginal morph ./Qwen3-0.6B q8_0 qwen3.gguf\n  imaginal morph model.gguf iq2_xs small.gguf --imatrix imatrix.gguf"
)]
pub struct Morph {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    model: String,
    /// The format or mix
    format: String,
    /// The GGUF file to write
    out: PathBuf,
    /// An importance matrix (GGUF, as llama-imatrix writes it): which columns matter
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
}

impl Morph {
    /// Runs the verb.
    ///
    /// # Errors
    /// The format is unknown, or the model cannot be read or the file written.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let recipe = Recipe::from_name(&self.format).ok_or_else(|| {
            let names: Vec<_> = RECIPES.iter().map(|r| r.name).collect();
            format!("{:?} is no format that models are written in; there are {}", self.format, names.join(" "))
        })?;
        let place = find::place(&self.model)?;
        if place.path().is_some_and(|path| same_file(path, &self.out)) {
            return Err(format!("{}: a model is not written over itself; name another file", self.out.display()).into());
        }
        let importance = self.imatrix.as_ref().map(Importance::open).transpose()?;
        // A Hugging Face directory becomes a GGUF file in f32 beside the result first.
        let scratch = self.out.with_extension("f32.tmp");
        let directory = place.path().filter(|path| path.is_dir());
        let gguf = if let Some(directory) = directory {
            let loaded = Loaded::open(directory, &LoadOptions::default())?;
            loaded.model.save_gguf(&scratch, loaded.tokenizer.as_ref(), &SaveOptions::default())?;
            Gguf::open(&scratch, Default::default()).map_err(Failure::from)
        } else {
            find::gguf(&place)
        };
        let result = gguf.and_then(|g| self.write(&g, recipe, importance.as_ref(), common));
        if directory.is_some() {
            let _ = std::fs::remove_file(&scratch);
        }
        result
    }

    fn write(
        &self,
        gguf: &Gguf,
        recipe: &Recipe,
        importance: Option<&Importance>,
        common: &Common,
    ) -> Result<(), Failure> {
        let total: usize = gguf.tensors().iter().map(|t| t.elem_count()).sum();
        let bar = ProgressBar::new(total as u64);
        bar.set_style(ProgressStyle::with_template("{wide_bar} {percent}% {msg}, {eta} left")?);
        let mut done: Vec<Morphed> = Vec::new();
        morph(gguf, recipe, importance, &self.out, &mut |t| {
            bar.inc(t.elements as u64);
            bar.set_message(t.name.clone());
            done.push(t.clone());
        })?;
        bar.finish_and_clear();
        let (before, after) =
            (gguf.tensors().iter().map(|t| t.bytes.len()).sum::<usize>(), done.iter().map(|t| t.bytes).sum::<usize>());
        let bits = 8.0 * after as f64 / total.max(1) as f64;
        if common.json {
            let tensors: Vec<_> = done
                .iter()
                .map(|t| json!({ "name": t.name, "from": t.from.name(), "to": t.to.name(), "bytes": t.bytes, "relative_rmse": t.error }))
                .collect();
            let all = json!({ "model": self.out, "format": recipe.name, "bytes": after, "bits_per_weight": bits, "tensors": tensors });
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        let mut kinds: Vec<(String, usize, usize, f64)> = Vec::new();
        for t in &done {
            let kind = if t.from == t.to { format!("{} (kept)", t.to) } else { format!("{} → {}", t.from, t.to) };
            match kinds.iter_mut().find(|(k, ..)| *k == kind) {
                Some(k) => (k.1, k.2, k.3) = (k.1 + 1, k.2 + t.bytes, k.3.max(t.error)),
                None => kinds.push((kind, 1, t.bytes, t.error)),
            }
        }
        for (kind, count, bytes, error) in kinds {
            let mib = bytes as f64 / f64::from(1 << 20);
            println!("{kind:22} {count:>5} tensors {mib:>10.2} MiB   relative error up to {error:.4}");
        }
        let mib = |b: usize| b as f64 / f64::from(1 << 20);
        println!("{}: {:.2} MiB of {:.2}, {bits:.2} bits per weight", self.out.display(), mib(after), mib(before));
        Ok(())
    }
}

/// Whether two names are one existing file.
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
