//! Products of packed weights with activations rounded to bytes, straight from a file's bytes.
//!
//! Whatever the format, 256 weights at a time become unsigned bytes `q` and, for each 16, a scale and a minimum (a weight
//! is `scale·q + minimum`), by portable code (`read`) or by hand where that is faster (`avx512`). What multiplies them
//! does not know the format any more. Sums of products of bytes are exact integers; they are scaled in f32.
//!
//! Up to [`FEW`] tokens, each row is multiplied as it is read (`few`): the product is bound by the bandwidth at which
//! weights arrive. For more tokens, panels of 32 rows are read, transposed so that a vector's lanes are rows, and multiplied
//! with all tokens (`many`). In either way the order of summation does not depend on how many tokens there are.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod coarse;
mod few;
#[cfg(target_arch = "x86_64")]
mod integer;
mod many;
#[cfg(target_arch = "aarch64")]
mod neon;
mod read;
#[cfg(target_arch = "x86_64")]
mod rows;
mod steps;
mod tile;
#[cfg(target_arch = "x86_64")]
mod wide;

use imaginal_numeric::Format;

pub(crate) use self::few::Product;

use crate::gemm::FEW;
use crate::isa::Isa;
use crate::packed::Rounding;
use crate::vecmath;

/// Weights that are read at a time: the longest block.
pub(crate) const CHUNK: usize = 256;

/// 256 weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Weights {
    /// The numbers.
    pub q: [u8; CHUNK],
    /// The scale of each 16.
    pub scale: [f32; 16],
    /// What each 16 have added.
    pub min: [f32; 16],
}

impl Weights {
    pub(crate) const ZERO: Weights = Weights { q: [0; CHUNK], scale: [0.0; 16], min: [0.0; 16] };
}

/// 256 activations of a token.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Activations {
    /// Rounded, in units of the scale, in the [`Order`] of the kernel.
    q: [i8; CHUNK],
    /// The scale of each 16, as the order divides them.
    scale: [f32; 16],
    /// The sum of each 16 that follow each other before they are put in order.
    sum: [f32; 16],
    /// The sum of each four rounded ones, times the number of the weights that stands for zero, with its sign turned.
    start: [i32; CHUNK / 4],
}

/// How a kernel wants 256 activations.
#[derive(PartialEq, Eq)]
struct Order {
    /// Which 16 of them come first, which second, and so on.
    runs: [u8; 16],
    /// Which of them share a scale.
    lanes: Lanes,
    /// What the numbers of weights are multiplied with that meet each 64 of them.
    steps: [u8; 4],
}

impl Order {
    const fn new(runs: [u8; 16], lanes: Lanes) -> Self {
        Order { runs, lanes, steps: [1; 4] }
    }
}

/// Which 16 activations share a scale. Four vectors of 64 of them, or eight of 32, meet as many weights; what is said of
/// lanes is said of sums of four products.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lanes {
    /// Those that follow each other.
    Runs,
    /// Those whose sums have the same lane in all vectors.
    #[cfg(target_arch = "x86_64")]
    Fours,
    /// The same, where the second vector continues the sums of the first, and the fourth those of the third.
    #[cfg(target_arch = "x86_64")]
    Halves,
    /// Those whose sums come to lie in the same 32 bits, where the first vector is packed in 16 bits with the second, and
    /// the third with the fourth.
    #[cfg(target_arch = "x86_64")]
    Eights,
    /// Those that follow each other, four of which are the same lane in each of four vectors; all sums continue the first. It says
    /// which of the 16 the first vector has, which the second, and so on.
    #[cfg(target_arch = "x86_64")]
    Columns([u8; 16]),
}

impl Lanes {
    /// How many activations that share a scale follow each other.
    fn piece(self) -> usize {
        match self {
            Lanes::Runs => 16,
            #[cfg(target_arch = "x86_64")]
            Lanes::Columns(_) => 16,
            #[cfg(target_arch = "x86_64")]
            Lanes::Eights => 8,
            #[cfg(target_arch = "x86_64")]
            Lanes::Fours | Lanes::Halves => 4,
        }
    }

    /// Moves what belongs to each four activations to where the sum begins that these add to.
    #[inline(always)]
    fn join(self, fours: &mut [i32; CHUNK / 4]) {
        #[cfg(target_arch = "x86_64")]
        if self == Lanes::Halves {
            let (halves, _) = fours.as_chunks_mut::<32>();
            for half in halves {
                let (begin, rest) = half.split_at_mut(16);
                begin.iter_mut().zip(&*rest).for_each(|(a, b)| *a += b);
                rest.fill(0);
            }
        }
        #[cfg(target_arch = "x86_64")]
        if matches!(self, Lanes::Columns(_)) {
            for run in 0..16 {
                fours[run] = fours[4 * run..4 * run + 4].iter().sum();
            }
            fours[16..].fill(0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (self, fours);
    }
}

/// Which scale the `i`th four activations in order share with others, where `piece` that follow each other do.
#[inline(always)]
const fn group(piece: usize, i: usize) -> usize {
    match piece {
        4 => i % 16,
        8 => i % 16 / 4 * 4 + i / 16 % 2 * 2 + i % 4 / 2,
        _ => i / 4,
    }
}

/// The order of kernels that want none.
const PLAIN: Order = Order::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], Lanes::Runs);

/// Whether products with the format are computed from bytes with this instruction set.
pub(crate) fn supported(isa: Isa, format: Format) -> bool {
    kernel(isa, format).is_some()
}

/// out\[m, n\] = x\[m, k\] · Wᵀ as [`matmul_packed`](crate::matmul_packed) has it.
///
/// # Panics
/// If the format is not [`supported`] or a slice is too short.
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul(
    isa: Isa,
    threads: usize,
    rounding: Rounding,
    format: Format,
    w: &[u8],
    row_bytes: usize,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    assert!(supported(isa, format), "no products of bytes for {format} with {isa}");
    assert!(x.len() >= m * k && out.len() >= m * n && w.len() >= n * row_bytes);
    if m <= FEW {
        let product = Product { format, w: [w], rows: n, tokens: 0..m, out };
        return few::matmul(isa, threads, vec![product], k, &x[..m * k], |_| {});
    }
    many::matmul(isa, threads, rounding, format, [w], row_bytes, n, k, x, m, out, |_| {});
}

/// out\[m, n\] = silu(x · Gᵀ) · (x · Uᵀ), each product as in [`matmul`], with `w` the bytes of G and U.
///
/// # Panics
/// As [`matmul`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_swiglu(
    isa: Isa,
    threads: usize,
    rounding: Rounding,
    format: Format,
    w: [&[u8]; 2],
    row_bytes: usize,
    n: usize,
    k: usize,
    x: &[f32],
    m: usize,
    out: &mut [f32],
) {
    assert!(supported(isa, format), "no products of bytes for {format} with {isa}");
    assert!(x.len() >= m * k && out.len() >= m * n && w.iter().all(|w| w.len() >= n * row_bytes));
    if m <= FEW {
        return matmul_few(isa, threads, vec![Product { format, w, rows: n, tokens: 0..m, out }], k, &x[..m * k]);
    }
    let join = |[gate, up]: [&mut [f32]; 2]| vecmath::swiglu_in_place(isa, gate, up);
    many::matmul(isa, threads, rounding, format, w, row_bytes, n, k, x, m, out, join);
}

/// Products of few tokens of `x`\[m, k\], each as [`matmul`] has it with its matrix, or as [`matmul_swiglu`] with its two.
///
/// # Panics
/// As [`matmul`], or if a product has more than [`FEW`] tokens.
pub(crate) fn matmul_few<const N: usize>(isa: Isa, threads: usize, products: Vec<Product<N>>, k: usize, x: &[f32]) {
    few::matmul(isa, threads, products, k, x, |parts| {
        let [gate, others @ ..] = &mut { parts }[..] else { return };
        others.iter().for_each(|up| vecmath::swiglu_in_place(isa, gate, up));
    });
}

/// Reads up to [`CHUNK`] weights; those that are missing become 0. For tiles.
///
/// # Panics
/// If the format is not [`supported`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn read(isa: Isa, format: Format, bytes: &[u8], out: &mut Weights) {
    let (Some(kernel), Some(layout)) = (kernel(isa, format), read::layout(format)) else {
        panic!("no products of bytes for {format} with {isa}")
    };
    // SAFETY: the reader is one of the instruction set.
    whole(bytes, layout.bytes, |bytes| unsafe { (kernel.read)(bytes, out) });
}

/// Reads the bytes of a chunk. Unsafe to call without the instructions that it is compiled for.
type Read = unsafe fn(&[u8], &mut Weights);

/// Multiplies a row with the activations of some tokens, which lie as many chunks apart as is said.
type Row = unsafe fn(&[u8], &[Activations], usize, &mut [f32]);

/// Multiplies rows of as many bytes as is said with the activations of one token.
type One = unsafe fn(&[u8], usize, &[Activations], &mut [f32]);

/// Calls a function with the bytes of a chunk, `len` long, of which the last are 0 where a row ends before.
#[inline(always)]
fn whole<R>(bytes: &[u8], len: usize, f: impl FnOnce(&[u8]) -> R) -> R {
    if bytes.len() >= len {
        f(bytes)
    } else {
        // Blocks of zeros are weights of zero or meet activations of zero.
        let mut last = [0; 512];
        last[..bytes.len()].copy_from_slice(bytes);
        f(&last[..len])
    }
}

/// What reads a format, and what multiplies a row of it with the activations of some tokens, `stride` chunks apart. Both
/// are unsafe to call without the instruction set.
#[derive(Clone, Copy)]
struct Kernel {
    read: Read,
    row: Row,
    /// The same for all rows of a task at once, if there is one token: what a row needs besides its weights stays in
    /// registers.
    one: Option<One>,
    /// How it wants activations.
    order: &'static Order,
}

/// The kernel of a format, `None` if the format has no blocks or the instruction set no products of bytes.
fn kernel(isa: Isa, format: Format) -> Option<Kernel> {
    match isa.usable() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => avx512::kernel(format),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => avx2::kernel(format),
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod | Isa::I8mm => neon::with_dot_products(format),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::without(format),
        _ => None,
    }
}

/// The first `N` numbers; where there are fewer, zeros follow them.
#[inline(always)]
fn padded<'a, const N: usize>(x: &'a [f32], zeros: &'a mut [f32; N]) -> &'a [f32; N] {
    match x.first_chunk() {
        Some(x) => x,
        None => {
            zeros[..x.len()].copy_from_slice(x);
            zeros
        }
    }
}

/// Rounds up to `q.len()` numbers to bytes, the rest of which become 0. Returns their scale, which is NaN if any is not
/// finite, so that all their products are, and the sum of the bytes.
///
/// The last two bits of the scale are 0, so that its product with a whole number below 2^24 with two bits is exact.
#[inline(always)]
fn round<const N: usize>(x: &[f32], q: &mut [i8; N]) -> (f32, i32) {
    let mut zeros = [0.0; N];
    let x = padded(x, &mut zeros);
    let largest = x.iter().fold(0, |largest, x| largest.max(magnitude(*x)));
    let (scale, inverse) = scale(largest, 127.0);
    let mut sum = 0;
    for (q, x) in q.iter_mut().zip(x) {
        *q = nearest(x * inverse) as i8;
        sum += i32::from(*q);
    }
    (scale, sum)
}

/// The bits of a number without its sign: compared as integers, where a NaN is larger than everything.
#[inline(always)]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// The scale of numbers of which the largest has this [`magnitude`] and becomes `steps`, NaN if that is not finite, and what
/// they are multiplied with.
#[inline(always)]
pub(crate) fn scale(largest: u32, steps: f32) -> (f32, f32) {
    let scale = f32::from_bits(((f32::from_bits(largest) / steps).to_bits() + 3) & !3);
    // A scale whose inverse overflows belongs to numbers that vanish beside anything.
    let inverse = 1.0 / scale;
    let scale = if largest < 0x7f80_0000 { scale } else { f32::NAN };
    (scale, if inverse.is_finite() { inverse } else { 0.0 })
}

/// The nearest whole number to one of at most 127.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    // Added to this, a number is rounded to a whole one in the last bits.
    const WHOLE: f32 = 12_582_912.0;
    (x + WHOLE).to_bits() as i32 - WHOLE.to_bits() as i32
}

#[cfg(test)]
mod tests;
