use imaginal_nn::MlstmConfig;

use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// The matrix memory of xLSTM. GGUF has no names for it; those of [`imaginal_nn::Mlstm`] are used.
#[derive(Copy, Clone, Debug)]
pub struct MlstmRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mlstm_layer`.
    pub hf: &'static str,
}

const HEADS: Key = Key::new(&["attention.head_count"], &["num_heads"]);
const QK: (Key, Key) = (Key::new(&["attention.key_length"], &[]), Key::new(&[], &["qk_dim_factor"]));
const V: (Key, Key) = (Key::new(&["attention.value_length"], &[]), Key::new(&[], &["v_dim_factor"]));
const CAP: Key = Key::new(&["mlstm.gate_softcapping"], &["gate_soft_cap"]);
const EPS: Key = Key::new(&["mlstm.epsilon"], &["eps"]);
const SCALAR: Key = Key::new(&[], &["slstm_at"]);

impl MlstmRow {
    pub(super) fn read(&self, r: &Reader) -> MlstmConfig {
        let (f, hidden) = (r.f, r.shared.hidden);
        let hf = |x: f64| (!f.is_gguf()).then_some(x);
        let heads = f.size(&HEADS, (!f.is_gguf()).then_some(8), WIDTH);
        let width = |(each, factor): (Key, Key), usual: f64| {
            let (key, width) = match f.is_gguf() {
                true => (each, heads.saturating_mul(f.size(&each, None, WIDTH))),
                false => (factor, (f.float(&factor, Some(usual), 0.0, 1024.0) * hidden as f64) as usize),
            };
            if width == 0 || width > WIDTH || !width.is_multiple_of(heads) {
                f.conflict(f.name(&key), format!("a width of {width} does not divide into {heads} heads"));
            }
            width
        };
        if !f.sizes(&SCALAR).is_empty() {
            f.problem(f.name(&SCALAR), "layers with a scalar memory (sLSTM) are not supported");
        }
        MlstmConfig {
            hidden,
            heads,
            qk: width(QK, 0.5),
            v: width(V, 1.0),
            gate_cap: (!f.is_gguf() || f.has(&CAP)).then(|| f.float(&CAP, hf(15.0), 1e-3, 1e6)),
            norm_eps: r.shared.eps,
            eps: f.float(&EPS, Some(1e-6), 0.0, 1.0),
            bias: r.bias(Bias::Optional(&["use_bias"]), "mlstm_q.bias"),
        }
    }

    pub(super) fn tensors(&self, c: &MlstmConfig, specs: &mut Specs) {
        let (hidden, heads) = (c.hidden, c.heads);
        // Each alone, or rows of one that holds several: the name and the widths of that.
        let all =
            ("qkv_opreact", &[("q", "q", c.qk), ("k", "k", c.qk), ("v", "v", c.v), ("ogate", "ogate_preact", c.v)][..]);
        let gates = ("ifgate_preact", &[("igate", "igate_preact", heads), ("fgate", "fgate_preact", heads)][..]);
        for ((fused, parts), bias) in [(all, c.bias), (gates, true)] {
            let total: usize = parts.iter().map(|part| part.2).sum();
            let mut first = 0;
            for (gguf, hf, width) in parts {
                for what in ["weight", "bias"].into_iter().take(if bias { 2 } else { 1 }) {
                    let matrix = what == "weight";
                    let shape = |rows: usize| if matrix { vec![rows, hidden] } else { vec![rows] };
                    let own = Stored::whole(format!("{}.{hf}.{what}", self.hf), &shape(*width));
                    let part = Stored::rows(format!("{}.{fused}.{what}", self.hf), &shape(total), first, *width);
                    specs.add_stored(&format!("mlstm_{gguf}.{what}"), vec![own, part], &shape(*width), matrix);
                }
                first += width;
            }
        }
        for what in ["weight", "bias"].into_iter().take(if c.bias { 2 } else { 1 }) {
            let hf = format!("{}.multihead_norm.{what}", self.hf);
            specs.add(&format!("mlstm_norm.{what}"), &[&hf], &[c.v], false);
        }
        specs.linear("mlstm_out", &format!("{}.out_proj", self.hf), [hidden, c.v], c.bias, None);
    }

    pub(super) fn write(&self, layers: &[(usize, &MlstmConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("attention.head_count", c.heads as u32);
        keys.set("attention.key_length", (c.qk / c.heads) as u32);
        keys.set("attention.value_length", (c.v / c.heads) as u32);
        keys.set("mlstm.epsilon", c.eps as f32);
        if let Some(cap) = c.gate_cap {
            keys.set("mlstm.gate_softcapping", cap as f32);
        }
        Ok(())
    }
}
