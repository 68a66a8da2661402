use imaginal_tensor::{DType, Device, Error, Result, Tensor};

use super::{State, damaged, put, put_values, take, take_values};

/// Keys and values of the tokens an attention layer has seen, f32.
///
/// Room for positions grows by half and by whole chunks, so that appending a token writes in place.
#[derive(Clone, Debug)]
pub struct KvState {
    batch: usize,
    heads: usize,
    head_dim: usize,
    device: Device,
    len: usize,
    /// `[batch, capacity, heads, head_dim]` each; what lies beyond `len` is of no meaning.
    room: Option<(Tensor, Tensor)>,
}

impl KvState {
    /// Room is made in multiples of this many positions.
    pub const CHUNK: usize = 256;

    /// An empty state for `batch` sequences of `heads` key heads with `head_dim` elements.
    pub fn new(batch: usize, heads: usize, head_dim: usize, device: &Device) -> Self {
        KvState { batch, heads, head_dim, device: device.clone(), len: 0, room: None }
    }

    fn capacity(&self) -> usize {
        self.room.as_ref().map_or(0, |(k, _)| k.shape()[1])
    }

    fn resize(&mut self, capacity: usize) -> Result<()> {
        let empty = || Tensor::zeros([self.batch, capacity, self.heads, self.head_dim], DType::F32, &self.device);
        let (mut k, mut v) = (empty()?, empty()?);
        if let Some((old_k, old_v)) = &self.room
            && self.len > 0
        {
            k.copy_into(1, 0, &old_k.narrow(1, 0, self.len)?)?;
            v.copy_into(1, 0, &old_v.narrow(1, 0, self.len)?)?;
        }
        self.room = Some((k, v));
        Ok(())
    }

    /// Appends keys and values `[batch, t, heads, head_dim]` and returns all, `[batch, len, heads, head_dim]`, as views.
    /// Drop them before the next append, which else has to copy.
    ///
    /// # Errors
    /// The shapes are not those of this state, or memory ends.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let t = k.dim(1)?;
        let shape = [self.batch, t, self.heads, self.head_dim];
        for x in [k, v] {
            if x.shape() != shape {
                return Err(Error::shapes("kv state", &shape, x.shape()));
            }
        }
        let need = self.len + t;
        if need > self.capacity() {
            let room = need.max(self.capacity() + self.capacity() / 2);
            self.resize(room.next_multiple_of(Self::CHUNK))?;
        }
        let Some((all_k, all_v)) = &mut self.room else {
            return Err(Error::argument("kv state", "nothing to append"));
        };
        all_k.copy_into(1, self.len, k)?;
        all_v.copy_into(1, self.len, v)?;
        self.len = need;
        Ok((all_k.narrow(1, 0, need)?, all_v.narrow(1, 0, need)?))
    }
}

impl State for KvState {
    fn len(&self) -> usize {
        self.len
    }

    fn rewind_point(&self, n: usize) -> usize {
        n.min(self.len)
    }

    fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.len {
            return Err(Error::OutOfRange { op: "rewind", what: "length", index: n, bound: self.len + 1 });
        }
        self.len = n;
        Ok(())
    }

    fn mark(&mut self) {}

    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        put(out, self.len);
        if let Some((k, v)) = &self.room
            && self.len > 0
        {
            put_values(out, &k.narrow(1, 0, self.len)?)?;
            put_values(out, &v.narrow(1, 0, self.len)?)?;
        }
        Ok(())
    }

    fn restore(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let mut rest = *bytes;
        let mut new = KvState::new(self.batch, self.heads, self.head_dim, &self.device);
        let len = take(&mut rest)?;
        if len > 0 {
            // The values are checked against the bytes that are there before anything is sized by `len`.
            if len > rest.len() {
                return Err(damaged("it ends early"));
            }
            let shape = [self.batch, len, self.heads, self.head_dim];
            let k = take_values(&mut rest, &shape, &self.device)?;
            let v = take_values(&mut rest, &shape, &self.device)?;
            new.append(&k, &v)?;
        }
        *self = new;
        *bytes = rest;
        Ok(())
    }

    fn bytes(&self) -> usize {
        2 * 4 * self.batch * self.capacity() * self.heads * self.head_dim
    }
}
