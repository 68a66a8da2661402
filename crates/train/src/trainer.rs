//! One step of training: forward, backward, clip, AdamW.

use imaginal_kernels::gemm::{Operands, with_operands};
use imaginal_models::{Model, Rows};
use imaginal_nn::{Module, Param};
use imaginal_tensor::{AdamW, Device, Grads, Tensor};

use crate::Result;
use crate::options::Precision;

/// Settings of the optimizer that stay the same over a run.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the parameters that [`decays`] names.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; zero: no limit.
    pub clip: f64,
}

/// What a step found.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Mean cross-entropy before the update, in nats.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
}

/// Sequences for one forward pass, row-major `[batch, length]`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Token ids.
    pub inputs: Vec<u32>,
    /// The token that follows each input.
    pub targets: Vec<u32>,
    /// Sequences.
    pub rows: usize,
}

/// A model in training: its parameters by name, and AdamW's moments of each.
pub struct Trainer {
    model: Model,
    params: Vec<TrainedParam>,
    optimizer: Optimizer,
    operands: Operands,
}

/// A parameter and what the optimizer remembers about it.
pub(crate) struct TrainedParam {
    pub name: String,
    pub param: Param,
    pub first: Tensor,
    pub second: Tensor,
}

/// Whether weight decay applies to a parameter: to matrices and convolution kernels, not to norms and biases, nor to
/// the state matrix, whose logarithm is what is trained (as in Mamba's own recipe).
pub fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() >= 2 && !name.ends_with(".ssm_a_log")
}

impl Trainer {
    /// Begins training a model on the CPU, with moments of zero.
    ///
    /// # Errors
    /// The moments do not fit in memory.
    pub fn new(model: Model, optimizer: Optimizer) -> Result<Trainer> {
        let mut named = Vec::new();
        model.params("", &mut |name, param| named.push((name, param.clone())));
        let mut params = Vec::with_capacity(named.len());
        for (name, param) in named {
            param.set_trainable(true);
            let value = param.get();
            let zeros = || Tensor::zeros(value.shape(), value.dtype(), value.device());
            params.push(TrainedParam { first: zeros()?, second: zeros()?, name, param });
        }
        Ok(Trainer { model, params, optimizer, operands: Operands::F32 })
    }

    /// The same with products in this precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Trainer {
        self.operands = match precision {
            Precision::F32 => Operands::F32,
            Precision::Bf16 => Operands::Bf16,
        };
        self
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn params(&self) -> &[TrainedParam] {
        &self.params
    }

    pub(crate) fn params_mut(&mut self) -> &mut [TrainedParam] {
        &mut self.params
    }

    /// Mean cross-entropy of a batch, as a tensor that gradients flow from.
    ///
    /// # Errors
    /// An operation fails, or a token id is outside the vocabulary.
    pub fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let length = batch.inputs.len() / batch.rows.max(1);
        let ids = Tensor::from_slice(&batch.inputs, (batch.rows, length), &Device::Cpu)?;
        let logits = self.model.forward(&ids, None, Rows::All)?;
        let targets = Tensor::from_slice(&batch.targets, batch.targets.len(), &Device::Cpu)?;
        let vocab = logits.dim(2)?;
        Ok(logits.reshape((batch.targets.len(), vocab))?.cross_entropy(&targets, None)?)
    }

    /// Losses and the mean gradient of the batches, by parameter in the model's order.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn gradients(&self, batches: &[Batch]) -> Result<(f64, Vec<Option<Tensor>>)> {
        let mut sums: Vec<Option<Tensor>> = vec![None; self.params.len()];
        let mut total = 0.0;
        for batch in batches {
            let (loss, mut grads) = with_operands(self.operands, || -> Result<(f32, Grads)> {
                let loss = self.loss(batch)?;
                let seed = Tensor::full(loss.shape(), 1.0 / batches.len() as f64, loss.dtype(), loss.device())?;
                Ok((loss.to_scalar::<f32>()?, loss.backward_with(seed)?))
            })?;
            total += f64::from(loss);
            for (sum, p) in sums.iter_mut().zip(&self.params) {
                let Some(grad) = grads.remove(&p.param.get()) else { continue };
                *sum = Some(match sum.take() {
                    None => grad,
                    Some(sum) => imaginal_tensor::no_grad(|| sum.into_add(&grad))?,
                });
            }
        }
        Ok((total / batches.len() as f64, sums))
    }

    /// One step on the mean gradient of the batches, at this learning rate; `step` counts from one. Where loss or
    /// gradient is not finite, nothing is changed.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn step(&mut self, batches: &[Batch], lr: f64, step: u64) -> Result<StepResult> {
        let (loss, mut grads) = self.gradients(batches)?;
        let mut squares = 0f64;
        for grad in grads.iter_mut().flatten() {
            *grad = grad.contiguous()?;
            squares += imaginal_kernels::vecmath::sum_squares(grad.as_slice::<f32>()?);
        }
        let result = StepResult { loss, grad_norm: squares.sqrt() };
        if !result.loss.is_finite() || !result.grad_norm.is_finite() {
            return Ok(result);
        }
        let Optimizer { betas: [beta1, beta2], eps, weight_decay, clip } = self.optimizer;
        // As torch.nn.utils.clip_grad_norm_.
        let grad_scale = if clip > 0.0 { (clip / (result.grad_norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
        for (p, grad) in self.params.iter_mut().zip(grads) {
            let Some(grad) = grad else { continue };
            let weight_decay = if decays(&p.name, grad.shape()) { weight_decay } else { 0.0 };
            let settings = AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale };
            let (first, second) = (&mut p.first, &mut p.second);
            p.param.update(|value| value.adamw_step(&grad, first, second, &settings))?;
        }
        Ok(result)
    }
}
