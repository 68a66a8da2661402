//! Hidden states, vectors and scores that an independent implementation has of an encoder, and how far a model is from them.

use std::path::Path;

use imaginal_files::{OpenOptions, SafeTensors};
use imaginal_models::{HeadConfig, Model, Rows, Text};
use imaginal_tensor::no_grad;

/// What `tools/reference/tiny_models.py` writes beside an encoder.
pub struct Expected(SafeTensors);

impl Expected {
    pub fn open(dir: &Path) -> Expected {
        Expected(SafeTensors::open(dir.join("expected.safetensors"), OpenOptions::default()).unwrap())
    }

    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let bytes = &self.0.find(name)?.bytes;
        Some(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect())
    }

    fn ids(&self, name: &str) -> Option<Vec<u32>> {
        let bytes = &self.0.find(name)?.bytes;
        Some(bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect())
    }

    /// The one text.
    pub fn text(&self) -> Text {
        Text::new(self.ids("tokens").unwrap())
    }

    /// The texts of the batch, without what fills up the shorter ones, and for each place of the batch whether it is part
    /// of a text.
    pub fn batch(&self) -> Option<(Vec<Text>, Vec<bool>)> {
        let tokens = self.ids("batch_tokens")?;
        let width = *self.0.find("batch_tokens")?.shape.last().unwrap();
        let there: Vec<bool> = self.ids("batch_mask")?.iter().map(|&x| x != 0).collect();
        let texts = tokens
            .chunks(width)
            .zip(there.chunks(width))
            .map(|(tokens, there)| Text::new(tokens.iter().zip(there).filter(|t| *t.1).map(|t| *t.0).collect()));
        Some((texts.collect(), there))
    }

    /// The largest distance of each kind of result that is expected.
    pub fn differences(&self, model: &Model) -> Vec<(&'static str, f32)> {
        let hidden = model.config().hidden();
        let values = |x: imaginal_models::Result<imaginal_tensor::Tensor>| x.unwrap().to_vec::<f32>().unwrap();
        no_grad(|| {
            let mut all = Vec::new();
            if let Some(want) = self.floats("hidden") {
                all.push(("hidden", distance(&values(model.hidden(&[self.text()])), &want)));
            }
            if let Some((texts, there)) = self.batch() {
                if let Some(want) = self.floats("batch_hidden") {
                    let kept = want.chunks(hidden).zip(&there).filter(|(_, there)| **there);
                    let want: Vec<f32> = kept.flat_map(|(row, _)| row.to_vec()).collect();
                    all.push(("batch", distance(&values(model.hidden(&texts)), &want)));
                }
                if let Some(want) = self.floats("batch_embedding") {
                    all.push(("embedding", distance(&values(model.embed(&texts)), &want)));
                }
                if let Some(want) = self.floats("scores") {
                    all.push(("scores", distance(&values(model.scores(&texts)), &want)));
                }
            }
            if let (Some(want), HeadConfig::Masked(_)) = (self.floats("logits"), model.config().head()) {
                let ids = Model::ids(&self.text().tokens).unwrap();
                all.push(("logits", distance(&values(model.forward(&ids, None, Rows::All)), &want)));
            }
            all
        })
    }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let worst = |m: f32, (x, y): (&f32, &f32)| if x.is_nan() { f32::INFINITY } else { m.max((x - y).abs()) };
    a.iter().zip(b).fold(0.0, worst)
}
