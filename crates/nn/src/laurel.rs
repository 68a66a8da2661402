use imaginal_tensor::{Result, Tensor};

use crate::{Init, Linear, Module, Norm, NormKind, Slot, Source, join};

/// Shape of a learned residual.
#[derive(Clone, Debug, PartialEq)]
pub struct LaurelConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between its two matrices.
    pub rank: usize,
    /// Epsilon of its norm.
    pub eps: f64,
}

/// A learned augmented residual of low rank (LAuReL, Menghani et al. 2024): `x + norm(right(left(x)))`, added beside the
/// result of another block.
#[derive(Clone, Debug)]
pub struct Laurel {
    left: Linear,
    right: Linear,
    norm: Norm,
}

impl Laurel {
    /// Builds `laurel_l`, `laurel_r` and `laurel_post_norm` under `prefix`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &LaurelConfig) -> Result<Self> {
        let mut linear = |name: &str, inputs, outputs| {
            Linear::new(source, &join(prefix, name), inputs, outputs, false, Init::Normal { std: 0.02 })
        };
        let (left, right) = (linear("laurel_l", c.hidden, c.rank)?, linear("laurel_r", c.rank, c.hidden)?);
        let norm = Norm::new(source, &join(prefix, "laurel_post_norm"), &[c.hidden], NormKind::Rms, c.eps)?;
        Ok(Laurel { left, right, norm })
    }

    /// `x[.., hidden]` → the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.add(&self.norm.forward(&self.right.forward(&self.left.forward(x)?)?)?)
    }
}

impl Module for Laurel {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.left.slots(&join(prefix, "laurel_l"), visit);
        self.right.slots(&join(prefix, "laurel_r"), visit);
        self.norm.slots(&join(prefix, "laurel_post_norm"), visit);
    }
}
