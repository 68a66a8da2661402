//! Times products with packed weights and prints GFLOP/s and GB/s of weights, one line per format and number of tokens.
//!
//! `cargo run --release -p imaginal-kernels --example packed -- [--threads N] [--only TEXT] [--tokens M] [--rows N]
//! [--columns K] [--seconds S] [--rounding int8|bf16|none]`, with `IMAGINAL_ISA` naming a lower instruction set.

use std::time::Instant;

use imaginal_kernels::packed::Rounding;
use imaginal_kernels::{isa, memory, packed, pool};
use imaginal_numeric::Format;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    if let Some(n) = value("--threads") {
        pool::set_threads(n.parse().expect("--threads takes a number"));
    }
    let only = value("--only").unwrap_or_default();
    let tokens: Option<usize> = value("--tokens").map(|m| m.parse().expect("--tokens takes a number"));
    let seconds: f64 = value("--seconds").map_or(0.3, |s| s.parse().expect("--seconds takes a number"));
    let rounding = match value("--rounding").as_deref() {
        None | Some("int8") => Rounding::Int8,
        Some("bf16") => Rounding::Bf16,
        Some("none") => Rounding::None,
        Some(other) => panic!("--rounding takes int8, bf16 or none, not {other}"),
    };
    let n = value("--rows").map_or(8192, |n| n.parse().expect("--rows takes a number"));
    let k = value("--columns").map_or(4096, |k| k.parse().expect("--columns takes a number"));
    eprintln!("{} threads, {}, {n} rows of {k}", pool::threads(), isa::isa());
    for format in Format::all().filter(|f| f.block_len() > 1 && f.name().contains(&only)) {
        let mut state = 1u32;
        let values: Vec<f32> = (0..k)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        let row_bytes = format.bytes_for(k).expect("whole blocks");
        let mut w = buffer(n * row_bytes, 0u8);
        let (first, rest) = w.split_at_mut(row_bytes);
        format.encode(&values, first).expect("a block format holds fractions");
        rest.chunks_exact_mut(row_bytes).for_each(|row| row.copy_from_slice(first));
        let mut line = format!("{:8}", format.name());
        for m in [1, 4, 8, 32, 512].into_iter().filter(|m| tokens.is_none_or(|t| t == *m)) {
            let x: Vec<f32> = values.iter().copied().cycle().take(m * k).collect();
            let mut out = buffer(m * n, 0.0f32);
            let best = time(seconds, || {
                packed::matmul_packed_with(isa::isa(), rounding, format, &w, n, k, &x, m, &mut out);
            });
            line += &match m {
                1 => format!(" | {m}: {:5.1} GB/s", 1e-9 * w.len() as f64 / best),
                _ => format!(" | {m}: {:6.1} GFLOP/s", 2e-9 * (m * n * k) as f64 / best),
            };
        }
        println!("{line}");
    }
}

/// Memory as tensors have it.
fn buffer<T: Clone>(len: usize, value: T) -> Vec<T> {
    let mut data = Vec::<T>::with_capacity(len);
    memory::prefer_large_pages(data.as_ptr().cast(), len * size_of::<T>());
    data.resize(len, value);
    data
}

/// The shortest of as many runs as fit in the time, after one to warm up.
fn time(seconds: f64, mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed().as_secs_f64() < seconds {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}
