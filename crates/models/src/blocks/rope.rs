use imaginal_nn::{RopeConfig, RopeScaling, Yarn};
use imaginal_tensor::RopeStyle;

use super::{Keys, Reader};
use crate::config::{LONGEST, WIDTH};
use crate::fields::Key;

/// What an architecture fixes of its rotary position embedding.
#[derive(Copy, Clone, Debug)]
pub struct RopeRow {
    /// Which layers turn their queries and keys.
    pub turned: Turned,
    /// The part of a head that is turned, where `config.json` does not say.
    pub partial: f64,
    /// Base of the wavelengths where `config.json` does not say.
    pub theta: f64,
    /// What layers with a window have of their own (Gemma 3).
    pub local: Option<LocalRope>,
    /// Whether YaRN rounds its bounds, where `config.json` does not say and in GGUF files, which never do.
    pub truncate: bool,
    /// What stretches the wavelengths where `config.json` does not speak of it.
    pub usual: Option<&'static Yarn>,
    /// Whether readers of GGUF files want to know how pairs are shared out between the axes of images. Text has the same
    /// position on all of them.
    pub axes: bool,
}

/// Wavelengths of layers with a window. In GGUF files they are not stretched.
#[derive(Copy, Clone, Debug)]
pub struct LocalRope {
    /// Their base.
    pub theta: Key,
    /// Where no field says.
    pub usual: f64,
    /// Whether `rope_scaling` is about them too.
    pub alike: bool,
}

/// Which layers turn their queries and keys.
#[derive(Copy, Clone, Debug)]
pub enum Turned {
    /// All.
    All,
    /// None.
    Never,
    /// Those with a window; the others tell no positions (Command R7B, EXAONE 4). All, if the model has no window.
    Windowed,
    /// All but each n-th; a list `no_rope_layers` in `config.json` (0 for layers that do not turn) overrides.
    AllButEach(usize),
    /// All, if the position embedding is called `rope`, else none; GGUF files have a flag for it (Granite 4).
    Named,
}

impl RopeRow {
    /// All of every head in every layer, with base 10,000.
    pub const PLAIN: RopeRow = RopeRow {
        turned: Turned::All,
        partial: 1.0,
        theta: 10000.0,
        local: None,
        truncate: true,
        usual: None,
        axes: false,
    };
}

pub(super) const DIMS: Key = Key::new(&["rope.dimension_count"], &["rotary_dim", "n_rot"]);
const THETA: Key = Key::new(
    &["rope.freq_base"],
    &[
        "rope_parameters.full_attention.rope_theta",
        "rope_parameters.rope_theta",
        "rope_theta",
        "rotary_emb_base",
        "global_rope_theta",
        "rope_scaling.rope_theta",
        "attn_config.rope_theta",
    ],
);
const PARTIAL: Key = Key::new(
    &[],
    &[
        "rope_parameters.full_attention.partial_rotary_factor",
        "rope_parameters.partial_rotary_factor",
        "partial_rotary_factor",
        "rotary_pct",
        "rope_pct",
        "rotary_emb_fraction",
    ],
);
const LOG_MULTIPLIER: Key = Key::new(&["rope.scaling.yarn_log_multiplier"], &[]);

/// The fields by which wavelengths are stretched.
struct Stretch {
    kind: Key,
    factor: Key,
    low: Key,
    high: Key,
    original: Key,
    fast: Key,
    slow: Key,
    truncate: Key,
    amplitude: Key,
    mscale: Key,
    mscale_all: Key,
    short: Key,
    long: Key,
}

/// The same fields in all the objects that `config.json` may have them in.
macro_rules! stretch {
    ($($object:literal),*) => {
        Stretch {
            kind: Key::new(&["rope.scaling.type"], &[$(concat!($object, ".rope_type"), concat!($object, ".type")),*]),
            factor: stretch!(&["rope.scaling.factor", "rope.scale_linear"], "factor", $($object),*),
            low: stretch!(&[], "low_freq_factor", $($object),*),
            high: stretch!(&[], "high_freq_factor", $($object),*),
            original: Key::new(
                &["rope.scaling.original_context_length"],
                &["original_max_position_embeddings", $(concat!($object, ".original_max_position_embeddings")),*],
            ),
            fast: stretch!(&["rope.scaling.yarn_beta_fast"], "beta_fast", $($object),*),
            slow: stretch!(&["rope.scaling.yarn_beta_slow"], "beta_slow", $($object),*),
            truncate: stretch!(&[], "truncate", $($object),*),
            amplitude: stretch!(
                &["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"],
                "attention_factor",
                $($object),*
            ),
            mscale: stretch!(&[], "mscale", $($object),*),
            mscale_all: stretch!(&[], "mscale_all_dim", $($object),*),
            short: stretch!(&[], "short_factor", $($object),*),
            long: stretch!(&[], "long_factor", $($object),*),
        }
    };
    ($gguf:expr, $name:literal, $($object:literal),*) => {
        Key::new($gguf, &[$(concat!($object, ".", $name)),*])
    };
}

const STRETCH: Stretch = stretch!("rope_parameters.full_attention", "rope_parameters", "rope_scaling");
const LOCAL_STRETCH: Stretch = stretch!("rope_parameters.sliding_attention");
/// Where layers with a window are stretched as the others unless the file speaks of them (ModernBERT).
const ALL_STRETCH: Stretch = stretch!("rope_parameters.sliding_attention", "rope_scaling");
const TURNED: Key = Key::new(&["rope.scaling.finetuned"], &[]);
const EMBEDDING: Key = Key::new(&[], &["position_embedding_type"]);
const NO_ROPE: Key = Key::new(&[], &["no_rope_layers"]);
const NO_ROPE_INTERVAL: Key = Key::new(&[], &["no_rope_layer_interval"]);

/// What turns queries and keys in each of the reader's layers.
pub(super) struct Ropes {
    /// In layers without a window, and with one if there is no other.
    pub full: RopeConfig,
    /// In layers with a window.
    pub local: Option<RopeConfig>,
}

impl RopeRow {
    /// Reads the embedding for heads of `head_dim`, whose rows lie in the order of `style`.
    pub(super) fn read(&self, r: &Reader, head_dim: usize, style: RopeStyle) -> Ropes {
        let f = r.f;
        let partial = f.float(&PARTIAL, Some(self.partial), 0.0, 1.0);
        let part = ((partial * head_dim as f64) as usize).max(1);
        // Of an odd number of elements one more is turned, but wavelengths are those of the odd number: with another base
        // they are those of the even one.
        let odd = !f.has(&DIMS) && part % 2 == 1 && part < head_dim;
        let dims = f.size(&DIMS, Some(part + usize::from(odd)), WIDTH);
        let base = |theta: f64| if odd { theta.powf(dims as f64 / part as f64) } else { theta };
        if dims > head_dim || !dims.is_multiple_of(2) {
            let named = [&DIMS, &PARTIAL].into_iter().find(|key| f.has(key));
            let name = named.map_or_else(|| "head_dim".into(), |key| f.name(key));
            f.conflict(name, format!("{dims} is not an even number up to the {head_dim} elements of a head"));
        }
        let theta = base(f.float(&THETA, Some(self.theta), 1.0, 1e12));
        let full = RopeConfig { style, dims, theta, scaling: scaling(self, r, &STRETCH, dims, theta) };
        let local = self.local.as_ref().map(|local| {
            let theta = base(f.float(&local.theta, Some(local.usual), 1.0, 1e12));
            let stretch = if local.alike { &ALL_STRETCH } else { &LOCAL_STRETCH };
            let scaling = if f.is_gguf() { RopeScaling::None } else { scaling(self, r, stretch, dims, theta) };
            RopeConfig { theta, scaling, ..full.clone() }
        });
        Ropes { full, local }
    }

    /// Whether each of the reader's layers turns its queries and keys, given which have windows, if the model has a size
    /// for them.
    pub(super) fn turned(&self, r: &Reader, windowed: Option<&Vec<bool>>) -> Vec<bool> {
        match self.turned {
            Turned::All => vec![true; r.layers.len()],
            Turned::Never => vec![false; r.layers.len()],
            Turned::Named => {
                let rope = if r.f.is_gguf() { r.f.flag(&TURNED, true) } else { r.f.is_text(&EMBEDDING, "rope") };
                vec![rope; r.layers.len()]
            }
            Turned::Windowed => windowed.cloned().unwrap_or_else(|| vec![true; r.layers.len()]),
            Turned::AllButEach(n) => {
                // An empty list says as little as none.
                let given = r.f.floats(&NO_ROPE).is_some_and(|list| !list.is_empty());
                let n = r.f.size(&NO_ROPE_INTERVAL, Some(n), LONGEST);
                match given.then(|| r.f.flags(&NO_ROPE, r.shared.layers)).flatten() {
                    Some(flags) => r.pick(&flags),
                    None => r.layers.iter().map(|i| !(i + 1).is_multiple_of(n)).collect(),
                }
            }
        }
    }
}

fn scaling(row: &RopeRow, r: &Reader, keys: &Stretch, dims: usize, theta: f64) -> RopeScaling {
    let f = r.f;
    let factor = |default| f.float(&keys.factor, default, 1e-3, 1e6);
    let original = || f.size(&keys.original, (!f.is_gguf()).then_some(r.shared.context), LONGEST);
    if f.is_gguf() {
        let list = |name: &str| r.tensors.floats(name).inspect(|list| check_factors(r, name, list, dims));
        if let (Some(short), Some(long)) = (list("rope_factors_short.weight"), list("rope_factors_long.weight")) {
            let amplitude = f.float(&keys.amplitude, Some(1.0), 1e-3, 1e3);
            return RopeScaling::Long { short, long, original: original(), amplitude };
        }
        if let Some(factors) = list("rope_freqs.weight") {
            if f.text(&keys.kind).is_some_and(|kind| kind != "none") {
                f.problem("rope_freqs.weight", "factors beside another scaling are not supported");
            }
            return RopeScaling::Factors(factors);
        }
    }
    let long = || {
        let list = |key: &Key| {
            let list: Vec<f32> = f.floats(key).unwrap_or_default().iter().map(|&x| x as f32).collect();
            check_factors(r, &f.name(key), &list, dims);
            list
        };
        let original = original();
        let stretch = factor(Some(r.shared.context as f64 / original as f64));
        let usual = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / (original as f64).ln()).sqrt() };
        let amplitude = f.float(&keys.amplitude, Some(usual), 1e-3, 1e3);
        RopeScaling::Long { short: list(&keys.short), long: list(&keys.long), original, amplitude }
    };
    let kind = f.text(&keys.kind);
    match kind.as_deref() {
        // GGUF: a factor without a type is linear.
        None if f.is_gguf() => linear(factor(Some(1.0))),
        None if row.usual.is_some() => row.usual.map_or(RopeScaling::None, |yarn| RopeScaling::Yarn(yarn.clone())),
        None | Some("none" | "default" | "mrope") => RopeScaling::None,
        Some("linear") => linear(factor(None)),
        Some("dynamic") => {
            // It says nothing there of the length without it.
            let original = if f.is_gguf() { original() } else { r.shared.context };
            RopeScaling::Dynamic { factor: factor(None), original }
        }
        Some("llama3") => RopeScaling::llama3(
            dims,
            theta,
            factor(None),
            f.float(&keys.low, None, 1e-6, 1e6),
            f.float(&keys.high, None, 1e-6, 1e6),
            original() as f64,
        ),
        // Early files of Phi 3 call it yarn.
        Some("yarn") if f.is_list(&keys.short) => long(),
        Some("yarn") => {
            let stretch = || r.shared.context as f64 / original() as f64;
            let factor = factor((!f.is_gguf() && f.has(&keys.original)).then(stretch));
            // With a multiplier the scores have what cosines and sines would have.
            let usual = if f.has(&LOG_MULTIPLIER) { 1.0 } else { Yarn::amplitude(factor, 1.0) };
            let weighted = |key| f.has(key) && f.float(key, None, 0.0, 1e3) > 0.0;
            let amplitude = if f.is_gguf() {
                usual * f.float(&keys.amplitude, Some(1.0), 1e-3, 1e3)
            } else if weighted(&keys.mscale) && weighted(&keys.mscale_all) {
                let weight = |key| Yarn::amplitude(factor, f.float(key, None, 0.0, 1e3));
                weight(&keys.mscale) / weight(&keys.mscale_all)
            } else {
                usual
            };
            RopeScaling::Yarn(Yarn {
                factor,
                original: original(),
                beta_fast: f.float(&keys.fast, Some(32.0), 1e-6, 1e6),
                beta_slow: f.float(&keys.slow, Some(1.0), 1e-6, 1e6),
                truncate: f.flag(&keys.truncate, !f.is_gguf() || row.truncate),
                amplitude: if f.is_gguf() { amplitude } else { f.float(&keys.amplitude, Some(amplitude), 1e-3, 1e3) },
            })
        }
        Some("longrope" | "su") if !f.is_gguf() => long(),
        Some(other) => {
            let known = "none, linear, dynamic, llama3, yarn and longrope are";
            f.problem(f.name(&keys.kind), format!("{other:?} is not supported; {known}"));
            RopeScaling::None
        }
    }
}

/// What YaRN multiplies the scores of latent attention with.
pub(super) fn score_factor(r: &Reader, c: &RopeConfig) -> f64 {
    let (f, RopeScaling::Yarn(yarn)) = (r.f, &c.scaling) else { return 1.0 };
    let weight = match f.is_gguf() {
        true => f.float(&LOG_MULTIPLIER, Some(0.0), 0.0, 1e3) / 0.1,
        false => f.float(&STRETCH.mscale_all, Some(0.0), 0.0, 1e3),
    };
    Yarn::amplitude(yarn.factor, weight).powi(2)
}

fn check_factors(r: &Reader, name: &str, list: &[f32], dims: usize) {
    if list.len() * 2 != dims {
        r.f.conflict(name, format!("{} factors for {dims} dimensions", list.len()));
    }
    if !list.iter().all(|x| x.is_finite() && *x > 0.0) {
        r.f.problem(name, "its values are no positive numbers");
    }
}

fn linear(factor: f64) -> RopeScaling {
    if factor == 1.0 { RopeScaling::None } else { RopeScaling::Linear(factor) }
}

/// What GGUF metadata says of it.
///
/// # Errors
/// In words, what the format has no place for.
pub(super) fn write(row: &RopeRow, c: &RopeConfig, keys: &mut Keys) -> Result<(), String> {
    keys.set("rope.dimension_count", c.dims as u32);
    keys.set("rope.freq_base", c.theta as f32);
    if row.axes {
        let pairs = (c.dims / 2) as i32;
        keys.set("rope.dimension_sections", vec![(pairs + 2) / 3, (pairs + 1) / 3, pairs / 3, 0]);
    }
    let original = |x: usize| x.min(u32::MAX as usize) as u32;
    match &c.scaling {
        // Factors are tensors.
        RopeScaling::None | RopeScaling::Factors(_) => {}
        RopeScaling::Linear(factor) => {
            keys.set("rope.scaling.type", "linear");
            keys.set("rope.scaling.factor", *factor as f32);
        }
        RopeScaling::Dynamic { factor, original: at } => {
            keys.set("rope.scaling.type", "dynamic");
            keys.set("rope.scaling.factor", *factor as f32);
            keys.set("rope.scaling.original_context_length", original(*at));
        }
        RopeScaling::Yarn(yarn) => {
            if yarn.truncate != row.truncate {
                let what = if yarn.truncate { "rounded" } else { "not rounded" };
                return Err(format!(
                    "bounds of YaRN that are {what} have no place in a GGUF file of this architecture"
                ));
            }
            keys.set("rope.scaling.type", "yarn");
            keys.set("rope.scaling.factor", yarn.factor as f32);
            keys.set("rope.scaling.original_context_length", original(yarn.original));
            keys.set("rope.scaling.yarn_beta_fast", yarn.beta_fast as f32);
            keys.set("rope.scaling.yarn_beta_slow", yarn.beta_slow as f32);
            keys.set("rope.scaling.attn_factor", (yarn.amplitude / Yarn::amplitude(yarn.factor, 1.0)) as f32);
        }
        RopeScaling::Long { original: at, amplitude, .. } => {
            keys.set("rope.scaling.attn_factor", *amplitude as f32);
            keys.set("rope.scaling.original_context_length", original(*at));
        }
    }
    Ok(())
}
