//! Prints milliseconds per fused kernel at the shapes of the 10M models of the benchmarks:
//! llama (hidden 320, 5 heads of 64, ffn 864, vocabulary 4096) and mamba (inner 640, state 16, conv 4), batch 8 × 256.
//!
//! `cargo run --release -p imaginal-kernels --example fused [filter]`

use std::time::Instant;

use imaginal_kernels::scan::{ScanGrads, ScanInputs, ScanShape, selective_scan, selective_scan_backward};
use imaginal_kernels::{isa, pool};

/// Runs `f` for about a quarter of a second and prints the shortest and the median time.
fn time(filter: &str, name: &str, mut f: impl FnMut()) {
    if !name.contains(filter) {
        return;
    }
    f();
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || start.elapsed().as_secs_f64() < 0.25 {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:<34} {:>9.3} ms  (median {:.3})", times[0], times[times.len() / 2]);
}

/// Numbers in [lo, hi) without a pattern.
fn data(n: usize, lo: f32, hi: f32) -> Vec<f32> {
    let mut x = 0x2545_f491u32.wrapping_add(n as u32);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            lo + (hi - lo) * (x >> 8) as f32 / 16_777_216.0
        })
        .collect()
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let filter = filter.as_str();
    println!("{} threads, {}", pool::threads(), isa::isa());
    scan(filter);
}

fn scan(filter: &str) {
    for (b, t, name) in [(8, 256, "8x256"), (1, 2048, "1x2048"), (1, 1, "decode")] {
        let (c, n) = (640, 16);
        let shape = ScanShape { b, t, c, n };
        let (u, delta, a) = (data(b * t * c, -1.0, 1.0), data(b * t * c, 0.001, 0.1), data(c * n, -16.0, -1.0));
        let (bm, cm, d) = (data(b * t * n, -1.0, 1.0), data(b * t * n, -1.0, 1.0), data(c, 0.0, 1.0));
        let h0 = data(b * c * n, -1.0, 1.0);
        let x = ScanInputs { u: &u, delta: &delta, a: &a, b: &bm, c: &cm, d: Some(&d), h0: Some(&h0) };
        let (mut y, mut h) = (vec![0.0; u.len()], vec![0.0; h0.len()]);
        time(filter, &format!("selective scan {name}"), || selective_scan(shape, &x, &mut y, &mut h));
        let (mut gu, mut gdelta, mut ga) = (u.clone(), delta.clone(), a.clone());
        let (mut gb, mut gc, mut gd, mut gh) = (bm.clone(), cm.clone(), d.clone(), h0.clone());
        time(filter, &format!("selective scan backward {name}"), || {
            let grads = ScanGrads {
                u: &mut gu,
                delta: &mut gdelta,
                a: &mut ga,
                b: &mut gb,
                c: &mut gc,
                d: Some(&mut gd),
                h0: Some(&mut gh),
            };
            selective_scan_backward(shape, &x, &u, None, grads)
        });
    }
}
