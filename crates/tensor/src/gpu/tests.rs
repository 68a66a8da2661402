//! Every kernel against the CPU: values and gradients over strided, broadcast and empty views. Without an adapter the
//! tests say so and check nothing.

use super::*;
use crate::ops::testing::{of, sample};
use crate::{AttentionOpts, DType, Device, Format, Packed, RopeStyle, ScanInputs, Tensor};

/// The device under test.
fn gpu() -> Option<Device> {
    match Device::from_name("gpu") {
        Ok(device) => Some(device),
        Err(e) => {
            eprintln!("SKIPPED, nothing was checked: {e}");
            None
        }
    }
}

fn floats(shape: &[usize]) -> Tensor {
    sample(shape).to_dtype(DType::F32).unwrap()
}

fn close(name: &str, got: &Tensor, expected: &Tensor, eps: f32) {
    assert_eq!((got.shape(), got.dtype()), (expected.shape(), expected.dtype()), "{name}");
    let read = |t: &Tensor| crate::no_grad(|| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()).unwrap();
    let (got, expected) = (read(got), read(expected));
    let size = expected.iter().fold(1.0f64, |m, x| if x.is_finite() { m.max(x.abs()) } else { m });
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let same = (g - e).abs() <= eps as f64 * size || g == e || (g.is_nan() && e.is_nan());
        assert!(same, "{name}: element {i} is {g} on the gpu, {e} on the cpu");
    }
}

/// Runs `f` on both devices and compares its result and the gradients of all inputs.
fn check_with(name: &str, eps: f32, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let Some(device) = gpu() else { return };
    let run = |device: &Device| -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.to_device(device).unwrap().requires_grad()).collect();
        let y = f(&leaves)?;
        if !y.tracks_grad() {
            return Ok((y, Vec::new()));
        }
        let w = floats(&[y.elem_count()]).reshape(y.shape())?.to_device(device)?;
        let grads = y.mul(&w)?.sum_all()?.backward()?;
        Ok((y, leaves.iter().map(|l| grads.get(l).cloned()).collect()))
    };
    let (expected, expected_grads) = run(&Device::Cpu).unwrap_or_else(|e| panic!("{name} on the cpu: {e}"));
    let (got, grads) = run(&device).unwrap_or_else(|e| panic!("{name} on the gpu: {e}"));
    assert_eq!(got.device(), &device, "{name} left the gpu");
    close(name, &got, &expected, eps);
    for (i, (g, e)) in grads.iter().zip(&expected_grads).enumerate() {
        assert_eq!(g.is_some(), e.is_some(), "{name}: gradient of input {i}");
        if let (Some(g), Some(e)) = (g, e) {
            close(&format!("{name}, gradient of input {i}"), g, e, eps);
        }
    }
}

fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    check_with(name, 2e-6, inputs, f);
}

/// Views of a `[6, 8]` tensor with every kind of stride.
const VIEWS: [fn(&Tensor) -> Result<Tensor>; 7] = [
    |x| Ok(x.clone()),
    |x| x.t(),
    |x| x.narrow(1, 3, 4),
    |x| x.narrow(0, 2, 3)?.t(),
    |x| x.narrow(1, 5, 1)?.broadcast_as([2, 6, 5]),
    |x| x.reshape([2, 3, 2, 4])?.permute(&[2, 0, 3, 1]),
    |x| x.narrow(0, 3, 0),
];

#[test]
fn elements_survive_the_round_trip() {
    let Some(device) = gpu() else { return };
    for dtype in [DType::F32, DType::I32, DType::U32, DType::U8, DType::Bool] {
        let x = of(&[0.0f32, 1.0, 3.0, 200.0, 7.0, 0.0], &[2, 3]).to_dtype(dtype).unwrap();
        for view in [x.clone(), x.t().unwrap(), x.narrow(1, 1, 2).unwrap(), x.narrow(0, 1, 0).unwrap()] {
            let moved = view.to_device(&device).unwrap();
            assert_eq!(moved.device(), &device);
            close("round trip", &moved, &view, 0.0);
            close("round trip of a view", &moved.t().unwrap(), &view.t().unwrap(), 0.0);
        }
    }
    for dtype in [DType::F64, DType::F16, DType::BF16, DType::I64] {
        let e = floats(&[3]).to_dtype(dtype).unwrap().to_device(&device).unwrap_err().to_string();
        assert!(e.contains("to_device") && e.contains("gpu") && e.contains(dtype.name()), "{e}");
    }
    let x = floats(&[4, 5]);
    let moved = x.to_device(&device).unwrap().t().unwrap();
    let read = cubecl::future::block_on(moved.to_vec_async::<f32>()).unwrap();
    assert_eq!(read, x.t().unwrap().to_vec::<f32>().unwrap());
}

#[test]
fn constants_and_writes_in_place() {
    let Some(device) = gpu() else { return };
    for (dtype, value) in [(DType::F32, -1.5), (DType::I32, -3.0), (DType::U32, 9.0), (DType::Bool, 1.0)] {
        let full = |d: &Device| Tensor::full([3, 70], value, dtype, d).unwrap();
        close("full", &full(&device), &full(&Device::Cpu), 0.0);
    }
    let (source, patch) = (floats(&[4, 6]), floats(&[4, 2]));
    let run = |d: &Device, shared: bool, view: bool| {
        let whole = source.to_device(d).unwrap();
        let mut x = if view { whole.t().unwrap().narrow(0, 1, 4).unwrap() } else { whole.deep_copy().unwrap() };
        let other = shared.then(|| x.clone());
        x.copy_into(1, 2, &patch.to_device(d).unwrap()).unwrap();
        if let Some(other) = other {
            close("a shared value must not change", &other, &run_source(&source, view), 0.0);
        }
        x
    };
    fn run_source(source: &Tensor, view: bool) -> Tensor {
        if view { source.t().unwrap().narrow(0, 1, 4).unwrap() } else { source.clone() }
    }
    for (shared, view) in [(false, false), (true, false), (true, true), (false, true)] {
        close("copy_into", &run(&device, shared, view), &run(&Device::Cpu, shared, view), 0.0);
    }
}

#[test]
fn functions_of_one_tensor() {
    let cases: [(&str, fn(&Tensor) -> Result<Tensor>, bool); 17] = [
        ("neg", Tensor::neg, false),
        ("exp", Tensor::exp, false),
        ("log", Tensor::log, true),
        ("sqrt", Tensor::sqrt, true),
        ("rsqrt", Tensor::rsqrt, true),
        ("recip", Tensor::recip, false),
        ("sqr", Tensor::sqr, false),
        ("abs", Tensor::abs, false),
        ("sin", Tensor::sin, false),
        ("cos", Tensor::cos, false),
        ("tanh", Tensor::tanh, false),
        ("sigmoid", Tensor::sigmoid, false),
        ("silu", Tensor::silu, false),
        ("gelu", Tensor::gelu, false),
        ("gelu_erf", Tensor::gelu_erf, false),
        ("relu", Tensor::relu, false),
        ("softplus", Tensor::softplus, false),
    ];
    for (name, op, positive) in cases {
        let x = floats(&[6, 8]);
        let x = if positive { x.abs().unwrap() } else { x };
        for view in VIEWS {
            check_with(name, 1e-5, &[x.clone()], |x| op(&view(&x[0])?));
        }
        if !positive && name != "exp" && name != "recip" {
            check_with(name, 1e-5, &[of(&[-1e4f32, -90.0, -15.0, 0.25, 15.0, 90.0], &[6])], |x| {
                // Sines of large arguments may be coarse on a device.
                if name == "sin" || name == "cos" { op(&x[0].mul_scalar(1e-3)?) } else { op(&x[0]) }
            });
        }
    }
}

#[test]
fn functions_with_a_number() {
    for view in VIEWS {
        check("add_scalar", &[floats(&[6, 8])], |x| view(&x[0])?.add_scalar(1.5));
        check("mul_scalar", &[floats(&[6, 8])], |x| view(&x[0])?.mul_scalar(-2.5));
        check("clamp", &[floats(&[6, 8])], |x| view(&x[0])?.clamp(-0.7, 0.9));
        check("clamp", &[floats(&[6, 8])], |x| view(&x[0])?.clamp(f64::NEG_INFINITY, 0.9));
        check_with("powf", 1e-5, &[floats(&[6, 8]).abs().unwrap()], |x| view(&x[0])?.powf(1.7));
        check_with("powf", 1e-5, &[floats(&[6, 8])], |x| view(&x[0])?.powf(3.0));
        check("powf", &[floats(&[6, 8])], |x| view(&x[0])?.powf(2.0));
    }
}

#[test]
fn functions_of_two_tensors() {
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let cases: [(&str, Op); 6] = [
        ("add", Tensor::add),
        ("sub", Tensor::sub),
        ("mul", Tensor::mul),
        ("div", Tensor::div),
        ("maximum", Tensor::maximum),
        ("minimum", Tensor::minimum),
    ];
    for (name, op) in cases {
        for view in VIEWS {
            check_with(name, 1e-5, &[floats(&[6, 8]), floats(&[8, 6]).t().unwrap()], |x| op(&view(&x[0])?, &view(&x[1])?));
        }
        check_with(name, 1e-5, &[floats(&[3, 1, 5]), floats(&[4, 1])], |x| op(&x[0], &x[1]));
        check_with(name, 1e-5, &[floats(&[3, 70]), floats(&[])], |x| op(&x[0], &x[1]));
    }
    check_with("pow", 1e-5, &[floats(&[6, 8]).abs().unwrap(), floats(&[8])], |x| x[0].pow(&x[1]));
    let Some(device) = gpu() else { return };
    for dtype in [DType::U32, DType::I32] {
        let (a, b) = (of(&[5u32, 1, 7], &[3]).to_dtype(dtype).unwrap(), of(&[2u32, 9, 7], &[3]).to_dtype(dtype).unwrap());
        for (name, op) in [cases[0], cases[1], cases[2], cases[4], cases[5]] {
            if name == "sub" && dtype == DType::U32 {
                continue;
            }
            let got = op(&a.to_device(&device).unwrap(), &b.to_device(&device).unwrap()).unwrap();
            close(name, &got, &op(&a, &b).unwrap(), 0.0);
        }
        let e = a.to_device(&device).unwrap().div(&b.to_device(&device).unwrap()).unwrap_err().to_string();
        assert!(e.contains("div") && e.contains("gpu") && e.contains(dtype.name()), "{e}");
    }
}

#[test]
fn comparisons_and_choice() {
    let Some(device) = gpu() else { return };
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let all: [Op; 6] = [Tensor::eq, Tensor::ne, Tensor::lt, Tensor::le, Tensor::gt, Tensor::ge];
    let a = of(&[1.0f32, 2.0, 3.0, f32::NAN, -1.0, 0.0], &[2, 3]);
    let b = of(&[1.0f32, 3.0, 2.0], &[3]);
    for op in all {
        for dtype in [DType::F32, DType::I32, DType::U32, DType::U8] {
            let (a, b) = (a.to_dtype(dtype).unwrap(), b.to_dtype(dtype).unwrap());
            let got = op(&a.to_device(&device).unwrap().t().unwrap(), &b.to_device(&device).unwrap().unsqueeze(1).unwrap());
            close("compare", &got.unwrap(), &op(&a.t().unwrap(), &b.unsqueeze(1).unwrap()).unwrap(), 0.0);
        }
    }
}
