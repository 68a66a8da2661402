//! Layers, weights in any format, parameters by name, state.
//!
//! There is one definition of each layer, for training and for generating: with a state a layer goes on where it
//! stopped, without one it starts from nothing, and gradients flow through everything but packed weights. A layer is
//! built from a [`Source`]: fresh values by seed ([`Fresh`]), or a file (see `imaginal-models`).
//!
//! Errors are those of the tensor operations; a layer adds none of its own.

mod activation;
mod altup;
mod attention;
mod conv;
mod decay;
mod delta;
mod init;
mod kimi;
mod laurel;
mod layer_inputs;
mod lightning;
mod linear;
mod mamba;
mod mamba2;
mod mamba3;
mod mla;
mod mlp;
mod module;
mod moe;
mod norm;
mod param;
mod recurrent;
mod rope;
mod rwkv;
mod shared;
mod short_conv;
pub mod state;
mod weight;
mod xlstm;

pub use activation::Activation;
pub use altup::{AltUp, AltUpConfig, Streams};
pub use attention::{Attention, AttentionConfig, Over, QkNorm, SharedKv, Temperature};
pub use delta::{GatedDeltaNet, GatedDeltaNetConfig, Projections};
pub use imaginal_tensor::{Error, HeadOrder, Result, RopeStyle};
pub use init::{Fresh, Init, Rng, Source};
pub use kimi::{KimiDeltaAttention, KimiDeltaAttentionConfig};
pub use laurel::{Laurel, LaurelConfig};
pub use layer_inputs::{LayerInput, LayerInputs, LayerInputsConfig};
pub use lightning::{LightningAttention, LightningAttentionConfig};
pub use linear::{Embedding, Linear, RmsNorm};
pub use mamba::{InnerNorms, Mamba, MambaConfig};
pub use mamba2::{GatedNorm, Mamba2, Mamba2Config, Mamba2Scales};
pub use mamba3::{Mamba3, Mamba3Config, Mamba3Decay};
pub use mla::{Mla, MlaConfig};
pub use mlp::{Mlp, MlpConfig};
pub use module::{Module, Slot, join};
pub use moe::{Groups, Moe, MoeConfig, RouterConfig, Scores, SharedExperts};
pub use norm::{Norm, NormKind};
pub use param::Param;
pub use recurrent::Recurrent;
pub use rope::{Rope, RopeConfig, RopeScaling, Yarn};
pub use rwkv::{
    Rwkv6TimeMix, Rwkv6TimeMixConfig, Rwkv7TimeMix, Rwkv7TimeMixConfig, RwkvChannelMix, RwkvChannelMixConfig,
};
pub use shared::{SharedBlock, SharedBlockConfig};
pub use short_conv::{ShortConv, ShortConvConfig};
pub use state::{KvState, RecurrentState, State};
pub use weight::Weight;
pub use xlstm::{Mlstm, MlstmConfig, Slstm, SlstmConfig};
