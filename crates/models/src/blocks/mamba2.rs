use imaginal_nn::{Activation, GatedNorm, Mamba2Config};

use super::mamba::{CONV, CONV_BIAS, INNER, MOST, STATE, widened};
use super::mlp::ActivationRow;
use super::{Bias, Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its state space of heads.
#[derive(Copy, Clone, Debug)]
pub struct Mamba2Row {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mixer`.
    pub hf: &'static str,
    /// The channels of a head in `config.json`.
    pub head_dim: Key,
    /// The norm beside the gate.
    pub norm: GatedNormRow,
    /// Epsilon of that norm, if it is not that of all norms.
    pub eps: Option<f64>,
    /// The least step size: the field, and what it is where `config.json` has none; GGUF files without it have no bound.
    /// `time_step_limit` has no meaning then.
    pub least_step: Option<(Key, f64)>,
    /// The fields of `config.json` that give both projections biases. No GGUF file has them.
    pub bias: &'static [&'static str],
    /// Whether the convolution has a bias.
    pub conv_bias: Bias,
    /// The function after the convolution.
    pub activation: ActivationRow,
}

/// The norm beside the gate.
#[derive(Copy, Clone, Debug)]
pub enum GatedNormRow {
    /// Of the channels of each group.
    Groups,
    /// Of all channels together.
    Whole,
    /// Of the channels of each group, if `mamba_rms_norm` says so or a GGUF file has it; the gate may come after it.
    Flags,
}

const HEADS: Key =
    Key::new(&["ssm.time_step_rank"], &["mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads"]);
const HEAD_DIM: Key = Key::new(&[], &["mamba_head_dim", "mamba_d_head", "mamba_headdim"]);
const CHANNELS: Key = Key::new(&[], &["mamba_d_ssm"]);
const GROUPS: Key = Key::new(&["ssm.group_count"], &["mamba_n_groups", "mamba_ngroups", "n_groups"]);
const NORM: Key = Key::new(&[], &["mamba_rms_norm"]);
const BEFORE_GATE: Key = Key::new(&[], &["mamba_norm_before_gate"]);
const LIMITS: Key = Key::new(&[], &["time_step_limit", "mamba_dt_limit"]);
const OUT_BIAS: Key = Key::new(&[], &["projectors_bias"]);

impl Mamba2Row {
    /// With a norm of each group.
    pub const MAMBA: Mamba2Row = Mamba2Row {
        hf: "mamba",
        head_dim: HEAD_DIM,
        norm: GatedNormRow::Groups,
        eps: None,
        least_step: None,
        bias: &["use_bias", "mamba_proj_bias", "add_bias_linear"],
        conv_bias: Bias::Usually(CONV_BIAS.hf),
        activation: ActivationRow::Usually(Activation::Silu),
    };

    pub(super) fn read(&self, r: &Reader) -> Mamba2Config {
        let f = r.f;
        let gguf = f.is_gguf();
        let heads = f.size(&HEADS, None, WIDTH);
        let groups = f.size(&GROUPS, Some(1), WIDTH);
        let inner = match gguf {
            true => f.size(&INNER, None, WIDTH),
            // The heads share what the block widens the residual stream to.
            false if f.is_text(&self.head_dim, "auto") => {
                let all = if f.has(&CHANNELS) { f.size(&CHANNELS, None, WIDTH) } else { widened(r) };
                all / heads * heads
            }
            false => heads.saturating_mul(f.size(&self.head_dim, None, WIDTH)),
        };
        if inner > WIDTH
            || !inner.is_multiple_of(heads)
            || !heads.is_multiple_of(groups)
            || !inner.is_multiple_of(groups)
        {
            let what = format!("{inner} channels, {heads} heads and {groups} groups have no equal shares");
            f.conflict(f.name(&HEADS), what);
        }
        let limited = self.least_step.is_none();
        let limits = f.floats_that(&LIMITS, |x| !x.is_nan()).filter(|l| l.len() == 2 && l[0] >= 0.0 && l[0] <= l[1]);
        if limits.is_none() && f.has(&LIMITS) {
            f.problem(f.name(&LIMITS), "not two numbers, the smaller first");
        }
        let usual = |usual: f64| Some(if gguf { 0.0 } else { usual });
        let least = self.least_step.map_or(0.0, |(key, x)| f.float(&key, usual(x), 0.0, 1e6));
        let bias = f.flag(&Key::new(&[], self.bias), false);
        let flags = matches!(self.norm, GatedNormRow::Flags);
        let normed = match flags {
            true if gguf => r.present("ssm_norm.weight"),
            true => f.flag(&NORM, true),
            false => true,
        };
        let default = |x: usize| (!gguf).then_some(x);
        Mamba2Config {
            hidden: r.shared.hidden,
            inner,
            heads,
            groups,
            state: f.size(&STATE, default(128), MOST),
            conv: f.size(&CONV, default(4), MOST),
            in_bias: bias,
            out_bias: f.flag(&OUT_BIAS, bias),
            conv_bias: r.bias(self.conv_bias, "ssm_conv1d.bias"),
            activation: self.activation.read(r),
            norm: normed.then(|| GatedNorm {
                eps: self.eps.unwrap_or(r.shared.eps),
                groups: if matches!(self.norm, GatedNormRow::Whole) { 1 } else { groups },
                before_gate: flags && f.flag(&BEFORE_GATE, false),
            }),
            // What is written for no limit at all.
            dt_limits: limits
                .filter(|_| limited)
                .map_or((least, f64::INFINITY), |l| (l[0], if l[1] >= 1e9 { f64::INFINITY } else { l[1] })),
            scales: None,
            layers: r.shared.layers,
        }
    }

    pub(super) fn tensors(&self, c: &Mamba2Config, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let channels = c.inner + 2 * c.groups * c.state;
        specs.linear("ssm_in", &hf("in_proj"), [c.inner + channels + c.heads, c.hidden], c.in_bias, None);
        let conv = Stored::whole(hf("conv1d.weight"), &[channels, 1, c.conv]);
        specs.add_stored("ssm_conv1d.weight", vec![conv], &[channels, c.conv], false);
        if c.conv_bias {
            specs.add("ssm_conv1d.bias", &[&hf("conv1d.bias")], &[channels], false);
        }
        specs.add("ssm_dt.bias", &[&hf("dt_bias")], &[c.heads], false);
        let each = |name: &str| vec![Stored::whole(hf(name), &[c.heads])];
        specs.decay_rates(each("A_log"), &[c.heads, 1], &[]);
        specs.add_stored("ssm_d", each("D"), &[c.heads, 1], false);
        if let Some(norm) = &c.norm {
            let stored = Stored::whole(hf("norm.weight"), &[c.inner]);
            specs.add_stored("ssm_norm.weight", vec![stored], &[norm.groups, c.inner / norm.groups], false);
        }
        specs.linear("ssm_out", &hf("out_proj"), [c.hidden, c.inner], c.out_bias, None);
    }

    pub(super) fn write(&self, layers: &[(usize, &Mamba2Config)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        self.activation.write(c.activation, keys)?;
        if c.in_bias || c.out_bias {
            return Err("the biases of Mamba's input and output projections have no place in a GGUF file".into());
        }
        if c.norm.is_some_and(|n| n.before_gate) {
            return Err("a gate after Mamba's norm has no place in a GGUF file".into());
        }
        match self.least_step {
            Some((Key { gguf: [key, ..], .. }, _)) if c.dt_limits.1 == f64::INFINITY => {
                keys.set(key, c.dt_limits.0 as f32);
            }
            _ if c.dt_limits == (0.0, f64::INFINITY) => {}
            _ => return Err("limits of Mamba's step sizes have no place in a GGUF file".into()),
        }
        keys.set("ssm.conv_kernel", c.conv as u32);
        keys.set("ssm.inner_size", c.inner as u32);
        keys.set("ssm.state_size", c.state as u32);
        keys.set("ssm.time_step_rank", c.heads as u32);
        keys.set("ssm.group_count", c.groups as u32);
        Ok(())
    }
}
