//! The blocks of a layer as they run: what they compute, remember and are made of.

use imaginal_nn::{
    Attention, KvState, Laurel, Mla, Mlp, Module, Moe, Norm, Recurrent, Rwkv7TimeMix, SharedBlock, Slot, join,
};
use imaginal_numeric::Format;
use imaginal_tensor::{Device, Tensor};

use crate::blocks::BlockConfig;
use crate::state::BlockState;

/// A norm and its name within its layer.
#[derive(Debug)]
pub(crate) struct NamedNorm {
    pub name: &'static str,
    pub norm: Norm,
}

impl NamedNorm {
    /// `norm` of `x`; without one, `x` itself.
    pub fn apply(norm: &Option<NamedNorm>, x: Tensor) -> imaginal_nn::Result<Tensor> {
        match norm {
            Some(n) => n.norm.forward(&x),
            None => Ok(x),
        }
    }

    pub fn slots(norm: &Option<NamedNorm>, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if let Some(n) = norm {
            n.norm.slots(&join(prefix, n.name), visit);
        }
    }
}

/// A layer of `nn` in its place.
#[derive(Debug)]
pub(crate) enum Block {
    Attention(Attention),
    Mla(Mla),
    Mlp(Mlp),
    Moe(Moe),
    Laurel(Laurel),
    Recurrent(Box<dyn Recurrent>),
    Rwkv7(Rwkv7TimeMix),
    Shared(SharedBlock),
    Nothing,
}

/// What blocks see besides the residual stream within one pass through the model.
pub(crate) struct Pass {
    /// The embeddings of the tokens (Zamba 2).
    pub embedded: Tensor,
    /// The values of the first layer (RWKV-7), which it hands on.
    pub values: Option<Tensor>,
}

impl Block {
    pub fn forward(&self, x: &Tensor, state: Option<&mut BlockState>, pass: &mut Pass) -> imaginal_nn::Result<Tensor> {
        match (self, state) {
            (Block::Rwkv7(b), Some(BlockState::Recurrent(s))) => b.forward(x, Some(s), &mut pass.values),
            (Block::Rwkv7(b), None) => b.forward(x, None, &mut pass.values),
            (Block::Recurrent(b), Some(BlockState::Recurrent(s))) => b.forward(x, Some(s)),
            (Block::Mla(b), Some(BlockState::Kv(s))) => b.forward(x, Some(s)),
            (Block::Mla(b), None) => b.forward(x, None),
            (Block::Recurrent(b), None) => b.forward(x, None),
            (Block::Shared(b), Some(BlockState::Kv(s))) => b.forward(x, &pass.embedded, Some(s)),
            (Block::Shared(b), None) => b.forward(x, &pass.embedded, None),
            (Block::Mlp(b), None | Some(BlockState::None)) => b.forward(x),
            (Block::Moe(b), None | Some(BlockState::None)) => b.forward(x),
            (Block::Laurel(b), None | Some(BlockState::None)) => b.forward(x),
            _ => Err(imaginal_nn::Error::argument("forward", "the state was made for another model")),
        }
    }

    /// An empty state for `batch` sequences; `config` is what the block was made from, `format` that of keys and values.
    ///
    /// # Errors
    /// It does not fit in memory, or a cache cannot have the format.
    pub fn state(
        &self,
        config: &BlockConfig,
        format: Format,
        batch: usize,
        device: &Device,
    ) -> imaginal_nn::Result<BlockState> {
        match (self, config) {
            (Block::Recurrent(b), _) => Ok(BlockState::Recurrent(b.state(batch))),
            (Block::Rwkv7(b), _) => Ok(BlockState::Recurrent(b.state(batch))),
            (Block::Attention(_), BlockConfig::Attention(c)) if c.shared.is_none() => {
                Ok(BlockState::Kv(KvState::new(format, batch, c.kv_heads, c.key_dim(), device)?))
            }
            (Block::Shared(_), BlockConfig::Shared(c)) => {
                Ok(BlockState::Kv(KvState::new(format, batch, c.kv_heads, c.head_dim, device)?))
            }
            (Block::Mla(_), BlockConfig::Mla(c)) => {
                let (row, rank) = (c.kv_rank + c.turned_dim, c.kv_rank);
                Ok(BlockState::Kv(KvState::latent(format, batch, row, rank, device)?))
            }
            _ => Ok(BlockState::None),
        }
    }
}

impl Module for Block {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        match self {
            Block::Attention(b) => b.slots(prefix, visit),
            Block::Mla(b) => b.slots(prefix, visit),
            Block::Mlp(b) => b.slots(prefix, visit),
            Block::Moe(b) => b.slots(prefix, visit),
            Block::Laurel(b) => b.slots(prefix, visit),
            Block::Recurrent(b) => b.slots(prefix, visit),
            Block::Rwkv7(b) => b.slots(prefix, visit),
            Block::Shared(b) => b.slots(prefix, visit),
            Block::Nothing => {}
        }
    }
}
