//! Packing: documents laid end to end, each behind a separator, and cut into sequences of one length.
//!
//! Every epoch lays the documents in another order and cuts at another place, and deals the sequences in another
//! order. All of that follows from the seed and the epoch's number, so that a [`Position`] of two numbers is enough to
//! continue where a run was stopped.

use serde::{Deserialize, Serialize};

use crate::data::corpus::Corpus;
use crate::rng::SplitMix64;
use crate::{Error, Result};

/// How far a run has read.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Complete passes over the data.
    pub epoch: u64,
    /// Sequences taken from the present pass.
    pub sequence: u64,
}

/// Deals sequences out of a corpus.
pub struct Packer<'a> {
    corpus: &'a Corpus,
    separator: u32,
    length: usize,
    seed: u64,
    position: Position,
    epoch: Epoch,
}

/// One pass: the documents in its order, where each begins in the stream, and the sequences in their order.
struct Epoch {
    documents: Vec<u32>,
    /// Where in the stream the separator before each document stands; the last entry is the stream's length.
    starts: Vec<u64>,
    offset: u64,
    order: Vec<u32>,
}

impl<'a> Packer<'a> {
    /// Deals sequences of `length` inputs and as many targets (the inputs shifted by one), beginning at `position`.
    ///
    /// # Errors
    /// The corpus has too few tokens for one sequence.
    pub fn new(corpus: &'a Corpus, separator: u32, length: usize, seed: u64, position: Position) -> Result<Self> {
        let stream = corpus.tokens() + corpus.documents() as u64;
        if length == 0 || stream < length as u64 + 1 {
            return Err(Error::option(
                "context",
                format!(
                    "a sequence of {length} tokens does not fit into the {stream} tokens of training data; give more \
                     data or a shorter --context"
                ),
            ));
        }
        let epoch = Epoch::new(corpus, length, seed, position.epoch);
        Ok(Packer { corpus, separator, length, seed, position, epoch })
    }

    /// Where the next sequence will come from.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Sequences in the present pass.
    pub fn sequences(&self) -> usize {
        self.epoch.order.len()
    }

    /// The next `batch` sequences: inputs and targets, each `[batch, length]` row-major.
    pub fn next_batch(&mut self, batch: usize) -> (Vec<u32>, Vec<u32>) {
        let mut inputs = Vec::with_capacity(batch * self.length);
        let mut targets = Vec::with_capacity(batch * self.length);
        let mut tokens = Vec::with_capacity(self.length + 1);
        for _ in 0..batch {
            if self.position.sequence >= self.epoch.order.len() as u64 {
                self.position = Position { epoch: self.position.epoch + 1, sequence: 0 };
                self.epoch = Epoch::new(self.corpus, self.length, self.seed, self.position.epoch);
            }
            let window = u64::from(self.epoch.order[self.position.sequence as usize]);
            self.position.sequence += 1;
            tokens.clear();
            self.read(self.epoch.offset + window * self.length as u64, &mut tokens);
            inputs.extend_from_slice(&tokens[..self.length]);
            targets.extend_from_slice(&tokens[1..]);
        }
        (inputs, targets)
    }

    /// `length + 1` tokens of the stream from `at` on.
    fn read(&self, at: u64, out: &mut Vec<u32>) {
        let mut at = at;
        let wanted = self.length + 1;
        let mut i = self.epoch.starts.partition_point(|&s| s <= at) - 1;
        while out.len() < wanted {
            let document = self.epoch.documents[i] as usize;
            let mut within = (at - self.epoch.starts[i]) as usize;
            if within == 0 {
                out.push(self.separator);
                within = 1;
            }
            let end = self.corpus.document_tokens(document).min(within - 1 + wanted - out.len());
            self.corpus.read(document, within - 1..end, out);
            i += 1;
            at = self.epoch.starts[i];
        }
    }
}

impl Epoch {
    fn new(corpus: &Corpus, length: usize, seed: u64, number: u64) -> Epoch {
        let mut rng = SplitMix64::new(seed, number);
        let mut documents: Vec<u32> = (0..corpus.documents() as u32).collect();
        rng.shuffle(&mut documents);
        let mut starts = Vec::with_capacity(documents.len() + 1);
        let mut at = 0;
        for &d in &documents {
            starts.push(at);
            at += 1 + corpus.document_tokens(d as usize) as u64;
        }
        starts.push(at);
        // A sequence reads one token beyond its inputs; the first cut leaves room for at least one sequence.
        let last = at - 1 - length as u64;
        let offset = rng.below(last.min(length as u64 - 1) + 1);
        let count = (at - 1 - offset) / length as u64;
        let mut order: Vec<u32> = (0..count as u32).collect();
        rng.shuffle(&mut order);
        Epoch { documents, starts, offset, order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::corpus::CorpusWriter;

    const SEP: u32 = 0;

    /// Documents whose tokens say where they stand: 1000 · document + place.
    fn corpus(lengths: &[u32]) -> Corpus {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tokens");
        let mut writer = CorpusWriter::create(&path, 1 << 20).unwrap();
        for (d, &n) in lengths.iter().enumerate() {
            let tokens: Vec<u32> = (1..=n).map(|i| 1000 * (d as u32 + 1) + i).collect();
            writer.push(&tokens, u64::from(n)).unwrap();
        }
        writer.finish().unwrap();
        Corpus::open(&path).unwrap()
    }

    #[test]
    fn an_epoch_deals_every_token_once_and_targets_follow_inputs() {
        let lengths = [5, 0, 17, 1, 40, 3];
        let corpus = corpus(&lengths);
        for seed in 0..20 {
            let mut packer = Packer::new(&corpus, SEP, 4, seed, Position::default()).unwrap();
            let n = packer.sequences();
            let (inputs, targets) = packer.next_batch(n);
            assert_eq!(packer.position(), Position { epoch: 0, sequence: n as u64 });
            let mut seen: Vec<u32> = inputs.iter().copied().filter(|&t| t != SEP).collect();
            seen.sort_unstable();
            let dealt = seen.len();
            seen.dedup();
            assert_eq!(seen.len(), dealt, "no token twice");
            // What is cut off before the first and after the last sequence is less than a sequence each.
            assert!(inputs.len() + 2 * 4 > (lengths.iter().sum::<u32>() as usize + lengths.len()), "{}", inputs.len());
            for (row, shifted) in inputs.chunks(4).zip(targets.chunks(4)) {
                assert_eq!(row[1..], shifted[..3]);
                for (&a, &b) in row.iter().zip(shifted) {
                    // Within a document tokens follow each other; its last is followed by a separator.
                    let last = a != SEP && lengths[(a / 1000 - 1) as usize] == a % 1000;
                    assert!(
                        if a == SEP {
                            b == SEP || b % 1000 == 1
                        } else if last {
                            b == SEP
                        } else {
                            b == a + 1
                        },
                        "{a} {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn continues_from_any_position_as_if_never_stopped() {
        let corpus = corpus(&[30, 12, 50, 7]);
        let mut whole = Packer::new(&corpus, SEP, 8, 3, Position::default()).unwrap();
        for batch in [1, 2, 3, 5, 8, 13, 4, 4] {
            let mut again = Packer::new(&corpus, SEP, 8, 3, whole.position()).unwrap();
            assert_eq!(whole.next_batch(batch), again.next_batch(batch));
            assert_eq!(whole.position(), again.position());
        }
        assert!(whole.position().epoch >= 2);
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let corpus = corpus(&[30, 12, 50, 7]);
        let deal =
            |seed, epoch| Packer::new(&corpus, SEP, 8, seed, Position { epoch, sequence: 0 }).unwrap().next_batch(9);
        assert!(deal(1, 0) != deal(2, 0) && deal(1, 0) != deal(1, 1));
        assert_eq!(deal(1, 1), deal(1, 1));
    }

    #[test]
    fn the_shortest_corpus_and_one_too_short() {
        let corpus = corpus(&[7]);
        let (inputs, targets) = Packer::new(&corpus, SEP, 7, 0, Position::default()).unwrap().next_batch(2);
        assert_eq!(inputs[..7], [0, 1001, 1002, 1003, 1004, 1005, 1006]);
        assert_eq!(targets[7..], [1001, 1002, 1003, 1004, 1005, 1006, 1007]);
        assert!(matches!(
            Packer::new(&corpus, SEP, 8, 0, Position::default()),
            Err(Error::Option { name: "context", .. })
        ));
    }
}
