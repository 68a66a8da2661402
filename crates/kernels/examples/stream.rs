//! What the memory gives: gigabytes per second of a plain read with all threads of the pool, best of some passes.
//!
//! ```text
//! cargo run --release -p imaginal-kernels --example stream -- [GIGABYTES]
//! ```
//! The bound of generation: tokens per second cannot exceed this divided by the bytes of weights and cache of a token.

use std::time::Instant;

use imaginal_kernels::{pool, vecmath};

fn main() {
    let gigabytes: f64 = std::env::args().nth(1).map_or(1.0, |a| a.parse().expect("GIGABYTES is a number"));
    let numbers = vec![1f32; (gigabytes * 1e9 / 4.0) as usize];
    let mut best = f64::MAX;
    for _ in 0..8 {
        let start = Instant::now();
        let sum = vecmath::sum_squares(&numbers);
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(sum, numbers.len() as f64, "every number was read");
    }
    println!("{:.2} GB/s with {} threads", numbers.len() as f64 * 4e-9 / best, pool::threads());
}
