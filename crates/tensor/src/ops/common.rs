//! What several operations share: loops over strided views, the arithmetic of floats of every width, checked indices.

use half::{bf16, f16};
use imaginal_kernels::pool;

use crate::{DType, Device, Element, Error, Layout, Result, Shape, Tensor};

/// Below this many elements a job is not worth waking the workers for.
pub(crate) const PARALLEL: usize = 1 << 15;
/// Elements that a strided row gathers into a buffer on the stack before a kernel for dense slices sees them.
const BLOCK: usize = 256;

/// A type that elementary functions are computed in.
pub(crate) trait Real:
    Element
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    /// A constant of a formula.
    fn of(x: f64) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn ln_1p(self) -> Self;
    fn sqrt(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn tanh(self) -> Self;
    fn abs(self) -> Self;
    fn erf(self) -> Self;
    fn powf(self, e: Self) -> Self;
}

macro_rules! real {
    ($t:ty, $erf:path) => {
#[rustfmt::skip]
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)] fn of(x: f64) -> Self { x as $t }
            #[inline(always)] fn exp(self) -> Self { self.exp() }
            #[inline(always)] fn ln(self) -> Self { self.ln() }
            #[inline(always)] fn ln_1p(self) -> Self { self.ln_1p() }
            #[inline(always)] fn sqrt(self) -> Self { self.sqrt() }
            #[inline(always)] fn sin(self) -> Self { self.sin() }
            #[inline(always)] fn cos(self) -> Self { self.cos() }
            #[inline(always)] fn tanh(self) -> Self { self.tanh() }
            #[inline(always)] fn abs(self) -> Self { self.abs() }
            #[inline(always)] fn erf(self) -> Self { $erf(self) }
            #[inline(always)] fn powf(self, e: Self) -> Self { self.powf(e) }
        }
    };
}
real!(f32, libm::erff);
real!(f64, libm::erf);

/// An element type that is a float, with the type it is computed in: itself for `f32` and `f64`, `f32` for the halves.
pub(crate) trait Float: Element {
    type Wide: Real;
    fn widen(self) -> Self::Wide;
    fn round(x: Self::Wide) -> Self;
}

macro_rules! float {
    ($t:ty, $wide:ty, $widen:expr, $round:expr) => {
        impl Float for $t {
            type Wide = $wide;
            #[inline(always)]
            fn widen(self) -> $wide {
                ($widen)(self)
            }
            #[inline(always)]
            fn round(x: $wide) -> Self {
                ($round)(x)
            }
        }
    };
}
float!(f64, f64, |x| x, |x| x);
float!(f32, f32, |x| x, |x| x);
float!(f16, f32, f16::to_f32, f16::from_f32);
float!(bf16, f32, bf16::to_f32, bf16::from_f32);

/// Runs `$body` with `$T` bound to the Rust type of a float `$dtype`; any other type is an error of `$op`.
macro_rules! with_float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            other => Err($crate::ops::common::not_a_float($op, other)),
        }
    };
}
pub(crate) use with_float;

pub(crate) fn not_a_float(op: &'static str, got: DType) -> Error {
    Error::DType { op, got, expected: "a float; cast with to_dtype".into() }
}

/// A tensor that `fill` writes, of a type that `T` stores: as [`Tensor::build`], for `Bool` too.
pub(crate) fn build_as<T: Element>(
    shape: impl Into<Shape>,
    dtype: DType,
    fill: impl FnOnce(&mut [T]) -> Result<()>,
) -> Result<Tensor> {
    let t = Tensor::build::<T>(shape, fill)?;
    Ok(if t.dtype() == dtype { t } else { t.with_dtype(dtype) })
}

/// How many elements (or rows) each task of a parallel loop over `n` of them takes, when one costs about `cost`.
pub(crate) fn per_task(n: usize, cost: usize) -> usize {
    if n.saturating_mul(cost.max(1)) < PARALLEL { n.max(1) } else { n.div_ceil(pool::threads() * 4).max(1) }
}

/// Runs `f(source, result)` over dense runs of a view and its dense result, in parallel where there are many elements.
/// What `f` writes for an element must not depend on where a run begins or ends.
///
/// The function is called through a pointer, so that this is compiled once per pair of types and not once per function.
pub(crate) fn map_runs<A: Element, O: Element>(
    source: &[A],
    layout: &Layout,
    out: &mut [O],
    f: &(dyn Fn(&[A], &mut [O]) + Sync),
) {
    let rows = layout.rows();
    let (len, stride) = (rows.len, rows.stride);
    if len == 0 || out.is_empty() {
        return;
    }
    let row = |start: usize, dst: &mut [O]| {
        if stride == 1 {
            return f(&source[start..start + dst.len()], dst);
        }
        let mut block = [source[start]; BLOCK];
        for (b, dst) in dst.chunks_mut(BLOCK).enumerate() {
            let first = start + b * BLOCK * stride;
            for (i, x) in block[..dst.len()].iter_mut().enumerate() {
                *x = source[first + i * stride];
            }
            f(&block[..dst.len()], dst);
        }
    };
    if len == out.len() {
        let chunk = per_task(len, 1).next_multiple_of(64);
        pool::parallel_chunks(out, chunk, &|t, dst| row(layout.offset() + t * chunk * stride, dst));
        return;
    }
    let starts: Vec<usize> = rows.collect();
    let per = per_task(starts.len(), len);
    pool::parallel_chunks(out, per * len, &|t, dst| {
        for (&start, dst) in starts[t * per..].iter().zip(dst.chunks_mut(len)) {
            row(start, dst);
        }
    });
}

/// [`map_runs`] with a function of one element.
pub(crate) fn map<A: Element, O: Element>(source: &[A], layout: &Layout, out: &mut [O], f: impl Fn(A) -> O + Sync) {
    map_runs(source, layout, out, &|src, dst| dst.iter_mut().zip(src).for_each(|(o, &x)| *o = f(x)));
}

/// A dense copy of a view.
pub(crate) fn copy<T: Element>(source: &[T], layout: &Layout, out: &mut [T]) {
    map_runs(source, layout, out, &|src, dst| dst.copy_from_slice(src));
}

/// [`map_runs`] for the halves, through a function of `f32`.
pub(crate) fn map_runs_wide<T: Float<Wide = f32>>(
    source: &[T],
    layout: &Layout,
    out: &mut [T],
    f: &(dyn Fn(&[f32], &mut [f32]) + Sync),
) {
    map_runs(source, layout, out, &|src, dst| {
        let (mut x, mut y) = ([0f32; BLOCK], [0f32; BLOCK]);
        for (src, dst) in src.chunks(BLOCK).zip(dst.chunks_mut(BLOCK)) {
            let (x, y) = (&mut x[..src.len()], &mut y[..src.len()]);
            x.iter_mut().zip(src).for_each(|(x, &s)| *x = s.widen());
            f(x, y);
            dst.iter_mut().zip(&*y).for_each(|(d, &y)| *d = T::round(y));
        }
    });
}

/// The indices of an integer tensor, row-major, each below `bound`.
pub(crate) fn indices(op: &'static str, ids: &Tensor, bound: usize) -> Result<Vec<usize>> {
    fn read<T: Element>(
        op: &'static str,
        source: &[T],
        layout: &Layout,
        bound: usize,
        convert: impl Fn(T) -> std::result::Result<usize, i64>,
    ) -> Result<Vec<usize>> {
        let rows = layout.rows();
        let (len, stride) = (rows.len, rows.stride);
        let mut all = Vec::with_capacity(layout.count());
        for start in rows {
            for i in 0..len {
                match convert(source[start + i * stride]) {
                    Ok(index) if index < bound => all.push(index),
                    Ok(index) => {
                        let what =
                            format!("index {index} (number {} of the indices) is out of range for {bound}", all.len());
                        return Err(Error::argument(op, what));
                    }
                    Err(index) => {
                        let what = format!("index {index} (number {} of the indices) is negative", all.len());
                        return Err(Error::argument(op, what));
                    }
                }
            }
        }
        Ok(all)
    }
    let ids = ids.to_device(&Device::Cpu)?;
    let l = ids.layout();
    // A number that does not fit a usize lies beyond any bound.
    match ids.dtype() {
        DType::U32 => read(op, ids.cpu_storage::<u32>(op)?, l, bound, |x| Ok(x as usize)),
        DType::I32 => read(op, ids.cpu_storage::<i32>(op)?, l, bound, |x| usize::try_from(x).map_err(|_| x as i64)),
        DType::I64 => read(op, ids.cpu_storage::<i64>(op)?, l, bound, |x| {
            if x < 0 { Err(x) } else { Ok(usize::try_from(x).unwrap_or(usize::MAX)) }
        }),
        got => Err(Error::DType { op, got, expected: "u32, i32 or i64 indices".into() }),
    }
}

/// The sizes around dimension `dim`: the product of those before it, its own, the product of those after it.
pub(crate) fn around(shape: &[usize], dim: usize) -> (usize, usize, usize) {
    (shape[..dim].iter().product(), shape[dim], shape[dim + 1..].iter().product())
}

/// Both tensors must live on one device.
pub(crate) fn same_device(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.device() != b.device() {
        return Err(Error::DeviceMismatch { op, lhs: a.device().to_string(), rhs: b.device().to_string() });
    }
    Ok(())
}

impl Tensor {
    /// Zeros of the same shape, type and device.
    ///
    /// # Errors
    /// The device refuses.
    pub fn zeros_like(&self) -> Result<Tensor> {
        self.full_like(0.0)
    }

    /// Ones of the same shape, type and device.
    ///
    /// # Errors
    /// The device refuses.
    pub fn ones_like(&self) -> Result<Tensor> {
        self.full_like(1.0)
    }

    /// `value` (rounded to the type) in the same shape, type and device.
    ///
    /// # Errors
    /// The device refuses.
    pub fn full_like(&self, value: f64) -> Result<Tensor> {
        Tensor::full(self.shape(), value, self.dtype(), self.device())
    }
}

/// A type whose values can be added up, with what they are added up in: `f64` for floats, wrapping 64 bits for integers.
pub(crate) trait Sum: Element {
    type Acc: Copy + Send + Sync;
    const ZERO: Self::Acc;
    fn lift(self) -> Self::Acc;
    fn join(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn lower(a: Self::Acc) -> Self;
    /// The sum of two, rounded or wrapped.
    fn plus(self, other: Self) -> Self;
}

macro_rules! sum {
    (float: $($t:ty),*) => {$(impl Sum for $t {
        type Acc = f64;
        const ZERO: f64 = 0.0;
        #[inline(always)]
        fn lift(self) -> f64 { self.to_f64() }
        #[inline(always)]
        fn join(a: f64, b: f64) -> f64 { a + b }
        #[inline(always)]
        fn lower(a: f64) -> Self { Element::from_f64(a) }
        #[inline(always)]
        fn plus(self, other: Self) -> Self { self + other }
    })*};
    (integer: $($t:ty),*) => {$(impl Sum for $t {
        type Acc = i64;
        const ZERO: i64 = 0;
        #[inline(always)]
        fn lift(self) -> i64 { self as i64 }
        #[inline(always)]
        fn join(a: i64, b: i64) -> i64 { a.wrapping_add(b) }
        #[inline(always)]
        fn lower(a: i64) -> Self { a as $t }
        #[inline(always)]
        fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
    })*};
}
sum!(float: f64, f32, f16, bf16);
sum!(integer: i64, i32, u32, u8);

/// The error of an operation that takes numbers only.
pub(crate) fn not_bool(op: &'static str, x: &Tensor) -> Result<()> {
    match x.dtype() {
        DType::Bool => Err(Error::DType { op, got: DType::Bool, expected: "a number; cast with to_dtype".into() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_views_of_every_kind() {
        let n = 70 * 600;
        let x = Tensor::from_vec((0..n).map(|i| i as f32).collect(), [70, 600], &Device::Cpu).unwrap();
        let one = Tensor::from_vec(vec![3f32], 1, &Device::Cpu).unwrap();
        for view in [
            x.clone(),
            x.t().unwrap(),
            x.narrow(1, 7, 500).unwrap(),
            x.narrow(0, 3, 2).unwrap(),
            x.narrow(1, 7, 1).unwrap(),
            x.narrow(0, 0, 0).unwrap(),
            one.broadcast_as([40, 1000]).unwrap(),
            x.narrow(0, 0, 1).unwrap().broadcast_as([70, 600]).unwrap(),
        ] {
            let mut out = vec![0f64; view.elem_count()];
            map(view.cpu_storage::<f32>("t").unwrap(), view.layout(), &mut out, |x| x as f64 + 1.0);
            let expected: Vec<f64> = view.to_vec::<f32>().unwrap().into_iter().map(|x| x as f64 + 1.0).collect();
            assert!(out == expected, "{view:?}");
        }
    }

    #[test]
    fn indices_name_what_is_wrong() {
        let cpu = &Device::Cpu;
        let ok = Tensor::from_vec(vec![2u32, 0, 1, 1], [2, 2], cpu).unwrap().t().unwrap();
        assert_eq!(indices("t", &ok, 3).unwrap(), [2, 1, 0, 1]);
        let far = Tensor::from_vec(vec![0i64, 7], 2, cpu).unwrap();
        let e = indices("t", &far, 7).unwrap_err().to_string();
        assert!(e.contains("index 7") && e.contains("number 1") && e.contains("for 7"), "{e}");
        let negative = Tensor::from_vec(vec![-1i32], 1, cpu).unwrap();
        assert!(indices("t", &negative, 7).unwrap_err().to_string().contains("-1"));
        let huge = Tensor::from_vec(vec![i64::MAX], 1, cpu).unwrap();
        assert!(indices("t", &huge, usize::MAX - 1).is_ok() || usize::BITS == 32);
        assert!(indices("t", &Tensor::from_vec(vec![0f32], 1, cpu).unwrap(), 7).is_err());
        assert!(indices("t", &Tensor::from_vec(Vec::<u32>::new(), 0, cpu).unwrap(), 0).unwrap().is_empty());
    }
}
