//! Reading 256 weights of each block format in portable code, which the compiler vectorises for whatever instruction set it
//! is inlined into. The layouts are described in `numeric`'s file of each format.

use imaginal_numeric::{Format, tables};

#[cfg(test)]
use super::Read;
use super::steps::Steps;
use super::{CHUNK, Weights};

/// What is known of a format's weights before they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Bytes of [`CHUNK`] weights.
    pub bytes: usize,
    /// How many weights share a scale: 16 or 32.
    pub group: usize,
    /// Where minima are a multiple of the scales, that multiple with its sign turned: the number that stands for zero.
    pub zero: Option<u8>,
    /// The largest number.
    pub largest: u8,
}

/// The bytes of a chunk.
#[inline(always)]
pub(super) fn block_of<const BYTES: usize>(bytes: &[u8]) -> &[u8; BYTES] {
    match bytes.first_chunk() {
        Some(block) => block,
        None => panic!("{} bytes of {BYTES}", bytes.len()),
    }
}

/// One list of all formats, which `$with` makes something of: the layouts here, kernels where an instruction set has them
/// from portable code.
macro_rules! with_formats {
    ($with:ident) => {
        $with! {
            Q4_0 q4_0: 144, 32, Some(8), 15;
            Q4_1 q4_1: 160, 32, None, 15;
            Q5_0 q5_0: 176, 32, Some(16), 31;
            Q5_1 q5_1: 192, 32, None, 31;
            Q8_0 q8_0: 272, 32, Some(128), 255;
            Q2_K q2_k: 84, 16, None, 3;
            Q3_K q3_k: 110, 16, Some(4), 7;
            Q4_K q4_k: 144, 32, None, 15;
            Q5_K q5_k: 176, 32, None, 31;
            Q6_K q6_k: 210, 16, Some(32), 63;
            IQ1_S iq1_s: 50, 32, Some(9), 18;
            IQ1_M iq1_m: 56, 16, Some(9), 18;
            IQ2_XXS iq2_xxs: 66, 32, Some(43), 86;
            IQ2_XS iq2_xs: 74, 16, Some(43), 86;
            IQ2_S iq2_s: 82, 16, Some(43), 86;
            IQ3_XXS iq3_xxs: 98, 32, Some(62), 124;
            IQ3_S iq3_s: 110, 32, Some(15), 30;
            IQ4_NL iq4_nl: 144, 32, Some(128), 255;
            IQ4_XS iq4_xs: 136, 32, Some(128), 255;
            MXFP4 mxfp4: 136, 32, Some(12), 24;
            NVFP4 nvfp4: 144, 16, Some(12), 24;
            TQ1_0 tq1_0: 54, 32, Some(1), 2;
            TQ2_0 tq2_0: 66, 32, Some(1), 2;
        }
    };
}
pub(super) use with_formats;

macro_rules! layouts {
    ($($format:ident $name:ident: $bytes:literal, $group:literal, $zero:expr, $largest:literal;)*) => {
        /// The layout of a format, `None` if it has no blocks.
        pub(super) const fn layout(format: Format) -> Option<Layout> {
            Some(match format {
                $(Format::$format => Layout { bytes: $bytes, group: $group, zero: $zero, largest: $largest },)*
                _ => return None,
            })
        }

        /// What reads a format without any instructions.
        #[cfg(test)]
        pub(super) fn plain(format: Format) -> Option<Read> {
            Some(match format {
                $(Format::$format => |block, w| $name(super::steps::Plain, block_of(block), w),)*
                _ => return None,
            })
        }
    };
}
with_formats!(layouts);

/// Defines functions that are inlined into code compiled for some instruction set.
macro_rules! inlined {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident $(<$s:ident>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name $(<$s: Steps>)? ($($arg: $ty),*) $(-> $ret)? $body
    )*};
}

/// For each byte, eight bytes that are 255 where its bit is set.
const SPREAD: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 * 8 {
        table[i / 8] |= if (i / 8) >> (i % 8) & 1 == 1 { 255 << (i % 8 * 8) } else { 0 };
        i += 1;
    }
    table
};

/// [`SPREAD`] of seven signs and the eighth that makes the number of minuses even.
const EVEN: [u64; 128] = {
    let mut table = [0; 128];
    let mut i = 0;
    while i < 128 {
        table[i] = SPREAD[i | (i.count_ones() as usize & 1) << 7];
        i += 1;
    }
    table
};

// As constants these would be copied to the stack by unoptimised code.
static SPREADS: [u64; 256] = SPREAD;
static EVENS: [u64; 128] = EVEN;

/// A byte in all bytes of a word.
const fn all(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Every value of a table moved up, so that none is negative.
const fn moved(values: [i8; 16], by: u8) -> [u8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = (values[i] as i16 + by as i16) as u8;
        i += 1;
    }
    table
}

/// The values of iq4_nl and iq4_xs, 128 larger.
pub(super) const IQ4: [u8; 16] = moved(tables::IQ4, 128);
/// Twice the values of a 4-bit float, 12 larger.
pub(super) const E2M1: [u8; 16] = moved(tables::E2M1, 12);

inlined! {
    /// The binary16 number at byte `at`.
    fn half<S>(s: S, block: &[u8], at: usize) -> f32 {
        s.widen([u16::from_le_bytes([block[at], block[at + 1]])])[0]
    }

    fn word(block: &[u8], at: usize) -> u32 {
        u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
    }

    /// Sets scale and minimum of 32 weights.
    fn set(w: &mut Weights, i: usize, scale: f32, min: f32) {
        w.scale[2 * i] = scale;
        w.scale[2 * i + 1] = scale;
        w.min[2 * i] = min;
        w.min[2 * i + 1] = min;
    }

    /// Sets the minima to what makes `zero` stand for zero.
    fn centre(w: &mut Weights, zero: u8) {
        for (min, scale) in w.min.iter_mut().zip(&w.scale) {
            *min = scale * -f32::from(zero);
        }
    }

    /// Sets the scale of each 32 weights, and the minima.
    fn centred(w: &mut Weights, scales: [f32; 8], zero: u8) {
        for (i, scale) in scales.into_iter().enumerate() {
            set(w, i, scale, scale * -f32::from(zero));
        }
    }

    /// 32 numbers of four bits, the low halves of 16 bytes before the high ones.
    fn nibbles(bytes: &[u8], q: &mut [u8]) {
        let (bytes, q) = (&bytes[..16], &mut q[..32]);
        for i in 0..16 {
            q[i] = bytes[i] & 15;
            q[i + 16] = bytes[i] >> 4;
        }
    }

    /// 256 numbers of four bits from eight blocks of `stride` bytes, whose numbers begin at byte `at`.
    fn nibbles_of_eight(blocks: &[u8], stride: usize, at: usize, q: &mut [u8; CHUNK]) {
        for (i, q) in q.chunks_exact_mut(32).enumerate() {
            nibbles(&blocks[i * stride + at..], q);
        }
    }

    /// The binary16 numbers at byte `at` of eight blocks of `stride` bytes.
    fn halves<S>(s: S, blocks: &[u8], stride: usize, at: usize) -> [f32; 8] {
        let mut bits = [0; 8];
        for (i, bits) in bits.iter_mut().enumerate() {
            *bits = u16::from_le_bytes([blocks[i * stride + at], blocks[i * stride + at + 1]]);
        }
        s.widen(bits)
    }

    /// Adds 16 where the bit of four bytes at `at` of each block is set.
    fn fifth_of_eight(blocks: &[u8], stride: usize, at: usize, q: &mut [u8; CHUNK]) {
        for (i, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let bits = SPREADS[usize::from(blocks[i / 4 * stride + at + i % 4])] & all(16);
            *q = (u64::from_le_bytes(*q) | bits).to_le_bytes();
        }
    }

    /// Scales and minima of a q4_k or q5_k block.
    fn scales_k4<S>(s: S, block: &[u8], w: &mut Weights) {
        let (a, b, c) = (word(block, 4), word(block, 8), word(block, 12));
        // Four scales or minima in the bytes of each word.
        let scales = u64::from(a & 0x3f3f_3f3f) | u64::from(c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4) << 32;
        let minima = u64::from(b & 0x3f3f_3f3f) | u64::from(c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4) << 32;
        let (d, dmin) = (half(s, block, 0), half(s, block, 2));
        for (i, (scale, min)) in scales.to_le_bytes().into_iter().zip(minima.to_le_bytes()).enumerate() {
            set(w, i, d * f32::from(scale), -dmin * f32::from(min));
        }
    }

    /// Numbers of four bits, 64 from each 32 bytes.
    fn nibbles_k(bytes: &[u8], q: &mut [u8; CHUNK]) {
        for (bytes, q) in bytes[..128].chunks_exact(32).zip(q.chunks_exact_mut(64)) {
            let (low, high) = q.split_at_mut(32);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
                *low = byte & 15;
                *high = byte >> 4;
            }
        }
    }

    /// Eight values around `zero`, those with a sign below it. Bytes do not borrow from each other as long as no value is
    /// larger than `zero`.
    fn signed(values: u64, signs: u64, zero: u8, q: &mut [u8; 8]) {
        *q = (values + all(zero) - ((2 * values) & signs)).to_le_bytes();
    }

    /// The values of a point along eight axes.
    fn point8(point: &[i8; 8]) -> u64 {
        u64::from_le_bytes(point.map(|v| v as u8))
    }

    /// The values of two points along four axes each.
    fn points4(first: &[i8; 4], second: &[i8; 4]) -> u64 {
        let word = |point: &[i8; 4]| u64::from(u32::from_le_bytes(point.map(|v| v as u8)));
        word(first) | word(second) << 32
    }

    /// Eight times values moved down or up by one, nine larger.
    fn shifted(levels: &[u8; 8], down: bool, q: &mut [u8; 8]) {
        *q = (u64::from_le_bytes(*levels) * 8 + if down { 0 } else { all(2) }).to_le_bytes();
    }

    /// Scales of each 16 weights from 16 codes of four bits, the low half of a byte first.
    fn codes16(codes: &[u8], d: f32, unit: f32, w: &mut Weights) {
        for i in 0..16 {
            let code = codes[i / 2] >> (i % 2 * 4) & 15;
            w.scale[i] = d * (0.5 + f32::from(code)) * unit;
        }
    }
}

inlined! {
    pub(super) fn q4_0<S>(s: S, blocks: &[u8; 144], w: &mut Weights) {
        nibbles_of_eight(blocks, 18, 2, &mut w.q);
        centred(w, halves(s, blocks, 18, 0), 8);
    }

    pub(super) fn q4_1<S>(s: S, blocks: &[u8; 160], w: &mut Weights) {
        nibbles_of_eight(blocks, 20, 4, &mut w.q);
        for (i, (scale, min)) in halves(s, blocks, 20, 0).into_iter().zip(halves(s, blocks, 20, 2)).enumerate() {
            set(w, i, scale, min);
        }
    }

    pub(super) fn q5_0<S>(s: S, blocks: &[u8; 176], w: &mut Weights) {
        nibbles_of_eight(blocks, 22, 6, &mut w.q);
        fifth_of_eight(blocks, 22, 2, &mut w.q);
        centred(w, halves(s, blocks, 22, 0), 16);
    }

    pub(super) fn q5_1<S>(s: S, blocks: &[u8; 192], w: &mut Weights) {
        nibbles_of_eight(blocks, 24, 8, &mut w.q);
        fifth_of_eight(blocks, 24, 4, &mut w.q);
        for (i, (scale, min)) in halves(s, blocks, 24, 0).into_iter().zip(halves(s, blocks, 24, 2)).enumerate() {
            set(w, i, scale, min);
        }
    }

    pub(super) fn q8_0<S>(s: S, blocks: &[u8; 272], w: &mut Weights) {
        for (q, block) in w.q.as_chunks_mut::<32>().0.iter_mut().zip(blocks.as_chunks::<34>().0) {
            s.flip(block_of(&block[2..]), q);
        }
        centred(w, halves(s, blocks, 34, 0), 128);
    }

    pub(super) fn q2_k<S>(s: S, block: &[u8; 84], w: &mut Weights) {
        s.quarters(block_of(&block[16..]), &mut w.q);
        let (d, dmin) = (half(s, block, 80), half(s, block, 82));
        for ((scale, min), byte) in w.scale.iter_mut().zip(&mut w.min).zip(block) {
            *scale = d * f32::from(byte & 15);
            *min = -dmin * f32::from(byte >> 4);
        }
    }

    pub(super) fn q3_k<S>(s: S, block: &[u8; 110], w: &mut Weights) {
        s.quarters(block_of(&block[32..]), &mut w.q);
        for (p, q) in w.q.chunks_exact_mut(32).enumerate() {
            for (q, high) in q.iter_mut().zip(&block[..32]) {
                *q |= (high >> p & 1) << 2;
            }
        }
        let (a, b, c) = (word(block, 96), word(block, 100), word(block, 104));
        // Scales of six bits: four in the bytes of each word.
        let (four, two) = (0x0f0f_0f0f, 0x0303_0303);
        let words = [
            a & four | (c & two) << 4,
            b & four | (c >> 2 & two) << 4,
            a >> 4 & four | (c >> 4 & two) << 4,
            b >> 4 & four | (c >> 6 & two) << 4,
        ];
        let d = half(s, block, 108);
        for (scales, word) in w.scale.chunks_exact_mut(4).zip(words) {
            for (scale, byte) in scales.iter_mut().zip(word.to_le_bytes()) {
                *scale = d * f32::from(byte as i8 - 32);
            }
        }
        centre(w, 4);
    }

    pub(super) fn q4_k<S>(s: S, block: &[u8; 144], w: &mut Weights) {
        nibbles_k(&block[16..], &mut w.q);
        scales_k4(s, block, w);
    }

    pub(super) fn q5_k<S>(s: S, block: &[u8; 176], w: &mut Weights) {
        nibbles_k(&block[48..], &mut w.q);
        for (p, q) in w.q.chunks_exact_mut(32).enumerate() {
            for (q, high) in q.iter_mut().zip(&block[16..48]) {
                *q |= (high >> p & 1) << 4;
            }
        }
        scales_k4(s, block, w);
    }

    pub(super) fn q6_k<S>(s: S, block: &[u8; 210], w: &mut Weights) {
        s.quarters(block_of(&block[128..]), &mut w.q);
        for (bytes, q) in block[..128].chunks_exact(64).zip(w.q.chunks_exact_mut(128)) {
            let (low, high) = q.split_at_mut(64);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
                *low = *low << 4 | byte & 15;
                *high = *high << 4 | byte >> 4;
            }
        }
        let d = half(s, block, 208);
        for (scale, byte) in w.scale.iter_mut().zip(&block[192..208]) {
            *scale = d * f32::from(*byte as i8);
        }
        centre(w, 32);
    }

    pub(super) fn iq1_s<S>(s: S, block: &[u8; 50], w: &mut Weights) {
        let (low, rest) = block[2..].split_at(32);
        let rest = rest.as_chunks::<2>().0;
        for (i, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let rest = u16::from_le_bytes(rest[i / 4]);
            let point = usize::from(low[i]) | usize::from(rest >> (i % 4 * 3) & 7) << 8;
            shifted(&tables::IQ1[point], rest & 0x8000 != 0, q);
        }
        let d = half(s, block, 0) / 8.0;
        for (i, rest) in rest.iter().enumerate() {
            let scale = d * f32::from(2 * (u16::from_le_bytes(*rest) >> 12 & 7) + 1);
            set(w, i, scale, scale * -9.0);
        }
    }

    pub(super) fn iq1_m<S>(s: S, block: &[u8; 56], w: &mut Weights) {
        let (low, rest) = block.split_at(32);
        let (high, words) = rest.split_at(16);
        for (i, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = high[i / 2] >> (i % 2 * 4);
            let point = usize::from(low[i]) | usize::from(high & 7) << 8;
            shifted(&tables::IQ1[point], high & 8 != 0, q);
        }
        let words = words.as_chunks::<2>().0;
        let mut d = 0;
        for (i, word) in words.iter().enumerate() {
            d |= u16::from_le_bytes(*word) >> 12 << (4 * i);
        }
        let d = s.widen([d])[0] / 8.0;
        for (i, scale) in w.scale.iter_mut().enumerate() {
            let code = u16::from_le_bytes(words[i / 4]) >> (i % 4 * 3) & 7;
            *scale = d * f32::from(2 * code + 1);
        }
        centre(w, 9);
    }

    pub(super) fn iq2_xxs<S>(s: S, block: &[u8; 66], w: &mut Weights) {
        let d = half(s, block, 0);
        for i in 0..8 {
            let part = &block[2 + 8 * i..10 + 8 * i];
            let rest = word(part, 4);
            for (j, q) in w.q[32 * i..32 * i + 32].as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let signs = EVENS[(rest >> (7 * j) & 127) as usize];
                signed(point8(&tables::IQ2_XXS[usize::from(part[j])]), signs, 43, q);
            }
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
            set(w, i, scale, scale * -43.0);
        }
    }

    pub(super) fn iq2_xs<S>(s: S, block: &[u8; 74], w: &mut Weights) {
        let groups = block[2..66].as_chunks::<2>().0;
        for (q, group) in w.q.as_chunks_mut::<8>().0.iter_mut().zip(groups) {
            let group = usize::from(u16::from_le_bytes(*group));
            signed(point8(&tables::IQ2_XS[group & 511]), EVENS[group >> 9], 43, q);
        }
        codes16(&block[66..], half(s, block, 0), 0.25, w);
        centre(w, 43);
    }

    pub(super) fn iq2_s<S>(s: S, block: &[u8; 82], w: &mut Weights) {
        let (low, signs, high) = (&block[2..34], &block[34..66], &block[66..74]);
        for (i, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let point = usize::from(low[i]) | usize::from(high[i / 4] >> (i % 4 * 2) & 3) << 8;
            signed(point8(&tables::IQ2_S[point]), SPREADS[usize::from(signs[i])], 43, q);
        }
        codes16(&block[74..], half(s, block, 0), 0.25, w);
        centre(w, 43);
    }

    pub(super) fn iq3_xxs<S>(s: S, block: &[u8; 98], w: &mut Weights) {
        let d = half(s, block, 0);
        for i in 0..8 {
            let (points, rest) = (&block[2 + 8 * i..10 + 8 * i], word(block, 66 + 4 * i));
            for (j, q) in w.q[32 * i..32 * i + 32].as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let point = |i: usize| &tables::IQ3_XXS[usize::from(points[i])];
                let signs = EVENS[(rest >> (7 * j) & 127) as usize];
                signed(points4(point(2 * j), point(2 * j + 1)), signs, 62, q);
            }
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
            set(w, i, scale, scale * -62.0);
        }
    }

    pub(super) fn iq3_s<S>(s: S, block: &[u8; 110], w: &mut Weights) {
        let (low, high, signs, codes) = (&block[2..66], &block[66..74], &block[74..106], &block[106..]);
        for (i, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = usize::from(high[i / 4] >> (i % 4 * 2));
            let first = usize::from(low[2 * i]) | (high & 1) << 8;
            let second = usize::from(low[2 * i + 1]) | (high >> 1 & 1) << 8;
            let values = points4(&tables::IQ3_S[first], &tables::IQ3_S[second]);
            signed(values, SPREADS[usize::from(signs[i])], 15, q);
        }
        let d = half(s, block, 0);
        for i in 0..8 {
            let scale = d * f32::from(1 + 2 * (codes[i / 2] >> (i % 2 * 4) & 15));
            set(w, i, scale, scale * -15.0);
        }
    }

    pub(super) fn iq4_nl<S>(s: S, blocks: &[u8; 144], w: &mut Weights) {
        nibbles_of_eight(blocks, 18, 2, &mut w.q);
        s.look_up(&IQ4, &mut w.q);
        centred(w, halves(s, blocks, 18, 0), 128);
    }

    pub(super) fn iq4_xs<S>(s: S, block: &[u8; 136], w: &mut Weights) {
        nibbles_of_eight(block, 16, 8, &mut w.q);
        s.look_up(&IQ4, &mut w.q);
        let (d, high, low) = (half(s, block, 0), u16::from_le_bytes([block[2], block[3]]), word(block, 4));
        for i in 0..8 {
            let scale = (low >> (4 * i) & 15) as i32 | i32::from(high >> (2 * i) & 3) << 4;
            let scale = d * (scale - 32) as f32;
            set(w, i, scale, scale * -128.0);
        }
    }

    pub(super) fn mxfp4<S>(s: S, blocks: &[u8; 136], w: &mut Weights) {
        nibbles_of_eight(blocks, 17, 1, &mut w.q);
        s.look_up(&E2M1, &mut w.q);
        for i in 0..8 {
            let scale = tables::mxfp4_half_scale(blocks[17 * i]);
            set(w, i, scale, scale * -12.0);
        }
    }

    pub(super) fn nvfp4<S>(s: S, blocks: &[u8; 144], w: &mut Weights) {
        for (i, q) in w.q.chunks_exact_mut(16).enumerate() {
            let bytes = &blocks[i / 4 * 36 + 4 + i % 4 * 8..][..8];
            let (low, high) = q.split_at_mut(8);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
                *low = byte & 15;
                *high = byte >> 4;
            }
        }
        s.look_up(&E2M1, &mut w.q);
        for (i, scale) in w.scale.iter_mut().enumerate() {
            *scale = tables::nvfp4_half_scale(blocks[i / 4 * 36 + i % 4]);
        }
        centre(w, 12);
    }

    pub(super) fn tq1_0<S>(s: S, block: &[u8; 54], w: &mut Weights) {
        for (first, byte, bytes, digits) in [(0, 0, 32, 5), (160, 32, 16, 5), (240, 48, 4, 4)] {
            let parts = w.q[first..][..bytes * digits].chunks_exact_mut(bytes);
            for (q, power) in parts.zip([1, 3, 9, 27, 81]) {
                for (q, packed) in q.iter_mut().zip(&block[byte..]) {
                    // The digit in front of a fraction to base 3.
                    *q = ((u16::from(packed.wrapping_mul(power)) * 3) >> 8) as u8;
                }
            }
        }
        centred(w, [half(s, block, 52); 8], 1);
    }

    pub(super) fn tq2_0<S>(s: S, block: &[u8; 66], w: &mut Weights) {
        s.quarters(block_of(block), &mut w.q);
        centred(w, [half(s, block, 64); 8], 1);
    }
}
