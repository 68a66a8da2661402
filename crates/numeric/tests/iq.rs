//! The iq formats' encoders against ggml's, whose errors `tools/reference/formats_iq.py` wrote down.

mod common;

use common::{fixture, halves, rmse, through};
use imaginal_numeric::Format;

const FORMATS: [Format; 7] =
    [Format::IQ1_S, Format::IQ1_M, Format::IQ2_XXS, Format::IQ2_XS, Format::IQ2_S, Format::IQ3_XXS, Format::IQ3_S];

#[test]
fn errors_are_no_larger_than_the_reference_s() {
    let (input, columns) = (halves("iq.input"), halves("iq.importance"));
    let third = input.len() / 3;
    let importance: Vec<f32> = columns.iter().copied().cycle().take(third).collect();
    let text = String::from_utf8(fixture("iq.rmse")).unwrap();
    let mut lines = 0;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (format, kind) = (Format::from_name(fields[0]).unwrap(), fields[1]);
        let part = ["gaussian", "heavy", "trained"].iter().position(|k| *k == kind).unwrap();
        let x = &input[part * third..][..third];
        let plain = rmse(x, &through(format, x, None), &vec![1.0; third]) / fields[2].parse::<f64>().unwrap();
        let weighted = through(format, x, Some(&importance));
        let weighted = rmse(x, &weighted, &importance) / fields[3].parse::<f64>().unwrap();
        println!("{format:8} {kind:9} {plain:.3} {weighted:.3}");
        assert!(plain <= 1.02 && weighted <= 1.02, "{format} {kind}: {plain} and {weighted} times the reference's");
        lines += 1;
    }
    assert_eq!(lines, 3 * FORMATS.len());
}

#[test]
fn finite_stays_finite() {
    let mut seed = 1u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let noise: Vec<f32> = (0..256).map(|_| random()).collect();
    let mut rows: Vec<Vec<f32>> = vec![vec![0.0; 256], vec![-0.0; 256], vec![1.0; 256], vec![-3.5; 256]];
    for magnitude in [1e-45, 1e-40, 1e-30, 1e-9, 1e-7, 1e-5, 1e3, 1e5, 1e20, f32::MAX] {
        rows.push(noise.iter().map(|x| x * magnitude).collect());
    }
    for at in [0, 100, 255] {
        let (mut alone, mut among) = (vec![0.0; 256], noise.clone());
        (alone[at], among[at]) = (-7.0, 1e30);
        rows.extend([alone, among]);
    }
    let importances = [vec![1.0; 256], vec![0.0; 256], noise.clone(), vec![f32::NAN; 256], vec![f32::MAX; 256]];
    for format in FORMATS {
        for x in &rows {
            for importance in [None].into_iter().chain(importances.iter().map(Some)) {
                let y = through(format, x, importance.map(Vec::as_slice));
                assert!(y.iter().all(|y| y.is_finite()), "{format} of {x:?} with {importance:?}");
                // What is not larger than the formats' scales can be is better coded than left out.
                let squares = |v: &mut dyn Iterator<Item = f64>| v.fold(0.0, |s, x| s + x * x);
                let whole = squares(&mut x.iter().map(|x| f64::from(*x)));
                let off = squares(&mut x.iter().zip(&y).map(|(x, y)| f64::from(*x) - f64::from(*y)));
                assert!(importance.is_some() || off <= 1.001 * whole, "{format} of {x:?}: {off:e} of {whole:e}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_makes_its_block_nan() {
    for format in FORMATS {
        for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut x = vec![0.5; 3 * 256];
            x[300] = odd;
            let y = through(format, &x, None);
            for (i, block) in y.chunks(256).enumerate() {
                assert!(block.iter().all(|y| y.is_nan() == (i == 1)), "{format} block {i}");
            }
        }
    }
}

#[test]
fn a_representable_block_comes_back() {
    // Random blocks at an exact scale: the encoder need not find the very bytes, but almost the values.
    for format in FORMATS {
        let block = format.block_bytes();
        let bytes = &fixture(&format!("{format}.bytes"))[..block];
        let mut x = vec![0.0; 256];
        format.decode(bytes, &mut x).unwrap();
        let y = through(format, &x, None);
        let error = rmse(&x, &y, &[1.0; 256]) / rmse(&x, &[0.0; 256], &[1.0; 256]);
        println!("{format} {error:.4}");
        assert!(error < 0.05, "{format}: {error}");
    }
}
