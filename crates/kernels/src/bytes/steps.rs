//! What reading takes from an instruction set.

use imaginal_numeric::half::f16_to_f32;

use super::CHUNK;

/// The parts of reading that instruction sets have instructions for, here without any.
pub(super) trait Steps: Copy {
    /// Replaces every number below 16 by the table's.
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], q: &mut [u8; CHUNK]) {
        for q in q {
            *q = table[usize::from(*q & 15)];
        }
    }

    /// 256 numbers of two bits: of each 128 the number `32 p + l` from bits `2 p` of byte `l`.
    #[inline(always)]
    fn quarters(self, bytes: &[u8; 64], q: &mut [u8; CHUNK]) {
        for (bytes, q) in bytes.chunks_exact(32).zip(q.chunks_exact_mut(128)) {
            for (p, q) in q.chunks_exact_mut(32).enumerate() {
                for (q, byte) in q.iter_mut().zip(bytes) {
                    *q = byte >> (2 * p) & 3;
                }
            }
        }
    }

    /// Flips the highest bits: signed numbers become unsigned, 128 larger.
    #[inline(always)]
    fn flip(self, bytes: &[u8; 32], q: &mut [u8; 32]) {
        for (q, byte) in q.iter_mut().zip(bytes) {
            *q = byte ^ 128;
        }
    }

    /// Widens the bits of binary16 numbers.
    #[inline(always)]
    fn widen<const N: usize>(self, bits: [u16; N]) -> [f32; N] {
        bits.map(f16_to_f32)
    }
}

/// Without any instructions.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[cfg(test)]
impl Steps for Plain {}
