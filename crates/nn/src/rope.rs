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
}

/// Tables of the cosines and sines of a [`RopeConfig`], computed in f64, grown as positions come.
#[derive(Debug)]
pub struct Rope {
    config: RopeConfig,
    frequencies: Vec<f64>,
    device: Device,
    tables: RwLock<Option<(Tensor, Tensor)>>,
}

impl Rope {
    /// Empty tables on `device`.
    pub fn new(config: RopeConfig, device: &Device) -> Self {
        let half = config.dims / 2;
        let frequencies = (0..half)
            .map(|i| {
                let base = config.theta.powf(-2.0 * i as f64 / config.dims as f64);
                match &config.scaling {
                    RopeScaling::None => base,
                    RopeScaling::Linear(factor) => base / factor,
                    RopeScaling::Factors(factors) => base / factors.get(i).map_or(1.0, |&f| f as f64),
                }
            })
            .collect();
        Rope { config, frequencies, device: device.clone(), tables: RwLock::new(None) }
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
        let (cos, sin) = self.tables(start + t)?;
        x.rope(&cos.narrow(0, start, t)?, &sin.narrow(0, start, t)?, self.config.style)
    }

    /// Tables for at least `len` positions.
    fn tables(&self, len: usize) -> Result<(Tensor, Tensor)> {
        if let Some((cos, sin)) = &*self.tables.read().unwrap_or_else(|e| e.into_inner())
            && cos.shape()[0] >= len
        {
            return Ok((cos.clone(), sin.clone()));
        }
        let rows = len.next_power_of_two().max(256);
        let half = self.frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(rows * half), Vec::with_capacity(rows * half));
        for position in 0..rows {
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        let made =
            (Tensor::from_vec(cos, [rows, half], &self.device)?, Tensor::from_vec(sin, [rows, half], &self.device)?);
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
