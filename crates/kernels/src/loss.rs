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
            s.store(s.mul(math::exp_fast(s, s.sub(s.load(x), l)), k), o);
        }
        let rest = s.load_partial(xs.remainder());
        s.store_partial(s.mul(math::exp_fast(s, s.sub(rest, l)), k), os.into_remainder());
    }
}

/// `out[r]` = ln Σⱼ e^x[r, j] for x[rows, d]; absolute error at most (d/64 + 8 + |out|)·2⁻²⁴.
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

/// The mean of `lse[i] − logits[i, targets[i]]` over the rows of logits[n, v] whose target is not `ignore`.
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

/// `dlogits[i, j] = (exp(logits[i, j] − lse[i]) − (j == targets[i]))·scale`, 0 in ignored rows; overwritten.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available;
    use crate::testing::{Random, assert_close};

    #[test]
    fn loss_and_gradient_on_every_instruction_set() {
        let mut r = Random::new(1);
        for (n, v) in [(1, 1), (4, 7), (3, 65), (20, 4096), (33, 1000)] {
            for ignore in [None, Some(0)] {
                let logits = r.vec(n * v, -8.0, 8.0);
                let targets: Vec<u32> =
                    (0..n).map(|i| if i % 3 == 1 { 0 } else { (r.bits() % v as u64) as u32 }).collect();
                let counted = |i: usize| Some(targets[i]) != ignore;
                let count = (0..n).filter(|&i| counted(i)).count();
                let (mut total, mut gradient, mut logs) = (0.0, vec![0.0; n * v], Vec::new());
                for i in 0..n {
                    let row = &logits[i * v..(i + 1) * v];
                    let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                    logs.push(sum.ln());
                    if counted(i) {
                        let t = targets[i] as usize;
                        total += sum.ln() - f64::from(row[t]);
                        for j in 0..v {
                            let p = f64::from(row[j]).exp() / sum;
                            gradient[i * v + j] = (p - if j == t { 1.0 } else { 0.0 }) / count as f64;
                        }
                    }
                }
                for isa in available() {
                    let (mut lse, mut d) = (vec![7.0; n], vec![7.0; n * v]);
                    let loss = cross_entropy_isa(isa, &logits, n, v, &targets, ignore, &mut lse);
                    assert_eq!(loss.count, count);
                    assert_close(&format!("{isa} lse"), &lse, &logs, 1e-6, 1.0);
                    if count == 0 {
                        assert!(loss.mean.is_nan());
                        continue;
                    }
                    assert!((loss.mean - total / count as f64).abs() < 2e-6, "{isa} {n}x{v}: {}", loss.mean);
                    let scale = 1.0 / count as f32;
                    cross_entropy_backward_isa(isa, &logits, n, v, &targets, ignore, &lse, scale, &mut d);
                    assert_close(&format!("{isa} dlogits"), &d, &gradient, 2e-6, scale.into());
                }
            }
        }
    }

    #[test]
    fn the_gradient_matches_differences_of_the_loss() {
        let mut r = Random::new(2);
        let logits = r.vec(3 * 5, -2.0, 2.0);
        let targets = [4, 0, 2];
        let exact = |x: &[f64]| -> f64 {
            let row = |i: usize| &x[i * 5..(i + 1) * 5];
            let loss = |i: usize| row(i).iter().map(|v| v.exp()).sum::<f64>().ln() - row(i)[targets[i] as usize];
            (0..3).map(loss).sum::<f64>() / 3.0
        };
        let (mut lse, mut d) = ([0.0; 3], [0.0; 15]);
        cross_entropy(&logits, 3, 5, &targets, None, &mut lse);
        cross_entropy_backward(&logits, 3, 5, &targets, None, &lse, 1.0 / 3.0, &mut d);
        for i in 0..15 {
            let moved = |h: f64| {
                let mut x: Vec<f64> = logits.iter().map(|v| f64::from(*v)).collect();
                x[i] += h;
                exact(&x)
            };
            assert!(((moved(1e-6) - moved(-1e-6)) / 2e-6 - f64::from(d[i])).abs() < 1e-7);
        }
    }

    #[test]
    #[should_panic(expected = "target 5 of row 0 is not a class below 5")]
    fn a_target_beyond_the_classes_is_refused() {
        cross_entropy(&[0.0; 5], 1, 5, &[5], None, &mut [0.0]);
    }
}
