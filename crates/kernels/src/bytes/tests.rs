use super::*;
use crate::isa::{Isa, detected};

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

#[test]
fn against_the_decoded_matrix_in_f64() {
    if detected() < Isa::Avx512Vnni {
        return;
    }
    let mut formats = 0;
    for format in Format::all().filter(|f| supported(*f)) {
        formats += 1;
        for k in [256, 512, 1024 + 32, 32, 96] {
            if format.bytes_for(k).is_none() {
                continue;
            }
            let n = 37;
            let row_bytes = format.bytes_for(k).unwrap();
            let mut w = vec![0; n * row_bytes];
            format.encode(&numbers(n * k, 1), &mut w).unwrap();
            let mut decoded = vec![0.0; n * k];
            format.decode(&w, &mut decoded).unwrap();
            let mut first: Option<Vec<f32>> = None;
            for m in [1, 2, 3, 5, 8, 13, 16, 40] {
                let x = numbers(40 * k, 2);
                let mut out = vec![f32::NAN; m * n];
                // SAFETY: the CPU has the instructions.
                unsafe { matmul(2, format, &w, row_bytes, n, k, &x[..m * k], m, &mut out) };
                for (i, out) in out.chunks(n).enumerate() {
                    for (j, out) in out.iter().enumerate() {
                        let (mut exact, mut bound) = (0.0, 0.0);
                        for p in 0..k {
                            let group = &x[i * k + p / 16 * 16..][..16];
                            let scale = group.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
                            let w = f64::from(decoded[j * k + p]);
                            exact += w * f64::from(x[i * k + p]);
                            bound += w.abs() * f64::from(scale) * 0.5001 + 1e-5 * (w * f64::from(x[i * k + p])).abs();
                        }
                        let error = (f64::from(*out) - exact).abs();
                        assert!(
                            error <= bound + 1e-4,
                            "{format} {m}×{n}×{k} at {i} {j}: {out} is not {exact} ± {bound}"
                        );
                    }
                }
                // A token's results do not depend on how many there are.
                let row = first.get_or_insert_with(|| out[..n].to_vec());
                assert_eq!(out[..n], row[..], "{format} {m}");
            }
        }
    }
    assert!(formats >= 13);
}

#[test]
fn what_is_no_number_stays_so() {
    if detected() < Isa::Avx512Vnni {
        return;
    }
    let (n, k) = (3, 256);
    let mut w = vec![0; n * 272];
    Format::Q8_0.encode(&vec![1.0; n * k], &mut w).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; k];
        x[100] = bad;
        let mut out = vec![0.0; n];
        // SAFETY: the CPU has the instructions.
        unsafe { matmul(1, Format::Q8_0, &w, 272, n, k, &x, 1, &mut out) };
        assert!(out.iter().all(|x| !x.is_finite()), "{out:?}");
    }
}
