use std::sync::{Arc, RwLock};

use imaginal_tensor::{Result, Tensor};

/// A float tensor that training may change. Cheap to clone: clones are the same parameter.
///
/// While it is trainable ([`Param::set_trainable`]) its tensor is a leaf of the gradient graph, so that
/// `grads.get(&param.get())` finds the gradient of the value last used.
#[derive(Clone)]
pub struct Param(Arc<RwLock<Slot>>);

struct Slot {
    value: Tensor,
    trainable: bool,
}

impl Param {
    /// A parameter with this value, not trainable yet.
    pub fn new(value: Tensor) -> Self {
        Param(Arc::new(RwLock::new(Slot { value: value.detach(), trainable: false })))
    }

    // The slot is consistent between statements, so that a lock poisoned by a panic elsewhere is still good.
    fn read<R>(&self, f: impl FnOnce(&Slot) -> R) -> R {
        f(&self.0.read().unwrap_or_else(|e| e.into_inner()))
    }

    fn write<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> R {
        f(&mut self.0.write().unwrap_or_else(|e| e.into_inner()))
    }

    /// The value now. Hold it no longer than needed: [`Param::update`] works in place only while nobody else does.
    pub fn get(&self) -> Tensor {
        self.read(|s| s.value.clone())
    }

    /// Replaces the value (its history is cut off).
    pub fn set(&self, value: Tensor) {
        self.write(|s| {
            let value = value.detach();
            s.value = if s.trainable { value.requires_grad() } else { value };
        });
    }

    /// Changes the value in place, for optimizers: `f` may overwrite the tensor or assign another of the same shape.
    ///
    /// # Errors
    /// Whatever `f` returns; the value is then what `f` left.
    pub fn update(&self, f: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        self.write(|s| {
            let done = f(&mut s.value);
            let is_leaf = s.value.tracks_grad();
            if s.trainable && !is_leaf {
                s.value = s.value.detach().requires_grad();
            }
            done
        })
    }

    /// Whether gradients reach this parameter.
    pub fn is_trainable(&self) -> bool {
        self.read(|s| s.trainable)
    }

    /// Makes the value a leaf of the gradient graph, or an ordinary tensor again.
    pub fn set_trainable(&self, trainable: bool) {
        self.write(|s| {
            if s.trainable != trainable {
                s.trainable = trainable;
                let value = s.value.detach();
                s.value = if trainable { value.requires_grad() } else { value };
            }
        });
    }

    /// Whether two handles are the same parameter (a tied head and its embedding are).
    pub fn same(&self, other: &Param) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.read(|s| write!(f, "Param({:?}{})", s.value, if s.trainable { ", trainable" } else { "" }))
    }
}
