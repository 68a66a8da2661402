use imaginal_tensor::{Result, Tensor};

use crate::{
    GatedDeltaNet, KimiDeltaAttention, LightningAttention, Mamba, Mamba2, Mamba3, Mlstm, Module, RecurrentState,
    Rwkv6TimeMix, RwkvChannelMix, ShortConv, Slstm,
};

/// A layer whose memory is a recurrent state.
pub trait Recurrent: Module + std::fmt::Debug + Send + Sync {
    /// `x[b, t, hidden]` → the same shape. With a state the recurrence goes on from it and the state moves by `t`
    /// positions (then no gradients flow into the past); without one it starts from zero.
    ///
    /// # Errors
    /// The shapes do not fit, or the state is of another shape.
    fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor>;

    /// A state for `batch` sequences, before the first token.
    fn state(&self, batch: usize) -> RecurrentState;
}

macro_rules! recurrent {
    ($($layer:ty),*) => {$(
        impl Recurrent for $layer {
            fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
                self.forward(x, state)
            }

            fn state(&self, batch: usize) -> RecurrentState {
                self.state(batch)
            }
        }
    )*};
}

recurrent!(Mamba, Mamba2, Mamba3, GatedDeltaNet, KimiDeltaAttention, LightningAttention, ShortConv);
recurrent!(Rwkv6TimeMix, RwkvChannelMix, Mlstm, Slstm);
