//! Reverse-mode gradients. Each differentiable result holds a [`Node`]: its inputs and a function from the gradient of
//! the result to those of the inputs. The graph is freed with the tensors that hold it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::tensor::{Tensor, TensorId};
use crate::{Error, Result};

thread_local! {
    static GRAD_ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread record what a backward pass needs.
pub fn is_grad_enabled() -> bool {
    GRAD_ENABLED.get()
}

struct Restore(bool);
impl Drop for Restore {
    fn drop(&mut self) {
        GRAD_ENABLED.set(self.0);
    }
}

pub(crate) fn with_grad<R>(enabled: bool, f: impl FnOnce() -> R) -> R {
    let _restore = Restore(GRAD_ENABLED.replace(enabled));
    f()
}

/// Runs `f` without recording gradients on this thread: inference, evaluation, optimizer steps.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    with_grad(false, f)
}

/// What a backward function is given.
pub(crate) struct Backward<'a> {
    /// The inputs of the operation, in order.
    pub inputs: &'a [Tensor],
    /// Gradient of the loss by the operation's result; has the result's shape.
    pub grad: &'a Tensor,
}

impl Backward<'_> {
    /// Whether the gradient of input `i` is wanted; an operation may skip work for those that are not.
    pub fn needs(&self, i: usize) -> bool {
        self.inputs[i].tracks_grad()
    }
}

/// Gradients of the inputs, in order; `None` for one that needs none.
pub(crate) type InputGrads = Result<Vec<Option<Tensor>>>;
type BackwardFn = Box<dyn Fn(&Backward) -> InputGrads + Send + Sync>;

/// One recorded operation.
pub(crate) struct Node {
    inputs: Vec<Tensor>,
    backward: BackwardFn,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Taken apart in a loop: dropped recursively, a graph of many thousand steps would overflow the stack.
        let mut stack = std::mem::take(&mut self.inputs);
        while let Some(t) = stack.pop() {
            if let Some(mut node) = t.into_node_if_last() {
                stack.append(&mut node.inputs);
            }
        }
    }
}

/// Attaches to `out` how its gradient flows back to `inputs`, if any of them wants one and recording is on.
///
/// `backward` must not capture tensors that carry a graph (use [`Backward::inputs`], or `detach()` what is saved), or
/// graphs would be dropped recursively and outlive their use.
pub(crate) fn record(
    out: Tensor,
    inputs: &[&Tensor],
    backward: impl Fn(&Backward) -> InputGrads + Send + Sync + 'static,
) -> Tensor {
    if !is_grad_enabled() || !inputs.iter().any(|t| t.tracks_grad()) {
        return out;
    }
    let inputs = inputs.iter().map(|&t| t.clone()).collect();
    out.with_node(Arc::new(Node { inputs, backward: Box::new(backward) }))
}

/// The gradients that a backward pass left at the leaves (tensors made with [`Tensor::requires_grad`]).
#[derive(Default)]
pub struct Grads {
    by_id: HashMap<TensorId, Tensor>,
}

impl Grads {
    /// The gradient of the loss by `leaf`, with its shape; `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_id.get(&leaf.id())
    }

    /// Takes the gradient out, so that it can be changed in place.
    pub fn remove(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.by_id.remove(&leaf.id())
    }

    /// How many leaves have a gradient.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no leaf has one.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

fn accumulate(slot: &mut Option<Tensor>, grad: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => grad,
        Some(sum) => sum.into_add(&grad)?,
    });
    Ok(())
}

impl Tensor {
    /// Gradients of this scalar by every leaf it depends on.
    ///
    /// # Errors
    /// The tensor is not a scalar, or an operation's gradient cannot be computed.
    pub fn backward(&self) -> Result<Grads> {
        if self.elem_count() != 1 {
            return Err(Error::argument("backward", format!("the loss has shape {:?}, not one element", self.shape())));
        }
        let seed = Tensor::ones(self.shape(), self.dtype(), self.device())?;
        self.backward_with(seed)
    }

    /// Gradients by every leaf, given the gradient of the loss by this tensor (of the same shape).
    ///
    /// # Errors
    /// The shapes differ, or an operation's gradient cannot be computed.
    pub fn backward_with(&self, grad: Tensor) -> Result<Grads> {
        if grad.shape() != self.shape() {
            return Err(Error::shapes("backward", self.shape(), grad.shape()));
        }
        no_grad(|| {
            // Ids grow as results are made, so that the largest id left never is an input of another one left.
            let mut pending: BTreeMap<TensorId, (Tensor, Option<Tensor>)> = BTreeMap::new();
            let mut grads = Grads::default();
            if self.tracks_grad() {
                pending.insert(self.id(), (self.clone(), Some(grad)));
            }
            while let Some((id, (tensor, grad))) = pending.pop_last() {
                let Some(grad) = grad else { continue };
                let Some(node) = tensor.node() else {
                    grads.by_id.insert(id, grad);
                    continue;
                };
                let input_grads = (node.backward)(&Backward { inputs: &node.inputs, grad: &grad })?;
                drop(grad);
                for (input, grad) in node.inputs.iter().zip(input_grads) {
                    let (true, Some(grad)) = (input.tracks_grad(), grad) else { continue };
                    if grad.shape() != input.shape() {
                        return Err(Error::shapes("backward (gradient and input)", grad.shape(), input.shape()));
                    }
                    let slot = pending.entry(input.id()).or_insert_with(|| (input.clone(), None));
                    accumulate(&mut slot.1, grad)?;
                }
            }
            Ok(grads)
        })
    }
}

/// Activation recompute: runs `f` without keeping its intermediate results, and runs it again in the backward pass.
/// `inputs` must name every tensor that gradients shall reach, parameters included (Chen et al. 2016).
///
/// # Errors
/// Whatever `f` returns.
pub fn checkpoint(
    inputs: &[&Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let owned: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    let out = no_grad(|| f(&owned))?.detach();
    Ok(record(out, inputs, move |b| {
        with_grad(true, || {
            let leaves: Vec<Tensor> =
                b.inputs.iter().map(|t| if t.tracks_grad() { t.detach().requires_grad() } else { t.clone() }).collect();
            let mut grads = f(&leaves)?.backward_with(b.grad.clone())?;
            Ok(leaves.iter().map(|l| grads.remove(l)).collect())
        })
    }))
}
