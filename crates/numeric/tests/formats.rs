//! Every row of the table against fixtures written by `tools/reference/formats.py` with gguf-py.

use imaginal_numeric::{Error, FORMATS, Format};
use std::path::PathBuf;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run tools/reference/formats.py", path.display()))
}

fn floats(name: &str) -> Vec<f32> {
    fixture(name).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Equal bit for bit, or both NaN.
fn same(a: &[f32], b: &[f32]) -> Result<(), String> {
    assert_eq!(a.len(), b.len());
    match a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan())) {
        None => Ok(()),
        Some(i) => Err(format!("element {i}: {:e} is not {:e}", a[i], b[i])),
    }
}

#[test]
fn decode_agrees_with_the_reference() {
    for format in Format::all() {
        let (bytes, expected) = (fixture(&format!("{format}.bytes")), floats(&format!("{format}.decoded")));
        let mut got = vec![0.0; expected.len()];
        format.decode(&bytes, &mut got).unwrap();
        same(&got, &expected).unwrap_or_else(|e| panic!("{format}: {e}"));
    }
}

/// Formats with one way to encode a number, which `tools/reference/formats.py` writes down.
const EXACT: [Format; 12] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::F64,
    Format::Q8_0,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::MXFP4,
    Format::TQ1_0,
    Format::TQ2_0,
];

#[test]
fn encode_agrees_with_the_reference() {
    let input = floats("input.f32");
    for format in EXACT {
        let (len, bytes) = (format.block_len(), format.block_bytes());
        let input = &input[..input.len() / len * len];
        let expected = fixture(&format!("{format}.encoded"));
        let mut got = vec![0; format.bytes_for(input.len()).unwrap()];
        format.encode(input, &mut got).unwrap();
        assert_eq!(got.len(), expected.len(), "{format}");
        for (i, (g, e)) in got.chunks(bytes).zip(expected.chunks(bytes)).enumerate() {
            if g == e {
                continue;
            }
            let (mut dg, mut de) = (vec![0.0; len], vec![0.0; len]);
            format.decode(g, &mut dg).unwrap();
            format.decode(e, &mut de).unwrap();
            let x = &input[i * len..][..len];
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let what = || format!("{format} block {i}: {g:x?} is not {e:x?}\nof {x:?}");
            // One of the two zeros is as good as the other.
            if dg == de {
                continue;
            }
            if x.iter().all(|x| x.is_finite()) {
                // Where the numbers leave the range of the scale, the reference's become infinities, NaN or (mxfp4)
                // too large; ours stay near.
                let near = |y: &[f32]| x.iter().zip(y).all(|(x, y)| (x - y).abs() <= 1.0001 * largest);
                assert!(!near(&de) && near(&dg), "{}", what());
            } else if format != Format::MXFP4 {
                // A NaN's payload is free; mxfp4 has none.
                assert!(dg.iter().zip(&de).all(|(g, e)| g.is_nan() || g.to_bits() == e.to_bits()), "{}", what());
                assert!(x.iter().zip(&dg).all(|(x, g)| x.is_finite() || !g.is_finite()), "{}", what());
            }
        }
    }
}

#[test]
fn integers_round_and_saturate() {
    let x = [0.5, 1.5, -2.5, 2.6, 300.0, -1e30, f32::INFINITY, f32::NAN];
    let mut got = [0u8; 8];
    Format::I8.encode(&x, &mut got).unwrap();
    assert_eq!(got.map(|b| b as i8), [0, 2, -2, 3, 127, -128, 127, 0]);
    let mut got = [0u8; 64];
    Format::I64.encode(&x, &mut got).unwrap();
    let got: Vec<i64> = got.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    assert_eq!(got, [0, 2, -2, 3, 300, i64::MIN, i64::MAX, 0]);
}

#[test]
fn decoded_values_encode_to_themselves() {
    // Values a format can hold survive another round unchanged.
    let input = floats("input.f32");
    for format in EXACT.into_iter().chain([Format::I8, Format::I16, Format::I32, Format::I64]) {
        let finite = &input[..960 / format.block_len() * format.block_len()];
        let mut bytes = vec![0; format.bytes_for(finite.len()).unwrap()];
        let mut once = vec![0.0; finite.len()];
        let mut twice = once.clone();
        format.encode(finite, &mut bytes).unwrap();
        format.decode(&bytes, &mut once).unwrap();
        let mut again = bytes.clone();
        format.encode(&once, &mut again).unwrap();
        format.decode(&again, &mut twice).unwrap();
        for (i, (a, b)) in once.iter().zip(&twice).enumerate() {
            // A block's scale may move by its own rounding; plain numbers not at all.
            let bound = if format.block_len() == 1 { 0.0 } else { 2e-3 * a.abs().max(1e-6) };
            assert!(
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound,
                "{format} element {i}: {a:e} became {b:e}"
            );
        }
    }
}

#[test]
fn rounding_error_is_bounded() {
    // Of a block with largest magnitude m: half a step, the f16 rounding of the scale (2^-11) apart.
    let input = floats("input.f32");
    for (format, steps) in [(Format::Q8_0, 127.0), (Format::Q4_0, 8.0)] {
        for block in input.as_chunks::<32>().0.iter().take(8) {
            let largest = block.iter().fold(0f32, |m, x| m.max(x.abs()));
            let mut bytes = vec![0; format.block_bytes()];
            let mut back = [0.0; 32];
            format.encode(block, &mut bytes).unwrap();
            format.decode(&bytes, &mut back).unwrap();
            // Q4_0's far end (+8 steps) is clipped to 7: a whole step.
            let step = largest / steps * if format == Format::Q4_0 { 1.0 } else { 0.5 };
            for (a, b) in block.iter().zip(&back) {
                assert!((a - b).abs() <= step + largest / 2048.0, "{format}: {a} became {b}");
            }
        }
    }
}

#[test]
fn half_agrees_with_the_half_crate() {
    use imaginal_numeric::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
    for bits in 0..=u16::MAX {
        let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
        assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#x}");
        if !ours.is_nan() {
            assert_eq!(f32_to_f16(ours), bits);
            assert_eq!(f32_to_bf16(bf16_to_f32(bits & 0xff7f)), bits & 0xff7f);
        }
    }
    // All exponents and signs, fractions around every rounding border.
    for high in 0..=u16::MAX {
        for low in [0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(u32::from(high) << 16 | low);
            if !x.is_nan() {
                assert_eq!(f32_to_f16(x), half::f16::from_f32(x).to_bits(), "{x:e}");
                assert_eq!(f32_to_bf16(x), half::bf16::from_f32(x).to_bits(), "{x:e}");
            } else {
                assert!(f16_to_f32(f32_to_f16(x)).is_nan() && bf16_to_f32(f32_to_bf16(x)).is_nan());
            }
        }
    }
}

#[test]
fn the_table_is_consistent() {
    let mut names: Vec<&str> = FORMATS.iter().flat_map(|f| f.aliases.iter().copied().chain([f.name])).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "two formats share a name");
    for format in Format::all() {
        let info = format.info();
        assert_eq!(Format::from_name(&info.name.to_uppercase()), Some(format));
        assert!(info.aliases.iter().all(|a| Format::from_name(a) == Some(format)));
        assert_eq!(info.ggml_type.and_then(Format::from_ggml), info.ggml_type.map(|_| format));
        assert!(info.name.chars().all(|c| !c.is_uppercase()) && !info.doc.is_empty());
    }
    assert_eq!(Format::Q8_0.name(), "q8_0");
    assert_eq!(Format::from_name("nonsense"), None);
    assert_eq!(Format::from_ggml(9999), None);
}

#[test]
fn wrong_lengths_are_errors() {
    let mut out = [0.0; 31];
    assert_eq!(Format::Q8_0.decode(&[0; 34], &mut out), Err(Error::NotWholeBlocks { format: Format::Q8_0, elems: 31 }));
    let error = Format::F16.encode(&[0.0; 3], &mut [0; 5]).unwrap_err();
    assert_eq!(error, Error::Length { format: Format::F16, elems: 3, expected: 6, found: 5 });
    assert_eq!(error.to_string(), "3 elements of f16 take 6 bytes, the slice has 5");
    let error = Format::F16.encode_weighted(&[0.0; 3], Some(&[1.0; 2]), &mut [0; 6]).unwrap_err();
    assert_eq!(error, Error::Importance { elems: 3, found: 2 });
    assert_eq!(error.to_string(), "the importance has 2 entries for 3 elements; it must have one each");
    assert_eq!(Format::F64.bytes_for(usize::MAX), None);
    assert_eq!(Format::Q4_0.bytes_for(0), Some(0));
}

#[test]
fn eight_bit_floats_are_what_their_bits_say() {
    use imaginal_numeric::half::f8_e4m3_to_f32;
    for bits in 0..=255u8 {
        let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
        let value = match (exponent, bits & 7) {
            (15, 7) => {
                assert!(f8_e4m3_to_f32(bits).is_nan());
                continue;
            }
            (0, _) => fraction * 2f32.powi(-6),
            _ => (1.0 + fraction) * 2f32.powi(exponent - 7),
        };
        assert_eq!(f8_e4m3_to_f32(bits).to_bits(), (sign * value).to_bits(), "{bits:#x}");
    }
}
