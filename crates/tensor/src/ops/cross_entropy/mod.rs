//! The loss of next-token prediction.

mod cpu;
#[cfg(test)]
mod tests;

use crate::autograd::record;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// Mean of `−log softmax(self)[target]` over rows whose target is not `ignore`: `self` `[n, v]` logits, `targets`
    /// `u32[n]`; a scalar in nats. 0 where every row is ignored.
    ///
    /// # Errors
    /// Shapes do not fit, or a target is neither below `v` nor `ignore`.
    pub fn cross_entropy(&self, targets: &Tensor, ignore: Option<u32>) -> Result<Tensor> {
        let op = "cross_entropy";
        let list = self.check_targets(op, targets, ignore)?;
        if !(self.device().is_cpu() && self.dtype() == DType::F32) {
            return self.cross_entropy_reference(targets, ignore);
        }
        let logits = self.contiguous()?;
        let (loss, saved) = cpu::forward(&logits, &list, ignore)?;
        Ok(record(loss, &[&logits], move |b| {
            Ok(vec![Some(cpu::backward(&b.inputs[0], &list, ignore, &saved, b.grad)?)])
        }))
    }

    fn check_targets(&self, op: &'static str, targets: &Tensor, ignore: Option<u32>) -> Result<Vec<u32>> {
        let [n, v] = self.dims_n(op)?;
        if targets.shape() != [n] {
            return Err(Error::shapes(op, self.shape(), targets.shape()));
        }
        let list = targets.to_vec::<u32>()?;
        match list.iter().find(|&&t| t as usize >= v && Some(t) != ignore) {
            Some(&t) => Err(Error::OutOfRange { op, what: "target", index: t as usize, bound: v }),
            None => Ok(list),
        }
    }

    /// The reference form of [`Tensor::cross_entropy`], composed of primitives.
    ///
    /// # Errors
    /// As [`Tensor::cross_entropy`].
    pub fn cross_entropy_reference(&self, targets: &Tensor, ignore: Option<u32>) -> Result<Tensor> {
        let list = self.check_targets("cross_entropy", targets, ignore)?;
        let kept: Vec<f64> = list.iter().map(|&t| if Some(t) == ignore { 0.0 } else { 1.0 }).collect();
        let count = kept.iter().sum::<f64>().max(1.0);
        let index: Vec<u32> = list.iter().map(|&t| if Some(t) == ignore { 0 } else { t }).collect();
        let index = Tensor::from_vec(index, [list.len(), 1], self.device())?;
        let kept = Tensor::from_vec(kept, [list.len(), 1], &crate::Device::Cpu)?.to_dtype(self.dtype())?;
        let picked = self.log_softmax(1)?.gather(1, &index)?;
        picked.mul(&kept.to_device(self.device())?)?.sum_all()?.mul_scalar(-1.0 / count)
    }
}
