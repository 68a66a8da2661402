//! Every function against f64, on every instruction set, over values that reach all branches.

use super::binary::binary_isa;
use super::reduce::{col_sum_isa, dot_isa, max_isa, sum_isa};
use super::swiglu::{swiglu_backward_isa, swiglu_isa};
use super::unary::{unary_backward_isa, unary_isa};
use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, ulps, wide};

const F32_TINY: f64 = f32::MIN_POSITIVE as f64;

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// Φ(x) by its Taylor series around 0, or its continued fraction in the tail (Abramowitz and Stegun 26.2.14).
fn normal_cdf(x: f64) -> f64 {
    let pdf = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() < 4.0 {
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        return 0.5 + pdf * sum;
    }
    let a = x.abs();
    let tail = pdf / (1..200).rev().fold(a, |f, k| a + k as f64 / f);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// The function in f64.
fn exact(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sqr => x * x,
        Unary::Relu => {
            if x.is_nan() {
                x
            } else {
                x.max(0.0)
            }
        }
        Unary::Sigmoid => sigmoid(x),
        Unary::Silu => {
            if x == f64::NEG_INFINITY {
                f64::NAN // as the product −∞·0; PyTorch gives NaN too
            } else {
                x * sigmoid(x)
            }
        }
        Unary::Tanh => x.tanh(),
        Unary::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x * sigmoid(2.0 * u)
        }
        Unary::GeluErf => x * normal_cdf(x),
        Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    }
}

/// (units in the last place, absolute part) that the documentation promises for the result at x.
fn bound(op: Unary, x: f64, y: f64, fma: bool) -> (f64, f64) {
    let slack = if fma { 0.0 } else { 1.0 };
    match op {
        Unary::Exp => (1.5 + slack / 2.0, 0.0),
        Unary::Log => (2.0 + slack, 0.0),
        Unary::Sqrt | Unary::Recip | Unary::Sqr => (0.5, 0.0),
        Unary::Rsqrt => (1.5, 0.0),
        Unary::Neg | Unary::Abs | Unary::Relu => (0.0, 0.0),
        Unary::Sigmoid | Unary::Tanh | Unary::Softplus => (3.0 + slack, 0.0),
        // Below −87 the sigmoid is subnormal, so that its units are of an absolute size.
        Unary::Silu => (4.0 + slack, 1e-43),
        Unary::GeluTanh => (0.0, 1e-6 * x.abs().max(1.0)),
        Unary::GeluErf => (1.0, 5e-7 * (1.0 + x * x) * y.abs()),
    }
}

/// Numbers of every size that f32 has, dense where the functions change.
fn inputs() -> Vec<f32> {
    let mut r = Random::new(1);
    let mut x = vec![0.0, -0.0, 1.0, -1.0, 0.625, -0.625, 20.0, 88.7, -87.3, -103.9, 1e-38, -1e-38, 3e38, -3e38];
    x.extend([f32::MIN_POSITIVE, f32::MIN_POSITIVE / 8.0, f32::EPSILON, 89.0, -105.0, -1000.0, 1000.0]);
    for k in 1..120 {
        x.extend([std::f32::consts::FRAC_1_SQRT_2, std::f32::consts::SQRT_2].map(|v| v + k as f32 * f32::EPSILON));
    }
    for (lo, hi) in [(-1.0, 1.0), (-6.0, 6.0), (-104.0, 89.0), (-0.01, 0.01), (0.5, 2.0)] {
        x.extend(r.vec(6000, lo, hi));
    }
    // Random bit patterns: every exponent.
    while x.len() < 37_003 {
        let v = f32::from_bits(r.bits() as u32);
        if v.is_finite() {
            x.push(v);
        }
    }
    x
}

#[test]
fn unary_functions_keep_their_bounds() {
    let x = inputs();
    for isa in available() {
        for op in Unary::ALL {
            let mut y = vec![0.0; x.len()];
            unary_isa(isa, op, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let e = exact(op, f64::from(x));
                let (units, mut absolute) = bound(op, f64::from(x), e, isa > crate::isa::Isa::Scalar);
                if e.abs() < F32_TINY && e != 0.0 {
                    // Among the subnormals a few of their units, times the factor x where there is one.
                    absolute += (4.0 + f64::from(x).abs()) * 1.41e-45;
                }
                let within = ulps(y, e) <= units || (f64::from(y) - e).abs() <= absolute;
                assert!(within, "{isa} {op:?}({x:e}) = {y:e}, exact {e:e}: {} ulp", ulps(y, e));
            }
        }
    }
}

#[test]
fn unary_functions_at_the_edges() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0];
    for isa in available() {
        for op in Unary::ALL {
            let mut y = [0.0; 6];
            unary_isa(isa, op, &x, &mut y);
            assert!(y[0].is_nan(), "{isa} {op:?}(NaN) = {}", y[0]);
            let gelu = matches!(op, Unary::GeluErf | Unary::GeluTanh);
            for (&x, &y) in x.iter().zip(&y).skip(1) {
                if gelu && x.is_infinite() {
                    continue; // 0·∞ or ∞: no promise
                }
                let e = exact(op, f64::from(x));
                let ok = ulps(y, e) <= 4.0;
                assert!(ok, "{isa} {op:?}({x}) = {y}, exact {e}");
            }
        }
    }
}

#[test]
fn short_slices_and_in_place_agree_with_long_ones() {
    let x: Vec<f32> = Random::new(2).vec(70, 0.1, 3.0);
    for isa in available() {
        for op in Unary::ALL {
            let mut whole = vec![0.0; x.len()];
            unary_isa(isa, op, &x, &mut whole);
            for n in 0..x.len() {
                let mut part = vec![7.0; n + 1];
                unary_isa(isa, op, &x[..n], &mut part[..n]);
                assert_eq!(part[..n], whole[..n], "{isa} {op:?} {n}");
                assert_eq!(part[n], 7.0);
            }
        }
    }
    for op in Unary::ALL {
        let long = Random::new(3).vec(2 * CHUNK + 77, 0.1, 3.0);
        let (mut y, mut z) = (vec![0.0; long.len()], long.clone());
        unary(op, &long, &mut y);
        unary_inplace(op, &mut z);
        assert!(y == z, "{op:?}");
    }
}

#[test]
fn derivatives_match_differences() {
    let mut r = Random::new(4);
    let x: Vec<f32> = r.vec(1001, -5.0, 5.0).into_iter().filter(|v| v.abs() > 0.02).collect();
    let dy = r.vec(x.len(), -2.0, 2.0);
    for isa in available() {
        for op in Unary::ALL {
            let positive = matches!(op, Unary::Log | Unary::Sqrt | Unary::Rsqrt);
            let x: Vec<f32> = x.iter().map(|v| if positive { v.abs() } else { *v }).collect();
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            unary_isa(isa, op, &x, &mut y);
            unary_backward_isa(isa, op, &x, &y, &dy, &mut dx);
            for i in 0..x.len() {
                let (v, h) = (f64::from(x[i]), 1e-5 * f64::from(x[i]).abs());
                let slope = (exact(op, v + h) - exact(op, v - h)) / (2.0 * h) * f64::from(dy[i]);
                let error = (slope - f64::from(dx[i])).abs();
                assert!(error <= 4e-6 * slope.abs().max(1.0), "{isa} {op:?}'({v}) = {} not {slope}", dx[i]);
            }
        }
    }
}

#[test]
fn binary_functions_are_exact() {
    let mut r = Random::new(5);
    let mut a = r.vec(2 * CHUNK + 5, -3.0, 3.0);
    let mut b = r.vec(a.len(), -3.0, 3.0);
    (a[3], b[4], a[9], b[9]) = (f32::NAN, f32::NAN, 0.0, 0.0);
    let same = |x: f32, y: f32| x == y || x.is_nan() && y.is_nan();
    for isa in available() {
        for op in Binary::ALL {
            for n in [0, 1, 7, 8, 17, 33, a.len()] {
                let mut out = vec![0.0; n];
                binary_isa(isa, op, &a[..n], &b[..n], &mut out);
                for i in 0..n {
                    let (x, y) = (a[i], b[i]);
                    let e = match op {
                        Binary::Add => x + y,
                        Binary::Sub => x - y,
                        Binary::Mul => x * y,
                        Binary::Div => x / y,
                        Binary::Max if x.is_nan() || y.is_nan() => f32::NAN,
                        Binary::Min if x.is_nan() || y.is_nan() => f32::NAN,
                        Binary::Max => x.max(y),
                        Binary::Min => x.min(y),
                    };
                    assert!(same(out[i], e), "{isa} {op:?}({x}, {y}) = {} not {e}", out[i]);
                }
                if isa == crate::isa::isa() {
                    let mut c = a[..n].to_vec();
                    binary_inplace(op, &mut c, &b[..n]);
                    assert!(c.iter().zip(&out).all(|(x, y)| same(*x, *y)), "{op:?} in place");
                }
            }
        }
    }
}

#[test]
fn scaling_and_adding() {
    let mut r = Random::new(6);
    for n in [0, 1, 15, 16, 100, 2 * CHUNK + 3] {
        let (x, y, z) = (r.vec(n, -2.0, 2.0), r.vec(n, -2.0, 2.0), r.vec(n, -2.0, 2.0));
        let mut out = vec![0.0; n];
        affine(&x, 1.5, -0.25, &mut out);
        let e: Vec<f64> = x.iter().map(|v| 1.5 * f64::from(*v) - 0.25).collect();
        assert_close("affine", &out, &e, 1.2e-7, 1.0);
        let mut s = x.clone();
        scale(&mut s, 0.3);
        assert!(s.iter().zip(&x).all(|(s, x)| *s == x * 0.3));
        let mut t = y.clone();
        add_scaled(-0.7, &x, &mut t);
        let e: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f64::from(-0.7f32) * f64::from(*x) + f64::from(*y)).collect();
        assert_close("add_scaled", &t, &e, 1.2e-7, 1.0);
        mul_add(&x, &y, &z, &mut out);
        let e: Vec<f64> = (0..n).map(|i| f64::from(x[i]) * f64::from(y[i]) + f64::from(z[i])).collect();
        assert_close("mul_add", &out, &e, 1.2e-7, 1.0);
    }
}

#[test]
fn reductions_are_accurate() {
    let mut r = Random::new(7);
    for n in [0, 1, 5, 16, 63, 64, 1000, 3 * CHUNK + 19] {
        let (x, y) = (r.vec(n, -1.0, 3.0), r.vec(n, -2.0, 2.0));
        let magnitude: f64 = wide(&x).iter().map(|v| v.abs()).sum();
        for isa in available() {
            let bound = 1.2e-7 * 8.0 * (magnitude + 1.0);
            assert!((sum_isa(isa, &x) - wide(&x).iter().sum::<f64>()).abs() <= bound, "{isa} sum of {n}");
            let e: f64 = wide(&x).iter().zip(wide(&y)).map(|(a, b)| a * b).sum();
            assert!((dot_isa(isa, &x, &y) - e).abs() <= 2.0 * bound, "{isa} dot of {n}");
            assert_eq!(max_isa(isa, &x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{isa} max of {n}");
            if n > 0 {
                let mut with_nan = x.clone();
                with_nan[n / 2] = f32::NAN;
                assert!(max_isa(isa, &with_nan).is_nan(), "{isa} max of {n} with NaN");
            }
        }
        assert!(
            (sum_squares(&x) - wide(&x).iter().map(|v| v * v).sum::<f64>()).abs() <= 1e-6 * (1.0 + 3.0 * magnitude)
        );
    }
    for (rows, d) in [(1, 1), (3, 5), (70, 17), (200, 300), (129, 257)] {
        let x = r.vec(rows * d, -1.0, 2.0);
        let mut by_row = vec![0.0; rows];
        row_sum(&x, rows, d, &mut by_row);
        let e: Vec<f64> = x.chunks(d).map(|row| wide(row).iter().sum()).collect();
        assert_close("row_sum", &by_row, &e, 1e-6, 1.0);
        for isa in available() {
            let start = r.vec(d, -1.0, 1.0);
            let mut by_col = start.clone();
            col_sum_isa(isa, &x, rows, d, &mut by_col, true);
            let e: Vec<f64> =
                (0..d).map(|j| f64::from(start[j]) + (0..rows).map(|i| f64::from(x[i * d + j])).sum::<f64>()).collect();
            assert_close("col_sum", &by_col, &e, 1e-6, 1.0);
            col_sum_isa(isa, &x, rows, d, &mut by_col, false);
            let e: Vec<f64> = e.iter().zip(&start).map(|(e, s)| e - f64::from(*s)).collect();
            assert_close("col_sum overwriting", &by_col, &e, 1e-6, 1.0);
        }
    }
}

#[test]
fn swiglu_and_its_gradients() {
    let mut r = Random::new(8);
    for n in [1, 15, 16, 33, 2 * CHUNK + 9] {
        let (g, u, d) = (r.vec(n, -6.0, 6.0), r.vec(n, -2.0, 2.0), r.vec(n, -2.0, 2.0));
        for isa in available() {
            let (mut out, mut dg, mut du) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            swiglu_isa(isa, &g, &u, &mut out);
            swiglu_backward_isa(isa, &g, &u, &d, &mut dg, &mut du);
            for i in 0..n {
                let (g, u, d) = (f64::from(g[i]), f64::from(u[i]), f64::from(d[i]));
                let silu = g * sigmoid(g);
                assert!(ulps(out[i], silu * u) <= 6.0, "{isa} swiglu({g}, {u})");
                let slope = sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g)));
                assert!((f64::from(dg[i]) - d * u * slope).abs() <= 1e-6 * (d * u).abs().max(1e-3), "{isa} dgate");
                assert!(ulps(du[i], d * silu) <= 6.0, "{isa} dup");
            }
        }
    }
}
