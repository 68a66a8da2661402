//! What a run reports as it goes: one line of JSON per step in metrics.jsonl.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One line of metrics.jsonl: a step of the optimizer, a measurement on the held-out files, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Steps taken, counted from one. Zero: before training.
    pub step: u64,
    /// Training tokens seen so far.
    pub tokens: u64,
    /// Mean cross-entropy of the step's tokens, in nats, before its update.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// Learning rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lr: Option<f64>,
    /// Norm of the whole gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grad_norm: Option<f64>,
    /// Speed of this step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_per_second: Option<f64>,
    /// Mean cross-entropy of the held-out tokens, in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_loss: Option<f64>,
    /// Bits the model needs per byte of held-out text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_bits_per_byte: Option<f64>,
}

/// The file metrics.jsonl of a run, and what stands in it.
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Every line so far.
    pub lines: Vec<Metric>,
}

impl Metrics {
    /// Opens the file and drops what goes beyond `step`: a run that was killed may have written lines after its last
    /// checkpoint, and will write them again.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line before `step` is not what [`Metrics::push`] writes.
    pub fn open(path: &Path, step: u64) -> Result<Metrics> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        let mut lines = Vec::new();
        let mut kept = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // The last line may be half written.
            if !line.ends_with('\n') {
                break;
            }
            let metric: Metric = serde_json::from_str(line)
                .map_err(|e| Error::run_dir(path, format!("line {}: {e}; delete the line", number + 1)))?;
            if metric.step > step {
                break;
            }
            lines.push(metric);
            kept += line.len();
        }
        imaginal_files::write_atomic(path, &text.as_bytes()[..kept])?;
        let file = File::options().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Metrics { path: path.to_path_buf(), file, lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, metric: Metric) -> Result<()> {
        let mut line = serde_json::to_vec(&metric).map_err(|e| Error::io("write", &self.path)(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))?;
        self.lines.push(metric);
        Ok(())
    }

    /// Brings all lines to the disk.
    ///
    /// # Errors
    /// The disk is full.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(step: u64) -> Metric {
        Metric {
            step,
            tokens: step * 10,
            loss: Some(1.0 / (step + 1) as f64),
            lr: None,
            grad_norm: Some(0.1),
            tokens_per_second: None,
            held_out_loss: None,
            held_out_bits_per_byte: Some(0.3),
        }
    }

    #[test]
    fn drops_what_lies_after_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        (0..10).for_each(|step| metrics.push(metric(step)).unwrap());
        let before = std::fs::read_to_string(&path).unwrap();
        // Killed in the middle of a line.
        std::fs::write(&path, format!("{before}{{\"step\":10,\"tok")).unwrap();
        let mut metrics = Metrics::open(&path, 6).unwrap();
        assert_eq!(metrics.lines, (0..=6).map(metric).collect::<Vec<_>>());
        (7..10).for_each(|step| metrics.push(metric(step)).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert_eq!(Metrics::open(&path, 100).unwrap().lines.len(), 10);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1,\"tokens\":5}\nnonsense\n").unwrap();
        let error = Metrics::open(&path, 9).err().unwrap().to_string();
        assert!(error.contains("line 2") && error.contains("metrics.jsonl"), "{error}");
    }
}
