//! Times matrix products and prints GFLOP/s (or GB/s of weights, for few rows), one line per shape.
//!
//! `cargo run --release -p imaginal-kernels --example gemm -- [--threads N] [--only TEXT] [--seconds S]`; the same shapes
//! in PyTorch: `tools/bench/peer_matmul.py`, which also runs both in turns.

use std::time::Instant;

use imaginal_kernels::{MatRef, gemm, gemm_batch, isa, matmul_packed, memory, pool};
use imaginal_numeric::Format;

/// Which operands lie transposed: a as rows of k (N) or of m (T), b as rows of n (N) or of k (T).
const SHAPES: &[(&str, usize, usize, usize, usize)] = &[
    ("nn", 1, 2048, 2048, 2048),
    ("nt", 1, 2048, 2048, 2048),
    ("tn", 1, 2048, 2048, 2048),
    ("nn", 1, 1024, 1024, 1024),
    ("nn", 1, 512, 512, 512),
    ("nn", 1, 256, 256, 256),
    ("nn", 1, 128, 128, 128),
    ("nn", 1, 64, 64, 64),
    ("nn", 1, 32, 32, 32),
    ("nt", 1, 2048, 320, 320),
    ("nt", 1, 2048, 864, 320),
    ("nt", 1, 2048, 320, 864),
    ("nt", 1, 2048, 4096, 320),
    ("nn", 1, 2048, 320, 864),
    ("nn", 1, 2048, 864, 320),
    ("nn", 1, 2048, 320, 4096),
    ("tn", 1, 320, 320, 2048),
    ("tn", 1, 864, 320, 2048),
    ("tn", 1, 320, 864, 2048),
    ("tn", 1, 4096, 320, 2048),
    ("nt", 1, 2048, 1280, 320),
    ("nt", 1, 2048, 320, 640),
    ("nt", 1, 2048, 52, 640),
    ("nt", 1, 2048, 640, 20),
    ("nn", 1, 2048, 640, 52),
    ("nn", 1, 2048, 20, 640),
    ("tn", 1, 52, 640, 2048),
    ("tn", 1, 640, 20, 2048),
    ("nt", 40, 256, 256, 64),
    ("nn", 40, 256, 64, 256),
    ("tn", 40, 256, 64, 256),
    ("nt", 1, 16, 4096, 4096),
    ("nt", 1, 8, 4096, 4096),
    ("nt", 1, 1, 4096, 4096),
    ("nn", 1, 1, 4096, 4096),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    if let Some(n) = value("--threads") {
        pool::set_threads(n.parse().expect("--threads takes a number"));
    }
    let only = value("--only").unwrap_or_default();
    let seconds: f64 = value("--seconds").map_or(0.3, |s| s.parse().expect("--seconds takes a number"));
    eprintln!("{} threads, {}", pool::threads(), isa::isa());
    for &(kind, batch, m, n, k) in SHAPES {
        let name = format!("{kind} {batch}x{m}x{n}x{k}");
        if !name.contains(&only) {
            continue;
        }
        let a = buffer(batch * m * k, 0.5f32);
        let b = buffer(batch * n * k, 0.25f32);
        let mut c = buffer(batch * m * n, 0.0f32);
        let at = if kind.starts_with('t') { MatRef::row_major(&a, m).t() } else { MatRef::row_major(&a, k) };
        let bt = if kind.ends_with('t') { MatRef::row_major(&b, k).t() } else { MatRef::row_major(&b, n) };
        let best = time(seconds, || {
            if batch == 1 {
                gemm(m, n, k, at, bt, &mut c, n, false);
            } else {
                gemm_batch(batch, m, n, k, at, m * k, bt, n * k, &mut c, m * n, n, false);
            }
        });
        println!("{name} {:.1}", 2e-9 * (batch * m * n * k) as f64 / best);
    }
    // Whole numbers are no weights.
    for format in Format::all().filter(|f| f.block_len() > 1 || ["f32", "f16", "bf16"].contains(&f.name())) {
        for m in [1, 4, 8, 16, 512] {
            let (n, k) = (4096, 4096);
            let name = format!("{} {m}x{n}x{k}", format.name());
            if !name.contains(&only) {
                continue;
            }
            let mut w = vec![0u8; format.bytes_for(n * k).expect("whole blocks")];
            format.encode(&buffer(n * k, 0.5), &mut w).expect("a format that holds fractions");
            let x = buffer(m * k, 0.5f32);
            let mut out = buffer(m * n, 0.0f32);
            let best = time(seconds, || matmul_packed(format, &w, n, k, &x, m, &mut out));
            println!("{name} {:.1} GFLOP/s {:.1} GB/s", 2e-9 * (m * n * k) as f64 / best, 1e-9 * w.len() as f64 / best);
        }
    }
}

/// Memory as tensors have it.
fn buffer(len: usize, value: f32) -> Vec<f32> {
    let mut data = Vec::<f32>::with_capacity(len);
    memory::prefer_large_pages(data.as_ptr().cast(), len * size_of::<f32>());
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
