//! Which tensors a configuration has, and what they are called in files.

use std::ops::Range;

use imaginal_nn::{NormKind, join};
use imaginal_tensor::RopeStyle;

/// How the values in a file differ from those of the parameter.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Map {
    /// Not at all.
    Same,
    /// The file has `−exp` of the parameter (Mamba's decay rates).
    NegExp,
    /// The file has the parameter less 1 (Gemma's norms).
    LessOne,
    /// The parameter is the file's values times a factor.
    Times(f64),
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// The parameter's name in this engine: GGUF's, but for `ssm_a_log` (see [`imaginal_nn::Mamba`]).
    pub name: String,
    /// How a GGUF file may hold it, the way that is written first; empty if the format has no place for it.
    pub gguf: Vec<Stored>,
    /// How a Hugging Face checkpoint may hold it, the usual way first.
    pub hf: Vec<Stored>,
    /// Shape, outermost dimension first: that of GGUF files. Stacked matrices have three dimensions; the parameter is the
    /// matrix of all their rows.
    pub shape: Vec<usize>,
    /// How a GGUF file's values differ.
    pub map: Map,
    /// How a Hugging Face checkpoint's values differ.
    pub hf_map: Map,
    /// Whether it is a matrix of a product, which may be stored in any format; other tensors stay f32.
    pub matrix: bool,
    /// For queries and keys (weights and biases): how many heads lie one after another in the rows, whose order within
    /// a head is that of the RoPE style.
    pub heads: Option<usize>,
    /// For what belongs to value heads: how a GGUF file has them in another order than the model.
    pub moved: Option<HeadMove>,
}

/// An order of value heads, each of which belongs to one of several groups. In the model the heads of a group follow one
/// another; in a file the first heads of all groups do, then the second ones, and so on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct HeadMove {
    /// The dimension along which they lie.
    pub axis: usize,
    /// Where they begin along it; what comes before stays where it is.
    pub first: usize,
    /// How many groups there are.
    pub groups: usize,
    /// Heads of a group.
    pub share: usize,
    /// Elements of a head.
    pub dim: usize,
}

impl HeadMove {
    /// Which elements of the model's tensor follow one another in the file.
    pub(crate) fn order(&self) -> Vec<usize> {
        let head = |i: usize| i % self.groups * self.share + i / self.groups;
        let heads = (0..self.groups * self.share).map(head);
        (0..self.first).chain(heads.flat_map(|h| (0..self.dim).map(move |i| self.first + h * self.dim + i))).collect()
    }
}

/// A way in which files hold a parameter: as some rows of one tensor, or as several tensors one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The tensor's name; for several, what comes before the number in their names.
    pub name: String,
    /// What comes after the number.
    pub after: String,
    /// The shape of the tensor, or of each.
    pub shape: Vec<usize>,
    /// Which it is.
    pub what: What,
    /// What has to be done with the values that were found.
    pub arrange: Option<Arrange>,
}

/// What of a file's tensors is a parameter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One tensor.
    Whole,
    /// So many tensors, named by their numbers from 0.
    Each(usize),
    /// Tensors of these names.
    Named(&'static [&'static str]),
    /// MXFP4 as OpenAI writes it: a tensor `_blocks` of this shape, the last dimension split into blocks of 32 numbers in 16
    /// bytes, and a tensor `_scales` with a byte for each block.
    Mxfp4,
    /// So many of a tensor's first rows. Those after them say nothing; they are written as the first again.
    Begin(usize),
    /// Some of a tensor's rows, all dimensions but the last taken together: `count` times `len` rows, the first of them at
    /// `first` and then every `step`.
    Rows {
        /// The first row.
        first: usize,
        /// How many follow one another.
        len: usize,
        /// From one such stretch to the next.
        step: usize,
        /// How many stretches.
        count: usize,
    },
}

/// What is done with values that a file holds in another order. They are decoded to f32 for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrange {
    /// They are `count` matrices one after another, of which `len` columns are taken and each matrix transposed.
    Transposed {
        /// How many matrices.
        count: usize,
        /// The first of their columns.
        first: usize,
        /// From one of the columns to the next.
        step: usize,
        /// How many columns.
        len: usize,
    },
    /// So many rows one after another are multiplied with a factor each.
    Scaled(Vec<(usize, f64)>),
    /// Blocks and scales are put together, of all rows each `step`-th from `first` on.
    Mxfp4 {
        /// The first row.
        first: usize,
        /// From one row to the next.
        step: usize,
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
    /// Whether it holds bytes that are no numbers by themselves.
    pub bytes: bool,
}

impl Stored {
    /// As one tensor.
    pub fn whole(name: impl Into<String>, shape: &[usize]) -> Self {
        Stored { name: name.into(), after: String::new(), shape: shape.to_vec(), what: What::Whole, arrange: None }
    }

    /// As `count` tensors of this shape, whose names are a number between `before` and `after`.
    pub fn each(count: usize, before: impl Into<String>, after: impl Into<String>, shape: &[usize]) -> Self {
        Stored { after: after.into(), what: What::Each(count), ..Stored::whole(before, shape) }
    }

    /// As tensors of this shape, whose names stand between `before` and `after`.
    pub fn named(
        names: &'static [&'static str],
        before: impl Into<String>,
        after: impl Into<String>,
        shape: &[usize],
    ) -> Self {
        Stored { after: after.into(), what: What::Named(names), ..Stored::whole(before, shape) }
    }

    /// As the first `rows` rows of a tensor of this shape, the rest of which says nothing.
    pub fn begin(name: impl Into<String>, shape: &[usize], rows: usize) -> Self {
        Stored { what: What::Begin(rows), ..Stored::whole(name, shape) }
    }

    /// As `len` rows of a tensor of this shape, from row `first` on.
    pub fn rows(name: impl Into<String>, shape: &[usize], first: usize, len: usize) -> Self {
        Stored::strided(name, shape, first, len, len, 1)
    }

    /// As `count` times `len` rows, the first at `first` and then every `step`.
    pub fn strided(
        name: impl Into<String>,
        shape: &[usize],
        first: usize,
        len: usize,
        step: usize,
        count: usize,
    ) -> Self {
        Stored { what: What::Rows { first, len, step, count }, ..Stored::whole(name, shape) }
    }

    /// Some columns of a matrix, transposed.
    pub fn columns(name: impl Into<String>, shape: [usize; 2], columns: Range<usize>) -> Self {
        let arrange = Arrange::Transposed { count: 1, first: columns.start, step: 1, len: columns.len() };
        Stored { arrange: Some(arrange), ..Stored::whole(name, &shape) }
    }

    /// Every `step`-th column from `first` on of each matrix of a tensor, transposed. Of a tensor of two dimensions the
    /// matrices are its rows.
    pub fn turned<const N: usize>(name: impl Into<String>, shape: [usize; N], first: usize, step: usize) -> Self {
        let len = shape.last().map_or(0, |cols| cols / step);
        let arrange = Arrange::Transposed { count: shape[0], first, step, len };
        Stored { arrange: Some(arrange), ..Stored::whole(name, &shape) }
    }

    /// So many of the columns.
    pub fn only(mut self, columns: usize) -> Self {
        if let Some(Arrange::Transposed { len, .. }) = &mut self.arrange {
            *len = columns;
        }
        self
    }

    /// As matrices of this shape one below the other, each transposed.
    pub fn joined_turned(name: impl Into<String>, [count, rows, cols]: [usize; 3]) -> Self {
        Stored { shape: vec![count * rows, cols], ..Stored::turned(name, [count, rows, cols], 0, 1) }
    }

    /// As MXFP4: every `step`-th row from `first` on of a tensor of this shape.
    pub fn mxfp4(name: impl Into<String>, shape: [usize; 3], first: usize, step: usize) -> Self {
        Stored { what: What::Mxfp4, arrange: Some(Arrange::Mxfp4 { first, step }), ..Stored::whole(name, &shape) }
    }

    /// With each of `count` matrices transposed after its rows were taken.
    pub fn transposed(mut self, count: usize) -> Self {
        let len = self.shape.last().copied().unwrap_or(0);
        self.arrange = Some(Arrange::Transposed { count, first: 0, step: 1, len });
        self
    }

    /// The pieces that are joined, in order. Made one by one, because a hostile configuration may ask for very many.
    pub fn pieces(&self) -> Box<dyn Iterator<Item = Piece> + '_> {
        let piece = |name: String, rows| Piece { name, shape: self.shape.clone(), rows, bytes: false };
        match self.what {
            What::Whole => Box::new(std::iter::once(piece(self.name.clone(), None))),
            What::Begin(rows) => Box::new(std::iter::once(piece(self.name.clone(), Some(0..rows)))),
            What::Each(count) => {
                Box::new((0..count).map(move |i| piece(format!("{}{i}{}", self.name, self.after), None)))
            }
            What::Named(names) => {
                Box::new(names.iter().map(move |name| piece(format!("{}{name}{}", self.name, self.after), None)))
            }
            What::Mxfp4 => {
                let mut scales = self.shape.clone();
                scales.iter_mut().next_back().into_iter().for_each(|cols| *cols = cols.div_ceil(32));
                let blocks: Vec<usize> = scales.iter().copied().chain([16]).collect();
                let piece =
                    |end: &str, shape| Piece { name: format!("{}{end}", self.name), shape, rows: None, bytes: true };
                Box::new([piece("_blocks", blocks), piece("_scales", scales)].into_iter())
            }
            What::Rows { first, len, step, count } => Box::new((0..count).map(move |i| {
                let first = first + i * step;
                piece(self.name.clone(), Some(first..first + len))
            })),
        }
    }

    /// The same below `prefix`.
    fn within(mut self, prefix: &str) -> Stored {
        self.name = join(prefix, &self.name);
        self
    }
}

/// Gathers the tensors of a configuration.
pub(crate) struct Specs {
    pub list: Vec<TensorSpec>,
    /// Whether Hugging Face checkpoints hold the weights of norms less 1.
    pub norms_less_one: bool,
    gguf: String,
    hf: String,
}

impl Specs {
    pub fn new() -> Self {
        Specs { list: Vec::new(), norms_less_one: false, gguf: String::new(), hf: String::new() }
    }

    /// Sets what comes before the names that follow: `blk.0` and `model.layers.0`.
    pub fn within(&mut self, gguf: String, hf: String) {
        self.gguf = gguf;
        self.hf = hf;
    }

    /// Adds a tensor; `hf` has the alternatives.
    pub fn add(&mut self, gguf: &str, hf: &[&str], shape: &[usize], matrix: bool) -> &mut TensorSpec {
        let hf = hf.iter().map(|name| Stored::whole(*name, shape)).collect();
        self.add_stored(gguf, hf, shape, matrix)
    }

    /// Adds a tensor that a Hugging Face checkpoint holds in one of these ways.
    pub fn add_stored(&mut self, gguf: &str, hf: Vec<Stored>, shape: &[usize], matrix: bool) -> &mut TensorSpec {
        self.add_ways(gguf, vec![Stored::whole(gguf, shape)], hf, shape, matrix)
    }

    /// Adds a tensor that files of both kinds hold in one of these ways.
    pub fn add_ways(
        &mut self,
        name: &str,
        gguf: Vec<Stored>,
        hf: Vec<Stored>,
        shape: &[usize],
        matrix: bool,
    ) -> &mut TensorSpec {
        let within = |ways: Vec<Stored>, prefix: &str| ways.into_iter().map(|way| way.within(prefix)).collect();
        self.list.push(TensorSpec {
            name: join(&self.gguf, name),
            gguf: within(gguf, &self.gguf),
            hf: within(hf, &self.hf),
            shape: shape.to_vec(),
            map: Map::Same,
            hf_map: Map::Same,
            matrix,
            heads: None,
            moved: None,
        });
        let at = self.list.len() - 1;
        &mut self.list[at]
    }

    /// Notes that GGUF has no name for the tensor added last.
    pub fn without_gguf(&mut self) {
        if let Some(last) = self.list.last_mut() {
            last.gguf.clear();
        }
    }

    /// Notes that value heads are moved in the tensor added last.
    pub fn move_heads(&mut self, moved: Option<HeadMove>) {
        if let Some(last) = self.list.last_mut() {
            last.moved = moved;
        }
    }

    /// Adds the logarithms of decay rates, `ssm_a_log`. GGUF files have `ssm_a`, of this shape or one of `others`, and the
    /// first of those is written.
    pub fn decay_rates(&mut self, hf: Vec<Stored>, shape: &[usize], others: &[&[usize]]) {
        let shapes = others.iter().copied().chain([shape]);
        let gguf = shapes.map(|shape| Stored::whole("ssm_a", shape)).collect();
        self.add_ways("ssm_a_log", gguf, hf, shape, false).map = Map::NegExp;
    }

    /// Adds `gguf.weight` `[outputs, inputs]` and, if there is one, `gguf.bias`.
    pub fn linear(&mut self, gguf: &str, hf: &str, [outputs, inputs]: [usize; 2], bias: bool, heads: Option<usize>) {
        let weight = self.add(&format!("{gguf}.weight"), &[&format!("{hf}.weight")], &[outputs, inputs], true);
        weight.heads = heads;
        if bias {
            self.add(&format!("{gguf}.bias"), &[&format!("{hf}.bias")], &[outputs], false).heads = heads;
        }
    }

    /// Adds the tensors of a norm.
    pub fn norm(&mut self, gguf: &str, hf: &[&str], shape: &[usize], kind: NormKind) {
        let less_one = self.norms_less_one;
        let mut add = |which: &str, map| {
            let hf: Vec<Stored> = hf.iter().map(|hf| Stored::whole(format!("{hf}.{which}"), shape)).collect();
            let name = format!("{gguf}.{which}");
            // Files of Falcon-H1 have a norm whose name ends early.
            let early = (which == "weight").then(|| Stored::whole(gguf, shape));
            let ways = std::iter::once(Stored::whole(&name, shape)).chain(early).collect();
            self.add_ways(&name, ways, hf, shape, false).hf_map = map;
        };
        if kind.has_weight() {
            add("weight", if less_one { Map::LessOne } else { Map::Same });
        }
        if kind.has_bias() {
            add("bias", Map::Same);
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
        let each = Stored::each(2, "e.", ".w", &[3, 5]);
        let names: Vec<String> = each.within("l").pieces().map(|p| p.name).collect();
        assert_eq!(names, ["l.e.0.w", "l.e.1.w"]);
        let rows = |part: usize| {
            let stored = Stored::strided("s", &[2, 6, 5], part * 3, 3, 6, 2);
            stored.pieces().filter_map(|p| p.rows).collect::<Vec<_>>()
        };
        assert_eq!((rows(0), rows(1)), (vec![0..3, 6..9], vec![3..6, 9..12]));
    }

    #[test]
    fn heads_of_a_group_are_dealt_out() {
        let moved = HeadMove { axis: 0, first: 1, groups: 2, share: 3, dim: 2 };
        assert_eq!(moved.order(), [0, 1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12]);
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
