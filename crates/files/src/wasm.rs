//! What a plain WebAssembly module lacks: randomness.
//!
//! The tokenizers library seeds its hash tables through `getrandom`, which has no source in a module without imports
//! and is told (`.cargo/config.toml`) to call this function instead. Programs that choose another backend do not call it.

use std::sync::atomic::{AtomicU32, Ordering};

/// Fills `dest` with numbers that differ from call to call. They are no secret, and nothing that needs one may use
/// them.
///
/// # Safety
/// `dest` points to `len` bytes that may be written.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    static STATE: AtomicU32 = AtomicU32::new(0x9e37_79b9);
    for i in 0..len {
        // An xorshift generator of 32 bits (Marsaglia 2003), one step per byte.
        let mut x = STATE.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        STATE.store(x, Ordering::Relaxed);
        // SAFETY: `getrandom` passes a pointer to `len` writable bytes, and `i < len`.
        unsafe { dest.add(i).write((x >> 8) as u8) };
    }
    Ok(())
}
