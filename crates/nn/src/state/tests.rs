//! Random walks of grow, rewind, mark, fork and save: whatever the way, the outputs are those of a fresh run.

use super::*;
use crate::*;
use imaginal_kernels::packed::{Precision, set_precision};
use imaginal_numeric::Format;
use imaginal_tensor::{AttentionOpts, KvCache, no_grad};
use std::sync::Arc;

const HIDDEN: usize = 8;

#[allow(clippy::large_enum_variant, reason = "a few in a test")]
enum Layer {
    Attention(Attention),
    /// Attention alone, whose queries, keys and values are exact functions of the input, over a cache of a format.
    Cache(Format),
    Recurrent(Box<dyn Recurrent>),
}

#[derive(Clone)]
enum Memory {
    Kv(KvState),
    Recurrent(RecurrentState),
}

macro_rules! each {
    ($m:expr, $s:ident => $e:expr) => {
        match $m {
            Memory::Kv($s) => $e,
            Memory::Recurrent($s) => $e,
        }
    };
}

impl Layer {
    fn empty(&self) -> Memory {
        match self {
            // Two query heads share a key head, which has an element for the bias of each.
            Layer::Attention(_) => Memory::Kv(KvState::new(Format::F32, 1, 2, 4 + 2, &Device::Cpu).unwrap()),
            Layer::Cache(format) => Memory::Kv(KvState::new(*format, 1, 2, 32, &Device::Cpu).unwrap()),
            Layer::Recurrent(l) => Memory::Recurrent(l.state(1)),
        }
    }

    fn run(&self, x: &Tensor, memory: &mut Memory) -> Tensor {
        no_grad(|| match (self, memory) {
            (Layer::Attention(l), Memory::Kv(s)) => l.forward(x, Some(s)),
            (Layer::Cache(_), Memory::Kv(s)) => attend(x, s),
            (Layer::Recurrent(l), Memory::Recurrent(s)) => l.forward(x, Some(s)),
            _ => unreachable!(),
        })
        .unwrap()
    }

    fn fresh(&self, x: &Tensor) -> Vec<f32> {
        no_grad(|| match self {
            Layer::Attention(l) => l.forward(x, None),
            Layer::Cache(_) => Ok(self.run(x, &mut self.empty())),
            Layer::Recurrent(l) => l.forward(x, None),
        })
        .unwrap()
        .to_vec()
        .unwrap()
    }
}

/// Four query heads over two key heads of 32, made of a row's eight numbers; the result is summed up to eight again.
fn attend(x: &Tensor, state: &mut KvState) -> Result<Tensor> {
    let t = x.dim(1)?;
    let rows = x.to_vec::<f32>()?;
    let spread = |heads: usize, step: usize| {
        let values = rows
            .chunks(HIDDEN)
            .flat_map(|row| (0..heads * 32).map(move |i| row[i * step % HIDDEN] * (0.5 + 0.01 * i as f32)));
        Tensor::from_vec(values.collect(), [1, t, heads, 32], &Device::Cpu)
    };
    let opts = AttentionOpts { window: Some(500), ..AttentionOpts::causal(32, state.len()) };
    let y = state.attend(&spread(4, 1)?, &spread(2, 3)?, &spread(2, 5)?, None, &opts)?;
    y.reshape([1, t, HIDDEN, 16])?.sum(&[3], false)
}

fn attention() -> Layer {
    let rope = RopeConfig { style: RopeStyle::Half, dims: 4, theta: 100.0, scaling: RopeScaling::None };
    let config = AttentionConfig {
        hidden: HIDDEN,
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        qkv_bias: true,
        out_bias: true,
        qk_norm: Some(QkNorm { kind: NormKind::Rms, eps: 1e-6, over: Over::Head, after_rope: false }),
        rope: Some(rope.clone()),
        scale: 0.5,
        softcap: None,
        sinks: true,
        causal: true,
        window: None,
        chunk: None,
        clip: None,
        gated: true,
        temperature: Some(Temperature { scale: 0.1, floor: 7.0 }),
        v_norm: Some(1e-6),
        alibi: true,
        shared: None,
    };
    let rope = Arc::new(Rope::new(rope, &Device::Cpu));
    Layer::Attention(Attention::new(&mut Fresh::new(1, &Device::Cpu), "blk.0", &config, Some(rope)).unwrap())
}

fn mamba() -> Layer {
    let config = MambaConfig {
        hidden: HIDDEN,
        inner: 12,
        state: 5,
        conv: 4,
        dt_rank: 2,
        bias: true,
        conv_bias: true,
        norms: Some(InnerNorms { eps: 1e-5, gains: true }),
        layers: 1,
    };
    Layer::Recurrent(Box::new(Mamba::new(&mut Fresh::new(2, &Device::Cpu), "blk.0", &config).unwrap()))
}

/// One of each other recurrent layer.
fn recurrent() -> Vec<Layer> {
    let mut source = Fresh::new(3, &Device::Cpu);
    let mamba2 = Mamba2Config {
        hidden: HIDDEN,
        inner: 12,
        heads: 4,
        groups: 2,
        state: 5,
        conv: 4,
        in_bias: true,
        out_bias: true,
        conv_bias: true,
        activation: Activation::Silu,
        norm: Some(GatedNorm { eps: 1e-5, groups: 2, before_gate: false }),
        dt_limits: (0.002, f64::INFINITY),
        scales: Some(Mamba2Scales { input: 0.9, parts: [1.1, 0.9, 1.2, 0.8, 1.3] }),
        layers: 1,
    };
    let delta = GatedDeltaNetConfig {
        hidden: HIDDEN,
        key_heads: 2,
        value_heads: 4,
        key_dim: 5,
        value_dim: 3,
        conv: 4,
        order: HeadOrder::Tiled,
        qkvz: Projections::Split,
        beta_alpha: Projections::Split,
        eps: 1e-5,
    };
    let kimi = KimiDeltaAttentionConfig { hidden: HIDDEN, heads: 2, head_dim: 5, conv: 4, eps: 1e-5 };
    let lightning = LightningAttentionConfig { hidden: HIDDEN, heads: 2, head_dim: 5, layer: 1, layers: 3, eps: 1e-5 };
    let short = ShortConvConfig { hidden: HIDDEN, conv: 3, bias: true };
    vec![
        Layer::Recurrent(Box::new(Mamba2::new(&mut source, "blk.0", &mamba2).unwrap())),
        Layer::Recurrent(Box::new(GatedDeltaNet::new(&mut source, "blk.0", &delta).unwrap())),
        Layer::Recurrent(Box::new(KimiDeltaAttention::new(&mut source, "blk.0", &kimi).unwrap())),
        Layer::Recurrent(Box::new(LightningAttention::new(&mut source, "blk.0", &lightning).unwrap())),
        Layer::Recurrent(Box::new(ShortConv::new(&mut source, "blk.0", &short).unwrap())),
    ]
}

/// A layer of RWKV-7 that takes its input for the values of the first layer.
#[derive(Debug)]
struct Seven(Rwkv7TimeMix);

impl Module for Seven {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.0.slots(prefix, visit);
    }
}

impl Recurrent for Seven {
    fn forward(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Result<Tensor> {
        self.0.forward(x, state, &mut Some(x.clone()))
    }

    fn state(&self, batch: usize) -> RecurrentState {
        self.0.state(batch)
    }
}

/// RWKV, xLSTM and Mamba-3, of irregular parameters.
fn papers() -> Vec<Layer> {
    let mut source = Fresh::new(3, &Device::Cpu);
    let mut layers = Vec::new();
    let mut add = |layer: Box<dyn Recurrent>| {
        let mut rng = Rng::new(7);
        layer.params("", &mut |_, p| {
            let shape = p.get().shape().to_vec();
            let values = (0..shape.iter().product()).map(|_| 0.5 * rng.normal() as f32).collect();
            p.set(Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        });
        layers.push(Layer::Recurrent(layer));
    };
    let six = Rwkv6TimeMixConfig { hidden: HIDDEN, head_dim: 4, mix_rank: 3, decay_rank: 2 };
    add(Box::new(Rwkv6TimeMix::new(&mut source, "blk.0", &six).unwrap()));
    for receptance in [true, false] {
        let channel = RwkvChannelMixConfig { hidden: HIDDEN, inner: 12, receptance };
        add(Box::new(RwkvChannelMix::new(&mut source, "blk.0", &channel).unwrap()));
    }
    for value_rank in [None, Some(2)] {
        let seven = Rwkv7TimeMixConfig {
            hidden: HIDDEN,
            head_dim: 4,
            decay_rank: 3,
            rate_rank: 2,
            value_rank,
            gate_rank: Some(3),
            norm: true,
        };
        // The values of the first layer are whatever it was given, here the input.
        add(Box::new(Seven(Rwkv7TimeMix::new(&mut source, "blk.0", &seven).unwrap())));
    }
    let mlstm = MlstmConfig {
        hidden: HIDDEN,
        heads: 2,
        qk: 4,
        v: 8,
        gate_cap: Some(15.0),
        norm_eps: 1e-6,
        eps: 1e-6,
        bias: true,
    };
    add(Box::new(Mlstm::new(&mut source, "blk.0", &mlstm).unwrap()));
    for conv in [None, Some(4)] {
        let slstm = SlstmConfig { hidden: HIDDEN, heads: 2, conv, eps: 1e-5 };
        add(Box::new(Slstm::new(&mut source, "blk.0", &slstm).unwrap()));
    }
    for (rank, style, angles) in [(None, RopeStyle::Interleaved, 3), (Some(2), RopeStyle::Half, 2)] {
        let mamba3 = Mamba3Config {
            hidden: HIDDEN,
            heads: 2,
            head_dim: 4,
            state: 6,
            groups: 1,
            rank,
            angles,
            style,
            decay: Mamba3Decay::HeavyTail,
            least_decay: 1e-4,
            norm: rank.is_some(),
            layers: 1,
        };
        add(Box::new(Mamba3::new(&mut source, "blk.0", &mamba3).unwrap()));
    }
    layers
}

fn inputs(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n * HIDDEN).map(|_| rng.normal() as f32).collect()
}

/// Feeds `rows` after the memory's length in random pieces, comparing each output with the fresh run's.
fn feed(layer: &Layer, memory: &mut Memory, rows: &[f32], expected: &[f32], to: usize, rng: &mut Rng, bound: f32) {
    loop {
        let at = each!(&*memory, s => s.len());
        if at == to {
            return;
        }
        let most = [1, 7, 300][rng.next_u64() as usize % 3];
        let t = (1 + rng.next_u64() as usize % most).min(to - at);
        let x = Tensor::from_slice(&rows[at * HIDDEN..(at + t) * HIDDEN], [1, t, HIDDEN], &Device::Cpu).unwrap();
        let y = layer.run(&x, memory).to_vec::<f32>().unwrap();
        for (i, (a, b)) in y.iter().zip(&expected[at * HIDDEN..]).enumerate() {
            assert!((a - b).abs() <= bound * (1.0 + b.abs()), "row {} of {at}+{t}: {a} {b}", i / HIDDEN);
        }
    }
}

fn walk(layer: &Layer, seed: u64) {
    walk_within(layer, seed, 1e-5);
}

fn walk_within(layer: &Layer, seed: u64, bound: f32) {
    let n = 1200;
    let mut rng = Rng::new(seed);
    let mut rows = inputs(n, seed);
    let run = |rows: &[f32]| layer.fresh(&Tensor::from_slice(rows, [1, n, HIDDEN], &Device::Cpu).unwrap());
    let mut expected = run(&rows);
    let mut memory = layer.empty();
    let mut forks: Vec<(Memory, Vec<f32>, Vec<f32>)> = Vec::new();
    for _ in 0..30 {
        let len = each!(&memory, s => s.len());
        match rng.next_u64() % 6 {
            0 | 1 => {
                let to = (len + 1 + rng.next_u64() as usize % 400).min(n);
                feed(layer, &mut memory, &rows, &expected, to, &mut rng, bound);
            }
            2 => {
                let wanted = rng.next_u64() as usize % (len + 1);
                let at = each!(&memory, s => s.rewind_point(wanted));
                assert!(at <= wanted);
                each!(&mut memory, s => s.rewind(at)).unwrap();
                assert_eq!(each!(&memory, s => s.len()), at);
                // Another continuation from here on: what was seen after `at` must have left no trace.
                rows[at * HIDDEN..].copy_from_slice(&inputs(n - at, rng.next_u64()));
                expected = run(&rows);
            }
            3 => forks.push((memory.clone(), rows.clone(), expected.clone())),
            4 => {
                each!(&mut memory, s => s.mark());
                assert_eq!(each!(&memory, s => s.rewind_point(len)), len);
            }
            _ => {
                let mut bytes = Vec::new();
                each!(&memory, s => s.save(&mut bytes)).unwrap();
                let mut rest = bytes.as_slice();
                let mut other = layer.empty();
                each!(&mut other, s => s.restore(&mut rest)).unwrap();
                assert!(rest.is_empty() && each!(&other, s => s.len()) == len);
                if rng.next_u64().is_multiple_of(2) {
                    memory = other;
                }
            }
        }
    }
    for (mut memory, rows, expected) in forks {
        feed(layer, &mut memory, &rows, &expected, n, &mut rng, bound);
    }
}

#[test]
fn random_walks_over_attention_agree_with_a_fresh_run() {
    let layer = attention();
    (0..3).for_each(|seed| walk(&layer, seed));
}

#[test]
fn random_walks_over_caches_of_every_format_agree_with_a_fresh_run() {
    // So that runs of any length compute alike; the other tests of this process are f32 in any case.
    set_precision(Precision::F32);
    for format in KvCache::FORMATS {
        (0..2).for_each(|seed| walk(&Layer::Cache(format), seed));
    }
}

#[test]
fn caches_count_their_bytes_and_refuse_what_they_cannot_hold() {
    let zeros = |t| Tensor::zeros([1, t, 2, 32], imaginal_tensor::DType::F32, &Device::Cpu).unwrap();
    for format in KvCache::FORMATS {
        let mut state = KvState::new(format, 1, 2, 32, &Device::Cpu).unwrap();
        assert_eq!(state.bytes(), 0);
        let opts = |at| AttentionOpts::causal(32, at);
        state.attend(&zeros(1), &zeros(1), &zeros(1), None, &opts(0)).unwrap();
        assert_eq!(state.bytes(), 2 * 2 * KvCache::CHUNK * format.bytes_for(32).unwrap());
        state.attend(&zeros(KvCache::CHUNK), &zeros(KvCache::CHUNK), &zeros(KvCache::CHUNK), None, &opts(1)).unwrap();
        assert_eq!(state.bytes(), 2 * 2 * 2 * KvCache::CHUNK * format.bytes_for(32).unwrap());
        // A saved state of another format is refused, of the same size or not.
        let mut bytes = Vec::new();
        state.save(&mut bytes).unwrap();
        for other in KvCache::FORMATS {
            let restored = KvState::new(other, 1, 2, 32, &Device::Cpu).unwrap().restore(&mut bytes.as_slice());
            assert_eq!(restored.is_ok(), other == format, "{format} {other}");
        }
    }
    let error = |format, dim| KvState::new(format, 1, 2, dim, &Device::Cpu).unwrap_err().to_string();
    assert!(error(Format::Q8_0, 48).contains("heads of 48 elements are no whole q8_0 blocks of 32"));
    assert!(error(Format::Q4_K, 256).contains("q4_k is no format of a cache"));
}

#[test]
fn random_walks_over_mamba_agree_with_a_fresh_run() {
    let layer = mamba();
    (0..3).for_each(|seed| walk(&layer, seed));
}

#[test]
fn random_walks_over_recurrent_layers_agree_with_a_fresh_run() {
    for layer in recurrent() {
        (0..2).for_each(|seed| walk(&layer, seed));
    }
    // Norms of heads of four channels enlarge rounding.
    for layer in papers() {
        (0..2).for_each(|seed| walk_within(&layer, seed, 1e-4));
    }
}

#[test]
fn snapshots_stay_within_their_budget_and_near() {
    let mut s = RecurrentState::new(vec![vec![1, 1, 1]; 2], &Device::Cpu);
    let one = || Tensor::zeros([1, 1, 1], imaginal_tensor::DType::F32, &Device::Cpu).unwrap();
    let steps = 1000;
    for _ in 0..steps {
        s.run(RecurrentState::SPACING, |_, _| Ok((one(), vec![one(), one()]))).unwrap();
        assert!(s.bytes() <= 8 * (RecurrentState::MOST + 1));
    }
    // Going back `k` snapshots costs at most a few times `k`, not a run from the beginning.
    for back in 1..steps / 2 {
        let wanted = s.len() - back * RecurrentState::SPACING;
        let lost = wanted - s.rewind_point(wanted);
        assert!(lost <= 3 * back * RecurrentState::SPACING, "{back}: {lost}");
    }
    assert!(s.rewind(s.len() - 1).is_err());
    assert!(s.rewind(s.len() + 1).is_err());
}

#[test]
fn damaged_bytes_are_refused_and_change_nothing() {
    let caches = [attention(), Layer::Cache(Format::F16), Layer::Cache(Format::Q8_0), mamba()];
    for layer in caches.into_iter().chain(recurrent()).chain(papers()) {
        let mut memory = layer.empty();
        let rows = inputs(5, 3);
        layer.run(&Tensor::from_slice(&rows, [1, 5, HIDDEN], &Device::Cpu).unwrap(), &mut memory);
        let mut bytes = Vec::new();
        each!(&memory, s => s.save(&mut bytes)).unwrap();
        for cut in 0..bytes.len() {
            let mut rest = &bytes[..cut];
            assert!(each!(&mut memory, s => s.restore(&mut rest)).is_err(), "cut at {cut}");
            assert_eq!(each!(&memory, s => s.len()), 5);
        }
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(
            matches!(layer, Layer::Recurrent(_)) || each!(&mut memory, s => s.restore(&mut huge.as_slice())).is_err()
        );
    }
}
