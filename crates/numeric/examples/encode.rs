//! How fast every format encodes and decodes, in millions of elements a second on one core.
//!
//!     cargo run --release -p imaginal-numeric --example encode

use imaginal_numeric::Format;
use std::time::Instant;

/// Millions of elements a second of the fastest of three passes.
fn speed(elems: usize, mut pass: impl FnMut()) -> f64 {
    let seconds = |()| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64()
    };
    elems as f64 / [(); 3].map(seconds).into_iter().fold(f64::INFINITY, f64::min) / 1e6
}

fn main() {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..1 << 18).map(|_| 0.05 * (uniform() + uniform() + uniform())).collect();
    let importance: Vec<f32> = values.iter().map(|_| 0.1 + 4.0 * (uniform() + 0.5)).collect();
    println!("{:8} {:>9} {:>9} {:>9}", "", "encode", "weighted", "decode");
    for format in Format::all() {
        let mut bytes = vec![0; format.bytes_for(values.len()).expect("whole blocks")];
        let mut back = vec![0.0; values.len()];
        let plain = speed(values.len(), || format.encode(&values, &mut bytes).expect("lengths fit"));
        let weighted = speed(values.len(), || {
            format.encode_weighted(&values, Some(&importance), &mut bytes).expect("lengths fit");
        });
        let decode = speed(values.len(), || format.decode(&bytes, &mut back).expect("lengths fit"));
        println!("{format:8} {plain:9.1} {weighted:9.1} {decode:9.1}");
    }
}
