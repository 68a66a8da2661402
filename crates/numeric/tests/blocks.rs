//! Encoders of blocks: their errors against ggml's, which `tools/reference/formats.py` wrote down, and inputs at the edge.

mod common;

use common::{fixture, halves, rmse, through};
use imaginal_numeric::Format;

const FORMATS: [Format; 14] = [
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q2_K,
    Format::Q3_K,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::IQ4_NL,
    Format::IQ4_XS,
    Format::MXFP4,
    Format::NVFP4,
    Format::TQ1_0,
    Format::TQ2_0,
];

#[test]
fn errors_are_no_larger_than_the_reference_s() {
    let (input, columns) = (halves("blocks.input"), halves("blocks.importance"));
    let third = input.len() / 3;
    let importance: Vec<f32> = columns.iter().copied().cycle().take(third).collect();
    let text = String::from_utf8(fixture("blocks.rmse")).unwrap();
    let (mut lines, mut worse) = (0, Vec::new());
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (format, kind) = (Format::from_name(fields[0]).unwrap(), fields[1]);
        let part = ["gaussian", "heavy", "trained"].iter().position(|k| *k == kind).unwrap();
        let x = &input[part * third..][..third];
        let plain = rmse(x, &through(format, x, None), &vec![1.0; third]) / fields[2].parse::<f64>().unwrap();
        let weighted = through(format, x, Some(&importance));
        let weighted = rmse(x, &weighted, &importance) / fields[3].parse::<f64>().unwrap();
        println!("{format:8} {kind:9} {plain:.3} {weighted:.3}");
        if plain > 1.02 || weighted > 1.02 {
            worse.push(format!("{format} {kind}: {plain:.3} and {weighted:.3}"));
        }
        lines += 1;
    }
    assert_eq!(lines, 3 * FORMATS.len());
    assert!(worse.is_empty(), "times the reference's error: {worse:#?}");
}

#[test]
fn finite_numbers_stay_finite() {
    let ramp: Vec<f32> = (0..256).map(|i| ((i * 37) % 256) as f32 / 128.0 - 1.0).collect();
    let ramp = |f: f32| ramp.iter().map(move |x| x * f).collect::<Vec<f32>>();
    let mut outlier = ramp(0.01);
    outlier[77] = 1e30;
    let mut lone = vec![0.0; 256];
    lone[200] = -3.0;
    let mut steps = ramp(1.0);
    steps.iter_mut().enumerate().for_each(|(i, x)| *x *= 10f32.powi(i as i32 / 16 * 4 - 30));
    let blocks = [
        vec![0.0; 256],
        vec![-0.0; 256],
        vec![1.0; 256],
        vec![-0.3; 256],
        vec![f32::MAX; 256],
        vec![f32::MIN; 256],
        vec![f32::from_bits(1); 256],
        ramp(1e-45),
        ramp(1e-40),
        ramp(f32::MIN_POSITIVE),
        ramp(1e-20),
        ramp(1e-9),
        ramp(1e-7),
        ramp(1e-5),
        ramp(65504.0),
        ramp(1e6),
        ramp(1e30),
        ramp(f32::MAX),
        outlier,
        lone,
        steps,
    ];
    let importances: [Option<Vec<f32>>; 8] = [
        None,
        Some(vec![1.0; 256]),
        Some(vec![0.0; 256]),
        Some(ramp(1.0).iter().map(|x| x.max(0.0)).collect()),
        Some(vec![1e-40; 256]),
        Some(vec![1e38; 256]),
        Some(vec![f32::NAN; 256]),
        Some((0..256).map(|i| if i % 3 == 0 { f32::INFINITY } else { -1.0 + i as f32 }).collect()),
    ];
    for format in FORMATS.into_iter().chain([Format::Q4_0, Format::Q8_0]) {
        for (i, x) in blocks.iter().enumerate() {
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (j, importance) in importances.iter().enumerate() {
                let y = through(format, x, importance.as_deref());
                for (x, y) in x.iter().zip(&y) {
                    // Twice: where only other elements have an importance, the offset is free.
                    let near = (x - y).abs() <= 2.0 * largest.max(2e-3);
                    assert!(near, "{format}, block {i}, importance {j}: {x:e} became {y:e}");
                }
            }
        }
    }
}

#[test]
fn constants_and_ternary_weights_are_kept() {
    for format in FORMATS {
        for value in [1.0f32, -1.0, 0.375] {
            let y = through(format, &[value; 256], None);
            let bound = if matches!(format, Format::MXFP4 | Format::NVFP4) { 0.13 } else { 0.01 };
            assert!(y.iter().all(|y| (y - value).abs() <= bound * value.abs()), "{format}: {value} became {}", y[0]);
        }
    }
    let x: Vec<f32> = (0..256).map(|i| 0.0625 * ((i * 7 % 3) as f32 - 1.0)).collect();
    for format in [Format::TQ1_0, Format::TQ2_0, Format::Q2_K, Format::Q6_K] {
        let y = through(format, &x, None);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-3), "{format}");
    }
}

#[test]
fn an_importance_is_heeded() {
    let (input, columns) = (halves("blocks.input"), halves("blocks.importance"));
    let importance: Vec<f32> = columns.iter().copied().cycle().take(input.len()).collect();
    for format in FORMATS.into_iter().chain([Format::Q4_0]) {
        let without = rmse(&input, &through(format, &input, None), &importance);
        let with = rmse(&input, &through(format, &input, Some(&importance)), &importance);
        assert!(with < 0.99 * without, "{format}: {with:e} with, {without:e} without");
    }
}

#[test]
fn another_round_loses_little() {
    // Values a format can hold are found again, or others near them.
    let input = halves("blocks.input");
    let ones = vec![1.0; input.len()];
    for format in FORMATS {
        let once = through(format, &input, None);
        let twice = through(format, &once, None);
        let (first, second) = (rmse(&input, &once, &ones), rmse(&once, &twice, &ones));
        println!("{format:8} {:.3}", second / first);
        assert!(second <= 0.25 * first, "{format}: {first:e}, then {second:e}");
    }
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [0.5; 256];
        x[99] = bad;
        for format in FORMATS {
            let y = through(format, &x, None);
            // The formats of four-bit floats have no such number.
            if !matches!(format, Format::MXFP4 | Format::NVFP4) {
                assert!(!y[99].is_finite(), "{format}");
            }
        }
    }
}
