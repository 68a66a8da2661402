use cubecl::prelude::*;
use cubecl::server::Handle;

use super::{GpuDevice, refused};
use crate::{DType, Element, Error, Result};

/// Words of 32 bits on a device, freed with the last handle.
pub(crate) struct GpuStorage {
    device: GpuDevice,
    handle: Handle,
    words: usize,
}

/// Whether a device holds elements of this type.
fn check(op: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 | DType::U8 | DType::Bool => Ok(()),
        DType::F64 | DType::F16 | DType::BF16 | DType::I64 => {
            Err(Error::Unsupported { op, dtype, device: "gpu".into() })
        }
    }
}

impl GpuStorage {
    /// Room for `words` elements, which a kernel is about to write.
    pub fn scratch(device: &GpuDevice, op: &'static str, words: usize) -> Result<Self> {
        let limit = device.0.client.properties().memory.max_page_size.min(u32::MAX as u64 * 4);
        // A buffer of no bytes cannot be bound; kernels over no elements are not launched, but views may still be made.
        let bytes = words.max(1) as u64 * 4;
        if bytes > limit {
            return Err(refused(format!("{op}: a buffer of {bytes} bytes is over this adapter's limit of {limit}")));
        }
        let handle = device.0.client.empty(bytes as usize);
        Ok(GpuStorage { device: device.clone(), handle, words })
    }

    /// A copy of `data` on the device.
    pub fn from_words(device: &GpuDevice, data: &[u32]) -> Result<Self> {
        let words = data.len();
        let data = if data.is_empty() { &[0] } else { data };
        let handle = device.0.client.create_from_slice(bytemuck::cast_slice(data));
        Ok(GpuStorage { device: device.clone(), handle, words })
    }

    /// Puts bytes on the device as they are, the last word padded with zeros: packed weights.
    pub fn from_bytes(device: &GpuDevice, bytes: &[u8]) -> Result<Self> {
        let mut words = vec![0u32; bytes.len().div_ceil(4)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        GpuStorage::from_words(device, &words)
    }

    /// Puts elements of type `dtype` on the device.
    ///
    /// # Errors
    /// The device does not hold such elements.
    pub fn upload(device: &GpuDevice, dtype: DType, bytes: &[u8]) -> Result<Self> {
        check("to_device", dtype)?;
        if dtype.size() == 1 {
            let words: Vec<u32> = bytes.iter().map(|&b| b.into()).collect();
            return GpuStorage::from_words(device, &words);
        }
        GpuStorage::from_words(device, bytemuck::cast_slice(bytes))
    }

    /// Reads all elements back, waiting for the kernels that make them.
    ///
    /// # Errors
    /// The device failed, now or in one of those kernels.
    #[cfg(not(target_family = "wasm"))]
    pub fn download(&self, dtype: DType) -> Result<Vec<u8>> {
        if self.words == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.device.0.client.read_one(self.handle.clone()).map_err(refused)?;
        Ok(self.narrow(dtype, &bytes))
    }

    /// As [`GpuStorage::download`]; a browser's main thread cannot wait.
    #[cfg(target_family = "wasm")]
    pub fn download(&self, _: DType) -> Result<Vec<u8>> {
        Err(refused("a browser cannot wait for its GPU; read with to_vec_async"))
    }

    /// Reads all elements back without blocking the thread.
    ///
    /// # Errors
    /// As [`GpuStorage::download`].
    pub async fn download_async(&self, dtype: DType) -> Result<Vec<u8>> {
        if self.words == 0 {
            return Ok(Vec::new());
        }
        let read = self.device.0.client.read_async(vec![self.handle.clone()]);
        let bytes = read.await.map_err(refused)?;
        let first = bytes.first().ok_or_else(|| refused("a read returned nothing"))?;
        Ok(self.narrow(dtype, first))
    }

    fn narrow(&self, dtype: DType, bytes: &[u8]) -> Vec<u8> {
        let bytes = &bytes[..self.words * 4];
        match dtype.size() {
            1 => bytes.iter().step_by(4).copied().collect(),
            _ => bytes.to_vec(),
        }
    }

    /// The device it is on.
    pub fn device(&self) -> &GpuDevice {
        &self.device
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.words
    }

    /// The buffer as an argument of a kernel, which may read it as words of any of the types.
    pub fn arg(&self) -> BufferArg {
        // SAFETY: the handle was made with room for this many words (`max(1)` of them), and every kernel is launched
        // in checked mode with this length, so that none reads or writes beyond it.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.words.max(1)) }
    }

    #[cfg(test)]
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// The constant `value` as a device holds it in an element of type `dtype`.
///
/// # Errors
/// The device does not hold such elements.
pub(crate) fn word(op: &'static str, dtype: DType, value: f64) -> Result<u32> {
    check(op, dtype)?;
    Ok(match dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::I32 => i32::from_f64(value) as u32,
        DType::U8 => u8::from_f64(value).into(),
        DType::Bool => (value != 0.0).into(),
        _ => u32::from_f64(value),
    })
}
