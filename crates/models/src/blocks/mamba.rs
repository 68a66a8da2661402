use imaginal_nn::{InnerNorms, MambaConfig};

use super::delta::only_silu;
use super::{Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its selective state space.
#[derive(Copy, Clone, Debug)]
pub struct MambaRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mixer`.
    pub hf: &'static str,
    /// The norms of dt, B and C.
    pub norms: InnerNormsRow,
    /// The field of `config.json` that has the width within the layer; without it that is `expand` times the residual
    /// stream's.
    pub inner: Option<Key>,
}

/// The norms of dt, B and C.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum InnerNormsRow {
    /// There are none, unless a GGUF file has them without weights (Falcon Mamba).
    Never,
    /// Without weights.
    Bare,
    /// With weights (Jamba).
    Gains,
}

pub(super) const INNER: Key = Key::new(&["ssm.inner_size"], &[]);
const EXPAND: Key = Key::new(&[], &["expand", "mamba_expand"]);
pub(super) const STATE: Key =
    Key::new(&["ssm.state_size"], &["state_size", "d_state", "mamba_d_state", "ssm_state_size"]);
pub(super) const CONV: Key = Key::new(&["ssm.conv_kernel"], &["conv_kernel", "d_conv", "mamba_d_conv"]);
const RANK: Key = Key::new(&["ssm.time_step_rank"], &["time_step_rank", "mamba_dt_rank"]);
const BIAS: Key = Key::new(&[], &["use_bias", "mamba_proj_bias"]);
pub(super) const CONV_BIAS: Key = Key::new(&[], &["use_conv_bias", "mamba_conv_bias"]);
const NORM_EPS: Key = Key::new(&[], &["mixer_rms_eps"]);
const INNER_NORMS: Key = Key::new(&["ssm.dt_b_c_rms"], &[]);

/// Longest convolution and widest state that any model comes near.
pub(super) const MOST: usize = 4096;

/// The width that `config.json` speaks of as a multiple of the residual stream's.
pub(super) fn widened(r: &Reader) -> usize {
    let inner = (r.f.float(&EXPAND, Some(2.0), 0.0, 1024.0) * r.shared.hidden as f64) as usize;
    if inner == 0 || inner > WIDTH {
        r.f.conflict(r.f.name(&EXPAND), format!("a width of {inner} is not one from 1 to {WIDTH}"));
    }
    inner
}

impl MambaRow {
    pub(super) fn read(&self, r: &Reader) -> MambaConfig {
        let f = r.f;
        only_silu(r);
        let norms = match self.norms {
            InnerNormsRow::Never if f.flag(&INNER_NORMS, false) => InnerNormsRow::Bare,
            norms => norms,
        };
        let hidden = r.shared.hidden;
        let gguf = f.is_gguf();
        let default = |x: usize| if gguf { None } else { Some(x) };
        let inner = if gguf {
            f.size(&INNER, None, WIDTH)
        } else {
            match self.inner.filter(|key| f.has(key)) {
                Some(key) => f.size(&key, None, WIDTH),
                None => widened(r),
            }
        };
        let dt_rank = match f.is_text(&RANK, "auto") {
            true => hidden.div_ceil(16),
            false => f.size(&RANK, default(hidden.div_ceil(16)), WIDTH),
        };
        MambaConfig {
            hidden,
            inner,
            state: f.size(&STATE, default(16), MOST),
            conv: f.size(&CONV, default(4), MOST),
            dt_rank,
            bias: f.flag(&BIAS, false),
            conv_bias: if gguf { r.present("ssm_conv1d.bias") } else { f.flag(&CONV_BIAS, true) },
            norms: (norms != InnerNormsRow::Never).then(|| InnerNorms {
                eps: f.float(&NORM_EPS, Some(r.shared.eps), 0.0, 1.0),
                gains: norms == InnerNormsRow::Gains,
            }),
            layers: r.shared.layers,
        }
    }

    pub(super) fn tensors(&self, c: &MambaConfig, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        specs.linear("ssm_in", &hf("in_proj"), [2 * c.inner, c.hidden], c.bias, None);
        if c.bias {
            specs.without_gguf();
        }
        let conv = Stored::whole(hf("conv1d.weight"), &[c.inner, 1, c.conv]);
        specs.add_stored("ssm_conv1d.weight", vec![conv], &[c.inner, c.conv], false);
        if c.conv_bias {
            specs.add("ssm_conv1d.bias", &[&hf("conv1d.bias")], &[c.inner], false);
        }
        specs.linear("ssm_x", &hf("x_proj"), [c.dt_rank + 2 * c.state, c.inner], false, None);
        if c.norms.is_some_and(|n| n.gains) {
            for (name, width) in [("dt", c.dt_rank), ("b", c.state), ("c", c.state)] {
                let (gguf, hf) = (format!("ssm_{name}_norm.weight"), hf(&format!("{name}_layernorm.weight")));
                specs.add(&gguf, &[&hf], &[width], false);
            }
        }
        specs.linear("ssm_dt", &hf("dt_proj"), [c.inner, c.dt_rank], true, None);
        let shape = [c.inner, c.state];
        specs.decay_rates(vec![Stored::whole(hf("A_log"), &shape)], &shape, &[]);
        specs.add("ssm_d", &[&hf("D")], &[c.inner], false);
        specs.linear("ssm_out", &hf("out_proj"), [c.hidden, c.inner], c.bias, None);
        if c.bias {
            specs.without_gguf();
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &MambaConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        if c.bias {
            return Err("the biases of Mamba's input and output projections have no place in a GGUF file".into());
        }
        if c.norms.is_some_and(|n| n.eps != keys.eps) {
            return Err("an epsilon of Mamba's inner norms has no place in a GGUF file".into());
        }
        keys.set("ssm.conv_kernel", c.conv as u32);
        keys.set("ssm.inner_size", c.inner as u32);
        keys.set("ssm.state_size", c.state as u32);
        keys.set("ssm.time_step_rank", c.dt_rank as u32);
        keys.set("ssm.dt_b_c_rms", c.norms.is_some_and(|n| !n.gains));
        Ok(())
    }
}
