use imaginal_kernels::pool;

use super::Binary;
use crate::layout::Layout;
use crate::{Element, Error, Result};

const PARALLEL: usize = 1 << 15;

/// `out = f(a, b)` over two views of one shape; `out` is dense.
pub(crate) fn map2<A: Element, B: Element, O: Element>(
    a: &[A],
    la: &Layout,
    b: &[B],
    lb: &Layout,
    out: &mut [O],
    f: impl Fn(A, B) -> O + Sync + Copy,
) {
    // One run: slices where the stride is one, a repeated value where it is zero, else single steps.
    let run = |(pa, ia): (usize, usize), (pb, ib): (usize, usize), dst: &mut [O]| {
        let n = dst.len();
        match (ia, ib) {
            (1, 1) => dst.iter_mut().zip(&a[pa..pa + n]).zip(&b[pb..pb + n]).for_each(|((o, &x), &y)| *o = f(x, y)),
            (1, 0) => {
                let y = b[pb];
                dst.iter_mut().zip(&a[pa..pa + n]).for_each(|(o, &x)| *o = f(x, y));
            }
            (0, 1) => {
                let x = a[pa];
                dst.iter_mut().zip(&b[pb..pb + n]).for_each(|(o, &y)| *o = f(x, y));
            }
            _ => dst.iter_mut().enumerate().for_each(|(i, o)| *o = f(a[pa + i * ia], b[pb + i * ib])),
        }
    };
    walk(la, lb, out, &run);
}

/// A function of one run: start and stride of both views, and the results.
type Run<'a, O> = &'a (dyn Fn((usize, usize), (usize, usize), &mut [O]) + Sync);

/// Calls `run` for every run of `out`, in parallel where there is much of it. The function is called through a pointer,
/// so that this is compiled once per type and not once per function.
fn walk<O: Element>(la: &Layout, lb: &Layout, out: &mut [O], run: Run<O>) {
    if out.is_empty() {
        return;
    }
    let (dims, sa, sb) = collapse(la, lb);
    let rank = dims.len();
    let (inner, ia, ib) = match rank {
        0 => (1, 1, 1),
        _ => (dims[rank - 1], sa[rank - 1], sb[rank - 1]),
    };
    let outer = &dims[..rank.saturating_sub(1)];
    if outer.iter().product::<usize>() == 1 {
        let chunk =
            if out.len() < PARALLEL { out.len() } else { out.len().div_ceil(pool::threads()).next_multiple_of(16) };
        pool::parallel_chunks(out, chunk, &|t, dst| {
            run((la.offset() + t * chunk * ia, ia), (lb.offset() + t * chunk * ib, ib), dst);
        });
        return;
    }
    let rows = out.len() / inner;
    let per_task = if out.len() < PARALLEL { rows } else { rows.div_ceil(pool::threads()) };
    pool::parallel_chunks(out, per_task * inner, &|t, dst| {
        for (r, dst) in dst.chunks_mut(inner).enumerate() {
            let (mut pa, mut pb, mut r) = (la.offset(), lb.offset(), t * per_task + r);
            for d in (0..outer.len()).rev() {
                let i = r % outer[d];
                r /= outer[d];
                pa += i * sa[d];
                pb += i * sb[d];
            }
            run((pa, ia), (pb, ib), dst);
        }
    });
}

/// Merges neighbouring dimensions that both layouts step through evenly, and drops those of size 1.
fn collapse(la: &Layout, lb: &Layout) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let (mut dims, mut sa, mut sb): (Vec<usize>, Vec<usize>, Vec<usize>) = Default::default();
    for ((&d, &x), &y) in la.dims().iter().zip(la.strides()).zip(lb.strides()) {
        if d == 1 {
            continue;
        }
        match (dims.last_mut(), sa.last_mut(), sb.last_mut()) {
            (Some(n), Some(px), Some(py)) if *px == x * d && *py == y * d => {
                *n *= d;
                *px = x;
                *py = y;
            }
            _ => {
                dims.push(d);
                sa.push(x);
                sb.push(y);
            }
        }
    }
    (dims, sa, sb)
}

/// What the operations need of an element type beyond [`Element`].
trait Arithmetic: Element {
    fn add(self, o: Self) -> Self;
    fn sub(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    fn div(self, o: Self) -> Self;
}

macro_rules! float {
    ($($t:ty),*) => {$(impl Arithmetic for $t {
        #[inline(always)]
        fn add(self, o: Self) -> Self { self + o }
        #[inline(always)]
        fn sub(self, o: Self) -> Self { self - o }
        #[inline(always)]
        fn mul(self, o: Self) -> Self { self * o }
        #[inline(always)]
        fn div(self, o: Self) -> Self { self / o }
    })*};
}
float!(f64, f32, half::f16, half::bf16);

macro_rules! integer {
    ($($t:ty),*) => {$(impl Arithmetic for $t {
        #[inline(always)]
        fn add(self, o: Self) -> Self { self.wrapping_add(o) }
        #[inline(always)]
        fn sub(self, o: Self) -> Self { self.wrapping_sub(o) }
        #[inline(always)]
        fn mul(self, o: Self) -> Self { self.wrapping_mul(o) }
        // Division by zero has been refused before the loop.
        #[inline(always)]
        fn div(self, o: Self) -> Self { self.checked_div(o).unwrap_or(self) }
    })*};
}
integer!(i64, i32, u32, u8);

#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
#[expect(private_bounds, reason = "the bound is met by every element type that `with_element!` binds")]
pub(crate) fn run<T: Arithmetic>(
    kind: Binary,
    a: &[T],
    la: &Layout,
    b: &[T],
    lb: &Layout,
    out: &mut [T],
) -> Result<()> {
    match kind {
        Binary::Add => map2(a, la, b, lb, out, T::add),
        Binary::Sub => map2(a, la, b, lb, out, T::sub),
        Binary::Mul => map2(a, la, b, lb, out, T::mul),
        Binary::Div => {
            if !T::DTYPE.is_float() {
                let rows = lb.rows();
                let (len, stride) = (rows.len, rows.stride);
                let zero = T::from_f64(0.0);
                if { rows }.any(|r| (0..len).any(|i| b[r + i * stride] == zero)) {
                    return Err(Error::argument("div", "an integer is divided by zero"));
                }
            }
            map2(a, la, b, lb, out, T::div)
        }
        // NaN wins, as in PyTorch.
        Binary::Maximum => map2(a, la, b, lb, out, |x, y| if x >= y || x != x { x } else { y }),
        Binary::Minimum => map2(a, la, b, lb, out, |x, y| if x <= y || x != x { x } else { y }),
        Binary::Pow if T::DTYPE == crate::DType::F32 => {
            map2(a, la, b, lb, out, |x, y| T::from_f64((x.to_f64() as f32).powf(y.to_f64() as f32) as f64))
        }
        Binary::Pow => map2(a, la, b, lb, out, |x, y| T::from_f64(x.to_f64().powf(y.to_f64()))),
    }
    Ok(())
}

/// `out += src`.
pub(super) fn add_in_place(out: &mut [f32], src: &[f32]) {
    let chunk =
        if out.len() < PARALLEL { out.len().max(1) } else { out.len().div_ceil(pool::threads()).next_multiple_of(16) };
    pool::parallel_chunks(out, chunk, &|t, dst| {
        dst.iter_mut().zip(&src[t * chunk..]).for_each(|(o, &x)| *o += x);
    });
}
