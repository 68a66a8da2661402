/// Philox4x32-10: ten rounds that turn a 128-bit counter and a 64-bit key into four random words.
///
/// There is no state besides the two, so any part of a stream can be had without what precedes it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Parts of the golden ratio and of √3 − 1, added to the key between rounds.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

impl Philox {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The four words that belong to a counter.
    #[inline]
    pub fn block(&self, counter: u128) -> [u32; 4] {
        let mut c = [counter as u32, (counter >> 32) as u32, (counter >> 64) as u32, (counter >> 96) as u32];
        let mut k = self.key;
        for _ in 0..10 {
            let a = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
            let b = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
            c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        c
    }

    /// Number `i` of a stream of 64-bit words.
    pub fn word(&self, i: u64) -> u64 {
        let b = self.block(u128::from(i / 2));
        let at = (i % 2) as usize * 2;
        u64::from(b[at]) | u64::from(b[at + 1]) << 32
    }

    /// Number `i` of a stream of numbers uniform in `0 .. 1`, with 53 bits.
    pub fn uniform(&self, i: u64) -> f64 {
        unit(self.word(i))
    }

    /// Number `i` of a stream of whole numbers uniform in `0 .. n`; 0 if `n` is 0.
    pub fn below(&self, i: u64, n: u64) -> u64 {
        // The high word of a product (Lemire 2019); the bias is below n / 2⁶⁴.
        ((u128::from(self.word(i)) * u128::from(n)) >> 64) as u64
    }
}

/// 53 bits of a word as a number in `0 .. 1`.
pub(super) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
