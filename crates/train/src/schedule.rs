//! The learning rate of each step.

use serde::{Deserialize, Serialize};

/// Linear warm-up, then half a cosine down to a floor (Loshchilov and Hutter 2017).
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// What the cosine ends at, as a share of the peak.
    pub floor: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
}

impl Schedule {
    /// The rate of `step`, counted from zero. The first step of a warm-up already moves.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        self.peak * (self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        let s = Schedule { peak: 4e-3, floor: 0.1, warmup: 4, steps: 20 };
        assert_eq!(s.rate(0), 1e-3);
        assert_eq!(s.rate(3), 4e-3);
        assert_eq!(s.rate(4), 4e-3);
        assert!((s.rate(12) - 4e-3 * 0.55).abs() < 1e-12, "half way down");
        assert!((s.rate(20) - 4e-4).abs() < 1e-12 && (s.rate(1000) - 4e-4).abs() < 1e-12);
        assert!((4..20).all(|i| s.rate(i + 1) < s.rate(i)));
        let none = Schedule { warmup: 0, ..s };
        assert_eq!(none.rate(0), 4e-3);
    }
}
