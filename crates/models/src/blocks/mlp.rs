use imaginal_nn::MlpConfig;

use super::{Bias, Keys};
use crate::config::{Shared, WIDTH};
use crate::fields::{Fields, Key};
use crate::tensors::Specs;

/// What an architecture fixes of its feed-forward network.
#[derive(Copy, Clone, Debug)]
pub struct MlpRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mlp`.
    pub hf: &'static str,
    /// Whether it has biases.
    pub bias: Bias,
}

const INNER: Key = Key::new(&["feed_forward_length"], &["intermediate_size"]);
const ACTIVATION: Key = Key::new(&[], &["hidden_act"]);

/// Notes an activation that the gate does not have.
pub(super) fn check_activation(f: &Fields) {
    if let Some(name) = f.text(&ACTIVATION)
        && name != "silu"
        && name != "swish"
    {
        f.problem("hidden_act", format!("{name:?} is not supported; silu is"));
    }
}

impl MlpRow {
    pub(super) fn read(&self, f: &Fields, shared: &Shared, present: &dyn Fn(&str) -> bool) -> MlpConfig {
        check_activation(f);
        MlpConfig {
            hidden: shared.hidden,
            inner: f.size(&INNER, None, WIDTH),
            bias: self.bias.read(f, || present("ffn_gate.bias")),
        }
    }

    pub(super) fn tensors(&self, c: &MlpConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        specs.linear("ffn_gate", &hf("gate_proj"), [c.inner, c.hidden], c.bias, None);
        specs.linear("ffn_up", &hf("up_proj"), [c.inner, c.hidden], c.bias, None);
        specs.linear("ffn_down", &hf("down_proj"), [c.hidden, c.inner], c.bias, None);
    }
}

pub(super) fn write(c: &MlpConfig, keys: &mut Keys) {
    keys.push(("feed_forward_length", (c.inner as u32).into()));
}
