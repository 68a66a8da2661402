use imaginal_kernels::pool;

use super::Philox;
use super::philox::unit;
use crate::Element;
use crate::ops::common::per_task;

/// Writes `f(pair, words)` to the elements two by two, in parallel; `words` are the two that belong to the pair.
fn pairs<T: Element>(seed: u64, out: &mut [T], f: impl Fn([u64; 2]) -> [T; 2] + Sync) {
    let philox = Philox::new(seed);
    // An even number, so that no pair is cut.
    let per = per_task(out.len(), 8).next_multiple_of(2);
    pool::parallel_chunks(out, per, &|t, dst| {
        for (i, dst) in dst.chunks_mut(2).enumerate() {
            let b = philox.block((t * per / 2 + i) as u128);
            let word = |at: usize| u64::from(b[at]) | u64::from(b[at + 1]) << 32;
            dst.copy_from_slice(&f([word(0), word(2)])[..dst.len()]);
        }
    });
}

pub(super) fn uniform<T: Element>(seed: u64, low: f64, high: f64, out: &mut [T]) {
    pairs(seed, out, |words| words.map(|w| T::from_f64(low + unit(w) * (high - low))));
}

pub(super) fn normal<T: Element>(seed: u64, mean: f64, std: f64, out: &mut [T]) {
    pairs(seed, out, |[a, b]| {
        // Pure Rust functions rather than the system's, so that every machine draws the same numbers.
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - unit(a)));
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * unit(b));
        [T::from_f64(mean + std * radius * cos), T::from_f64(mean + std * radius * sin)]
    });
}

pub(super) fn whole<T: Element>(seed: u64, low: i64, high: i64, out: &mut [T]) {
    let range = high.wrapping_sub(low) as u64;
    pairs(seed, out, |words| {
        words.map(|w| {
            let x = low.wrapping_add(((u128::from(w) * u128::from(range)) >> 64) as i64);
            // 64-bit integers do not pass through a double unharmed.
            match bytemuck::try_cast::<i64, T>(x) {
                Ok(exact) if T::DTYPE == crate::DType::I64 => exact,
                _ => T::from_f64(x as f64),
            }
        })
    });
}

pub(super) fn bernoulli(seed: u64, p: f64, out: &mut [u8]) {
    let philox = Philox::new(seed);
    // A word of 32 bits decides an element, four to a block: dropout draws one for every activation of every step.
    let limit = (p * 2f64.powi(32)).round() as u64;
    let per = per_task(out.len(), 4).next_multiple_of(4);
    pool::parallel_chunks(out, per, &|t, dst| {
        for (i, dst) in dst.chunks_mut(4).enumerate() {
            let words = philox.block((t * per / 4 + i) as u128);
            dst.iter_mut().zip(words).for_each(|(o, w)| *o = (u64::from(w) < limit) as u8);
        }
    });
}

/// Fisher and Yates's shuffle, as Durstenfeld (1964) gives it.
pub(super) fn permutation(seed: u64, out: &mut [u32]) {
    let philox = Philox::new(seed);
    out.iter_mut().zip(0u32..).for_each(|(o, i)| *o = i);
    for i in (1..out.len()).rev() {
        let j = philox.below(i as u64, i as u64 + 1) as usize;
        out.swap(i, j);
    }
}
