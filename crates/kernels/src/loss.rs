//! Cross-entropy of logits against target classes, with the softmax fused in.

use crate::isa::{Isa, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::softmax::{finite_max, row_max, row_sum_exp};
use crate::vecmath::{CHUNK, math, same_len};

simd_fn! {
    fn logsumexp_rows<S>(s: S, v: usize, logits: &[f32], out: &mut [f32]) {
        for (x, o) in logits.chunks_exact(v).zip(out) {
            let m = finite_max(row_max(s, x));
            *o = m + row_sum_exp(s, x, m).ln();
        }
    }

    fn backward_row<S>(s: S, x: &[f32], lse: f32, scale: f32, out: &mut [f32]) {
        let (l, k) = (s.splat(lse), s.splat(scale));
        let (mut xs, mut os) = (x.chunks_exact(S::LANES), out.chunks_exact_mut(S::LANES));
        for (x, o) in (&mut xs).zip(&mut os) {
            s.store(s.mul(math::exp(s, s.sub(s.load(x), l)), k), o);
        }
        let rest = s.load_partial(xs.remainder());
        s.store_partial(s.mul(math::exp(s, s.sub(rest, l)), k), os.into_remainder());
    }
}

/// out[r] = ln Σⱼ e^x[r, j] for x[rows, d]; absolute error at most (d/64 + 8 + |out|)·2⁻²⁴.
///
/// # Panics
/// If a length does not match.
pub fn logsumexp(x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    logsumexp_isa(isa(), x, rows, d, out)
}

fn logsumexp_isa(isa: Isa, x: &[f32], rows: usize, d: usize, out: &mut [f32]) {
    same_len("logsumexp", x.len(), rows * d);
    same_len("logsumexp", out.len(), rows);
    if d == 0 {
        return out.fill(f32::NEG_INFINITY);
    }
    if rows * d < 2 * CHUNK {
        return logsumexp_rows(isa, d, x, out);
    }
    let per = (CHUNK / d).max(1);
    pool::parallel_chunks(out, per, &|i, o| {
        let at = i * per * d;
        logsumexp_rows(isa, d, &x[at..at + o.len() * d], o)
    });
}

/// What [`cross_entropy`] found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrossEntropy {
    /// The mean over counted rows; NaN if none counts, as in PyTorch.
    pub mean: f64,
    /// How many rows count: all whose target is not `ignore`.
    pub count: usize,
}

/// The mean of logsumexp(logits[i]) − logits[i, target[i]] over the rows of logits[n, v] whose target is not `ignore`.
///
/// Row values are f32 (see [`logsumexp`]), their sum is taken in f64 in row order. `lse[n]` receives each row's logsumexp,
/// which [`cross_entropy_backward`] needs.
///
/// # Panics
/// If a length does not match, or a counted target is not less than `v`.
pub fn cross_entropy(
    logits: &[f32],
    n: usize,
    v: usize,
    targets: &[u32],
    ignore: Option<u32>,
    lse: &mut [f32],
) -> CrossEntropy {
    cross_entropy_isa(isa(), logits, n, v, targets, ignore, lse)
}

pub(crate) fn cross_entropy_isa(
    isa: Isa,
    logits: &[f32],
    n: usize,
    v: usize,
    targets: &[u32],
    ignore: Option<u32>,
    lse: &mut [f32],
) -> CrossEntropy {
    same_len("cross_entropy targets", targets.len(), n);
    logsumexp_isa(isa, logits, n, v, lse);
    let (mut total, mut count) = (0f64, 0);
    for (i, &t) in targets.iter().enumerate() {
        if Some(t) == ignore {
            continue;
        }
        assert!((t as usize) < v, "cross_entropy: target {t} of row {i} is not a class below {v}");
        total += f64::from(lse[i]) - f64::from(logits[i * v + t as usize]);
        count += 1;
    }
    CrossEntropy { mean: total / count as f64, count }
}

/// dlogits[i, j] = (e^(logits[i, j] − lse[i]) − [j = target[i]])·scale, 0 in ignored rows; overwritten.
///
/// For the gradient of the mean, `scale` is the loss's own gradient divided by [`CrossEntropy::count`].
///
/// # Panics
/// If a length does not match, or a counted target is not less than `v`.
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy_backward(
    logits: &[f32],
    n: usize,
    v: usize,
    targets: &[u32],
    ignore: Option<u32>,
    lse: &[f32],
    scale: f32,
    dlogits: &mut [f32],
) {
    cross_entropy_backward_isa(isa(), logits, n, v, targets, ignore, lse, scale, dlogits)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn cross_entropy_backward_isa(
    isa: Isa,
    logits: &[f32],
    n: usize,
    v: usize,
    targets: &[u32],
    ignore: Option<u32>,
    lse: &[f32],
    scale: f32,
    dlogits: &mut [f32],
) {
    same_len("cross_entropy_backward logits", logits.len(), n * v);
    same_len("cross_entropy_backward dlogits", dlogits.len(), n * v);
    same_len("cross_entropy_backward targets", targets.len(), n);
    same_len("cross_entropy_backward lse", lse.len(), n);
    let per = (CHUNK / v.max(1)).max(1);
    let shared = SharedMut::new(dlogits);
    let task = |i: usize| {
        for r in i * per..n.min((i + 1) * per) {
            // SAFETY: the tasks' rows do not overlap.
            let out = unsafe { shared.slice(r * v, v) };
            if Some(targets[r]) == ignore {
                out.fill(0.0);
            } else {
                backward_row(isa, &logits[r * v..(r + 1) * v], lse[r], scale, out);
                out[targets[r] as usize] -= scale;
            }
        }
    };
    if n * v < 2 * CHUNK {
        (0..n.div_ceil(per)).for_each(task);
    } else {
        pool::parallel(n.div_ceil(per), &task);
    }
}
