use imaginal_tensor::{DType, Device, Error, Result, Tensor};

use super::{State, put, put_values, take, take_values};

/// The state of a recurrent layer: a convolution tail and a hidden state, with snapshots to go back to.
#[derive(Clone, Debug)]
pub struct RecurrentState {
    shapes: [[usize; 3]; 2],
    device: Device,
    len: usize,
    /// `None` before the first token: zeros.
    now: Option<[Tensor; 2]>,
    /// By length, all above 0 and at or below `len`.
    snapshots: Vec<(usize, [Tensor; 2])>,
}

impl RecurrentState {
    /// A snapshot is taken whenever the length reaches a multiple of this.
    pub const SPACING: usize = 256;
    /// How many snapshots are kept.
    pub const MOST: usize = 16;

    /// The state before the first token: zeros of these shapes (convolution tail, hidden state).
    ///
    /// # Errors
    /// None now; a device may refuse in future.
    pub fn new(shapes: [[usize; 3]; 2], device: &Device) -> Result<Self> {
        Ok(RecurrentState { shapes, device: device.clone(), len: 0, now: None, snapshots: Vec::new() })
    }

    /// The tensors now.
    ///
    /// # Errors
    /// Memory ends.
    pub fn current(&self) -> Result<[Tensor; 2]> {
        match &self.now {
            Some(now) => Ok(now.clone()),
            None => {
                let zeros = |shape| Tensor::zeros(shape, DType::F32, &self.device);
                Ok([zeros(self.shapes[0])?, zeros(self.shapes[1])?])
            }
        }
    }

    /// How many tokens may be run before the state has to be handed over for a snapshot. At least 1.
    pub fn until_snapshot(&self) -> usize {
        Self::SPACING - self.len % Self::SPACING
    }

    /// Takes the tensors over that are reached after `t` more tokens, at most [`RecurrentState::until_snapshot`].
    ///
    /// # Errors
    /// Too many tokens at once, or other shapes.
    pub fn advance(&mut self, t: usize, tensors: [Tensor; 2]) -> Result<()> {
        if t > self.until_snapshot() {
            return Err(Error::argument("recurrent state", "a run must pause at each multiple of the spacing"));
        }
        for (tensor, shape) in tensors.iter().zip(&self.shapes) {
            if tensor.shape() != shape {
                return Err(Error::shapes("recurrent state", shape, tensor.shape()));
            }
        }
        self.now = Some(tensors.map(|t| t.detach()));
        self.len += t;
        if self.len.is_multiple_of(Self::SPACING) {
            self.mark();
        }
        Ok(())
    }

    /// Drops the snapshot whose loss costs least: the gap it would leave, compared with how far back that lies. The
    /// newest stays.
    fn thin(&mut self) {
        let at = |i: usize| self.snapshots[i].0;
        let cost = |i: usize| {
            let before = if i == 0 { 0 } else { at(i - 1) };
            (at(i + 1) - before) as f64 / (self.len - at(i)).max(1) as f64
        };
        let last = self.snapshots.len() - 1;
        if let Some(i) = (0..last).min_by(|&a, &b| cost(a).total_cmp(&cost(b))) {
            self.snapshots.remove(i);
        }
    }
}

impl State for RecurrentState {
    fn len(&self) -> usize {
        self.len
    }

    fn rewind_point(&self, n: usize) -> usize {
        if n >= self.len {
            return self.len;
        }
        self.snapshots.iter().rev().map(|s| s.0).find(|&at| at <= n).unwrap_or(0)
    }

    fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.len || self.rewind_point(n) != n {
            let at = self.rewind_point(n);
            return Err(Error::argument(
                "rewind",
                format!("no snapshot at {n}; go back to {at} and feed the tokens after it again"),
            ));
        }
        if n == self.len {
            return Ok(());
        }
        self.snapshots.retain(|s| s.0 <= n);
        self.now = self.snapshots.last().filter(|s| s.0 == n).map(|s| s.1.clone());
        self.len = n;
        Ok(())
    }

    fn mark(&mut self) {
        if self.snapshots.last().is_some_and(|s| s.0 == self.len) {
            return;
        }
        if let Some(now) = &self.now {
            self.snapshots.push((self.len, now.clone()));
            if self.snapshots.len() > Self::MOST {
                self.thin();
            }
        }
    }

    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        put(out, self.len);
        for t in self.now.iter().flatten() {
            put_values(out, t)?;
        }
        Ok(())
    }

    fn restore(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let mut rest = *bytes;
        let mut new = RecurrentState::new(self.shapes, &self.device)?;
        new.len = take(&mut rest)?;
        if new.len > 0 {
            let [tail, hidden] = self.shapes;
            new.now =
                Some([take_values(&mut rest, &tail, &self.device)?, take_values(&mut rest, &hidden, &self.device)?]);
        }
        *self = new;
        *bytes = rest;
        Ok(())
    }

    fn bytes(&self) -> usize {
        let one: usize = self.shapes.iter().map(|s| 4 * s.iter().product::<usize>()).sum();
        one * (self.snapshots.len() + self.now.iter().count())
    }
}
