use imaginal_numeric::Format;

use crate::{Bytes, Device, Error, Result};

/// A matrix of weights in a packed number format, rows one after another as GGUF files hold them, never expanded.
/// Cheap to clone; the bytes are usually a mapped file.
#[derive(Clone)]
pub struct Packed {
    format: Format,
    rows: usize,
    cols: usize,
    bytes: Bytes,
    /// The same bytes on a device, where the products are to be computed there.
    #[cfg(feature = "gpu")]
    gpu: Option<std::sync::Arc<crate::gpu::GpuStorage>>,
}

impl Packed {
    /// `rows` × `cols` weights in `format`.
    ///
    /// # Errors
    /// A row is not a whole number of blocks, or the bytes are not as many as that takes.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: Bytes) -> Result<Self> {
        let wrong = |what: String| Err(Error::argument("packed", what));
        let Some(row) = format.bytes_for(cols) else {
            return wrong(format!("{cols} columns are no whole number of {} blocks", format.name()));
        };
        match row.checked_mul(rows) {
            Some(n) if n == bytes.len() => Ok(Packed {
                format,
                rows,
                cols,
                bytes,
                #[cfg(feature = "gpu")]
                gpu: None,
            }),
            n => wrong(format!("{rows}×{cols} in {} takes {n:?} bytes, not {}", format.name(), bytes.len())),
        }
    }

    /// The same weights for computing on `device`, packed there too.
    ///
    /// # Errors
    /// The device refuses, or has no kernel for the format.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Packed::new(self.format, self.rows, self.cols, self.bytes.clone()),
            #[cfg(feature = "gpu")]
            Device::Gpu(gpu) => {
                let gpu = Some(std::sync::Arc::new(crate::ops::packed_linear::gpu::upload(gpu, self)?));
                Ok(Packed { gpu, ..self.clone() })
            }
        }
    }

    /// Where products with these weights are computed.
    pub fn device(&self) -> Device {
        #[cfg(feature = "gpu")]
        if let Some(words) = &self.gpu {
            return Device::Gpu(words.device().clone());
        }
        Device::Cpu
    }

    /// The words on the device, if the weights are on one.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_words(&self) -> Option<&crate::gpu::GpuStorage> {
        self.gpu.as_deref()
    }

    /// The number format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether products with these weights may round their operands below f32 (see [`matmul_packed`]).
    ///
    /// [`matmul_packed`]: imaginal_kernels::matmul_packed
    pub fn may_round(&self) -> bool {
        imaginal_kernels::packed::may_round(self.format, self.rows, self.cols)
    }

    /// Rows: output features, or entries of an embedding.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The packed rows, one after another.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({}×{}, {}, {})", self.rows, self.cols, self.format.name(), self.device())
    }
}
