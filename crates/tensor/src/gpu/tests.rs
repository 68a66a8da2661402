//! Every kernel against the CPU: values and gradients over strided, broadcast and empty views. Without an adapter the
//! tests say so and check nothing.

use imaginal_numeric::Format;

use super::*;
use crate::ops::testing::{of, sample};
use crate::{AdamW, AttentionOpts, DType, Device, Packed, RopeStyle, ScanInputs, Tensor};

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
    let read =
        |t: &Tensor| crate::no_grad(|| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec::<f64>()).unwrap();
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
            check_with(name, 1e-5, &[floats(&[6, 8]), floats(&[8, 6]).t().unwrap()], |x| {
                op(&view(&x[0])?, &view(&x[1])?)
            });
        }
        check_with(name, 1e-5, &[floats(&[3, 1, 5]), floats(&[4, 1])], |x| op(&x[0], &x[1]));
        check_with(name, 1e-5, &[floats(&[3, 70]), floats(&[])], |x| op(&x[0], &x[1]));
    }
    check_with("pow", 1e-5, &[floats(&[6, 8]).abs().unwrap(), floats(&[8])], |x| x[0].pow(&x[1]));
    let Some(device) = gpu() else { return };
    for dtype in [DType::U32, DType::I32] {
        let (a, b) =
            (of(&[5u32, 1, 7], &[3]).to_dtype(dtype).unwrap(), of(&[2u32, 9, 7], &[3]).to_dtype(dtype).unwrap());
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
            let got =
                op(&a.to_device(&device).unwrap().t().unwrap(), &b.to_device(&device).unwrap().unsqueeze(1).unwrap());
            close("compare", &got.unwrap(), &op(&a.t().unwrap(), &b.unsqueeze(1).unwrap()).unwrap(), 0.0);
        }
    }
}

#[test]
fn choice_by_a_condition() {
    for view in VIEWS {
        check("select", &[floats(&[6, 8]), floats(&[8, 6]).t().unwrap().contiguous().unwrap()], |x| {
            let (a, b) = (view(&x[0])?, view(&x[1])?);
            a.detach().gt(&b.detach())?.select(&a, &b)
        });
    }
    check("select", &[floats(&[6, 1]), floats(&[8])], |x| x[0].detach().gt(&x[1].detach())?.select(&x[0], &x[1]));
    check("masked_fill", &[floats(&[6, 8])], |x| {
        x[0].masked_fill(&x[0].detach().lt(&x[0].detach().zeros_like()?)?, -7.5)
    });
}

#[test]
fn casts() {
    let Some(device) = gpu() else { return };
    let kinds = [DType::F32, DType::I32, DType::U32, DType::U8, DType::Bool];
    let x = of(&[0.0f32, 1.0, -3.7, 200.9, 2.5, 300.0, 1e12, -1e12, f32::NAN, 0.25], &[2, 5]);
    for from in kinds {
        let x = if from == DType::F32 { x.clone() } else { x.to_dtype(from).unwrap() };
        // A signed number too small for an unsigned type saturates on the CPU; the device has no kernel for it.
        for to in kinds.into_iter().filter(|&to| to != from) {
            match x.to_device(&device).unwrap().t().unwrap().to_dtype(to) {
                Ok(got) => {
                    let expected = x.t().unwrap().to_dtype(to).unwrap();
                    // Floats near the ends of the 32-bit range round differently; they are compared as floats.
                    close(&format!("{from} to {to}"), &got, &expected, if to.size() == 4 { 1e-7 } else { 0.0 });
                }
                Err(e) => assert!(e.to_string().contains("to_dtype: no kernel for"), "{from} to {to}: {e}"),
            }
        }
    }
}

#[test]
fn reductions() {
    type Op = fn(&Tensor, &[usize]) -> Result<Tensor>;
    let cases: [(&str, Op); 2] = [("sum", |x, d| x.sum(d, false)), ("mean", |x, d| x.mean(d, true))];
    for (name, op) in cases {
        for dims in [&[0][..], &[1], &[2], &[0, 2], &[2, 1], &[0, 1, 2], &[]] {
            check(name, &[floats(&[5, 70, 4])], |x| op(&x[0], dims));
            check(name, &[floats(&[5, 9, 4])], |x| op(&x[0].permute(&[2, 0, 1])?, dims));
        }
        check(name, &[floats(&[0, 4])], |x| x[0].sum(&[0], false));
        check(name, &[floats(&[3, 1])], |x| op(&x[0].broadcast_as([3, 200])?, &[1]));
    }
    for dim in 0..3 {
        check("max", &[floats(&[5, 70, 4])], |x| x[0].max(dim, true));
        check("min", &[floats(&[5, 70, 4])], |x| x[0].permute(&[1, 2, 0])?.min(dim, false));
        check("argmax", &[floats(&[5, 70, 4])], |x| x[0].detach().argmax(dim));
        check("argmin", &[floats(&[5, 70, 4])], |x| x[0].detach().permute(&[1, 2, 0])?.argmin(dim));
    }
    check("argmax", &[of(&[1.0f32, 3.0, 3.0, 2.0, f32::NAN, 9.0], &[2, 3])], |x| x[0].detach().argmax(1));
    check("max", &[of(&[f32::NEG_INFINITY; 100], &[1, 100])], |x| x[0].detach().max(1, false));
    check("many sums", &[floats(&[70_000, 1]).broadcast_as([70_000, 33]).unwrap()], |x| x[0].detach().sum(&[1], false));
    let Some(device) = gpu() else { return };
    for dtype in [DType::I32, DType::U32] {
        let x = of(&[5u32, 1, 7, 9, 2, 2], &[2, 3]).to_dtype(dtype).unwrap();
        close("sum", &x.to_device(&device).unwrap().sum(&[1], false).unwrap(), &x.sum(&[1], false).unwrap(), 0.0);
    }
}

#[test]
fn matrix_products() {
    for (m, k, n) in [(1, 1, 1), (1, 40, 7), (17, 33, 16), (16, 16, 16), (50, 3, 70), (5, 0, 4), (0, 3, 4)] {
        check("matmul", &[floats(&[m, k]), floats(&[k, n])], |x| x[0].matmul(&x[1]));
        check("matmul", &[floats(&[k, m]), floats(&[n, k])], |x| x[0].t()?.matmul(&x[1].t()?));
    }
    check("matmul", &[floats(&[2, 3, 20, 9]), floats(&[3, 9, 18])], |x| x[0].matmul(&x[1]));
    check("matmul", &[floats(&[3, 20, 9]), floats(&[2, 1, 18, 9])], |x| x[0].matmul(&x[1].t()?));
    check("matmul", &[floats(&[2, 20, 3, 9]), floats(&[2, 7, 3, 9])], |x| {
        x[0].transpose(1, 2)?.matmul(&x[1].permute(&[0, 2, 3, 1])?)
    });
    check("matmul", &[floats(&[20, 9]), floats(&[9, 30])], |x| x[0].narrow(0, 3, 5)?.matmul(&x[1].narrow(1, 7, 20)?));
    check("linear", &[floats(&[2, 3, 9]), floats(&[11, 9]), floats(&[11])], |x| x[0].linear(&x[1], Some(&x[2])));
}

#[test]
fn elements_by_index() {
    let Some(device) = gpu() else { return };
    let ids = |v: &[u32], shape: &[usize], like: &Tensor| of(v, shape).to_device(like.device());
    for dim in 0..3 {
        check("index_select", &[floats(&[4, 5, 6])], |x| x[0].index_select(dim, &ids(&[3, 0, 3, 1], &[2, 2], &x[0])?));
        check("index_select", &[floats(&[4, 5, 6])], |x| {
            x[0].permute(&[2, 0, 1])?.index_select(dim, &ids(&[3, 0], &[2], &x[0])?)
        });
        check("index_select", &[floats(&[4, 5, 6])], |x| x[0].index_select(dim, &ids(&[2], &[], &x[0])?));
    }
    check("index_add", &[floats(&[4, 5]), floats(&[4, 2, 3])], |x| {
        x[0].index_add(1, &ids(&[4, 0, 4, 1, 1, 1], &[2, 3], &x[0])?, &x[1])
    });
    check("gather", &[floats(&[3, 7])], |x| x[0].gather(1, &ids(&[6, 0, 3], &[3, 1], &x[0])?));
    check("gather", &[floats(&[7, 3])], |x| x[0].t()?.gather(1, &ids(&[6, 0, 3, 3], &[2, 2], &x[0])?));
    check("scatter_add", &[floats(&[3, 7]), floats(&[2, 2])], |x| {
        x[0].scatter_add(1, &ids(&[6, 0, 3, 3], &[2, 2], &x[0])?, &x[1])
    });
    let x = floats(&[3, 2]).to_device(&device).unwrap();
    let far = of(&[3u32], &[1]).to_device(&device).unwrap();
    assert!(x.index_select(0, &far).unwrap_err().to_string().contains("index 3"));
    assert!(x.index_select(0, &of(&[1u32], &[1])).is_err(), "operands on two devices");
}

#[test]
fn joining() {
    check("cat", &[floats(&[2, 3, 4]), floats(&[2, 5, 4]), floats(&[2, 0, 4])], |x| Tensor::cat(x, 1));
    check("cat", &[floats(&[3, 2]), floats(&[4, 3])], |x| Tensor::cat(&[x[0].t()?, x[1].clone()], 0));
    check("stack", &[floats(&[3, 2]), floats(&[3, 2])], |x| Tensor::stack(x, 2));
    check("split", &[floats(&[3, 7])], |x| x[0].split(1, &[2, 5])?[1].contiguous());
}

#[test]
fn fused_operations() {
    check("softmax", &[floats(&[3, 50, 2])], |x| x[0].softmax(1));
    check("log_softmax", &[floats(&[3, 50])], |x| x[0].log_softmax(1));
    check("rms_norm", &[floats(&[2, 3, 40]), floats(&[40])], |x| x[0].rms_norm(&x[1], 1e-5));
    check("swiglu", &[floats(&[4, 9]), floats(&[4, 9])], |x| x[0].swiglu(&x[1]));
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        check("rope", &[floats(&[2, 5, 3, 12]), floats(&[5, 4]), floats(&[5, 4])], |x| {
            x[0].rope(&x[1].detach(), &x[2].detach(), style)
        });
    }
    check("cross_entropy", &[floats(&[6, 11])], |x| {
        let targets = of(&[3u32, 10, 0, 99, 3, 5], &[6]).to_device(x[0].device())?;
        x[0].cross_entropy(&targets, Some(99))
    });
    let inputs = [floats(&[2, 5, 4, 8]), floats(&[2, 9, 2, 8]), floats(&[2, 9, 2, 6])];
    let mut opts = AttentionOpts::causal(8, 4);
    check("attention", &inputs, |x| x[0].attention(&x[1], &x[2], None, &opts));
    (opts.window, opts.softcap) = (Some(3), Some(1.5));
    check_with("attention", 1e-5, &inputs, |x| x[0].attention(&x[1], &x[2], None, &opts));
    for (tail, silu) in [(false, true), (true, false)] {
        check("causal_conv1d", &[floats(&[2, 7, 5]), floats(&[5, 4]), floats(&[5]), floats(&[2, 3, 5])], |x| {
            Ok(x[0].causal_conv1d(&x[1], Some(&x[2]), tail.then_some(&x[3]), silu)?.0.add(&x[3].sum_all()?)?)
        });
    }
}

#[test]
fn optimizer_steps() {
    let Some(device) = gpu() else { return };
    let run = |d: &Device| {
        let mut state = [floats(&[70]), floats(&[70]).mul_scalar(0.1).unwrap(), floats(&[70]).sqr().unwrap()]
            .map(|t| t.to_device(d).unwrap());
        let kept = state[0].clone();
        for step in 1..4 {
            let s = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, grad_scale: 0.5 };
            let [p, m, v] = &mut state;
            p.adamw_step(&floats(&[70]).mul_scalar(step as f64).unwrap().to_device(d).unwrap(), m, v, &s).unwrap();
        }
        close("a shared value must not change", &kept, &floats(&[70]), 0.0);
        state
    };
    for (g, e) in run(&device).iter().zip(&run(&Device::Cpu)) {
        close("adamw_step", g, e, 1e-6);
    }
}

#[test]
fn selective_scan() {
    let (b, t, c, n) = (2, 6, 5, 3);
    let inputs = [
        floats(&[b, t, c]),
        floats(&[b, t, c]).softplus().unwrap(),
        floats(&[c, n]).abs().unwrap().neg().unwrap(),
        floats(&[b, t, n]),
        floats(&[b, t, n]).mul_scalar(0.5).unwrap(),
        floats(&[c]),
        floats(&[b, c, n]),
    ];
    for start in [false, true] {
        for last in [false, true] {
            check_with("selective_scan", 1e-5, &inputs, |x| {
                let s = ScanInputs {
                    delta: &x[1],
                    a: &x[2],
                    b: &x[3],
                    c: &x[4],
                    d: start.then_some(&x[5]),
                    h0: start.then_some(&x[6]),
                };
                let (y, h) = x[0].selective_scan(&s)?;
                if last { Ok(h) } else { y.add(&x[5].add(&x[6].sum_all()?)?) }
            });
        }
    }
}

#[test]
fn packed_weights() {
    let Some(device) = gpu() else { return };
    let (rows, cols) = (7, 64);
    let values = floats(&[rows, cols]).to_vec::<f32>().unwrap();
    for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
        let mut bytes = vec![0; format.bytes_for(rows * cols).unwrap()];
        format.encode(&values, &mut bytes).unwrap();
        let w = Packed::new(format, rows, cols, crate::Bytes::from_vec(bytes)).unwrap();
        let moved = w.to_device(&device).unwrap();
        let name = format.name();
        close(name, &Tensor::from_packed(&moved).unwrap(), &Tensor::from_packed(&w).unwrap(), 0.0);
        let ids = of(&[6u32, 0, 6, 2], &[2, 2]);
        let picked = Tensor::packed_rows(&moved, &ids.to_device(&device).unwrap().t().unwrap()).unwrap();
        close(name, &picked, &Tensor::packed_rows(&w, &ids.t().unwrap()).unwrap(), 0.0);
        // The CPU rounds activations for its integer products; the device multiplies in f32.
        let eps = if matches!(format, Format::Q8_0 | Format::Q4_0) { 2e-2 } else { 1e-5 };
        check_with(name, eps, &[floats(&[3, cols]), floats(&[rows])], |x| {
            let w = if x[0].device().is_cpu() { &w } else { &moved };
            x[0].packed_linear(w, Some(&x[1]))
        });
        assert!(floats(&[3, cols]).packed_linear(&moved, None).is_err(), "operands on two devices");
        close(
            name,
            &Tensor::from_packed(&moved.to_device(&Device::Cpu).unwrap()).unwrap(),
            &Tensor::from_packed(&w).unwrap(),
            0.0,
        );
    }
    // Halves of every kind: subnormal, the largest, infinite.
    let bits: Vec<u16> = vec![0, 1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x8001, 0xfbff];
    let w = Packed::new(Format::F16, 1, 8, crate::Bytes::from_vec(bytemuck::cast_slice(&bits).to_vec())).unwrap();
    let moved = w.to_device(&device).unwrap();
    let read = |w: &Packed| Tensor::from_packed(w).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(read(&moved), read(&w));
}

#[test]
fn what_has_no_kernel_says_so() {
    let Some(device) = gpu() else { return };
    let x = floats(&[3, 4]).to_device(&device).unwrap();
    assert_eq!(x.topk(1, 2).unwrap_err().to_string(), "topk: no kernel for f32 on gpu");
    let whole = of(&[1u32, 2], &[2]).to_device(&device).unwrap();
    assert_eq!(whole.exp().unwrap_err().to_string(), "exp: no kernel for u32 on gpu");
    assert!(x.as_slice::<f32>().is_err());
}

/// A kernel given as text.
struct Doubling;

impl KernelMetadata for Doubling {
    fn id(&self) -> KernelId {
        KernelId::new::<Self>()
    }
    fn address_type(&self) -> ElemType {
        ElemType::UInt(cubecl::ir::UIntKind::U32)
    }
}

impl CubeKernel for Doubling {
    fn define(&self) -> KernelDefinition {
        let settings = KernelSettings::new((*CubeDim::new_1d(UNITS)).into(), ExecutionMode::Checked, AddressType::U32);
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: cubecl::ir::metadata::Info::default() }
    }
    fn source(&self) -> Option<PrecompiledSource> {
        let source = "@group(0) @binding(0) var<storage, read_write> data: array<f32>;
            @compute @workgroup_size(64) fn double(@builtin(global_invocation_id) id: vec3<u32>) {
                if id.x < arrayLength(&data) { data[id.x] = data[id.x] * 2.0; }
            }";
        Some(PrecompiledSource { source: source.into(), entrypoint_name: "double".into(), lang: "wgsl" })
    }
}

#[test]
fn a_kernel_may_be_text_in_the_devices_own_language() {
    let Some(Device::Gpu(device)) = gpu() else { return };
    let s = GpuStorage::from_words(&device, bytemuck::cast_slice(&[1.0f32, 2.5, -3.0])).unwrap();
    device
        .run("double", s.len(), |client, grid, _| {
            client.launch(
                Box::new(Doubling),
                grid,
                cubecl::server::KernelArguments::new().with_buffer(s.handle().binding()),
            );
        })
        .unwrap();
    assert_eq!(bytemuck::cast_slice::<u8, f32>(&s.download(DType::F32).unwrap()), [2.0, 5.0, -6.0]);
}

#[cube(launch)]
fn too_much_memory_kernel(out: &mut [f32]) {
    let mut shared = Shared::<[f32]>::new_slice(1usize << 24);
    shared[UNIT_POS as usize] = 1.0;
    sync_cube();
    out[UNIT_POS as usize] = shared[0];
}

#[test]
fn a_kernel_that_fails_is_an_error_of_the_read() {
    let Some(Device::Gpu(device)) = gpu() else { return };
    let s = GpuStorage::scratch(&device, "t", 64).unwrap();
    device.run("t", 64, |client, grid, dim| too_much_memory_kernel::launch(client, grid, dim, s.arg())).unwrap();
    let e = s.download(DType::F32).unwrap_err().to_string();
    assert!(e.starts_with("device gpu: ") && !e.contains('\n'), "{e}");
    // And the device goes on.
    check("after a failure", &[floats(&[3])], |x| x[0].exp());
}
