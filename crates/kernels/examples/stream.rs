//! What the memory gives: gigabytes per second of a plain read with all threads of the pool, best of some passes.
//!
//! ```text
//! cargo run --release -p imaginal-kernels --example stream -- [GIGABYTES]
//! ```
//! The bound of generation: tokens per second cannot exceed this divided by the bytes of weights and cache of a token.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use imaginal_kernels::pool;

fn main() {
    let gigabytes: f64 = std::env::args().nth(1).map_or(1.0, |a| a.parse().expect("GIGABYTES is a number"));
    let words = vec![1u64; (gigabytes * 1e9 / 8.0) as usize];
    const CHUNK: usize = 1 << 17; // a megabyte
    let mut best = f64::MAX;
    for _ in 0..8 {
        let sum = AtomicU64::new(0);
        let start = Instant::now();
        pool::parallel(words.len().div_ceil(CHUNK), &|i| {
            let part = &words[i * CHUNK..words.len().min((i + 1) * CHUNK)];
            let mut lanes = [0u64; 32];
            for x in part.chunks_exact(32) {
                lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = lane.wrapping_add(*x));
            }
            sum.fetch_add(lanes.iter().sum(), Relaxed);
        });
        best = best.min(start.elapsed().as_secs_f64());
        assert!(sum.into_inner() <= words.len() as u64);
    }
    println!("{:.2} GB/s with {} threads", words.len() as f64 * 8e-9 / best, pool::threads());
}
