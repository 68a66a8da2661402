//! How well a model knows a text: the bits it needs per byte.
//!
//! Every file is measured alone, its first token predicted from the beginning-of-text token, and every byte counts.
//! A model with attention reads a long file through a window that moves by half its length, so that every token but
//! the first ones is predicted from at least half a window; a recurrent model carries its state through the file.

use imaginal_models::{Model, ModelState, Rows};
use imaginal_tensor::{Device, Tensor, no_grad};

use crate::Result;

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

/// Scores each document alone. `window` is the most tokens that attention sees (at most the model's context); `done`
/// hears how many tokens have been predicted, now and then.
///
/// # Errors
/// A token id is outside the vocabulary, or an operation fails.
pub fn evaluate(
    model: &Model,
    bos: u32,
    documents: &[Document],
    window: usize,
    done: &mut dyn FnMut(u64),
) -> Result<Vec<Score>> {
    let mut scores: Vec<Score> =
        documents.iter().map(|d| Score { nats: 0.0, tokens: d.tokens.len() as u64, bytes: d.bytes }).collect();
    let vocab = model.config().vocab().max(1);
    let mut predicted = 0;
    if model.config().has_attention() {
        let window = window.min(model.config().context()).max(2);
        let mut windows: Vec<Window> = documents
            .iter()
            .enumerate()
            .flat_map(|(i, d)| {
                windows(d.tokens.len(), window).map(move |(start, len, counted)| Window {
                    document: i,
                    start,
                    len,
                    counted,
                })
            })
            .collect();
        // Windows of one length go through the model together; the order within a length stays, and with it the sums.
        windows.sort_by_key(|w| std::cmp::Reverse(w.len));
        let most = (MOST_LOGITS / (window * vocab)).clamp(1, 16);
        for group in windows.chunk_by(|a, b| a.len == b.len).flat_map(|same| same.chunks(most)) {
            for (w, nats) in group.iter().zip(score_windows(model, bos, documents, group)?) {
                scores[w.document].nats += nats;
                predicted += w.counted as u64;
            }
            done(predicted);
        }
    } else {
        let chunk = (MOST_LOGITS / vocab).clamp(16, 512);
        for (score, document) in scores.iter_mut().zip(documents) {
            let mut state = model.state(1)?;
            for start in (0..document.tokens.len()).step_by(chunk) {
                let end = (start + chunk).min(document.tokens.len());
                score.nats += score_chunk(model, bos, &document.tokens, start, end, &mut state)?;
                predicted += (end - start) as u64;
                done(predicted);
            }
        }
    }
    Ok(scores)
}

/// Start, length and counted targets of the windows over `n` tokens.
fn windows(n: usize, window: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let stride = window / 2;
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

/// The input before target `i` of a document.
fn input(bos: u32, tokens: &[u32], i: usize) -> u32 {
    if i == 0 { bos } else { tokens[i - 1] }
}

fn score_windows(model: &Model, bos: u32, documents: &[Document], group: &[Window]) -> Result<Vec<f64>> {
    let len = group[0].len;
    let mut ids = Vec::with_capacity(group.len() * len);
    for w in group {
        let tokens = &documents[w.document].tokens;
        ids.extend((w.start..w.start + len).map(|i| input(bos, tokens, i)));
    }
    no_grad(|| {
        let ids = Tensor::from_slice(&ids, (group.len(), len), &Device::Cpu)?;
        // Through a state, so that keys and values have the format in which the model generates.
        let logits = model.forward(&ids, Some(&mut model.state(group.len())?), Rows::All)?;
        group
            .iter()
            .enumerate()
            .map(|(row, w)| {
                let tokens = &documents[w.document].tokens[w.start..w.start + len];
                let logits = logits.narrow(0, row, 1)?.squeeze(0)?.narrow(0, len - w.counted, w.counted)?;
                nats(&logits, &tokens[len - w.counted..])
            })
            .collect()
    })
}

fn score_chunk(
    model: &Model,
    bos: u32,
    tokens: &[u32],
    start: usize,
    end: usize,
    state: &mut ModelState,
) -> Result<f64> {
    let ids: Vec<u32> = (start..end).map(|i| input(bos, tokens, i)).collect();
    no_grad(|| {
        let ids = Tensor::from_slice(&ids, (1, ids.len()), &Device::Cpu)?;
        let logits = model.forward(&ids, Some(state), Rows::All)?;
        nats(&logits.squeeze(0)?, &tokens[start..end])
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
    fn windows_count_every_token_once_with_at_least_half_a_window_before() {
        for n in 0..60 {
            let mut next = 0;
            for (start, len, counted) in windows(n, 8) {
                assert!(len <= 8 && counted <= len);
                assert_eq!(start + len - counted, next);
                assert!(start == 0 || len - counted >= 4, "{n}: {start} {len} {counted}");
                next = start + len;
            }
            assert_eq!(next, n);
        }
    }
}
