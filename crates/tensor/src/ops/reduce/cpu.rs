use imaginal_kernels::pool;

use super::Reduce;
use crate::{DType, Element, Layout};

/// Below this many elements one thread is quicker.
const PARALLEL: usize = 1 << 15;

/// Walks the elements of a layout (reduced dimensions last) in runs of `run`, calling `each(result index, offsets)`.
struct Runs<'a> {
    layout: &'a Layout,
    run: usize,
}

impl Runs<'_> {
    /// Offset of element `i` in row-major order.
    fn offset(&self, mut i: usize) -> usize {
        let mut at = self.layout.offset();
        for (&d, &s) in self.layout.dims().iter().zip(self.layout.strides()).rev() {
            at += i % d * s;
            i /= d;
        }
        at
    }

    /// Stride within a run, if the whole run has one.
    fn stride(&self) -> Option<usize> {
        let (mut n, mut stride) = (1, None);
        for (&d, &s) in self.layout.dims().iter().zip(self.layout.strides()).rev() {
            if n >= self.run {
                break;
            }
            if d != 1 {
                match stride {
                    None => stride = Some(s),
                    Some(inner) if s == inner * n => {}
                    _ => return None,
                }
            }
            n *= d;
        }
        Some(stride.unwrap_or(1))
    }
}

/// Adds in `f32` lanes and `f64` between them: the error does not grow with the number of elements.
fn sum_f32(x: &[f32]) -> f64 {
    let mut total = 0.0f64;
    for block in x.chunks(256) {
        let mut lanes = [0f32; 16];
        let (head, tail) = block.as_chunks::<16>();
        for c in head {
            for (l, v) in lanes.iter_mut().zip(c) {
                *l += v;
            }
        }
        for (l, v) in lanes.iter_mut().zip(tail) {
            *l += v;
        }
        total += lanes.iter().map(|&v| v as f64).sum::<f64>();
    }
    total
}

fn sum_run<T: Element>(n: usize, at: impl Fn(usize) -> T) -> T {
    match T::DTYPE {
        DType::I64 | DType::I32 | DType::U32 | DType::U8 | DType::Bool => {
            // Two's complement: wrapping in 64 bits and truncating is wrapping in fewer.
            let sum = (0..n).fold(0i64, |s, i| s.wrapping_add(int(at(i))));
            from_int(sum)
        }
        _ => T::from_f64((0..n).map(|i| at(i).to_f64()).sum()),
    }
}

fn int<T: Element>(x: T) -> i64 {
    match size_of::<T>() {
        8 => bytemuck::cast(x),
        4 if T::DTYPE == DType::I32 => bytemuck::cast::<T, i32>(x) as i64,
        4 => bytemuck::cast::<T, u32>(x) as i64,
        _ => bytemuck::cast::<T, u8>(x) as i64,
    }
}

fn from_int<T: Element>(x: i64) -> T {
    match size_of::<T>() {
        8 => bytemuck::cast(x),
        4 => bytemuck::cast(x as u32),
        _ => bytemuck::cast(x as u8),
    }
}

/// One result per run of `run` elements.
pub fn reduce<T: Element>(kind: Reduce, source: &[T], layout: &Layout, run: usize, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let runs = Runs { layout, run };
    let stride = runs.stride();
    let better = |x: T, y: T| match kind {
        Reduce::Max => x > y,
        _ => x < y,
    };
    let one = |r: usize| -> T {
        let base = if run == 0 { 0 } else { runs.offset(r * run) };
        let at = |i: usize| match stride {
            Some(s) => source[base + i * s],
            None => source[runs.offset(r * run + i)],
        };
        match kind {
            Reduce::Sum if stride == Some(1) && T::DTYPE == DType::F32 => {
                T::from_f64(sum_f32(bytemuck::cast_slice(&source[base..base + run])))
            }
            Reduce::Sum => sum_run(run, at),
            _ => (1..run).map(at).fold(at(0), |b, x| if better(x, b) || is_nan(x) { x } else { b }),
        }
    };
    // Sums over leading dimensions, as for bias gradients: whole rows are added, not single columns gathered.
    if kind == Reduce::Sum
        && T::DTYPE == DType::F32
        && let Some(s) = stride
        && s > 1
        && out.len() == s
        && layout.dims().first() == Some(&s)
        && layout.strides().first() == Some(&1)
    {
        let source: &[f32] = bytemuck::cast_slice(source);
        add_rows(&source[layout.offset()..], s, run, bytemuck::cast_slice_mut(out));
        return;
    }
    let per_task = if out.len() * run.max(1) < PARALLEL { out.len() } else { out.len().div_ceil(pool::threads() * 4) };
    pool::parallel_chunks(out, per_task, &|task, dst| {
        dst.iter_mut().enumerate().for_each(|(i, o)| *o = one(task * per_task + i));
    });
}

/// `out[c] = Σ_r source[r][c]`, in parallel over columns; blocks of rows are added in `f32`, blocks in `f64`.
fn add_rows(source: &[f32], columns: usize, rows: usize, out: &mut [f32]) {
    let chunk =
        if columns * rows < PARALLEL { columns } else { columns.div_ceil(pool::threads()).next_multiple_of(16) };
    pool::parallel_chunks(out, chunk, &|task, dst| {
        let first = task * chunk;
        let mut total = vec![0f64; dst.len()];
        let mut block = vec![0f32; dst.len()];
        for r0 in (0..rows).step_by(32) {
            block.fill(0.0);
            for r in r0..(r0 + 32).min(rows) {
                let row = &source[r * columns + first..][..dst.len()];
                block.iter_mut().zip(row).for_each(|(b, x)| *b += x);
            }
            total.iter_mut().zip(&block).for_each(|(t, &b)| *t += b as f64);
        }
        dst.iter_mut().zip(&total).for_each(|(o, &t)| *o = t as f32);
    });
}

#[allow(clippy::eq_op)]
fn is_nan<T: Element>(x: T) -> bool {
    x != x
}

/// Index within the run of its first extreme element.
pub fn arg_extreme<T: Element>(kind: Reduce, source: &[T], layout: &Layout, run: usize, out: &mut [u32]) {
    let runs = Runs { layout, run };
    for (r, o) in out.iter_mut().enumerate() {
        let mut best = (0, source[runs.offset(r * run)]);
        for i in 1..run {
            let x = source[runs.offset(r * run + i)];
            let wins = if kind == Reduce::Max { x > best.1 } else { x < best.1 };
            if (wins || is_nan(x)) && !is_nan(best.1) {
                best = (i, x);
            }
        }
        *o = best.0 as u32;
    }
}
