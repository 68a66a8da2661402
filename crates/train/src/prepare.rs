//! From the options to a tokenizer and two token files in the run directory. Every file appears when it is complete,
//! so that a run killed here starts again where it was.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use imaginal_files::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::data::corpus::{Corpus, CorpusWriter};
use crate::data::split::split;
use crate::data::walk::{SourceFile, read_text, walk};
use crate::observer::{Event, Observer};
use crate::options::{TrainOptions, default_vocab};
use crate::tokenizer::{END_OF_TEXT, train_tokenizer};
use crate::{Error, Result};

/// The data of a run.
pub struct Prepared {
    /// Turns text into tokens.
    pub tokenizer: Tokenizer,
    /// The token before every document.
    pub separator: u32,
    /// What is trained on.
    pub train: Corpus,
    /// What is measured on.
    pub held_out: Corpus,
}

/// A line of files.jsonl: what a document is.
#[derive(Serialize, Deserialize)]
struct FileLine<'a> {
    part: &'a str,
    name: &'a str,
    bytes: u64,
}

/// Paths within the data folder of a run.
struct Paths {
    tokenizer: PathBuf,
    tokenizer_config: PathBuf,
    files: PathBuf,
    train: PathBuf,
    held_out: PathBuf,
}

/// Opens what an earlier start prepared, or walks the folders, trains the tokenizer and tokenises.
///
/// # Errors
/// Nothing to train on, a tokenizer that cannot be used, or a full disk.
pub fn prepare(folder: &Path, options: &TrainOptions, observer: &mut dyn Observer) -> Result<Prepared> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let paths = Paths {
        tokenizer: folder.join("tokenizer.json"),
        tokenizer_config: folder.join("tokenizer_config.json"),
        files: folder.join("files.jsonl"),
        train: folder.join("train.tokens"),
        held_out: folder.join("held-out.tokens"),
    };
    // The training tokens come last: where they are, everything is.
    if !paths.train.exists() {
        make(&paths, options, observer)?;
    }
    let (tokenizer, separator) = open_tokenizer(&paths.tokenizer)?;
    Ok(Prepared { tokenizer, separator, train: Corpus::open(&paths.train)?, held_out: Corpus::open(&paths.held_out)? })
}

fn open_tokenizer(path: &Path) -> Result<(Tokenizer, u32)> {
    let tokenizer = Tokenizer::from_file(path)?;
    let separator = tokenizer.bos().or(tokenizer.eos_id()).or(tokenizer.token_to_id(END_OF_TEXT)).ok_or_else(|| {
        Error::Tokenizer(format!(
            "{}: has no token that begins or ends a text; name one in tokenizer_config.json",
            path.display()
        ))
    })?;
    // Found out now rather than after hours of training.
    tokenizer.to_gguf_metadata()?;
    Ok((tokenizer, separator))
}

fn make(paths: &Paths, options: &TrainOptions, observer: &mut dyn Observer) -> Result<()> {
    let found = walk(&options.data, &options.selection())?;
    let parts = split(found.files, &options.held_out())?;
    let bytes = |files: &[SourceFile]| files.iter().map(|f| f.bytes).sum::<u64>();
    let (train_bytes, held_out_bytes) = (bytes(&parts.train), bytes(&parts.held_out));
    observer.event(Event::Found {
        train_files: parts.train.len(),
        train_bytes,
        held_out_files: parts.held_out.len(),
        held_out_bytes,
    });

    if let Some(given) = &options.tokenizer {
        let given = if given.is_dir() { given.join("tokenizer.json") } else { given.clone() };
        for (from, to) in [
            (given.clone(), &paths.tokenizer),
            (given.with_file_name("tokenizer_config.json"), &paths.tokenizer_config),
        ] {
            if from.exists() {
                imaginal_files::write_atomic(to, &std::fs::read(&from).map_err(Error::io("read", &from))?)?;
            }
        }
    } else {
        let vocab = options.vocab.unwrap_or_else(|| default_vocab(train_bytes));
        observer.event(Event::TrainingTokenizer { vocab });
        let config = serde_json::json!({"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "add_bos_token": false, "add_eos_token": false});
        imaginal_files::write_atomic(&paths.tokenizer_config, format!("{config:#}\n").as_bytes())?;
        train_tokenizer(&parts.train, vocab, options.tokenizer_sample_bytes, options.seed, &paths.tokenizer)?;
    }
    let (tokenizer, _) = open_tokenizer(&paths.tokenizer)?;

    let mut list = Vec::new();
    for (part, files) in [("train", &parts.train), ("held-out", &parts.held_out)] {
        for file in files {
            let line = FileLine { part, name: &file.name, bytes: file.bytes };
            serde_json::to_writer(&mut list, &line).map_err(|e| Error::io("write", &paths.files)(e.into()))?;
            list.push(b'\n');
        }
    }
    imaginal_files::write_atomic(&paths.files, &list)?;
    let total = train_bytes + held_out_bytes;
    let done = tokenize(&tokenizer, &parts.held_out, &paths.held_out, (0, total), observer)?;
    tokenize(&tokenizer, &parts.train, &paths.train, (done, total), observer)?;
    Ok(())
}

/// Writes the tokens of the files; returns how many of the bytes in all are done.
fn tokenize(
    tokenizer: &Tokenizer,
    files: &[SourceFile],
    path: &Path,
    (mut done, total): (u64, u64),
    observer: &mut dyn Observer,
) -> Result<u64> {
    /// Files in memory at once: enough to keep all threads busy.
    const CHUNK: usize = 256;
    let plain = PlainText::new(tokenizer);
    let mut writer = CorpusWriter::create(path, tokenizer.vocab_size())?;
    for chunk in files.chunks(CHUNK) {
        let slots: Vec<Mutex<Result<Encoded>>> = chunk.iter().map(|_| Mutex::new(Ok((vec![], 0)))).collect();
        imaginal_kernels::pool::parallel(chunk.len(), &|i| {
            let encoded = encode_file(&plain, &chunk[i]);
            *slots[i].lock().unwrap_or_else(|e| e.into_inner()) = encoded;
        });
        for slot in slots {
            let (tokens, bytes) = slot.into_inner().unwrap_or_else(|e| e.into_inner())?;
            writer.push(&tokens, bytes)?;
            done += bytes;
        }
        observer.event(Event::Tokenizing { done, total });
    }
    writer.finish()?;
    Ok(done)
}

/// The tokens of a file, and its length in bytes.
type Encoded = (Vec<u32>, u64);

fn encode_file(plain: &PlainText, file: &SourceFile) -> Result<Encoded> {
    let text = read_text(&file.path)?
        .ok_or_else(|| Error::data(&file.path, "is no text any more; it changed while the run was starting"))?;
    Ok((plain.encode(&text)?, text.len() as u64))
}

/// Encodes text as text: where it spells a special token, that is no special token.
pub struct PlainText<'a> {
    tokenizer: &'a Tokenizer,
    special: Vec<String>,
}

impl<'a> PlainText<'a> {
    /// Encodes with this tokenizer.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        let is_special = |id: &u32| tokenizer.kind(*id).is_some_and(|k| k.is_special());
        let ids = (0..tokenizer.vocab_size() as u32).filter(is_special);
        let special = ids.filter_map(|id| tokenizer.id_to_token(id).map(str::to_owned)).filter(|t| t.len() > 1);
        PlainText { tokenizer, special: special.collect() }
    }

    /// The tokens of a text, no special ones among them.
    ///
    /// # Errors
    /// The tokenizer has no tokens for some of it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        // A name that is cut behind its first character is nobody's name.
        while let Some(at) = self.special.iter().filter_map(|s| rest.find(s.as_str())).min() {
            let cut = at + rest[at..].chars().next().map_or(1, char::len_utf8);
            ids.extend(self.tokenizer.encode(&rest[..cut], false)?);
            rest = &rest[cut..];
        }
        ids.extend(self.tokenizer.encode(rest, false)?);
        Ok(ids)
    }
}
