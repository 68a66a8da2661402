//! Recurrent layers against PyTorch: results, gradients, and the same results from step to step. The fixtures are written by
//! `tools/reference/recurrent_papers.py`, which says what they hold.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use imaginal_files::{OpenOptions, SafeTensors};
use imaginal_nn::*;
use imaginal_tensor::{Device, Tensor, no_grad};

const HIDDEN: usize = 16;

struct Fixture {
    file: SafeTensors,
    used: RefCell<BTreeSet<String>>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/papers/{name}.safetensors"));
        Fixture { file: SafeTensors::open(path, OpenOptions::default()).unwrap(), used: RefCell::default() }
    }

    fn get(&self, name: &str) -> Tensor {
        let t = self.file.tensor(name).unwrap();
        let bytes: &[u8] = &t.bytes;
        let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        self.used.borrow_mut().insert(name.to_string());
        Tensor::from_vec(values, t.shape.clone(), &Device::Cpu).unwrap()
    }
}

impl Source for &Fixture {
    fn weight(&mut self, name: &str, rows: usize, cols: usize, _: Init) -> Result<Weight> {
        let t = self.get(&format!("p.{name}"));
        assert_eq!(t.shape(), [rows, cols], "{name}");
        Weight::from_tensor(t)
    }

    fn param(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Param> {
        let t = self.get(&format!("p.{name}"));
        assert_eq!(t.shape(), shape, "{name}");
        Ok(Param::new(t))
    }
}

#[track_caller]
fn close(what: &str, got: &Tensor, expected: &Tensor, bound: f32) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let (got, expected) = (got.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
    let scale = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    let worst = got
        .iter()
        .zip(&expected)
        .fold(0.0f32, |m, (a, b)| if (a - b).is_nan() { f32::NAN } else { m.max((a - b).abs()) });
    assert!(worst <= bound * scale, "{what}: {worst} at a scale of {scale}");
}

/// Runs `forward(x, state, first)` of a layer whose parameters come from the fixture. `first` is what a layer hands on.
fn check<L: Module>(
    name: &str,
    new: impl Fn(&mut dyn Source) -> Result<L>,
    forward: impl Fn(&L, &Tensor, Option<&mut RecurrentState>, &mut Option<Tensor>) -> Result<Tensor>,
    state: impl Fn(&L, usize) -> RecurrentState,
) {
    let fixture = Fixture::open(name);
    let layer = new(&mut &fixture).unwrap();
    let (x, expected, dy) = (fixture.get("x"), fixture.get("y"), fixture.get("dy"));
    let first = fixture.file.find("first").map(|_| fixture.get("first"));
    let batch = x.dim(0).unwrap();

    // From step to step, and in pieces that end where chunks do not.
    for pieces in [vec![1; 40], vec![3, 20, 1, 16], vec![40]] {
        let (mut state, mut at, mut parts, mut values) = (state(&layer, batch), 0, Vec::new(), Vec::new());
        for len in pieces {
            let mut carry = first.as_ref().map(|f| f.narrow(1, at, len).unwrap());
            let x = x.narrow(1, at, len).unwrap();
            parts.push(no_grad(|| forward(&layer, &x, Some(&mut state), &mut carry)).unwrap());
            values.extend(carry);
            at += len;
        }
        close(&format!("{name}: y in {} pieces", parts.len()), &Tensor::cat(&parts, 1).unwrap(), &expected, 2e-5);
        if fixture.file.find("values").is_some() {
            close(&format!("{name}: values"), &Tensor::cat(&values, 1).unwrap(), &fixture.get("values"), 1e-5);
        }
    }

    layer.params("", &mut |_, p| p.set_trainable(true));
    let x = x.requires_grad();
    let first = first.map(|f| f.requires_grad());
    let y = forward(&layer, &x, None, &mut first.clone()).unwrap();
    close(&format!("{name}: y"), &y, &expected, 2e-5);
    let grads = y.mul(&dy).unwrap().sum_all().unwrap().backward().unwrap();
    close(&format!("{name}: dx"), grads.get(&x).unwrap(), &fixture.get("g.x"), 1e-4);
    if let Some(first) = first {
        close(&format!("{name}: dfirst"), grads.get(&first).unwrap(), &fixture.get("g.first"), 1e-4);
    }
    layer.params("", &mut |p, param| {
        let got = grads.get(&param.get()).unwrap_or_else(|| panic!("{name}: no gradient for {p}"));
        close(&format!("{name}: gradient of {p}"), got, &fixture.get(&format!("g.{p}")), 1e-4);
    });
    for t in fixture.file.tensors() {
        assert!(fixture.used.borrow().contains(&t.name), "{name}: nothing reads {}", t.name);
    }
}

#[test]
fn rwkv6_equals_pytorch() {
    let config = Rwkv6TimeMixConfig { hidden: HIDDEN, head_dim: 8, mix_rank: 3, decay_rank: 5 };
    check("rwkv6", |s| Rwkv6TimeMix::new(s, "", &config), |l, x, s, _| l.forward(x, s), Rwkv6TimeMix::state);
}

#[test]
fn rwkv7_equals_pytorch() {
    for (name, value_rank) in [("rwkv7-first", None), ("rwkv7", Some(2))] {
        let config = Rwkv7TimeMixConfig {
            hidden: HIDDEN,
            head_dim: 8,
            decay_rank: 3,
            rate_rank: 4,
            value_rank,
            gate_rank: Some(5),
            norm: true,
        };
        check(name, |s| Rwkv7TimeMix::new(s, "", &config), Rwkv7TimeMix::forward, Rwkv7TimeMix::state);
        let layer = Rwkv7TimeMix::new(&mut &Fixture::open(name), "", &config).unwrap();
        let x = Fixture::open(name).get("x");
        // Only a later layer needs what the first hands on.
        assert_eq!(layer.forward(&x, None, &mut None).is_err(), value_rank.is_some());
    }
}

#[test]
fn channel_mixing_equals_pytorch() {
    for (name, receptance) in [("rwkv6-channel", true), ("rwkv7-channel", false)] {
        let config = RwkvChannelMixConfig { hidden: HIDDEN, inner: 24, receptance };
        check(name, |s| RwkvChannelMix::new(s, "", &config), |l, x, s, _| l.forward(x, s), RwkvChannelMix::state);
    }
}

#[test]
fn mlstm_equals_transformers() {
    let config = MlstmConfig {
        hidden: HIDDEN,
        heads: 2,
        qk: 8,
        v: 16,
        gate_cap: Some(15.0),
        norm_eps: 1e-6,
        eps: 1e-6,
        bias: true,
    };
    check("mlstm", |s| Mlstm::new(s, "", &config), |l, x, s, _| l.forward(x, s), Mlstm::state);
}

#[test]
fn slstm_equals_pytorch() {
    let config = SlstmConfig { hidden: HIDDEN, heads: 2, conv: Some(4), eps: 1e-5 };
    check("slstm", |s| Slstm::new(s, "", &config), |l, x, s, _| l.forward(x, s), Slstm::state);
}

#[test]
fn mamba3_equals_pytorch() {
    let siso = Mamba3Config {
        hidden: HIDDEN,
        heads: 4,
        head_dim: 4,
        state: 6,
        groups: 2,
        rank: None,
        angles: 3,
        style: RopeStyle::Interleaved,
        decay: Mamba3Decay::Softplus,
        least_decay: 1e-4,
        norm: false,
        layers: 1,
    };
    let mimo = Mamba3Config {
        groups: 1,
        rank: Some(2),
        angles: 2,
        style: RopeStyle::Half,
        decay: Mamba3Decay::HeavyTail,
        norm: true,
        ..siso.clone()
    };
    for (name, config) in [("mamba3-siso", siso), ("mamba3-mimo", mimo)] {
        check(name, |s| Mamba3::new(s, "", &config), |l, x, s, _| l.forward(x, s), Mamba3::state);
    }
}
