//! What the tests of the kernels share: random data, and comparison with f64 oracles.

/// Numbers that look random and are the same on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in [lo, hi).
    pub(crate) fn uniform(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub(crate) fn vec(&mut self, n: usize, lo: f32, hi: f32) -> Vec<f32> {
        (0..n).map(|_| self.uniform(lo, hi)).collect()
    }
}

/// The distance of `got` from the exact value in units in the last place of an f32 of that size (0 if both are NaN or
/// the same infinity; subnormals count in the smallest unit).
pub(crate) fn ulps(got: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if got == nearest || got.is_nan() && exact.is_nan() {
        return 0.0;
    }
    if !got.is_finite() || !nearest.is_finite() {
        return f64::INFINITY;
    }
    let exponent = (nearest.to_bits() >> 23 & 255).max(1) as i32 - 150;
    (f64::from(got) - exact).abs() / 2f64.powi(exponent)
}

/// Asserts |got − exact| ≤ tolerance·scale in every element, where scale is the largest magnitude of `exact` (at least
/// `floor`). Right for gradients, whose elements are sums with cancellation.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], exact: &[f64], tolerance: f64, floor: f64) {
    assert_eq!(got.len(), exact.len(), "{what}");
    let scale = exact.iter().fold(floor, |m, v| m.max(v.abs()));
    for (i, (&g, &e)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(g) - e).abs();
        assert!(error <= tolerance * scale, "{what}[{i}]: {g} instead of {e} (error {error:e}, scale {scale:e})");
    }
}

/// Widened to f64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}
