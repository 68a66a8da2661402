#![allow(
    clippy::eq_op,
    clippy::nonminimal_bool,
    reason = "`!(x == x)` is the test for NaN that every device gets right"
)]

use cubecl::prelude::*;

use super::Reduce;
use crate::gpu::{GpuStorage, Info, UNITS, place};
use crate::{DType, Error, Layout, Result};

/// Runs shorter than this are reduced by one thread each, longer ones by a workgroup.
const SHORT: usize = 32;
/// Threads of a workgroup, the size of the tree of partial results.
const LANES: usize = UNITS as usize;

#[cube]
fn combine<N: Numeric>(#[comptime] kind: Reduce, a: N, b: N) -> N {
    match kind {
        Reduce::Sum => a + b,
        // Written so that NaN wins; `b != b` is false of it on some devices.
        Reduce::Max => select(b > a || !(b == b), b, a),
        Reduce::Min => select(b < a || !(b == b), b, a),
    }
}

/// What a partial result starts with: nothing for a sum, any element of the run otherwise.
#[cube]
fn start<N: Numeric>(#[comptime] kind: Reduce, first: N) -> N {
    match kind {
        Reduce::Sum => N::from_int(0),
        _ => first,
    }
}

/// `info`: length of a run, then the layout with the reduced dimensions last. One thread per run.
#[cube(launch)]
fn short_kernel<N: Numeric>(x: &[N], info: &[u32], out: &mut [N], #[comptime] kind: Reduce) {
    let o = ABSOLUTE_POS;
    if o < out.len() {
        let run = info[0];
        let base = o as u32 * run;
        let mut acc = N::from_int(0);
        if run > 0u32 {
            acc = x[place(info, 1, base) as usize];
        }
        let mut j = 1u32;
        while j < run {
            acc = combine::<N>(kind, acc, x[place(info, 1, base + j) as usize]);
            j += 1u32;
        }
        out[o] = acc;
    }
}

/// As [`short_kernel`] with one workgroup per run: strided partial results, then a tree of them.
#[cube(launch)]
fn long_kernel<N: Numeric>(x: &[N], info: &[u32], out: &mut [N], #[comptime] kind: Reduce) {
    let mut shared = Shared::<[N]>::new_slice(LANES);
    let run = info[0];
    // Surplus workgroups repeat the last run and write nothing; all of a group must reach every barrier.
    let o = select(CUBE_POS < out.len(), CUBE_POS, out.len() - 1);
    let base = o as u32 * run;
    let mut acc = start::<N>(kind, x[place(info, 1, base) as usize]);
    let mut j = UNIT_POS;
    while j < run {
        acc = combine::<N>(kind, acc, x[place(info, 1, base + j) as usize]);
        j += UNITS;
    }
    shared[UNIT_POS as usize] = acc;
    sync_cube();
    // Not a constant: a kernel's variable that starts as one cannot change.
    let mut step = CUBE_DIM / 2;
    while step > 0u32 {
        if UNIT_POS < step {
            let other = shared[(UNIT_POS + step) as usize];
            let mine = shared[UNIT_POS as usize];
            shared[UNIT_POS as usize] = combine::<N>(kind, mine, other);
        }
        sync_cube();
        step /= 2u32;
    }
    if UNIT_POS == 0u32 && CUBE_POS < out.len() {
        out[CUBE_POS] = shared[0];
    }
}

/// Index of the first extreme element (NaN wins) of each run.
#[cube(launch)]
fn arg_kernel<N: Numeric>(x: &[N], info: &[u32], out: &mut [u32], #[comptime] kind: Reduce) {
    let o = ABSOLUTE_POS;
    if o < out.len() {
        let run = info[0];
        let base = o as u32 * run;
        let mut best = x[place(info, 1, base) as usize];
        let mut found = 0u32;
        let mut j = 1u32;
        while j < run {
            let v = x[place(info, 1, base + j) as usize];
            let better = match kind {
                Reduce::Min => v < best,
                _ => v > best,
            };
            if best == best && (better || !(v == v)) {
                best = v;
                found = j;
            }
            j += 1u32;
        }
        out[o] = found;
    }
}

fn missing(op: &'static str, dtype: DType) -> Error {
    Error::Unsupported { op, dtype, device: "gpu".into() }
}

/// Reduces runs of `run` elements; `layout` has the reduced dimensions last.
pub(super) fn reduce(
    kind: Reduce,
    op: &'static str,
    dtype: DType,
    x: &GpuStorage,
    layout: &Layout,
    run: usize,
    results: usize,
) -> Result<GpuStorage> {
    let gpu = x.device();
    let out = GpuStorage::scratch(gpu, op, results)?;
    let info = Info::new().number(run).layout(layout).upload(gpu)?;
    type Launch = fn(&Client, CubeCount, CubeDim, [BufferArg; 3], Reduce);
    let (short, long): (Launch, Launch) = match dtype {
        DType::F32 => (
            |c, g, d, [x, i, o], k| short_kernel::launch::<f32>(c, g, d, x, i, o, k),
            |c, g, d, [x, i, o], k| long_kernel::launch::<f32>(c, g, d, x, i, o, k),
        ),
        DType::I32 => (
            |c, g, d, [x, i, o], k| short_kernel::launch::<i32>(c, g, d, x, i, o, k),
            |c, g, d, [x, i, o], k| long_kernel::launch::<i32>(c, g, d, x, i, o, k),
        ),
        DType::U32 => (
            |c, g, d, [x, i, o], k| short_kernel::launch::<u32>(c, g, d, x, i, o, k),
            |c, g, d, [x, i, o], k| long_kernel::launch::<u32>(c, g, d, x, i, o, k),
        ),
        _ => return Err(missing(op, dtype)),
    };
    let args = || [x.arg(), info.arg(), out.arg()];
    if run < SHORT {
        gpu.run(op, results, |client, grid, dim| short(client, grid, dim, args(), kind))?;
    } else {
        let dim = CubeDim::new_1d(UNITS);
        gpu.run_groups(op, results, dim, |client, grid, dim| long(client, grid, dim, args(), kind))?;
    }
    Ok(out)
}

/// Index of the extreme of runs of `run` elements, at least one; `layout` has the reduced dimension last.
pub(super) fn arg_extreme(
    kind: Reduce,
    op: &'static str,
    dtype: DType,
    x: &GpuStorage,
    layout: &Layout,
    run: usize,
) -> Result<GpuStorage> {
    let gpu = x.device();
    let results = layout.count() / run;
    let out = GpuStorage::scratch(gpu, op, results)?;
    let info = Info::new().number(run).layout(layout).upload(gpu)?;
    let launch: fn(&Client, CubeCount, CubeDim, [BufferArg; 3], Reduce) = match dtype {
        DType::F32 => |c, g, d, [x, i, o], k| arg_kernel::launch::<f32>(c, g, d, x, i, o, k),
        DType::I32 => |c, g, d, [x, i, o], k| arg_kernel::launch::<i32>(c, g, d, x, i, o, k),
        DType::U32 | DType::U8 => |c, g, d, [x, i, o], k| arg_kernel::launch::<u32>(c, g, d, x, i, o, k),
        _ => return Err(missing(op, dtype)),
    };
    gpu.run(op, results, |client, grid, dim| launch(client, grid, dim, [x.arg(), info.arg(), out.arg()], kind))?;
    Ok(out)
}
