use imaginal_numeric::Format;
use imaginal_tensor::{AttentionOpts, Device, Error, KvCache, Result, Tensor};

use super::{State, damaged, put, take};

/// Keys and values of the tokens an attention layer has seen, in a number format: f32, f16, bf16, q8_0 or q4_0.
#[derive(Clone, Debug)]
pub struct KvState(KvCache);

impl KvState {
    /// An empty state for `batch` sequences of `heads` key heads with `head_dim` elements.
    ///
    /// # Errors
    /// A cache cannot have the format, or not with heads of this size, or not on this device (see [`KvCache::new`]).
    pub fn new(format: Format, batch: usize, heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        Ok(KvState(KvCache::new(format, batch, heads, head_dim, device)?))
    }

    /// An empty state for keys of `dim` elements whose first `value_dim` are the values (see [`KvCache::latent`]).
    ///
    /// # Errors
    /// As [`KvState::new`].
    pub fn latent(format: Format, batch: usize, dim: usize, value_dim: usize, device: &Device) -> Result<Self> {
        Ok(KvState(KvCache::latent(format, batch, dim, value_dim, device)?))
    }

    /// Appends keys that hold their values, `[batch, t, 1, dim]`.
    ///
    /// # Errors
    /// The shape is not that of this state, or memory ends.
    pub fn append_latent(&mut self, rows: &Tensor) -> Result<()> {
        self.0.append_latent(rows)
    }

    /// All rows that were appended (see [`KvCache::latents`]).
    ///
    /// # Errors
    /// The state holds keys and values apart, or memory ends.
    pub fn latents(&self) -> Result<Tensor> {
        self.0.latents()
    }

    /// Appends keys and values `[batch, t, heads, head_dim]`.
    ///
    /// # Errors
    /// As [`KvState::append_latent`].
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        self.0.append(k, v)
    }

    /// Attends to all that was appended, as [`Tensor::attention_cached`].
    ///
    /// # Errors
    /// The shapes are not those of this state.
    pub fn look(&self, q: &Tensor, sinks: Option<&Tensor>, opts: &AttentionOpts) -> Result<Tensor> {
        q.attention_cached(&self.0, sinks, opts)
    }

    /// [`KvState::append`], then [`KvState::look`].
    ///
    /// # Errors
    /// As both.
    pub fn attend(
        &mut self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        sinks: Option<&Tensor>,
        opts: &AttentionOpts,
    ) -> Result<Tensor> {
        self.append(k, v)?;
        self.look(q, sinks, opts)
    }
}

impl State for KvState {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn rewind_point(&self, n: usize) -> usize {
        n.min(self.len())
    }

    fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.len() {
            return Err(Error::OutOfRange { op: "rewind", what: "length", index: n, bound: self.len() + 1 });
        }
        self.0.truncate(n);
        Ok(())
    }

    fn mark(&mut self) {}

    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        put(out, self.len());
        // Formats of one size must not be taken for each other.
        put(out, self.0.format().info().ggml_type.map_or(usize::MAX, |t| t as usize));
        self.0.save(out)
    }

    fn restore(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let mut rest = *bytes;
        let (len, format) = (take(&mut rest)?, take(&mut rest)?);
        if self.0.format().info().ggml_type.map(|t| t as usize) != Some(format) {
            return Err(damaged("its keys and values are in another format"));
        }
        // Nothing is sized by `len` before the bytes are known to be there.
        let size = self.0.saved_bytes(len).ok_or_else(|| damaged("a size is too large"))?;
        let (values, rest) = rest.split_at_checked(size).ok_or_else(|| damaged("it ends early"))?;
        self.0.restore(len, values)?;
        *bytes = rest;
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
