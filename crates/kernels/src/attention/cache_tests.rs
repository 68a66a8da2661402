//! Attention over caches of every format, against f64 over what the caches decode to.

use imaginal_numeric::Format;

use super::tests::{Case, at, plain};
use super::*;
use crate::isa::available;
use crate::testing::{Random, assert_close, wide};

/// A cache with the rows of a tensor [b, t, h, d], which become what the cache decodes to. What the cache has beyond them
/// must not be touched: it is not a number.
fn fill(format: Format, x: &mut [f64], [b, t, h, d]: [usize; 4], capacity: usize) -> (CacheLayout, Vec<u8>) {
    let layout = CacheLayout::new(format, b, h, capacity, d).unwrap();
    let mut bytes = vec![0xff; layout.bytes()];
    let rows: Vec<f32> = x.iter().map(|x| *x as f32).collect();
    let rows = Heads::contiguous(&rows, t, h, d);
    // Some rows come later.
    layout.write(&mut bytes, 0, t / 3, rows);
    layout.write(&mut bytes, t / 3, t - t / 3, Heads { data: &rows.data[t / 3 * rows.ts..], ..rows });
    let mut back = vec![0.0; d];
    for n in 0..b * t * h {
        let (i, j, k) = (n / h / t, n / h % t, n % h);
        let place = at(t, h, d, [i, j, k, 0]);
        layout.read(&bytes, i, k, j, &mut back);
        x[place..place + d].iter_mut().zip(&back).for_each(|(x, r)| *x = f64::from(*r));
    }
    (layout, bytes)
}

/// How far a result may be from the exact one, given the set that computes it: rounding in f32, of queries to bytes, or of
/// all operands to bf16.
fn bound(case: &Case, format: Format, isa: Isa) -> f64 {
    let s = case.shape;
    let (few, blocks) = (s.tq <= FEW_QUERIES, format.block_len() > 1);
    let largest = case.v.iter().fold(0.1f64, |m, v| m.max(v.abs()));
    let scale = f64::from(case.opts.scale);
    let rows = |x: &[f64]| x.chunks(s.d).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (q, k) = (rows(&case.q), rows(&case.k));
    let norm = |x: &[f64]| x.iter().map(|v| v.abs()).sum::<f64>();
    let biggest = |x: &[f64]| x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // The error of a score moves probabilities by a factor of e^±error, twice because of the sum.
    let moved = |error: f64| ((2.0 * error).exp() - 1.0) * largest;
    let most = |x: &[Vec<f64>], f: &dyn Fn(&[f64]) -> f64| x.iter().map(|r| f(r)).fold(0.0, f64::max);
    3e-6 * largest
        + match (few, isa) {
            (true, Isa::Avx512Vnni | Isa::Amx) if blocks => {
                moved(scale * most(&q, &biggest) / 127.0 * 0.501 * most(&k, &norm))
            }
            (false, Isa::Amx) if format != Format::F32 => {
                let half = 2f64.powi(-9) * 1.01;
                moved(scale * 2.0 * half * most(&q, &biggest) * most(&k, &norm)) + 2.0 * half * largest
            }
            _ => 0.0,
        }
}

fn run(case: &Case, isa: Isa, k: Cached, v: Cached) -> (Vec<f32>, Vec<f32>) {
    let s = case.shape;
    let narrow = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (q, sinks) = (narrow(&case.q), case.sinks.as_deref().map(narrow));
    let (mut out, mut lse) = (vec![f32::NAN; s.b * s.tq * s.hq * s.dv], vec![f32::NAN; s.b * s.hq * s.tq]);
    let q = Heads::contiguous(&q, s.tq, s.hq, s.d);
    let x = Inputs { shape: s, opts: case.opts, q, k: Rows::Cache(k), v: Rows::Cache(v), sinks: sinks.as_deref() };
    attention_isa(isa, &x, HeadsMut::contiguous(&mut out, s.tq, s.hq, s.dv), &mut lse);
    (out, lse)
}

#[test]
fn every_format_and_path_against_f64() {
    // Batch, queries, keys, query heads, key heads, elements of keys and values, first position.
    let shapes = [
        (1, 1, 1, 1, 1, 32, 32, 0),
        (1, 1, 67, 4, 1, 64, 64, 66),
        (2, 1, 70, 6, 2, 64, 32, 69),
        (1, 3, 131, 5, 5, 96, 64, 128),
        (1, 4, 200, 14, 2, 128, 128, 196),
        (1, 1, 2100, 2, 1, 32, 32, 2099),
        (1, 5, 5, 2, 1, 32, 32, 0),
        (1, 70, 70, 4, 1, 64, 64, 0),
        (2, 33, 150, 6, 2, 96, 32, 117),
        (1, 100, 300, 7, 1, 32, 160, 200),
        // Lengths without whole vectors or blocks, for the formats of plain numbers.
        (1, 2, 90, 4, 2, 20, 12, 88),
        (2, 40, 90, 3, 3, 12, 20, 50),
    ];
    for format in CacheLayout::FORMATS {
        for (b, tq, tk, hq, hkv, d, dv, q_start) in shapes {
            if (d % format.block_len(), dv % format.block_len()) != (0, 0) {
                continue;
            }
            for variant in 0..6 {
                let shape = AttentionShape { b, tq, tk, hq, hkv, d, dv };
                let opts = AttentionOpts { q_start, ..plain(d) };
                let mut case = match variant {
                    0 => Case::new(shape, opts),
                    1 => Case::new(shape, AttentionOpts { window: Some(21), ..opts }),
                    2 => Case::new(shape, AttentionOpts { softcap: Some(1.5), ..opts }),
                    5 => Case::new(shape, AttentionOpts { chunk: Some(37), ..opts }),
                    3 => Case::new(shape, AttentionOpts { causal: false, ..opts }).with_sinks(),
                    _ => Case::new(shape, AttentionOpts { window: Some(50), softcap: Some(2.0), ..opts }).with_sinks(),
                };
                let (k_layout, k) = fill(format, &mut case.k, [b, tk, hkv, d], tk + 3);
                let (v_layout, v) = fill(format, &mut case.v, [b, tk, hkv, dv], tk + 3);
                let (out, lse) = case.forward();
                for isa in available() {
                    let (k, v) = (Cached { layout: k_layout, bytes: &k }, Cached { layout: v_layout, bytes: &v });
                    let (got, got_lse) = run(&case, isa, k, v);
                    let bound = bound(&case, format, isa);
                    let what = format!("{isa} {format} {shape:?} variant {variant}");
                    assert_close(&what, &got, &out, bound, 1.0);
                    assert_close(&what, &got_lse, &lse, 2.0 * bound + 3e-6, 1.0);
                }
            }
        }
    }
}

#[test]
fn keys_outside_the_window_are_not_touched() {
    for (tq, q_start) in [(1, 2999), (4, 2996), (40, 2960)] {
        for format in CacheLayout::FORMATS {
            let shape = AttentionShape { b: 1, tq, tk: 3000, hq: 4, hkv: 2, d: 32, dv: 32 };
            let mut case = Case::new(shape, AttentionOpts { q_start, window: Some(100), ..plain(32) });
            let (layout, mut k) = fill(format, &mut case.k, [1, 3000, 2, 32], 3000);
            let (_, mut v) = fill(format, &mut case.v, [1, 3000, 2, 32], 3000);
            let first = (q_start + 1 - 100) / KEYS * KEYS;
            let expected: Vec<_> = available()
                .map(|isa| run(&case, isa, Cached { layout, bytes: &k }, Cached { layout, bytes: &v }))
                .collect();
            let nothing = vec![f32::NAN; first * 2 * 32];
            layout.write(&mut k, 0, first, Heads::contiguous(&nothing, first, 2, 32));
            layout.write(&mut v, 0, first, Heads::contiguous(&nothing, first, 2, 32));
            for (isa, expected) in available().zip(expected) {
                let got = run(&case, isa, Cached { layout, bytes: &k }, Cached { layout, bytes: &v });
                assert!(got == expected, "{isa} {format} {tq}");
            }
        }
    }
}

#[test]
fn a_query_over_a_cache_does_not_depend_on_its_neighbours() {
    let (tk, hq, hkv, d) = (300, 4, 2, 64);
    let whole = |tq, q_start, from: usize| {
        let shape = AttentionShape { b: 1, tq, tk, hq, hkv, d, dv: d };
        let mut case = Case::new(shape, AttentionOpts { q_start: q_start + from, window: Some(90), ..plain(d) });
        let mut r = Random::new(7);
        (case.k, case.v) = (wide(&r.vec(tk * hkv * d, -1.0, 1.0)), wide(&r.vec(tk * hkv * d, -1.0, 1.0)));
        case.q = wide(&r.vec(100 * hq * d, -1.0, 1.0)[from * hq * d..(from + tq) * hq * d]);
        case
    };
    for format in CacheLayout::FORMATS {
        for isa in available() {
            let out = |mut case: Case| {
                let (layout, k) = fill(format, &mut case.k, [1, tk, hkv, d], tk);
                let (_, v) = fill(format, &mut case.v, [1, tk, hkv, d], tk);
                run(&case, isa, Cached { layout, bytes: &k }, Cached { layout, bytes: &v }).0
            };
            let row = hq * d;
            let all = out(whole(100, 200, 0));
            for (from, to) in [(0, 50), (37, 100), (13, 19)] {
                assert!(out(whole(to - from, 200, from)) == all[from * row..to * row], "{isa} {format} {from}..{to}");
            }
            let four = out(whole(4, 250, 0));
            for i in 0..4 {
                assert!(out(whole(1, 250, i)) == four[i * row..(i + 1) * row], "{isa} {format} query {i}");
            }
        }
    }
}

/// llama.cpp rounds queries to q8_0 for a cache in q8_0 or q4_0. That alone, without whatever else it rounds, is what the
/// errors here are compared with.
#[test]
fn rounded_queries_are_as_near_as_those_of_llama_cpp() {
    for (format, d) in [(Format::Q8_0, 64), (Format::Q8_0, 128), (Format::Q4_0, 96)] {
        let shape = AttentionShape { b: 1, tq: 1, tk: 500, hq: 16, hkv: 4, d, dv: d };
        let mut case = Case::new(shape, AttentionOpts { q_start: 499, ..plain(d) });
        let (layout, k) = fill(format, &mut case.k, [1, 500, 4, d], 500);
        let (_, v) = fill(format, &mut case.v, [1, 500, 4, d], 500);
        let exact = case.forward().0;
        let error = |got: &[f64]| got.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let mut peer = case.clone();
        fill(Format::Q8_0, &mut peer.q, [1, 1, 16, d], 1);
        let theirs = error(&peer.forward().0);
        for tq in [1, 2 * FEW_QUERIES] {
            // Many queries are all the same one, which sees all keys.
            let mut case = case.clone();
            case.shape.tq = tq;
            case.opts.causal = false;
            case.q = case.q.repeat(tq);
            for isa in available() {
                let (out, _) = run(&case, isa, Cached { layout, bytes: &k }, Cached { layout, bytes: &v });
                let ours = error(&wide(&out[..16 * d]));
                // Tiles round keys, values and probabilities to bf16 too; over q4_0 that was 1.27 times the peer's error.
                let most = if tq > FEW_QUERIES && format == Format::Q4_0 { 1.5 } else { 1.2 };
                assert!(ours <= most * theirs, "{isa} {format} {d} {tq}: {ours:e} {theirs:e}");
            }
        }
    }
}

#[test]
fn caches_keep_their_rows_when_they_grow() {
    let mut r = Random::new(5);
    for format in CacheLayout::FORMATS {
        let (b, h, d, len) = (2, 3, 64, 5);
        let small = CacheLayout::new(format, b, h, len, d).unwrap();
        let large = small.with_capacity(9).unwrap();
        assert_eq!(small.bytes(), format.bytes_for(b * h * len * d).unwrap());
        let (mut from, mut to) = (vec![0; small.bytes()], vec![0; large.bytes()]);
        let values = r.vec(b * h * len * d, -2.0, 2.0);
        small.write(&mut from, 0, len, Heads { data: &values, bs: h * len * d, ts: d, hs: len * d });
        let exact = |row: &[f32]| {
            // The rounding is the format's.
            let mut packed = vec![0; format.bytes_for(d).unwrap()];
            format.encode(row, &mut packed).unwrap();
            let mut exact = vec![0.0; d];
            format.decode(&packed, &mut exact).unwrap();
            exact
        };
        let rows: Vec<Vec<f32>> = values.chunks(d).map(exact).collect();
        small.copy(&from, &large, &mut to, len);
        for (n, exact) in rows.iter().enumerate() {
            let mut row = vec![0.0; d];
            large.read(&to, n / h / len, n / len % h, n % len, &mut row);
            assert_eq!(row, *exact, "{format}");
        }
    }
    assert_eq!(CacheLayout::new(Format::Q8_0, 1, 1, 1, 48), None);
    assert_eq!(CacheLayout::new(Format::Q4_K, 1, 1, 1, 256), None);
    assert_eq!(CacheLayout::new(Format::F32, usize::MAX, 2, 2, 2), None);
}
