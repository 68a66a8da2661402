//! What a layer remembers of the tokens it has seen, and how that grows, goes back and divides.
//!
//! One contract for keys and values, recurrent states and whatever comes, so that prefix reuse, speculation and
//! sessions work the same on every kind of model:
//!
//! - **Grow.** A layer's forward pass appends its tokens. Between two calls the state is complete up to [`State::len`].
//! - **Rewind.** [`State::rewind`] goes back to exactly the state at an earlier length, where that is possible at once:
//!   everywhere for keys and values, at snapshots for recurrent states, at 0 for all. [`State::rewind_point`] says
//!   which length at or below the wanted one that is; the tokens between are the caller's to feed again. A recurrent
//!   state takes a snapshot at every multiple of [`RecurrentState::SPACING`] tokens, pausing a longer run there, and
//!   wherever [`State::mark`] is called; when it has [`RecurrentState::MOST`], it drops one where they lie densest
//!   compared with their age. Which ones depends on the lengths alone, so that all layers of a model agree.
//! - **Fork.** `clone()` makes an independent state that shares memory until one of the two writes.
//! - **Save and restore.** The present goes into bytes and comes back; snapshots do not, so that a restored recurrent
//!   state rewinds to 0 and to nowhere else below its length.

mod kv;
mod recurrent;
#[cfg(test)]
mod tests;

pub use kv::KvState;
pub use recurrent::RecurrentState;
pub(crate) use recurrent::tokens;

use imaginal_tensor::{Device, Error, Result, Tensor};

/// The memory of one layer, or of a whole model. See the module for the contract.
pub trait State: Clone + Send + Sync {
    /// How many tokens it has seen.
    fn len(&self) -> usize;

    /// Whether it has seen none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest length at or below `n` (and [`State::len`]) that [`State::rewind`] can go back to.
    fn rewind_point(&self, n: usize) -> usize;

    /// Goes back to the state after `n` tokens.
    ///
    /// # Errors
    /// `n` is no rewind point; the state is unchanged.
    fn rewind(&mut self, n: usize) -> Result<()>;

    /// Makes the present length a rewind point, if it is not one anyway.
    fn mark(&mut self);

    /// Appends the present to `out`.
    ///
    /// # Errors
    /// The device cannot be read.
    fn save(&self, out: &mut Vec<u8>) -> Result<()>;

    /// Replaces the state by a saved one, taking its bytes off the front of `bytes`.
    ///
    /// # Errors
    /// The bytes are cut off or of a state of another shape; the state is unchanged.
    fn restore(&mut self, bytes: &mut &[u8]) -> Result<()>;

    /// Bytes it holds, memory shared with forks included.
    fn bytes(&self) -> usize;
}

fn damaged(what: &str) -> Error {
    Error::argument("restore", format!("the saved state is damaged or of another model: {what}"))
}

/// Writes a number.
fn put(out: &mut Vec<u8>, x: usize) {
    out.extend((x as u64).to_le_bytes());
}

/// Takes a number off the front.
fn take(bytes: &mut &[u8]) -> Result<usize> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| damaged("it ends early"))?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*head)).map_err(|_| damaged("a number is too large"))
}

/// Writes the values of an f32 tensor.
fn put_values(out: &mut Vec<u8>, t: &Tensor) -> Result<()> {
    let values = t.to_vec::<f32>()?;
    put(out, values.len());
    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    Ok(())
}

/// Takes a tensor of this shape off the front.
fn take_values(bytes: &mut &[u8], shape: &[usize], device: &Device) -> Result<Tensor> {
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(|| damaged("a size is too large"))?;
    if take(bytes)? != n {
        return Err(damaged("a tensor has another size"));
    }
    let size = n.checked_mul(4).filter(|&s| s <= bytes.len()).ok_or_else(|| damaged("it ends early"))?;
    let (head, rest) = bytes.split_at(size);
    *bytes = rest;
    let values: Vec<f32> = head.as_chunks::<4>().0.iter().map(|&c| f32::from_le_bytes(c)).collect();
    Tensor::from_vec(values, shape, device)
}
