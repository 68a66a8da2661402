use super::*;
use crate::isa::available;

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            // An outlier now and then.
            if i % 97 == 13 { x * 30.0 } else { x }
        })
        .collect()
}

/// Formats of blocks, all of which have products of bytes.
fn formats() -> impl Iterator<Item = Format> {
    Format::all().filter(|f| f.block_len() > 1)
}

/// Instruction sets that have products of bytes.
fn sets() -> impl Iterator<Item = Isa> {
    available().filter(|i| supported(*i, Format::Q8_0))
}

#[test]
fn every_block_format_is_read() {
    for format in formats() {
        let layout = read::layout(format).unwrap_or_else(|| panic!("{format} is missing"));
        assert_eq!(Some(layout.bytes), format.bytes_for(CHUNK), "{format}");
        let chunks = 3;
        let mut bytes = vec![0; chunks * layout.bytes];
        format.encode(&numbers(chunks * CHUNK, 3), &mut bytes).unwrap();
        let mut expected = vec![0.0; chunks * CHUNK];
        format.decode(&bytes, &mut expected).unwrap();
        let plain = read::plain(format).unwrap();
        let readers = sets().map(|isa| (isa, kernel(isa, format).unwrap().read));
        for (isa, read) in readers.chain([(Isa::Scalar, plain)]) {
            let mut got = vec![Weights::ZERO; chunks];
            // SAFETY: the CPU has the instructions.
            got.iter_mut().zip(bytes.chunks(layout.bytes)).for_each(|(w, bytes)| unsafe { read(bytes, w) });
            for (i, expected) in expected.iter().enumerate() {
                let w = &got[i / CHUNK];
                let (q, group) = (w.q[i % CHUNK], i % CHUNK / 16);
                assert!(q <= layout.largest, "{format} {isa}");
                let is = w.scale[group] * f32::from(q) + w.min[group];
                let bound = 1e-6 * (w.scale[group] * f32::from(layout.largest)).abs().max(w.min[group].abs());
                assert!((is - expected).abs() <= bound, "{format} {isa} element {i}: {is} is not {expected}");
                if let Some(zero) = layout.zero {
                    assert_eq!(w.min[group], -f32::from(zero) * w.scale[group], "{format} {isa}");
                }
                assert_eq!(w.scale[group], w.scale[group * 16 / layout.group * layout.group / 16], "{format} {isa}");
            }
        }
    }
}

#[test]
fn any_bytes_are_read_as_without_instructions() {
    let mut random = crate::testing::Random::new(4);
    for format in formats() {
        let plain = read::plain(format).unwrap();
        for isa in sets() {
            let read = kernel(isa, format).unwrap().read;
            for _ in 0..50 {
                let bytes: Vec<u8> = (0..read::layout(format).unwrap().bytes).map(|_| random.bits() as u8).collect();
                let (mut got, mut expected) = (Weights::ZERO, Weights::ZERO);
                // SAFETY: the CPU has the instructions.
                unsafe {
                    read(&bytes, &mut got);
                    plain(&bytes, &mut expected);
                }
                assert_eq!(got.q, expected.q, "{isa} {format}");
                let numbers = |w: &Weights| w.scale.into_iter().chain(w.min).collect::<Vec<f32>>();
                for (got, expected) in numbers(&got).into_iter().zip(numbers(&expected)) {
                    let same = (got - expected).abs() <= 1e-6 * expected.abs() || got.is_nan() && expected.is_nan();
                    assert!(same || got == expected, "{isa} {format}: {got} is not {expected}");
                }
            }
        }
    }
}

/// Which activations of a chunk share a scale with few tokens, 16 each.
fn groups(order: &Order) -> [usize; CHUNK] {
    let (mut groups, mut runs) = ([usize::MAX; CHUNK], order.runs);
    for to in 0..CHUNK {
        groups[16 * usize::from(order.runs[to / 16]) + to % 16] = group(order.lanes.piece(), to / 4);
    }
    runs.sort_unstable();
    assert_eq!(runs, PLAIN.runs, "every run has one place");
    assert!((0..16).all(|group| groups.iter().filter(|g| **g == group).count() == 16));
    groups
}

/// The exact product of activations and weights, and what rounding the activations can do to it, some of each chunk of which
/// share a scale.
fn product(x: &[f32], w: &[f32], groups: &[usize; CHUNK]) -> (f64, f64) {
    let (mut exact, mut bound) = (0.0, 0.0);
    for (x, w) in x.chunks(CHUNK).zip(w.chunks(CHUNK)) {
        let mut scales = [0.0f64; 16];
        for (x, group) in x.iter().zip(groups) {
            scales[*group] = scales[*group].max(f64::from(x.abs()) / 127.0);
        }
        for ((x, w), group) in x.iter().zip(w).zip(groups) {
            let (x, w) = (f64::from(*x), f64::from(*w));
            exact += w * x;
            bound += w.abs() * scales[*group] * 0.5001 + 1e-5 * (w * x).abs();
        }
    }
    (exact, bound)
}

#[test]
fn against_the_decoded_matrix_in_f64() {
    for format in formats() {
        for k in [256, 512, 1024 + 32, 32, 96] {
            let Some(row_bytes) = format.bytes_for(k) else { continue };
            let n = 37;
            let mut w = vec![0; n * row_bytes];
            format.encode(&numbers(n * k, 1), &mut w).unwrap();
            let mut decoded = vec![0.0; n * k];
            format.decode(&w, &mut decoded).unwrap();
            let x = numbers(40 * k, 2);
            for (few, tokens) in [(true, &[1, 2, 3, 5, 8][..]), (false, &[9, 10, 11, 12, 13, 40])] {
                let most = tokens[tokens.len() - 1];
                for isa in sets() {
                    let groups = match few {
                        true => groups(kernel(isa, format).unwrap().order),
                        false => std::array::from_fn(|i| i / 32),
                    };
                    let expected: Vec<(f64, f64)> = (0..most * n)
                        .map(|i| product(&x[i / n * k..][..k], &decoded[i % n * k..][..k], &groups))
                        .collect();
                    let mut first: Option<Vec<f32>> = None;
                    for &m in tokens {
                        let mut out = vec![f32::NAN; m * n];
                        matmul(isa, 2, Rounding::Bf16, format, &w, row_bytes, n, k, &x[..m * k], m, &mut out);
                        for (i, (out, (exact, bound))) in out.iter().zip(&expected).enumerate() {
                            assert!(
                                (f64::from(*out) - exact).abs() <= bound + 1e-4,
                                "{isa} {format} {m}×{n}×{k} at {} {}: {out} is not {exact} ± {bound}",
                                i / n,
                                i % n
                            );
                        }
                        // A token's results do not depend on how many there are.
                        let row = first.get_or_insert_with(|| out[..n].to_vec());
                        assert_eq!(out[..n], row[..], "{isa} {format} {m}");
                    }
                }
            }
        }
    }
}

/// Checks the products of the first `m` of `x` with packed weights against those of what both were rounded to.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::too_many_arguments)]
pub(super) fn assert_products(
    isa: Isa,
    rounding: Rounding,
    format: Format,
    w: &[u8],
    (m, n, k): (usize, usize, usize),
    x: &[f32],
    weights: &[f64],
    activations: &[f64],
) {
    let mut out = vec![f32::NAN; m * n];
    matmul(isa, 2, rounding, format, w, w.len() / n, n, k, &x[..m * k], m, &mut out);
    for (i, out) in out.iter().enumerate() {
        let products = weights[i % n * k..][..k].iter().zip(&activations[i / n * k..]);
        let (exact, magnitudes) = products.fold((0.0, 0.0), |(sum, all), (a, b)| (sum + a * b, all + (a * b).abs()));
        let at = (i / n, i % n);
        assert!(
            (f64::from(*out) - exact).abs() <= 1e-6 * magnitudes,
            "{isa} {format} {m}×{n}×{k} at {at:?}: {out} is not {exact}"
        );
    }
}

/// Random weights in a format, what they are decoded to, and activations.
#[cfg(target_arch = "x86_64")]
pub(super) fn operands(format: Format, (m, n, k): (usize, usize, usize)) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let mut random = crate::testing::Random::new(1);
    let mut w = vec![0; n * format.bytes_for(k).unwrap()];
    format.encode(&random.vec(n * k, -1.0, 1.0), &mut w).unwrap();
    let mut decoded = vec![0.0; n * k];
    format.decode(&w, &mut decoded).unwrap();
    (w, decoded, random.vec(m * k, -1.0, 1.0))
}

#[test]
#[cfg(target_arch = "x86_64")]
fn coarse_scales_multiply_what_was_rounded() {
    if Isa::Avx512Vnni.usable() != Isa::Avx512Vnni {
        return;
    }
    for format in formats().filter(|format| format.block_len() == CHUNK) {
        let rounder = coarse::Rounder::new(format);
        for (n, k) in [(37, 256), (64, 512), (100, 1280)] {
            let row_bytes = format.bytes_for(k).unwrap();
            let (w, _, x) = operands(format, (40, n, k));
            let (mut weights, mut activations) = (vec![0.0; n * k], vec![0.0; 40 * k]);
            let bytes = read::layout(format).unwrap().bytes;
            let rounded = |scale: f32, q: &[i8; CHUNK], to: &mut [f64]| {
                to.iter_mut().zip(q).for_each(|(to, q)| *to = f64::from(scale) * f64::from(*q));
            };
            for (row, to) in w.chunks(row_bytes).zip(weights.chunks_mut(k)) {
                for (block, to) in row.chunks(bytes).zip(to.chunks_mut(CHUNK)) {
                    let mut q = [0; CHUNK];
                    rounded(rounder.round(block, &mut q), &q, to);
                }
            }
            for (x, to) in x.chunks(k).zip(activations.chunks_mut(k)) {
                for (x, to) in x.chunks(CHUNK).zip(to.chunks_mut(CHUNK)) {
                    let mut q = [0; CHUNK];
                    // SAFETY: the instructions are there.
                    rounded(unsafe { coarse::round(x, &mut q) }, &q, to);
                }
            }
            for m in [9, 10, 11, 12, 13, 14, 40] {
                let sizes = (m, n, k);
                assert_products(Isa::Avx512Vnni, Rounding::Int8, format, &w, sizes, &x, &weights, &activations);
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_so() {
    let (n, k) = (3, 256);
    for format in formats() {
        let row_bytes = format.bytes_for(k).unwrap();
        let mut w = vec![0; n * row_bytes];
        format.encode(&numbers(n * k, 9), &mut w).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let ways = |isa| [(isa, 1, Rounding::Bf16), (isa, 20, Rounding::Bf16), (isa, 20, Rounding::Int8)];
            for (isa, m, rounding) in sets().flat_map(ways) {
                let mut x = vec![1.0; m * k];
                x[100] = bad;
                let mut out = vec![0.0; m * n];
                matmul(isa, 1, rounding, format, &w, row_bytes, n, k, &x, m, &mut out);
                assert!(out[..n].iter().all(|x| !x.is_finite()), "{isa} {format} {out:?}");
                assert!(out[n..].iter().all(|x| x.is_finite()), "{isa} {format} {out:?}");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn weights_are_rounded_to_bytes_of_one_scale() {
    if Isa::Avx512Vnni.usable() != Isa::Avx512Vnni {
        return;
    }
    for format in formats() {
        let (chunk, blocks) = (format.bytes_for(CHUNK).unwrap(), 8);
        // Scales far apart, as those of a row's blocks may be.
        let values: Vec<f32> =
            numbers(blocks * CHUNK, 4).iter().enumerate().map(|(i, x)| x * (1 + i / 32 % 5 * 3) as f32).collect();
        let mut w = vec![0; blocks * chunk];
        format.encode(&values, &mut w).unwrap();
        let mut exact = vec![0.0; values.len()];
        format.decode(&w, &mut exact).unwrap();
        for (w, exact) in w.chunks(chunk).zip(exact.chunks(CHUNK)) {
            for len in [CHUNK, format.block_len()] {
                let mut q = [99; CHUNK];
                let scale = coarse::Rounder::new(format).round(&w[..format.bytes_for(len).unwrap()], &mut q);
                let largest = exact[..len].iter().fold(0.0f32, |a, x| a.max(x.abs()));
                // What the scales allow is at most 1.6 times what the numbers reach, in formats of grids.
                assert!(scale > 0.0 && scale * 127.0 < 2.2 * largest, "{format}: {scale} for {largest}");
                let mut energy = 0.0;
                for (i, (q, exact)) in q.iter().zip(exact).enumerate().take(len) {
                    let error = (f32::from(*q) - exact / scale).abs();
                    assert!(error < 0.75, "{format} {i}: {q} is not {}", exact / scale);
                    energy += error * error / len as f32;
                }
                let most = if len == CHUNK { 1.6 } else { 2.4 };
                assert!(energy < most / 12.0, "{format} {len}: {energy}");
                assert!(q[len..].iter().all(|q| *q == 0), "{format}");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn values_of_mxfp4_are_whole_steps() {
    if Isa::Avx512Vnni.usable() != Isa::Avx512Vnni {
        return;
    }
    let mut w = [0; 8 * 17];
    for (i, block) in w.chunks_mut(17).enumerate() {
        block[0] = 120 + i as u8 % 4;
        block[1..].iter_mut().enumerate().for_each(|(j, byte)| *byte = (j * 16 + 15 - j) as u8);
    }
    let (mut exact, mut q) = ([0.0; CHUNK], [0; CHUNK]);
    Format::MXFP4.decode(&w, &mut exact).unwrap();
    let scale = coarse::Rounder::new(Format::MXFP4).round(&w, &mut q);
    assert!(exact.iter().zip(&q).all(|(exact, q)| *exact == f32::from(*q) * scale), "{scale} {q:?}");
}

#[test]
fn more_tokens_and_depth_than_a_block_holds() {
    let (m, n, k) = (600, 33, 4096);
    let format = Format::Q8_0;
    let row_bytes = format.bytes_for(k).unwrap();
    let mut w = vec![0; n * row_bytes];
    format.encode(&numbers(n * k, 1), &mut w).unwrap();
    let x = numbers(m * k, 2);
    for isa in sets() {
        let mut out = vec![f32::NAN; m * n];
        matmul(isa, 2, Rounding::Bf16, format, &w, row_bytes, n, k, &x, m, &mut out);
        // Some tokens alone are divided otherwise, and must come out alike up to the order of the sums.
        for i in [0, 511, 512, 599] {
            let mut alone = vec![f32::NAN; n];
            matmul(isa, 2, Rounding::Bf16, format, &w, row_bytes, n, k, &x[i * k..][..k], 1, &mut alone);
            let size = alone.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            for (a, b) in alone.iter().zip(&out[i * n..]) {
                assert!((a - b).abs() <= 0.02 * size, "{isa} token {i}: {a} {b}");
            }
        }
    }
}

#[test]
fn the_largest_scales_and_numbers_fit_the_integers() {
    // Where blocks keep the binary16 numbers that their scales and minima are multiplied with.
    let units: [(Format, &[usize]); 6] = [
        (Format::Q2_K, &[80, 82]),
        (Format::Q3_K, &[108]),
        (Format::Q4_K, &[0, 2]),
        (Format::Q5_K, &[0, 2]),
        (Format::Q6_K, &[208]),
        (Format::IQ4_XS, &[0]),
    ];
    for (format, units) in units {
        let mut w = vec![0; format.bytes_for(CHUNK).unwrap()];
        // Numbers and scales are all bits or none; the scales of q6_k are bytes with a sign.
        for (bits, scale) in [(0x00, 0x00), (0xff, 0xff), (0x00, 0x80), (0xff, 0x80), (0x00, 0x7f), (0xff, 0x7f)] {
            w.fill(bits);
            match format {
                Format::Q2_K => w[..16].fill(scale),
                Format::Q3_K => w[96..108].fill(scale),
                Format::Q6_K => w[192..208].fill(scale),
                Format::IQ4_XS => w[2..8].fill(scale),
                _ => w[4..16].fill(scale),
            }
            for at in units {
                w[*at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes()); // 1
            }
            let mut decoded = [0.0; CHUNK];
            format.decode(&w, &mut decoded).unwrap();
            let size: f32 = decoded.iter().map(|x| x.abs()).sum();
            for x in [1.0f32, -1.0] {
                let expected = x * decoded.iter().sum::<f32>();
                let ways = |isa| [(isa, 1, Rounding::Bf16), (isa, 9, Rounding::Bf16), (isa, 9, Rounding::Int8)];
                for (isa, m, rounding) in sets().flat_map(ways) {
                    // Coarse scales have a test of their own.
                    if rounding == Rounding::Int8 && matches!(isa, Isa::Avx512Vnni | Isa::Amx) {
                        continue;
                    }
                    let mut out = vec![f32::NAN; m];
                    matmul(isa, 1, rounding, format, &w, w.len(), 1, CHUNK, &vec![x; m * CHUNK], m, &mut out);
                    // Scales that are rounded cost a little; an overflow costs more.
                    let bound = if rounding == Rounding::Int8 { 2e-3 * size } else { 1e-5 * expected.abs() };
                    let close = out.iter().all(|out| (out - expected).abs() <= bound);
                    assert!(close, "{isa} {format} {bits} {scale} {m}: {out:?} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn every_run_of_a_block_has_its_own_scale() {
    // Where runs of 32 weights keep a scale at their beginning, the smallest ones of mxfp4 included.
    let scales: [(Format, &[u8]); 3] =
        [(Format::MXFP4, &[0, 1, 2, 3, 120, 127, 128, 130]), (Format::Q4_0, &[0; 8]), (Format::IQ4_NL, &[0; 8])];
    for (format, scales) in scales {
        let mut w = vec![0; format.bytes_for(CHUNK).unwrap()];
        let run = w.len() / 8;
        for i in 0..8 {
            for (j, byte) in w[i * run..][..run].iter_mut().enumerate() {
                *byte = (37 * j + 11 * i) as u8;
            }
            match format {
                Format::MXFP4 => w[i * run] = scales[i],
                _ => w[i * run..][..2].copy_from_slice(&(0x2c00 + 0x111 * i as u16).to_le_bytes()),
            }
        }
        let mut decoded = [0.0; CHUNK];
        format.decode(&w, &mut decoded).unwrap();
        for i in 0..8 {
            // One run alone, so that small ones are not lost among others.
            let mut x = [0.0; CHUNK];
            x[32 * i..][..32].fill(1.0);
            let expected: f32 = decoded[32 * i..][..32].iter().sum();
            for isa in sets() {
                let mut out = [f32::NAN];
                matmul(isa, 1, Rounding::Bf16, format, &w, w.len(), 1, CHUNK, &x, 1, &mut out);
                // The smallest scale times that of the activations has lost some bits.
                assert!((out[0] - expected).abs() <= 1e-4 * expected.abs(), "{isa} {format} {i}: {out:?} {expected}");
            }
        }
    }
}
