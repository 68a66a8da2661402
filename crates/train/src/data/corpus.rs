//! The tokens of many documents in one file, mapped into memory while training.
//!
//! ```text
//! tokens     width bytes each, little-endian, documents one after the other without separators
//! documents  per document: tokens u32, bytes u32
//! footer     width u32, version u32, documents u64, tokens u64, magic 8 bytes
//! ```
//! The file appears under its name only when it is complete, and its size must agree with its footer.

use std::io::Write;
use std::path::{Path, PathBuf};

use imaginal_files::{AtomicFile, Bytes, OpenOptions};

use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"IMGNLTOK";
const VERSION: u32 = 1;
const FOOTER: usize = 32;

/// The documents of a token file.
pub struct Corpus {
    bytes: Bytes,
    width: usize,
    starts: Vec<u64>,
    sizes: Vec<u32>,
}

impl Corpus {
    /// Opens a token file.
    ///
    /// # Errors
    /// The file cannot be read, or was not written by [`CorpusWriter`].
    pub fn open(path: &Path) -> Result<Corpus> {
        let wrong = || Error::run_dir(path, "not a complete token file; delete it and start again with --resume");
        let bytes = Bytes::open(path, OpenOptions::default())?;
        let split = bytes.len().checked_sub(FOOTER).ok_or_else(wrong)?;
        let (body, footer) = bytes.split_at(split);
        let u32_at = |b: &[u8], i: usize| u32::from_le_bytes(b[i..i + 4].try_into().expect("four bytes"));
        let u64_at = |i: usize| u64::from_le_bytes(footer[i..i + 8].try_into().expect("eight bytes"));
        let (width, documents, tokens) = (u32_at(footer, 0) as usize, u64_at(8), u64_at(16));
        let sound = footer[24..] == *MAGIC
            && u32_at(footer, 4) == VERSION
            && matches!(width, 2 | 4)
            && u128::from(tokens) * width as u128 + u128::from(documents) * 8 == body.len() as u128;
        if !sound {
            return Err(wrong());
        }
        let table = &body[tokens as usize * width..];
        let mut starts = Vec::with_capacity(documents as usize + 1);
        let mut sizes = Vec::with_capacity(documents as usize);
        starts.push(0u64);
        for entry in table.chunks_exact(8) {
            starts.push(starts[starts.len() - 1] + u64::from(u32_at(entry, 0)));
            sizes.push(u32_at(entry, 4));
        }
        if starts.last() != Some(&tokens) {
            return Err(wrong());
        }
        Ok(Corpus { bytes, width, starts, sizes })
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.sizes.len()
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.starts[self.documents()]
    }

    /// Bytes of text of all documents.
    pub fn text_bytes(&self) -> u64 {
        self.sizes.iter().map(|&s| u64::from(s)).sum()
    }

    /// Tokens of one document.
    pub fn document_tokens(&self, document: usize) -> usize {
        (self.starts[document + 1] - self.starts[document]) as usize
    }

    /// Bytes of text of one document.
    pub fn document_bytes(&self, document: usize) -> u32 {
        self.sizes[document]
    }

    /// Appends the tokens `range` of a document to `out`. Panics where the document has no such tokens.
    pub fn read(&self, document: usize, range: std::ops::Range<usize>, out: &mut Vec<u32>) {
        assert!(range.end <= self.document_tokens(document));
        let start = self.starts[document] as usize;
        let bytes = &self.bytes[(start + range.start) * self.width..(start + range.end) * self.width];
        match self.width {
            2 => out.extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))),
            _ => out.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        }
    }
}

/// Writes a token file, document by document.
pub struct CorpusWriter {
    file: std::io::BufWriter<AtomicFile>,
    path: PathBuf,
    width: usize,
    table: Vec<u8>,
    documents: u64,
    tokens: u64,
}

impl CorpusWriter {
    /// Begins the file; `vocab` is the number of token ids there are.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn create(path: &Path, vocab: usize) -> Result<CorpusWriter> {
        Ok(CorpusWriter {
            file: std::io::BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?),
            path: path.to_path_buf(),
            width: if vocab <= 1 << 16 { 2 } else { 4 },
            table: Vec::new(),
            documents: 0,
            tokens: 0,
        })
    }

    /// Adds a document of so many bytes of text.
    ///
    /// # Errors
    /// The disk is full, or the document has 2³² tokens or bytes.
    pub fn push(&mut self, tokens: &[u32], text_bytes: u64) -> Result<()> {
        let long = |_| Error::data(&self.path, "a document of 4 GB or more; lower --max-file-bytes");
        let (count, size) = (u32::try_from(tokens.len()).map_err(long)?, u32::try_from(text_bytes).map_err(long)?);
        let bytes: Vec<u8> = match self.width {
            2 => tokens.iter().flat_map(|&t| (t as u16).to_le_bytes()).collect(),
            _ => tokens.iter().flat_map(|&t| t.to_le_bytes()).collect(),
        };
        self.file.write_all(&bytes).map_err(Error::io("write", &self.path))?;
        self.table.extend_from_slice(&count.to_le_bytes());
        self.table.extend_from_slice(&size.to_le_bytes());
        self.documents += 1;
        self.tokens += u64::from(count);
        Ok(())
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<()> {
        let CorpusWriter { mut file, path, width, table, documents, tokens } = self;
        let mut end = table;
        end.extend_from_slice(&(width as u32).to_le_bytes());
        end.extend_from_slice(&VERSION.to_le_bytes());
        end.extend_from_slice(&documents.to_le_bytes());
        end.extend_from_slice(&tokens.to_le_bytes());
        end.extend_from_slice(MAGIC);
        file.write_all(&end).map_err(Error::io("write", &path))?;
        let file = file.into_inner().map_err(|e| Error::io("write", &path)(e.into_error()))?;
        Ok(file.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written_in_both_widths() {
        let dir = tempfile::tempdir().unwrap();
        for (vocab, top) in [(1 << 16, 65_535u32), (1 << 17, 65_536)] {
            let path = dir.path().join(format!("{vocab}.tokens"));
            let mut writer = CorpusWriter::create(&path, vocab).unwrap();
            writer.push(&[1, 2, top], 10).unwrap();
            writer.push(&[], 0).unwrap();
            writer.push(&[7; 1000], 3000).unwrap();
            assert!(!path.exists(), "appears only when complete");
            writer.finish().unwrap();
            let corpus = Corpus::open(&path).unwrap();
            assert_eq!((corpus.documents(), corpus.tokens(), corpus.text_bytes()), (3, 1003, 3010));
            let mut out = vec![];
            corpus.read(0, 1..3, &mut out);
            corpus.read(1, 0..0, &mut out);
            corpus.read(2, 998..1000, &mut out);
            assert_eq!(out, [2, top, 7, 7]);
            assert_eq!((corpus.document_tokens(2), corpus.document_bytes(2)), (1000, 3000));
        }
    }

    #[test]
    fn refuses_damaged_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tokens");
        let mut writer = CorpusWriter::create(&path, 300).unwrap();
        writer.push(&[1, 2, 3], 10).unwrap();
        writer.finish().unwrap();
        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(Corpus::open(&path).is_err(), "cut to {cut}");
        }
        for field in (good.len() - FOOTER)..good.len() {
            let mut bad = good.clone();
            bad[field] ^= 0x41;
            std::fs::write(&path, &bad).unwrap();
            assert!(Corpus::open(&path).is_err(), "byte {field}");
        }
    }
}
