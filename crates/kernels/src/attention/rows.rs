//! Keys and values as attention reads them: f32 tensors of any strides, or what a cache holds in a number format.
//!
//! A cache holds the rows of a head behind each other, so that decoding streams. Block formats have GGUF's blocks of 32
//! elements along a row, but numbers and scales apart: first the numbers of all rows, then for each head and block of a
//! row the scales of all positions. Loads of numbers are then aligned and whole, and scales of neighbouring keys are read
//! as vectors.

use imaginal_numeric::Format;
use imaginal_numeric::half::{f32_to_bf16, f32_to_f16};

use super::Heads;
use crate::gemm::few::Kind;
use crate::isa::{Isa, Simd, isa, simd_fn};
use crate::pool::{self, SharedMut};
use crate::simd::f16_to_f32;

/// Elements that share a scale.
pub(super) const BLOCK: usize = 32;
/// Bytes of a scale, an f16.
const SCALE: usize = 2;
/// Elements that one thread writes to a cache sooner than several.
const SERIAL: usize = 8 * 1024;

/// How a cache of keys, or of values, lies in memory: [batch, heads, capacity, dim] in a number format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheLayout {
    format: Format,
    kind: Kind,
    batch: usize,
    heads: usize,
    capacity: usize,
    dim: usize,
    row_bytes: usize,
    bytes: usize,
}

impl CacheLayout {
    /// The formats that a cache may have.
    pub const FORMATS: [Format; 5] = [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0];

    /// Room for `capacity` rows of `dim` elements for each head of each batch row. `None` if the format is none of
    /// [`CacheLayout::FORMATS`], `dim` is no whole number of its blocks, or the size overflows.
    pub fn new(format: Format, batch: usize, heads: usize, capacity: usize, dim: usize) -> Option<Self> {
        let kind = Kind::of(format)?;
        let bytes = format.bytes_for(dim)?.checked_mul(capacity)?.checked_mul(heads)?.checked_mul(batch)?;
        let row_bytes = format.bytes_for(dim)? - if blocks(kind) { dim / BLOCK * SCALE } else { 0 };
        Some(CacheLayout { format, kind, batch, heads, capacity, dim, row_bytes, bytes })
    }

    /// The same with another capacity. `None` if the size overflows.
    pub fn with_capacity(&self, capacity: usize) -> Option<Self> {
        Self::new(self.format, self.batch, self.heads, capacity, self.dim)
    }

    /// The number format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Blocks of a row that have scales.
    fn scales(&self) -> usize {
        if blocks(self.kind) { self.dim / BLOCK } else { 0 }
    }

    /// Where the numbers of a head's row `t` are.
    fn row_at(&self, head: usize, t: usize) -> usize {
        (head * self.capacity + t) * self.row_bytes
    }

    /// Where the scale of block `i` of a head's row `t` is.
    fn scale_at(&self, head: usize, i: usize, t: usize) -> usize {
        let all_rows = self.batch * self.heads * self.capacity * self.row_bytes;
        all_rows + ((head * self.scales() + i) * self.capacity + t) * SCALE
    }

    /// Rounds `t` rows of each head to the format and puts them at the positions from `first` on.
    ///
    /// # Panics
    /// If `bytes` are not as many as [`CacheLayout::bytes`], there is no room, or `x` is too short.
    pub fn write(&self, bytes: &mut [u8], first: usize, t: usize, x: Heads) {
        x.check("rows", self.batch, t, self.heads, self.dim);
        assert_eq!(bytes.len(), self.bytes, "cache: bytes of {self:?}");
        assert!(t <= self.capacity && first <= self.capacity - t, "cache: no room for {t} after {first}: {self:?}");
        let (isa, shared) = (isa(), SharedMut::new(bytes));
        // Some positions of a head.
        let run = (SERIAL / self.dim.max(1)).clamp(1, t.max(1));
        let runs = t.div_ceil(run);
        let task = |i: usize| {
            let head = i / runs;
            for at in i % runs * run..t.min((i % runs + 1) * run) {
                let row = &x.data[head / self.heads * x.bs + at * x.ts + head % self.heads * x.hs..][..self.dim];
                // SAFETY: each task has positions of its own.
                unsafe { self.write_row(isa, &shared, head, first + at, row) };
            }
        };
        let tasks = self.batch * self.heads * runs;
        if tasks * run * self.dim > 2 * SERIAL { pool::parallel(tasks, &task) } else { (0..tasks).for_each(task) }
    }

    /// # Safety
    /// Nobody else uses this row.
    unsafe fn write_row(&self, isa: Isa, bytes: &SharedMut<u8>, head: usize, t: usize, row: &[f32]) {
        // SAFETY: by the caller's word.
        let part = |at: usize, len: usize| unsafe { bytes.slice(at, len) };
        let at = self.row_at(head, t);
        let encode = |row: &[f32], to: &mut [u8]| {
            if let Err(e) = self.format.encode(row, to) {
                panic!("cache: {e}");
            }
        };
        match self.kind {
            Kind::F16 => return to_f16(isa, row, part(at, self.row_bytes)),
            Kind::Bf16 => return to_bf16(isa, row, part(at, self.row_bytes)),
            Kind::F32 => return encode(row, part(at, self.row_bytes)),
            Kind::Q8_0 | Kind::Q4_0 => {}
        }
        let numbers = self.row_bytes / self.scales();
        let mut packed = [0; SCALE + BLOCK];
        let packed = &mut packed[..SCALE + numbers];
        for (i, block) in row.chunks_exact(BLOCK).enumerate() {
            encode(block, packed);
            part(self.scale_at(head, i, t), SCALE).copy_from_slice(&packed[..SCALE]);
            part(at + i * numbers, numbers).copy_from_slice(&packed[SCALE..]);
        }
    }

    /// What the row at position `t` of a head decodes to, or as many of its elements as `row` has.
    ///
    /// # Panics
    /// As [`CacheLayout::write`].
    pub fn read(&self, bytes: &[u8], b: usize, h: usize, t: usize, row: &mut [f32]) {
        self.check(bytes, b, h, t, self.dim);
        assert!(row.len() <= self.dim && row.len().is_multiple_of(self.format.block_len()));
        let head = b * self.heads + h;
        let at = self.row_at(head, t);
        let decode = |from: &[u8], row: &mut [f32]| {
            if let Err(e) = self.format.decode(from, row) {
                panic!("cache: {e}");
            }
        };
        if !blocks(self.kind) {
            let some = self.row_bytes / self.dim.max(1) * row.len();
            return decode(&bytes[at..at + some], row);
        }
        let numbers = self.row_bytes / self.scales();
        let mut packed = [0; SCALE + BLOCK];
        let packed = &mut packed[..SCALE + numbers];
        for (i, block) in row.chunks_exact_mut(BLOCK).enumerate() {
            let scale = self.scale_at(head, i, t);
            packed[..SCALE].copy_from_slice(&bytes[scale..scale + SCALE]);
            packed[SCALE..].copy_from_slice(&bytes[at + i * numbers..at + (i + 1) * numbers]);
            decode(packed, block);
        }
    }

    /// Copies the first `len` positions into the cache `to`, which differs in capacity only.
    ///
    /// # Panics
    /// If the layouts differ in more, a slice has another size than its layout, or `len` exceeds a capacity.
    pub fn copy(&self, from: &[u8], to: &CacheLayout, dst: &mut [u8], len: usize) {
        assert!(Some(*to) == self.with_capacity(to.capacity) && len <= self.capacity.min(to.capacity));
        assert!(from.len() == self.bytes && dst.len() == to.bytes);
        for head in 0..self.batch * self.heads {
            let parts = (0..self.scales()).map(|i| (self.scale_at(head, i, 0), to.scale_at(head, i, 0), SCALE));
            for (from_at, to_at, one) in parts.chain([(self.row_at(head, 0), to.row_at(head, 0), self.row_bytes)]) {
                dst[to_at..to_at + len * one].copy_from_slice(&from[from_at..from_at + len * one]);
            }
        }
    }

    /// Whether a row begins with `dim` elements in whole blocks: values may be the beginnings of keys.
    fn has(&self, dim: usize) -> bool {
        dim <= self.dim && dim.is_multiple_of(self.format.block_len())
    }

    #[track_caller]
    fn check(&self, bytes: &[u8], b: usize, h: usize, t: usize, len: usize) {
        assert!(bytes.len() == self.bytes && len == self.dim, "cache: {} bytes, row of {len}: {self:?}", bytes.len());
        assert!(b < self.batch && h < self.heads && t < self.capacity, "cache: no place {b}, {h}, {t}: {self:?}");
    }
}

simd_fn! {
    /// The nearest f16 of each, little-endian.
    fn to_f16<S>(_s: S, from: &[f32], to: &mut [u8]) {
        for (to, x) in to.as_chunks_mut().0.iter_mut().zip(from) {
            *to = f32_to_f16(*x).to_le_bytes();
        }
    }

    /// The nearest bf16 of each, little-endian.
    fn to_bf16<S>(_s: S, from: &[f32], to: &mut [u8]) {
        for (to, x) in to.as_chunks_mut().0.iter_mut().zip(from) {
            *to = f32_to_bf16(*x).to_le_bytes();
        }
    }
}

/// Whether a kind has blocks with scales.
pub(super) const fn blocks(kind: Kind) -> bool {
    matches!(kind, Kind::Q8_0 | Kind::Q4_0)
}

/// A cache's memory and how it lies there.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'a> {
    /// How it lies.
    pub layout: CacheLayout,
    /// As many bytes as the layout has.
    pub bytes: &'a [u8],
}

/// Keys or values of an attention.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    Tensor(Heads<'a>),
    Cache(Cached<'a>),
}

/// Rows of one head: where their numbers are, the bytes from row to row, where the scales of their first blocks are, and
/// the bytes from block to block. [`Rows::run`] makes them and has seen that all of them are there.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub kind: Kind,
    pub rows: usize,
    pub dim: usize,
    pub stride: usize,
    pub scale_stride: usize,
    data: &'a [u8],
    scales: &'a [u8],
}

impl<'a> Rows<'a> {
    /// What they are, which is to be known where a kernel has a way of its own for it.
    #[cfg(target_arch = "x86_64")]
    pub fn kind(&self) -> Kind {
        match self {
            Rows::Tensor(_) => Kind::F32,
            Rows::Cache(c) => c.layout.kind,
        }
    }

    /// Panics unless [b, t, h, d] lies in the memory.
    #[track_caller]
    pub fn check(&self, name: &str, b: usize, t: usize, h: usize, d: usize) {
        match self {
            Rows::Tensor(x) => x.check(name, b, t, h, d),
            Rows::Cache(Cached { layout: l, bytes }) => {
                let fits = (l.batch, l.heads) == (b, h) && l.has(d) && t <= l.capacity && bytes.len() == l.bytes;
                assert!(fits, "attention {name}: [{b}, {t}, {h}, {d}] of {} bytes as {l:?}", bytes.len());
            }
        }
    }

    /// `rows` rows of a head from position `t` on.
    ///
    /// # Panics
    /// If they are not there.
    pub fn run(&self, [b, t, h]: [usize; 3], rows: usize, dim: usize) -> Run<'a> {
        let (kind, stride) = match self {
            Rows::Tensor(x) => (Kind::F32, x.ts * size_of::<f32>()),
            Rows::Cache(c) => (c.layout.kind, c.layout.row_bytes),
        };
        let mut run = Run { kind, rows, dim, stride, scale_stride: 0, data: &[], scales: &[] };
        if rows == 0 || dim == 0 {
            return Run { rows: 0, ..run };
        }
        match self {
            Rows::Tensor(x) => {
                let floats = &x.from(b, t, h)[..(rows - 1) * x.ts + dim];
                // SAFETY: the same memory; any byte is a valid u8.
                run.data = unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) };
            }
            Rows::Cache(Cached { layout: l, bytes }) => {
                assert!(b < l.batch && h < l.heads && t + rows <= l.capacity && l.has(dim));
                let head = b * l.heads + h;
                let at = l.row_at(head, t);
                run.data = &bytes[at..at + rows * stride];
                if blocks(kind) {
                    run.scale_stride = l.capacity * SCALE;
                    let at = l.scale_at(head, 0, t);
                    run.scales = &bytes[at..at + (l.scales() - 1) * run.scale_stride + rows * SCALE];
                }
            }
        }
        run
    }

    /// `rows` rows of a head from position `t` on as f32, zeros behind them up to `width`, in `buf`. For lengths that are
    /// no whole vectors, which is rare.
    pub fn padded<'b>(
        &self,
        [b, t, h]: [usize; 3],
        rows: usize,
        dim: usize,
        width: usize,
        buf: &'b mut [f32],
    ) -> Run<'b> {
        for (j, row) in buf.chunks_exact_mut(width).enumerate().take(rows) {
            let (row, rest) = row.split_at_mut(dim);
            rest.fill(0.0);
            match self {
                Rows::Tensor(x) => row.copy_from_slice(&x.from(b, t + j, h)[..dim]),
                Rows::Cache(c) => c.layout.read(c.bytes, b, h, t + j, row),
            }
        }
        Rows::Tensor(Heads { data: buf, bs: 0, ts: width, hs: 0 }).run([0; 3], rows, width)
    }

    /// `n` rows of a head from position `t` on as f32, and the elements from row to row: where they lie if they are f32,
    /// else decoded into `buf`.
    pub fn floats<'b>(
        &self,
        isa: Isa,
        [b, t, h]: [usize; 3],
        n: usize,
        d: usize,
        buf: &'b mut [f32],
    ) -> (&'b [f32], usize)
    where
        'a: 'b,
    {
        match self {
            Rows::Tensor(x) => (x.from(b, t, h), x.ts),
            Rows::Cache(c) => {
                let buf = &mut buf[..n * d];
                if d.is_multiple_of(isa.lanes()) {
                    decode(isa, self.run([b, t, h], n, d), buf);
                } else {
                    for (i, row) in buf.chunks_exact_mut(d).enumerate() {
                        c.layout.read(c.bytes, b, h, t + i, row);
                    }
                }
                (buf, d)
            }
        }
    }
}

impl Run<'_> {
    /// Where the numbers of row `j` are, or of the last row if there are fewer.
    #[inline(always)]
    pub fn row(&self, j: usize) -> *const u8 {
        let j = j.min(self.rows - 1);
        // SAFETY: the data reach from the first row to the end of the last.
        unsafe { self.data.as_ptr().add(j * self.stride) }
    }

    /// The scales of all rows as f32: that of block i of row j goes to `dst[i·stride + j]`. Nothing for plain numbers.
    #[inline(always)]
    pub fn scales<S: Simd>(&self, s: S, dst: &mut [f32], stride: usize) {
        if self.scales.is_empty() {
            return;
        }
        for (from, dst) in self.scales.chunks(self.scale_stride).zip(dst.chunks_mut(stride)) {
            let (from, dst) = (&from[..self.rows * SCALE], &mut dst[..self.rows]);
            let whole = self.rows / S::LANES * S::LANES;
            for j in (0..whole).step_by(S::LANES) {
                // SAFETY: whole vectors within the slice.
                s.store(unsafe { s.load_f16(from[SCALE * j..].as_ptr()) }, &mut dst[j..]);
            }
            for j in whole..self.rows {
                dst[j] = f16_to_f32(u16::from_le_bytes([from[SCALE * j], from[SCALE * j + 1]]));
            }
        }
    }

    /// The scale of the block that element `e` of row `j` is in; 1 for plain numbers.
    #[inline(always)]
    fn scale(&self, j: usize, e: usize) -> f32 {
        if self.scales.is_empty() {
            return 1.0;
        }
        let at = e / BLOCK * self.scale_stride + j * SCALE;
        f16_to_f32(u16::from_le_bytes([self.scales[at], self.scales[at + 1]]))
    }
}

/// How the elements of a kind are read.
pub(super) trait Element {
    /// Whether blocks of them have a scale.
    const SCALED: bool;

    /// Elements `e..e + LANES` of a row, a whole vector of it, not scaled.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load<S: Simd>(s: S, row: *const u8, e: usize) -> S::F;
}

macro_rules! element {
    ($name:ident, $kind:expr, |$s:ident, $row:ident, $e:ident| $vector:expr) => {
        pub(super) struct $name;
        impl Element for $name {
            const SCALED: bool = blocks($kind);
            #[inline(always)]
            unsafe fn load<S: Simd>($s: S, $row: *const u8, $e: usize) -> S::F {
                // SAFETY: readable by the caller's promise.
                unsafe { $vector }
            }
        }
    };
}

element!(F32, Kind::F32, |s, row, e| s.load_ptr(row.add(4 * e).cast()));
element!(F16, Kind::F16, |s, row, e| s.load_f16(row.add(2 * e)));
element!(Bf16, Kind::Bf16, |s, row, e| s.load_bf16(row.add(2 * e)));
element!(Q8, Kind::Q8_0, |s, row, e| s.load_i8(row.add(e)));
element!(Q4, Kind::Q4_0, |s, row, e| {
    // Byte i of a block holds element i in its low half and element i + 16 in its high half.
    let both = s.load_u8(row.add(e / BLOCK * 16 + e % 16));
    let q = if e % BLOCK < 16 { s.and_i(both, s.splat_i(15)) } else { s.shr_u::<4>(both) };
    s.to_f(s.sub_i(q, s.splat_i(8)))
});

/// Runs `$body` with `$E` standing for the kind's element.
macro_rules! with_element {
    ($kind:expr, $E:ident => $body:expr) => {
        match $kind {
            $crate::gemm::few::Kind::F32 => {
                type $E = $crate::attention::rows::F32;
                $body
            }
            $crate::gemm::few::Kind::F16 => {
                type $E = $crate::attention::rows::F16;
                $body
            }
            $crate::gemm::few::Kind::Bf16 => {
                type $E = $crate::attention::rows::Bf16;
                $body
            }
            $crate::gemm::few::Kind::Q8_0 => {
                type $E = $crate::attention::rows::Q8;
                $body
            }
            $crate::gemm::few::Kind::Q4_0 => {
                type $E = $crate::attention::rows::Q4;
                $body
            }
        }
    };
}
pub(super) use with_element;

simd_fn! {
    /// Decodes rows whose length is a multiple of the vector's lanes.
    fn decode<S>(s: S, run: Run<'_>, dst: &mut [f32]) {
        assert!(dst.len() == run.rows * run.dim && run.dim.is_multiple_of(S::LANES));
        with_element!(run.kind, E => decode_as::<S, E>(s, run, dst))
    }
}

#[inline(always)]
fn decode_as<S: Simd, E: Element>(s: S, run: Run, dst: &mut [f32]) {
    for (j, dst) in dst.chunks_exact_mut(run.dim).enumerate() {
        let row = run.row(j);
        for (e, dst) in (0..).step_by(S::LANES).zip(dst.chunks_exact_mut(S::LANES)) {
            // SAFETY: whole vectors of a row.
            let x = unsafe { E::load(s, row, e) };
            s.store(if E::SCALED { s.mul(x, s.splat(run.scale(j, e))) } else { x }, dst);
        }
    }
}
