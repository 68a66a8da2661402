use std::ops::Range;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::{Element, Error, Result};

/// Bytes that somebody else owns and several may share: a mapped file, a received message.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// The bytes `range` of what `owner` holds.
    ///
    /// # Errors
    /// The range does not lie within the owner's bytes.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Result<Self> {
        let len = (*owner).as_ref().len();
        if range.start > range.end || range.end > len {
            return Err(Error::OutOfRange { op: "bytes", what: "end of range", index: range.end, bound: len });
        }
        Ok(Bytes { owner, range })
    }

    /// Takes a vector over.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Bytes { owner: Arc::new(bytes), range }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

/// Elements on some device. One variant per kind of device.
pub(crate) enum Storage {
    Cpu(CpuStorage),
    #[cfg(feature = "gpu")]
    Gpu(crate::gpu::GpuStorage),
}

/// Elements in main memory.
pub(crate) enum CpuStorage {
    /// From the buffer pool; may be written while nobody else holds it.
    Owned(Buffer),
    /// Read-only.
    Shared(Bytes),
}

impl CpuStorage {
    /// A buffer of `n` elements whose values the caller is about to write.
    pub fn scratch<T: Element>(n: usize) -> Buffer {
        Buffer::scratch(n * size_of::<T>())
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            CpuStorage::Owned(b) => b.bytes(),
            CpuStorage::Shared(b) => b,
        }
    }

    /// The elements. The constructor of a shared storage has checked the alignment.
    pub fn slice<T: Element>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }
}
