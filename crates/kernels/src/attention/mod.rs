//! Fused attention softmax(scale·q·kᵀ)·v with causal masking, grouped key-value heads, a sliding window, soft-capped
//! scores and sinks, without ever holding the score matrix (FlashAttention, Dao et al. 2022; grouped queries, Ainslie et
//! al. 2023). Keys and values are f32 tensors or a cache in a number format ([`CacheLayout`]), which is never expanded.
//!
//! There are three paths. **Blocks** (more than [`FEW_QUERIES`] queries): a task takes one query head and as many queries
//! as four vectors have lanes; queries lie in the lanes, so that running maxima and sums are vectors and masks are
//! comparisons; blocks of a cache are decoded to f32 on their way. **Tiles**: the same with AMX over a cache that is not
//! f32, all query heads of a key-value head together, operands of both products rounded to bf16. **Few queries**
//! (decoding): a task takes one key-value head and all queries that share it, and passes over each key and value once, in
//! runs of [`SPLIT`] keys; with AVX-512-VNNI queries are rounded to bytes for keys in block formats. Keys that no query of
//! a task sees are not touched. Within a path a query's result depends on nothing but the query itself, its keys and its
//! values; between the paths it differs in rounding only.
//!
//! Tiles and bytes are for [`Precision::Auto`](crate::packed::Precision); otherwise, and wherever keys and values are f32,
//! all arithmetic is.

mod backward;
#[cfg(target_arch = "x86_64")]
mod bytes;
#[cfg(test)]
mod cache_tests;
mod decode;
mod forward;
mod rows;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::isa::{Isa, Simd, isa};
use crate::packed::{Precision, precision};
use crate::pool::SharedMut;
use crate::vecmath::{ld, math, st};
use rows::Rows;
pub use rows::{CacheLayout, Cached};

/// Up to this many queries per head go the path for decoding.
pub const FEW_QUERIES: usize = 4;
/// Keys that one task of the decoding path passes over.
pub const SPLIT: usize = 1024;
/// Keys of a block.
const KEYS: usize = 64;

/// The sizes of an attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttentionShape {
    /// Batch.
    pub b: usize,
    /// Queries.
    pub tq: usize,
    /// Keys and values.
    pub tk: usize,
    /// Query heads, a multiple of `hkv`.
    pub hq: usize,
    /// Key-value heads; query head h uses key-value head h/(hq/hkv).
    pub hkv: usize,
    /// Elements of a query or key.
    pub d: usize,
    /// Elements of a value.
    pub dv: usize,
}

/// How the scores are made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionOpts {
    /// Factor of q·k, usually 1/√d.
    pub scale: f32,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
    /// The position of the first query among the keys.
    pub q_start: usize,
    /// A query at position p sees only keys j with |p − j| < window.
    pub window: Option<usize>,
    /// A query sees only keys of its own stretch of so many positions, at most [`LONGEST_CHUNK`] (Llama 4).
    pub chunk: Option<usize>,
    /// Scores s become cap·tanh(s/cap) before the mask.
    pub softcap: Option<f32>,
}

/// Longest [`AttentionOpts::chunk`].
pub const LONGEST_CHUNK: usize = 1 << 20;

impl AttentionOpts {
    /// Causal attention with scale `1/√head_dim` whose first query stands at `q_start`.
    pub fn causal(head_dim: usize, q_start: usize) -> Self {
        AttentionOpts {
            scale: 1.0 / (head_dim as f32).sqrt(),
            causal: true,
            q_start,
            window: None,
            chunk: None,
            softcap: None,
        }
    }
}

/// A tensor [b, t, h, elements] whose elements lie next to each other, at any distances otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// All of it, from the first element.
    pub data: &'a [f32],
    /// Elements between batch rows.
    pub bs: usize,
    /// Elements between time steps.
    pub ts: usize,
    /// Elements between heads.
    pub hs: usize,
}

impl<'a> Heads<'a> {
    /// The contiguous tensor [b, t, h, d].
    pub fn contiguous(data: &'a [f32], t: usize, h: usize, d: usize) -> Self {
        Self { data, bs: t * h * d, ts: h * d, hs: d }
    }

    /// From step `t` of a head to the end of the data.
    fn from(&self, b: usize, t: usize, h: usize) -> &'a [f32] {
        &self.data[b * self.bs + t * self.ts + h * self.hs..]
    }

    #[track_caller]
    fn check(&self, name: &str, b: usize, t: usize, h: usize, d: usize) {
        if b * t * h * d > 0 {
            let need = (b - 1) * self.bs + (t - 1) * self.ts + (h - 1) * self.hs + d;
            let have = self.data.len();
            assert!(have >= need, "attention {name}: [{b}, {t}, {h}, {d}] needs {need} elements, there are {have}");
        }
    }
}

/// The destination counterpart of [`Heads`]; its rows must not overlap.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    /// All of it, from the first element.
    pub data: &'a mut [f32],
    /// Elements between batch rows.
    pub bs: usize,
    /// Elements between time steps.
    pub ts: usize,
    /// Elements between heads.
    pub hs: usize,
}

impl<'a> HeadsMut<'a> {
    /// The contiguous tensor [b, t, h, d].
    pub fn contiguous(data: &'a mut [f32], t: usize, h: usize, d: usize) -> Self {
        Self { data, bs: t * h * d, ts: h * d, hs: d }
    }

    /// For the tasks; panics unless all of [b, t, h, d] lies in the data and rows do not overlap.
    #[track_caller]
    fn shared(self, name: &str, b: usize, t: usize, h: usize, d: usize) -> SharedHeads<'a> {
        let Self { data, bs, ts, hs } = self;
        Heads { data, bs, ts, hs }.check(name, b, t, h, d);
        // Sorted by distance, each axis must step over all that the shorter ones reach.
        let mut axes = [(bs, b), (ts, t), (hs, h)];
        axes.sort_unstable();
        let mut reach = d;
        for (stride, n) in axes {
            if n > 1 {
                assert!(stride >= reach, "attention {name}: rows overlap at stride {stride}");
                reach += stride * (n - 1);
            }
        }
        SharedHeads { data: SharedMut::new(data), bs, ts, hs }
    }
}

/// [`HeadsMut`] in the hands of several tasks.
struct SharedHeads<'a> {
    data: SharedMut<'a, f32>,
    bs: usize,
    ts: usize,
    hs: usize,
}

impl SharedHeads<'_> {
    /// # Safety
    /// As [`SharedMut::slice`]: no two live rows may be the same.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, b: usize, t: usize, h: usize, d: usize) -> &mut [f32] {
        // SAFETY: rows of different indices do not overlap (checked when made); the rest is the caller's promise.
        unsafe { self.data.slice(b * self.bs + t * self.ts + h * self.hs, d) }
    }
}

fn check(shape: AttentionShape, q: &Heads, k: &Rows, v: &Rows) {
    let AttentionShape { b, tq, tk, hq, hkv, d, dv } = shape;
    assert!(hkv > 0 && hq % hkv == 0, "attention: {hq} query heads over {hkv} key-value heads");
    q.check("q", b, tq, hq, d);
    k.check("k", b, tk, hkv, d);
    v.check("v", b, tk, hkv, dv);
}

/// The keys `lo..hi` that the query at position `p` may see.
fn visible(opts: &AttentionOpts, p: usize, tk: usize) -> (usize, usize) {
    let mut lo = opts.window.map_or(0, |w| (p + 1).saturating_sub(w)).min(tk);
    let mut hi = tk;
    if let Some(c) = opts.chunk {
        lo = lo.max(p / c * c).min(tk);
        hi = hi.min((p / c + 1).saturating_mul(c));
    }
    if opts.causal {
        hi = hi.min(p + 1);
    }
    if let Some(w) = opts.window {
        hi = hi.min(p.saturating_add(w));
    }
    (lo, hi.max(lo))
}

/// Computes out[b, tq, hq, dv] and lse[b, hq, tq], the logarithm of the sum of each query's exponentiated scores.
///
/// `sinks`, one for each query head, are scores of a key that every query sees and whose value is 0: they take part in
/// the sums. A query that sees no key gives 0 and its sink, or −∞. Scores are f32 sums of d products, their exponentials
/// are accurate to 1.5 ulp, and sums over keys run in f32 in the order of the keys.
///
/// # Panics
/// If a slice is too short for the shape, `hq` is not a multiple of `hkv`, or rows of `out` overlap.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    shape: AttentionShape,
    opts: &AttentionOpts,
    q: Heads,
    k: Heads,
    v: Heads,
    sinks: Option<&[f32]>,
    out: HeadsMut,
    lse: &mut [f32],
) {
    let x = Inputs { shape, opts: *opts, q, k: Rows::Tensor(k), v: Rows::Tensor(v), sinks };
    attention_isa(isa(), &x, out, lse)
}

/// [`attention`] over the first `tk` positions of a cache.
///
/// # Panics
/// As [`attention`], or if a cache is of another shape.
#[allow(clippy::too_many_arguments)]
pub fn attention_cached(
    shape: AttentionShape,
    opts: &AttentionOpts,
    q: Heads,
    k: Cached,
    v: Cached,
    sinks: Option<&[f32]>,
    out: HeadsMut,
    lse: &mut [f32],
) {
    let isa = if precision() == Precision::F32 { isa().in_f32() } else { isa() };
    let x = Inputs { shape, opts: *opts, q, k: Rows::Cache(k), v: Rows::Cache(v), sinks };
    attention_isa(isa, &x, out, lse)
}

fn attention_isa(isa: Isa, x: &Inputs, out: HeadsMut, lse: &mut [f32]) {
    check(x.shape, &x.q, &x.k, &x.v);
    let AttentionShape { b, tq, hq, dv, .. } = x.shape;
    crate::vecmath::same_len("attention lse", lse.len(), b * hq * tq);
    crate::vecmath::same_len("attention sinks", x.sinks.map_or(hq, <[f32]>::len), hq);
    let out = out.shared("out", b, tq, hq, dv);
    let lse = SharedMut::new(lse);
    if tq <= FEW_QUERIES {
        return decode::attention(isa, x, &out, &lse);
    }
    #[cfg(target_arch = "x86_64")]
    if tiles::supported(isa, x) {
        return tiles::attention(x, &out, &lse);
    }
    forward::attention(isa, x, &out, &lse)
}

/// What [`attention_backward`] reads besides the inputs.
#[derive(Clone, Copy, Debug)]
pub struct AttentionResult<'a> {
    /// The result of the forward pass, [b, tq, hq, dv].
    pub out: Heads<'a>,
    /// Its second result, [b, hq, tq].
    pub lse: &'a [f32],
    /// The gradient of `out`, [b, tq, hq, dv].
    pub dout: Heads<'a>,
}

/// Computes the gradients dq[b, tq, hq, d], dk[b, tk, hkv, d] and dv[b, tk, hkv, dv], overwriting.
///
/// The probabilities are computed again, block by block, from `lse`, in which sinks are, if there were any. A task takes a key-value head of a batch row, or one of several
/// shares of its queries where there are few heads; the split depends on the shape only.
///
/// # Panics
/// As [`attention`].
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    shape: AttentionShape,
    opts: &AttentionOpts,
    q: Heads,
    k: Heads,
    v: Heads,
    result: AttentionResult,
    dq: HeadsMut,
    dk: HeadsMut,
    dv: HeadsMut,
) {
    attention_backward_isa(isa(), shape, opts, q, k, v, result, dq, dk, dv)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward_isa(
    isa: Isa,
    shape: AttentionShape,
    opts: &AttentionOpts,
    q: Heads,
    k: Heads,
    v: Heads,
    result: AttentionResult,
    dq: HeadsMut,
    dk: HeadsMut,
    dv: HeadsMut,
) {
    check(shape, &q, &Rows::Tensor(k), &Rows::Tensor(v));
    let AttentionShape { b, tq, tk, hq, hkv, d, dv: ev } = shape;
    result.out.check("out", b, tq, hq, ev);
    result.dout.check("dout", b, tq, hq, ev);
    crate::vecmath::same_len("attention lse", result.lse.len(), b * hq * tq);
    let dq = dq.shared("dq", b, tq, hq, d);
    let dk = dk.shared("dk", b, tk, hkv, d);
    let dv = dv.shared("dv", b, tk, hkv, ev);
    let x = backward::Inputs { shape, opts: *opts, q, k, v };
    backward::attention(isa, &x, &result, &dq, &dk, &dv)
}

/// The inputs of the forward pass.
struct Inputs<'a> {
    shape: AttentionShape,
    opts: AttentionOpts,
    q: Heads<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    sinks: Option<&'a [f32]>,
}

impl Inputs<'_> {
    /// The sink of a query head, −∞ if there is none.
    fn sink(&self, h: usize) -> f32 {
        self.sinks.map_or(f32::NEG_INFINITY, |s| s[h])
    }
}

impl AttentionShape {
    /// The multiplications of all queries with all keys and values, for the choice between the pool and the caller's
    /// thread.
    fn work(&self) -> usize {
        self.b * self.hq * self.tq * self.tk * (self.d + self.dv)
    }
}

/// Queries of a block: four vectors, or one where fewer would do.
fn block_vectors(lanes: usize, queries: usize) -> usize {
    if queries <= lanes { 1 } else { 4 }
}

/// dst[e·width + i] = factor·src[i·stride + e] for `rows` rows of `d` elements, 0 for i from `rows` to `width`.
fn transpose(src: &[f32], stride: usize, rows: usize, d: usize, factor: f32, width: usize, dst: &mut [f32]) {
    const B: usize = 16; // elements at a time, so that the lines written stay in L1
    for e0 in (0..d).step_by(B) {
        let n = B.min(d - e0);
        for i in 0..rows {
            let row = &src[i * stride + e0..i * stride + e0 + n];
            for (e, v) in row.iter().enumerate() {
                dst[(e0 + e) * width + i] = factor * v;
            }
        }
        for e in e0..e0 + n {
            dst[e * width + rows..(e + 1) * width].fill(0.0);
        }
    }
}

/// Which keys of a block the queries of a block see; positions are relative to the first query's.
#[derive(Clone, Copy)]
struct Mask {
    causal: bool,
    window: Option<f32>,
    /// Where in its chunk the first query stands, and the length of a chunk.
    chunk: Option<(f32, f32)>,
    /// The first key of the block.
    key0: f32,
}

impl Mask {
    /// None if every one of `keys` keys from `j0` is seen by every query from position `p0` to `p1`.
    fn new(opts: &AttentionOpts, p0: usize, p1: usize, j0: usize, keys: usize) -> Option<Mask> {
        let before = opts.causal && j0 + keys > p0 + 1;
        let outside = opts.window.is_some_and(|w| p1 - j0.min(p1) >= w || (j0 + keys - 1).saturating_sub(p0) >= w);
        let apart = opts.chunk.is_some_and(|c| {
            let chunk = p0 / c;
            p1 / c != chunk || j0 / c != chunk || (j0 + keys - 1) / c != chunk
        });
        // Differences beyond 2^24 only ever compare with smaller numbers, so their rounding does not matter.
        (before || outside || apart).then_some(Mask {
            causal: opts.causal,
            window: opts.window.map(|w| w as f32),
            chunk: opts.chunk.map(|c| ((p0 % c) as f32, c as f32)),
            key0: j0 as f32 - p0 as f32,
        })
    }

    /// The scores of key `j` of the block, −∞ where the query does not see it; `query` holds the lanes' numbers.
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, scores: S::F, j: usize, query: S::F) -> S::F {
        let hidden = s.splat(f32::NEG_INFINITY);
        let ahead = s.sub(s.splat(self.key0 + j as f32), query);
        let mut r = scores;
        if self.causal {
            r = s.select(s.le(ahead, s.zero()), r, hidden);
        }
        if let Some(w) = self.window {
            r = s.select(s.lt(s.abs(ahead), s.splat(w)), r, hidden);
        }
        if let Some((first, c)) = self.chunk {
            // The number of the query's chunk, counted from that of the first query: place / c rounded down, which for
            // whole numbers is (place − (c − 1) / 2) / c rounded to the nearest.
            let place = s.add(query, s.splat(first));
            let number = s.round(s.div(s.sub(place, s.splat((c - 1.0) / 2.0)), s.splat(c)));
            let start = s.sub(s.mul(number, s.splat(c)), s.splat(first));
            let key = s.splat(self.key0 + j as f32);
            r = s.select(s.le(start, key), r, hidden);
            r = s.select(s.lt(key, s.add(start, s.splat(c))), r, hidden);
        }
        r
    }
}

/// 0, 1, 2, … for the lanes' numbers.
const COUNTING: [f32; 64] = {
    let mut c = [0.0; 64];
    let mut i = 0;
    while i < 64 {
        c[i] = i as f32;
        i += 1;
    }
    c
};

/// cap·tanh(x/cap).
#[inline(always)]
fn soft_cap<S: Simd>(s: S, x: S::F, cap: f32) -> S::F {
    s.mul(s.splat(cap), math::tanh(s, s.mul(x, s.splat(1.0 / cap))))
}

/// Σ `x[i]`·`y[i]`, in two vectors of lanes.
#[inline(always)]
fn row_dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let (mut even, mut odd) = (s.zero(), s.zero());
    let (mut xs, mut ys) = (x.chunks_exact(2 * S::LANES), y.chunks_exact(2 * S::LANES));
    for (x, y) in (&mut xs).zip(&mut ys) {
        even = s.mul_add(s.load(x), s.load(y), even);
        odd = s.mul_add(s.load(&x[S::LANES..]), s.load(&y[S::LANES..]), odd);
    }
    for (x, y) in xs.remainder().chunks(S::LANES).zip(ys.remainder().chunks(S::LANES)) {
        even = s.mul_add(ld(s, x), ld(s, y), even);
    }
    s.sum(s.add(even, odd))
}

/// out = factor·x, one row.
#[inline(always)]
fn scaled_row<S: Simd>(s: S, x: &[f32], factor: f32, out: &mut [f32]) {
    let f = s.splat(factor);
    for (x, o) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
        st(s, s.mul(ld(s, x), f), o);
    }
}
