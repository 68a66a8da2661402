use std::sync::Arc;

use imaginal_nn::{
    Attention, Embedding, Fresh, GatedDeltaNet, Init, KimiDeltaAttention, Laurel, LightningAttention, Mamba, Mamba2,
    Mamba3, Mla, Mlp, Mlstm, Module, Moe, Norm, NormKind, Param, Rope, RopeConfig, RopeScaling, Rwkv6TimeMix,
    Rwkv7TimeMix, RwkvChannelMix, SharedBlock, ShortConv, Slot, Source, State, join,
};
use imaginal_numeric::Format;
use imaginal_tensor::{DType, Device, Tensor, no_grad};

use crate::arch::{NormName, SubLayer as SubLayerRow};
use crate::block::{Block, NamedNorm, Pass};
use crate::blocks::BlockConfig;
use crate::config::Mix;
use crate::heads::{Head, HeadConfig, Labels, Masked, Output};
use crate::state::{Memory, ModelState, Turning};
use crate::streams::Streams;
use crate::{Config, Error, Result};

/// Which positions of the input get logits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All of them.
    All,
    /// The last one, for generating.
    Last,
}

/// A language model: tokens in, logits out. One definition for every architecture of the table, for training and for
/// generating.
#[derive(Debug)]
pub struct Model {
    config: Config,
    device: Device,
    embedding: Embedding,
    positions: Option<Embedding>,
    types: Option<Embedding>,
    embedding_norm: Option<NamedNorm>,
    layers: Vec<Vec<SubLayer>>,
    streams: Option<Streams>,
    norm: Option<NamedNorm>,
    head: Head,
    cache: Option<Format>,
}

/// A block with its norms: see [`crate::arch::SubLayer`].
#[derive(Debug)]
struct SubLayer {
    norm: Option<NamedNorm>,
    block: Block,
    post_norm: Option<NamedNorm>,
    sum_norm: Option<NamedNorm>,
    beside: bool,
    mix: Option<Mix>,
    aside: bool,
    sum_scale: f64,
    /// The number of the block, counted over all layers, whose keys and values it has.
    shared: Option<usize>,
}

/// Fresh models larger than this are surely a mistake in the settings.
const MOST_PARAMETERS: u64 = 1 << 36;

impl Model {
    /// A model with fresh values by seed, ready to be trained.
    ///
    /// # Errors
    /// It does not fit in memory.
    pub fn new(config: &Config, seed: u64, device: &Device) -> Result<Model> {
        if config.parameters() as u64 > MOST_PARAMETERS {
            return Err(Error::Argument(format!("a model of {} parameters is too large", config.parameters())));
        }
        let model = Model::from_source(config.clone(), &mut Fresh::new(seed, device))?;
        model.set_trainable(true)?;
        Ok(model)
    }

    /// A model whose tensors come from `source`.
    pub(crate) fn from_source(config: Config, source: &mut dyn Source) -> Result<Model> {
        let device = source.device();
        let init = Init::Normal { std: 0.02 };
        let arch = config.arch();
        let (hidden, kind, eps) = (config.hidden(), config.norm(), config.eps());
        let embedding = Embedding::new(source, "token_embd", config.vocab(), hidden, init)?;
        let norm = |source: &mut dyn Source, prefix: &str, name: &'static str, own: Option<NormKind>| {
            let kind = own.unwrap_or(kind);
            Norm::new(source, &join(prefix, name), &[hidden], kind, eps).map(|norm| NamedNorm { name, norm })
        };
        let positions = match arch.embedding.positions {
            Some(_) => Some(Embedding::new(source, "position_embd", config.context(), hidden, init)?),
            None => None,
        };
        let types = match config.types() {
            0 => None,
            types => Some(Embedding::new(source, "token_types", types, hidden, init)?),
        };
        let embedding_norm = arch.embedding.norm.as_ref().map(|n| norm(source, "", n.gguf, n.kind)).transpose()?;
        let mut ropes: Vec<Arc<Rope>> = Vec::new();
        let mut shared_rope = |c: &RopeConfig| {
            let shared = ropes.iter().find(|r| r.config() == c).cloned();
            shared.unwrap_or_else(|| {
                ropes.push(Arc::new(Rope::new(c.clone(), &device)));
                ropes[ropes.len() - 1].clone()
            })
        };
        let mut streams = config.streams().map(|c| Streams::new(source, c)).transpose()?;
        let mut layers = Vec::with_capacity(config.layers().len());
        for (i, layer) in config.layers().iter().enumerate() {
            let prefix = format!("blk.{i}");
            if let (Some(streams), Some(c)) = (&mut streams, config.streams()) {
                streams.add_layer(source, &prefix, c)?;
            }
            let mut subs = Vec::with_capacity(layer.len());
            for (at, ((row, block), &mix)) in config.layout().iter().zip(layer).zip(&config.mixes()[i]).enumerate() {
                let norm = |source: &mut dyn Source, name: &'static Option<NormName>| {
                    NormName::in_layer(name, i).map(|n| norm(source, &prefix, n.gguf, n.kind)).transpose()
                };
                let pre = norm(source, &row.norm)?;
                let shared = match block {
                    BlockConfig::Attention(c) => c.shared.map(|lender| lender * config.layout().len() + at),
                    _ => None,
                };
                let block = match block {
                    BlockConfig::Attention(c) => {
                        Block::Attention(Attention::new(source, &prefix, c, c.rope.as_ref().map(&mut shared_rope))?)
                    }
                    BlockConfig::Mla(c) => {
                        Block::Mla(Mla::new(source, &prefix, c, c.rope.as_ref().map(&mut shared_rope))?)
                    }
                    BlockConfig::Mlp(c) => Block::Mlp(Mlp::new(source, &prefix, c)?),
                    BlockConfig::Moe(c) => Block::Moe(Moe::new(source, &prefix, c)?),
                    BlockConfig::Laurel(c) => Block::Laurel(Laurel::new(source, &prefix, c)?),
                    BlockConfig::Mamba(c) => Block::Recurrent(Box::new(Mamba::new(source, &prefix, c)?)),
                    BlockConfig::Mamba2(c) => Block::Recurrent(Box::new(Mamba2::new(source, &prefix, c)?)),
                    BlockConfig::DeltaNet(c) => Block::Recurrent(Box::new(GatedDeltaNet::new(source, &prefix, c)?)),
                    BlockConfig::KimiDelta(c) => {
                        Block::Recurrent(Box::new(KimiDeltaAttention::new(source, &prefix, c)?))
                    }
                    BlockConfig::Lightning(c) => {
                        Block::Recurrent(Box::new(LightningAttention::new(source, &prefix, c)?))
                    }
                    BlockConfig::Shared(c) => {
                        let first =
                            layers.get(c.first).into_iter().flatten().find_map(|sub: &SubLayer| match &sub.block {
                                Block::Shared(block) => Some(block),
                                _ => None,
                            });
                        Block::Shared(match first {
                            Some(first) => first.again(source, &prefix, c.place)?,
                            None => SharedBlock::new(source, &prefix, c, c.rope.as_ref().map(&mut shared_rope))?,
                        })
                    }
                    BlockConfig::Nothing => Block::Nothing,
                    BlockConfig::ShortConv(c) => Block::Recurrent(Box::new(ShortConv::new(source, &prefix, c)?)),
                    BlockConfig::Mamba3(c) => Block::Recurrent(Box::new(Mamba3::new(source, &prefix, c)?)),
                    BlockConfig::Rwkv6(c) => Block::Recurrent(Box::new(Rwkv6TimeMix::new(source, &prefix, c)?)),
                    BlockConfig::Rwkv7(c) => Block::Rwkv7(Rwkv7TimeMix::new(source, &prefix, c)?),
                    BlockConfig::ChannelMix(c) => Block::Recurrent(Box::new(RwkvChannelMix::new(source, &prefix, c)?)),
                    BlockConfig::Mlstm(c) => Block::Recurrent(Box::new(Mlstm::new(source, &prefix, c)?)),
                };
                let (post_norm, sum_norm) = (norm(source, &row.post_norm)?, norm(source, &row.sum_norm)?);
                let SubLayerRow { beside, aside, sum_scale, .. } = *row;
                subs.push(SubLayer { norm: pre, block, post_norm, sum_norm, beside, mix, aside, sum_scale, shared });
            }
            layers.push(subs);
        }
        let norm = match arch.outside.norm.is_empty() {
            true => None,
            false => Some(norm(source, "", arch.outside.gguf_norm, None)?),
        };
        let tied = config.tied().then(|| embedding.weight());
        let shape = [config.vocab(), hidden];
        let head = match config.head() {
            HeadConfig::Language => {
                Head::Language(Output::new(source, shape, tied, !arch.outside.head_bias.is_empty())?)
            }
            HeadConfig::None => Head::None,
            HeadConfig::Labels(c) => Head::Labels(Labels::new(source, hidden, eps, c)?),
            HeadConfig::Masked(c) => Head::Masked(Masked::new(source, shape, eps, tied, c)?),
        };
        let cache = None;
        Ok(Model { config, device, embedding, positions, types, embedding_norm, layers, streams, norm, head, cache })
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The format in which states made from now on keep keys and values: the one that was set, else f16 where products
    /// with some matrix may round their operands anyway (a packed one that is not small, unless f32 was asked
    /// for), f32 where all products are f32, and f32 on devices other than the CPU.
    pub fn cache_format(&self) -> Format {
        self.cache.unwrap_or_else(|| {
            let mut rounds = false;
            self.slots("", &mut |_, slot| {
                if let Slot::Weight(weight) = slot {
                    rounds |= weight.packed().is_some_and(|p| p.may_round());
                }
            });
            if rounds && self.device.is_cpu() { Format::F16 } else { Format::F32 }
        })
    }

    /// Sets the format in which states made from now on keep keys and values: f32, f16, bf16, q8_0 or q4_0.
    ///
    /// # Errors
    /// There are no kernels for it here, or heads are no whole number of its blocks; nothing changes then.
    pub fn set_cache_format(&mut self, format: Format) -> Result<()> {
        let before = self.cache.replace(format);
        if let Err(error) = self.state(1) {
            self.cache = before;
            return Err(error);
        }
        Ok(())
    }

    /// An empty state for `batch` sequences of equal length.
    ///
    /// # Errors
    /// It does not fit in memory, or the model reads whole texts only.
    pub fn state(&self, batch: usize) -> Result<ModelState> {
        if self.config.arch().encoder.is_some() {
            return Err(Error::Argument(format!(
                "a model of the architecture {} reads a whole text at once and cannot say how it goes on; \
                 `imaginal embed`, `classify` and `rerank` use such models",
                self.config.arch().name
            )));
        }
        let format = self.cache_format();
        let blocks = self
            .layers
            .iter()
            .flatten()
            .zip(self.config.layers().iter().flatten())
            .map(|(sub, config)| Ok(sub.block.state(config, format, batch, &self.device)?))
            .collect::<Result<_>>()?;
        let long = |c: &BlockConfig| match c.rope()?.scaling {
            RopeScaling::Long { original, .. } => Some(original),
            _ => None,
        };
        let turn = self.config.layers().iter().flatten().filter_map(long).min();
        let turning = turn.map(|at| Turning { at, seen: Vec::new() });
        Ok(ModelState { batch, len: 0, blocks, turning })
    }

    /// Logits `[b, t, vocab]` (`[b, 1, vocab]` for [`Rows::Last`]) of the token that follows each of `ids` (u32
    /// `[b, t]`).
    ///
    /// With a state the tokens stand after those it has seen, and it grows by them; no gradients are recorded then.
    /// Without one they stand at the beginning. When it fails, the state is what it was. Where LongRoPE turns to the
    /// factors of long texts, the tokens that a state has seen are computed again with them.
    ///
    /// # Errors
    /// [`Error::Token`] for an id beyond the vocabulary; no tokens, or a state of another batch or model; a model that has
    /// no logits. Those of a masked language model are of the token at each place, and it takes no state.
    pub fn forward(&self, ids: &Tensor, state: Option<&mut ModelState>, rows: Rows) -> Result<Tensor> {
        let &[batch, t] = ids.shape() else {
            return Err(Error::Argument(format!("token ids have shape {:?}, not [batch, tokens]", ids.shape())));
        };
        if batch == 0 || t == 0 {
            return Err(Error::Argument("there are no tokens to run".into()));
        }
        if ids.dtype() != DType::U32 {
            return Err(Error::Argument(format!("token ids are {}, not u32", ids.dtype())));
        }
        let tokens = ids.to_vec::<u32>()?;
        self.check_tokens(&tokens, t)?;
        let ids = ids.to_device(&self.device)?;
        let Some(state) = state else { return self.run(&ids, None, rows) };
        if state.batch != batch || state.blocks.len() != self.layers.iter().map(Vec::len).sum::<usize>() {
            return Err(Error::Argument(format!(
                "{batch} sequences, but the state is of {} or another model",
                state.batch
            )));
        }
        if let Some(seen) = state.to_run_again(t) {
            let (again, before) = (Tensor::from_vec(seen, [batch, state.len], &self.device)?, state.len);
            let ids = Tensor::cat(&[&again, &ids], 1)?;
            let mut new = state.clone();
            new.rewind(0)?;
            let logits = self.forward(&ids, Some(&mut new), rows)?;
            *state = new;
            return Ok(match rows {
                Rows::All => logits.narrow(1, before, t)?,
                Rows::Last => logits,
            });
        }
        let before = state.before();
        match no_grad(|| self.run(&ids, Some(state), rows)) {
            Ok(logits) => {
                state.grow(&tokens);
                Ok(logits)
            }
            Err(error) => {
                state.take_back(before);
                Err(error)
            }
        }
    }

    /// An id beyond the vocabulary in texts of `t` tokens is an error.
    pub(crate) fn check_tokens(&self, ids: &[u32], t: usize) -> Result<()> {
        match ids.iter().position(|&id| id as usize >= self.config.vocab()) {
            Some(at) => Err(Error::Token { id: ids[at], position: at % t, vocab: self.config.vocab() }),
            None => Ok(()),
        }
    }

    fn run(&self, ids: &Tensor, state: Option<&mut ModelState>, rows: Rows) -> Result<Tensor> {
        let start = state.as_ref().map_or(0, |s| s.len);
        let positions = match &self.positions {
            Some(_) => Some(self.positions_of(start..start + ids.dim(1)?)?),
            None => None,
        };
        let x = self.stream(ids, positions.as_ref(), None, None, state, rows)?;
        let x = self.final_norm(x)?;
        let (logits, scales) = match &self.head {
            Head::Language(head) => (head.forward(&x)?, self.config.scales()),
            Head::Masked(head) => (head.forward(&x)?, self.config.scales()),
            Head::None | Head::Labels(_) => {
                let what = "the model has no logits of tokens: it is made for the vectors or the scores of whole texts";
                return Err(Error::Argument(what.into()));
            }
        };
        let logits = if scales.logits == 1.0 { logits } else { logits.mul_scalar(scales.logits)? };
        Ok(match scales.softcap {
            Some(cap) => logits.mul_scalar(1.0 / cap)?.tanh()?.mul_scalar(cap)?,
            None => logits,
        })
    }

    pub(crate) fn final_norm(&self, x: Tensor) -> Result<Tensor> {
        Ok(NamedNorm::apply(&self.norm, x)?)
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Whether texts of different lengths can be computed side by side without filling up the shorter ones: only
    /// attention lets tokens see each other.
    pub(crate) fn packs(&self) -> bool {
        let packs = |sub: &SubLayer| matches!(sub.block, Block::Attention(_) | Block::Mlp(_) | Block::Moe(_));
        self.layers.iter().flatten().all(packs)
    }

    /// The residual stream `[b, t, hidden]` after the last layer, before the final norm, in these rows. `positions` and `types`
    /// (u32 `[1, t]`) are used by models that have tables of them; without types all are 0. With `lengths` the tokens
    /// are several texts one after another.
    pub(crate) fn stream(
        &self,
        ids: &Tensor,
        positions: Option<&Tensor>,
        types: Option<&Tensor>,
        lengths: Option<&[usize]>,
        state: Option<&mut ModelState>,
        rows: Rows,
    ) -> Result<Tensor> {
        let lenders = self.layers.iter().flatten().filter_map(|sub| sub.shared).collect();
        let mut memory = Memory::new(state.map(|s| &mut s.blocks[..]), lenders);
        let scales = self.config.scales();
        let times = |x: Tensor, factor: f64| if factor == 1.0 { Ok(x) } else { x.mul_scalar(factor) };
        let mut x = times(self.embedding.forward(ids)?, scales.embedding)?;
        if let Some(table) = &self.types {
            let none = || Tensor::from_vec(vec![0u32], [1, 1], &self.device);
            x = x.add(&table.forward(&types.map_or_else(none, |types| Ok(types.clone()))?)?)?;
        }
        if let (Some(table), Some(positions)) = (&self.positions, positions) {
            x = x.add(&table.forward(positions)?)?;
        }
        x = NamedNorm::apply(&self.embedding_norm, x)?;
        let mut pass = Pass { embedded: x.clone(), values: None };
        let mut flow = self.streams.as_ref().map(|s| s.begin(ids, &x)).transpose()?;
        for (i, layer) in self.layers.iter().enumerate() {
            if let Some(flow) = &mut flow {
                x = flow.enter(i)?;
            }
            let mut aside: Option<Tensor> = None;
            // What the last block has read, before and after its norm.
            let (mut read, mut normed) = (x.clone(), x.clone());
            for sub in layer {
                memory.step();
                if matches!(sub.block, Block::Nothing) {
                    continue;
                }
                if !sub.beside {
                    read = match aside.take() {
                        Some(y) => x.add(&y)?,
                        None => x.clone(),
                    };
                    normed = read.clone();
                }
                if sub.norm.is_some() {
                    normed = NamedNorm::apply(&sub.norm, read.clone())?;
                }
                let y = match (&sub.block, lengths) {
                    (Block::Attention(b), Some(lengths)) => b.forward_packed(&normed, lengths)?,
                    (Block::Attention(b), None) => memory.attention(b, &normed, sub.shared)?,
                    (block, _) => block.forward(&normed, memory.state(), &mut pass)?,
                };
                let y = NamedNorm::apply(&sub.post_norm, y)?;
                if sub.aside {
                    aside = Some(y);
                    continue;
                }
                let sum = match sub.mix {
                    Some(mix) => times(normed.clone(), mix.read)?.add(&times(y, mix.result)?)?,
                    None => x.add(&times(y, scales.residual)?)?,
                };
                x = NamedNorm::apply(&sub.sum_norm, times(sum, sub.sum_scale)?)?;
            }
            if scales.halved.is_some_and(|every| (i + 1).is_multiple_of(every)) {
                x = x.mul_scalar(0.5)?;
            }
            if let Some(flow) = &mut flow {
                flow.leave(i, &x)?;
            }
        }
        let wanted = |x: &Tensor| match rows {
            Rows::All => Ok(x.clone()),
            Rows::Last => x.narrow(1, x.dim(1)? - 1, 1),
        };
        Ok(match flow {
            Some(flow) => flow.end(wanted)?,
            None => wanted(&x)?,
        })
    }

    /// The numbers of positions, `[1, t]`.
    pub(crate) fn positions_of(&self, range: std::ops::Range<usize>) -> Result<Tensor> {
        self.check_length(range.end)?;
        let len = range.len();
        Ok(Tensor::from_vec((range.start as u32..range.end as u32).collect(), [1, len], &self.device)?)
    }

    /// More tokens than a table of positions has rows are an error.
    pub(crate) fn check_length(&self, tokens: usize) -> Result<()> {
        let context = self.config.context();
        match self.positions.is_some() && tokens > context {
            true => Err(Error::Argument(format!("{tokens} tokens, but the model knows only {context} positions"))),
            false => Ok(()),
        }
    }

    /// A batch of one sequence, for [`Model::forward`].
    ///
    /// # Errors
    /// It does not fit in memory.
    pub fn ids(tokens: &[u32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(tokens, [1, tokens.len()], &Device::Cpu)?)
    }

    /// Every float parameter with its name, in a fixed order.
    pub fn parameters(&self) -> Vec<(String, Param)> {
        let mut all = Vec::new();
        self.params("", &mut |name, param| all.push((name, param.clone())));
        all
    }

    /// Makes every parameter a leaf of the gradient graph, or an ordinary tensor again. Packed weights become f32 first,
    /// because only those can be trained.
    ///
    /// # Errors
    /// Packed bytes that cannot be decoded.
    pub fn set_trainable(&self, trainable: bool) -> Result<()> {
        if trainable {
            self.morph(Format::F32, false)?;
        }
        self.params("", &mut |_, param| param.set_trainable(trainable));
        Ok(())
    }

    /// Changes the number format of every matrix (see [`imaginal_nn::Weight::morph`]).
    ///
    /// # Errors
    /// Rows that are not whole blocks of the format; weights before that one have changed then.
    pub fn morph(&self, format: Format, keep_master: bool) -> Result<()> {
        let mut done = Ok(());
        self.slots("", &mut |_, slot| {
            if let (Slot::Weight(weight), Ok(())) = (slot, &done) {
                done = weight.morph(format, keep_master);
            }
        });
        Ok(done?)
    }

    /// Bytes the weights take, as they are held now.
    pub fn bytes(&self) -> usize {
        let mut bytes = 0;
        self.slots("", &mut |_, slot| bytes += slot.bytes());
        bytes
    }
}

impl Module for Model {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.embedding.slots(&join(prefix, "token_embd"), visit);
        if let Some(positions) = &self.positions {
            positions.slots(&join(prefix, "position_embd"), visit);
        }
        if let Some(types) = &self.types {
            types.slots(&join(prefix, "token_types"), visit);
        }
        NamedNorm::slots(&self.embedding_norm, prefix, visit);
        if let Some(streams) = &self.streams {
            streams.slots(prefix, visit);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let prefix = join(prefix, &format!("blk.{i}"));
            if let Some(streams) = &self.streams {
                streams.layer_slots(i, &prefix, visit);
            }
            for sub in layer {
                NamedNorm::slots(&sub.norm, &prefix, visit);
                sub.block.slots(&prefix, visit);
                NamedNorm::slots(&sub.post_norm, &prefix, visit);
                NamedNorm::slots(&sub.sum_norm, &prefix, visit);
            }
        }
        NamedNorm::slots(&self.norm, prefix, visit);
        self.head.slots(prefix, visit);
    }
}
