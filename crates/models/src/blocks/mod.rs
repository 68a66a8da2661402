//! The kinds of block a decoder is made of. Each has a row type (what of it an architecture fixes), reads its own typed
//! configuration from a file, and names its tensors.

mod attention;
mod choice;
mod delta;
mod laurel;
mod lightning;
mod mamba;
mod mamba2;
mod mamba3;
mod mla;
mod mlp;
mod moe;
mod reader;
mod rope;
mod rwkv;
mod shared;
mod short_conv;
mod streams;
mod xlstm;

pub use attention::{AttentionRow, Fused, QkNormRow, Scale, Window};
pub use choice::Choice;
pub(crate) use choice::{by_interval, by_kv_heads, by_types};
pub use delta::{DeltaNetRow, KimiDeltaRow};
pub use lightning::LightningRow;
pub use mamba::{InnerNormsRow, MambaRow};
pub use mamba2::{GatedNormRow, Mamba2Row};
pub use mamba3::Mamba3Row;
pub use mla::MlaRow;
pub use mlp::{ActivationRow, MlpRow};
pub use moe::{DenseLayers, GroupScore, MoeRow, SharedRow, Stacks};
pub(crate) use moe::{EXPERTS, after_leading, by_interleave, by_step, if_any, is_softmax};
pub(crate) use reader::{Reader, Tensors};
pub use rope::{LocalRope, RopeRow, Turned};
pub use rwkv::{ChannelMixRow, Rwkv6Row, Rwkv7Row};
pub(crate) use shared::SHARED_LAYERS;
pub use shared::SharedBlockRow;
pub use short_conv::ShortConvRow;
pub use streams::StreamsConfig;
pub use xlstm::MlstmRow;

use imaginal_files::gguf::Value;
use imaginal_nn::{
    AttentionConfig, GatedDeltaNetConfig, KimiDeltaAttentionConfig, LaurelConfig, LightningAttentionConfig,
    Mamba2Config, Mamba3Config, MambaConfig, MlaConfig, MlpConfig, MlstmConfig, MoeConfig, RopeConfig,
    Rwkv6TimeMixConfig, Rwkv7TimeMixConfig, RwkvChannelMixConfig, SharedBlockConfig, ShortConvConfig,
};

use crate::tensors::Specs;

/// What an architecture fixes of one of its blocks.
#[derive(Copy, Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "rows are constants")]
pub enum BlockRow {
    /// Attention.
    Attention(AttentionRow),
    /// Multi-head latent attention.
    Mla(MlaRow),
    /// A feed-forward network.
    Mlp(MlpRow),
    /// Experts.
    Moe(MoeRow),
    /// A selective state space.
    Mamba(MambaRow),
    /// A state space of heads.
    Mamba2(Mamba2Row),
    /// A gated DeltaNet.
    DeltaNet(DeltaNetRow),
    /// Kimi delta attention.
    KimiDelta(KimiDeltaRow),
    /// Lightning attention.
    Lightning(LightningRow),
    /// A gated short convolution.
    ShortConv(ShortConvRow),
    /// A state space of heads that turn.
    Mamba3(Mamba3Row),
    /// Time mixing of RWKV-6.
    Rwkv6(Rwkv6Row),
    /// Time mixing of RWKV-7.
    Rwkv7(Rwkv7Row),
    /// Channel mixing of RWKV.
    ChannelMix(ChannelMixRow),
    /// The matrix memory of xLSTM.
    Mlstm(MlstmRow),
    /// A transformer block that several layers share.
    Shared(SharedBlockRow),
    /// Nothing: layers without the block that others have.
    Nothing,
    /// A learned residual.
    Laurel,
    /// One of several, by layer.
    Choice(Choice),
}

/// One block of one layer of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockConfig {
    /// Attention.
    Attention(AttentionConfig),
    /// Multi-head latent attention.
    Mla(MlaConfig),
    /// A feed-forward network.
    Mlp(MlpConfig),
    /// Experts.
    Moe(MoeConfig),
    /// A selective state space.
    Mamba(MambaConfig),
    /// A state space of heads.
    Mamba2(Mamba2Config),
    /// A gated DeltaNet.
    DeltaNet(GatedDeltaNetConfig),
    /// Kimi delta attention.
    KimiDelta(KimiDeltaAttentionConfig),
    /// Lightning attention.
    Lightning(LightningAttentionConfig),
    /// A gated short convolution.
    ShortConv(ShortConvConfig),
    /// A state space of heads that turn.
    Mamba3(Mamba3Config),
    /// Time mixing of RWKV-6.
    Rwkv6(Rwkv6TimeMixConfig),
    /// Time mixing of RWKV-7.
    Rwkv7(Rwkv7TimeMixConfig),
    /// Channel mixing of RWKV.
    ChannelMix(RwkvChannelMixConfig),
    /// The matrix memory of xLSTM.
    Mlstm(MlstmConfig),
    /// A transformer block that several layers share.
    Shared(SharedBlockConfig),
    /// Nothing.
    Nothing,
    /// A learned residual.
    Laurel(LaurelConfig),
}

impl BlockConfig {
    /// How it turns keys by their positions.
    pub(crate) fn rope(&self) -> Option<&RopeConfig> {
        match self {
            BlockConfig::Attention(c) => c.rope.as_ref(),
            BlockConfig::Mla(c) => c.rope.as_ref(),
            BlockConfig::Shared(c) => c.rope.as_ref(),
            _ => None,
        }
    }
}

/// Whether tensors are forbidden, required or optional.
#[derive(Copy, Clone, Debug)]
pub enum Bias {
    /// Forbidden.
    Never,
    /// Required.
    Always,
    /// As the named field of `config.json` says (false if absent); in a GGUF file, if the tensors are there.
    Optional(&'static [&'static str]),
    /// The same, but true if the field is absent.
    Usually(&'static [&'static str]),
}

/// Metadata under construction.
pub(crate) struct Keys {
    layers: usize,
    /// Epsilon of the norms outside the blocks, beside which the format has no other.
    eps: f64,
    list: Vec<(&'static str, Entry)>,
}

/// What a key of the metadata has been given.
enum Entry {
    Value(Value),
    /// For each layer; 0 where nothing was said.
    Layers(Vec<u32>),
}

impl Keys {
    pub fn new(layers: usize, eps: f64) -> Self {
        Keys { layers, eps, list: Vec::new() }
    }

    /// Sets a key (without the architecture's prefix).
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.list.retain(|(k, _)| *k != key);
        self.list.push((key, Entry::Value(value.into())));
    }

    pub fn has(&self, key: &str) -> bool {
        self.list.iter().any(|(k, _)| *k == key)
    }

    /// The value of a key that is the same for all layers.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.list.iter().find_map(|(k, entry)| match entry {
            Entry::Value(value) if *k == key => Some(value),
            _ => None,
        })
    }

    /// Gives layers of which nothing was said the first value of the others: readers want numbers above 0.
    pub fn fill(&mut self, key: &str) {
        for (k, entry) in &mut self.list {
            if let (true, Entry::Layers(list)) = (*k == key, entry)
                && let Some(first) = list.iter().copied().find(|&x| x > 0)
            {
                list.iter_mut().filter(|x| **x == 0).for_each(|x| *x = first);
            }
        }
    }

    /// Sets a key for one layer. In the file it is one number if all layers have the same.
    pub fn set_layer(&mut self, key: &'static str, layer: usize, value: usize) {
        let value = value.min(u32::MAX as usize) as u32;
        if !self.list.iter().any(|(k, e)| *k == key && matches!(e, Entry::Layers(_))) {
            self.list.retain(|(k, _)| *k != key);
            self.list.push((key, Entry::Layers(vec![0; self.layers])));
        }
        for (k, entry) in &mut self.list {
            if let (true, Entry::Layers(list)) = (*k == key, entry) {
                list[layer] = value;
            }
        }
    }

    /// All keys with their values.
    pub fn into_values(self) -> impl Iterator<Item = (&'static str, Value)> {
        self.list.into_iter().map(|(key, entry)| match entry {
            Entry::Value(value) => (key, value),
            Entry::Layers(list) => match list.first() {
                Some(&first) if list.iter().all(|&x| x == first) => (key, first.into()),
                _ => (key, Value::from(list.into_iter().map(|x| x as i32).collect::<Vec<i32>>())),
            },
        })
    }
}

/// Notes which layers are recurrent, where the others have attention.
fn write_recurrent(recurrent: impl Iterator<Item = usize>, keys: &mut Keys) {
    let mut flags = vec![false; keys.layers];
    recurrent.for_each(|layer| flags[layer] = true);
    if let Some(first) = flags.iter().position(|recurrent| !recurrent) {
        keys.set("full_attention_interval", first as u32 + 1);
    }
    keys.set("attention.recurrent_layers", flags);
}

impl BlockRow {
    /// The blocks of which a layer has one: itself, but for a choice.
    pub fn alternatives(&self) -> &[BlockRow] {
        match self {
            BlockRow::Choice(choice) => choice.of,
            _ => std::slice::from_ref(self),
        }
    }

    /// Reads the block's configuration, one for each of the reader's layers.
    pub(crate) fn read(&self, r: &Reader) -> Vec<BlockConfig> {
        let n = r.layers.len();
        match self {
            BlockRow::Attention(row) => row.read(r).into_iter().map(BlockConfig::Attention).collect(),
            BlockRow::Mla(row) => vec![BlockConfig::Mla(row.read(r)); n],
            BlockRow::Mlp(row) => row.read(r).into_iter().map(BlockConfig::Mlp).collect(),
            BlockRow::Moe(row) => vec![BlockConfig::Moe(row.read(r)); n],
            BlockRow::Mamba(row) => vec![BlockConfig::Mamba(row.read(r)); n],
            BlockRow::Mamba2(row) => vec![BlockConfig::Mamba2(row.read(r)); n],
            BlockRow::DeltaNet(row) => vec![BlockConfig::DeltaNet(row.read(r)); n],
            BlockRow::KimiDelta(row) => row.read(r).into_iter().map(BlockConfig::KimiDelta).collect(),
            BlockRow::Lightning(row) => row.read(r).into_iter().map(BlockConfig::Lightning).collect(),
            BlockRow::ShortConv(row) => vec![BlockConfig::ShortConv(row.read(r)); n],
            BlockRow::Mamba3(row) => vec![BlockConfig::Mamba3(row.read(r)); n],
            BlockRow::Rwkv6(row) => vec![BlockConfig::Rwkv6(row.read(r)); n],
            BlockRow::Rwkv7(row) => row.read(r).into_iter().map(BlockConfig::Rwkv7).collect(),
            BlockRow::ChannelMix(row) => vec![BlockConfig::ChannelMix(row.read(r)); n],
            BlockRow::Mlstm(row) => vec![BlockConfig::Mlstm(row.read(r)); n],
            BlockRow::Shared(row) => row.read(r).into_iter().map(BlockConfig::Shared).collect(),
            BlockRow::Nothing => vec![BlockConfig::Nothing; n],
            BlockRow::Laurel => vec![BlockConfig::Laurel(laurel::read(r)); n],
            BlockRow::Choice(choice) => choice.read(r),
        }
    }

    /// Which block of a choice a configuration was read with; 0 where there is no choice.
    pub(crate) fn number(&self, config: &BlockConfig) -> usize {
        match self {
            BlockRow::Choice(choice) => choice.of.iter().position(|row| row.has_read(config)).unwrap_or(0),
            _ => 0,
        }
    }

    /// The row that a configuration was read with.
    pub(crate) fn of(&self, config: &BlockConfig) -> &BlockRow {
        match self {
            BlockRow::Choice(choice) => choice.of.get(self.number(config)).unwrap_or(self),
            _ => self,
        }
    }

    fn has_read(&self, config: &BlockConfig) -> bool {
        matches!(
            (self, config),
            (BlockRow::Attention(_), BlockConfig::Attention(_))
                | (BlockRow::Mla(_), BlockConfig::Mla(_))
                | (BlockRow::Mlp(_), BlockConfig::Mlp(_))
                | (BlockRow::Moe(_), BlockConfig::Moe(_))
                | (BlockRow::Mamba(_), BlockConfig::Mamba(_))
                | (BlockRow::Mamba2(_), BlockConfig::Mamba2(_))
                | (BlockRow::Mamba3(_), BlockConfig::Mamba3(_))
                | (BlockRow::Rwkv6(_), BlockConfig::Rwkv6(_))
                | (BlockRow::Rwkv7(_), BlockConfig::Rwkv7(_))
                | (BlockRow::ChannelMix(_), BlockConfig::ChannelMix(_))
                | (BlockRow::Mlstm(_), BlockConfig::Mlstm(_))
                | (BlockRow::DeltaNet(_), BlockConfig::DeltaNet(_))
                | (BlockRow::KimiDelta(_), BlockConfig::KimiDelta(_))
                | (BlockRow::Lightning(_), BlockConfig::Lightning(_))
                | (BlockRow::ShortConv(_), BlockConfig::ShortConv(_))
                | (BlockRow::Shared(_), BlockConfig::Shared(_))
                | (BlockRow::Nothing, BlockConfig::Nothing)
        )
    }

    /// Names the tensors of one block.
    pub(crate) fn tensors(&self, config: &BlockConfig, specs: &mut Specs) {
        match (self.of(config), config) {
            (BlockRow::Attention(row), BlockConfig::Attention(c)) => row.tensors(c, specs),
            (BlockRow::Mla(row), BlockConfig::Mla(c)) => row.tensors(c, specs),
            (BlockRow::Mlp(row), BlockConfig::Mlp(c)) => row.tensors(c, specs),
            (BlockRow::Moe(row), BlockConfig::Moe(c)) => row.tensors(c, specs),
            (BlockRow::Mamba(row), BlockConfig::Mamba(c)) => row.tensors(c, specs),
            (BlockRow::Mamba2(row), BlockConfig::Mamba2(c)) => row.tensors(c, specs),
            (BlockRow::DeltaNet(row), BlockConfig::DeltaNet(c)) => row.tensors(c, specs),
            (BlockRow::KimiDelta(row), BlockConfig::KimiDelta(c)) => row.tensors(c, specs),
            (BlockRow::Lightning(row), BlockConfig::Lightning(c)) => row.tensors(c, specs),
            (BlockRow::ShortConv(row), BlockConfig::ShortConv(c)) => row.tensors(c, specs),
            (BlockRow::Mamba3(row), BlockConfig::Mamba3(c)) => row.tensors(c, specs),
            (BlockRow::Rwkv6(row), BlockConfig::Rwkv6(c)) => row.tensors(c, specs),
            (BlockRow::Rwkv7(row), BlockConfig::Rwkv7(c)) => row.tensors(c, specs),
            (BlockRow::ChannelMix(row), BlockConfig::ChannelMix(c)) => row.tensors(c, specs),
            (BlockRow::Mlstm(row), BlockConfig::Mlstm(c)) => row.tensors(c, specs),
            (BlockRow::Shared(row), BlockConfig::Shared(c)) => row.tensors(c, specs),
            (BlockRow::Laurel, BlockConfig::Laurel(c)) => laurel::tensors(c, specs),
            // A configuration is made from its own row (`Config` has no public constructor that mixes them).
            _ => {}
        }
    }

    /// What GGUF metadata says of the block, given the configurations of the layers that have it.
    ///
    /// # Errors
    /// In words, what the format has no place for.
    pub(crate) fn write(&self, layers: &[(usize, &BlockConfig)], keys: &mut Keys) -> Result<(), String> {
        macro_rules! of {
            ($kind:ident) => {
                layers
                    .iter()
                    .filter_map(|(i, c)| match c {
                        BlockConfig::$kind(c) => Some((*i, c)),
                        _ => None,
                    })
                    .collect::<Vec<_>>()
            };
        }
        match self {
            BlockRow::Attention(row) => row.write(&of!(Attention), keys),
            BlockRow::Mla(row) => row.write(&of!(Mla), keys),
            BlockRow::Mlp(row) => row.write(&of!(Mlp), keys),
            BlockRow::Moe(row) => row.write(&of!(Moe), keys),
            BlockRow::Mamba(row) => row.write(&of!(Mamba), keys),
            BlockRow::Mamba2(row) => row.write(&of!(Mamba2), keys),
            BlockRow::DeltaNet(row) => row.write(&of!(DeltaNet), keys),
            BlockRow::KimiDelta(row) => row.write(&of!(KimiDelta), keys),
            BlockRow::Lightning(row) => row.write(&of!(Lightning), keys),
            BlockRow::ShortConv(row) => row.write(&of!(ShortConv), keys),
            BlockRow::Mamba3(row) => row.write(&of!(Mamba3), keys),
            BlockRow::Rwkv6(row) => row.write(&of!(Rwkv6), keys),
            BlockRow::Rwkv7(row) => row.write(&of!(Rwkv7), keys),
            BlockRow::ChannelMix(row) => row.write(&of!(ChannelMix), keys),
            BlockRow::Mlstm(row) => row.write(&of!(Mlstm), keys),
            BlockRow::Shared(row) => row.write(&of!(Shared), keys),
            BlockRow::Nothing => Ok(()),
            // Its tensors tell all.
            BlockRow::Laurel => Ok(()),
            BlockRow::Choice(choice) => {
                choice.of.iter().try_for_each(|row| row.write(layers, keys))?;
                choice.write_absent(layers, keys);
                Ok(())
            }
        }
    }
}
