use super::Binary;
use crate::autograd::{Backward, InputGrads};
use crate::{Result, Tensor};

pub(super) fn backward(kind: Binary, ctx: &Backward) -> InputGrads {
    let [a, b] = ctx.inputs else { unreachable!("two inputs were recorded") };
    let g = ctx.grad;
    let back = |i: usize, f: &dyn Fn() -> Result<Tensor>| -> Result<Option<Tensor>> {
        ctx.needs(i).then(|| f()?.sum_to(ctx.inputs[i].shape())).transpose()
    };
    // Weight of the gradient that goes to the first operand of a comparison: 1, ½ where equal, 0.
    let share = |first_wins: fn(&Tensor, &Tensor) -> Result<Tensor>, x: &Tensor, y: &Tensor| -> Result<Tensor> {
        let wins = first_wins(x, y)?.to_dtype(g.dtype())?;
        let ties = x.eq(y)?.to_dtype(g.dtype())?;
        g.mul(&wins.add(&ties.mul_scalar(0.5)?)?)
    };
    let (da, db) = match kind {
        Binary::Add => (back(0, &|| Ok(g.clone()))?, back(1, &|| Ok(g.clone()))?),
        Binary::Sub => (back(0, &|| Ok(g.clone()))?, back(1, &|| g.neg())?),
        Binary::Mul => (back(0, &|| g.mul(b))?, back(1, &|| g.mul(a))?),
        Binary::Div => (back(0, &|| g.div(b))?, back(1, &|| g.mul(a)?.div(&b.mul(b)?)?.neg())?),
        Binary::Maximum => (back(0, &|| share(Tensor::gt, a, b))?, back(1, &|| share(Tensor::gt, b, a))?),
        Binary::Minimum => (back(0, &|| share(Tensor::lt, a, b))?, back(1, &|| share(Tensor::lt, b, a))?),
        Binary::Pow => {
            let one = Tensor::ones((), b.dtype(), b.device())?;
            (
                back(0, &|| g.mul(b)?.mul(&a.pow(&b.sub(&one)?)?))?,
                // 0^y has the gradient 0 by y, not 0·(−∞).
                back(1, &|| {
                    let zero = Tensor::zeros((), a.dtype(), a.device())?;
                    let log = a.eq(&zero)?.select(&a.zeros_like()?, &a.log()?)?;
                    g.mul(&a.pow(b)?)?.mul(&log)
                })?,
            )
        }
    };
    Ok(vec![da, db])
}
