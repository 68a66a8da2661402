//! Which tensors a configuration has, and what they are called in files.

use imaginal_tensor::RopeStyle;

/// How the values in a GGUF file differ from those of the parameter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Map {
    /// Not at all.
    Same,
    /// The file has `−exp` of the parameter (Mamba's decay rates).
    NegExp,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// The parameter's name in this engine: GGUF's, but for `ssm_a_log` (see [`imaginal_nn::Mamba`]).
    pub name: String,
    /// Its name in a GGUF file; `None` if the format has no place for it.
    pub gguf: Option<String>,
    /// Its names in a Hugging Face checkpoint, the present one first.
    pub hf: Vec<String>,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Shape in a Hugging Face checkpoint, where it is another (of the same number of elements).
    pub hf_shape: Option<Vec<usize>>,
    /// How a GGUF file's values differ.
    pub map: Map,
    /// Whether it is a matrix of a product, which may be stored in any format; other tensors stay f32.
    pub matrix: bool,
    /// For queries and keys (weights and biases): how many heads lie one after another in the rows, whose order within
    /// a head is that of the RoPE style.
    pub heads: Option<usize>,
}

/// Gathers the tensors of a configuration.
pub(crate) struct Specs {
    pub list: Vec<TensorSpec>,
    gguf: String,
    hf: String,
}

impl Specs {
    pub fn new() -> Self {
        Specs { list: Vec::new(), gguf: String::new(), hf: String::new() }
    }

    /// Sets what comes before the names that follow: `blk.0` and `model.layers.0`.
    pub fn within(&mut self, gguf: String, hf: String) {
        self.gguf = gguf;
        self.hf = hf;
    }

    /// Adds a tensor; `hf` has the alternatives.
    pub fn add(&mut self, gguf: &str, hf: &[&str], shape: &[usize], matrix: bool) -> &mut TensorSpec {
        let join = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { format!("{a}.{b}") };
        let name = join(&self.gguf, gguf);
        self.list.push(TensorSpec {
            gguf: Some(name.clone()),
            name,
            hf: hf.iter().map(|h| join(&self.hf, h)).collect(),
            shape: shape.to_vec(),
            hf_shape: None,
            map: Map::Same,
            matrix,
            heads: None,
        });
        let at = self.list.len() - 1;
        &mut self.list[at]
    }

    /// Notes that GGUF has no name for the tensor added last.
    pub fn without_gguf(&mut self) {
        if let Some(last) = self.list.last_mut() {
            last.gguf = None;
        }
    }

    /// Adds `gguf.weight` `[outputs, inputs]` and, if there is one, `gguf.bias`.
    pub fn linear(&mut self, gguf: &str, hf: &str, [outputs, inputs]: [usize; 2], bias: bool, heads: Option<usize>) {
        let weight = self.add(&format!("{gguf}.weight"), &[&format!("{hf}.weight")], &[outputs, inputs], true);
        weight.heads = heads;
        if bias {
            self.add(&format!("{gguf}.bias"), &[&format!("{hf}.bias")], &[outputs], false).heads = heads;
        }
    }
}

/// Row `i` of the result is row `order[i]` of the source: from the order of rows in one RoPE style to that in another.
/// `None` where they are the same.
pub(crate) fn row_order(rows: usize, heads: usize, from: RopeStyle, to: RopeStyle) -> Option<Vec<usize>> {
    if from == to {
        return None;
    }
    let dim = rows / heads;
    let half = dim / 2;
    Some(
        (0..rows)
            .map(|row| {
                let (head, i) = (row / dim, row % dim);
                let source = match to {
                    // Pair p of the interleaved order lies at 2p and 2p + 1, of the half order at p and p + half.
                    RopeStyle::Interleaved => (i % 2) * half + i / 2,
                    RopeStyle::Half => (i % half) * 2 + i / half,
                };
                head * dim + source
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_orders_undo_each_other() {
        use RopeStyle::*;
        let to = row_order(12, 2, Half, Interleaved).unwrap();
        let back = row_order(12, 2, Interleaved, Half).unwrap();
        assert_eq!(to[..6], [0, 3, 1, 4, 2, 5]);
        assert_eq!(to.iter().map(|&i| back[i]).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
        assert!(row_order(12, 2, Half, Half).is_none());
    }
}
