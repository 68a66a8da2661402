//! Shared by the `iq` formats, which store runs of 8 (or 4) elements as one entry of a list of permitted points.
//!
//! A [`Grid`] is such a list: a set of points in a cube of `LEVELS` values along each of `DIM` axes, numbered in the
//! order of their coordinates, the last one first. The set is kept as one bit for each point of the cube, from which
//! everything else is made at compile time.
//!
//! [`Coder::encode`] is their encoder. Blocks of 256 have one f16 scale `d` and parts of 16 or 32 elements with a small
//! whole number `c` each; an element is `d * (2c + 1) * unit * value`. For every part a range of scales is tried, then
//! the `d` is chosen that suits all parts, then points, codes and `d` are refined in turn, each given the others. The
//! squared errors, each with its element's weight, are what is made small.
//!
//! The best point for given elements and scale is found exactly: with a cost for every axis and level, the costs of all
//! second halves of a point (81 or 64) are tabulated, so that a point costs one addition to its first half's; the points
//! are kept by first half, and a first half whose cost and the least of a second are no better than the best point so
//! far is passed over with all its points.

use crate::half::{f16_to_f32, f32_to_f16};

/// Elements of a block.
pub(super) const LEN: usize = 256;
/// Elements that share a byte of signs or a shift.
const GROUP: usize = 8;
/// At most this many halves of a point: 3 levels along 4 axes.
const HALVES: usize = 81;
/// At most this many quarters.
const QUARTERS: usize = 9;
/// The distance of the 1-bit formats' values from whole numbers.
pub(super) const SHIFT: f32 = 0.125;

/// `N` permitted points, as values and, for the encoder, as levels and by first half.
pub(super) struct Grid<const DIM: usize, const N: usize> {
    /// The values of each point.
    pub(super) values: [[i8; DIM]; N],
    /// The level of each value.
    pub(super) levels: [[u8; DIM]; N],
    /// Where each first half begins in `entries`.
    starts: [u16; HALVES + 1],
    /// Second half and number of each point, ordered by first half.
    entries: [(u8, u16); N],
}

impl<const DIM: usize, const N: usize> Grid<DIM, N> {
    /// The points whose bit is set: of a point, level `l` of axis `i` counts `l * LEVELS^i`.
    pub(super) const fn new<const LEVELS: usize>(bits: &[u64], map: &[i8; LEVELS]) -> Self {
        let halves = LEVELS.pow(DIM as u32 / 2);
        assert!(halves <= HALVES && bits.len() == (halves * halves).div_ceil(64));
        let mut grid =
            Grid { values: [[0; DIM]; N], levels: [[0; DIM]; N], starts: [0; HALVES + 1], entries: [(0, 0); N] };
        let (mut place, mut number) = (0, 0);
        while place < halves * halves {
            if bits[place / 64] >> (place % 64) & 1 == 1 {
                let (mut rest, mut axis) = (place, 0);
                while axis < DIM {
                    grid.levels[number][axis] = (rest % LEVELS) as u8;
                    grid.values[number][axis] = map[rest % LEVELS];
                    rest /= LEVELS;
                    axis += 1;
                }
                number += 1;
                // Counts first, sums of counts below.
                grid.starts[place % halves + 1] += 1;
            }
            place += 1;
        }
        assert!(number == N);
        let mut half = 0;
        while half < HALVES {
            grid.starts[half + 1] += grid.starts[half];
            half += 1;
        }
        let mut next = grid.starts;
        (place, number) = (0, 0);
        while place < halves * halves {
            if bits[place / 64] >> (place % 64) & 1 == 1 {
                grid.entries[next[place % halves] as usize] = ((place / halves) as u8, number as u16);
                next[place % halves] += 1;
                number += 1;
            }
            place += 1;
        }
        grid
    }
}

/// What a format's elements have besides a point's values.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(super) enum Extra {
    /// A sign each.
    Signs,
    /// A sign each, with an even number of minuses in every group of 8.
    EvenSigns,
    /// All elements of a part are shifted up, or all down, by [`SHIFT`].
    ShiftOfPart,
    /// All elements of a group of 8 are shifted up, or all down, by [`SHIFT`].
    ShiftOfGroup,
}

/// How a format codes a block.
pub(super) struct Coder<const DIM: usize, const LEVELS: usize> {
    /// Values of the levels.
    map: [f32; LEVELS],
    levels: &'static [[u8; DIM]],
    starts: &'static [u16; HALVES + 1],
    entries: &'static [(u8, u16)],
    extra: Extra,
    /// Elements that share a code.
    part: usize,
    /// The largest code.
    top: u8,
    /// Times `d * (2c + 1)` and the value is the element.
    unit: f32,
}

/// A coded block.
#[derive(Clone)]
pub(super) struct Coded {
    /// The bits of the f16 scale.
    pub(super) d: u16,
    /// The code of each part.
    pub(super) codes: [u8; LEN / 16],
    /// The point of each run of `DIM`.
    pub(super) points: [u16; LEN / 4],
    /// A bit for each minus of a group; for shifts 1 is down.
    pub(super) signs: [u8; LEN / GROUP],
}

impl Coded {
    const ZERO: Coded = Coded { d: 0, codes: [0; LEN / 16], points: [0; LEN / 4], signs: [0; LEN / GROUP] };
}

/// The best a part can be at some scale, and the sums that say how good and which scale would be better.
#[derive(Copy, Clone)]
struct Fit {
    error: f32,
    /// Sum of weight, element and value.
    wxv: f32,
    /// Sum of weight and squared value.
    wvv: f32,
    points: [u16; 32 / 4],
    signs: [u8; 32 / GROUP],
}

impl Fit {
    const ZERO: Fit = Fit { error: 0.0, wxv: 0.0, wvv: 0.0, points: [0; 8], signs: [0; 4] };
}

/// Costs of all quarters of a point from those of its one or two axes, and the place of the least.
#[inline(always)]
fn quarter<const LEVELS: usize>(axes: &[[f32; LEVELS]]) -> ([f32; QUARTERS], usize) {
    let mut costs = [f32::INFINITY; QUARTERS];
    let mut place = 0;
    for (&more, row) in axes.get(1).unwrap_or(&[0.0; LEVELS]).iter().zip(costs.chunks_mut(LEVELS)) {
        for (cost, &c) in row.iter_mut().zip(&axes[0]) {
            *cost = c + more;
        }
    }
    for (i, &c) in costs.iter().enumerate() {
        if c < costs[place] {
            place = i;
        }
    }
    (costs, place)
}

impl<const DIM: usize, const LEVELS: usize> Coder<DIM, LEVELS> {
    pub(super) const fn new<const N: usize>(
        grid: &'static Grid<DIM, N>,
        map: &[i8; LEVELS],
        extra: Extra,
        part: usize,
        top: u8,
        unit: f32,
    ) -> Self {
        let mut values = [0.0; LEVELS];
        let mut i = 0;
        while i < LEVELS {
            values[i] = map[i] as f32;
            i += 1;
        }
        let (levels, starts, entries) = (&grid.levels, &grid.starts, &grid.entries);
        Coder { map: values, levels, starts, entries, extra, part, top, unit }
    }

    /// The point of least cost and that cost, given the cost of each level on each axis. With `flips`, the further
    /// cost of giving an element the wrong sign (which grows with the level), exactly one element has to have it.
    #[inline(always)]
    fn search(&self, costs: &[[f32; LEVELS]; DIM], flips: Option<&[[f32; LEVELS]; DIM]>) -> (f32, u16) {
        let len = LEVELS.pow(DIM as u32 / 4);
        let mut quarters = costs.chunks(DIM / 4).map(quarter);
        let mut next = || quarters.next().unwrap_or(([0.0; QUARTERS], 0));
        let ((a, least_a), (b, least_b), (c, least_c), (d, least_d)) = (next(), next(), next(), next());
        let mut second = [0.0; HALVES];
        for (row, d) in second.chunks_mut(len).zip(d) {
            for (half, c) in row.iter_mut().zip(c) {
                *half = c + d;
            }
        }
        // What the cheapest second half and flip add at least.
        let mut least = c[least_c] + d[least_d];
        if let Some(flips) = flips {
            least += flips.iter().fold(f32::INFINITY, |m, f| if f[0] < m { f[0] } else { m });
        }
        let mut best = (f32::INFINITY, 0);
        let mut bucket = |half: usize, cost: f32| {
            for &(j, number) in &self.entries[usize::from(self.starts[half])..usize::from(self.starts[half + 1])] {
                let mut total = cost + second[usize::from(j)];
                if total < best.0 {
                    if let Some(flips) = flips {
                        let levels = &self.levels[usize::from(number)];
                        let flip = |m: f32, (f, l): (&[f32; LEVELS], &u8)| f[usize::from(*l)].min(m);
                        total += flips.iter().zip(levels).fold(f32::INFINITY, flip);
                        if total >= best.0 {
                            continue;
                        }
                    }
                    best = (total, number);
                }
            }
            best.0
        };
        // The most promising first, so that the others can be passed over.
        let mut bound = bucket(least_a + len * least_b, a[least_a] + b[least_b]);
        for (j, b) in b.iter().enumerate().take(len) {
            if a[least_a] + b + least < bound {
                for (i, a) in a.iter().enumerate().take(len) {
                    if a + b + least < bound {
                        bound = bucket(i + len * j, a + b);
                    }
                }
            }
        }
        best
    }

    /// The best points and signs (or shifts) of a part at a scale.
    fn fit(&self, x: &[f32], w: &[f32], scale: f32) -> Fit {
        match self.extra {
            Extra::Signs | Extra::EvenSigns => self.fit_signs(x, w, scale),
            Extra::ShiftOfPart => {
                let (up, down) = (self.fit_shift(x, w, scale, false), self.fit_shift(x, w, scale, true));
                if up.error <= down.error { up } else { down }
            }
            Extra::ShiftOfGroup => {
                let mut fit = Fit::ZERO;
                for (group, (x, w)) in x.chunks(GROUP).zip(w.chunks(GROUP)).enumerate() {
                    let (up, down) = (self.fit_shift(x, w, scale, false), self.fit_shift(x, w, scale, true));
                    let best = if up.error <= down.error { up } else { down };
                    fit.error += best.error;
                    fit.wxv += best.wxv;
                    fit.wvv += best.wvv;
                    fit.points[group] = best.points[0];
                    fit.signs[group] = best.signs[0];
                }
                fit
            }
        }
    }

    fn fit_signs(&self, x: &[f32], w: &[f32], scale: f32) -> Fit {
        let scaled = self.map.map(|v| v * scale);
        let mut fit = Fit::ZERO;
        let groups = x.as_chunks::<GROUP>().0.iter().zip(w.as_chunks::<GROUP>().0);
        for (group, (x, w)) in groups.enumerate() {
            let mut signs = 0u8;
            for (i, x) in x.iter().enumerate() {
                signs |= u8::from(*x < 0.0) << i;
            }
            let odd = self.extra == Extra::EvenSigns && signs.count_ones() % 2 == 1;
            let points = &mut fit.points[group * (GROUP / DIM)..][..GROUP / DIM];
            let runs = || x.as_chunks::<DIM>().0.iter().zip(w.as_chunks::<DIM>().0).enumerate();
            let costs = |x: &[f32; DIM], w: &[f32; DIM]| {
                let cost = |x: f32, w: f32| scaled.map(|v| w * (v - x.abs()) * (v - x.abs()));
                std::array::from_fn(|i| cost(x[i], w[i]))
            };
            let mut plain = [0.0; GROUP / 4];
            if !odd || DIM < GROUP {
                for (run, (x, w)) in runs() {
                    (plain[run], points[run]) = self.search(&costs(x, w), None);
                    fit.error += plain[run];
                }
            }
            if odd {
                // Which run has the wrong sign, what that costs and the run's point for it.
                let mut wrong = (0, f32::INFINITY, 0);
                for (run, (x, w)) in runs() {
                    let flips: [[f32; LEVELS]; DIM] =
                        std::array::from_fn(|i| scaled.map(|v| 4.0 * w[i] * v * x[i].abs()));
                    let least = flips.iter().fold(f32::INFINITY, |m, f| if f[0] < m { f[0] } else { m });
                    if least < wrong.1 {
                        let (cost, point) = self.search(&costs(x, w), Some(&flips));
                        if cost - plain[run] < wrong.1 {
                            wrong = (run, cost - plain[run], point);
                        }
                    }
                }
                let (run, more, point) = wrong;
                points[run] = point;
                fit.error += more;
                // Of that run's elements the cheapest one.
                let mut cheapest = (0, f32::INFINITY);
                for (i, &l) in self.levels[usize::from(point)].iter().enumerate() {
                    let at = run * DIM + i;
                    let cost = w[at] * self.map[usize::from(l)] * x[at].abs();
                    if cost < cheapest.1 {
                        cheapest = (at, cost);
                    }
                }
                signs ^= 1 << cheapest.0;
            }
            fit.signs[group] = signs;
            for (i, (&x, &w)) in x.iter().zip(w).enumerate() {
                let level = self.levels[usize::from(points[i / DIM])][i % DIM];
                let v = self.map[usize::from(level)];
                fit.wxv += w * v * if signs >> i & 1 == 1 { -x } else { x };
                fit.wvv += w * v * v;
            }
        }
        fit
    }

    fn fit_shift(&self, x: &[f32], w: &[f32], scale: f32, down: bool) -> Fit {
        let map = self.map.map(|v| if down { v - SHIFT } else { v + SHIFT });
        let scaled = map.map(|v| v * scale);
        let mut fit = Fit { signs: [u8::from(down); 32 / GROUP], ..Fit::ZERO };
        for (group, (x, w)) in x.as_chunks::<DIM>().0.iter().zip(w.as_chunks::<DIM>().0).enumerate() {
            let mut costs = [[0.0; LEVELS]; DIM];
            for i in 0..DIM {
                for l in 0..LEVELS {
                    let off = scaled[l] - x[i];
                    costs[i][l] = w[i] * off * off;
                }
            }
            let (error, point) = self.search(&costs, None);
            fit.error += error;
            fit.points[group] = point;
            for ((&l, &x), &w) in self.levels[usize::from(point)].iter().zip(x).zip(w) {
                let v = map[usize::from(l)];
                fit.wxv += w * v * x;
                fit.wvv += w * v * v;
            }
        }
        fit
    }

    /// The code whose scale is nearest.
    fn code(&self, scale: f32, d: f32) -> u8 {
        ((scale / d - 1.0) * 0.5).round().clamp(0.0, f32::from(self.top)) as u8
    }

    /// Codes a block. A block with an element that is not finite becomes NaN as a whole.
    pub(super) fn encode(&self, x: &[f32; LEN], importance: Option<&[f32; LEN]>) -> Coded {
        let largest = super::max_magnitude(x);
        if !largest.is_finite() {
            return Coded { d: 0x7e00, ..Coded::ZERO };
        }
        if largest == 0.0 {
            return Coded::ZERO;
        }
        // Elements over the largest of them, so that no sum overflows or vanishes.
        let x = x.map(|x| (f64::from(x) / f64::from(largest)) as f32);
        let w = weights(&x, importance);
        let parts = || x.chunks(self.part).zip(w.chunks(self.part)).enumerate();

        // The scale each part wants for itself, and how much the error curves around it.
        let mut wanted = [(0.0f32, 0.0f32); LEN / 16];
        for (part, (x, w)) in parts() {
            let top = x.iter().fold(0f32, |m, x| m.max(x.abs())) / self.map[LEVELS - 1];
            let mut most = 0.0;
            let mut consider = |scale: f32| {
                let fit = self.fit(x, w, scale);
                // What the best scale for these points takes off the squared error.
                if fit.wxv > 0.0 && fit.wxv * fit.wxv > most * fit.wvv {
                    most = fit.wxv * fit.wxv / fit.wvv;
                    wanted[part] = (fit.wxv / fit.wvv, fit.wvv);
                }
                wanted[part].0
            };
            if top > 0.0 {
                // From a little over the scale at which the largest element is the largest value; few levels have to
                // reach further below it.
                let (first, count) = if LEVELS == 3 { (1.2, 7) } else { (1.1, 4) };
                let best = (0..count).fold(0.0, |_, i| consider(top * (first - 0.12 * i as f32)));
                consider(best);
            }
        }

        // The d that lets the codes come nearest to those scales: the errors are quadratic around them.
        let wanted = &wanted[..LEN / self.part];
        let highest = wanted.iter().fold(0f32, |m, s| m.max(s.0)) / (2.0 * f32::from(self.top) + 1.0);
        let mut best = (f32::INFINITY, highest);
        for i in 0..48 {
            let d = highest * (0.7 + 0.0125 * i as f32);
            let error = wanted.iter().fold(0.0, |sum, &(scale, curve)| {
                let off = d * (2.0 * f32::from(self.code(scale, d)) + 1.0) - scale;
                sum + curve * off * off
            });
            if error < best.0 {
                best = (error, d);
            }
        }

        // Points and codes for that d as it is stored, the best d for these, and again.
        let mut coded = Coded::ZERO;
        let mut least = x.iter().zip(&w).fold(0.0, |sum, (x, w)| sum + w * x * x);
        let mut scales: [f32; LEN / 16] = [0.0; LEN / 16];
        for (s, want) in scales.iter_mut().zip(wanted) {
            *s = want.0;
        }
        let (mut d, mut last) = (best.1, 0);
        let true_unit = f64::from(self.unit) / f64::from(largest);
        for _ in 0..3 {
            // Never infinite, and not zero where the least scale is better than none.
            let bits = f32_to_f16((f64::from(d) / true_unit) as f32).clamp(1, 0x7bff);
            if bits == last {
                break;
            }
            last = bits;
            let stored = (f64::from(f16_to_f32(bits)) * true_unit) as f32;
            let mut this = Coded { d: bits, ..Coded::ZERO };
            let (mut error, mut wxv, mut wvv) = (0.0, 0.0, 0.0);
            for (part, (x, w)) in parts() {
                let near = self.code(scales[part], stored);
                let mut best = (0, Fit { error: f32::INFINITY, ..Fit::ZERO });
                for code in near.saturating_sub(1)..=(near + 1).min(self.top) {
                    let fit = self.fit(x, w, stored * (2.0 * f32::from(code) + 1.0));
                    if fit.error < best.1.error {
                        best = (code, fit);
                    }
                }
                let (code, fit) = best;
                let times = 2.0 * f32::from(code) + 1.0;
                scales[part] = stored * times;
                error += fit.error;
                wxv += fit.wxv * times;
                wvv += fit.wvv * times * times;
                this.codes[part] = code;
                this.points[part * self.part / DIM..][..self.part / DIM]
                    .copy_from_slice(&fit.points[..self.part / DIM]);
                this.signs[part * self.part / GROUP..][..self.part / GROUP]
                    .copy_from_slice(&fit.signs[..self.part / GROUP]);
            }
            if error < least {
                (least, coded) = (error, this);
            }
            if wxv <= 0.0 {
                break;
            }
            d = wxv / wvv;
        }
        coded
    }
}

/// The weight of each squared error: its importance times a mean of its own and the block's magnitude, since the large
/// weights of a network matter more than their number says.
fn weights(x: &[f32; LEN], importance: Option<&[f32; LEN]>) -> [f32; LEN] {
    let variance = 1.0 / LEN as f32 * x.iter().fold(0.0, |sum, x| sum + x * x);
    let mut w = x.map(|x| (variance + x * x).sqrt());
    if let Some(importance) = importance {
        let valid = importance.map(|i| if i.is_finite() && i > 0.0 { i } else { 0.0 });
        let most = super::max_magnitude(&valid);
        if most > 0.0 {
            for (w, i) in w.iter_mut().zip(valid) {
                // Where nothing is important a little still is: the part has to become something.
                *w *= ((f64::from(i) / f64::from(most)) as f32).max(1e-6);
            }
        }
    }
    w
}

/// Codes block after block.
pub(super) fn encode_blocks<const DIM: usize, const LEVELS: usize, const BYTES: usize>(
    coder: &Coder<DIM, LEVELS>,
    src: &[f32],
    importance: Option<&[f32]>,
    dst: &mut [u8],
    pack: impl Fn(&Coded, &mut [u8; BYTES]),
) {
    let mut importance = importance.map(|i| i.as_chunks::<LEN>().0.iter());
    for (block, out) in src.as_chunks::<LEN>().0.iter().zip(dst.as_chunks_mut::<BYTES>().0) {
        let importance = importance.as_mut().and_then(Iterator::next);
        pack(&coder.encode(block, importance), out);
    }
}

/// Seven signs and the eighth that makes the number of minuses even.
#[inline(always)]
pub(super) fn even_signs(bits: u32) -> u8 {
    let seven = bits as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// A point's values with signs (a set bit is a minus, the first element's lowest).
#[inline(always)]
pub(super) fn write_signed<const DIM: usize>(out: &mut [f32; DIM], values: &[i8; DIM], signs: u8, scale: f32) {
    for (i, (out, &v)) in out.iter_mut().zip(values).enumerate() {
        *out = scale * f32::from(v) * if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
    }
}

/// A point's values, shifted.
#[inline(always)]
pub(super) fn write_shifted(out: &mut [f32; GROUP], values: &[i8; GROUP], down: bool, scale: f32) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (out, &v) in out.iter_mut().zip(values) {
        *out = scale * (f32::from(v) + shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap noise in 0..1.
    fn noise(seed: &mut u32) -> f32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / (1 << 24) as f32
    }

    fn search_is_exhaustive<const DIM: usize, const LEVELS: usize>(coder: &Coder<DIM, LEVELS>) {
        let mut seed = 1;
        for _ in 0..200 {
            let costs: [[f32; LEVELS]; DIM] = std::array::from_fn(|_| std::array::from_fn(|_| noise(&mut seed)));
            let flips: [[f32; LEVELS]; DIM] = std::array::from_fn(|_| {
                let slope = noise(&mut seed);
                std::array::from_fn(|level| slope * (level + 1) as f32)
            });
            for flip in [None, Some(&flips)] {
                let (cost, point) = coder.search(&costs, flip);
                let sum = |levels: &[u8; DIM]| {
                    let at = |table: &[[f32; LEVELS]; DIM], i: usize| table[i][usize::from(levels[i])];
                    let more = flip.map_or(0.0, |f| (0..DIM).fold(f32::INFINITY, |m, i| m.min(at(f, i))));
                    (0..DIM).map(|i| at(&costs, i)).sum::<f32>() + more
                };
                let least = coder.levels.iter().map(sum).fold(f32::INFINITY, f32::min);
                assert!((cost - least).abs() < 1e-5, "{cost} is not {least}");
                assert!((sum(&coder.levels[usize::from(point)]) - least).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_search_misses_no_point() {
        search_is_exhaustive(&super::super::iq1_s::CODER);
        search_is_exhaustive(&super::super::iq2_xxs::CODER);
        search_is_exhaustive(&super::super::iq2_xs::CODER);
        search_is_exhaustive(&super::super::iq3_xxs::CODER);
        search_is_exhaustive(&super::super::iq3_s::CODER);
    }
}
