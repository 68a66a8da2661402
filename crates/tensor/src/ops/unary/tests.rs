use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Result, Tensor};

/// Name, function, the same in plain `f64`, whether it takes positive numbers only.
type Case = (&'static str, fn(&Tensor) -> Result<Tensor>, fn(f64) -> f64, bool);

fn tanh_gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// Erf by its Taylor series, good to 1e-14 in the range of the tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..80 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

const CASES: [Case; 17] = [
    ("neg", Tensor::neg, |x| -x, false),
    ("exp", Tensor::exp, f64::exp, false),
    ("log", Tensor::log, f64::ln, true),
    ("sqrt", Tensor::sqrt, f64::sqrt, true),
    ("rsqrt", Tensor::rsqrt, |x| x.sqrt().recip(), true),
    ("recip", Tensor::recip, f64::recip, false),
    ("sqr", Tensor::sqr, |x| x * x, false),
    ("abs", Tensor::abs, f64::abs, false),
    ("sin", Tensor::sin, f64::sin, false),
    ("cos", Tensor::cos, f64::cos, false),
    ("tanh", Tensor::tanh, f64::tanh, false),
    ("sigmoid", Tensor::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), false),
    ("silu", Tensor::silu, |x| x / (1.0 + (-x).exp()), false),
    ("gelu", Tensor::gelu, tanh_gelu, false),
    ("gelu_erf", Tensor::gelu_erf, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt())), false),
    ("relu", Tensor::relu, |x| x.max(0.0), false),
    ("softplus", Tensor::softplus, |x| (1.0 + x.exp()).ln(), false),
];

fn argument(positive: bool, shape: &[usize]) -> Tensor {
    let x = sample(shape);
    if positive { x.abs().unwrap() } else { x }
}

#[test]
fn values_in_every_float_type_and_stride() {
    for (name, op, f, positive) in CASES {
        let whole = argument(positive, &[12, 40]);
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let eps = match dtype {
                DType::F64 => 1e-13,
                DType::F32 => 1e-6,
                DType::F16 => 1e-3,
                _ => 8e-3,
            };
            let x = whole.to_dtype(dtype).unwrap();
            for view in [
                x.clone(),
                x.t().unwrap(),
                x.narrow(1, 3, 20).unwrap(),
                x.narrow(1, 5, 1).unwrap().broadcast_as([12, 30]).unwrap(),
            ] {
                let got = op(&view).unwrap();
                assert_eq!((got.dtype(), got.shape()), (dtype, view.shape()));
                let got = got.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
                let args = view.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
                for (y, x) in got.into_iter().zip(args) {
                    let expected = f(x);
                    assert!(
                        (y - expected).abs() <= eps * expected.abs().max(1.0),
                        "{name}({x}) in {dtype}: {y}, {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn large_tensors_agree_with_small_ones() {
    let x = sample(&[50, 1000]).to_dtype(DType::F32).unwrap();
    for (name, op, _, positive) in CASES {
        let x = if positive { x.abs().unwrap() } else { x.clone() };
        let whole = op(&x).unwrap().to_vec::<f32>().unwrap();
        let across = op(&x.t().unwrap()).unwrap().t().unwrap().to_vec::<f32>().unwrap();
        let rows: Vec<f32> =
            (0..50).flat_map(|r| op(&x.narrow(0, r, 1).unwrap()).unwrap().to_vec::<f32>().unwrap()).collect();
        assert!(whole == rows && whole == across, "{name}");
    }
}

#[test]
fn gradients_match_central_differences() {
    for (name, op, _, positive) in CASES {
        println!("{name}");
        check_grads(&[argument(positive, &[3, 5])], |x| op(&x[0]));
        check_grads(&[argument(positive, &[3, 5])], |x| op(&x[0].t()?.narrow(0, 0, 4)?));
        check_grads(&[argument(positive, &[3, 1])], |x| op(&x[0].broadcast_as([2, 3, 4])?));
    }
}

#[test]
fn gradients_in_f32_agree_with_f64() {
    for (name, op, _, positive) in CASES {
        let x = argument(positive, &[7, 33]);
        let w = sample(&[33, 7]);
        let grad = |dtype| {
            let leaf = x.to_dtype(dtype).unwrap().requires_grad();
            let y = op(&leaf.t().unwrap()).unwrap().mul(&w.to_dtype(dtype).unwrap()).unwrap();
            let g = y.sum_all().unwrap().backward().unwrap();
            g.get(&leaf).unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
        };
        for (a, b) in grad(DType::F32).into_iter().zip(grad(DType::F64)) {
            assert!((a - b).abs() <= 3e-6 * b.abs().max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn extreme_arguments_neither_overflow_nor_turn_into_nan() {
    let x = of(&[-1e4f32, -100.0, 0.0, 100.0, 1e4], &[5]);
    assert_eq!(x.sigmoid().unwrap().to_vec::<f32>().unwrap()[0], 0.0);
    assert_eq!(x.softplus().unwrap().to_vec::<f32>().unwrap()[3..], [100.0, 1e4]);
    for (name, op, _, positive) in CASES {
        if positive || ["recip", "exp", "rsqrt"].contains(&name) {
            continue;
        }
        let leaf = x.requires_grad();
        let y = op(&leaf).unwrap();
        assert!(y.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "{name}");
        let g = y.sum_all().unwrap().backward().unwrap();
        assert!(g.get(&leaf).unwrap().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "{name}");
    }
    let nan = of(&[f32::NAN], &[1]);
    assert!(CASES.iter().all(|(_, op, _, _)| op(&nan).unwrap().to_scalar::<f32>().unwrap().is_nan()));
}

#[test]
fn empty_tensors_and_other_types() {
    let empty = Tensor::zeros([0, 3], DType::F32, &Device::Cpu).unwrap();
    let whole = Tensor::zeros([3], DType::I32, &Device::Cpu).unwrap();
    for (name, op, _, _) in CASES {
        assert_eq!(op(&empty).unwrap().shape(), [0, 3]);
        assert!(op(&whole).unwrap_err().to_string().starts_with(name), "{name}");
    }
}
