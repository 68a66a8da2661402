//! The scan and its gradients against f64, whose gradients are checked against differences.

#![allow(clippy::needless_range_loop)] // the oracles are written as their formulas

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

#[derive(Clone)]
struct Case {
    shape: ScanShape,
    u: Vec<f64>,
    delta: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    d: Vec<f64>,
    h0: Vec<f64>,
    dy: Vec<f64>,
    dh: Vec<f64>,
}

impl Case {
    fn new(b: usize, t: usize, c: usize, n: usize) -> Self {
        let mut r = Random::new((b * 1000 + t * 100 + c * 10 + n) as u64);
        let mut v = |len: usize, lo, hi| wide(&r.vec(len, lo, hi));
        Self {
            shape: ScanShape { b, t, c, n },
            u: v(b * t * c, -1.0, 1.0),
            delta: v(b * t * c, 0.001, 0.3),
            a: v(c * n, -8.0, -0.1),
            b: v(b * t * n, -1.0, 1.0),
            c: v(b * t * n, -1.0, 1.0),
            d: v(c, -1.0, 1.0),
            h0: v(b * c * n, -1.0, 1.0),
            dy: v(b * t * c, -1.0, 1.0),
            dh: v(b * c * n, -1.0, 1.0),
        }
    }

    /// y, and the states before the first and after every step, [t + 1, b, c, n].
    fn forward(&self) -> (Vec<f64>, Vec<Vec<f64>>) {
        let ScanShape { b, t, c, n } = self.shape;
        let mut y = vec![0.0; b * t * c];
        let mut states = vec![self.h0.clone()];
        for ti in 0..t {
            let mut h = states[ti].clone();
            for bi in 0..b {
                for ci in 0..c {
                    let at = (bi * t + ti) * c + ci;
                    y[at] = self.d[ci] * self.u[at];
                    for j in 0..n {
                        let (hj, row) = ((bi * c + ci) * n + j, (bi * t + ti) * n + j);
                        h[hj] = (self.delta[at] * self.a[ci * n + j]).exp() * h[hj]
                            + self.delta[at] * self.b[row] * self.u[at];
                        y[at] += self.c[row] * h[hj];
                    }
                }
            }
            states.push(h);
        }
        (y, states)
    }

    /// Σ y·dy + Σ h_last·dh, whose gradients `backward` gives.
    fn objective(&self) -> f64 {
        let (y, states) = self.forward();
        let last = states.last().unwrap();
        y.iter().zip(&self.dy).map(|(a, b)| a * b).sum::<f64>()
            + last.iter().zip(&self.dh).map(|(a, b)| a * b).sum::<f64>()
    }

    /// Gradients of u, delta, a, b, c, d, h0.
    fn backward(&self) -> [Vec<f64>; 7] {
        let ScanShape { b, t, c, n } = self.shape;
        let (_, states) = self.forward();
        let mut g = self.dh.clone();
        let [mut du, mut ddelta] = [vec![0.0; b * t * c], vec![0.0; b * t * c]];
        let [mut db, mut dc] = [vec![0.0; b * t * n], vec![0.0; b * t * n]];
        let (mut da, mut dd) = (vec![0.0; c * n], vec![0.0; c]);
        for ti in (0..t).rev() {
            for bi in 0..b {
                for ci in 0..c {
                    let at = (bi * t + ti) * c + ci;
                    let (dt, u, dy) = (self.delta[at], self.u[at], self.dy[at]);
                    dd[ci] += dy * u;
                    du[at] += dy * self.d[ci];
                    for j in 0..n {
                        let (hj, row, aj) = ((bi * c + ci) * n + j, (bi * t + ti) * n + j, ci * n + j);
                        let decay = (dt * self.a[aj]).exp();
                        g[hj] += self.c[row] * dy;
                        dc[row] += dy * states[ti + 1][hj];
                        db[row] += g[hj] * dt * u;
                        du[at] += g[hj] * dt * self.b[row];
                        let e = g[hj] * decay * states[ti][hj];
                        ddelta[at] += e * self.a[aj] + g[hj] * self.b[row] * u;
                        da[aj] += e * dt;
                        g[hj] *= decay;
                    }
                }
            }
        }
        [du, ddelta, da, db, dc, dd, g]
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

/// Shapes around the borders of vectors, chunks and groups, and one step.
const SHAPES: [(usize, usize, usize, usize); 12] = [
    (1, 1, 1, 1),
    (2, 1, 37, 16),
    (1, 1, 300, 5),
    (1, 2, 8, 16),
    (1, 16, 16, 4),
    (2, 17, 33, 3),
    (3, 33, 5, 16),
    (1, 70, 48, 7),
    (1, 100, 130, 16),
    (9, 5, 24, 2),
    (2, 3, 17, 20),
    (1, 0, 4, 3),
];

#[test]
fn the_oracle_agrees_with_differences() {
    let case = Case::new(2, 4, 3, 2);
    let gradients = case.backward();
    let fields: [fn(&mut Case) -> &mut Vec<f64>; 7] =
        [|c| &mut c.u, |c| &mut c.delta, |c| &mut c.a, |c| &mut c.b, |c| &mut c.c, |c| &mut c.d, |c| &mut c.h0];
    for (k, field) in fields.into_iter().enumerate() {
        for (i, expected) in gradients[k].iter().enumerate() {
            let at = |h: f64| {
                let mut moved = case.clone();
                field(&mut moved)[i] += h;
                moved.objective()
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - expected).abs() < 1e-7, "input {k}, element {i}: {slope} {expected}");
        }
    }
}

#[test]
fn forward_and_backward_on_every_instruction_set() {
    for (b, t, c, n) in SHAPES {
        let case = Case::new(b, t, c, n);
        let (y, states) = case.forward();
        let expected = case.backward();
        let v = [&case.u, &case.delta, &case.a, &case.b, &case.c, &case.d, &case.h0].map(|x| narrow(x));
        let x = ScanInputs { u: &v[0], delta: &v[1], a: &v[2], b: &v[3], c: &v[4], d: Some(&v[5]), h0: Some(&v[6]) };
        let (dy, dh) = (narrow(&case.dy), narrow(&case.dh));
        for isa in available() {
            let what = |name: &str| format!("{isa} {b}x{t}x{c}x{n} {name}");
            let (mut gy, mut gh) = (vec![7.0; y.len()], vec![7.0; b * c * n]);
            selective_scan_isa(isa, case.shape, &x, &mut gy, &mut gh);
            assert_close(&what("y"), &gy, &y, 1e-6, 1.0);
            assert_close(&what("h"), &gh, states.last().unwrap(), 1e-6, 1.0);
            let mut g = v.clone();
            let [u, delta, a, bm, cm, d, h0] = &mut g;
            let grads = ScanGrads { u, delta, a, b: bm, c: cm, d: Some(d), h0: Some(h0) };
            selective_scan_backward_isa(isa, case.shape, &x, &dy, Some(&dh), grads);
            for (name, (g, e)) in ["du", "ddelta", "da", "db", "dc", "dd", "dh0"].iter().zip(g.iter().zip(&expected)) {
                assert_close(&what(name), g, e, 3e-6, 1.0);
            }
        }
    }
}

#[test]
fn absent_inputs_are_zeros() {
    let mut case = Case::new(2, 20, 19, 4);
    case.d.fill(0.0);
    case.h0.fill(0.0);
    case.dh.fill(0.0);
    let v = [&case.u, &case.delta, &case.a, &case.b, &case.c].map(|x| narrow(x));
    let x = ScanInputs { u: &v[0], delta: &v[1], a: &v[2], b: &v[3], c: &v[4], d: None, h0: None };
    let (mut y, mut h) = (vec![0.0; case.u.len()], vec![0.0; case.h0.len()]);
    selective_scan(case.shape, &x, &mut y, &mut h);
    let (ey, states) = case.forward();
    assert_close("y", &y, &ey, 1e-6, 1.0);
    assert_close("h", &h, states.last().unwrap(), 1e-6, 1.0);
    let mut g = v.clone();
    let [u, delta, a, b, c] = &mut g;
    let grads = ScanGrads { u, delta, a, b, c, d: None, h0: None };
    selective_scan_backward(case.shape, &x, &narrow(&case.dy), None, grads);
    for (g, e) in g.iter().zip(&case.backward()) {
        assert_close("gradient", g, e, 3e-6, 1.0);
    }
}

#[test]
fn steps_one_by_one_agree_with_all_at_once_and_threads_do_not_matter() {
    let case = Case::new(2, 40, 50, 16);
    let v = [&case.u, &case.delta, &case.a, &case.b, &case.c, &case.d, &case.h0].map(|x| narrow(x));
    let x = ScanInputs { u: &v[0], delta: &v[1], a: &v[2], b: &v[3], c: &v[4], d: Some(&v[5]), h0: Some(&v[6]) };
    let (mut y, mut h) = (vec![0.0; case.u.len()], vec![0.0; case.h0.len()]);
    selective_scan(case.shape, &x, &mut y, &mut h);
    let ScanShape { b, t, c, n } = case.shape;
    let mut state = v[6].clone();
    let pick = |m: &[f32], ti: usize, w: usize| -> Vec<f32> {
        (0..b).flat_map(|bi| m[(bi * t + ti) * w..(bi * t + ti + 1) * w].to_vec()).collect()
    };
    for ti in 0..t {
        let (u, delta, bm, cm) = (pick(&v[0], ti, c), pick(&v[1], ti, c), pick(&v[3], ti, n), pick(&v[4], ti, n));
        let step = ScanInputs { u: &u, delta: &delta, b: &bm, c: &cm, h0: Some(&state), ..x };
        let (mut ys, mut hs) = (vec![0.0; b * c], vec![0.0; b * c * n]);
        selective_scan(ScanShape { t: 1, ..case.shape }, &step, &mut ys, &mut hs);
        assert_close("step", &ys, &wide(&pick(&y, ti, c)), 2e-6, 1.0);
        state = hs;
    }
    assert_close("state", &state, &wide(&h), 2e-6, 1.0);

    let run = || {
        let mut g = v.clone();
        let [u, delta, a, bm, cm, d, h0] = &mut g;
        let grads = ScanGrads { u, delta, a, b: bm, c: cm, d: Some(d), h0: Some(h0) };
        selective_scan_backward(case.shape, &x, &narrow(&case.dy), None, grads);
        g
    };
    let pooled = run();
    // Inside a task the pool runs serially.
    let serial = std::sync::Mutex::new(None);
    pool::parallel(2, &|i| {
        if i == 0 {
            *serial.lock().unwrap() = Some(run());
        }
    });
    assert!(Some(pooled) == serial.into_inner().unwrap());
}

#[test]
fn lanes_are_those_of_the_token() {
    crate::isa::simd_fn! {
        fn lanes<S>(_s: S) -> usize {
            S::LANES
        }
    }
    for isa in available() {
        assert_eq!(isa.lanes(), lanes(isa), "{isa}");
    }
}
