//! The learning rate of each step.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine over the whole run (Loshchilov and Hutter 2017).
    #[default]
    Cosine,
    /// Level for four fifths of the run, then straight down (Hu et al. 2024). A run that has not begun to fall can be
    /// made longer or shorter, and is still the run that was that long from the beginning.
    Trapezoid,
}

impl Decay {
    /// All of them, by name.
    pub const NAMED: [(&'static str, Decay); 2] = [("cosine", Decay::Cosine), ("trapezoid", Decay::Trapezoid)];
}

/// Linear warm-up, then down to a floor.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// How the rate falls.
    pub decay: Decay,
    /// The highest rate.
    pub peak: f64,
    /// What the rate ends at, as a share of the peak.
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
        let left = match self.decay {
            Decay::Cosine => {
                let span = self.steps.saturating_sub(self.warmup).max(1) as f64;
                let progress = ((step - self.warmup) as f64 / span).min(1.0);
                0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Decay::Trapezoid => {
                let span = (self.steps - self.level()).max(1) as f64;
                (self.steps.saturating_sub(step) as f64 / span).min(1.0)
            }
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }

    /// The first step whose rate depends on how many steps there are.
    pub fn level(&self) -> u64 {
        match self.decay {
            Decay::Cosine => self.warmup,
            Decay::Trapezoid => self.warmup.max(self.steps - self.steps / 5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        let s = Schedule { decay: Decay::Cosine, peak: 4e-3, floor: 0.1, warmup: 4, steps: 20 };
        assert_eq!(s.rate(0), 1e-3);
        assert_eq!(s.rate(3), 4e-3);
        assert_eq!(s.rate(4), 4e-3);
        assert!((s.rate(12) - 4e-3 * 0.55).abs() < 1e-12, "half way down");
        assert!((s.rate(20) - 4e-4).abs() < 1e-12 && (s.rate(1000) - 4e-4).abs() < 1e-12);
        assert!((4..20).all(|i| s.rate(i + 1) < s.rate(i)));
        let none = Schedule { warmup: 0, ..s };
        assert_eq!(none.rate(0), 4e-3);
    }

    #[test]
    fn a_trapezoid_is_level_and_its_beginning_does_not_depend_on_its_length() {
        let s = Schedule { decay: Decay::Trapezoid, peak: 1.0, floor: 0.0, warmup: 4, steps: 100 };
        assert_eq!((s.rate(3), s.rate(50), s.rate(80), s.rate(90)), (1.0, 1.0, 1.0, 0.5));
        assert!((s.rate(99) - 0.05).abs() < 1e-12);
        let longer = Schedule { steps: 200, ..s };
        assert!((0..s.level()).all(|i| s.rate(i) == longer.rate(i)));
    }
}
