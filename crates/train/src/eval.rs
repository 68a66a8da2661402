//! How well a model knows a text: the bits it needs per byte.
//!
//! Every file is measured alone, its first token predicted from the beginning-of-text token, and every byte counts.
//! A model with attention reads a long file through a window that moves by half its length, so that every token but
//! the first ones is predicted from at least half a window; a recurrent model carries its state through the file.
//!
//! Beside it another model can be run over the same tokens, to say how far the predictions of the two lie apart.

use imaginal_models::{Model, Rows};
use imaginal_tensor::{Device, Tensor, no_grad};

use crate::{Error, Result};

/// A text as the model sees it.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its tokens, without special ones.
    pub tokens: Vec<u32>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a model needs for a text, or for several.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum of the cross-entropy of all tokens, in nats.
    pub nats: f64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

impl Score {
    /// Bits per byte of text.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64
    }

    /// Mean cross-entropy per token, in nats.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// `exp` of the loss.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Score) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }
}

/// Logits held at once, in numbers: bounds the memory of a pass.
const MOST_LOGITS: usize = 1 << 23;
const IGNORE: u32 = u32::MAX;

/// A stretch of one document for one forward pass.
struct Window {
    document: usize,
    start: usize,
    len: usize,
    /// How many of the last targets count; those before were counted by the window before.
    counted: usize,
}

/// How far a model's predictions lie from another's: the Kullback-Leibler divergence D(other ‖ model) at every token.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    /// Of each token, in nats, in no order.
    pub nats: Vec<f32>,
    /// Tokens at which both find the same one likeliest.
    pub same_top: u64,
}

impl Divergence {
    /// Mean per token, in nats.
    pub fn mean(&self) -> f64 {
        self.nats.iter().map(|&x| f64::from(x)).sum::<f64>() / self.nats.len().max(1) as f64
    }

    /// What the given share (0 to 1) of all tokens stays at or below, in nats.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.nats.clone();
        sorted.sort_by(f32::total_cmp);
        let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(at).map_or(0.0, |&x| f64::from(x))
    }

    /// The share of tokens at which both find the same one likeliest.
    pub fn agreement(&self) -> f64 {
        self.same_top as f64 / self.nats.len().max(1) as f64
    }

    /// Adds predictions `[n, vocab]` of both.
    fn add(&mut self, model: &Tensor, other: &Tensor) -> Result<()> {
        let (p, q) = (other.log_softmax(1)?, model.log_softmax(1)?);
        let nats = p.exp()?.mul(&p.sub(&q)?)?.sum(&[1], false)?;
        // Where the two are equal, rounding leaves something on either side of 0.
        self.nats.extend(nats.to_vec::<f32>()?.into_iter().map(|x| x.max(0.0)));
        let (a, b) = (model.argmax(1)?.to_vec::<u32>()?, other.argmax(1)?.to_vec::<u32>()?);
        self.same_top += a.iter().zip(&b).filter(|(a, b)| a == b).count() as u64;
        Ok(())
    }
}

/// A model and how it is to be measured.
#[derive(Clone, Debug)]
pub struct Evaluation<'a> {
    model: &'a Model,
    bos: u32,
    window: usize,
    stride: usize,
    against: Option<&'a Model>,
}

impl<'a> Evaluation<'a> {
    /// Measures `model`; the first token of each text is predicted from `bos`. Attention sees at most `window` tokens (and
    /// at most the model's context), and its window moves by half of that.
    pub fn new(model: &'a Model, bos: u32, window: usize) -> Self {
        let window = window.min(model.config().context()).max(2);
        Evaluation { model, bos, window, stride: window / 2, against: None }
    }

    /// Moves the window by `stride` tokens: smaller ones give each token more context.
    ///
    /// # Errors
    /// It is 0 or longer than the window, so that tokens would be left out.
    pub fn stride(mut self, stride: usize) -> Result<Self> {
        if stride == 0 || stride > self.window {
            let problem = format!("{stride} is not 1 to {}, the length of the window", self.window);
            return Err(Error::Option { name: "stride", problem });
        }
        self.stride = stride;
        Ok(self)
    }

    /// Runs `other` over the same tokens.
    ///
    /// # Errors
    /// Its vocabulary has another size.
    pub fn against(mut self, other: &'a Model) -> Result<Self> {
        let sizes = [self.model, other].map(|m| m.config().vocab());
        if sizes[0] != sizes[1] {
            let [own, other] = sizes;
            let problem = format!("it predicts {other} tokens and the model {own}; they need one vocabulary");
            return Err(Error::Option { name: "kl-against", problem });
        }
        self.against = Some(other);
        Ok(self)
    }

    /// Scores each document alone, and says how far the models lie apart (empty with one model). `done` hears how many
    /// tokens have been predicted, now and then.
    ///
    /// # Errors
    /// A token id is outside the vocabulary, or an operation fails.
    pub fn run(&self, documents: &[Document], done: &mut dyn FnMut(u64)) -> Result<(Vec<Score>, Divergence)> {
        let mut scores: Vec<Score> =
            documents.iter().map(|d| Score { nats: 0.0, tokens: d.tokens.len() as u64, bytes: d.bytes }).collect();
        let mut divergence = Divergence::default();
        let models = [Some(self.model), self.against];
        let vocab = self.model.config().vocab().max(1);
        let mut predicted = 0;
        if models.iter().flatten().any(|m| m.config().has_attention()) {
            let mut windows: Vec<Window> = documents
                .iter()
                .enumerate()
                .flat_map(|(i, d)| {
                    windows(d.tokens.len(), self.window, self.stride).map(move |(start, len, counted)| Window {
                        document: i,
                        start,
                        len,
                        counted,
                    })
                })
                .collect();
            // Windows of one length go through the model together; the order within a length stays, and with it the sums.
            windows.sort_by_key(|w| std::cmp::Reverse(w.len));
            let most = (MOST_LOGITS / (self.window * vocab)).clamp(1, 16);
            for group in windows.chunk_by(|a, b| a.len == b.len).flat_map(|same| same.chunks(most)) {
                let logits = |model| self.window_logits(model, documents, group);
                let (own, other) = (logits(self.model)?, self.against.map(logits).transpose()?);
                for (row, w) in group.iter().enumerate() {
                    let tokens = &documents[w.document].tokens[w.start + w.len - w.counted..w.start + w.len];
                    let part = |l: &Tensor| l.narrow(0, row, 1)?.squeeze(0)?.narrow(0, w.len - w.counted, w.counted);
                    let own = part(&own)?;
                    scores[w.document].nats += nats(&own, tokens)?;
                    if let Some(other) = &other {
                        divergence.add(&own, &part(other)?)?;
                    }
                    predicted += w.counted as u64;
                }
                done(predicted);
            }
        } else {
            let chunk = (MOST_LOGITS / vocab).clamp(16, 512);
            for (score, document) in scores.iter_mut().zip(documents) {
                let mut states = Vec::new();
                for model in models.iter().flatten() {
                    states.push(model.state(1)?);
                }
                for start in (0..document.tokens.len()).step_by(chunk) {
                    let end = (start + chunk).min(document.tokens.len());
                    let ids: Vec<u32> = (start..end).map(|i| self.input(&document.tokens, i)).collect();
                    let ids = Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu)?;
                    let mut logits = Vec::new();
                    for (model, state) in models.iter().flatten().zip(&mut states) {
                        logits.push(no_grad(|| model.forward(&ids, Some(state), Rows::All))?.squeeze(0)?);
                    }
                    score.nats += nats(&logits[0], &document.tokens[start..end])?;
                    if let Some(other) = logits.get(1) {
                        divergence.add(&logits[0], other)?;
                    }
                    predicted += (end - start) as u64;
                    done(predicted);
                }
            }
        }
        Ok((scores, divergence))
    }

    /// The input before target `i` of a document.
    fn input(&self, tokens: &[u32], i: usize) -> u32 {
        if i == 0 { self.bos } else { tokens[i - 1] }
    }

    /// Logits `[windows, len, vocab]` of windows of one length.
    fn window_logits(&self, model: &Model, documents: &[Document], group: &[Window]) -> Result<Tensor> {
        let len = group[0].len;
        let mut ids = Vec::with_capacity(group.len() * len);
        for w in group {
            ids.extend((w.start..w.start + len).map(|i| self.input(&documents[w.document].tokens, i)));
        }
        let ids = Tensor::from_slice(&ids, (group.len(), len), &Device::Cpu)?;
        // Through a state, so that keys and values have the format in which the model generates.
        Ok(no_grad(|| model.forward(&ids, Some(&mut model.state(group.len())?), Rows::All))?)
    }
}

/// Start, length and counted targets of the windows over `n` tokens, each `stride` tokens after the one before.
fn windows(n: usize, window: usize, stride: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut counted = 0;
    std::iter::from_fn(move || {
        if counted >= n {
            return None;
        }
        let end = if counted == 0 { window.min(n) } else { (counted + stride).min(n) };
        let len = window.min(end);
        let item = (end - len, len, end - counted);
        counted = end;
        Some(item)
    })
}

fn nats(logits: &Tensor, targets: &[u32]) -> Result<f64> {
    let targets_tensor = Tensor::from_slice(targets, targets.len(), &Device::Cpu)?;
    let mean = logits.contiguous()?.cross_entropy(&targets_tensor, Some(IGNORE))?;
    Ok(f64::from(mean.to_scalar::<f32>()?) * targets.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_every_token_once_with_the_rest_of_a_window_before() {
        for (n, stride) in (0..60).flat_map(|n| [1, 3, 4, 8].map(|stride| (n, stride))) {
            let mut next = 0;
            for (start, len, counted) in windows(n, 8, stride) {
                assert!(len <= 8 && counted <= len);
                assert_eq!(start + len - counted, next);
                assert!(start == 0 || len - counted >= 8 - stride, "{n}, {stride}: {start} {len} {counted}");
                next = start + len;
            }
            assert_eq!(next, n);
        }
    }

    #[test]
    fn divergence_of_known_distributions() {
        let logits = |p: [f32; 4]| Tensor::from_slice(&p.map(f32::ln), (2, 2), &Device::Cpu).unwrap();
        let mut d = Divergence::default();
        d.add(&logits([0.5, 0.5, 0.9, 0.1]), &logits([0.75, 0.25, 0.2, 0.8])).unwrap();
        let first = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let second = 0.2 * (0.2f64 / 0.9).ln() + 0.8 * 8f64.ln();
        assert!((d.mean() - (first + second) / 2.0).abs() < 1e-6, "{d:?}");
        assert!((d.quantile(0.0) - first).abs() < 1e-6 && (d.quantile(1.0) - second).abs() < 1e-6);
        assert_eq!(d.agreement(), 0.5);
    }
}
