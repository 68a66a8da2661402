//! What the tests of block formats share.

use imaginal_numeric::Format;
use imaginal_numeric::half::f16_to_f32;
use std::path::PathBuf;

/// The bytes of a fixture.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run tools/reference/formats.py or formats_iq.py", path.display()))
}

/// A fixture of binary16 numbers.
pub fn halves(name: &str) -> Vec<f32> {
    fixture(name).as_chunks::<2>().0.iter().map(|b| f16_to_f32(u16::from_le_bytes(*b))).collect()
}

/// What `x` becomes.
pub fn through(format: Format, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let mut bytes = vec![0xff; format.bytes_for(x.len()).unwrap()];
    format.encode_weighted(x, importance, &mut bytes).unwrap();
    let mut y = vec![0.0; x.len()];
    format.decode(&bytes, &mut y).unwrap();
    y
}

/// Root of the weighted mean squared error.
pub fn rmse(x: &[f32], y: &[f32], weights: &[f32]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for ((x, y), w) in x.iter().zip(y).zip(weights) {
        let off = f64::from(*x) - f64::from(*y);
        sum += f64::from(*w) * off * off;
        total += f64::from(*w);
    }
    (sum / total).sqrt()
}
