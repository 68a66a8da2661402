use imaginal_tensor::{Result, Tensor};

use crate::{Init, Linear, Module, Norm, NormKind, Slot, Source, Weight, join};

/// Shape of alternating updates.
#[derive(Clone, Debug, PartialEq)]
pub struct AltUpConfig {
    /// Width of a stream.
    pub hidden: usize,
    /// How many streams there are, 2 or more.
    pub streams: usize,
    /// The stream that layers compute with.
    pub active: usize,
    /// Epsilon of the norms.
    pub eps: f64,
}

/// Where one residual stream becomes several, and several one again, before the first and after the last layer with
/// [`AltUp`]. The first stream is the embedding; the others are products with it of the same size.
#[derive(Clone, Debug)]
pub struct Streams {
    config: AltUpConfig,
    spread: Linear,
    merge: Weight,
}

/// Sizes below this count as this: the square of it, of mean squares.
const LEAST_SQUARE: f64 = 1e-5;

impl Streams {
    /// Builds `altup_proj` and `altup_unembd_proj`, `[(streams − 1) · hidden, hidden]`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, c: &AltUpConfig) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        let rows = (c.streams - 1) * c.hidden;
        Ok(Streams {
            config: c.clone(),
            spread: Linear::new(source, "altup_proj", c.hidden, rows, false, init)?,
            merge: source.weight("altup_unembd_proj.weight", rows, c.hidden, init)?,
        })
    }

    /// `x[b, t, hidden]` → `[b, t, streams, hidden]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let (b, t) = (x.dim(0)?, x.dim(1)?);
        let first = x.reshape([b, t, 1, c.hidden])?;
        let others = self.spread.forward(x)?.reshape([b, t, c.streams - 1, c.hidden])?;
        Tensor::cat(&[&first, &sized(&others, &first)?], 2)
    }

    /// `all[b, t, streams, hidden]` → `[b, t, hidden]`: the mean of the first and products with the others, brought to its
    /// size.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn merge(&self, all: &Tensor) -> Result<Tensor> {
        let AltUpConfig { hidden, streams, .. } = self.config;
        let (b, t) = (all.dim(0)?, all.dim(1)?);
        let (n, others) = (b * t, streams - 1);
        let x = all.narrow(2, 1, others)?.reshape([n, others, hidden])?.transpose(0, 1)?;
        let y = self.merge.grouped_linear(&x.reshape([others * n, hidden])?, &vec![n; others])?;
        let y = y.reshape([others, n, hidden])?.transpose(0, 1)?.reshape([b, t, others, hidden])?;
        let first = all.narrow(2, 0, 1)?;
        Tensor::cat(&[&first, &sized(&y, &first)?], 2)?.mean(&[2], false)
    }
}

/// `x` with the root mean square of `like`.
fn sized(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let square = |x: &Tensor| x.sqr()?.mean(&[3], true);
    let factor = square(like)?.sqrt()?.mul(&square(x)?.clamp(LEAST_SQUARE, f64::INFINITY)?.rsqrt()?)?;
    x.mul(&factor)
}

impl Module for Streams {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.spread.slots(&join(prefix, "altup_proj"), visit);
        visit(join(prefix, "altup_unembd_proj.weight"), Slot::Weight(&self.merge));
    }
}

/// Alternating updates of several streams around a layer that computes with one of them (Baykal et al. 2023): what the layer
/// will make of all is predicted from all, and corrected by what it has made of the one. The coefficients of both depend on
/// the token.
#[derive(Clone, Debug)]
pub struct AltUp {
    config: AltUpConfig,
    norm: Norm,
    router: Linear,
    predict: Linear,
    correct: Linear,
}

impl AltUp {
    /// Builds `altup_router_norm`, `altup_router`, `altup_predict_coef` and `altup_correct_coef` under `prefix`, initialised
    /// to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &AltUpConfig) -> Result<Self> {
        let norm = Norm::new(source, &join(prefix, "altup_router_norm"), &[c.hidden], NormKind::Rms, c.eps)?;
        let mut linear = |name: &str, inputs, outputs| {
            Linear::new(source, &join(prefix, name), inputs, outputs, false, Init::Normal { std: 0.02 })
        };
        Ok(AltUp {
            config: c.clone(),
            norm,
            router: linear("altup_router", c.hidden, c.streams)?,
            predict: linear("altup_predict_coef", c.streams, c.streams * c.streams)?,
            correct: linear("altup_correct_coef", c.streams, c.streams)?,
        })
    }

    /// What the coefficients are computed from, `[b, t, streams]`.
    fn route(&self, x: &Tensor) -> Result<Tensor> {
        self.router.forward(&self.norm.forward(x)?.mul_scalar(1.0 / self.config.hidden as f64)?)?.tanh()
    }

    /// The stream that the layer computes with, `[b, t, hidden]`, of `all[b, t, streams, hidden]`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn active(&self, all: &Tensor) -> Result<Tensor> {
        all.narrow(2, self.config.active, 1)?.reshape([all.dim(0)?, all.dim(1)?, self.config.hidden])
    }

    /// `all[b, t, streams, hidden]` → what is predicted of them, the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn predict(&self, all: &Tensor) -> Result<Tensor> {
        let (n, hidden) = (self.config.streams, self.config.hidden);
        let tokens = all.dim(0)? * all.dim(1)?;
        let coefficients = self.predict.forward(&self.route(&self.active(all)?)?)?.reshape([tokens, n, n])?;
        coefficients.matmul(&all.reshape([tokens, n, hidden])?)?.reshape(all.shape())?.add(all)
    }

    /// `predicted[b, t, streams, hidden]` and the result of the layer, `computed[b, t, hidden]` → the streams after it.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn correct(&self, predicted: &Tensor, computed: &Tensor) -> Result<Tensor> {
        let (b, t) = (computed.dim(0)?, computed.dim(1)?);
        let factors = self.correct.forward(&self.route(computed)?)?.add_scalar(1.0)?;
        let news = computed.sub(&self.active(predicted)?)?.reshape([b, t, 1, self.config.hidden])?;
        news.mul(&factors.reshape([b, t, self.config.streams, 1])?)?.add(predicted)
    }
}

impl Module for AltUp {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        self.norm.slots(&join(prefix, "altup_router_norm"), visit);
        self.router.slots(&join(prefix, "altup_router"), visit);
        self.predict.slots(&join(prefix, "altup_predict_coef"), visit);
        self.correct.slots(&join(prefix, "altup_correct_coef"), visit);
    }
}
