//! Importance matrices: how much each column of a weight matters, measured on text.

use std::collections::HashMap;
use std::path::Path;

use imaginal_files::Gguf;
use imaginal_files::gguf::TensorInfo;

use crate::{Error, Result};

/// The importance of each column of a model's matrices: means of the squared activations that meet it.
#[derive(Debug, Default)]
pub struct Importance(HashMap<String, Vec<f32>>);

impl Importance {
    /// Reads a GGUF file of the kind that llama.cpp's `llama-imatrix` writes: for every matrix a tensor
    /// `<name>.in_sum2` of sums of squares and one `<name>.counts` of how many were summed, for stacked experts one row each.
    ///
    /// # Errors
    /// The file cannot be read, holds no importance, or a tensor is not as described.
    pub fn open(path: impl AsRef<Path>) -> Result<Importance> {
        let path = path.as_ref();
        let gguf = Gguf::open(path, Default::default())?;
        let mut all = HashMap::new();
        for sums in gguf.tensors() {
            let Some(name) = sums.name.strip_suffix(".in_sum2") else { continue };
            let counts = floats(gguf.tensor(&format!("{name}.counts"))?)?;
            let mut values = floats(sums)?;
            if counts.is_empty() || !values.len().is_multiple_of(counts.len()) || values.is_empty() {
                let problem = format!("{} sums for {} counts", values.len(), counts.len());
                return Err(gguf.invalid_tensor(&sums.name, problem).into());
            }
            let cols = values.len() / counts.len();
            for (row, count) in values.chunks_mut(cols).zip(counts) {
                // An expert that no token reached says nothing: all its columns matter alike.
                row.iter_mut().for_each(|x| *x = if count > 0.0 { *x / count } else { 1.0 });
            }
            if values.iter().any(|x| !x.is_finite() || *x < 0.0) {
                return Err(gguf.invalid_tensor(&sums.name, "sums of squares are finite and not negative").into());
            }
            all.insert(name.to_owned(), values);
        }
        if all.is_empty() {
            let what = "there is no importance matrix in it (tensors named *.in_sum2)".to_owned();
            return Err(Error::NotAModel { path: path.to_owned(), what });
        }
        Ok(Importance(all))
    }

    /// The importance of the columns of a tensor: one row, or one for each of its stacked matrices.
    pub fn of(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

fn floats(tensor: &TensorInfo) -> Result<Vec<f32>> {
    let mut out = vec![0.0; tensor.elem_count()];
    tensor
        .format
        .decode(&tensor.bytes, &mut out)
        .map_err(|e| Error::Argument(format!("tensor {}: {e}", tensor.name)))?;
    Ok(out)
}
