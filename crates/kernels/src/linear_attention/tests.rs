//! Against the recurrence in f64.

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

struct Case {
    shape: LinearShape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
    state: Vec<f32>,
    tiled: bool,
}

impl Case {
    fn new([b, t, g, h, k, v]: [usize; 6], per_key: bool, tiled: bool) -> Self {
        let mut r = Random::new((b + 3 * t + 7 * g + 11 * h + 13 * k + 17 * v) as u64);
        let bound = 1.0 / (k.max(1) as f32).sqrt();
        Case {
            shape: LinearShape { b, t, g, h, k, v },
            q: r.vec(b * t * g * k, -1.0, 1.0),
            k: r.vec(b * t * g * k, -bound, bound),
            v: r.vec(b * t * h * v, -1.0, 1.0),
            decay: r.vec(b * t * h * if per_key { k } else { 1 }, -3.0, 0.0),
            beta: r.vec(b * t * h, 0.0, 1.0),
            state: r.vec(b * h * k * v, -1.0, 1.0),
            tiled,
        }
    }

    fn inputs(&self, delta: bool, state: bool) -> LinearInputs<'_> {
        LinearInputs {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            decay: &self.decay,
            beta: delta.then_some(&self.beta),
            state: state.then_some(&self.state),
            tiled: self.tiled,
        }
    }

    /// y and the last state by the definition.
    fn oracle(&self, delta: bool, with_state: bool) -> (Vec<f64>, Vec<f64>) {
        let LinearShape { b, t, g, h, k, v } = self.shape;
        let f = |x: &[f32], i: usize| f64::from(x[i]);
        let mut y = vec![0.0; b * t * h * v];
        let mut last = if with_state { wide(&self.state) } else { vec![0.0; b * h * k * v] };
        let per = self.decay.len() / (b * t * h).max(1);
        for bi in 0..b {
            for hi in 0..h {
                let state = &mut last[(bi * h + hi) * k * v..(bi * h + hi + 1) * k * v];
                let shared = if self.tiled { hi % g } else { hi / (h / g) };
                for ti in 0..t {
                    let (head, row) = ((bi * t + ti) * h + hi, ((bi * t + ti) * g + shared) * k);
                    for ki in 0..k {
                        let e = f(&self.decay, head * per + ki % per).exp();
                        state[ki * v..(ki + 1) * v].iter_mut().for_each(|s| *s *= e);
                    }
                    for vi in 0..v {
                        let mut u = f(&self.v, head * v + vi);
                        if delta {
                            u -= (0..k).map(|ki| f(&self.k, row + ki) * state[ki * v + vi]).sum::<f64>();
                            u *= f(&self.beta, head);
                        }
                        for ki in 0..k {
                            state[ki * v + vi] += f(&self.k, row + ki) * u;
                            y[head * v + vi] += f(&self.q, row + ki) * state[ki * v + vi];
                        }
                    }
                }
            }
        }
        (y, last)
    }
}

/// Around the borders of vectors and of four of them, several heads to a key, and nothing.
const SHAPES: [[usize; 6]; 8] = [
    [1, 1, 1, 1, 1, 1],
    [2, 1, 2, 4, 5, 7],
    [1, 3, 1, 3, 16, 64],
    [2, 9, 2, 2, 17, 70],
    [1, 40, 2, 6, 8, 33],
    [1, 5, 1, 2, 3, 130],
    [1, 2, 4, 32, 128, 128],
    [1, 0, 1, 2, 3, 4],
];

#[test]
fn equals_the_definition_on_every_instruction_set() {
    for sizes in SHAPES {
        for (per_key, delta, tiled, state) in [
            (false, false, false, true),
            (false, true, true, true),
            (true, true, false, true),
            (true, false, true, false),
        ] {
            let case = Case::new(sizes, per_key, tiled);
            let (y, last) = case.oracle(delta, state);
            for isa in available() {
                let what = format!("{isa} {sizes:?} {per_key} {delta} {tiled} {state}");
                let (mut gy, mut gs) = (vec![7.0; y.len()], vec![7.0; last.len()]);
                linear_attention_isa(isa, case.shape, &case.inputs(delta, state), &mut gy, &mut gs);
                assert_close(&format!("y {what}"), &gy, &y, 2e-6, 1.0);
                assert_close(&format!("state {what}"), &gs, &last, 2e-6, 1.0);
            }
        }
    }
}

#[test]
fn steps_and_threads_give_the_same_bits() {
    let case = Case::new([1, 6, 2, 8, 128, 72], true, false);
    let LinearShape { t, g, h, k, v, .. } = case.shape;
    let run = || {
        let (mut y, mut last) = (vec![0.0; t * h * v], vec![0.0; h * k * v]);
        linear_attention(case.shape, &case.inputs(true, true), &mut y, &mut last);
        (y, last)
    };
    let whole = run();
    // Inside a task the pool runs serially.
    let serial = std::sync::Mutex::new(None);
    pool::parallel(2, &|i| {
        if i == 0 {
            *serial.lock().unwrap() = Some(run());
        }
    });
    assert!(serial.into_inner().unwrap().unwrap() == whole);
    let mut state = case.state.clone();
    for i in 0..t {
        let x = LinearInputs {
            q: &case.q[i * g * k..(i + 1) * g * k],
            k: &case.k[i * g * k..(i + 1) * g * k],
            v: &case.v[i * h * v..(i + 1) * h * v],
            decay: &case.decay[i * h * k..(i + 1) * h * k],
            beta: Some(&case.beta[i * h..(i + 1) * h]),
            state: Some(&state),
            tiled: false,
        };
        let (mut y, mut last) = (vec![0.0; h * v], vec![0.0; h * k * v]);
        linear_attention(LinearShape { t: 1, ..case.shape }, &x, &mut y, &mut last);
        assert!(y == whole.0[i * h * v..(i + 1) * h * v], "step {i}");
        state = last;
    }
    assert!(state == whole.1);
}
