//! Buffers that a thread keeps between kernel calls, so that packing neither allocates nor touches fresh pages each time.

use std::cell::RefCell;

/// One cache line; makes every buffer 64-byte aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// What a buffer is for. A thread has one buffer of each kind.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    /// The packed left operand of a GEMM.
    A,
    /// The packed right operand of a GEMM.
    B,
    /// Rows decoded from a packed format.
    Rows,
    /// The blocks of a fused operation.
    Fused,
}

thread_local! {
    static BUFFERS: RefCell<[Vec<Line>; 4]> = const { RefCell::new([const { Vec::new() }; 4]) };
}

/// Calls `f` with a buffer of `len` elements, aligned to 64 bytes, contents unspecified (what an earlier call left).
///
/// While `f` runs, another call for the same slot on this thread gets a buffer of its own.
pub(crate) fn with_buffer<R>(slot: Slot, len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let lines = len.div_ceil(16);
    let mut buffer = BUFFERS.with_borrow_mut(|b| std::mem::take(&mut b[slot as usize]));
    if buffer.len() < lines {
        drop(buffer); // the old contents need no copying
        buffer = Vec::with_capacity(lines);
        crate::memory::prefer_large_pages(buffer.as_ptr().cast(), lines * size_of::<Line>());
        buffer.resize(lines, Line([0.0; 16]));
    }
    // SAFETY: a `Line` is 16 f32 without padding, and `lines` of them are initialised.
    let floats = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), lines * 16) };
    let result = f(&mut floats[..len]);
    BUFFERS.with_borrow_mut(|b| {
        if b[slot as usize].len() < buffer.len() {
            b[slot as usize] = buffer;
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_reused_and_nest() {
        let first = with_buffer(Slot::A, 100, |outer| {
            outer.fill(1.0);
            with_buffer(Slot::A, 5000, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|x| *x == 1.0));
            assert_eq!(outer.as_ptr() as usize % 64, 0);
            outer.as_ptr() as usize
        });
        // The larger of the two stays.
        let second = with_buffer(Slot::A, 5000, |b| b.as_ptr() as usize);
        let third = with_buffer(Slot::A, 10, |b| b.as_ptr() as usize);
        assert_eq!(second, third);
        assert_ne!(first, second);
    }
}
