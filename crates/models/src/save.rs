use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use imaginal_files::gguf::{TensorSpec as FileTensor, Value};
use imaginal_files::{GgufWriter, Tokenizer};
use imaginal_nn::{Module, Param, Slot, Weight};
use imaginal_numeric::Format;
use imaginal_tensor::{Device, Tensor, no_grad};

use crate::blocks::BlockConfig;
use crate::morph::RECIPES;
use crate::tensors::{Map, TensorSpec, What, row_order};
use crate::{Error, Model, Result};

/// How a model is written into a GGUF file.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// The format of the matrices. A matrix whose rows are not whole blocks of it is written as f16, and embedding and
    /// head at no less than 8 bits, for their errors reach every token. All other tensors are f32.
    pub format: Format,
    /// Metadata besides the model's and the tokenizer's: `general.license`, `general.description`, …
    pub metadata: Vec<(String, Value)>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions { format: Format::F32, metadata: Vec::new() }
    }
}

type Metadata = Vec<(String, Value)>;

enum Held {
    Weight(Weight),
    Param(Param),
}

/// A tensor to be written: its entry in the file and where its values come from.
struct Planned {
    entry: FileTensor,
    values: Values,
}

enum Values {
    /// Parameters one after another: usually one.
    Model(Vec<TensorSpec>),
    /// Zeros, if there are none.
    Extra(Option<Vec<f32>>),
}

impl Model {
    /// Writes the model as GGUF, as llama.cpp and transformers read it; the file appears when it is complete.
    ///
    /// # Errors
    /// [`Error::Argument`] if the format has no place for something, or an error of the file.
    pub fn save_gguf(
        &self,
        path: impl AsRef<Path>,
        tokenizer: Option<&Tokenizer>,
        options: &SaveOptions,
    ) -> Result<()> {
        let (metadata, plan) = self.plan(tokenizer, options)?;
        let entries: Vec<FileTensor> = plan.iter().map(|p| p.entry.clone()).collect();
        let mut writer = GgufWriter::create(path, &metadata, &entries)?;
        self.write(&plan, &mut writer)?;
        Ok(writer.finish()?)
    }

    /// The same file as bytes.
    ///
    /// # Errors
    /// As [`Model::save_gguf`].
    pub fn to_gguf(&self, tokenizer: Option<&Tokenizer>, options: &SaveOptions) -> Result<Vec<u8>> {
        let (metadata, plan) = self.plan(tokenizer, options)?;
        let entries: Vec<FileTensor> = plan.iter().map(|p| p.entry.clone()).collect();
        let mut writer = GgufWriter::to_memory("memory", &metadata, &entries)?;
        self.write(&plan, &mut writer)?;
        Ok(writer.into_memory()?)
    }

    fn plan(&self, tokenizer: Option<&Tokenizer>, options: &SaveOptions) -> Result<(Metadata, Vec<Planned>)> {
        let config = self.config();
        let mut metadata = config.to_gguf()?;
        let file_type = RECIPES.iter().filter(|r| r.base == options.format).find_map(|r| r.file_type);
        let Some(file_type) = file_type else {
            return Err(Error::Argument(format!("models are not written in {}", options.format)));
        };
        metadata.push(("general.file_type".into(), file_type.into()));
        if options.format.block_len() > 1 {
            metadata.push(("general.quantization_version".into(), 2u32.into()));
        }
        match tokenizer {
            Some(tokenizer) => metadata.extend(padded(tokenizer.to_gguf_metadata()?, config.vocab())),
            None => metadata.push(("tokenizer.ggml.model".into(), "no_vocab".into())),
        }
        metadata.retain(|(key, _)| options.metadata.iter().all(|(k, _)| k != key));
        metadata.extend(options.metadata.iter().cloned());

        let mut plan: Vec<Planned> = Vec::new();
        for spec in config.tensors() {
            let Some(stored) = spec.gguf.first().cloned() else {
                return Err(Error::Argument(format!("{}: this tensor has no place in a GGUF file", spec.name)));
            };
            if let Some(planned) = plan.iter_mut().find(|p| p.entry.name == stored.name)
                && let Values::Model(specs) = &mut planned.values
            {
                specs.push(spec);
                continue;
            }
            let format = if spec.matrix { matrix_format(&spec, options.format) } else { Format::F32 };
            let entry = FileTensor { name: stored.name, shape: stored.shape, format };
            plan.push(Planned { entry, values: Values::Model(vec![spec]) });
        }
        for planned in &mut plan {
            if let Values::Model(specs) = &mut planned.values {
                in_order(specs, &planned.entry)?;
            }
        }
        for extra in config.gguf_extras() {
            let entry = FileTensor { name: extra.name, shape: extra.shape, format: Format::F32 };
            plan.push(Planned { entry, values: Values::Extra(extra.values) });
        }
        Ok((metadata, plan))
    }

    fn write<W: Write>(&self, plan: &[Planned], writer: &mut GgufWriter<W>) -> Result<()> {
        let mut held = HashMap::new();
        self.slots("", &mut |name, slot| {
            let value = match slot {
                Slot::Weight(w) => Held::Weight(w.clone()),
                Slot::Param(p) => Held::Param(p.clone()),
            };
            held.insert(name, value);
        });
        for Planned { entry, values } in plan {
            let bytes = match values {
                Values::Extra(Some(values)) => f32_bytes(values),
                Values::Extra(None) => vec![0; 4 * entry.shape.iter().product::<usize>()],
                Values::Model(specs) => {
                    let mut bytes = Vec::new();
                    for spec in specs {
                        let value = held.get(&spec.name).ok_or_else(|| {
                            Error::Argument(format!("{}: the model has no such parameter", spec.name))
                        })?;
                        bytes.append(&mut no_grad(|| self.encode(spec, value, entry.format))?);
                    }
                    if let [spec] = &specs[..]
                        && let Some(What::Begin(rows)) = spec.gguf.first().map(|stored| stored.what)
                    {
                        let row = bytes[..bytes.len() / rows].to_vec();
                        (rows..entry.shape[0]).for_each(|_| bytes.extend_from_slice(&row));
                    }
                    bytes
                }
            };
            writer.tensor(&entry.name, &bytes)?;
        }
        Ok(())
    }

    fn encode(&self, spec: &TensorSpec, value: &Held, format: Format) -> Result<Vec<u8>> {
        let order = match spec.moved {
            Some(moved) => Some((moved.axis, moved.order().into_iter().map(|i| i as u32).collect())),
            None => spec.heads.and_then(|heads| self.file_order(spec, heads)).map(|order| (0, order)),
        };
        let tensor = match value {
            Held::Weight(w) if order.is_none() && format != Format::F32 => {
                return Ok(w.to_packed(format)?.bytes().to_vec());
            }
            Held::Weight(w) => w.to_f32()?,
            Held::Param(p) => p.get(),
        };
        let tensor = tensor.to_device(&Device::Cpu)?;
        let tensor = match spec.map {
            Map::Same => tensor,
            Map::NegExp => tensor.exp()?.neg()?,
            Map::LessOne => tensor.add_scalar(-1.0)?,
            Map::Times(factor) => tensor.mul_scalar(1.0 / factor)?,
        };
        let tensor = match order {
            Some((axis, order)) => {
                let order: Vec<u32> = order;
                tensor.index_select(axis, &Tensor::from_vec(order, spec.shape[axis], &Device::Cpu)?)?
            }
            None => tensor,
        };
        if format == Format::F32 {
            return Ok(f32_bytes(&tensor.to_vec::<f32>()?));
        }
        Ok(Weight::from_tensor(tensor)?.to_packed(format)?.bytes().to_vec())
    }

    /// How rows of queries and keys have to be reordered for the file.
    fn file_order(&self, spec: &TensorSpec, heads: usize) -> Option<Vec<u32>> {
        let native = self.config().clone().in_gguf_order();
        let style = |c: &crate::Config| {
            c.layers().iter().flatten().find_map(|b| match b {
                BlockConfig::Attention(c) => c.rope.as_ref().map(|rope| rope.style),
                _ => None,
            })
        };
        let order = row_order(spec.shape[0], heads, style(self.config())?, style(&native)?)?;
        Some(order.into_iter().map(|i| i as u32).collect())
    }
}

/// Puts the parameters of one tensor of a file in the order of their rows.
///
/// # Errors
/// They are not the whole of it, one after another.
fn in_order(specs: &mut [TensorSpec], entry: &FileTensor) -> Result<()> {
    let all = entry.shape.iter().rev().skip(usize::from(entry.shape.len() > 1)).product::<usize>();
    let rows = |spec: &TensorSpec| match spec.gguf.first().map(|stored| stored.what) {
        Some(What::Rows { first, len, count: 1, .. }) => Some(first..first + len),
        Some(What::Whole | What::Begin(_)) => Some(0..all),
        _ => None,
    };
    specs.sort_by_key(|spec| rows(spec).map_or(0, |rows| rows.start));
    let mut end = Some(0);
    for spec in specs.iter() {
        end = rows(spec).filter(|rows| Some(rows.start) == end && spec.gguf[0].arrange.is_none()).map(|rows| rows.end);
    }
    match end == Some(all) {
        true => Ok(()),
        false => Err(Error::Argument(format!("{}: the parts of this tensor are not all there", entry.name))),
    }
}

/// Tokens for the rows of an embedding that is larger than its tokenizer: readers take the vocabulary's size from the
/// list of tokens.
fn padded(mut metadata: Metadata, vocab: usize) -> Metadata {
    const UNUSED: i32 = 5;
    for (key, value) in &mut metadata {
        let Value::Array(_, values) = value else { continue };
        let pad: fn(usize) -> Value = match key.as_str() {
            "tokenizer.ggml.tokens" => |i| format!("[PAD{i}]").into(),
            "tokenizer.ggml.token_type" => |_| UNUSED.into(),
            "tokenizer.ggml.scores" => |_| (-1e4f32).into(),
            _ => continue,
        };
        values.extend((values.len()..vocab).map(pad));
    }
    metadata
}

fn matrix_format(spec: &TensorSpec, wanted: Format) -> Format {
    let cols = spec.shape.last().copied().unwrap_or(1);
    let outer = spec.name == "token_embd.weight" || spec.name == "output.weight";
    let narrow = wanted.block_bytes() < wanted.block_len();
    let wanted = if outer && narrow { Format::Q8_0 } else { wanted };
    if cols.is_multiple_of(wanted.block_len()) { wanted } else { Format::F16 }
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}
