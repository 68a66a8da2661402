//! Prints milliseconds per fused kernel at the shapes of the 10M models of the benchmarks:
//! llama (hidden 320, 5 heads of 64, ffn 864, vocabulary 4096) and mamba (inner 640, state 16, conv 4), batch 8 × 256.
//!
//! `cargo run --release -p imaginal-kernels --example fused [filter]`

use std::time::Instant;

use imaginal_kernels::attention::{
    AttentionOpts, AttentionResult, AttentionShape, CacheLayout, Cached, Heads, HeadsMut, attention,
    attention_backward, attention_cached,
};
use imaginal_kernels::conv::{ConvGrads, ConvInputs, ConvShape, causal_conv1d, causal_conv1d_backward};
use imaginal_kernels::embedding::{gather_rows, scatter_add_rows};
use imaginal_kernels::linear_attention::{LinearInputs, LinearShape, linear_attention};
use imaginal_kernels::loss::{cross_entropy, cross_entropy_backward};
use imaginal_kernels::norm::{rms_norm, rms_norm_backward};
use imaginal_kernels::optim::{AdamW, adamw};
use imaginal_kernels::rope::{RopeShape, RopeStyle, rope};
use imaginal_kernels::scan::{ScanGrads, ScanInputs, ScanShape, selective_scan, selective_scan_backward};
use imaginal_kernels::softmax::softmax;
use imaginal_kernels::vecmath::{Binary, Unary, binary, sum, sum_squares, swiglu, swiglu_backward, unary};
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

/// Sizes of the llama-shaped model and of a batch.
const B: usize = 8;
const T: usize = 256;
const TOKENS: usize = B * T;
const HIDDEN: usize = 320;
const HEADS: usize = 5;
const HEAD: usize = 64;
const FFN: usize = 864;
const VOCAB: usize = 4096;

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let filter = filter.as_str();
    println!("{} threads, {}", pool::threads(), isa::isa());
    elementwise(filter);
    rows(filter);
    attend(filter);
    attend_cached(filter);
    convolve(filter);
    scan(filter);
    linear(filter);
    train(filter);
}

fn elementwise(filter: &str) {
    let n = TOKENS * FFN;
    let (x, g, d) = (data(n, -4.0, 4.0), data(n, -4.0, 4.0), data(n, -1.0, 1.0));
    let (mut y, mut z) = (vec![0.0; n], vec![0.0; n]);
    for op in [Unary::Exp, Unary::Silu, Unary::Tanh, Unary::GeluErf, Unary::Softplus, Unary::Sqr] {
        time(filter, &format!("{op:?} {n}"), || unary(op, &x, &mut y));
    }
    time(filter, &format!("Add {n}"), || binary(Binary::Add, &x, &g, &mut y));
    time(filter, &format!("sum {n}"), || {
        std::hint::black_box(sum(&x));
    });
    time(filter, &format!("swiglu {n}"), || swiglu(&x, &g, &mut y));
    time(filter, &format!("swiglu backward {n}"), || swiglu_backward(&x, &g, &d, &mut y, &mut z));
}

fn rows(filter: &str) {
    let n = TOKENS * HIDDEN;
    let (x, w, d) = (data(n, -2.0, 2.0), data(HIDDEN, 0.5, 1.5), data(n, -1.0, 1.0));
    let (mut y, mut dw) = (vec![0.0; n], vec![0.0; HIDDEN]);
    time(filter, "rms_norm 2048x320", || rms_norm(&x, &w, 1e-5, TOKENS, HIDDEN, &mut y));
    time(filter, "rms_norm backward 2048x320", || rms_norm_backward(&x, &w, 1e-5, TOKENS, HIDDEN, &d, &mut y, &mut dw));
    let shape = RopeShape { b: B, t: T, h: HEADS, d: HEAD, r: HEAD, per_batch: false };
    let (cos, sin) = (data(T * HEAD / 2, -1.0, 1.0), data(T * HEAD / 2, -1.0, 1.0));
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        time(filter, &format!("rope {style:?} 8x256x5x64"), || rope(shape, style, false, &cos, &sin, &x, &mut y));
    }

    let logits = data(TOKENS * VOCAB, -5.0, 5.0);
    let targets: Vec<u32> = (0..TOKENS).map(|i| (i * 7919 % VOCAB) as u32).collect();
    let (mut lse, mut dl) = (vec![0.0; TOKENS], vec![0.0; logits.len()]);
    time(filter, "softmax 2048x4096", || softmax(&logits, TOKENS, VOCAB, &mut dl));
    time(filter, "cross_entropy 2048x4096", || {
        std::hint::black_box(cross_entropy(&logits, TOKENS, VOCAB, &targets, None, &mut lse));
    });
    time(filter, "cross_entropy backward 2048x4096", || {
        cross_entropy_backward(&logits, TOKENS, VOCAB, &targets, None, &lse, 1.0 / TOKENS as f32, &mut dl)
    });

    let table = data(VOCAB * HIDDEN, -1.0, 1.0);
    let mut dtable = table.clone();
    time(filter, "gather_rows 2048 of 4096x320", || gather_rows(&table, VOCAB, HIDDEN, &targets, &mut y));
    time(filter, "scatter_add_rows 2048 of 4096x320", || scatter_add_rows(&d, HIDDEN, &targets, &mut dtable, VOCAB));
}

/// Attention of llama-1b (32 query heads, 8 key-value heads of 64) over a cache, for a token and for a prompt.
fn attend_cached(filter: &str) {
    for format in CacheLayout::FORMATS {
        for (tq, tk) in [(1, 8192), (512, 512), (512, 8192)] {
            let (hq, hkv, d) = (32, 8, 64);
            let shape = AttentionShape { b: 1, tq, tk, hq, hkv, d, dv: d };
            let opts = AttentionOpts::causal(d, tk - tq);
            let Some(layout) = CacheLayout::new(format, 1, hkv, tk, d) else { continue };
            let (mut k, mut v) = (vec![0; layout.bytes()], vec![0; layout.bytes()]);
            let row = data(2 * d + tk, -2.0, 2.0);
            let row = |first: usize| Heads { data: &row[first..], bs: 0, ts: 1, hs: 0 };
            layout.write(&mut k, 0, tk, row(0));
            layout.write(&mut v, 0, tk, row(d));
            let q = data(tq * hq * d, -2.0, 2.0);
            let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; hq * tq]);
            time(filter, &format!("attention {format} {tq} of {tk}"), || {
                let (k, v) = (Cached { layout, bytes: &k }, Cached { layout, bytes: &v });
                let out = HeadsMut::contiguous(&mut out, tq, hq, d);
                attention_cached(shape, &opts, Heads::contiguous(&q, tq, hq, d), k, v, None, out, &mut lse)
            });
        }
    }
}

fn attend(filter: &str) {
    for (b, tq, tk, name) in
        [(B, T, T, "8x256"), (1, 2048, 2048, "1x2048"), (1, 1, 512, "1 of 512"), (1, 1, 8192, "1 of 8192")]
    {
        let shape = AttentionShape { b, tq, tk, hq: HEADS, hkv: HEADS, d: HEAD, dv: HEAD };
        let opts = AttentionOpts::causal(64, tk - tq);
        let row = HEADS * HEAD;
        let (q, g) = (data(b * tq * row, -2.0, 2.0), data(b * tq * row, -1.0, 1.0));
        let (k, v) = (data(b * tk * row, -2.0, 2.0), data(b * tk * row, -1.0, 1.0));
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; b * HEADS * tq]);
        let queries = |x| Heads::contiguous(x, tq, HEADS, HEAD);
        let keys = |x| Heads::contiguous(x, tk, HEADS, HEAD);
        time(filter, &format!("attention {name}"), || {
            let out = HeadsMut::contiguous(&mut out, tq, HEADS, HEAD);
            attention(shape, &opts, queries(&q), keys(&k), keys(&v), None, out, &mut lse)
        });
        if tq > 1 {
            let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
            time(filter, &format!("attention backward {name}"), || {
                attention_backward(
                    shape,
                    &opts,
                    queries(&q),
                    keys(&k),
                    keys(&v),
                    AttentionResult { out: queries(&out), lse: &lse, dout: queries(&g) },
                    HeadsMut::contiguous(&mut dq, tq, HEADS, HEAD),
                    HeadsMut::contiguous(&mut dk, tk, HEADS, HEAD),
                    HeadsMut::contiguous(&mut dv, tk, HEADS, HEAD),
                )
            });
        }
    }
}

fn convolve(filter: &str) {
    let (c, k) = (640, 4);
    let shape = ConvShape { b: B, t: T, c, k };
    let (x, w, bias, g) =
        (data(TOKENS * c, -1.0, 1.0), data(c * k, -1.0, 1.0), data(c, -1.0, 1.0), data(TOKENS * c, -1.0, 1.0));
    let i = ConvInputs { x: &x, w: &w, bias: Some(&bias), tail: None, silu: true };
    let mut y = vec![0.0; x.len()];
    time(filter, "causal_conv1d 8x256x640", || causal_conv1d(shape, &i, &mut y, None));
    let (mut dx, mut dw, mut db) = (x.clone(), w.clone(), bias.clone());
    time(filter, "causal_conv1d backward 8x256x640", || {
        let grads = ConvGrads { x: &mut dx, w: &mut dw, bias: Some(&mut db), tail: None };
        causal_conv1d_backward(shape, &i, &g, None, grads)
    });
}

fn train(filter: &str) {
    let n = 10_000_000;
    let (g, mut p) = (data(n, -1.0, 1.0), data(n, -1.0, 1.0));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let settings = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 10, grad_scale: 0.5 };
    time(filter, "adamw 10M", || adamw(&settings, &mut p, &g, &mut m, &mut v));
    time(filter, "sum_squares 10M", || {
        std::hint::black_box(sum_squares(&g));
    });
}

/// The recurrences of a Mamba-2 of 2.7B and of the gated DeltaNet of an 80B, for a token and for a prompt.
fn linear(filter: &str) {
    for t in [1, 256] {
        for (name, g, h, k, v, delta) in [("ssd", 1, 80, 128, 64, false), ("gated delta", 16, 32, 128, 128, true)] {
            let shape = LinearShape { b: 1, t, g, h, k, v };
            let (qk, values) = (data(t * g * k, -0.1, 0.1), data(t * h * v, -1.0, 1.0));
            let (decay, beta) = (data(t * h, -0.1, 0.0), data(t * h, 0.0, 1.0));
            let state = data(h * k * v, -1.0, 1.0);
            let (mut y, mut last) = (vec![0.0; t * h * v], vec![0.0; h * k * v]);
            let beta = delta.then_some(&beta[..]);
            let x = LinearInputs { q: &qk, k: &qk, v: &values, decay: &decay, beta, state: Some(&state), tiled: false };
            time(filter, &format!("linear attention {name} {t}"), || linear_attention(shape, &x, &mut y, &mut last));
        }
    }
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
