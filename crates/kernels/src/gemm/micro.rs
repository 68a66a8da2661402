//! The innermost step of a GEMM: a tile of c held in registers, updated over the whole depth of two packed panels.
//!
//! The tile is `MR` rows by `NV` vectors. Each step of the depth loads `NV` vectors of b, broadcasts `MR` elements of a,
//! and issues `MR·NV` multiply-adds: 14·2 with 32 AVX-512 registers, 6·2 with 16 AVX2 registers (Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication", 2008; tile shapes as in BLIS). Rows at the edge of c get a kernel
//! with fewer rows, columns at the edge one vector or a partial store.
//!
//! An element's sum runs over the depth in order, in one accumulator, whatever tile it lies in.

use crate::isa::{Isa, Simd};
use crate::simd::{ScalarToken, prefetch};

/// Computes a tile: `c[i][j] (+)= Σ_p a[p·mr + i] · b[p·nr + j]` for the kernel's rows i and `cols` columns j.
/// Arguments: depth, a, b, c, row stride of c, cols, whether to add to what c holds.
///
/// Unsafe to call unless the CPU has the instruction set, a and b hold `depth` steps of a full panel, and c is
/// writable at the tile's elements.
pub(super) type MicroKernel = unsafe fn(usize, *const f32, *const f32, *mut f32, usize, usize, bool);

/// The kernels of one instruction set and the shape of its panels.
pub(super) struct Kernels {
    /// Rows of a full tile: the width of a's panels.
    pub mr: usize,
    /// Columns of a full tile: the width of b's panels.
    pub nr: usize,
    /// Lanes of a vector; `nr` is two vectors.
    pub lanes: usize,
    /// Depth up to which one pass goes: deep, so that c is revisited rarely; panels stream from the L2 cache well.
    pub kc: usize,
    /// Panels of a in one block, which stays in the L2 cache while b's panels pass by.
    pub mc_panels: usize,
    /// `tiles[rows - 1][vectors - 1]`.
    tiles: &'static [[MicroKernel; 2]],
}

impl Kernels {
    /// The kernels of `isa`, or of the best set below it that the CPU has.
    pub fn of(isa: Isa) -> &'static Kernels {
        match isa.usable() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => &AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &AVX2,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::Dotprod | Isa::I8mm => &NEON,
            _ => &SCALAR,
        }
    }

    /// The kernel for a tile of `rows` × `cols`, 1 ≤ rows ≤ mr, 1 ≤ cols ≤ nr.
    #[inline]
    pub fn tile(&self, rows: usize, cols: usize) -> MicroKernel {
        self.tiles[rows - 1][usize::from(cols > self.lanes)]
    }
}

/// # Safety
/// As [`MicroKernel`], with `PR` the width of a's panels and `2·LANES` that of b's.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<S: Simd, const PR: usize, const MR: usize, const NV: usize>(
    s: S,
    depth: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    c_rs: usize,
    cols: usize,
    add: bool,
) {
    let nr = 2 * S::LANES;
    let mut acc = [[s.zero(); NV]; MR];
    let last = depth.min(C_AHEAD);
    for steps in [depth - last, last] {
        if steps == last {
            // c was touched one pass of the depth ago; fetch it now, not so early that a and b push it out again.
            for i in 0..MR {
                for v in 0..NV {
                    prefetch(c.wrapping_add(i * c_rs + v * S::LANES));
                }
            }
        }
        for _ in 0..steps {
            // SAFETY: within the panels by the caller's promise. The prefetch reaches ahead in b, which streams.
            unsafe {
                let mut bv = [s.zero(); NV];
                for (v, bv) in bv.iter_mut().enumerate() {
                    *bv = s.load_ptr(b.add(v * S::LANES));
                    prefetch(b.wrapping_add(B_AHEAD * nr + v * S::LANES));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let ai = s.splat(*a.add(i));
                    for (acc, bv) in acc.iter_mut().zip(bv) {
                        *acc = s.mul_add(ai, bv, *acc);
                    }
                }
                a = a.add(PR);
                b = b.add(nr);
            }
        }
    }
    let whole = if cols == NV * S::LANES { NV } else { NV - 1 };
    // SAFETY: the tile lies in c by the caller's promise.
    let vector = |i: usize, v: usize| unsafe { c.add(i * c_rs + v * S::LANES) };
    // SAFETY: the same; a partial vector ends at `cols`.
    let part = |i: usize, v: usize| unsafe { std::slice::from_raw_parts_mut(vector(i, v), cols - v * S::LANES) };
    // All loads before all stores: rows of c are often a multiple of 4 KB apart, and a load then waits for an earlier store
    // to the same offset in another page.
    if add {
        for (i, acc) in acc.iter_mut().enumerate() {
            for (v, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a whole vector within the tile.
                let old = if v < whole { unsafe { s.load_ptr(vector(i, v)) } } else { s.load_partial(part(i, v)) };
                *acc = s.add(old, *acc);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            if v < whole {
                // SAFETY: a whole vector within the tile.
                unsafe { s.store_ptr(*acc, vector(i, v)) }
            } else {
                s.store_partial(*acc, part(i, v));
            }
        }
    }
}

/// Steps before its use at which c is fetched.
const C_AHEAD: usize = 32;
/// Steps of the depth that b is prefetched ahead.
const B_AHEAD: usize = 8;

macro_rules! kernels {
    ($table:ident, $function:ident, $token:expr, $(#[$feature:meta])? mr: $mr:literal, lanes: $lanes:literal,
     kc: $kc:literal, mc_panels: $mc:literal, rows: [$($rows:literal)*]) => {
        /// # Safety
        /// As [`MicroKernel`].
        $(#[$feature])?
        unsafe fn $function<const MR: usize, const NV: usize>(
            depth: usize, a: *const f32, b: *const f32, c: *mut f32, c_rs: usize, cols: usize, add: bool,
        ) {
            // SAFETY: the features of the token are those of this function.
            #[allow(unused_unsafe)]
            let token = unsafe { $token };
            // SAFETY: the same promise.
            unsafe { tile::<_, $mr, MR, NV>(token, depth, a, b, c, c_rs, cols, add) }
        }

        static $table: Kernels = Kernels {
            mr: $mr,
            nr: 2 * $lanes,
            lanes: $lanes,
            kc: $kc,
            mc_panels: $mc,
            tiles: &[$([$function::<$rows, 1>, $function::<$rows, 2>]),*],
        };
        const _: () = assert!($table.tiles.len() == $table.mr);
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(AVX512, avx512, crate::isa::Avx512Token::new(),
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    mr: 14, lanes: 16, kc: 512, mc_panels: 24, rows: [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);

#[cfg(target_arch = "x86_64")]
kernels!(AVX2, avx2, crate::isa::Avx2Token::new(),
    #[target_feature(enable = "avx2,fma,f16c")]
    mr: 6, lanes: 8, kc: 384, mc_panels: 24, rows: [1 2 3 4 5 6]);

// Two registers a vector: 24 sums, four of b and one of a, of 32.
#[cfg(target_arch = "aarch64")]
kernels!(NEON, neon, crate::isa::NeonToken, mr: 6, lanes: 8, kc: 384, mc_panels: 24, rows: [1 2 3 4 5 6]);

kernels!(SCALAR, scalar, ScalarToken, mr: 2, lanes: 8, kc: 256, mc_panels: 32, rows: [1 2]);
