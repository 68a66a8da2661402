use std::cmp::Ordering;
use std::collections::VecDeque;

use imaginal_nn::Rng;

use crate::{Error, Result};

/// How the next token is chosen. The steps are taken in the order of the fields from `repeat_penalty` on, and
/// `temperature` last, as in llama.cpp.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Logits are divided by this before one is drawn; 0 always takes the most probable token.
    pub temperature: f32,
    /// Tokens among the last [`SamplerOptions::repeat_window`] have their logits divided by this if they are positive,
    /// multiplied if negative (Keskar et al. 2019, §4.1); 1 is off.
    pub repeat_penalty: f32,
    /// How many tokens back the penalty looks.
    pub repeat_window: usize,
    /// Only the most probable this many are drawn from; 0 is off.
    pub top_k: usize,
    /// Only the most probable tokens that together have this probability are drawn from (Holtzman et al. 2020); 1 is off.
    pub top_p: f32,
    /// Only tokens with at least this much of the probability of the most probable are drawn from (Nguyen et al. 2024);
    /// 0 is off.
    pub min_p: f32,
    /// The same seed, model and prompt give the same text.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 0.8,
            repeat_penalty: 1.0,
            repeat_window: 64,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Always the most probable token.
    pub fn greedy() -> Self {
        SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }
    }

    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::Option`] naming the first of them.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 1e6, "a number from 0"),
            ("repeat-penalty", self.repeat_penalty, 1e-3, 1e3, "a number from 0.001 to 1000"),
            ("top-p", self.top_p, 0.0, 1.0, "a number from 0 to 1"),
            ("min-p", self.min_p, 0.0, 1.0, "a number from 0 to 1"),
        ];
        match ranges.iter().find(|(_, x, low, high, _)| !(low..=high).contains(&x)) {
            Some((name, x, .., expected)) => Err(Error::Option { name, what: format!("{x} is not {expected}") }),
            None => Ok(()),
        }
    }
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: Rng,
    recent: VecDeque<u32>,
    seen: usize,
}

impl Sampler {
    /// A sampler at the beginning of its random stream.
    ///
    /// # Errors
    /// [`SamplerOptions::check`].
    pub fn new(options: SamplerOptions) -> Result<Self> {
        options.check()?;
        Ok(Sampler { rng: Rng::new(options.seed), options, recent: VecDeque::new(), seen: 0 })
    }

    /// Remembers a token of the prompt or one that was chosen, for the penalty on repetitions.
    pub fn accept(&mut self, token: u32) {
        self.seen += 1;
        self.recent.push_back(token);
        while self.recent.len() > self.options.repeat_window {
            self.recent.pop_front();
        }
    }

    /// Chooses a token by its index in `logits`. Of equal logits the lowest index comes first.
    ///
    /// # Errors
    /// [`Error::Logits`] if one is NaN or infinite, or all are minus infinity.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let fail = |what| Err(Error::Logits { position: self.seen, what });
        // Without an early end within a block, comparisons become vectors.
        let infinite = |block: &[f32]| block.iter().fold(false, |any, x| any | x.is_nan() | (*x == f32::INFINITY));
        if logits.chunks(BLOCK).any(infinite) {
            return fail("not numbers");
        }
        let penalised;
        let logits = match self.penalise(logits) {
            Some(values) => {
                penalised = values;
                &penalised[..]
            }
            None => logits,
        };
        let most = |block: &[f32]| block.iter().fold(f32::NEG_INFINITY, |a, x| if *x > a { *x } else { a });
        let best = logits.chunks(BLOCK).map(most).fold(f32::NEG_INFINITY, f32::max);
        if best == f32::NEG_INFINITY {
            return fail("all minus infinity");
        }
        if self.options.temperature == 0.0 {
            return Ok(logits.iter().position(|x| *x == best).unwrap_or(0) as u32);
        }
        let mut candidates = self.candidates(logits);
        candidates.sort_unstable_by(by_logit);
        let best = f64::from(best);
        let keep = self.nucleus(&candidates, best);
        candidates.truncate(keep);

        let temperature = self.options.temperature as f64;
        let weight = |c: &(u32, f32)| ((c.1 as f64 - best) / temperature).exp();
        let mut left = self.rng.uniform() * candidates.iter().map(weight).sum::<f64>();
        for c in &candidates {
            left -= weight(c);
            if left < 0.0 {
                return Ok(c.0);
            }
        }
        // Rounding may leave a trace at the very end.
        Ok(candidates[candidates.len() - 1].0)
    }

    /// The logits with the penalty on repetitions; `None` if nothing changes.
    fn penalise(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let penalty = self.options.repeat_penalty;
        if penalty == 1.0 || self.recent.is_empty() {
            return None;
        }
        let mut values = logits.to_vec();
        for (i, id) in self.recent.iter().enumerate() {
            let Some(x) = values.get_mut(*id as usize).filter(|x| x.is_finite()) else { continue };
            // Once, however often it came.
            if !self.recent.range(..i).any(|before| before == id) {
                *x = (if *x > 0.0 { *x / penalty } else { *x * penalty }).clamp(f32::MIN, f32::MAX);
            }
        }
        Some(values)
    }

    /// The tokens among which top-k lets choose, in any order.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let k = if self.options.top_k == 0 { usize::MAX } else { self.options.top_k };
        let best = |all: &mut Vec<(u32, f32)>| {
            if k < all.len() {
                all.select_nth_unstable_by(k - 1, by_logit);
                all.truncate(k);
            }
        };
        let mut found: Vec<(u32, f32)> = Vec::new();
        // So many found before are at least as good.
        let mut least = f32::NEG_INFINITY;
        for (block, first) in logits.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
            if !block.iter().fold(false, |any, x| any | (*x > least)) {
                continue;
            }
            let better = (first..).zip(block).filter(|(_, x)| **x > least);
            found.extend(better.map(|(id, x)| (id, *x)));
            if found.len() / 2 >= k.saturating_add(BLOCK) {
                best(&mut found);
                least = found[k - 1].1;
            }
        }
        best(&mut found);
        found
    }

    /// How many of the sorted candidates top-p and min-p leave, at least one.
    fn nucleus(&self, candidates: &[(u32, f32)], best: f64) -> usize {
        let weight = |c: &(u32, f32)| (c.1 as f64 - best).exp();
        let total: f64 = candidates.iter().map(weight).sum();
        let mut sum = 0.0;
        let mut kept = 0;
        for c in candidates {
            let w = weight(c);
            let enough = self.options.top_p < 1.0 && sum >= self.options.top_p as f64 * total;
            if kept > 0 && (enough || w < self.options.min_p as f64) {
                break;
            }
            sum += w;
            kept += 1;
        }
        kept
    }
}

/// Logits that are looked at together.
const BLOCK: usize = 256;

/// The most probable first, of equals the one with the lowest index.
fn by_logit(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    // There is no NaN among them, and both zeros are equal.
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off() -> SamplerOptions {
        SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() }
    }

    fn counts(options: SamplerOptions, logits: &[f32], n: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..n {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts
    }

    /// ln of 0.5, 0.25, 0.15, 0.1, in mixed order: ids 2, 0, 3, 1.
    fn logits() -> Vec<f32> {
        [0.25f32, 0.1, 0.5, 0.15].map(f32::ln).to_vec()
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        let n = 20000;
        let c = counts(off(), &logits(), n);
        for (c, p) in c.iter().zip([0.25, 0.1, 0.5, 0.15]) {
            assert!((*c as f64 / n as f64 - p).abs() < 0.015, "{c} {p}");
        }
        // Temperature 0.5 squares the odds.
        let c = counts(SamplerOptions { temperature: 0.5, ..off() }, &logits(), n);
        assert!((c[2] as f64 / c[0] as f64 - 4.0).abs() < 0.4, "{c:?}");
    }

    #[test]
    fn the_tail_is_cut_where_the_options_say() {
        let used = |options| counts(options, &logits(), 2000).iter().map(|&c| c > 0).collect::<Vec<_>>();
        assert_eq!(used(SamplerOptions { top_k: 2, ..off() }), [true, false, true, false]);
        assert_eq!(used(SamplerOptions { top_k: 1, ..off() }), [false, false, true, false]);
        assert_eq!(used(SamplerOptions { top_p: 0.7, ..off() }), [true, false, true, false]);
        assert_eq!(used(SamplerOptions { top_p: 0.8, ..off() }), [true, false, true, true]);
        assert_eq!(used(SamplerOptions { top_p: 0.0, ..off() }), [false, false, true, false]);
        assert_eq!(used(SamplerOptions { min_p: 0.28, ..off() }), [true, false, true, true]);
        assert_eq!(used(SamplerOptions { min_p: 0.4, ..off() }), [true, false, true, false]);
    }

    #[test]
    fn greedy_takes_the_best_and_the_first_of_equals() {
        let mut s = Sampler::new(SamplerOptions::greedy()).unwrap();
        assert_eq!(s.sample(&logits()).unwrap(), 2);
        assert_eq!(s.sample(&[1.0, 3.0, 3.0]).unwrap(), 1);
        assert_eq!(s.sample(&[f32::NEG_INFINITY, -3.0]).unwrap(), 1);
    }

    #[test]
    fn repetitions_are_penalised_within_the_window() {
        let options = SamplerOptions { repeat_penalty: 2.0, repeat_window: 2, ..SamplerOptions::greedy() };
        let mut s = Sampler::new(options).unwrap();
        let logits = [4.0, 3.0, -1.0];
        s.accept(0);
        s.accept(0);
        assert_eq!(s.sample(&logits).unwrap(), 1, "halved once, however often it came");
        s.accept(1);
        assert_eq!(s.sample(&logits).unwrap(), 0, "4/2 against 3/2");
        s.accept(1);
        assert_eq!(s.sample(&logits).unwrap(), 0, "the first has left the window");
        let negative = Sampler { recent: [0].into(), ..s };
        assert_eq!(negative.clone().sample(&[-1.0, -1.5]).unwrap(), 1);
    }

    #[test]
    fn of_many_tokens_the_best_are_candidates() {
        let mut rng = Rng::new(3);
        // Many are equal, and the largest come late.
        let logits: Vec<f32> = (0..9000).map(|i| (rng.uniform() * 50.0).floor() as f32 + (i / 3000) as f32).collect();
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(by_logit);
        for top_k in [1, 2, 40, 300, 4000, 8999, 9000, 10000] {
            let sampler = Sampler::new(SamplerOptions { top_k, ..off() }).unwrap();
            let mut got = sampler.candidates(&logits);
            got.sort_by(by_logit);
            assert_eq!(got, sorted[..top_k.min(9000)], "{top_k}");
        }
        assert_eq!(Sampler::new(off()).unwrap().candidates(&logits).len(), 9000);
        let mut greedy = Sampler::new(SamplerOptions::greedy()).unwrap();
        assert_eq!(greedy.sample(&logits).unwrap(), sorted[0].0);
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut s = Sampler::new(SamplerOptions { seed, ..off() }).unwrap();
            (0..50).map(|_| s.sample(&logits()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn senseless_options_and_logits_are_refused() {
        for options in [
            SamplerOptions { temperature: -1.0, ..off() },
            SamplerOptions { temperature: f32::NAN, ..off() },
            SamplerOptions { top_p: 1.5, ..off() },
            SamplerOptions { min_p: -0.1, ..off() },
            SamplerOptions { repeat_penalty: 0.0, ..off() },
        ] {
            assert!(Sampler::new(options).is_err());
        }
        let mut s = Sampler::new(off()).unwrap();
        assert!(s.sample(&[f32::NAN, 1.0]).is_err());
        assert!(s.sample(&[f32::NEG_INFINITY; 3]).is_err());
        assert!(s.sample(&[]).is_err());
    }
}
