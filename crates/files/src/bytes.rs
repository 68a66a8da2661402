//! A cheaply cloned piece of a file.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of bytes that shares its owner: a mapped file, or a buffer.
///
/// Cloning and slicing copy a pointer. The owner lives as long as the last piece of it.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Bytes {
        let range = 0..(*owner).as_ref().len();
        Bytes { owner, range }
    }

    /// The part `range` of these bytes, sharing the owner; `None` where it does not lie within.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Bytes { owner: Arc::clone(&self.owner), range: start..start + (range.end - range.start) })
    }

    /// The owner of the memory.
    pub fn owner(&self) -> Arc<dyn AsRef<[u8]> + Send + Sync> {
        Arc::clone(&self.owner)
    }

    /// Where these bytes lie in their owner.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // An owner whose slice shrank between two calls yields fewer bytes, never a panic.
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::new(Arc::new(bytes))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Bytes {
        Bytes::new(Arc::new(bytes))
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Bytes {
        Bytes::new(Arc::new(bytes))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({:?})", self.range)
    }
}
