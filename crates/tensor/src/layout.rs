use crate::{Error, Result};

/// The sizes of a tensor's dimensions, outermost first. Anything that names sizes converts into it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// How many elements a tensor of this shape has, if that fits a `usize`.
    pub fn checked_count(&self) -> Option<usize> {
        // Sizes beside a 0 have to fit too: strides and partial products are made of them.
        let n = self.0.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
        Some(if self.0.contains(&0) { 0 } else { n })
    }
}

impl From<()> for Shape {
    fn from(_: ()) -> Self {
        Shape(Vec::new())
    }
}
impl From<usize> for Shape {
    fn from(d: usize) -> Self {
        Shape(vec![d])
    }
}
impl From<&[usize]> for Shape {
    fn from(d: &[usize]) -> Self {
        Shape(d.to_vec())
    }
}
impl From<Vec<usize>> for Shape {
    fn from(d: Vec<usize>) -> Self {
        Shape(d)
    }
}
impl From<&Vec<usize>> for Shape {
    fn from(d: &Vec<usize>) -> Self {
        Shape(d.clone())
    }
}
impl From<&Shape> for Shape {
    fn from(s: &Shape) -> Self {
        s.clone()
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(d: [usize; N]) -> Self {
        Shape(d.to_vec())
    }
}
impl<const N: usize> From<&[usize; N]> for Shape {
    fn from(d: &[usize; N]) -> Self {
        Shape(d.to_vec())
    }
}
macro_rules! shape_tuple {
    ($($n:ident: $i:tt),+) => {
        impl From<($(shape_tuple!(@ $n),)+)> for Shape {
            fn from(d: ($(shape_tuple!(@ $n),)+)) -> Self { Shape(vec![$(d.$i),+]) }
        }
    };
    (@ $n:ident) => { usize };
}
shape_tuple!(a: 0);
shape_tuple!(a: 0, b: 1);
shape_tuple!(a: 0, b: 1, c: 2);
shape_tuple!(a: 0, b: 1, c: 2, d: 3);
shape_tuple!(a: 0, b: 1, c: 2, d: 3, e: 4);
shape_tuple!(a: 0, b: 1, c: 2, d: 3, e: 4, f: 5);

/// How the elements of a tensor lie in its storage: sizes, strides and offset, all counted in elements.
/// A stride of 0 is a broadcast dimension.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    shape: Shape,
    strides: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Row-major, densely packed, from the start of the storage.
    pub fn contiguous(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let mut strides = vec![1; shape.0.len()];
        for i in (0..shape.0.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1] * shape.0[i + 1].max(1);
        }
        Layout { shape, strides, offset: 0 }
    }

    /// Sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.shape.0
    }

    /// Strides in elements, one per dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Where the first element lies.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.0.iter().product()
    }

    /// Whether the elements lie row-major without gaps (dimensions of size 1 may have any stride).
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&d, &s) in self.dims().iter().zip(&self.strides).rev() {
            if d != 1 && s != expected {
                return d == 0 || self.count() == 0;
            }
            expected *= d;
        }
        true
    }

    pub(crate) fn check_dim(&self, op: &'static str, dim: usize) -> Result<()> {
        if dim >= self.dims().len() {
            return Err(Error::OutOfRange { op, what: "dimension", index: dim, bound: self.dims().len() });
        }
        Ok(())
    }

    pub(crate) fn narrow(&self, op: &'static str, dim: usize, start: usize, len: usize) -> Result<Self> {
        self.check_dim(op, dim)?;
        let size = self.dims()[dim];
        match start.checked_add(len) {
            Some(end) if end <= size => {}
            _ => {
                return Err(Error::OutOfRange {
                    op,
                    what: "end of range",
                    index: start.saturating_add(len),
                    bound: size,
                });
            }
        }
        let mut l = self.clone();
        l.offset += start * l.strides[dim];
        l.shape.0[dim] = len;
        Ok(l)
    }

    pub(crate) fn permute(&self, op: &'static str, order: &[usize]) -> Result<Self> {
        let mut seen = vec![false; self.dims().len()];
        for &d in order {
            self.check_dim(op, d)?;
            seen[d] = true;
        }
        if order.len() != seen.len() || !seen.iter().all(|&s| s) {
            return Err(Error::argument(op, format!("{order:?} is not an order of {} dimensions", seen.len())));
        }
        Ok(Layout {
            shape: Shape(order.iter().map(|&d| self.dims()[d]).collect()),
            strides: order.iter().map(|&d| self.strides[d]).collect(),
            offset: self.offset,
        })
    }

    /// The same elements seen in a larger shape: missing leading dimensions and dimensions of size 1 repeat.
    pub(crate) fn broadcast(&self, op: &'static str, shape: &[usize]) -> Result<Self> {
        let fail = || Error::shapes(op, self.dims(), shape);
        let lead = shape.len().checked_sub(self.dims().len()).ok_or_else(fail)?;
        let mut strides = vec![0; shape.len()];
        for (i, (&d, &s)) in self.dims().iter().zip(&self.strides).enumerate() {
            if d == shape[lead + i] {
                strides[lead + i] = s;
            } else if d != 1 {
                return Err(fail());
            }
        }
        let shape = Shape(shape.to_vec());
        if shape.checked_count().is_none() {
            return Err(Error::argument(op, format!("shape {:?} has more elements than can be counted", shape.dims())));
        }
        Ok(Layout { shape, strides, offset: self.offset })
    }

    /// A view with another shape, where the strides allow one without a copy.
    pub(crate) fn reshape(&self, shape: &Shape) -> Option<Self> {
        if self.is_contiguous() {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape.clone()) });
        }
        // Runs of old dimensions that are dense among themselves may be split and merged freely within a run.
        let old: Vec<(usize, usize)> =
            self.dims().iter().copied().zip(self.strides.iter().copied()).filter(|&(d, _)| d != 1).collect();
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (d, s) in old {
            match runs.last_mut() {
                Some((n, stride)) if *stride == s * d => {
                    *n *= d;
                    *stride = s;
                }
                _ => runs.push((d, s)),
            }
        }
        let mut strides = vec![0; shape.0.len()];
        let mut i = shape.0.len();
        for &(n, s) in runs.iter().rev() {
            let mut left = n;
            let mut stride = s;
            while left > 1 {
                i = i.checked_sub(1)?;
                let d = shape.0[i];
                if d == 0 || left % d != 0 {
                    return None;
                }
                strides[i] = stride;
                stride *= d;
                left /= d;
            }
        }
        if shape.0[..i].iter().any(|&d| d != 1) {
            return None;
        }
        Some(Layout { shape: shape.clone(), strides, offset: self.offset })
    }

    pub(crate) fn insert_dim(&self, at: usize) -> Self {
        let mut l = self.clone();
        l.shape.0.insert(at, 1);
        l.strides.insert(at, 0);
        l
    }

    pub(crate) fn remove_dim(&self, at: usize) -> Self {
        let mut l = self.clone();
        l.shape.0.remove(at);
        l.strides.remove(at);
        l
    }

    /// Offsets of the starts of innermost rows in row-major order, with the length and stride of a row.
    /// Dense trailing dimensions are merged, so that a contiguous layout is one row.
    pub(crate) fn rows(&self) -> Rows {
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (&d, &s) in self.dims().iter().zip(&self.strides) {
            if d == 1 {
                continue;
            }
            match dims.last_mut() {
                Some((n, stride)) if *stride == s * d => {
                    *n *= d;
                    *stride = s;
                }
                _ => dims.push((d, s)),
            }
        }
        let (len, stride) = dims.pop().unwrap_or((1, 1));
        let count = if self.count() == 0 { 0 } else { dims.iter().map(|&(d, _)| d).product() };
        Rows { index: vec![0; dims.len()], dims, next: self.offset, left: count, len, stride }
    }
}

/// Iterator of [`Layout::rows`].
pub(crate) struct Rows {
    dims: Vec<(usize, usize)>,
    index: Vec<usize>,
    next: usize,
    left: usize,
    /// Elements in a row.
    pub len: usize,
    /// Stride between elements of a row.
    pub stride: usize,
}

impl Iterator for Rows {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        for (i, &(d, s)) in self.index.iter_mut().zip(&self.dims).rev() {
            *i += 1;
            self.next += s;
            if *i < d {
                break;
            }
            self.next -= *i * s;
            *i = 0;
        }
        Some(at)
    }
}

/// The shape that two shapes broadcast to, by NumPy's rule.
pub(crate) fn broadcast_shape(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::shapes(op, a, b)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_visit_every_element_in_order() {
        let l = Layout::contiguous([2, 3, 4]).permute("t", &[1, 0, 2]).unwrap();
        let rows = l.rows();
        let (len, stride) = (rows.len, rows.stride);
        let all: Vec<usize> = rows.flat_map(|r| (0..len).map(move |i| r + i * stride)).collect();
        let expected: Vec<usize> =
            (0..3).flat_map(|i| (0..2).flat_map(move |j| (0..4).map(move |k| j * 12 + i * 4 + k))).collect();
        assert_eq!(all, expected);
        assert_eq!(Layout::contiguous([2, 3]).rows().count(), 1);
        assert_eq!(Layout::contiguous([0, 3]).rows().count(), 0);
        assert_eq!(Layout::contiguous(()).rows().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn reshape_keeps_strided_views_where_possible() {
        let l = Layout::contiguous([4, 6, 8]).narrow("t", 1, 2, 3).unwrap();
        let split = l.reshape(&Shape::from([2, 2, 3, 2, 4])).unwrap();
        assert_eq!(split.strides(), [96, 48, 8, 4, 1]);
        assert_eq!(split.offset(), 16);
        assert!(l.reshape(&Shape::from([12, 8])).is_none());
        let t = Layout::contiguous([4, 6]).permute("t", &[1, 0]).unwrap();
        assert!(t.reshape(&Shape::from(24)).is_none());
        assert_eq!(t.reshape(&Shape::from([3, 2, 4])).unwrap().strides(), [2, 1, 6]);
    }

    #[test]
    fn broadcast_follows_numpy() {
        assert_eq!(broadcast_shape("t", &[3, 1], &[2, 1, 4]).unwrap(), [2, 3, 4]);
        assert!(broadcast_shape("t", &[3], &[2]).is_err());
        assert_eq!(broadcast_shape("t", &[0], &[1]).unwrap(), [0]);
    }
}
