use std::ops::Range;

use imaginal_tensor::{DType, Device, Error, Result, Tensor};

use super::{State, put, put_values, take, take_values};

/// The state of a recurrent layer: tensors of fixed shapes (a convolution tail, a hidden state, …), with snapshots to go
/// back to.
#[derive(Clone, Debug)]
pub struct RecurrentState {
    shapes: Vec<Vec<usize>>,
    device: Device,
    len: usize,
    /// `None` before the first token: zeros.
    now: Option<Vec<Tensor>>,
    /// By length, all above 0 and at or below `len`.
    snapshots: Vec<(usize, Vec<Tensor>)>,
}

impl RecurrentState {
    /// A snapshot is taken whenever the length reaches a multiple of this.
    pub const SPACING: usize = 256;
    /// How many snapshots are kept.
    pub const MOST: usize = 16;

    /// The state before the first token: zeros of these shapes, in f32.
    pub fn new(shapes: Vec<Vec<usize>>, device: &Device) -> Self {
        RecurrentState { shapes, device: device.clone(), len: 0, now: None, snapshots: Vec::new() }
    }

    /// Runs `tokens` more tokens. `step` gets a range of them (counted from 0) with the tensors before it, and returns its
    /// result `[batch, range, ..]` and the tensors after it. It is called once for each stretch between snapshots; what it
    /// returns is joined.
    ///
    /// # Errors
    /// Those of `step`, or tensors of other shapes. What ran before stays; who wants it undone keeps a clone.
    pub fn run(
        &mut self,
        tokens: usize,
        mut step: impl FnMut(Range<usize>, &[Tensor]) -> Result<(Tensor, Vec<Tensor>)>,
    ) -> Result<Tensor> {
        let mut done = 0;
        let mut parts = Vec::new();
        while done < tokens {
            let end = tokens.min(done + self.until_snapshot());
            let (y, tensors) = step(done..end, &self.current()?)?;
            self.advance(end - done, tensors)?;
            parts.push(y);
            done = end;
        }
        match parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1),
        }
    }

    /// [`RecurrentState::run`] where there is a state; else all at once from nothing, with gradients.
    ///
    /// # Errors
    /// As [`RecurrentState::run`].
    pub fn run_or_start(
        state: Option<&mut RecurrentState>,
        tokens: usize,
        mut step: impl FnMut(Range<usize>, Option<&[Tensor]>) -> Result<(Tensor, Vec<Tensor>)>,
    ) -> Result<Tensor> {
        match state {
            Some(state) => state.run(tokens, |range, tensors| step(range, Some(tensors))),
            None => Ok(step(0..tokens, None)?.0),
        }
    }

    fn current(&self) -> Result<Vec<Tensor>> {
        match &self.now {
            Some(now) => Ok(now.clone()),
            None => self.shapes.iter().map(|shape| Tensor::zeros(&shape[..], DType::F32, &self.device)).collect(),
        }
    }

    /// How many tokens may be run before the state has to be handed over for a snapshot. At least 1.
    fn until_snapshot(&self) -> usize {
        Self::SPACING - self.len % Self::SPACING
    }

    /// Takes the tensors over that are reached after `t` more tokens, at most [`RecurrentState::until_snapshot`].
    fn advance(&mut self, t: usize, tensors: Vec<Tensor>) -> Result<()> {
        if tensors.len() != self.shapes.len() {
            return Err(Error::argument("recurrent state", "another number of tensors"));
        }
        for (tensor, shape) in tensors.iter().zip(&self.shapes) {
            if tensor.shape() != shape {
                return Err(Error::shapes("recurrent state", shape, tensor.shape()));
            }
        }
        self.now = Some(tensors.into_iter().map(|t| t.detach()).collect());
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

/// Tokens `range` of `x[batch, tokens, ..]`; all of them without a view, whose gradient would be a copy.
pub(crate) fn tokens(x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    if range.len() == x.dim(1)? { Ok(x.clone()) } else { x.narrow(1, range.start, range.len()) }
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
        let mut new = RecurrentState::new(self.shapes.clone(), &self.device);
        new.len = take(&mut rest)?;
        if new.len > 0 {
            let tensors = self.shapes.iter().map(|shape| take_values(&mut rest, shape, &self.device));
            new.now = Some(tensors.collect::<Result<_>>()?);
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
