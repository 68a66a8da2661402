//! Keys and values of a growing sequence in a number format, and attention over them.

use std::sync::Arc;

use imaginal_kernels::attention::{CacheLayout, Cached};
use imaginal_numeric::Format;

use super::{AttentionOpts, Sizes, cpu};
use crate::buffer::Buffer;
use crate::{DType, Device, Error, Result, Tensor};

/// Keys and values of the positions that an attention layer has seen, rounded to a number format when they are appended
/// and never expanded: attention computes on them as they are.
///
/// Room for positions grows by half and by whole chunks, so that appending a token writes in place. Clones share their
/// memory until one of them is appended to.
#[derive(Clone)]
pub struct KvCache {
    format: Format,
    batch: usize,
    heads: usize,
    dim: usize,
    device: Device,
    len: usize,
    /// Elements of a value, where values are the beginnings of keys.
    latent: Option<usize>,
    room: Option<Room>,
}

/// Memory for keys and for values, or for keys alone where they hold the values. What lies beyond the cache's length is of no meaning.
#[derive(Clone)]
enum Room {
    Cpu {
        layout: CacheLayout,
        parts: Vec<Arc<Buffer>>,
    },
    /// On other devices f32 tensors `[batch, capacity, heads, dim]`.
    #[cfg(feature = "gpu")]
    Tensors {
        parts: Vec<Tensor>,
    },
}

const OP: &str = "key-value cache";

impl KvCache {
    /// Room is made in multiples of this many positions.
    pub const CHUNK: usize = 256;

    /// The formats that a cache may have.
    pub const FORMATS: [Format; 5] = CacheLayout::FORMATS;

    /// An empty cache for `batch` sequences of `heads` key heads with `dim` elements.
    ///
    /// # Errors
    /// The format is none of [`KvCache::FORMATS`], `dim` is no whole number of its blocks, or the device has no kernels
    /// for it: there it must be f32.
    pub fn new(format: Format, batch: usize, heads: usize, dim: usize, device: &Device) -> Result<Self> {
        if !Self::FORMATS.contains(&format) {
            let names = Self::FORMATS.map(Format::name).join(", ");
            return Err(Error::argument(OP, format!("{format} is no format of a cache; there are {names}")));
        }
        if !dim.is_multiple_of(format.block_len()) {
            let len = format.block_len();
            return Err(Error::argument(OP, format!("heads of {dim} elements are no whole {format} blocks of {len}")));
        }
        if !device.is_cpu() && format != Format::F32 {
            return Err(Error::argument(OP, format!("on {device} a cache is f32, not {format}")));
        }
        Ok(KvCache { format, batch, heads, dim, device: device.clone(), len: 0, latent: None, room: None })
    }

    /// An empty cache for `batch` sequences of one key head with `dim` elements, of which the first `value_dim` are the value
    /// (DeepSeek V2, §2.1). It is appended to by [`KvCache::append_latent`].
    ///
    /// # Errors
    /// As [`KvCache::new`], or values are longer than keys or no whole blocks.
    pub fn latent(format: Format, batch: usize, dim: usize, value_dim: usize, device: &Device) -> Result<Self> {
        let cache = KvCache::new(format, batch, 1, dim, device)?;
        if value_dim > dim || !value_dim.is_multiple_of(format.block_len()) {
            let what = format!("values of {value_dim} elements are no beginnings of {format} keys of {dim}");
            return Err(Error::argument(OP, what));
        }
        Ok(KvCache { latent: Some(value_dim), ..cache })
    }

    /// Tensors it holds: keys and values, or keys alone.
    fn parts(&self) -> usize {
        if self.latent.is_some() { 1 } else { 2 }
    }

    /// The number format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Positions it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it holds, memory shared with clones included.
    pub fn bytes(&self) -> usize {
        self.parts() * self.layout(self.capacity()).map_or(0, |l| l.bytes())
    }

    /// Forgets all positions from `len` on, if there are more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn capacity(&self) -> usize {
        match &self.room {
            None => 0,
            Some(Room::Cpu { layout, .. }) => layout.capacity(),
            #[cfg(feature = "gpu")]
            Some(Room::Tensors { parts }) => parts[0].shape()[1],
        }
    }

    fn layout(&self, capacity: usize) -> Result<CacheLayout> {
        CacheLayout::new(self.format, self.batch, self.heads, capacity, self.dim)
            .ok_or_else(|| Error::argument(OP, format!("{capacity} positions do not fit in memory")))
    }

    /// Appends keys and values `[batch, t, heads, dim]`, f32.
    ///
    /// # Errors
    /// The tensors are not of this shape, type and device, or memory ends; the cache is unchanged.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        self.append_parts(&[k, v])
    }

    /// Appends keys that hold their values, `[batch, t, 1, dim]`, f32.
    ///
    /// # Errors
    /// As [`KvCache::append`].
    pub fn append_latent(&mut self, rows: &Tensor) -> Result<()> {
        self.append_parts(&[rows])
    }

    /// Everything that [`KvCache::append_latent`] was given, as it was rounded, `[batch, len, 1, dim]`, f32.
    ///
    /// # Errors
    /// The cache holds keys and values apart, or memory ends.
    pub fn latents(&self) -> Result<Tensor> {
        let shape = [self.batch, self.len, self.heads, self.dim];
        match &self.room {
            _ if self.latent.is_none() => Err(Error::argument(OP, "it holds keys and values apart")),
            None => Tensor::zeros(shape, DType::F32, &self.device),
            #[cfg(feature = "gpu")]
            Some(Room::Tensors { parts }) => parts[0].narrow(1, 0, self.len),
            Some(Room::Cpu { layout, parts }) => Tensor::build::<f32>(shape, |out| {
                for (i, row) in out.chunks_exact_mut(self.dim.max(1)).enumerate() {
                    layout.read(parts[0].bytes(), i / self.len, 0, i % self.len, row);
                }
                Ok(())
            }),
        }
    }

    fn append_parts(&mut self, all: &[&Tensor]) -> Result<()> {
        if all.len() != self.parts() {
            return Err(Error::argument(OP, "whether values are part of keys is known when a cache is made"));
        }
        let t = all[0].dim(1)?;
        let shape = [self.batch, t, self.heads, self.dim];
        for x in all {
            if x.shape() != shape {
                return Err(Error::shapes(OP, &shape, x.shape()));
            }
            if x.dtype() != DType::F32 {
                return Err(Error::DType { op: OP, got: x.dtype(), expected: DType::F32.to_string() });
            }
            if *x.device() != self.device {
                let (lhs, rhs) = (self.device.to_string(), x.device().to_string());
                return Err(Error::DeviceMismatch { op: OP, lhs, rhs });
            }
        }
        let need = self.len.checked_add(t).ok_or_else(|| Error::argument(OP, "too many positions"))?;
        let capacity = match self.capacity() {
            enough if need <= enough && enough > 0 => enough,
            small => need.max(small + small / 2).max(1).next_multiple_of(Self::CHUNK),
        };
        #[cfg(feature = "gpu")]
        if !self.device.is_cpu() {
            return self.append_tensors(all, capacity);
        }
        let all: Vec<Tensor> = all.iter().map(|x| cpu::dense_heads(x)).collect::<Result<_>>()?;
        let (layout, mut parts) = self.writable(capacity)?;
        for (x, buffer) in all.iter().zip(&mut parts) {
            layout.write(buffer.bytes_mut(), self.len, t, cpu::heads(x)?);
        }
        self.put(layout, parts, need);
        Ok(())
    }

    /// Takes the buffers out if nobody else holds them and they have this capacity, else copies them.
    fn writable(&mut self, capacity: usize) -> Result<(CacheLayout, Vec<Buffer>)> {
        let wanted = self.layout(capacity)?;
        let copy = |layout: &CacheLayout, from: &Buffer, len: usize| {
            let mut to = Buffer::scratch(wanted.bytes());
            layout.copy(from.bytes(), &wanted, to.bytes_mut(), len);
            to
        };
        let len = self.len;
        let parts = match self.room.take() {
            Some(Room::Cpu { layout, parts }) => {
                let part = |part| match Arc::try_unwrap(part) {
                    Ok(own) if layout == wanted => own,
                    Ok(own) => copy(&layout, &own, len),
                    Err(shared) => copy(&layout, &shared, len),
                };
                parts.into_iter().map(part).collect()
            }
            _ => (0..self.parts()).map(|_| Buffer::scratch(wanted.bytes())).collect(),
        };
        Ok((wanted, parts))
    }

    fn put(&mut self, layout: CacheLayout, parts: Vec<Buffer>, len: usize) {
        let parts = parts.into_iter().map(Arc::new).collect();
        self.room = Some(Room::Cpu { layout, parts });
        self.len = len;
    }

    #[cfg(feature = "gpu")]
    fn append_tensors(&mut self, all: &[&Tensor], capacity: usize) -> Result<()> {
        let t = all[0].dim(1)?;
        let mut parts = match &self.room {
            Some(Room::Tensors { parts }) if parts[0].shape()[1] == capacity => parts.clone(),
            _ => {
                let mut new = Vec::new();
                for i in 0..self.parts() {
                    let shape = [self.batch, capacity, self.heads, self.dim];
                    let mut part = Tensor::zeros(shape, DType::F32, &self.device)?;
                    if let (Some(Room::Tensors { parts }), true) = (&self.room, self.len > 0) {
                        part.copy_into(1, 0, &parts[i].narrow(1, 0, self.len)?)?;
                    }
                    new.push(part);
                }
                new
            }
        };
        // The only handles now, unless a clone of the cache has others.
        self.room = None;
        let written = parts.iter_mut().zip(all).try_for_each(|(part, x)| part.copy_into(1, self.len, x));
        self.room = Some(Room::Tensors { parts });
        written?;
        self.len += t;
        Ok(())
    }

    /// The bytes of `len` positions, keys and values each, as [`KvCache::save`] writes them; `None` if they overflow.
    pub fn saved_bytes(&self, len: usize) -> Option<usize> {
        self.layout(len).ok()?.bytes().checked_mul(self.parts())
    }

    /// Appends the keys, then the values to `out`, in the format they have.
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        match &self.room {
            None => {}
            Some(Room::Cpu { layout, parts }) => {
                let dense = self.layout(self.len)?;
                for part in parts {
                    let start = out.len();
                    out.resize(start + dense.bytes(), 0);
                    layout.copy(part.bytes(), &dense, &mut out[start..], self.len);
                }
            }
            #[cfg(feature = "gpu")]
            Some(Room::Tensors { parts }) => {
                for part in parts {
                    let values = part.narrow(1, 0, self.len)?.transpose(1, 2)?.to_vec::<f32>()?;
                    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        Ok(())
    }

    /// Replaces the contents by `len` positions that [`KvCache::save`] wrote.
    ///
    /// # Errors
    /// They are not as many bytes as that takes, or memory ends; the cache is unchanged.
    pub fn restore(&mut self, len: usize, bytes: &[u8]) -> Result<()> {
        if self.saved_bytes(len) != Some(bytes.len()) {
            return Err(Error::argument(OP, format!("{} bytes are not {len} positions", bytes.len())));
        }
        let mut new = KvCache { len: 0, room: None, ..self.clone() };
        let size = (bytes.len() / self.parts()).max(1);
        #[cfg(feature = "gpu")]
        if !self.device.is_cpu() {
            let part = |bytes: &[u8]| -> Result<Tensor> {
                let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&c| f32::from_le_bytes(c)).collect();
                let shape = [self.batch, self.heads, len, self.dim];
                Tensor::from_vec(values, shape, &Device::Cpu)?.transpose(1, 2)?.contiguous()?.to_device(&self.device)
            };
            if len > 0 {
                let all: Vec<Tensor> = bytes.chunks(size).map(part).collect::<Result<_>>()?;
                new.append_parts(&all.iter().collect::<Vec<_>>())?;
            }
            *self = new;
            return Ok(());
        }
        let dense = self.layout(len)?;
        let (layout, mut parts) = new.writable(len.max(1).next_multiple_of(Self::CHUNK))?;
        for (part, bytes) in parts.iter_mut().zip(bytes.chunks(size)) {
            dense.copy(bytes, &layout, part.bytes_mut(), len);
        }
        new.put(layout, parts, len);
        *self = new;
        Ok(())
    }
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let KvCache { format, batch, heads, dim, len, .. } = self;
        write!(f, "KvCache([{batch}, {len}, {heads}, {dim}], {format}, {})", self.device)
    }
}

impl Tensor {
    /// [`Tensor::attention`] of queries `[batch, tq, hq, dim]` over all positions of a cache. No gradients are recorded.
    ///
    /// # Errors
    /// As [`Tensor::attention`].
    pub fn attention_cached(&self, cache: &KvCache, sinks: Option<&Tensor>, opts: &AttentionOpts) -> Result<Tensor> {
        let op = "attention";
        match &cache.room {
            #[cfg(feature = "gpu")]
            Some(Room::Tensors { parts }) => {
                let [k, v] = [0, parts.len() - 1].map(|i| parts[i].narrow(1, 0, cache.len));
                let (k, v) = (k?, v?.narrow(3, 0, cache.latent.unwrap_or(cache.dim))?);
                self.attention(&k, &v, sinks, opts)
            }
            Some(Room::Cpu { layout, parts }) => {
                if self.dtype() != DType::F32 {
                    return Err(Error::DType { op, got: self.dtype(), expected: DType::F32.to_string() });
                }
                let [b, tq, hq, d] = self.dims_n(op)?;
                let shape = [cache.batch, cache.len, cache.heads, cache.dim];
                if (b, d) != (cache.batch, cache.dim) || shape[2] == 0 || !hq.is_multiple_of(shape[2]) {
                    return Err(Error::shapes(op, self.shape(), &shape));
                }
                let dv = cache.latent.unwrap_or(d);
                let s = Sizes { b, tq, hq, tk: cache.len, hk: cache.heads, d, dv };
                s.check(sinks, opts)?;
                let [k, v] = [0, parts.len() - 1].map(|i| Cached { layout: *layout, bytes: parts[i].bytes() });
                cpu::forward_cached(self, k, v, sinks, &s, opts)
            }
            None => Err(Error::argument(op, "the cache is empty")),
        }
    }
}
