//! Which tensors a configuration has, and what they are called in files.

use std::ops::Range;

use imaginal_nn::join;
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
    /// How a Hugging Face checkpoint may hold it, the usual way first.
    pub hf: Vec<Stored>,
    /// Shape, outermost dimension first: that of GGUF files. Stacked matrices have three dimensions; the parameter is the
    /// matrix of all their rows.
    pub shape: Vec<usize>,
    /// How a GGUF file's values differ.
    pub map: Map,
    /// Whether it is a matrix of a product, which may be stored in any format; other tensors stay f32.
    pub matrix: bool,
    /// For queries and keys (weights and biases): how many heads lie one after another in the rows, whose order within
    /// a head is that of the RoPE style.
    pub heads: Option<usize>,
}

/// A way in which files hold a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// As one tensor.
    Whole {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// As a tensor for each of the matrices that are stacked in the parameter, named by their numbers.
    Each {
        /// How many there are.
        count: usize,
        /// What comes before the number in a name.
        before: String,
        /// What comes after it.
        after: String,
        /// The shape of each.
        shape: Vec<usize>,
    },
    /// As a part of a stack `[count, rows, cols]`, whose matrices are made of equal parts of their rows.
    Part {
        /// The stack's name.
        name: String,
        /// Its shape.
        shape: [usize; 3],
        /// Which part of each matrix.
        part: usize,
        /// Of how many.
        parts: usize,
    },
}

/// Some rows of a tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The tensor's name.
    pub name: String,
    /// The tensor's shape.
    pub shape: Vec<usize>,
    /// Which of its rows, all dimensions but the last taken together; `None` for the whole tensor.
    pub rows: Option<Range<usize>>,
}

impl Stored {
    /// The pieces that are joined, in order. Made one by one, because a hostile configuration may ask for very many.
    pub fn pieces(&self) -> Box<dyn Iterator<Item = Piece> + '_> {
        let whole = |name: String, shape: &[usize]| Piece { name, shape: shape.to_vec(), rows: None };
        match self {
            Stored::Whole { name, shape } => Box::new(std::iter::once(whole(name.clone(), shape))),
            Stored::Each { count, before, after, shape } => {
                Box::new((0..*count).map(move |i| whole(format!("{before}{i}{after}"), shape)))
            }
            Stored::Part { name, shape, part, parts } => {
                let rows = shape[1] / parts;
                Box::new((0..shape[0]).map(move |i| {
                    let first = i * shape[1] + part * rows;
                    Piece { rows: Some(first..first + rows), ..whole(name.clone(), shape) }
                }))
            }
        }
    }

    /// The same below `prefix`.
    fn within(mut self, prefix: &str) -> Stored {
        let (Stored::Whole { name, .. } | Stored::Each { before: name, .. } | Stored::Part { name, .. }) = &mut self;
        *name = join(prefix, name);
        self
    }
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
        let hf = hf.iter().map(|name| Stored::Whole { name: name.to_string(), shape: shape.to_vec() }).collect();
        self.add_stored(gguf, hf, shape, matrix)
    }

    /// Adds a tensor that a Hugging Face checkpoint holds in one of these ways.
    pub fn add_stored(&mut self, gguf: &str, hf: Vec<Stored>, shape: &[usize], matrix: bool) -> &mut TensorSpec {
        let name = join(&self.gguf, gguf);
        let hf = hf.into_iter().map(|stored| stored.within(&self.hf)).collect();
        self.list.push(TensorSpec {
            gguf: Some(name.clone()),
            name,
            hf,
            shape: shape.to_vec(),
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
    fn pieces_cover_the_parameter() {
        let each = Stored::Each { count: 2, before: "e.".into(), after: ".w".into(), shape: vec![3, 5] };
        let names: Vec<String> = each.within("l").pieces().map(|p| p.name).collect();
        assert_eq!(names, ["l.e.0.w", "l.e.1.w"]);
        let rows = |part| {
            let stored = Stored::Part { name: "s".into(), shape: [2, 6, 5], part, parts: 2 };
            stored.pieces().filter_map(|p| p.rows).collect::<Vec<_>>()
        };
        assert_eq!((rows(0), rows(1)), (vec![0..3, 6..9], vec![3..6, 9..12]));
    }

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
