use super::{MlstmInputs, Sizes, normalise, with_ones};
use crate::ops::wkv::WkvInputs;
use crate::{Result, Tensor, no_grad};

/// From step to step: gates are numbers per head, and the memory is a linear attention with these gates.
pub(super) fn forward(q: &Tensor, x: &MlstmInputs, sizes: Sizes) -> Result<(Tensor, [Tensor; 2])> {
    let [b, t, h, k, _] = sizes;
    no_grad(|| {
        let (memory, m) = q.mlstm_state(x, sizes)?;
        let (log_i, log_f) = (x.i.contiguous()?, x.f.neg()?.softplus()?.neg()?);
        let mut m = m.to_vec::<f32>()?;
        let [fall, input, floor] =
            Tensor::build_n::<f32, 3>([[b, t, h, 1]; 3].each_ref().map(|s| &s[..]), |[fall, input, floor]| {
                let (log_i, log_f) = (log_i.as_slice::<f32>()?, log_f.as_slice::<f32>()?);
                for at in 0..b * t * h {
                    let m = &mut m[at / (t * h) * h + at % h];
                    let kept = log_f[at] + *m;
                    *m = kept.max(log_i[at]);
                    (fall[at], input[at], floor[at]) = (kept - *m, (log_i[at] - *m).exp(), (-*m).exp());
                }
                Ok(())
            })?;
        let inputs = WkvInputs {
            log_decay: &fall.broadcast_as([b, t, h, k])?,
            k: &x.k.mul(&input)?,
            v: &with_ones(x.v)?,
            bonus: None,
            correction: None,
            s0: Some(&memory),
        };
        let (read, memory) = q.mul_scalar((k as f64).powf(-0.5))?.wkv(&inputs)?;
        Ok((normalise(&read, &floor, x.eps)?, [memory, Tensor::from_vec(m, [b, h], q.device())?]))
    })
}
