//! SentencePiece's own model files (`tokenizer.model`): protocol buffers, `sentencepiece_model.proto`.

use crate::Result;
use crate::error::Origin;

/// What a model file says, as far as encoding needs it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) kind: u64,
    pub(super) byte_fallback: bool,
    /// Unknown, beginning, end, padding; `None` where there is no such piece.
    pub(super) ids: [Option<u32>; 4],
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

/// A token; `kind` has the numbers of [`TokenKind`](super::TokenKind).
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: i32,
}

impl Model {
    pub(super) const UNIGRAM: u64 = 1;
    pub(super) const BPE: u64 = 2;

    pub(super) fn parse(origin: &Origin, bytes: &[u8]) -> Result<Model> {
        let mut model = Model {
            pieces: Vec::new(),
            kind: Model::UNIGRAM,
            byte_fallback: false,
            ids: [Some(0), Some(1), Some(2), None],
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        let wrong = |field: &str| origin.malformed(field, "not a SentencePiece model");
        for_each(bytes, &mut |number, value| {
            match (number, value) {
                (1, Value::Bytes(b)) => model.pieces.push(piece(b)?),
                (2, Value::Bytes(b)) => for_each(b, &mut |number, value| {
                    match (number, value) {
                        (3, Value::Number(n)) => model.kind = n,
                        (35, Value::Number(n)) => model.byte_fallback = n != 0,
                        // A negative id is written as the 64 bits of it.
                        (40..=43, Value::Number(n)) => model.ids[number as usize - 40] = u32::try_from(n).ok(),
                        _ => {}
                    }
                    Some(())
                })?,
                (3, Value::Bytes(b)) => for_each(b, &mut |number, value| {
                    match (number, value) {
                        (2, Value::Bytes(b)) => model.charsmap = b.to_vec(),
                        (3, Value::Number(n)) => model.add_dummy_prefix = n != 0,
                        (4, Value::Number(n)) => model.remove_extra_whitespaces = n != 0,
                        _ => {}
                    }
                    Some(())
                })?,
                _ => {}
            }
            Some(())
        })
        .ok_or_else(|| wrong("protocol buffer"))?;
        let known = |id: &Option<u32>| id.is_none_or(|id| (id as usize) < model.pieces.len());
        match model.pieces.is_empty() || !model.ids.iter().all(known) {
            true => Err(wrong("pieces")),
            false => Ok(model),
        }
    }
}

fn piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
    for_each(bytes, &mut |number, value| {
        match (number, value) {
            (1, Value::Bytes(b)) => piece.text = std::str::from_utf8(b).ok()?.to_owned(),
            (2, Value::Word(w)) => piece.score = Some(f32::from_bits(w)).filter(|s| s.is_finite())?,
            (3, Value::Number(n)) => piece.kind = i32::try_from(n).ok()?,
            _ => {}
        }
        Some(())
    })?;
    Some(piece)
}

/// A value on the wire.
enum Value<'b> {
    Number(u64),
    Word(u32),
    Bytes(&'b [u8]),
    Other,
}

/// Calls `field` with every field of a message; `None` where the bytes are no message or `field` says so.
fn for_each<'b>(mut bytes: &'b [u8], field: &mut dyn FnMut(u64, Value<'b>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..)?;
                Value::Other
            }
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                Value::Bytes(value)
            }
            5 => {
                let (word, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                Value::Word(u32::from_le_bytes(*word))
            }
            _ => return None,
        };
        field(key >> 3, value)?;
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
