//! CPU memory for tensors, recycled. Training allocates the same sizes every step; returning such buffers to the
//! system and faulting them in again costs more than many of the operations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Mutex;

/// The unit of allocation: one cache line and one AVX-512 register.
#[derive(Copy, Clone)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: `Line` is `repr(C)` with a single byte array of its own size: no padding, every bit pattern is valid.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above; it is also `Copy` and `'static`.
unsafe impl bytemuck::Pod for Line {}

/// Buffers of fewer bytes are kept by the thread that drops them: a token generated alone makes hundreds, for which the
/// system's allocator (it is slow where memory is to be aligned) and the pool's lock take a noticeable part of its time.
const SMALL: usize = 4096;
/// How many idle buffers of each small size a thread keeps.
const KEPT: usize = 16;
/// How many idle bytes the pool may hold.
#[cfg(not(target_family = "wasm"))]
const IDLE_LIMIT: usize = 4 << 30;
#[cfg(target_family = "wasm")]
const IDLE_LIMIT: usize = 64 << 20;

#[derive(Default)]
struct Pool {
    idle: HashMap<usize, Vec<Vec<Line>>>,
    idle_bytes: usize,
    hits: u64,
    misses: u64,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

thread_local! {
    /// Idle small buffers, by their number of lines.
    static IDLE: RefCell<[Vec<Vec<Line>>; SMALL / 64 + 1]> = const { RefCell::new([const { Vec::new() }; SMALL / 64 + 1]) };
}

fn with_pool<R>(f: impl FnOnce(&mut Pool) -> R) -> R {
    // The pool's state is a plain map, consistent between statements, so a poisoned lock is still usable.
    let mut guard = POOL.lock().unwrap_or_else(|e| e.into_inner());
    f(guard.get_or_insert_with(Pool::default))
}

/// Idle bytes held by the buffer pool, and how often an allocation was served from it or was not.
pub fn pool_stats() -> (usize, u64, u64) {
    with_pool(|p| (p.idle_bytes, p.hits, p.misses))
}

/// Returns all idle buffers to the system.
pub fn pool_trim() {
    with_pool(|p| {
        p.idle.clear();
        p.idle_bytes = 0;
    });
}

/// A run of bytes aligned to 64, returned to the pool when dropped.
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

/// Sizes are rounded so that at most an eighth is wasted and similar sizes share buffers.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.div_ceil(step) * step
}

impl Buffer {
    /// `len` bytes whose values are unspecified (initialised, perhaps by an earlier owner).
    pub fn scratch(len: usize) -> Self {
        let lines = size_class(len.div_ceil(64));
        if len < SMALL {
            if let Ok(Some(lines)) = IDLE.try_with(|idle| idle.borrow_mut()[lines].pop()) {
                return Buffer { lines, len };
            }
        } else {
            let found = with_pool(|p| {
                let found = p.idle.get_mut(&lines).and_then(Vec::pop);
                match &found {
                    Some(_) => {
                        p.idle_bytes -= lines * 64;
                        p.hits += 1;
                    }
                    None => p.misses += 1,
                }
                found
            });
            if let Some(lines) = found {
                return Buffer { lines, len };
            }
        }
        let lines = bytemuck::zeroed_vec::<Line>(lines);
        imaginal_kernels::memory::prefer_large_pages(lines.as_ptr().cast(), size_of_val(&lines[..]));
        Buffer { lines, len }
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if self.len < SMALL {
            // Where the thread is about to end, it goes back to the system.
            let _ = IDLE.try_with(|idle| {
                let idle = &mut idle.borrow_mut()[lines.len()];
                if !lines.is_empty() && idle.len() < KEPT {
                    idle.push(lines);
                }
            });
            return;
        }
        let bytes = lines.len() * 64;
        with_pool(|p| {
            if p.idle_bytes + bytes <= IDLE_LIMIT {
                p.idle_bytes += bytes;
                p.idle.entry(lines.len()).or_default().push(lines);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        for n in 1..5000 {
            let c = size_class(n);
            assert!(c >= n && (c - n) * 8 <= n.max(8), "{n} -> {c}");
            assert_eq!(size_class(c), c);
        }
    }

    #[test]
    fn buffers_come_back() {
        // A size that no other test uses.
        let len = 977 * 64;
        drop(Buffer::scratch(len));
        let (_, hits, _) = pool_stats();
        let b = Buffer::scratch(len);
        assert!(pool_stats().1 > hits);
        assert_eq!(b.bytes().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn small_buffers_come_back_to_their_thread() {
        for len in [1, 64, 100, 2000, 4095] {
            let first = Buffer::scratch(len);
            let (address, lines) = (first.bytes().as_ptr() as usize, first.lines.len());
            drop(first);
            let again = Buffer::scratch(len);
            assert_eq!(
                (again.bytes().as_ptr() as usize, again.bytes().len(), again.lines.len()),
                (address, len, lines)
            );
            assert_eq!(address % 64, 0);
            let elsewhere = std::thread::spawn(move || Buffer::scratch(len).bytes().as_ptr() as usize).join().unwrap();
            assert_ne!(elsewhere, address);
        }
        drop((0..3 * KEPT).map(|_| Buffer::scratch(700)).collect::<Vec<_>>());
        assert_eq!(IDLE.with(|idle| idle.borrow()[size_class(11)].len()), KEPT);
    }
}
