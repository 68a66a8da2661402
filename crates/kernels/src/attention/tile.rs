//! The small matrix product that attention's blocks are made of.

use crate::isa::{Simd, simd_fn};

/// The left operand: element (i, p) at `i·rs + p·cs`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub rs: usize,
    pub cs: usize,
}

/// MR rows times NV vectors of c (+)= a·b over k steps; sums run in the order of k, whatever MR and NV are.
///
/// # Safety
/// The elements that the sizes and strides name must lie in the operands.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    k: usize,
    a: *const f32,
    rs: usize,
    cs: usize,
    b: *const f32,
    b_rs: usize,
    c: *mut f32,
    c_rs: usize,
    accumulate: bool,
) {
    let mut acc = [[s.zero(); NV]; MR];
    // SAFETY: by the caller's promise.
    unsafe {
        if accumulate {
            for (i, row) in acc.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = s.load_ptr(c.add(i * c_rs + v * S::LANES));
                }
            }
        }
        for p in 0..k {
            let mut bv = [s.zero(); NV];
            for (v, x) in bv.iter_mut().enumerate() {
                *x = s.load_ptr(b.add(p * b_rs + v * S::LANES));
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let av = s.splat(*a.add(i * rs + p * cs));
                for (x, bv) in row.iter_mut().zip(bv) {
                    *x = s.mul_add(av, bv, *x);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                s.store_ptr(*x, c.add(i * c_rs + v * S::LANES));
            }
        }
    }
}

/// One row and less than a vector of columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn narrow<S: Simd>(
    s: S,
    k: usize,
    n: usize,
    a: Left,
    i: usize,
    b: &[f32],
    b_rs: usize,
    c: &mut [f32],
    accumulate: bool,
) {
    let mut acc = if accumulate { s.load_partial(&c[..n]) } else { s.zero() };
    for p in 0..k {
        let bv = s.load_partial(&b[p * b_rs..p * b_rs + n]);
        acc = s.mul_add(s.splat(a.data[i * a.rs + p * a.cs]), bv, acc);
    }
    s.store_partial(acc, &mut c[..n]);
}

simd_fn! {
    /// c[m, n] (row stride `c_rs`) = a[m, k]·b[k, n] (row stride `b_rs`), or += if `accumulate`.
    ///
    /// An element of c is one sum over k in order, so it does not depend on the other rows and columns.
    pub(super) fn multiply<S>(
        s: S, m: usize, n: usize, k: usize, a: Left<'_>, b: &[f32], b_rs: usize, c: &mut [f32], c_rs: usize,
        accumulate: bool
    ) {
        if m == 0 || n == 0 {
            return;
        }
        assert!(c.len() >= (m - 1) * c_rs + n && c_rs >= n);
        assert!(k == 0 || a.data.len() > (m - 1) * a.rs + (k - 1) * a.cs);
        assert!(k == 0 || b.len() >= (k - 1) * b_rs + n);
        let l = S::LANES;
        let mut j = 0;
        while j < n {
            let left = n - j;
            let wide = left >= 4 * l;
            if left < l {
                for i in 0..m {
                    narrow(s, k, left, a, i, &b[j..], b_rs, &mut c[i * c_rs + j..], accumulate);
                }
                return;
            }
            let (ap, bp, cp) = (a.data.as_ptr(), b[j..].as_ptr(), c[j..].as_mut_ptr());
            let mut i = 0;
            // SAFETY: rows i.. below m, columns j.. below n and steps below k, which lie in the operands as asserted.
            unsafe {
                if wide && l == 16 {
                    while i + 6 <= m {
                        block::<S, 6, 4>(s, k, ap.add(i * a.rs), a.rs, a.cs, bp, b_rs, cp.add(i * c_rs), c_rs, accumulate);
                        i += 6;
                    }
                }
                if wide {
                    while i + 2 <= m {
                        block::<S, 2, 4>(s, k, ap.add(i * a.rs), a.rs, a.cs, bp, b_rs, cp.add(i * c_rs), c_rs, accumulate);
                        i += 2;
                    }
                    while i < m {
                        block::<S, 1, 4>(s, k, ap.add(i * a.rs), a.rs, a.cs, bp, b_rs, cp.add(i * c_rs), c_rs, accumulate);
                        i += 1;
                    }
                    j += 4 * l;
                } else {
                    while i + 8 <= m {
                        block::<S, 8, 1>(s, k, ap.add(i * a.rs), a.rs, a.cs, bp, b_rs, cp.add(i * c_rs), c_rs, accumulate);
                        i += 8;
                    }
                    while i < m {
                        block::<S, 1, 1>(s, k, ap.add(i * a.rs), a.rs, a.cs, bp, b_rs, cp.add(i * c_rs), c_rs, accumulate);
                        i += 1;
                    }
                    j += l;
                }
            }
        }
    }
}
