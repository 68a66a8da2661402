//! Attention and its gradients against f64, whose gradients are checked against differences.

#![allow(clippy::needless_range_loop)] // the oracles are written as their formulas

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

#[derive(Clone)]
pub(super) struct Case {
    pub shape: AttentionShape,
    pub opts: AttentionOpts,
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub g: Vec<f64>,
    pub sinks: Option<Vec<f64>>,
}

/// [b, t, h, d] of a contiguous tensor.
pub(super) fn at(t: usize, h: usize, d: usize, i: [usize; 4]) -> usize {
    ((i[0] * t + i[1]) * h + i[2]) * d + i[3]
}

impl Case {
    pub fn new(shape: AttentionShape, opts: AttentionOpts) -> Self {
        let AttentionShape { b, tq, tk, hq, hkv, d, dv } = shape;
        let mut r = Random::new((tq * 1000 + tk * 10 + d) as u64);
        let mut x = |n: usize| wide(&r.vec(n, -1.5, 1.5));
        Self {
            shape,
            opts,
            q: x(b * tq * hq * d),
            k: x(b * tk * hkv * d),
            v: x(b * tk * hkv * dv),
            g: x(b * tq * hq * dv),
            sinks: None,
        }
    }

    /// Sinks below, among and above the scores.
    pub fn with_sinks(mut self) -> Self {
        self.sinks = Some((0..self.shape.hq).map(|h| [-2.0, 0.25, 3.0][h % 3]).collect());
        self
    }

    fn sees(&self, i: usize, j: usize) -> bool {
        let p = self.opts.q_start + i;
        let near = self.opts.window.is_none_or(|w| p.abs_diff(j) < w);
        !(self.opts.causal && j > p) && near && self.opts.chunk.is_none_or(|c| p / c == j / c)
    }

    /// Probabilities of query (b, i, h), d score/d (scale·q·k) for each key, and the logarithm of the sum.
    fn row(&self, b: usize, i: usize, h: usize) -> (Vec<f64>, Vec<f64>, f64) {
        let s = self.shape;
        let kv = h / (s.hq / s.hkv);
        let mut scores = vec![f64::NEG_INFINITY; s.tk];
        let mut slopes = vec![1.0; s.tk];
        for j in (0..s.tk).filter(|&j| self.sees(i, j)) {
            let dot: f64 = (0..s.d)
                .map(|e| self.q[at(s.tq, s.hq, s.d, [b, i, h, e])] * self.k[at(s.tk, s.hkv, s.d, [b, j, kv, e])])
                .sum();
            scores[j] = dot * f64::from(self.opts.scale);
            if let Some(cap) = self.opts.softcap.map(f64::from) {
                let t = (scores[j] / cap).tanh();
                (scores[j], slopes[j]) = (cap * t, 1.0 - t * t);
            }
        }
        let sink = self.sinks.as_ref().map_or(f64::NEG_INFINITY, |s| s[h]);
        let m = scores.iter().copied().fold(sink, f64::max);
        if m == f64::NEG_INFINITY {
            return (vec![0.0; s.tk], slopes, m);
        }
        let sum = scores.iter().map(|x| (x - m).exp()).sum::<f64>() + (sink - m).exp();
        (scores.iter().map(|x| (x - m).exp() / sum).collect(), slopes, m + sum.ln())
    }

    pub fn forward(&self) -> (Vec<f64>, Vec<f64>) {
        let s = self.shape;
        let (mut out, mut lse) = (vec![0.0; s.b * s.tq * s.hq * s.dv], vec![0.0; s.b * s.hq * s.tq]);
        for (b, h, i) in self.queries() {
            let (p, _, l) = self.row(b, i, h);
            lse[(b * s.hq + h) * s.tq + i] = l;
            for (j, p) in p.iter().enumerate() {
                for e in 0..s.dv {
                    out[at(s.tq, s.hq, s.dv, [b, i, h, e])] +=
                        p * self.v[at(s.tk, s.hkv, s.dv, [b, j, h / (s.hq / s.hkv), e])];
                }
            }
        }
        (out, lse)
    }

    fn queries(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let s = self.shape;
        (0..s.b * s.hq * s.tq).map(move |n| (n / s.tq / s.hq, n / s.tq % s.hq, n % s.tq))
    }

    fn backward(&self) -> [Vec<f64>; 3] {
        let s = self.shape;
        let [mut dq, mut dk, mut dv] = [&self.q, &self.k, &self.v].map(|x| vec![0.0; x.len()]);
        for (b, h, i) in self.queries() {
            let kv = h / (s.hq / s.hkv);
            let (p, slopes, _) = self.row(b, i, h);
            let dp: Vec<f64> = (0..s.tk)
                .map(|j| {
                    (0..s.dv)
                        .map(|e| {
                            self.g[at(s.tq, s.hq, s.dv, [b, i, h, e])] * self.v[at(s.tk, s.hkv, s.dv, [b, j, kv, e])]
                        })
                        .sum()
                })
                .collect();
            let mean: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
            for j in 0..s.tk {
                for e in 0..s.dv {
                    dv[at(s.tk, s.hkv, s.dv, [b, j, kv, e])] += p[j] * self.g[at(s.tq, s.hq, s.dv, [b, i, h, e])];
                }
                let ds = p[j] * (dp[j] - mean) * slopes[j] * f64::from(self.opts.scale);
                for e in 0..s.d {
                    let (qi, ki) = (at(s.tq, s.hq, s.d, [b, i, h, e]), at(s.tk, s.hkv, s.d, [b, j, kv, e]));
                    dq[qi] += ds * self.k[ki];
                    dk[ki] += ds * self.q[qi];
                }
            }
        }
        [dq, dk, dv]
    }
}

/// A tensor in a layout with gaps: heads before steps, and `gap` elements after each row.
struct Strided {
    data: Vec<f32>,
    dims: [usize; 4],
    strides: [usize; 3],
}

impl Strided {
    fn new(x: &[f64], [b, t, h, d]: [usize; 4], gap: usize, heads_first: bool) -> Self {
        let row = d + gap;
        let strides = if heads_first { [h * t * row, row, t * row] } else { [t * h * row, h * row, row] };
        let mut r = Self { data: vec![f32::NAN; b * t * h * row], dims: [b, t, h, d], strides };
        for (n, v) in x.iter().enumerate() {
            let i = r.position(n);
            r.data[i] = *v as f32;
        }
        r
    }

    fn position(&self, n: usize) -> usize {
        let [_, t, h, d] = self.dims;
        let [bs, ts, hs] = self.strides;
        n / d / h / t * bs + n / d / h % t * ts + n / d % h * hs + n % d
    }

    fn heads(&self) -> Heads<'_> {
        let [bs, ts, hs] = self.strides;
        Heads { data: &self.data, bs, ts, hs }
    }

    fn heads_mut(&mut self) -> HeadsMut<'_> {
        let [bs, ts, hs] = self.strides;
        HeadsMut { data: &mut self.data, bs, ts, hs }
    }

    fn contiguous(&self) -> Vec<f32> {
        (0..self.dims.iter().product()).map(|n| self.data[self.position(n)]).collect()
    }

    fn check_gaps(&self, what: &str) {
        let mut rest = self.data.clone();
        for n in 0..self.dims.iter().product() {
            rest[self.position(n)] = f32::NAN;
        }
        assert!(rest.iter().all(|v| v.is_nan()), "{what}: wrote between the rows");
    }
}

pub(super) fn plain(d: usize) -> AttentionOpts {
    AttentionOpts::causal(d, 0)
}

fn cases() -> Vec<Case> {
    let shape = |b, tq, tk, hq, hkv, d, dv| AttentionShape { b, tq, tk, hq, hkv, d, dv };
    let p = plain;
    vec![
        Case::new(shape(1, 1, 1, 1, 1, 4, 4), p(4)),
        Case::new(shape(2, 1, 70, 6, 2, 64, 64), AttentionOpts { q_start: 69, ..p(64) }),
        Case::new(shape(1, 3, 131, 4, 1, 20, 12), AttentionOpts { q_start: 128, ..p(20) }),
        Case::new(shape(1, 2, 2100, 2, 1, 8, 8), AttentionOpts { q_start: 2090, ..p(8) }),
        Case::new(shape(1, 1, 300, 2, 2, 16, 16), AttentionOpts { q_start: 290, window: Some(100), ..p(16) }),
        Case::new(shape(1, 4, 90, 2, 1, 16, 16), AttentionOpts { causal: false, softcap: Some(1.5), ..p(16) }),
        Case::new(shape(2, 5, 5, 2, 2, 8, 8), p(8)),
        Case::new(shape(1, 70, 70, 3, 3, 64, 64), p(64)),
        Case::new(shape(2, 130, 130, 4, 2, 32, 40), p(32)),
        Case::new(shape(1, 33, 150, 2, 1, 17, 5), AttentionOpts { q_start: 117, ..p(17) }),
        Case::new(shape(1, 65, 129, 1, 1, 96, 128), AttentionOpts { causal: false, ..p(96) }),
        Case::new(shape(1, 140, 140, 2, 1, 16, 16), AttentionOpts { window: Some(20), ..p(16) }),
        Case::new(shape(1, 80, 80, 1, 1, 16, 16), AttentionOpts { causal: false, window: Some(70), ..p(16) }),
        Case::new(shape(1, 50, 50, 2, 2, 8, 8), AttentionOpts { softcap: Some(1.0), scale: 1.0, ..p(8) }),
        Case::new(shape(1, 1, 100, 2, 1, 16, 16), AttentionOpts { q_start: 99, chunk: Some(32), ..p(16) }),
        Case::new(shape(1, 4, 100, 2, 1, 16, 16), AttentionOpts { q_start: 94, chunk: Some(32), ..p(16) }),
        Case::new(shape(1, 150, 150, 2, 1, 16, 16), AttentionOpts { chunk: Some(7), ..p(16) }),
        Case::new(shape(1, 90, 200, 2, 1, 16, 16), AttentionOpts { q_start: 110, chunk: Some(90), ..p(16) }),
        Case::new(
            shape(1, 70, 150, 2, 1, 16, 16),
            AttentionOpts { q_start: 5, causal: false, chunk: Some(50), ..p(16) },
        ),
        // Queries beyond the keys' window see nothing.
        Case::new(shape(1, 20, 30, 1, 1, 8, 8), AttentionOpts { q_start: 25, window: Some(10), ..p(8) }),
        Case::new(shape(1, 2, 30, 4, 2, 16, 16), AttentionOpts { q_start: 28, ..p(16) }).with_sinks(),
        Case::new(shape(2, 40, 40, 4, 2, 16, 16), AttentionOpts { window: Some(9), softcap: Some(3.0), ..p(16) })
            .with_sinks(),
    ]
}

#[test]
fn the_oracle_agrees_with_differences() {
    let shape = AttentionShape { b: 1, tq: 3, tk: 4, hq: 2, hkv: 1, d: 3, dv: 2 };
    let opts = AttentionOpts { q_start: 1, softcap: Some(2.0), window: Some(3), ..plain(3) };
    let case = Case::new(shape, opts).with_sinks();
    let objective = |c: &Case| c.forward().0.iter().zip(&c.g).map(|(a, b)| a * b).sum::<f64>();
    let gradients = case.backward();
    let fields: [fn(&mut Case) -> &mut Vec<f64>; 3] = [|c| &mut c.q, |c| &mut c.k, |c| &mut c.v];
    for (n, field) in fields.into_iter().enumerate() {
        for (i, expected) in gradients[n].iter().enumerate() {
            let moved = |h: f64| {
                let mut c = case.clone();
                field(&mut c)[i] += h;
                objective(&c)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - expected).abs() < 1e-7, "input {n}, element {i}: {slope} {expected}");
        }
    }
}

#[test]
fn forward_and_backward_on_every_instruction_set() {
    for (n, case) in cases().into_iter().enumerate() {
        let s = case.shape;
        let (qd, kd, vd, od) =
            ([s.b, s.tq, s.hq, s.d], [s.b, s.tk, s.hkv, s.d], [s.b, s.tk, s.hkv, s.dv], [s.b, s.tq, s.hq, s.dv]);
        let (out, lse) = case.forward();
        let expected = case.backward();
        let sinks = case.sinks.as_ref().map(|s| s.iter().map(|x| *x as f32).collect::<Vec<f32>>());
        for isa in available() {
            for (gap, heads_first) in [(0, false), (3, true), (5, false)] {
                let what = |name: &str| format!("{isa} case {n} gap {gap}: {name}");
                let (q, k) =
                    (Strided::new(&case.q, qd, gap, heads_first), Strided::new(&case.k, kd, gap, !heads_first));
                let (v, g) =
                    (Strided::new(&case.v, vd, gap, heads_first), Strided::new(&case.g, od, gap, !heads_first));
                let nan =
                    |dims: [usize; 4]| Strided::new(&vec![f64::NAN; dims.iter().product()], dims, gap, heads_first);
                let mut o = nan(od);
                let mut l = vec![f32::NAN; lse.len()];
                let (k_rows, v_rows) = (Rows::Tensor(k.heads()), Rows::Tensor(v.heads()));
                let x =
                    Inputs { shape: s, opts: case.opts, q: q.heads(), k: k_rows, v: v_rows, sinks: sinks.as_deref() };
                attention_isa(isa, &x, o.heads_mut(), &mut l);
                assert_close(&what("out"), &o.contiguous(), &out, 2e-6, 0.1);
                o.check_gaps(&what("out"));
                for (l, e) in l.iter().zip(&lse) {
                    assert!(f64::from(*l) == *e || (f64::from(*l) - e).abs() < 3e-6, "{}: {l} {e}", what("lse"));
                }
                let (mut dq, mut dk, mut dv) = (nan(qd), nan(kd), nan(vd));
                let result = AttentionResult { out: o.heads(), lse: &l, dout: g.heads() };
                attention_backward_isa(
                    isa,
                    s,
                    &case.opts,
                    q.heads(),
                    k.heads(),
                    v.heads(),
                    result,
                    dq.heads_mut(),
                    dk.heads_mut(),
                    dv.heads_mut(),
                );
                for (name, got, e) in [("dq", dq, &expected[0]), ("dk", dk, &expected[1]), ("dv", dv, &expected[2])] {
                    assert_close(&what(name), &got.contiguous(), e, 4e-6, 0.1);
                    got.check_gaps(&what(name));
                }
            }
        }
    }
}

fn run(shape: AttentionShape, opts: &AttentionOpts, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let s = shape;
    let mut out = vec![0.0; s.b * s.tq * s.hq * s.dv];
    let mut lse = vec![0.0; s.b * s.hq * s.tq];
    attention(
        s,
        opts,
        Heads::contiguous(q, s.tq, s.hq, s.d),
        Heads::contiguous(k, s.tk, s.hkv, s.d),
        Heads::contiguous(v, s.tk, s.hkv, s.dv),
        None,
        HeadsMut::contiguous(&mut out, s.tq, s.hq, s.dv),
        &mut lse,
    );
    out
}

#[test]
fn a_query_does_not_depend_on_its_neighbours() {
    let mut r = Random::new(3);
    let (tk, hq, hkv, d) = (200, 4, 2, 24);
    let (k, v) = (r.vec(tk * hkv * d, -1.0, 1.0), r.vec(tk * hkv * d, -1.0, 1.0));
    let q = r.vec(100 * hq * d, -1.0, 1.0);
    let row = hq * d;
    let shape = |tq| AttentionShape { b: 1, tq, tk, hq, hkv, d, dv: d };
    let opts = |q_start| AttentionOpts { q_start, window: Some(90), ..plain(d) };
    // Blocks: other first and last queries, so that the query stands elsewhere in its block.
    let all = run(shape(100), &opts(100), &q, &k, &v);
    for (from, to) in [(0, 50), (37, 100), (13, 19)] {
        let some = run(shape(to - from), &opts(100 + from), &q[from * row..to * row], &k, &v);
        assert!(some == all[from * row..to * row], "queries {from}..{to}");
    }
    // Few queries: alone and together.
    let four = run(shape(4), &opts(150), &q[..4 * row], &k, &v);
    for i in 0..4 {
        let one = run(shape(1), &opts(150 + i), &q[i * row..(i + 1) * row], &k, &v);
        assert!(one == four[i * row..(i + 1) * row], "query {i}");
    }
    // And the two paths agree but for rounding.
    let many = run(shape(8), &opts(150), &q[..8 * row], &k, &v);
    assert_close("paths", &four, &wide(&many[..4 * row]), 1e-6, 0.1);
}

#[test]
fn threads_do_not_matter() {
    let case = Case::new(AttentionShape { b: 1, tq: 300, tk: 300, hq: 4, hkv: 2, d: 32, dv: 32 }, plain(32));
    let s = case.shape;
    let f = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (q, k, v, g) = (f(&case.q), f(&case.k), f(&case.v), f(&case.g));
    let both = || {
        let (mut out, mut lse) = (vec![0.0; g.len()], vec![0.0; s.hq * s.tq]);
        let (qh, kh) = (Heads::contiguous(&q, s.tq, s.hq, s.d), Heads::contiguous(&k, s.tk, s.hkv, s.d));
        let vh = Heads::contiguous(&v, s.tk, s.hkv, s.dv);
        attention(s, &case.opts, qh, kh, vh, None, HeadsMut::contiguous(&mut out, s.tq, s.hq, s.dv), &mut lse);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let result = AttentionResult {
            out: Heads::contiguous(&out, s.tq, s.hq, s.dv),
            lse: &lse,
            dout: Heads::contiguous(&g, s.tq, s.hq, s.dv),
        };
        attention_backward(
            s,
            &case.opts,
            qh,
            kh,
            vh,
            result,
            HeadsMut::contiguous(&mut dq, s.tq, s.hq, s.d),
            HeadsMut::contiguous(&mut dk, s.tk, s.hkv, s.d),
            HeadsMut::contiguous(&mut dv, s.tk, s.hkv, s.dv),
        );
        [out, lse, dq, dk, dv]
    };
    let pooled = both();
    // Inside a task the pool runs serially.
    let serial = std::sync::Mutex::new(None);
    crate::pool::parallel(2, &|i| {
        if i == 0 {
            *serial.lock().unwrap() = Some(both());
        }
    });
    assert!(Some(pooled) == serial.into_inner().unwrap());
}
