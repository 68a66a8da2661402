//! The kernel against its formula in f64, for every instruction set.

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close};

/// y and the last state.
fn oracle(n: WkvShape, x: &WkvInputs) -> [Vec<f64>; 2] {
    let WkvShape { b, t, h, k, v } = n;
    let of = |x: &[f32], i: usize| f64::from(x[i]);
    let mut y = vec![0.0; b * t * h * v];
    let mut state: Vec<f64> = (0..b * h * k * v).map(|i| x.s0.map_or(0.0, |s| of(s, i))).collect();
    for bi in 0..b {
        for (ti, hi, j) in (0..t).flat_map(|ti| (0..h).flat_map(move |hi| (0..v).map(move |j| (ti, hi, j)))) {
            let token = (bi * t + ti) * h + hi;
            let at = |i: usize| ((bi * h + hi) * k + i) * v + j;
            let read: f64 =
                (0..k).map(|i| x.correction.map_or(0.0, |(a, _)| of(a, token * k + i) * state[at(i)])).sum();
            for i in 0..k {
                let e = token * k + i;
                let old = state[at(i)];
                let written = of(x.k, e) * of(x.v, token * v + j);
                state[at(i)] =
                    of(x.log_decay, e).exp() * old + written + x.correction.map_or(0.0, |(_, c)| of(c, e) * read);
                y[token * v + j] += of(x.r, e) * x.bonus.map_or(state[at(i)], |u| old + of(u, hi * k + i) * written);
            }
        }
    }
    [y, state]
}

#[test]
fn equals_its_formula() {
    for (b, t, h, k, v) in
        [(1, 1, 1, 1, 1), (2, 5, 3, 16, 16), (1, 40, 2, 64, 64), (1, 9, 2, 20, 70), (2, 3, 1, 7, 33), (1, 0, 1, 4, 4)]
    {
        let n = WkvShape { b, t, h, k, v };
        let mut random = Random::new((t * 100 + k * 10 + v) as u64);
        let mut keys = |lo, hi| random.vec(b * t * h * k, lo, hi);
        let (r, log_decay, key, mut a, c) =
            (keys(-1.0, 1.0), keys(-3.0, 0.0), keys(-1.0, 1.0), keys(-1.0, 1.0), keys(-1.0, 1.0));
        a.iter_mut().for_each(|a| *a /= k as f32);
        let (values, s0) = (random.vec(b * t * h * v, -1.0, 1.0), random.vec(b * h * k * v, -1.0, 1.0));
        let u = random.vec(h * k, -1.0, 1.0);
        let plain =
            WkvInputs { r: &r, log_decay: &log_decay, k: &key, v: &values, bonus: None, correction: None, s0: None };
        let with = |bonus: bool, correction: bool, s: bool| WkvInputs {
            bonus: bonus.then_some(&u[..]),
            correction: correction.then_some((&a[..], &c[..])),
            s0: s.then_some(&s0[..]),
            ..plain
        };
        for x in [plain, with(true, false, true), with(false, true, true), with(true, true, false)] {
            let [expected, state] = oracle(n, &x);
            for isa in available() {
                let (mut y, mut last) = (vec![f32::NAN; expected.len()], vec![f32::NAN; state.len()]);
                wkv_isa(isa, n, &x, &mut y, &mut last);
                assert_close(&format!("{isa} y {n:?}"), &y, &expected, 2e-6, 1.0);
                assert_close(&format!("{isa} state {n:?}"), &last, &state, 2e-6, 1.0);
            }
        }
    }
}
