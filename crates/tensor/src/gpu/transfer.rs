use super::{GpuDevice, GpuStorage};
use crate::autograd::record;
use crate::dtype::with_element;
use crate::ops::view::gpu::dense;
use crate::storage::Storage;
use crate::{DType, Device, Error, Result, Tensor};

/// The storage of an operand that has to be on a device.
///
/// # Errors
/// It is on the CPU.
pub(crate) fn storage<'a>(op: &'static str, x: &'a Tensor) -> Result<&'a GpuStorage> {
    match x.storage() {
        Storage::Gpu(s) => Ok(s),
        Storage::Cpu(_) => Err(Error::DeviceMismatch { op, lhs: "gpu".into(), rhs: "cpu".into() }),
    }
}

/// As [`storage`], for a kernel that computes in `f32` only.
///
/// # Errors
/// It is on the CPU or of another type.
pub(crate) fn float_storage<'a>(op: &'static str, x: &'a Tensor) -> Result<&'a GpuStorage> {
    match x.dtype() {
        DType::F32 => storage(op, x),
        dtype => Err(missing(op, dtype)),
    }
}

/// There is no kernel for this type.
pub(crate) fn missing(op: &'static str, dtype: DType) -> Error {
    Error::Unsupported { op, dtype, device: "gpu".into() }
}

/// The tensor with nothing before, after or between its elements in storage, so that the whole storage may be read.
fn packed(x: &Tensor, s: &GpuStorage) -> Result<Tensor> {
    if x.is_contiguous() && x.layout().offset() == 0 && s.len() == x.elem_count() {
        return Ok(x.clone());
    }
    Ok(Tensor::from_gpu(dense("to_device", s, x.layout())?, x.shape(), x.dtype()))
}

fn on_cpu(x: &Tensor, bytes: &[u8]) -> Result<Tensor> {
    with_element!(x.dtype(), T => {
        crate::ops::common::build_as::<T>(x.shape(), x.dtype(), |out| {
            bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
            Ok(())
        })
    })
}

fn upload(x: &Tensor, gpu: &GpuDevice) -> Result<Tensor> {
    let x = x.contiguous()?;
    let storage = with_element!(x.dtype(), T => {
        let from = x.layout().offset();
        let elements = &x.cpu_storage::<T>("to_device")?[from..from + x.elem_count()];
        GpuStorage::upload(gpu, x.dtype(), bytemuck::cast_slice(elements))
    })?;
    Ok(Tensor::from_gpu(storage, x.shape(), x.dtype()))
}

/// The values of `x` on `device`; gradients flow back to where it was.
pub(crate) fn move_to(x: &Tensor, device: &Device) -> Result<Tensor> {
    let out = match (x.storage(), device) {
        (_, to) if x.device() == to => return Ok(x.clone()),
        (Storage::Cpu(_), Device::Gpu(gpu)) => crate::no_grad(|| upload(x, gpu))?,
        (Storage::Cpu(_), Device::Cpu) => return Ok(x.clone()),
        (Storage::Gpu(s), to) => {
            let whole = packed(x, s)?;
            let here = on_cpu(x, &storage("to_device", &whole)?.download(x.dtype())?)?;
            crate::no_grad(|| here.to_device(to))?
        }
    };
    Ok(record(out, &[x], |b| Ok(vec![Some(b.grad.to_device(b.inputs[0].device())?)])))
}

/// A copy of `x` on the CPU, read without blocking the thread.
pub(crate) async fn read_async(x: &Tensor) -> Result<Tensor> {
    let whole = packed(x, storage("to_vec_async", x)?)?;
    let bytes = storage("to_vec_async", &whole)?.download_async(x.dtype()).await?;
    on_cpu(x, &bytes)
}
