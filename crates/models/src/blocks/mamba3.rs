use imaginal_nn::{Mamba3Config, Mamba3Decay, RopeStyle};

use super::mamba::{INNER, MOST};
use super::{Keys, Reader};
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::Specs;

/// The state space of Mamba-3. GGUF has no names for all of it; those of [`imaginal_nn::Mamba3`] are used.
#[derive(Copy, Clone, Debug)]
pub struct Mamba3Row {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `mixer`.
    pub hf: &'static str,
}

const EXPAND: Key = Key::new(&[], &["ssm_cfg.expand"]);
const HEADS: Key = Key::new(&["ssm.time_step_rank"], &[]);
const HEAD_DIM: Key = Key::new(&[], &["ssm_cfg.headdim"]);
const STATE: Key = Key::new(&["ssm.state_size"], &["ssm_cfg.d_state"]);
const GROUPS: Key = Key::new(&["ssm.group_count"], &["ssm_cfg.ngroups"]);
const SEVERAL: Key = Key::new(&[], &["ssm_cfg.is_mimo"]);
const RANK: Key = Key::new(&["ssm.head_rank"], &["ssm_cfg.mimo_rank"]);
const TURNED: Key = Key::new(&[], &["ssm_cfg.rope_fraction"]);
const ANGLES: Key = Key::new(&["ssm.angle_count"], &[]);
const FLOOR: Key = Key::new(&["ssm.decay_floor"], &["ssm_cfg.A_floor"]);
const NORM: Key = Key::new(&[], &["ssm_cfg.is_outproj_norm"]);

impl Mamba3Row {
    pub(super) fn read(&self, r: &Reader) -> Mamba3Config {
        let (f, hidden, gguf) = (r.f, r.shared.hidden, r.f.is_gguf());
        let hf = |x: usize| (!gguf).then_some(x);
        let state = f.size(&STATE, hf(128), MOST);
        let (inner, heads) = if gguf {
            (f.size(&INNER, None, WIDTH), f.size(&HEADS, None, WIDTH))
        } else {
            let inner = (f.float(&EXPAND, Some(2.0), 0.0, 1024.0) * hidden as f64) as usize;
            (inner, (inner / f.size(&HEAD_DIM, Some(64), WIDTH)).max(1))
        };
        let head_dim = if gguf { inner / heads } else { f.size(&HEAD_DIM, Some(64), WIDTH) };
        if inner > WIDTH || heads * head_dim != inner || head_dim == 0 {
            let name = f.name(if gguf { &HEADS } else { &HEAD_DIM });
            f.conflict(name, format!("{inner} channels do not divide into heads"));
        }
        let groups = f.size(&GROUPS, hf(1), WIDTH);
        if !heads.is_multiple_of(groups) {
            f.conflict(f.name(&GROUPS), format!("{groups} groups do not divide {heads} heads"));
        }
        let angles = match gguf {
            true => f.size(&ANGLES, None, MOST),
            false => (state as f64 * f.float(&TURNED, Some(0.5), 0.0, 1.0)) as usize / 2,
        };
        if angles == 0 || 2 * angles > state || !state.is_multiple_of(2) {
            f.conflict(f.name(&STATE), format!("a state of {state} cannot turn by {angles} angles"));
        }
        // In GGUF files the key is there for those with several.
        let several = if gguf { f.has(&RANK) } else { f.flag(&SEVERAL, false) };
        let rank = several.then(|| f.size(&RANK, Some(4), MOST));
        if rank.unwrap_or(1).saturating_mul(groups).saturating_mul(state) > WIDTH {
            f.conflict(f.name(&STATE), format!("{groups} groups of {state} are wider than {WIDTH}"));
        }
        Mamba3Config {
            hidden,
            heads,
            head_dim,
            state,
            groups,
            rank,
            angles,
            style: if several { RopeStyle::Half } else { RopeStyle::Interleaved },
            decay: Mamba3Decay::HeavyTail,
            least_decay: f.float(&FLOOR, Some(1e-4), 0.0, 1e6),
            norm: if gguf { r.present("ssm_norm.weight") } else { f.flag(&NORM, false) },
            layers: r.shared.layers,
        }
    }

    pub(super) fn tensors(&self, c: &Mamba3Config, specs: &mut Specs) {
        let hf = |name: &str| format!("{}.{name}", self.hf);
        let (inner, rank) = (c.heads * c.head_dim, c.rank.unwrap_or(1));
        let width = 2 * inner + 2 * rank * c.groups * c.state + 3 * c.heads + c.angles;
        specs.linear("ssm_in", &hf("in_proj"), [width, c.hidden], false, None);
        let mut add = |gguf: &str, name: &str, shape: &[usize]| {
            specs.add(gguf, &[&hf(name)], shape, false);
        };
        add("ssm_dt.bias", "dt_bias", &[c.heads]);
        add("ssm_b_norm.weight", "B_norm.weight", &[c.state]);
        add("ssm_c_norm.weight", "C_norm.weight", &[c.state]);
        add("ssm_b_bias", "B_bias", &[c.heads, rank, c.state]);
        add("ssm_c_bias", "C_bias", &[c.heads, rank, c.state]);
        for (gguf, name) in [("ssm_mimo_x", "mimo_x"), ("ssm_mimo_z", "mimo_z"), ("ssm_mimo_out", "mimo_o")] {
            if c.rank.is_some() {
                add(gguf, name, &[c.heads, rank, c.head_dim]);
            }
        }
        add("ssm_d", "D", &[c.heads]);
        if c.norm {
            add("ssm_norm.weight", "norm.weight", &[inner]);
        }
        specs.linear("ssm_out", &hf("out_proj"), [c.hidden, inner], false, None);
    }

    pub(super) fn write(&self, layers: &[(usize, &Mamba3Config)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("ssm.inner_size", (c.heads * c.head_dim) as u32);
        keys.set("ssm.state_size", c.state as u32);
        keys.set("ssm.time_step_rank", c.heads as u32);
        keys.set("ssm.group_count", c.groups as u32);
        keys.set("ssm.angle_count", c.angles as u32);
        keys.set("ssm.decay_floor", c.least_decay as f32);
        if let Some(rank) = c.rank {
            keys.set("ssm.head_rank", rank as u32);
        }
        Ok(())
    }
}
