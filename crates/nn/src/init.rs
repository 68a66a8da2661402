//! Where a layer's values come from: a file, or initialisation by seed.

use imaginal_tensor::{Device, Result, Tensor};

use crate::{Param, Weight};

/// The distribution of a tensor before training.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in `±bound`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Evenly spaced from `first` to `last` in every row.
    Spaced {
        /// First of the row.
        first: f64,
        /// Last of the row.
        last: f64,
    },
    /// `ln(1 ..= n)` in every row of `n`: the S4D-real initialisation of Mamba's `A_log` (Gu & Dao 2023, §3.6).
    LogRange,
    /// The logarithm of a number drawn uniformly: the decay rates of Mamba-2 and DeltaNet.
    LogUniform {
        /// Smallest number, above 0.
        min: f64,
        /// Largest number.
        max: f64,
    },
    /// The inverse softplus of a step size drawn log-uniformly from `min ..= max`: Mamba's `dt` bias.
    InverseSoftplus {
        /// Smallest step size.
        min: f64,
        /// Largest step size.
        max: f64,
    },
}

/// What a layer is built from. The same constructor serves a fresh model and one from a file.
pub trait Source {
    /// The matrix called `name`.
    ///
    /// # Errors
    /// The source does not have it in this shape.
    fn weight(&mut self, name: &str, rows: usize, cols: usize, init: Init) -> Result<Weight>;

    /// The f32 tensor called `name`.
    ///
    /// # Errors
    /// The source does not have it in this shape.
    fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Param>;

    /// Where the values shall live.
    fn device(&self) -> Device {
        Device::Cpu
    }
}

/// Fresh values. They depend on the seed and the tensor's name only, not on the order of construction.
#[derive(Clone, Debug)]
pub struct Fresh {
    seed: u64,
    device: Device,
}

impl Fresh {
    /// Values by `seed`, placed on `device`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Fresh { seed, device: device.clone() }
    }

    fn tensor(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        // FNV-1a, so that each name has a stream of its own.
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3));
        let mut rng = Rng::new(self.seed ^ stream);
        let n: usize = shape.iter().product();
        let row = shape.last().copied().unwrap_or(1).max(1);
        let values: Vec<f32> = match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Normal { std } => (0..n).map(|_| (rng.normal() * std) as f32).collect(),
            Init::Uniform { bound } => (0..n).map(|_| ((rng.uniform() * 2.0 - 1.0) * bound) as f32).collect(),
            Init::Spaced { first, last } => {
                let step = (last - first) / row.saturating_sub(1).max(1) as f64;
                (0..n).map(|i| (first + step * (i % row) as f64) as f32).collect()
            }
            Init::LogRange => (0..n).map(|i| ((i % row + 1) as f64).ln() as f32).collect(),
            Init::LogUniform { min, max } => (0..n).map(|_| (min + rng.uniform() * (max - min)).ln() as f32).collect(),
            Init::InverseSoftplus { min, max } => (0..n)
                .map(|_| {
                    let dt = (min.ln() + rng.uniform() * (max.ln() - min.ln())).exp().max(1e-4);
                    (dt + (-(-dt).exp_m1()).ln()) as f32
                })
                .collect(),
        };
        Tensor::from_vec(values, shape, &self.device)
    }
}

impl Source for Fresh {
    fn weight(&mut self, name: &str, rows: usize, cols: usize, init: Init) -> Result<Weight> {
        Weight::from_tensor(self.tensor(name, &[rows, cols], init)?)
    }

    fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Param> {
        Ok(Param::new(self.tensor(name, shape, init)?))
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

/// A small deterministic generator (SplitMix64, Steele et al. 2014): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    spare: Option<f64>,
}

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Rng { state: seed, spare: None }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0 .. 1`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        let r = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some(r * sin);
        r * cos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, name: &str, init: Init) -> Vec<f32> {
        Fresh::new(seed, &Device::Cpu).tensor(name, &[100, 100], init).unwrap().to_vec().unwrap()
    }

    #[test]
    fn fresh_values_follow_seed_name_and_distribution() {
        let init = Init::Normal { std: 0.02 };
        let a = values(1, "a", init);
        assert_eq!(a, values(1, "a", init));
        assert_ne!(a, values(2, "a", init));
        assert_ne!(a, values(1, "b", init));
        let mean = a.iter().map(|&x| x as f64).sum::<f64>() / a.len() as f64;
        let std = (a.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / a.len() as f64).sqrt();
        assert!(mean.abs() < 1e-3 && (std - 0.02).abs() < 1e-3, "{mean} {std}");
        let u = values(1, "a", Init::Uniform { bound: 0.5 });
        assert!(u.iter().all(|x| x.abs() <= 0.5) && u.iter().any(|&x| x > 0.49) && u.iter().any(|&x| x < -0.49));
        assert_eq!(values(1, "a", Init::LogRange)[99], 100f32.ln());
        let spaced = values(1, "a", Init::Spaced { first: 1.0, last: 100.0 });
        assert!(spaced[0] == 1.0 && spaced[99] == 100.0 && spaced[150] == 51.0);
    }

    #[test]
    fn step_sizes_come_back_through_softplus() {
        for x in values(3, "dt", Init::InverseSoftplus { min: 0.001, max: 0.1 }) {
            let dt = (x as f64).exp().ln_1p();
            assert!((0.000999..=0.1001).contains(&dt), "{dt}");
        }
    }
}
