//! The recurrent layers against those of transformers (`tools/reference/recurrent_layers.py`): values in one piece and
//! in many, and the gradients of inputs and of every parameter.

use std::collections::BTreeSet;

use imaginal_files::SafeTensors;
use imaginal_nn::*;
use imaginal_tensor::{Device, Tensor, no_grad};

/// Everything of one case of the fixture, as a source of the layer's tensors.
struct Case<'a> {
    file: &'a SafeTensors,
    name: &'a str,
    used: BTreeSet<String>,
}

impl Case<'_> {
    fn tensor(&self, name: &str) -> Tensor {
        let found = self.file.tensor(&format!("{}.{name}", self.name)).unwrap();
        let values: Vec<f32> = found.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Tensor::from_vec(values, &found.shape[..], &Device::Cpu).unwrap()
    }
}

impl Source for Case<'_> {
    fn weight(&mut self, name: &str, rows: usize, cols: usize, init: Init) -> Result<Weight> {
        Weight::from_tensor(self.param(name, &[rows, cols], init)?.get())
    }

    fn param(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Param> {
        let value = self.tensor(&format!("param.{name}"));
        assert_eq!(value.shape(), shape, "{} {name}", self.name);
        assert!(self.used.insert(name.to_string()), "{} {name} is taken twice", self.name);
        Ok(Param::new(value))
    }
}

trait Layer: Module {
    fn run(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Tensor;
    fn empty(&self, batch: usize) -> RecurrentState;
}

macro_rules! layers {
    ($($layer:ty),*) => {$(
        impl Layer for $layer {
            fn run(&self, x: &Tensor, state: Option<&mut RecurrentState>) -> Tensor {
                self.forward(x, state).unwrap()
            }
            fn empty(&self, batch: usize) -> RecurrentState {
                self.state(batch)
            }
        }
    )*};
}
layers!(Mamba, Mamba2, GatedDeltaNet, KimiDeltaAttention, LightningAttention, ShortConv);

const WIDTH: usize = 12;

fn mamba(norms: InnerNorms, bias: bool) -> MambaConfig {
    let inner = 2 * WIDTH;
    MambaConfig {
        hidden: WIDTH,
        inner,
        state: 8,
        conv: 4,
        dt_rank: 3,
        bias,
        conv_bias: true,
        norms: Some(norms),
        layers: 1,
    }
}

fn mamba2(groups: usize, [bias, conv_bias]: [bool; 2], eps: f64, dt_limits: (f64, f64)) -> Mamba2Config {
    Mamba2Config {
        hidden: WIDTH,
        inner: 24,
        heads: 6,
        groups,
        state: 8,
        conv: 4,
        in_bias: bias,
        out_bias: bias,
        conv_bias,
        activation: Activation::Silu,
        norm: Some(GatedNorm { eps, groups, before_gate: false }),
        dt_limits,
        scales: None,
        layers: 1,
    }
}

fn falcon_h1(norm: Option<bool>) -> Mamba2Config {
    Mamba2Config {
        norm: norm.map(|before_gate| GatedNorm { eps: 1e-5, groups: 2, before_gate }),
        scales: Some(Mamba2Scales { input: 0.7, parts: [0.9, 1.3, 0.6, 1.4, 0.8] }),
        ..mamba2(2, [true, true], 1e-5, (0.0, f64::INFINITY))
    }
}

fn delta(how: Projections) -> GatedDeltaNetConfig {
    GatedDeltaNetConfig {
        hidden: WIDTH,
        key_heads: 2,
        value_heads: 4,
        key_dim: 6,
        value_dim: 5,
        conv: 4,
        order: HeadOrder::Grouped,
        qkvz: how,
        beta_alpha: how,
        eps: 1e-5,
    }
}

fn build(name: &str, source: &mut Case) -> Box<dyn Layer> {
    let any = (0.0, f64::INFINITY);
    let one = |c: Mamba2Config, source: &mut Case| Box::new(Mamba2::new(source, "", &c).unwrap());
    match name {
        "jamba" => Box::new(Mamba::new(source, "", &mamba(InnerNorms { eps: 1e-5, gains: true }, true)).unwrap()),
        "falcon-mamba" => {
            Box::new(Mamba::new(source, "", &mamba(InnerNorms { eps: 1e-6, gains: false }, false)).unwrap())
        }
        "mamba2" => one(mamba2(2, [false, true], 1e-5, (0.3, 1.1)), source),
        "bamba" => one(mamba2(1, [true, false], 1e-5, any), source),
        "zamba2" => one(mamba2(3, [false, true], 1e-5, (0.4, f64::INFINITY)), source),
        "nemotron-h" => {
            let c = mamba2(2, [false, true], 1e-5, (0.4, f64::INFINITY));
            one(Mamba2Config { inner: 20, heads: 4, ..c }, source)
        }
        "granite-hybrid" => one(mamba2(1, [false, true], 1e-6, any), source),
        "falcon-h1" => one(falcon_h1(Some(true)), source),
        "falcon-h1-gate-first" => one(falcon_h1(Some(false)), source),
        "falcon-h1-no-norm" => one(falcon_h1(None), source),
        "qwen3next" => Box::new(GatedDeltaNet::new(source, "", &delta(Projections::Fused)).unwrap()),
        "qwen3.5" => Box::new(GatedDeltaNet::new(source, "", &delta(Projections::Split)).unwrap()),
        "kimi-linear" => {
            let c = KimiDeltaAttentionConfig { hidden: WIDTH, heads: 3, head_dim: 6, conv: 4, eps: 1e-5 };
            Box::new(KimiDeltaAttention::new(source, "", &c).unwrap())
        }
        "minimax" => {
            let c = LightningAttentionConfig { hidden: WIDTH, heads: 3, head_dim: 6, layer: 1, layers: 4, eps: 1e-6 };
            Box::new(LightningAttention::new(source, "", &c).unwrap())
        }
        "lfm2" => {
            Box::new(ShortConv::new(source, "", &ShortConvConfig { hidden: WIDTH, conv: 3, bias: true }).unwrap())
        }
        other => panic!("no layer for {other}"),
    }
}

/// Largest difference relative to the largest value, which counts as at least 1.
#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &Tensor, bound: f32) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let (got, expected) = (got.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    let scale = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= bound * scale, "{what}[{i}]: {a} instead of {b}, of at most {scale}");
    }
}

fn for_each_case(mut f: impl FnMut(&Case, &dyn Layer)) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recurrent.safetensors");
    let file = SafeTensors::from_bytes(path, std::fs::read(path).unwrap()).unwrap();
    let names: BTreeSet<&str> = file.tensors().iter().filter_map(|t| t.name.strip_suffix(".dx")).collect();
    assert_eq!(names.len(), 15);
    for name in names {
        let mut case = Case { file: &file, name, used: BTreeSet::new() };
        let layer = build(name, &mut case);
        let there = file.tensors().iter().filter_map(|t| t.name.strip_prefix(name)?.strip_prefix(".param."));
        assert_eq!(there.map(String::from).collect::<BTreeSet<_>>(), case.used, "{name}");
        f(&case, &*layer);
    }
}

#[test]
fn values_equal_those_of_transformers_however_they_are_cut() {
    for_each_case(|case, layer| {
        let (x, y) = (case.tensor("x"), case.tensor("y"));
        let [b, t] = [x.shape()[0], x.shape()[1]];
        no_grad(|| {
            assert_close(case.name, &layer.run(&x, None), &y, 2e-5);
            for cuts in [vec![t], vec![1; t], vec![1, 5, 40, 1, t - 47]] {
                let mut state = layer.empty(b);
                let mut at = 0;
                for n in cuts {
                    let part = layer.run(&x.narrow(1, at, n).unwrap(), Some(&mut state));
                    let what = format!("{} {at}+{n}", case.name);
                    assert_close(&what, &part, &y.narrow(1, at, n).unwrap(), 2e-5);
                    at += n;
                }
                assert_eq!(state.len(), t);
            }
        });
    });
}

#[test]
fn gradients_equal_those_of_pytorch() {
    for_each_case(|case, layer| {
        layer.params("", &mut |_, p| p.set_trainable(true));
        let x = case.tensor("x").requires_grad();
        let y = layer.run(&x, None);
        let grads = y.backward_with(case.tensor("dy")).unwrap();
        let of = |t: &Tensor, what: &str| grads.get(t).unwrap_or_else(|| panic!("no gradient of {what}")).clone();
        assert_close(&format!("{} dx", case.name), &of(&x, "x"), &case.tensor("dx"), 5e-5);
        layer.params("", &mut |name, p| {
            let what = format!("{} {name}", case.name);
            assert_close(&what, &of(&p.get(), &what), &case.tensor(&format!("grad.{name}")), 5e-5);
        });
    });
}
