use std::ops::RangeInclusive;
use std::sync::RwLock;

use imaginal_tensor::{Device, Result, RopeStyle, Tensor};

/// How rotary position embedding turns the queries and keys of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which elements of a head are turned together.
    pub style: RopeStyle,
    /// How many elements of a head are turned, even; the rest stays as it is.
    pub dims: usize,
    /// Base of the wavelengths, usually 10,000 to 1,000,000.
    pub theta: f64,
    /// How the wavelengths are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// A stretching of the wavelengths.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Positions are divided by this factor (Chen et al. 2023).
    Linear(f64),
    /// Each inverse frequency is divided by its factor; `dims / 2` of them. What Llama 3's scaling comes to.
    Factors(Vec<f32>),
    /// YaRN.
    Yarn(Yarn),
    /// LongRoPE (Ding et al. 2024): one list of factors up to `original` positions, another for calls that reach beyond
    /// them; `dims / 2` each. Cosines and sines are multiplied by `amplitude`.
    Long {
        /// Factors of short contexts.
        short: Vec<f32>,
        /// Factors of long ones.
        long: Vec<f32>,
        /// Positions the model was made for before.
        original: usize,
        /// Factor of cosines and sines.
        amplitude: f64,
    },
    /// The base grows with the length of calls that reach beyond `original` positions ("dynamic NTK").
    Dynamic {
        /// How much.
        factor: f64,
        /// Positions the model was made for before.
        original: usize,
    },
}

/// YaRN (Peng et al. 2023): waves that turn often within the original context stay, those that turn seldom are stretched.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer contexts become.
    pub factor: f64,
    /// Positions the model was made for before.
    pub original: usize,
    /// Waves with more turns than this within the original context stay; usually 32.
    pub beta_fast: f64,
    /// Waves with fewer turns than this are stretched by the whole factor; usually 1.
    pub beta_slow: f64,
    /// Whether the bounds between are rounded outwards to whole dimensions.
    pub truncate: bool,
    /// Factor of cosines and sines; usually [`Yarn::amplitude`] of the factor.
    pub amplitude: f64,
}

impl Yarn {
    /// `0.1 · weight · ln(factor) + 1`, the paper's factor of cosines and sines for `weight` 1.
    pub fn amplitude(factor: f64, weight: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
    }

    /// What the inverse frequency of each pair is multiplied by.
    fn multipliers(&self, dims: usize, theta: f64) -> Vec<f64> {
        let turns_at = |turns: f64| {
            dims as f64 * (self.original as f64 / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (turns_at(self.beta_fast), turns_at(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        if low == high {
            high += 0.001;
        }
        let stretched = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        (0..dims / 2).map(|i| stretched(i) / self.factor + 1.0 - stretched(i)).collect()
    }
}

impl RopeScaling {
    /// The scaling of Llama 3: wavelengths below `original / high` stay, those above `original / low` are stretched by
    /// `factor`, those between by something between.
    pub fn llama3(dims: usize, theta: f64, factor: f64, low: f64, high: f64, original: f64) -> Self {
        let factors = (0..dims / 2).map(|i| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / dims as f64);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        });
        RopeScaling::Factors(factors.collect())
    }

    /// Factor of cosines and sines.
    fn amplitude(&self) -> f64 {
        match self {
            RopeScaling::Yarn(yarn) => yarn.amplitude,
            RopeScaling::Long { amplitude, .. } => *amplitude,
            _ => 1.0,
        }
    }

    /// Up to how many positions the tables are the same; beyond them they are others.
    fn original(&self) -> Option<usize> {
        match self {
            RopeScaling::Long { original, .. } | RopeScaling::Dynamic { original, .. } => Some(*original),
            _ => None,
        }
    }
}

impl RopeConfig {
    /// Radians per position of each pair, for calls that reach up to `len` positions.
    fn frequencies(&self, len: usize) -> Vec<f64> {
        let (half, dims) = (self.dims / 2, self.dims as f64);
        let beyond = self.scaling.original().is_some_and(|original| len > original);
        let mut theta = self.theta;
        if let (RopeScaling::Dynamic { factor, original }, true) = (&self.scaling, beyond) {
            let stretch = factor * len as f64 / *original as f64 - (factor - 1.0);
            theta *= stretch.powf(dims / (dims - 2.0));
        }
        let base = |i: usize| theta.powf(-2.0 * i as f64 / dims);
        let divided =
            |factors: &[f32]| (0..half).map(|i| base(i) / factors.get(i).map_or(1.0, |&f| f as f64)).collect();
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => (0..half).map(base).collect(),
            RopeScaling::Linear(factor) => (0..half).map(|i| base(i) / factor).collect(),
            RopeScaling::Factors(factors) => divided(factors),
            RopeScaling::Yarn(yarn) => {
                yarn.multipliers(self.dims, theta).into_iter().enumerate().map(|(i, m)| base(i) * m).collect()
            }
            RopeScaling::Long { long, .. } if beyond => divided(long),
            RopeScaling::Long { short, .. } => divided(short),
        }
    }
}

/// Tables of the cosines and sines of a [`RopeConfig`], computed in f64, grown as positions come.
#[derive(Debug)]
pub struct Rope {
    config: RopeConfig,
    device: Device,
    tables: RwLock<Option<Tables>>,
}

/// Cosines and sines `[positions, dims / 2]`.
#[derive(Clone, Debug)]
struct Tables {
    cos: Tensor,
    sin: Tensor,
    /// Lengths of calls that they hold for.
    valid: RangeInclusive<usize>,
}

impl Rope {
    /// Empty tables on `device`.
    pub fn new(config: RopeConfig, device: &Device) -> Self {
        Rope { config, device: device.clone(), tables: RwLock::new(None) }
    }

    /// What the tables are made from.
    pub fn config(&self) -> &RopeConfig {
        &self.config
    }

    /// Turns `x` `[b, t, heads, d]`, whose first row stands at position `start`.
    ///
    /// # Errors
    /// The shapes do not fit, or the device refuses.
    pub fn turn(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        let t = x.dim(1)?;
        let Tables { cos, sin, .. } = self.tables(start + t)?;
        x.rope(&cos.narrow(0, start, t)?, &sin.narrow(0, start, t)?, self.config.style)
    }

    /// Tables for calls that reach up to `len` positions.
    fn tables(&self, len: usize) -> Result<Tables> {
        if let Some(tables) = &*self.tables.read().unwrap_or_else(|e| e.into_inner())
            && tables.valid.contains(&len)
        {
            return Ok(tables.clone());
        }
        let scaling = &self.config.scaling;
        let mut rows = len.next_power_of_two().max(256);
        let mut first = 0;
        if let Some(original) = scaling.original() {
            if len <= original {
                rows = rows.min(original);
            } else {
                first = if matches!(scaling, RopeScaling::Dynamic { .. }) { len } else { original + 1 };
                rows = if first == len { len } else { rows };
            }
        }
        let (frequencies, amplitude) = (self.config.frequencies(len), scaling.amplitude());
        let half = frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(rows * half), Vec::with_capacity(rows * half));
        for position in 0..rows {
            for frequency in &frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push((c * amplitude) as f32);
                sin.push((s * amplitude) as f32);
            }
        }
        let table = |values| Tensor::from_vec(values, [rows, half], &self.device);
        let made = Tables { cos: table(cos)?, sin: table(sin)?, valid: first..=rows };
        *self.tables.write().unwrap_or_else(|e| e.into_inner()) = Some(made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pair_turns_by_one_radian_per_position() {
        let config = RopeConfig { style: RopeStyle::Interleaved, dims: 4, theta: 10000.0, scaling: RopeScaling::None };
        let rope = Rope::new(config.clone(), &Device::Cpu);
        let x = Tensor::from_vec(vec![1f32, 0.0, 1.0, 0.0, 7.0], [1, 1, 1, 5], &Device::Cpu).unwrap();
        let y = rope.turn(&x, 1000).unwrap().to_vec::<f32>().unwrap();
        let expected = [1000f64.cos(), 1000f64.sin(), 10f64.cos(), 10f64.sin(), 7.0];
        for (a, b) in y.iter().zip(expected) {
            assert!((*a as f64 - b).abs() < 1e-7, "{y:?}");
        }
        let half = Rope::new(RopeConfig { scaling: RopeScaling::Linear(1000.0), ..config }, &Device::Cpu);
        let y = half.turn(&x, 1000).unwrap().to_vec::<f32>().unwrap();
        assert!((y[0] as f64 - 1f64.cos()).abs() < 1e-7);
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_and_stretches_long_ones() {
        let RopeScaling::Factors(f) = RopeScaling::llama3(128, 500000.0, 8.0, 1.0, 4.0, 8192.0) else { panic!() };
        assert_eq!((f.len(), f[0], f[63]), (64, 1.0, 8.0));
        assert!(f.windows(2).all(|w| w[0] <= w[1]) && f.iter().any(|&x| x > 1.0 && x < 8.0));
    }
}
