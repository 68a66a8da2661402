use super::Scalar;
use crate::Tensor;
use crate::autograd::{Backward, InputGrads};

pub(super) fn backward(kind: Scalar, b: &Backward) -> InputGrads {
    let (x, g) = (&b.inputs[0], b.grad);
    let dx = match kind {
        Scalar::Add(_) => g.clone(),
        Scalar::Mul(c) => g.mul_scalar(c)?,
        Scalar::Clamp(low, high) => {
            // An element that the bounds left as it was passes its gradient on.
            let inside = x.clamp(low, high)?.eq(x)?;
            inside.select(g, &Tensor::zeros((), g.dtype(), g.device())?)?
        }
        // x⁰ is constant, also at 0 where x⁻¹ is infinite.
        Scalar::Powf(0.0) => g.zeros_like()?,
        Scalar::Powf(e) => x.powf(e - 1.0)?.mul_scalar(e)?.mul(g)?,
    };
    Ok(vec![Some(dx)])
}
