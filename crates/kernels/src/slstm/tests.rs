//! The kernel against its formula in f64, whose gradients are taken by differences.

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

/// y and the last state; nothing stabilises, f64 is wide enough.
fn oracle(SlstmShape { b, t, h, d }: SlstmShape, x: &[f64], r: &[f64], s0: &[f64]) -> [Vec<f64>; 2] {
    let (mut out, mut last) = (vec![0.0; b * t * h * d], s0.to_vec());
    for (bi, hi) in (0..b).flat_map(|bi| (0..h).map(move |hi| (bi, hi))) {
        let at = |part: usize, i: usize| ((bi * 4 + part) * h + hi) * d + i;
        let mut y: Vec<f64> = (0..d).map(|i| s0[at(0, i)]).collect();
        // c and n as they are without a stabiliser.
        let (mut c, mut n): (Vec<f64>, Vec<f64>) =
            (0..d).map(|i| (s0[at(1, i)] * s0[at(3, i)].exp(), s0[at(2, i)] * s0[at(3, i)].exp())).unzip();
        for ti in 0..t {
            let token = (bi * t + ti) * h + hi;
            let gate = |k: usize, i: usize| {
                x[(token * 4 + k) * d + i] + (0..d).map(|j| y[j] * r[((hi * d + j) * 4 + k) * d + i]).sum::<f64>()
            };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let next = (0..d).map(|i| {
                let (f, input) = (sigmoid(gate(1, i)), gate(0, i).exp());
                let (c, n) = (f * c[i] + input * gate(2, i).tanh(), f * n[i] + input);
                (sigmoid(gate(3, i)) * c / n, (c, n))
            });
            (y, (c, n)) = next.collect();
            (0..d).for_each(|i| out[token * d + i] = y[i]);
        }
        for i in 0..d {
            (last[at(0, i)], last[at(1, i)], last[at(2, i)]) = (y[i], c[i], n[i]);
        }
    }
    [out, last]
}

#[test]
fn equals_its_formula_and_differences() {
    for (b, t, h, d) in [(1, 1, 1, 1), (2, 5, 2, 3), (1, 12, 1, 16), (1, 3, 2, 21)] {
        let n = SlstmShape { b, t, h, d };
        let mut random = Random::new((t * 100 + d) as u64);
        let x = random.vec(b * t * h * 4 * d, -2.0, 2.0);
        let r = random.vec(h * d * 4 * d, -0.5, 0.5);
        let mut s0 = random.vec(b * 4 * h * d, -1.0, 1.0);
        for (i, s) in s0.iter_mut().enumerate().filter(|(i, _)| i / (h * d) % 4 == 2) {
            // n is above zero where something is remembered.
            *s = s.abs() + 0.1 + (i % 3) as f32;
        }
        let dy = random.vec(b * t * h * d, -1.0, 1.0);
        let zeros = vec![0.0; s0.len()];
        for s in [None, Some(&s0)] {
            let inputs = SlstmInputs { x: &x, r: &r, s0: s.map(|s| &s[..]) };
            let (x64, r64, s64) = (wide(&x), wide(&r), wide(s.unwrap_or(&zeros)));
            let [expected, state] = oracle(n, &x64, &r64, &s64);
            let loss = |x: &[f64], s: &[f64]| -> f64 {
                oracle(n, x, &r64, s)[0].iter().zip(&dy).map(|(y, &g)| y * f64::from(g)).sum()
            };
            let differences = |v: &[f64], f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
                let moved = |i: usize, by: f64| {
                    let mut v = v.to_vec();
                    v[i] += by;
                    f(&v)
                };
                (0..v.len()).map(|i| (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5).collect()
            };
            let dx = differences(&x64, &|x| loss(x, &s64));
            let ds = differences(&s64, &|s| loss(&x64, s));
            for isa in available() {
                let (mut y, mut last) = (vec![f32::NAN; expected.len()], vec![f32::NAN; state.len()]);
                slstm_isa(isa, n, &inputs, &mut y, &mut last);
                assert_close(&format!("{isa} y {n:?}"), &y, &expected, 3e-6, 1.0);
                for (i, &e) in state.iter().enumerate() {
                    let (part, m) = (i / (h * d) % 4, i / (4 * h * d) * 4 * h * d + 3 * h * d + i % (h * d));
                    let scale = if part == 0 { 1.0 } else { f64::from(last[m]).exp() };
                    let got = f64::from(last[i]) * scale;
                    assert!(
                        part == 3 || (got - e).abs() <= 1e-5 * e.abs().max(1.0),
                        "{isa} {n:?} state {i}: {got} {e}"
                    );
                }
                let (mut got, mut got_state) = (vec![f32::NAN; x.len()], vec![f32::NAN; s0.len()]);
                slstm_backward_isa(isa, n, &inputs, &dy, &mut got, Some(&mut got_state));
                assert_close(&format!("{isa} dx {n:?}"), &got, &dx, 1e-5, 1.0);
                if s.is_some() {
                    for part in 0..3 {
                        let of = |i: usize| i / (h * d) % 4 == part;
                        let got: Vec<f32> = (0..s0.len()).filter(|&i| of(i)).map(|i| got_state[i]).collect();
                        let exact: Vec<f64> = (0..s0.len()).filter(|&i| of(i)).map(|i| ds[i]).collect();
                        assert_close(&format!("{isa} ds {part} {n:?}"), &got, &exact, 1e-5, 1.0);
                    }
                }
            }
        }
    }
}

#[test]
fn gates_beyond_the_range_of_powers_stay_finite() {
    let n = SlstmShape { b: 1, t: 3, h: 1, d: 1 };
    for (i, f) in [(200.0, 0.0), (-200.0, 0.0), (-200.0, -200.0), (200.0, -300.0)] {
        let x: Vec<f32> = (0..3).flat_map(|_| [i, f, 1.0, 0.0]).collect();
        let (mut y, mut last) = ([0.0; 3], [0.0; 4]);
        slstm(n, &SlstmInputs { x: &x, r: &[0.0; 4], s0: None }, &mut y, &mut last);
        // Every input is tanh 1 and every output half of it, whatever the weights.
        assert!(y.iter().all(|y| (y - 0.5 * 1f32.tanh()).abs() < 1e-6), "{i} {f}: {y:?}");
    }
}
