//! Checkpoints: everything a run needs to continue as if it had never stopped, in one safetensors file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imaginal_files::safetensors::{Dtype, SafeTensors, SafeTensorsWriter, TensorSpec};
use imaginal_files::{Bytes, OpenOptions};
use imaginal_tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::pack::Position;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// The best measurement so far.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step it was measured after.
    pub step: u64,
    /// Held-out bits per byte.
    #[serde(with = "exact")]
    pub bits_per_byte: f64,
}

/// A number as the text that `std` reads back to the last bit; a JSON parser may not.
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(x)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// Where a run stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// Where the next sequence comes from.
    pub position: Position,
    /// The best measurement so far.
    pub best: Option<Best>,
}

const PROGRESS: &str = "progress";
const PARTS: [&str; 3] = ["weight", "first_moment", "second_moment"];

/// The checkpoints of a run: a directory of files named by step.
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: PathBuf) -> Result<Checkpoints> {
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(Checkpoints { folder })
    }

    /// The file of a step.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}.safetensors"))
    }

    /// The steps that there are checkpoints of, in order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))? {
            let entry = entry.map_err(Error::io("read", &self.folder))?;
            if !entry.file_type().is_ok_and(|t| t.is_file()) {
                continue;
            }
            let name = entry.file_name();
            let step: Option<u64> =
                name.to_str().and_then(|n| n.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Writes the run's state; then removes all checkpoints but the last two and the best.
    ///
    /// # Errors
    /// The disk is full: earlier checkpoints are then untouched.
    pub fn save(&self, trainer: &Trainer, progress: &Progress) -> Result<()> {
        let mut specs = Vec::new();
        for p in trainer.params() {
            for part in PARTS {
                let (name, shape) = (format!("{part}.{}", p.name), p.first.shape().to_vec());
                specs.push(TensorSpec { name, shape, dtype: Dtype::F32 });
            }
        }
        let text = serde_json::to_string(progress).map_err(|e| Error::io("write", &self.folder)(e.into()))?;
        let metadata = BTreeMap::from([(PROGRESS.to_owned(), text)]);
        let mut writer = SafeTensorsWriter::create(self.path(progress.step), &metadata, &specs)?;
        for p in trainer.params() {
            for tensor in [&p.param.get(), &p.first, &p.second] {
                let tensor = tensor.detach().contiguous()?;
                writer.append(bytemuck::cast_slice(tensor.as_slice::<f32>()?))?;
            }
        }
        writer.finish()?;
        self.tidy(progress)
    }

    fn tidy(&self, progress: &Progress) -> Result<()> {
        let best = progress.best.map(|b| b.step);
        let steps = self.steps()?;
        let last = &steps[steps.len().saturating_sub(2)..];
        for &step in steps.iter().filter(|s| !last.contains(s) && Some(**s) != best) {
            let path = self.path(step);
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Puts the state of the last checkpoint into the trainer; `None` if there is none.
    ///
    /// # Errors
    /// The checkpoint cannot be read, or is of another model.
    pub fn load_last(&self, trainer: &mut Trainer) -> Result<Option<Progress>> {
        let Some(step) = self.steps()?.pop() else { return Ok(None) };
        let path = self.path(step);
        load(&path, trainer).map(Some)
    }
}

fn load(path: &Path, trainer: &mut Trainer) -> Result<Progress> {
    let wrong = |problem: String| {
        Error::run_dir(path, format!("{problem}; delete this checkpoint to continue from the one before"))
    };
    let file = SafeTensors::open(path, OpenOptions::default())?;
    let text = file.metadata().get(PROGRESS).ok_or_else(|| wrong("not a checkpoint of a training run".into()))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| wrong(format!("{PROGRESS}: {e}")))?;
    for p in trainer.params_mut() {
        let shape = p.first.shape().to_vec();
        let read = |part: &str| -> Result<Tensor> {
            let info = file.tensor(&format!("{part}.{}", p.name))?;
            if info.shape != shape || info.dtype != Dtype::F32 {
                return Err(wrong(format!("{} has shape {:?}, the model has {shape:?}", info.name, info.shape)));
            }
            owned(&info.bytes, &info.shape)
        };
        p.param.set(read(PARTS[0])?);
        p.first = read(PARTS[1])?;
        p.second = read(PARTS[2])?;
    }
    Ok(progress)
}

/// A tensor of its own, which the optimizer can change in place.
fn owned(bytes: &Bytes, shape: &[usize]) -> Result<Tensor> {
    let values: Vec<f32> =
        bytes.chunks_exact(DType::F32.size()).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Tensor::from_vec(values, shape, &imaginal_tensor::Device::Cpu)?)
}
