//! The convolution and its gradients against f64, whose gradients are checked against differences.

use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

#[derive(Clone)]
struct Case {
    shape: ConvShape,
    silu: bool,
    x: Vec<f64>,
    w: Vec<f64>,
    bias: Vec<f64>,
    tail: Vec<f64>,
    dy: Vec<f64>,
    dtail: Vec<f64>,
}

impl Case {
    fn new(b: usize, t: usize, c: usize, k: usize, silu: bool) -> Self {
        let mut r = Random::new((b * 1000 + t * 100 + c * 10 + k) as u64);
        let mut v = |n: usize| wide(&r.vec(n, -1.0, 1.0));
        let tail = b * (k - 1) * c;
        let shape = ConvShape { b, t, c, k };
        let (x, dy) = (v(b * t * c), v(b * t * c));
        Self { shape, silu, x, w: v(c * k), bias: v(c), tail: v(tail), dy, dtail: v(tail) }
    }

    /// The padded signal at step t ≥ −(k − 1), as (whether of the tail, index).
    fn index(&self, bi: usize, t: isize, ch: usize) -> (bool, usize) {
        let ConvShape { t: steps, c, k, .. } = self.shape;
        if t >= 0 {
            (false, (bi * steps + t as usize) * c + ch)
        } else {
            (true, (bi * (k - 1) + (k as isize - 1 + t) as usize) * c + ch)
        }
    }

    fn at(&self, bi: usize, t: isize, ch: usize) -> f64 {
        let (tail, i) = self.index(bi, t, ch);
        if tail { self.tail[i] } else { self.x[i] }
    }

    fn z(&self, bi: usize, t: usize, ch: usize) -> f64 {
        let k = self.shape.k;
        self.bias[ch]
            + (0..k).map(|j| self.w[ch * k + j] * self.at(bi, t as isize - (k - 1 - j) as isize, ch)).sum::<f64>()
    }

    fn forward(&self) -> (Vec<f64>, Vec<f64>) {
        let ConvShape { b, t, c, k } = self.shape;
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let y = (0..b * t * c)
            .map(|n| {
                let z = self.z(n / c / t, n / c % t, n % c);
                if self.silu { z * sigmoid(z) } else { z }
            })
            .collect();
        let tail = (0..self.tail.len())
            .map(|n| {
                let row = n / c;
                self.at(row / (k - 1), (t + row % (k - 1)) as isize - (k as isize - 1), n % c)
            })
            .collect();
        (y, tail)
    }

    /// Σ y·dy + Σ new_tail·dtail.
    fn objective(&self) -> f64 {
        let (y, tail) = self.forward();
        y.iter().zip(&self.dy).chain(tail.iter().zip(&self.dtail)).map(|(a, b)| a * b).sum()
    }

    /// Gradients of x, w, bias, tail.
    fn backward(&self) -> [Vec<f64>; 4] {
        let ConvShape { b, t, c, k } = self.shape;
        let [mut dx, mut dw, mut db, mut dt] = [&self.x, &self.w, &self.bias, &self.tail].map(|v| vec![0.0; v.len()]);
        for n in 0..b * t * c {
            let (bi, ti, ch) = (n / c / t, n / c % t, n % c);
            let z = self.z(bi, ti, ch);
            let sig = 1.0 / (1.0 + (-z).exp());
            let g = self.dy[n] * if self.silu { sig * (1.0 + z * (1.0 - sig)) } else { 1.0 };
            db[ch] += g;
            for j in 0..k {
                let step = ti as isize - (k - 1 - j) as isize;
                dw[ch * k + j] += g * self.at(bi, step, ch);
                let (tail, i) = self.index(bi, step, ch);
                (if tail { &mut dt } else { &mut dx })[i] += g * self.w[ch * k + j];
            }
        }
        for n in 0..self.tail.len() {
            let row = n / c;
            let step = (t + row % (k - 1)) as isize - (k as isize - 1);
            let (tail, i) = self.index(row / (k - 1), step, n % c);
            (if tail { &mut dt } else { &mut dx })[i] += self.dtail[n];
        }
        [dx, dw, db, dt]
    }
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|v| *v as f32).collect()
}

#[test]
fn the_oracle_agrees_with_differences() {
    let case = Case::new(2, 3, 2, 3, true);
    let gradients = case.backward();
    let fields: [fn(&mut Case) -> &mut Vec<f64>; 4] = [|c| &mut c.x, |c| &mut c.w, |c| &mut c.bias, |c| &mut c.tail];
    for (n, field) in fields.into_iter().enumerate() {
        for (i, expected) in gradients[n].iter().enumerate() {
            let moved = |h: f64| {
                let mut c = case.clone();
                field(&mut c)[i] += h;
                c.objective()
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - expected).abs() < 1e-7, "input {n}, element {i}: {slope} {expected}");
        }
    }
}

#[test]
fn forward_and_backward_on_every_instruction_set() {
    let shapes =
        [(1, 1, 1, 1), (2, 1, 70, 4), (1, 2, 33, 4), (3, 40, 130, 4), (2, 5, 17, 2), (1, 3, 9, 7), (2, 300, 65, 4)];
    for (b, t, c, k) in shapes {
        for silu in [false, true] {
            let case = Case::new(b, t, c, k, silu);
            let (y, tail) = case.forward();
            let expected = case.backward();
            let v = [&case.x, &case.w, &case.bias, &case.tail].map(|x| narrow(x));
            let i = ConvInputs { x: &v[0], w: &v[1], bias: Some(&v[2]), tail: Some(&v[3]), silu };
            for isa in available() {
                let what = |name: &str| format!("{isa} {b}x{t}x{c}x{k} silu {silu}: {name}");
                let (mut gy, mut gt) = (vec![7.0; y.len()], vec![7.0; tail.len()]);
                causal_conv1d_isa(isa, case.shape, &i, &mut gy, Some(&mut gt));
                assert_close(&what("y"), &gy, &y, 1e-6, 1.0);
                assert_eq!(gt, narrow(&tail), "{}", what("tail"));
                let mut g = v.clone();
                let [x, w, bias, dt] = &mut g;
                let grads = ConvGrads { x, w, bias: Some(bias), tail: Some(dt) };
                let (dy, dn) = (narrow(&case.dy), narrow(&case.dtail));
                causal_conv1d_backward_isa(isa, case.shape, &i, &dy, Some(&dn), grads);
                for (name, (g, e)) in ["dx", "dw", "dbias", "dtail"].iter().zip(g.iter().zip(&expected)) {
                    assert_close(&what(name), g, e, 2e-6, 1.0);
                }
            }
        }
    }
}

#[test]
fn absent_inputs_are_zeros_and_pieces_join() {
    let mut case = Case::new(2, 37, 40, 4, true);
    case.bias.fill(0.0);
    case.tail.fill(0.0);
    case.dtail.fill(0.0);
    let (x, w) = (narrow(&case.x), narrow(&case.w));
    let i = ConvInputs { x: &x, w: &w, bias: None, tail: None, silu: true };
    let mut y = vec![0.0; x.len()];
    causal_conv1d(case.shape, &i, &mut y, None);
    assert_close("y", &y, &case.forward().0, 1e-6, 1.0);
    let (mut dx, mut dw) = (x.clone(), w.clone());
    let grads = ConvGrads { x: &mut dx, w: &mut dw, bias: None, tail: None };
    causal_conv1d_backward(case.shape, &i, &narrow(&case.dy), None, grads);
    let [ex, ew, ..] = case.backward();
    assert_close("dx", &dx, &ex, 2e-6, 1.0);
    assert_close("dw", &dw, &ew, 2e-6, 1.0);

    // In pieces, the tail handed on: the same bits.
    let ConvShape { b, t, c, k } = case.shape;
    let mut tail = vec![0.0; b * (k - 1) * c];
    let mut from = 0;
    for n in [1, 1, 2, 3, 1, 20, 9] {
        let cut = |m: &[f32]| -> Vec<f32> {
            (0..b).flat_map(|bi| m[(bi * t + from) * c..(bi * t + from + n) * c].to_vec()).collect()
        };
        let piece = cut(&x);
        let i = ConvInputs { x: &piece, tail: Some(&tail), ..i };
        let (mut out, mut next) = (vec![0.0; piece.len()], vec![0.0; tail.len()]);
        causal_conv1d(ConvShape { t: n, ..case.shape }, &i, &mut out, Some(&mut next));
        assert!(out == cut(&y), "steps {from}..{}", from + n);
        tail = next;
        from += n;
    }
    assert_eq!(from, t);
}
