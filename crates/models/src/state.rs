use imaginal_nn::{Attention, Error as TensorError, KvState, RecurrentState, SharedKv, State};
use imaginal_tensor::Tensor;

/// The memory of one block.
#[derive(Clone, Debug)]
pub(crate) enum BlockState {
    /// Blocks that remember nothing.
    None,
    Kv(KvState),
    Recurrent(RecurrentState),
}

/// The memory of a whole model: that of all its blocks, which always have seen the same number of tokens.
///
/// See [`imaginal_nn::state`] for what growing, rewinding and forking mean.
#[derive(Clone, Debug)]
pub struct ModelState {
    pub(crate) batch: usize,
    pub(crate) len: usize,
    pub(crate) blocks: Vec<BlockState>,
    /// Of models whose positions turn otherwise in long texts.
    pub(crate) turning: Option<Turning>,
}

/// What LongRoPE needs to know of a text: its factors are others once it is longer than the model's original context, and
/// what was remembered until then holds no more.
#[derive(Clone, Debug)]
pub(crate) struct Turning {
    /// The last length that has the factors of short texts.
    pub at: usize,
    /// The tokens so far, those of all sequences side by side `[len, batch]`; none of a text longer than that.
    pub seen: Vec<u32>,
}

/// Runs `$e` on the state of a block that has one.
macro_rules! on {
    ($block:expr, $s:ident => $e:expr, $none:expr) => {
        match $block {
            BlockState::None => $none,
            BlockState::Kv($s) => $e,
            BlockState::Recurrent($s) => $e,
        }
    };
}

type Result<T> = std::result::Result<T, TensorError>;

/// Marks the beginning of saved bytes.
const MAGIC: &[u8; 8] = b"IMGSTAT3";

impl ModelState {
    /// How many sequences it holds side by side.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What is needed to take a run back that failed half way. Keys and values only forget, so that nothing is copied.
    pub(crate) fn before(&self) -> Vec<BlockState> {
        let keep = |b: &BlockState| match b {
            BlockState::Recurrent(s) => BlockState::Recurrent(s.clone()),
            _ => BlockState::None,
        };
        self.blocks.iter().map(keep).collect()
    }

    /// If `t` tokens more make the text a long one: those before them, to be computed again, `[batch, len]`.
    pub(crate) fn to_run_again(&self, t: usize) -> Option<Vec<u32>> {
        let turning = self.turning.as_ref()?;
        let crosses = (1..=turning.at).contains(&self.len) && self.len + t > turning.at;
        let sequence = |b| turning.seen.iter().skip(b).step_by(self.batch);
        crosses.then(|| (0..self.batch).flat_map(sequence).copied().collect())
    }

    /// Counts tokens `[batch, t]` that its blocks have seen.
    pub(crate) fn grow(&mut self, ids: &[u32]) {
        let t = ids.len() / self.batch;
        self.len += t;
        match &mut self.turning {
            Some(turning) if self.len <= turning.at => {
                turning.seen.extend((0..t).flat_map(|i| ids.iter().skip(i).step_by(t)));
            }
            Some(turning) => turning.seen.clear(),
            None => {}
        }
    }

    pub(crate) fn take_back(&mut self, before: Vec<BlockState>) {
        for (block, old) in self.blocks.iter_mut().zip(before) {
            match (block, old) {
                (BlockState::Kv(s), _) => {
                    let _ = s.rewind(self.len.min(s.len()));
                }
                (block @ BlockState::Recurrent(_), old) => *block = old,
                (BlockState::None, _) => {}
            }
        }
    }
}

impl State for ModelState {
    fn len(&self) -> usize {
        self.len
    }

    fn rewind_point(&self, n: usize) -> usize {
        let mut at = n.min(self.len);
        if let Some(turning) = &self.turning
            && at <= turning.at
            && turning.at < self.len
        {
            return 0;
        }
        // Each block can go back to points of its own; the answer is the highest that all of them have.
        loop {
            let lowest = self.blocks.iter().map(|b| on!(b, s => s.rewind_point(at), at)).min().unwrap_or(at);
            if lowest == at {
                return at;
            }
            at = lowest;
        }
    }

    fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.len || self.rewind_point(n) != n {
            let at = self.rewind_point(n);
            return Err(TensorError::argument(
                "rewind",
                format!("cannot go from {} back to {n}; go to {at} and feed the tokens after it again", self.len),
            ));
        }
        for block in &mut self.blocks {
            on!(block, s => s.rewind(n)?, ());
        }
        self.len = n;
        if let Some(turning) = &mut self.turning {
            turning.seen.truncate(n * self.batch);
        }
        Ok(())
    }

    fn mark(&mut self) {
        for block in &mut self.blocks {
            on!(block, s => s.mark(), ());
        }
    }

    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend(MAGIC);
        let seen = self.turning.as_ref().map_or(&[][..], |turning| &turning.seen);
        for x in [self.batch, self.len, self.blocks.len(), seen.len()] {
            out.extend((x as u64).to_le_bytes());
        }
        out.extend(seen.iter().flat_map(|id| id.to_le_bytes()));
        for block in &self.blocks {
            on!(block, s => s.save(out)?, ());
        }
        Ok(())
    }

    fn restore(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let damaged = |what: &str| TensorError::argument("restore", format!("not a saved state of this model: {what}"));
        let mut rest = *bytes;
        rest = rest.strip_prefix(MAGIC).ok_or_else(|| damaged("it begins otherwise"))?;
        let mut number = || {
            let (head, tail) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("it ends early"))?;
            rest = tail;
            Ok::<u64, TensorError>(u64::from_le_bytes(*head))
        };
        let (batch, len, blocks, seen) = (number()?, number()?, number()?, number()?);
        if batch != self.batch as u64 || blocks != self.blocks.len() as u64 {
            return Err(damaged("another batch or number of blocks"));
        }
        let mut new = self.clone();
        let wanted = match &self.turning {
            Some(turning) if len <= turning.at as u64 => len.saturating_mul(batch),
            _ => 0,
        };
        let size = usize::try_from(seen).ok().and_then(|seen| seen.checked_mul(4)).filter(|_| seen == wanted);
        let (tokens, tail) = size
            .ok_or_else(|| damaged("another number of tokens"))
            .and_then(|size| rest.split_at_checked(size).ok_or_else(|| damaged("it ends early")))?;
        rest = tail;
        if let Some(turning) = &mut new.turning {
            turning.seen = tokens.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
        }
        for block in &mut new.blocks {
            let block_len = on!(block, s => { s.restore(&mut rest)?; s.len() as u64 }, len);
            if block_len != len {
                return Err(damaged("its blocks have seen different numbers of tokens"));
            }
        }
        new.len = usize::try_from(len).map_err(|_| damaged("its length is too large"))?;
        *self = new;
        *bytes = rest;
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.blocks.iter().map(|b| on!(b, s => s.bytes(), 0)).sum()
    }
}

/// What the blocks of one run find from before and from each other, block after block.
pub(crate) struct Memory<'a> {
    states: Option<&'a mut [BlockState]>,
    /// The number of the block after the present one, counted over all layers.
    next: usize,
    /// Blocks whose keys and values others have as well.
    lenders: Vec<usize>,
    /// Their keys and values, where there are no states.
    lent: Vec<(usize, Tensor, Tensor)>,
}

impl<'a> Memory<'a> {
    pub fn new(states: Option<&'a mut [BlockState]>, lenders: Vec<usize>) -> Self {
        Memory { states, next: 0, lenders, lent: Vec::new() }
    }

    /// Goes on to the next block, first to the first.
    pub fn step(&mut self) {
        self.next += 1;
    }

    /// The state of the present block.
    pub fn state(&mut self) -> Option<&mut BlockState> {
        self.states.as_mut().and_then(|states| states.get_mut(self.next.wrapping_sub(1)))
    }

    /// The result of the present block, which is this one; `shared` is the block whose keys and values it has, if they are
    /// not its own.
    pub fn attention(&mut self, block: &Attention, x: &Tensor, shared: Option<usize>) -> Result<Tensor> {
        let other = || TensorError::argument("forward", "the state was made for another model");
        let at = self.next.wrapping_sub(1);
        match (&mut self.states, shared) {
            (Some(states), None) => match states.get_mut(at) {
                Some(BlockState::Kv(state)) => block.forward(x, Some(state)),
                _ => Err(other()),
            },
            (Some(states), Some(lender)) => match states.get(lender) {
                Some(BlockState::Kv(state)) => block.borrow(x, SharedKv::State(state)),
                _ => Err(other()),
            },
            (None, None) if self.lenders.contains(&at) => {
                let (y, (k, v)) = block.lend(x)?;
                self.lent.push((at, k, v));
                Ok(y)
            }
            (None, None) => block.forward(x, None),
            (None, Some(lender)) => match self.lent.iter().find(|lent| lent.0 == lender) {
                Some((_, k, v)) => block.borrow(x, SharedKv::Tensors(k, v)),
                None => Err(other()),
            },
        }
    }
}
