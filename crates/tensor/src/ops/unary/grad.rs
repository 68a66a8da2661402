use imaginal_kernels::vecmath;

use super::cpu::{GELU_CUBIC, GELU_SCALE, normal_cdf, sigmoid, vectorised};
use super::{Unary, filled};
use crate::autograd::{Backward, InputGrads};
use crate::layout::Layout;
use crate::ops::binary::cpu::map2;
use crate::ops::common::Real;
use crate::storage::Storage;
use crate::{DType, Result, Tensor};

impl Unary {
    /// Whether the slope is computed from the function's result; from its argument otherwise.
    pub(super) fn slope_uses_result(self) -> bool {
        matches!(
            self,
            Unary::Exp | Unary::Sqrt | Unary::Rsqrt | Unary::Recip | Unary::Tanh | Unary::Sigmoid | Unary::Relu
        )
    }
}

pub(super) fn backward(kind: Unary, b: &Backward, saved: Option<&Tensor>) -> InputGrads {
    Ok(vec![Some(slope_times(kind, saved.unwrap_or(&b.inputs[0]), b.grad)?)])
}

/// The gradient `g` times the slope of the function; `v` is its argument or its result.
fn slope_times(kind: Unary, v: &Tensor, g: &Tensor) -> Result<Tensor> {
    if kind == Unary::Neg {
        return g.neg();
    }
    match (v.storage(), g.storage()) {
        (Storage::Cpu(sv), Storage::Cpu(sg)) => match (v.dtype(), vectorised(kind)) {
            (DType::F32, Some(op)) => {
                let (v, g) = (v.contiguous()?, g.contiguous()?);
                Tensor::build::<f32>(v.shape(), |out| {
                    let v = v.as_slice::<f32>()?;
                    // Of argument and result, the kernel reads the one that is saved: see `slope_uses_result`.
                    vecmath::unary_backward(op, v, v, g.as_slice::<f32>()?, out);
                    Ok(())
                })
            }
            (DType::F32, None) => {
                filled(v, |out| slopes::<f32>(kind, sv.slice(), v.layout(), sg.slice(), g.layout(), out))
            }
            (DType::F64, _) => {
                filled(v, |out| slopes::<f64>(kind, sv.slice(), v.layout(), sg.slice(), g.layout(), out))
            }
            (half, _) => slope_times(kind, &v.to_dtype(DType::F32)?, &g.to_dtype(DType::F32)?)?.to_dtype(half),
        },
        #[cfg(feature = "gpu")]
        _ => super::gpu::slopes(kind, v, g),
    }
}

fn slopes<R: Real>(kind: Unary, v: &[R], lv: &Layout, g: &[R], lg: &Layout, out: &mut [R]) {
    macro_rules! each {
        (|$v:ident, $g:ident| $y:expr) => {
            map2(v, lv, g, lg, out, |$v: R, $g: R| $y)
        };
    }
    let (one, zero, half) = (R::ONE, R::ZERO, R::of(0.5));
    match kind {
        Unary::Neg => each!(|_x, g| -g),
        Unary::Exp => each!(|y, g| y * g),
        Unary::Log => each!(|x, g| g / x),
        Unary::Sqrt => each!(|y, g| half * g / y),
        Unary::Rsqrt => each!(|y, g| -half * y * y * y * g),
        Unary::Recip => each!(|y, g| -(y * y * g)),
        Unary::Sqr => each!(|x, g| (x + x) * g),
        Unary::Abs => each!(|x, g| if x > zero {
            g
        } else if x < zero {
            -g
        } else {
            zero
        }),
        Unary::Sin => each!(|x, g| x.cos() * g),
        Unary::Cos => each!(|x, g| -(x.sin() * g)),
        Unary::Tanh => each!(|y, g| (one - y * y) * g),
        Unary::Sigmoid => each!(|y, g| y * (one - y) * g),
        Unary::Silu => each!(|x, g| {
            let s = sigmoid(x);
            s * (one + x * (one - s)) * g
        }),
        Unary::Gelu => each!(|x, g| {
            let (scale, cubic) = (R::of(GELU_SCALE), R::of(GELU_CUBIC));
            let t = (scale * (x + cubic * x * x * x)).tanh();
            let inner = scale * (one + R::of(3.0) * cubic * x * x);
            half * (one + t + x * (one - t * t) * inner) * g
        }),
        Unary::GeluErf => each!(|x, g| {
            // 1/√(2π), the height of the normal density.
            let density = R::of(0.398_942_280_401_432_7) * (-half * x * x).exp();
            (normal_cdf(x) + x * density) * g
        }),
        Unary::Relu => each!(|y, g| if y > zero { g } else { zero }),
        Unary::Softplus => each!(|x, g| sigmoid(x) * g),
    }
}
