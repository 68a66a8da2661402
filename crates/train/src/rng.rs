//! Random numbers that are the same on every machine and in every release.

/// SplitMix64 (Steele, Lea and Flood 2014): enough for shuffling, and its whole state is one number.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator for one purpose (`stream`) of a run, unrelated to the generators of the other purposes.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = SplitMix64(seed);
        let first = mixed.next();
        let mut rng = SplitMix64(first ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        rng.next();
        rng
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`, all equally likely to within 2^-64 (multiply and shift, Lemire 2019).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Puts the items in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash that stays the same across machines and releases: FNV-1a, then mixed so that every bit counts.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    mix(fnv1a(FNV_START, bytes))
}

/// Where [`fnv1a`] begins.
pub(crate) const FNV_START: u64 = 0xCBF2_9CE4_8422_2325;

/// Continues an FNV-1a hash.
pub(crate) fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_values_stay() {
        // SplitMix64 from state 0, as its authors' C code gives.
        let mut rng = SplitMix64(0);
        assert_eq!([rng.next(), rng.next()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
        // FNV-1a test vector.
        assert_eq!(fnv1a(FNV_START, b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn shuffles_are_permutations_and_differ_by_stream() {
        let mut orders = Vec::new();
        for stream in 0..3 {
            let mut items: Vec<u32> = (0..100).collect();
            SplitMix64::new(7, stream).shuffle(&mut items);
            let mut sorted = items.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..100));
            orders.push(items);
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2] && orders[0] != orders[2]);
    }

    #[test]
    fn below_reaches_every_value_evenly() {
        let mut rng = SplitMix64::new(1, 2);
        let mut seen = [0u32; 7];
        (0..7000).for_each(|_| seen[rng.below(7) as usize] += 1);
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }
}
