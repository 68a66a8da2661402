use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::autograd::Node;
use crate::buffer::Buffer;
use crate::dtype::with_element;
use crate::storage::{CpuStorage, Storage};
use crate::{Bytes, DType, Device, Element, Error, Layout, Result, Shape};

/// Identity of a tensor: two handles with the same id are the same value with the same history.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TensorId(u64);

impl TensorId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        TensorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An array of numbers with a shape, on a device. Cheap to clone; views share storage. Values do not change under a
/// reader: operations that may work in place take the tensor by value and copy if somebody else holds it.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    id: TensorId,
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
    device: Device,
    node: Option<Arc<Node>>,
    leaf: bool,
}

fn checked_count(op: &'static str, shape: &Shape, dtype: DType) -> Result<usize> {
    shape
        .checked_count()
        .filter(|n| n.checked_mul(dtype.size()).is_some_and(|b| b <= isize::MAX as usize))
        .ok_or_else(|| Error::argument(op, format!("a tensor of shape {:?} does not fit in memory", shape.dims())))
}

impl Tensor {
    fn new(storage: Arc<Storage>, layout: Layout, dtype: DType, device: Device) -> Self {
        Tensor(Arc::new(Inner { id: TensorId::next(), storage, layout, dtype, device, node: None, leaf: false }))
    }

    /// A dense tensor over a buffer that an operation has just filled.
    pub(crate) fn from_buffer(buffer: Buffer, shape: impl Into<Shape>, dtype: DType) -> Self {
        Tensor::new(Arc::new(Storage::Cpu(CpuStorage::Owned(buffer))), Layout::contiguous(shape), dtype, Device::Cpu)
    }

    /// A dense tensor over storage that a kernel fills.
    #[cfg(feature = "gpu")]
    pub(crate) fn from_gpu(storage: crate::gpu::GpuStorage, shape: impl Into<Shape>, dtype: DType) -> Self {
        let device = Device::Gpu(storage.device().clone());
        Tensor::new(Arc::new(Storage::Gpu(storage)), Layout::contiguous(shape), dtype, device)
    }

    /// A dense CPU tensor whose elements `fill` writes. The slice holds unspecified values at first.
    pub(crate) fn build<T: Element>(
        shape: impl Into<Shape>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<Self> {
        let shape = shape.into();
        let n = checked_count("tensor", &shape, T::DTYPE)?;
        let mut buffer = CpuStorage::scratch::<T>(n);
        fill(bytemuck::cast_slice_mut(buffer.bytes_mut()))?;
        Ok(Tensor::from_buffer(buffer, shape, T::DTYPE))
    }

    /// Dense CPU tensors that one kernel fills, as the gradients of several inputs.
    pub(crate) fn build_n<T: Element, const N: usize>(
        shapes: [&[usize]; N],
        fill: impl FnOnce([&mut [T]; N]) -> Result<()>,
    ) -> Result<[Self; N]> {
        let mut buffers = shapes.map(|s| CpuStorage::scratch::<T>(s.iter().product()));
        fill(buffers.each_mut().map(|b| bytemuck::cast_slice_mut(b.bytes_mut())))?;
        let mut shapes = shapes.into_iter();
        Ok(buffers.map(|b| Tensor::from_buffer(b, shapes.next().unwrap_or_default(), T::DTYPE)))
    }

    /// The same storage seen through another layout, without history (see `ops::view`).
    pub(crate) fn with_layout(&self, layout: Layout) -> Self {
        Tensor::new(self.0.storage.clone(), layout, self.0.dtype, self.0.device.clone())
    }

    /// The same elements read as another type of the same size.
    pub(crate) fn with_dtype(&self, dtype: DType) -> Self {
        debug_assert_eq!(dtype.size(), self.dtype().size());
        Tensor::new(self.0.storage.clone(), self.0.layout.clone(), dtype, self.0.device.clone())
    }

    // ---- building

    /// A tensor of the slice's elements, row-major.
    ///
    /// # Errors
    /// The shape does not have as many elements.
    pub fn from_slice<T: Element>(data: &[T], shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        let shape = shape.into();
        if checked_count("from_slice", &shape, T::DTYPE)? != data.len() {
            return Err(Error::shapes("from_slice", &[data.len()], shape.dims()));
        }
        Tensor::build(shape, |out| {
            out.copy_from_slice(data);
            Ok(())
        })?
        .to_device(device)
    }

    /// A tensor of the vector's elements, row-major.
    ///
    /// # Errors
    /// The shape does not have as many elements.
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        Tensor::from_slice(&data, shape, device)
    }

    /// A CPU tensor over shared little-endian bytes, without a copy where their address is aligned for `dtype`.
    ///
    /// # Errors
    /// The bytes are not as many as the shape takes, or a `bool` byte is neither 0 nor 1.
    pub fn from_bytes(bytes: Bytes, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let n = checked_count("from_bytes", &shape, dtype)?;
        if bytes.len() != n * dtype.size() {
            return Err(Error::argument(
                "from_bytes",
                format!("{} bytes given, {:?} of {dtype} takes {}", bytes.len(), shape.dims(), n * dtype.size()),
            ));
        }
        if dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(Error::argument("from_bytes", "a bool is stored as a byte other than 0 or 1"));
        }
        if !(bytes.as_ptr() as usize).is_multiple_of(dtype.size()) {
            let mut buffer = Buffer::scratch(bytes.len());
            buffer.bytes_mut().copy_from_slice(&bytes);
            return Ok(Tensor::from_buffer(buffer, shape, dtype));
        }
        let storage = Arc::new(Storage::Cpu(CpuStorage::Shared(bytes)));
        Ok(Tensor::new(storage, Layout::contiguous(shape), dtype, Device::Cpu))
    }

    /// All elements equal to `value` (rounded to `dtype`).
    ///
    /// # Errors
    /// The shape does not fit in memory.
    pub fn full(shape: impl Into<Shape>, value: f64, dtype: DType, device: &Device) -> Result<Self> {
        let shape = shape.into();
        checked_count("full", &shape, dtype)?;
        #[cfg(feature = "gpu")]
        if let Device::Gpu(gpu) = device {
            let word = crate::gpu::word("full", dtype, value)?;
            let count = shape.dims().iter().product();
            return Ok(Tensor::from_gpu(crate::ops::view::gpu::fill(gpu, count, word)?, shape, dtype));
        }
        let t = with_element!(dtype, T => Tensor::build::<T>(shape, |out| {
            out.fill(if dtype == DType::Bool { T::from_f64((value != 0.0) as u8 as f64) } else { T::from_f64(value) });
            Ok(())
        }))?;
        // A `Bool` is built as bytes; name it for what it is.
        let t = if t.dtype() == dtype { t } else { t.with_dtype(dtype) };
        t.to_device(device)
    }

    /// All zeros.
    ///
    /// # Errors
    /// The shape does not fit in memory.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        Tensor::full(shape, 0.0, dtype, device)
    }

    /// All ones.
    ///
    /// # Errors
    /// The shape does not fit in memory.
    pub fn ones(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        Tensor::full(shape, 1.0, dtype, device)
    }

    /// `start, start + step, …` below `end` (above it for a negative step).
    ///
    /// # Errors
    /// The step is zero or leads away from the end.
    pub fn arange(start: f64, end: f64, step: f64, dtype: DType, device: &Device) -> Result<Self> {
        let n = ((end - start) / step).ceil();
        if !(n >= 0.0 && n < 2f64.powi(48)) {
            return Err(Error::argument("arange", format!("no finite way from {start} to {end} in steps of {step}")));
        }
        with_element!(dtype, T => Tensor::build::<T>(n as usize, |out| {
            for (i, x) in out.iter_mut().enumerate() {
                *x = T::from_f64(start + i as f64 * step);
            }
            Ok(())
        }))?
        .to_device(device)
    }

    // ---- what it is

    /// Identity, by which [`crate::Grads`] finds gradients.
    pub fn id(&self) -> TensorId {
        self.0.id
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.0.layout.dims()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// Size of dimension `i`.
    ///
    /// # Errors
    /// There is no such dimension.
    pub fn dim(&self, i: usize) -> Result<usize> {
        self.0.layout.check_dim("dim", i)?;
        Ok(self.shape()[i])
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.0.layout.count()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// How its elements lie in its storage.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Whether its elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.0.layout.is_contiguous()
    }

    /// The sizes as an array, for an operation that takes `N` dimensions.
    pub(crate) fn dims_n<const N: usize>(&self, op: &'static str) -> Result<[usize; N]> {
        self.shape().try_into().map_err(|_| Error::Rank { op, expected: N, shape: self.shape().to_vec() })
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Whether elements are read as `T`.
    fn holds<T: Element>(&self) -> bool {
        T::DTYPE == self.dtype() || (T::DTYPE == DType::U8 && self.dtype() == DType::Bool)
    }

    /// The whole storage as elements (index it through [`Tensor::layout`]).
    pub(crate) fn cpu_storage<T: Element>(&self, op: &'static str) -> Result<&[T]> {
        if !self.holds::<T>() {
            return Err(Error::DType { op, got: self.dtype(), expected: T::DTYPE.to_string() });
        }
        match self.storage() {
            Storage::Cpu(s) => Ok(s.slice()),
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => Err(Error::Unsupported { op, dtype: self.dtype(), device: self.device().to_string() }),
        }
    }

    /// The elements of a contiguous CPU tensor, row-major.
    ///
    /// # Errors
    /// The tensor is of another type, on another device, or a strided view (call [`Tensor::contiguous`] first).
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if !self.is_contiguous() {
            return Err(Error::argument("as_slice", "a strided view has no slice; call contiguous() first"));
        }
        let start = self.0.layout.offset();
        let n = self.elem_count();
        Ok(if n == 0 { &[] } else { &self.cpu_storage::<T>("as_slice")?[start..start + n] })
    }

    /// The elements for writing, if this is a dense tensor that nobody else holds; `None` otherwise.
    pub(crate) fn unique_slice_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        if !self.holds::<T>() || !self.is_contiguous() || self.0.node.is_some() {
            return None;
        }
        let inner = Arc::get_mut(&mut self.0)?;
        let (start, n) = (inner.layout.offset(), inner.layout.count());
        match Arc::get_mut(&mut inner.storage)? {
            Storage::Cpu(CpuStorage::Owned(b)) => {
                // A changed value must not be found under the gradient of the old one.
                inner.id = TensorId::next();
                let all: &mut [T] = bytemuck::cast_slice_mut(b.bytes_mut());
                Some(&mut all[start..start + n])
            }
            Storage::Cpu(CpuStorage::Shared(_)) => None,
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => None,
        }
    }

    /// Whether this is a dense device tensor that nobody else holds, so that its storage may be written; if so, it is a
    /// new value from now on.
    #[cfg(feature = "gpu")]
    pub(crate) fn claim_gpu_storage(&mut self) -> bool {
        if !self.is_contiguous() || self.0.node.is_some() {
            return false;
        }
        let Some(inner) = Arc::get_mut(&mut self.0) else { return false };
        let unique = matches!(Arc::get_mut(&mut inner.storage), Some(Storage::Gpu(_)));
        if unique {
            inner.id = TensorId::next();
        }
        unique
    }

    // ---- reading back

    /// All elements, row-major. On a device that cannot be waited for (a GPU in a browser) use
    /// [`Tensor::to_vec_async`].
    ///
    /// # Errors
    /// `T` is not the element type (`bool` is read as `u8`), or the device fails.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let dense = crate::no_grad(|| self.to_device(&Device::Cpu)?.contiguous())?;
        Ok(dense.as_slice::<T>()?.to_vec())
    }

    /// All elements, row-major, without blocking the thread.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub async fn to_vec_async<T: Element>(&self) -> Result<Vec<T>> {
        match self.device() {
            Device::Cpu => self.to_vec(),
            #[cfg(feature = "gpu")]
            Device::Gpu(_) => crate::gpu::read_async(self).await?.to_vec(),
        }
    }

    /// The one element, as `T`.
    ///
    /// # Errors
    /// There is more than one, or `T` is not the element type.
    pub fn to_scalar<T: Element>(&self) -> Result<T> {
        match self.to_vec::<T>()?.as_slice() {
            [x] => Ok(*x),
            _ => Err(Error::argument("to_scalar", format!("shape {:?} is not one element", self.shape()))),
        }
    }

    /// The same values on another device. A no-op where it already is; gradients flow back through the move.
    ///
    /// # Errors
    /// The device refuses.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        match (self.device(), device) {
            (Device::Cpu, Device::Cpu) => Ok(self.clone()),
            #[cfg(feature = "gpu")]
            _ => crate::gpu::move_to(self, device),
        }
    }

    // ---- gradients

    /// A leaf of the gradient graph with these values: [`Tensor::backward`] finds its gradient under this id.
    pub fn requires_grad(&self) -> Self {
        let i = &self.0;
        Tensor(Arc::new(Inner {
            id: TensorId::next(),
            storage: i.storage.clone(),
            layout: i.layout.clone(),
            dtype: i.dtype,
            device: i.device.clone(),
            node: None,
            leaf: true,
        }))
    }

    /// The same values without history.
    pub fn detach(&self) -> Self {
        if !self.tracks_grad() {
            return self.clone();
        }
        self.with_layout(self.0.layout.clone())
    }

    /// Whether gradients flow through this tensor.
    pub fn tracks_grad(&self) -> bool {
        self.0.leaf || self.0.node.is_some()
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.0.node.as_deref()
    }

    /// Gives a fresh result its history.
    pub(crate) fn with_node(self, node: Arc<Node>) -> Self {
        let i = &self.0;
        Tensor(Arc::new(Inner {
            id: i.id,
            storage: i.storage.clone(),
            layout: i.layout.clone(),
            dtype: i.dtype,
            device: i.device.clone(),
            node: Some(node),
            leaf: false,
        }))
    }

    /// The history, if this was the last handle to both.
    pub(crate) fn into_node_if_last(self) -> Option<Node> {
        Arc::into_inner(self.0).and_then(|inner| inner.node).and_then(Arc::into_inner)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?}, {}, {})", self.shape(), self.dtype(), self.device())
    }
}
