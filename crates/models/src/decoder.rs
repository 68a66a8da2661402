use std::sync::Arc;

use imaginal_nn::{
    Attention, Embedding, Fresh, GatedDeltaNet, Init, KimiDeltaAttention, KvState, Laurel, LightningAttention, Linear,
    Mamba, Mamba2, Mamba3, Mla, Mlp, Mlstm, Module, Moe, Norm, NormKind, Param, Recurrent, Rope, RopeConfig,
    Rwkv6TimeMix, Rwkv7TimeMix, RwkvChannelMix, SharedBlock, ShortConv, Slot, Source, State, join,
};
use imaginal_numeric::Format;
use imaginal_tensor::{DType, Device, Tensor, no_grad};

use crate::arch::{NormName, SubLayer as SubLayerRow};
use crate::blocks::BlockConfig;
use crate::config::Mix;
use crate::state::{BlockState, Memory, ModelState};
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
    embedding_norm: Option<NamedNorm>,
    layers: Vec<Vec<SubLayer>>,
    streams: Option<Streams>,
    norm: Option<NamedNorm>,
    head: Linear,
    head_bias: Option<Param>,
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

#[derive(Debug)]
struct NamedNorm {
    name: &'static str,
    norm: Norm,
}

impl NamedNorm {
    /// `norm` of `x`; without one, `x` itself.
    fn apply(norm: &Option<NamedNorm>, x: Tensor) -> imaginal_nn::Result<Tensor> {
        match norm {
            Some(n) => n.norm.forward(&x),
            None => Ok(x),
        }
    }

    fn slots(norm: &Option<NamedNorm>, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if let Some(n) = norm {
            n.norm.slots(&join(prefix, n.name), visit);
        }
    }
}

#[derive(Debug)]
enum Block {
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
struct Pass {
    /// The embeddings of the tokens (Zamba 2).
    embedded: Tensor,
    /// The values of the first layer (RWKV-7), which it hands on.
    values: Option<Tensor>,
}

impl Block {
    fn forward(&self, x: &Tensor, state: Option<&mut BlockState>, pass: &mut Pass) -> imaginal_nn::Result<Tensor> {
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
        let (hidden, kind, eps) = (config.hidden(), arch.norm, config.eps());
        let embedding = Embedding::new(source, "token_embd", config.vocab(), hidden, init)?;
        let norm = |source: &mut dyn Source, prefix: &str, name: &'static str, own: Option<NormKind>| {
            let kind = own.unwrap_or(kind);
            Norm::new(source, &join(prefix, name), &[hidden], kind, eps).map(|norm| NamedNorm { name, norm })
        };
        let positions = match arch.embedding.positions {
            Some(_) => Some(Embedding::new(source, "position_embd", config.context(), hidden, init)?),
            None => None,
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
        let head_bias = match arch.outside.head_bias.is_empty() {
            true => None,
            false => Some(source.param("output.bias", &[config.vocab()], Init::Zeros)?),
        };
        let weight = match config.tied() {
            true => embedding.weight().clone(),
            false => source.weight("output.weight", config.vocab(), hidden, init)?,
        };
        let head = Linear::from_weight(weight, head_bias.clone());
        let cache = None;
        Ok(Model {
            config,
            device,
            embedding,
            positions,
            embedding_norm,
            layers,
            streams,
            norm,
            head,
            head_bias,
            cache,
        })
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
    /// It does not fit in memory.
    pub fn state(&self, batch: usize) -> Result<ModelState> {
        let format = self.cache_format();
        let blocks = self
            .layers
            .iter()
            .flatten()
            .zip(self.config.layers().iter().flatten())
            .map(|(sub, config)| match (&sub.block, config) {
                (Block::Recurrent(b), _) => Ok(BlockState::Recurrent(b.state(batch))),
                (Block::Rwkv7(b), _) => Ok(BlockState::Recurrent(b.state(batch))),
                (Block::Attention(_), BlockConfig::Attention(c)) if c.shared.is_none() => {
                    Ok(BlockState::Kv(KvState::new(format, batch, c.kv_heads, c.key_dim(), &self.device)?))
                }
                (Block::Shared(_), BlockConfig::Shared(c)) => {
                    Ok(BlockState::Kv(KvState::new(format, batch, c.kv_heads, c.head_dim, &self.device)?))
                }
                (Block::Mla(_), BlockConfig::Mla(c)) => {
                    let (row, rank) = (c.kv_rank + c.turned_dim, c.kv_rank);
                    Ok(BlockState::Kv(KvState::latent(format, batch, row, rank, &self.device)?))
                }
                _ => Ok(BlockState::None),
            })
            .collect::<Result<_>>()?;
        Ok(ModelState { batch, len: 0, blocks })
    }

    /// Logits `[b, t, vocab]` (`[b, 1, vocab]` for [`Rows::Last`]) of the token that follows each of `ids` (u32
    /// `[b, t]`).
    ///
    /// With a state the tokens stand after those it has seen, and it grows by them; no gradients are recorded then.
    /// Without one they stand at the beginning. When it fails, the state is what it was.
    ///
    /// # Errors
    /// [`Error::Token`] for an id beyond the vocabulary; no tokens, or a state of another batch or model.
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
        let list = ids.to_vec::<u32>()?;
        if let Some(at) = list.iter().position(|&id| id as usize >= self.config.vocab()) {
            return Err(Error::Token { id: list[at], position: at % t, vocab: self.config.vocab() });
        }
        let ids = ids.to_device(&self.device)?;
        let Some(state) = state else { return self.run(&ids, None, rows) };
        if state.batch != batch || state.blocks.len() != self.layers.iter().map(Vec::len).sum::<usize>() {
            return Err(Error::Argument(format!(
                "{batch} sequences, but the state is of {} or another model",
                state.batch
            )));
        }
        let before = state.before();
        match no_grad(|| self.run(&ids, Some(state), rows)) {
            Ok(logits) => {
                state.len += t;
                Ok(logits)
            }
            Err(error) => {
                state.take_back(before);
                Err(error)
            }
        }
    }

    fn run(&self, ids: &Tensor, state: Option<&mut ModelState>, rows: Rows) -> Result<Tensor> {
        let start = state.as_ref().map_or(0, |s| s.len);
        let lenders = self.layers.iter().flatten().filter_map(|sub| sub.shared).collect();
        let mut memory = Memory::new(state.map(|s| &mut s.blocks[..]), lenders);
        let scales = self.config.scales();
        let times = |x: Tensor, factor: f64| if factor == 1.0 { Ok(x) } else { x.mul_scalar(factor) };
        let mut x = times(self.embedding.forward(ids)?, scales.embedding)?;
        if let Some(positions) = &self.positions {
            x = x.add(&positions.forward(&self.positions_of(start, ids.dim(1)?)?)?)?;
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
                let y = match &sub.block {
                    Block::Attention(b) => memory.attention(b, &normed, sub.shared)?,
                    block => block.forward(&normed, memory.state(), &mut pass)?,
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
        if let Some(flow) = flow {
            x = flow.end(rows == Rows::Last)?;
        }
        if rows == Rows::Last {
            let t = x.dim(1)?;
            x = x.narrow(1, t - 1, 1)?;
        }
        let logits = times(self.head.forward(&NamedNorm::apply(&self.norm, x)?)?, scales.logits)?;
        Ok(match scales.softcap {
            Some(cap) => logits.mul_scalar(1.0 / cap)?.tanh()?.mul_scalar(cap)?,
            None => logits,
        })
    }

    /// The numbers of `t` positions from `start` on.
    fn positions_of(&self, start: usize, t: usize) -> Result<Tensor> {
        let end = start + t;
        if end > self.config.context() {
            let context = self.config.context();
            return Err(Error::Argument(format!("{end} tokens, but the model knows only {context} positions")));
        }
        Ok(Tensor::from_vec((start as u32..end as u32).collect(), [1, t], &self.device)?)
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
        self.slots("", &mut |_, slot| {
            bytes += match slot {
                Slot::Param(p) => 4 * p.get().elem_count(),
                Slot::Weight(w) => {
                    let packed = w.packed().map_or(0, |p| p.bytes().len());
                    packed + w.master().map_or(0, |_| 4 * w.rows() * w.cols())
                }
            }
        });
        bytes
    }
}

impl Module for Model {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.embedding.slots(&join(prefix, "token_embd"), visit);
        if let Some(positions) = &self.positions {
            positions.slots(&join(prefix, "position_embd"), visit);
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
                match &sub.block {
                    Block::Attention(b) => b.slots(&prefix, visit),
                    Block::Mla(b) => b.slots(&prefix, visit),
                    Block::Mlp(b) => b.slots(&prefix, visit),
                    Block::Moe(b) => b.slots(&prefix, visit),
                    Block::Laurel(b) => b.slots(&prefix, visit),
                    Block::Recurrent(b) => b.slots(&prefix, visit),
                    Block::Rwkv7(b) => b.slots(&prefix, visit),
                    Block::Shared(b) => b.slots(&prefix, visit),
                    Block::Nothing => {}
                }
                NamedNorm::slots(&sub.post_norm, &prefix, visit);
                NamedNorm::slots(&sub.sum_norm, &prefix, visit);
            }
        }
        NamedNorm::slots(&self.norm, prefix, visit);
        if !self.config.tied() {
            visit(join(prefix, "output.weight"), Slot::Weight(self.head.weight()));
        }
        if let Some(bias) = &self.head_bias {
            visit(join(prefix, "output.bias"), Slot::Param(bias));
        }
    }
}

/// What generating needs of a model; tests can fake it.
pub trait LanguageModel {
    /// Its memory.
    type State: State;

    /// Number of tokens it knows.
    fn vocab(&self) -> usize;

    /// How many tokens it was made for; `None` if there is no end.
    fn context(&self) -> Option<usize>;

    /// An empty state for one sequence.
    ///
    /// # Errors
    /// It does not fit in memory.
    fn state(&self) -> Result<Self::State>;

    /// Feeds `tokens` (at least one) and returns the logits of the token after the last.
    ///
    /// # Errors
    /// A token that is not in the vocabulary, or a failing device; the state is then what it was.
    fn next(&self, tokens: &[u32], state: &mut Self::State) -> Result<Vec<f32>>;
}

impl LanguageModel for Model {
    type State = ModelState;

    fn vocab(&self) -> usize {
        self.config.vocab()
    }

    fn context(&self) -> Option<usize> {
        self.config.has_attention().then_some(self.config.context())
    }

    fn state(&self) -> Result<ModelState> {
        Model::state(self, 1)
    }

    fn next(&self, tokens: &[u32], state: &mut ModelState) -> Result<Vec<f32>> {
        Ok(self.forward(&Model::ids(tokens)?, Some(state), Rows::Last)?.to_vec()?)
    }
}
