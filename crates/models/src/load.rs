use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use imaginal_files::{Gguf, Json, OpenOptions, SafeTensors, Tokenizer};
use imaginal_nn::{Init, Param, Source, Weight};
use imaginal_numeric::Format;
use imaginal_numeric::half::f8_e4m3_to_f32;
use imaginal_tensor::{Bytes, DType, Device, Error as TensorError, Packed, Tensor};

use crate::arch::Outside;
use crate::blocks::Tensors;
use crate::pooling::Pooling;
use crate::tensors::{Arrange, Map, Piece, Stored, TensorSpec};
use crate::{Config, Error, Model, Problem, Result, recognise};

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How its files are opened.
    pub open: OpenOptions,
    /// Where it shall run. On the CPU weights stay where and as they are in the file; another device gets a
    /// copy in the file's format, `f64` as `f32`.
    pub device: Device,
}

/// A model and what came with it.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Its tokenizer; `None` if the file has none (`no_vocab`, or a directory without one).
    pub tokenizer: Option<Tokenizer>,
    /// What the user should know of how it was loaded, in whole sentences.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Loads a GGUF file (of a split one, the first part) or a Hugging Face directory: `config.json`, weights as
    /// safetensors, and a tokenizer if there is one.
    ///
    /// Everything is checked before anything is allocated: the configuration, then the names, shapes and formats of all
    /// tensors, then the tokenizer.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file and field.
    pub fn open(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Loaded> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Loaded::from_gguf(&Gguf::open(path, options.open)?, &options.device);
        }
        if !path.join("config.json").is_file() {
            let what = "a directory without a config.json; name a GGUF file or a Hugging Face directory".to_owned();
            return Err(Error::NotAModel { path: path.to_path_buf(), what });
        }
        let json = Json::open(path.join("config.json"))?;
        // What is wrong with the configuration is told first.
        let weights = SafeTensors::open_dir(path, options.open);
        let shape = |name: &str| {
            let all = weights.as_ref().ok()?.tensors();
            all.iter().find(|t| t.name == name).map(|t| t.shape.clone())
        };
        let (config, weights) =
            match Config::from_hf_beside(json.root(), json.path(), Tensors { shape: &shape, values: None }) {
                Err(Error::Architecture { name, .. }) => {
                    let weights = weights?;
                    (recognise::from_hf(json.root(), json.path(), &weights, &name)?, weights)
                }
                config => (config?, weights?),
            };
        let config = config.with_pooling(Pooling::from_dir(path)?);
        let tokenizer = Tokenizer::in_directory(path)?;
        Loaded::from_safetensors(config, &weights, tokenizer, &options.device)
    }

    /// Loads a model from the bytes of a GGUF file; `name` stands for the path in errors. For the browser.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn from_gguf_bytes(name: &str, bytes: impl Into<imaginal_files::Bytes>, device: &Device) -> Result<Loaded> {
        Loaded::from_gguf(&Gguf::from_bytes(name, bytes)?, device)
    }

    /// Loads a model from an open GGUF file.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn from_gguf(gguf: &Gguf, device: &Device) -> Result<Loaded> {
        let config = Config::from_gguf(gguf)?;
        let found = gguf.tensors().iter().map(|t| Found {
            name: &t.name,
            shape: &t.shape,
            format: Some(t.format),
            kind: t.format.name(),
            bytes: &t.bytes,
        });
        let specs = config.tensors();
        let extras: Vec<String> = config.gguf_extras().into_iter().map(|extra| extra.name).collect();
        let extra = |name: &str| extras.iter().any(|e| e == name) || config.is_predictor("blk", name);
        let tensors = Matched::new(gguf.path(), &specs, found, |s| (s.gguf.clone(), s.map), None, extra)?;
        let none = match gguf.metadata().get_as::<String>("tokenizer.ggml.model")? {
            Some(kind) => kind == "no_vocab" || kind == "none",
            None => true,
        };
        let tokenizer = if none { None } else { Some(Tokenizer::from_gguf(gguf)?) };
        check_tokenizer(gguf.path(), &config, tokenizer.as_ref())?;
        let notes = tensors.notes.clone();
        let model = tensors.build(config, device)?;
        Ok(Loaded { model, tokenizer, notes })
    }

    /// Loads a model from open safetensors.
    ///
    /// # Errors
    /// As [`Loaded::open`].
    pub fn from_safetensors(
        config: Config,
        weights: &SafeTensors,
        tokenizer: Option<Tokenizer>,
        device: &Device,
    ) -> Result<Loaded> {
        let outside = &config.arch().outside;
        let name = known_names(outside, weights.tensors().iter().map(|t| t.name.as_str()));
        let names: Vec<String> = weights.tensors().iter().map(|t| name(&t.name)).collect();
        // A head that the file has is used, whatever the configuration says, unless it is the embedding once more.
        let stored = |among: &[&str]| {
            let at = names.iter().position(|name| among.contains(&name.as_str()))?;
            weights.tensors().get(at).map(|t| &t.bytes[..])
        };
        let own = stored(outside.head).filter(|&head| stored(outside.embedding).is_some_and(|table| table != head));
        let config = if own.is_some() { config.untied() } else { config };
        let found = weights.tensors().iter().zip(&names).map(|(t, name)| Found {
            name,
            shape: &t.shape,
            format: t.dtype.format(),
            kind: t.dtype.name(),
            bytes: &t.bytes,
        });
        let specs = config.tensors();
        let extra = |name: &str| superfluous_in_safetensors(&config, name);
        let ways = |s: &TensorSpec| (s.hf.clone(), s.hf_map);
        let tensors = Matched::new(weights.path(), &specs, found, ways, config.fp8_blocks(), extra)?;
        check_tokenizer(weights.path(), &config, tokenizer.as_ref())?;
        let notes = tensors.notes.clone();
        let model = tensors.build(config, device)?;
        Ok(Loaded { model, tokenizer, notes })
    }
}

/// Beginnings of the names of tensors that belong to the other towers of a model with several, or to what predicts further tokens.
const FOREIGN: &[&str] = &[
    "vision_tower.",
    "multi_modal_projector.",
    "visual.",
    "vision_model.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "mtp.",
];

/// Whether a tensor that the configuration does not have does no harm. Old checkpoints hold tables that are computed, and
/// some hold the head of a tied model a second time.
pub(crate) fn superfluous_in_safetensors(config: &Config, name: &str) -> bool {
    let outside = &config.arch().outside;
    outside.ignored.iter().any(|end| name.ends_with(end))
        || FOREIGN.iter().any(|start| name.starts_with(start))
        || name.ends_with(".rotary_emb.inv_freq")
        || (config.tied() && outside.head.contains(&name))
        || config.is_predictor(outside.layers, name)
        || config.is_unused(name)
}

/// From the names of a checkpoint to those of the table, which differ in what comes before: `transformer.` is missing in
/// old checkpoints of GPT-2, `language_model.` is too much in those with other towers. Found out by the embedding.
pub(crate) fn known_names<'a>(
    outside: &'a Outside,
    names: impl Iterator<Item = &'a str>,
) -> Box<dyn Fn(&str) -> String + 'a> {
    let (mut more, mut less) = (String::new(), String::new());
    for name in names {
        let name = inner_name(name);
        if outside.embedding.contains(&name.as_str()) {
            (more, less) = Default::default();
            break;
        }
        for known in outside.embedding {
            if let Some(before) = name.strip_suffix(known).filter(|before| before.ends_with('.')) {
                more = before.to_owned();
            }
            if let Some(before) = known.strip_suffix(&name).filter(|before| before.ends_with('.')) {
                less = before.to_owned();
            }
        }
    }
    Box::new(move |name| {
        let mut name = inner_name(name);
        for part in outside.left_out {
            name = name.replace(&format!(".{part}."), ".");
        }
        match name.strip_prefix(more.as_str()) {
            Some(rest) if outside.head.contains(&rest) => rest.to_owned(),
            Some(rest) => format!("{less}{rest}"),
            None => name,
        }
    })
}

/// `model.language_model.norm` is what checkpoints without other towers call `model.norm`.
fn inner_name(name: &str) -> String {
    // What the first checkpoints of BERT call weights and biases of norms.
    if let Some(norm) = name.strip_suffix("LayerNorm.gamma") {
        return inner_name(&format!("{norm}LayerNorm.weight"));
    }
    if let Some(norm) = name.strip_suffix("LayerNorm.beta") {
        return inner_name(&format!("{norm}LayerNorm.bias"));
    }
    match name.strip_prefix("model.language_model.") {
        Some(rest) => format!("model.{rest}"),
        None => {
            name.strip_prefix("model.").filter(|n| FOREIGN.iter().any(|f| n.starts_with(f))).unwrap_or(name).to_owned()
        }
    }
}

fn check_tokenizer(path: &Path, config: &Config, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let Some(tokenizer) = tokenizer else { return Ok(()) };
    if tokenizer.vocab_size() <= config.vocab() {
        return Ok(());
    }
    let what = format!("{} tokens, but the model has only {}", tokenizer.vocab_size(), config.vocab());
    let problem = Problem { field: "tokenizer".into(), what };
    Err(Error::Config { path: path.to_path_buf(), problems: vec![problem] })
}

/// A tensor of a file.
struct Found<'a> {
    name: &'a str,
    shape: &'a [usize],
    /// `None` if the engine has no format for it.
    format: Option<Format>,
    kind: &'a str,
    bytes: &'a imaginal_files::Bytes,
}

impl Found<'_> {
    /// The format and the bytes of a piece of this tensor, or what is wrong with it.
    fn piece(&self, piece: &Piece) -> std::result::Result<(Format, Bytes), String> {
        self.check(piece)?;
        if piece.bytes {
            let all = Bytes::new(self.bytes.owner(), self.bytes.range()).map_err(|e| e.to_string());
            return if self.kind == BYTES {
                Ok((Format::MXFP4, all?))
            } else {
                Err(format!("{} is no {BYTES}", self.kind))
            };
        }
        let weights = |f: &Format| !matches!(*f, Format::I8 | Format::I16 | Format::I32 | Format::I64);
        let format = self.format.filter(weights).ok_or_else(|| format!("{} is no format for weights", self.kind))?;
        Ok((format, self.rows(piece, |cols| format.bytes_for(cols), format.name())?))
    }

    fn check(&self, piece: &Piece) -> std::result::Result<(), String> {
        if self.shape == piece.shape {
            return Ok(());
        }
        Err(format!("its shape is {:?}, not the {:?} of the configuration", self.shape, piece.shape))
    }

    /// The bytes of the rows of a piece, given those of a row.
    fn rows(
        &self,
        piece: &Piece,
        bytes_for: impl Fn(usize) -> Option<usize>,
        format: &str,
    ) -> std::result::Result<Bytes, String> {
        let cols = self.shape.last().copied().unwrap_or(0);
        // Of a vector the rows are its elements.
        let cols = if self.shape.len() == 1 && piece.rows.is_some() { 1 } else { cols };
        let row = bytes_for(cols).filter(|_| !self.shape.is_empty());
        let row = row.ok_or_else(|| format!("rows of {cols} are no whole blocks of {format}"))?;
        let all = self.bytes.range();
        let range = match &piece.rows {
            Some(rows) => all.start + rows.start * row..all.start + rows.end * row,
            None => all,
        };
        Bytes::new(self.bytes.owner(), range).map_err(|e| e.to_string())
    }

    /// A piece of this matrix in FP8, with the tensor of its scales.
    fn fp8(&self, piece: &Piece, scales: &Found, block: [usize; 2]) -> std::result::Result<(Bytes, Fp8), String> {
        self.check(piece)?;
        let &[rows, cols] = self.shape else { return Err("FP8 is for matrices only".into()) };
        let shape = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
        if scales.shape != shape {
            return Err(format!("its scales {} have shape {:?}, not {shape:?}", scales.name, scales.shape));
        }
        let format = scales.format.filter(|f| [Format::F32, Format::BF16].contains(f));
        let format = format.ok_or_else(|| format!("its scales {} are {}", scales.name, scales.kind))?;
        let mut values = vec![0f32; shape[0] * shape[1]];
        format.decode(scales.bytes, &mut values).map_err(|e| e.to_string())?;
        let first = piece.rows.as_ref().map_or(0, |rows| rows.start);
        Ok((self.rows(piece, Some, FP8)?, Fp8 { first, cols, block, scales: Arc::new(values) }))
    }
}

/// The name of bytes in safetensors.
const BYTES: &str = "U8";
/// The name of FP8 with four bits of exponent.
const FP8: &str = "F8_E4M3";

/// How numbers in FP8 become others: those of a block of rows and columns are multiplied by its scale.
#[derive(Clone)]
struct Fp8 {
    /// The number of the piece's first row in the matrix.
    first: usize,
    cols: usize,
    /// Rows and columns of a block.
    block: [usize; 2],
    scales: Arc<Vec<f32>>,
}

impl Fp8 {
    fn decode(&self, bytes: &[u8], out: &mut Vec<f32>) {
        let across = self.cols.div_ceil(self.block[1]);
        for (row, bytes) in bytes.chunks_exact(self.cols.max(1)).enumerate() {
            let scales = &self.scales[(self.first + row) / self.block[0] * across..];
            out.extend(bytes.iter().enumerate().map(|(i, &b)| f8_e4m3_to_f32(b) * scales[i / self.block[1]]));
        }
    }
}

/// What a parameter is made from.
struct Raw {
    format: Format,
    pieces: Vec<Bytes>,
    /// Of each piece, if they are in FP8 (the format is f32 then).
    fp8: Vec<Fp8>,
    map: Map,
    arrange: Option<Arrange>,
    path: String,
}

/// The tensors of a file under the names of the parameters, all there and of the right shape.
struct Matched {
    raw: HashMap<String, Raw>,
    notes: Vec<String>,
}

impl Matched {
    fn new<'a>(
        path: &Path,
        specs: &[TensorSpec],
        found: impl Iterator<Item = Found<'a>>,
        ways: impl Fn(&TensorSpec) -> (Vec<Stored>, Map),
        fp8_blocks: Option<[usize; 2]>,
        extra: impl Fn(&str) -> bool,
    ) -> Result<Matched> {
        let found: HashMap<&str, Found> = found.map(|t| (t.name, t)).collect();
        let mut left: HashSet<&str> = found.keys().copied().collect();
        let mut problems = Vec::new();
        let mut raw = HashMap::with_capacity(specs.len());
        let mut notes = Vec::new();
        let mut problem = |field: &str, what: String| problems.push(Problem { field: field.to_owned(), what });
        for spec in specs {
            let (ways, map) = ways(spec);
            // Where something is missing of every way, the one of which the beginning is there is what was meant.
            let there =
                |way: &&Stored| way.pieces().all(|p| found.get(p.name.as_str()).is_some_and(|t| t.shape == p.shape));
            let begun = |way: &&Stored| way.pieces().next().is_some_and(|p| found.contains_key(p.name.as_str()));
            let way = ways.iter().find(there).or_else(|| ways.iter().find(begun)).or(ways.first());
            let Some(way) = way else {
                problem(&spec.name, "the file has no place for it".into());
                continue;
            };
            let (mut made, mut complete): (Option<Raw>, bool) = (None, true);
            for piece in way.pieces() {
                let Some(t) = found.get(piece.name.as_str()) else {
                    // The first that is missing says enough.
                    if std::mem::take(&mut complete) {
                        problem(&piece.name, format!("missing; it should be {:?}", piece.shape));
                    }
                    continue;
                };
                left.remove(t.name);
                let scales = format!("{}_scale_inv", t.name);
                let scales = found.get(scales.as_str()).filter(|_| t.kind == FP8);
                if let (Some(block), Some(scales)) = (fp8_blocks, scales) {
                    left.remove(scales.name);
                    match (t.fp8(&piece, scales, block), &mut made) {
                        (Ok((bytes, fp8)), Some(raw)) if !raw.fp8.is_empty() => {
                            raw.pieces.push(bytes);
                            raw.fp8.push(fp8);
                        }
                        (Ok(_), Some(raw)) => {
                            problem(t.name, format!("{FP8}, where what it is joined with is {}", raw.format))
                        }
                        (Ok((bytes, fp8)), None) => {
                            let path = format!("{}: {}", path.display(), t.name);
                            let (arrange, format) = (way.arrange.clone(), Format::F32);
                            made = Some(Raw { format, pieces: vec![bytes], fp8: vec![fp8], map, arrange, path });
                        }
                        (Err(what), _) => problem(t.name, what),
                    }
                    continue;
                }
                match (t.piece(&piece), &mut made) {
                    (Ok((format, bytes)), Some(raw)) if raw.format == format && raw.fp8.is_empty() => {
                        raw.pieces.push(bytes);
                    }
                    (Ok((format, _)), Some(raw)) => {
                        problem(t.name, format!("{format}, where what it is joined with is {}", raw.format));
                    }
                    (Ok((format, bytes)), None) => {
                        let path = format!("{}: {}", path.display(), t.name);
                        let arrange = way.arrange.clone();
                        made = Some(Raw { format, pieces: vec![bytes], fp8: Vec::new(), map, arrange, path });
                    }
                    (Err(what), _) => problem(t.name, what),
                }
            }
            raw.extend(made.map(|made| (spec.name.clone(), made)));
        }
        let mut superfluous: Vec<&str> = left.into_iter().filter(|name| !extra(name)).collect();
        superfluous.sort_unstable();
        for name in superfluous {
            problem(name, "superfluous: the configuration has no such tensor".into());
        }
        match problems.is_empty() {
            true => {
                if raw.values().any(|raw: &Raw| !raw.fp8.is_empty()) {
                    notes.push(
                        "The matrices in FP8 are expanded to f32; a GGUF file in q8_0 takes a quarter of that.".into(),
                    );
                }
                Ok(Matched { raw, notes })
            }
            false => Err(Error::Tensors { path: path.to_path_buf(), problems }),
        }
    }

    fn build(self, config: Config, device: &Device) -> Result<Model> {
        Model::from_source(config, &mut FileSource { raw: self.raw, device: device.clone() })
    }
}

/// Values from a file.
struct FileSource {
    raw: HashMap<String, Raw>,
    device: Device,
}

impl FileSource {
    fn find(&self, name: &str) -> imaginal_nn::Result<&Raw> {
        self.raw.get(name).ok_or_else(|| TensorError::argument("load", format!("{name}: no such tensor")))
    }
}

impl Raw {
    /// The bytes: the file's own where the parameter is one piece of it, else a copy that joins the pieces.
    fn bytes(&self) -> Bytes {
        match &self.pieces[..] {
            [piece] => piece.clone(),
            pieces => Bytes::from_vec(pieces.iter().map(|piece| &piece[..]).collect::<Vec<_>>().concat()),
        }
    }

    /// Whether the bytes are the parameter's as they are.
    fn as_is(&self) -> bool {
        self.map == Map::Same && self.arrange.is_none() && self.fp8.is_empty()
    }

    /// The blocks of MXFP4 as they are in GGUF files, for a parameter of so many rows and columns.
    fn mxfp4(&self, rows: usize, cols: usize) -> imaginal_nn::Result<Option<Bytes>> {
        let (Some(Arrange::Mxfp4 { first, step }), [blocks, scales]) = (&self.arrange, &self.pieces[..]) else {
            return Ok(None);
        };
        let across = cols / 32;
        if !cols.is_multiple_of(32) || scales.len() < rows * step * across {
            let what = format!("{}: rows of {cols} are no whole blocks of {}", self.path, self.format);
            return Err(TensorError::argument("load", what));
        }
        let mut out = Vec::with_capacity(rows * across * 17);
        for block in (0..rows).flat_map(|row| (first + row * step) * across..(first + row * step + 1) * across) {
            out.push(scales[block]);
            let bytes = &blocks[block * 16..block * 16 + 16];
            // A byte holds two neighbours there, the lower first; here an element and the one 16 further on.
            let number = |i: usize| (bytes[i / 2] >> (i % 2 * 4)) & 15;
            out.extend((0..16).map(|i| number(i) | number(i + 16) << 4));
        }
        Ok(Some(Bytes::from_vec(out)))
    }

    fn decode(&self, shape: &[usize]) -> imaginal_nn::Result<Tensor> {
        if self.format == Format::F32 && self.as_is() {
            return Tensor::from_bytes(self.bytes(), shape, DType::F32);
        }
        let mut values = Vec::new();
        if self.fp8.is_empty() {
            let bytes = self.bytes();
            values = vec![0f32; bytes.len() / self.format.block_bytes() * self.format.block_len()];
            self.format.decode(&bytes, &mut values).map_err(|source| TensorError::Format { op: "load", source })?;
        } else {
            self.pieces.iter().zip(&self.fp8).for_each(|(bytes, fp8)| fp8.decode(bytes, &mut values));
        }
        if let &Some(Arrange::Transposed { count, first, step, len }) = &self.arrange {
            let inputs = shape.iter().product::<usize>() / (len * count).max(1);
            let cols = values.len() / (count * inputs).max(1);
            let mut turned = Vec::with_capacity(count * len * inputs);
            for matrix in values.chunks_exact((inputs * cols).max(1)) {
                for column in (first..).step_by(step).take(len) {
                    turned.extend((0..inputs).map(|row| matrix[row * cols + column]));
                }
            }
            values = turned;
        }
        if let Some(Arrange::Scaled(parts)) = &self.arrange {
            let row = values.len() / parts.iter().map(|part| part.0).sum::<usize>().max(1);
            let mut rest = values.as_mut_slice();
            for (rows, factor) in parts {
                let (part, after) = rest.split_at_mut((rows * row).min(rest.len()));
                part.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
                rest = after;
            }
        }
        match self.map {
            Map::Same => {}
            Map::NegExp => {
                if let Some(x) = values.iter().find(|x| !(**x < 0.0 && x.is_finite())) {
                    let what = format!("{}: {x} is not a negative number, as decay rates must be", self.path);
                    return Err(TensorError::argument("load", what));
                }
                values.iter_mut().for_each(|x| *x = (-*x).ln());
            }
            Map::LessOne => values.iter_mut().for_each(|x| *x += 1.0),
            Map::Times(factor) => values.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32),
        }
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

impl Source for FileSource {
    fn weight(&mut self, name: &str, rows: usize, cols: usize, _: Init) -> imaginal_nn::Result<Weight> {
        let device = self.device.clone();
        let raw = self.find(name)?;
        if let Some(blocks) = raw.mxfp4(rows, cols)? {
            return Ok(Weight::from_packed(Packed::new(Format::MXFP4, rows, cols, blocks)?.to_device(&device)?));
        }
        if device.is_cpu() && raw.format != Format::F64 && raw.as_is() {
            return Weight::from_bytes(raw.format, rows, cols, raw.bytes());
        }
        if matches!(raw.format, Format::F32 | Format::F64) || !raw.as_is() {
            return Weight::from_tensor(raw.decode(&[rows, cols])?.to_device(&device)?);
        }
        Ok(Weight::from_packed(Packed::new(raw.format, rows, cols, raw.bytes())?.to_device(&device)?))
    }

    fn param(&mut self, name: &str, shape: &[usize], _: Init) -> imaginal_nn::Result<Param> {
        let device = self.device.clone();
        Ok(Param::new(self.find(name)?.decode(shape)?.to_device(&device)?))
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}
