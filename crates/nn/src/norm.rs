use imaginal_tensor::{Result, Tensor};

use crate::{Init, Module, Param, Slot, Source, join};

/// A kind of normalisation over the last dimension.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps) · weight` (Zhang & Sennrich 2019).
    Rms,
    /// The same without a weight.
    RmsUnit,
    /// The same with a weight and a bias, which is added (xLSTM).
    RmsBias,
    /// `(x − mean) / sqrt(variance + eps) · weight + bias` (Ba et al. 2016).
    Layer,
    /// The same without a bias.
    LayerNoBias,
    /// The same without a weight or a bias.
    LayerUnit,
}

impl NormKind {
    /// Whether it has a weight.
    pub fn has_weight(self) -> bool {
        !matches!(self, NormKind::RmsUnit | NormKind::LayerUnit)
    }

    /// Whether it has a bias.
    pub fn has_bias(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::RmsBias)
    }
}

/// A normalisation of the last dimension.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: NormKind,
    eps: f64,
    weight: Option<Param>,
    bias: Option<Param>,
}

impl Norm {
    /// Builds `name.weight` and `name.bias` of `shape`, as far as the kind has them, initialised to one and zero. Usually
    /// the shape is the width; with more dimensions the outer ones are those of what is normalised (a weight for each
    /// head).
    ///
    /// # Errors
    /// The source does not have them in this shape.
    pub fn new(source: &mut dyn Source, name: &str, shape: &[usize], kind: NormKind, eps: f64) -> Result<Self> {
        let mut param = |there: bool, which: &str, init| match there {
            true => source.param(&join(name, which), shape, init).map(Some),
            false => Ok(None),
        };
        let weight = param(kind.has_weight(), "weight", Init::Ones)?;
        Ok(Norm { kind, eps, weight, bias: param(kind.has_bias(), "bias", Init::Zeros)? })
    }

    /// Normalises the last dimension.
    ///
    /// # Errors
    /// The last dimensions are not those of the weight.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.as_ref().map(Param::get);
        let last = x.rank().saturating_sub(1);
        let scale = |x: &Tensor, squares: &Tensor| x.mul(&squares.add_scalar(self.eps)?.rsqrt()?);
        let mut y = match self.kind {
            NormKind::Rms | NormKind::RmsUnit | NormKind::RmsBias => match &weight {
                Some(weight) if weight.rank() == 1 => return self.moved(x.rms_norm(weight, self.eps as f32)?),
                _ => scale(x, &x.sqr()?.mean(&[last], true)?)?,
            },
            NormKind::Layer | NormKind::LayerNoBias | NormKind::LayerUnit => {
                if let Some(weight) = weight.as_ref().filter(|weight| weight.rank() == 1) {
                    return x.layer_norm(weight, self.bias.as_ref().map(Param::get).as_ref(), self.eps as f32);
                }
                let x = x.sub(&x.mean(&[last], true)?)?;
                scale(&x, &x.sqr()?.mean(&[last], true)?)?
            }
        };
        if let Some(weight) = &weight {
            y = y.mul(weight)?;
        }
        self.moved(y)
    }

    fn moved(&self, y: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => y.add(&bias.get()),
            None => Ok(y),
        }
    }
}

impl Module for Norm {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        if let Some(weight) = &self.weight {
            visit(join(prefix, "weight"), Slot::Param(weight));
        }
        if let Some(bias) = &self.bias {
            visit(join(prefix, "bias"), Slot::Param(bias));
        }
    }
}

#[cfg(test)]
mod tests {
    use imaginal_tensor::Device;

    use super::*;
    use crate::{Fresh, Rng};

    #[test]
    fn rows_are_normalised_as_defined() {
        let mut rng = Rng::new(3);
        let mut values = |n: usize| (0..n).map(|_| rng.normal() as f32 + 0.5).collect::<Vec<f32>>();
        let (x, weight, bias) = (values(2 * 3 * 5), values(15), values(15));
        let eps = 0.1;
        let rms = [NormKind::Rms, NormKind::RmsUnit, NormKind::RmsBias];
        for kind in rms.into_iter().chain([NormKind::Layer, NormKind::LayerNoBias, NormKind::LayerUnit]) {
            for shape in [&[5][..], &[3, 5]] {
                let norm = Norm::new(&mut Fresh::new(1, &Device::Cpu), "n", shape, kind, eps).unwrap();
                let n: usize = shape.iter().product();
                let set = |p: &Option<Param>, v: &[f32]| {
                    p.iter().for_each(|p| p.set(Tensor::from_slice(&v[..n], shape, &Device::Cpu).unwrap()));
                };
                set(&norm.weight, &weight);
                set(&norm.bias, &bias);
                let y = norm.forward(&Tensor::from_slice(&x, [2, 3, 5], &Device::Cpu).unwrap()).unwrap();
                for (i, y) in y.to_vec::<f32>().unwrap().into_iter().enumerate() {
                    let row: Vec<f64> = x[i / 5 * 5..][..5].iter().map(|&x| x as f64).collect();
                    let layer = !rms.contains(&kind);
                    let mean = if layer { row.iter().sum::<f64>() / 5.0 } else { 0.0 };
                    let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 5.0;
                    let mut want = (row[i % 5] - mean) / (var + eps).sqrt();
                    want *= if kind.has_weight() { weight[i % n] as f64 } else { 1.0 };
                    want += if kind.has_bias() { bias[i % n] as f64 } else { 0.0 };
                    assert!((y as f64 - want).abs() < 1e-5, "{kind:?} {shape:?} {i}: {y} {want}");
                }
            }
        }
    }
}
