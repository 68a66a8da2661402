//! Reading little-endian fields out of a slice, each checked against what is left.

use crate::Result;
use crate::error::Origin;
use std::fmt::Display;

pub(crate) struct Cursor<'o, 'a> {
    pub(crate) origin: &'o Origin,
    data: &'a [u8],
    pos: usize,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(crate) fn $name(&mut self, field: impl Display) -> Result<$type> {
            let mut bytes = [0; size_of::<$type>()];
            bytes.copy_from_slice(self.take(size_of::<$type>() as u64, field)?);
            Ok(<$type>::from_le_bytes(bytes))
        }
    };
}

impl<'o, 'a> Cursor<'o, 'a> {
    pub(crate) fn new(origin: &'o Origin, data: &'a [u8]) -> Cursor<'o, 'a> {
        Cursor { origin, data, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn left(&self) -> usize {
        self.data.len() - self.pos
    }

    /// The bytes read since `start`, a former [`Cursor::pos`].
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.data[start.min(self.pos)..self.pos]
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.data[self.pos..]
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: u64, field: impl Display) -> Result<&'a [u8]> {
        match usize::try_from(len).ok().filter(|len| *len <= self.left()) {
            Some(len) => {
                let bytes = &self.data[self.pos..self.pos + len];
                self.pos += len;
                Ok(bytes)
            }
            None => Err(self.origin.truncated(field, len, self.left() as u64)),
        }
    }

    number!(u32, u32);
    number!(u64, u64);

    /// A string behind its length of 64 bits.
    pub(crate) fn string(&mut self, field: impl Display) -> Result<&'a str> {
        let len = self.u64(&field)?;
        let at = self.pos;
        let bytes = self.take(len, &field)?;
        str::from_utf8(bytes)
            .map_err(|e| self.origin.malformed(field, format!("not UTF-8 (byte {} of the file)", at + e.valid_up_to())))
    }
}
