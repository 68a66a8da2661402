//! Changing the number format of a model file, tensor by tensor, in bounded memory.

mod importance;
mod recipe;

use std::path::Path;
use std::sync::Mutex;

use imaginal_files::gguf::{Gguf, GgufWriter, TensorInfo, TensorSpec, Value};
use imaginal_kernels::pool;
use imaginal_numeric::Format;

pub use importance::Importance;
pub use recipe::{RECIPES, Recipe, Shape};

use crate::{Error, Result};

/// Elements that are expanded at a time.
const CHUNK: usize = 1 << 22;

/// One tensor that was written.
#[derive(Clone, Debug)]
pub struct Morphed {
    /// Its name.
    pub name: String,
    /// What it was.
    pub from: Format,
    /// What it is now.
    pub to: Format,
    /// Bytes written.
    pub bytes: usize,
    /// Elements.
    pub elements: usize,
    /// Root of the mean squared error that this step made, over the root of the mean square; 0 where nothing changed.
    pub error: f64,
}

/// Writes `gguf` to `out` with the matrices in the formats of `recipe`. Metadata are kept but for what names the format;
/// tensors that the recipe leaves alone keep their bytes. `written` hears of every tensor.
///
/// A matrix that is already in its format is copied. From a format that lost something nothing comes back: morph from the
/// widest file there is.
///
/// # Errors
/// A tensor cannot be decoded or is no whole number of blocks, an importance has the wrong length, or the file cannot be
/// written (then there is none).
pub fn morph(
    gguf: &Gguf,
    recipe: &Recipe,
    importance: Option<&Importance>,
    out: &Path,
    written: &mut dyn FnMut(&Morphed),
) -> Result<()> {
    let arch: String = gguf.metadata().require("general.architecture")?;
    let number = |key: &str| gguf.metadata().get_as::<usize>(&format!("{arch}.{key}")).ok().flatten();
    let heads = number("attention.head_count").unwrap_or(1);
    let shape = Shape {
        layers: number("block_count").unwrap_or(0),
        grouped: heads / number("attention.head_count_kv").unwrap_or(heads).max(1),
    };
    let mut metadata: Vec<(String, Value)> = gguf.metadata().to_values();
    let replaced =
        ["general.file_type", "general.quantization_version", "split.no", "split.count", "split.tensors.count"];
    metadata.retain(|(key, _)| !replaced.contains(&key.as_str()) && key != "general.alignment");
    if let Some(number) = recipe.file_type {
        metadata.push(("general.file_type".into(), number.into()));
    }
    metadata.push(("general.quantization_version".into(), 2u32.into()));
    let plan: Vec<TensorSpec> = gguf
        .tensors()
        .iter()
        .map(|t| TensorSpec {
            name: t.name.clone(),
            shape: t.shape.clone(),
            format: recipe.choose(&t.name, &t.shape, shape).unwrap_or(t.format),
        })
        .collect();
    let mut writer = GgufWriter::create(out, &metadata, &plan)?;
    for (tensor, spec) in gguf.tensors().iter().zip(&plan) {
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let weights = match importance.and_then(|i| i.of(&tensor.name)) {
            Some(w) if spec.format != tensor.format => {
                let stacked = tensor.shape[..tensor.shape.len() - 2].iter().product::<usize>();
                if w.len() != cols && w.len() != cols * stacked {
                    let problem = format!("the importance matrix has {} columns for its {cols}", w.len());
                    return Err(gguf.invalid_tensor(&tensor.name, problem).into());
                }
                Some(w)
            }
            _ => None,
        };
        let error = if spec.format == tensor.format {
            writer.append(&tensor.bytes)?;
            0.0
        } else {
            encode(tensor, spec.format, weights, &mut |bytes| Ok(writer.append(bytes)?))?
        };
        written(&Morphed {
            name: tensor.name.clone(),
            from: tensor.format,
            to: spec.format,
            bytes: spec.bytes().unwrap_or(0),
            elements: tensor.elem_count(),
            error,
        });
    }
    Ok(writer.finish()?)
}

/// Encodes a tensor some rows at a time. Returns the relative error.
fn encode(
    tensor: &TensorInfo,
    to: Format,
    importance: Option<&[f32]>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<f64> {
    let cols = tensor.shape.last().copied().unwrap_or(1).max(1);
    let rows = tensor.elem_count() / cols;
    let per_matrix = tensor.shape.iter().rev().nth(1).copied().unwrap_or(1).max(1);
    let sizes = (tensor.format.bytes_for(cols), to.bytes_for(cols));
    let (Some(from_bytes), Some(to_bytes)) = sizes else {
        let problem = format!("rows of {cols} are no whole blocks of {} and {to}", tensor.format);
        return Err(Error::Argument(format!("tensor {}: {problem}", tensor.name)));
    };
    let batch = (CHUNK / cols).clamp(1, rows.max(1));
    let mut bytes = vec![0u8; batch * to_bytes];
    let sums = Mutex::new([0.0f64; 2]);
    for first in (0..rows).step_by(batch) {
        let count = batch.min(rows - first);
        let failed = Mutex::new(None);
        pool::parallel_chunks(&mut bytes[..count * to_bytes], to_bytes, &|i, dst| {
            let row = first + i;
            let mut run = || -> std::result::Result<[f64; 2], imaginal_numeric::Error> {
                let (mut values, mut back) = (vec![0.0; cols], vec![0.0; cols]);
                let src = tensor.bytes.get(row * from_bytes..(row + 1) * from_bytes).unwrap_or_default();
                tensor.format.decode(src, &mut values)?;
                let importance = importance.map(|w| match w.len() == cols {
                    true => w,
                    false => &w[row / per_matrix * cols..][..cols],
                });
                to.encode_weighted(&values, importance, dst)?;
                to.decode(dst, &mut back)?;
                let square = |x: f32| f64::from(x) * f64::from(x);
                let error = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
                Ok([error, values.iter().map(|x| square(*x)).sum()])
            };
            match run() {
                Ok([error, square]) => {
                    let mut sums = sums.lock().unwrap_or_else(|p| p.into_inner());
                    *sums = [sums[0] + error, sums[1] + square];
                }
                Err(e) => *failed.lock().unwrap_or_else(|p| p.into_inner()) = Some(e),
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(|p| p.into_inner()) {
            return Err(Error::Argument(format!("tensor {}: {e}", tensor.name)));
        }
        sink(&bytes[..count * to_bytes])?;
    }
    let [error, square] = sums.into_inner().unwrap_or_else(|p| p.into_inner());
    Ok(if square > 0.0 { (error / square).sqrt() } else { 0.0 })
}
