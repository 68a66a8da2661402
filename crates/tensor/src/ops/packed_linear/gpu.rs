use cubecl::prelude::*;
use imaginal_numeric::Format;

use crate::gpu::{GpuDevice, GpuStorage, Info, storage};
use crate::{DType, Error, Packed, Result, Shape, Tensor};

/// The block layouts that the kernel knows.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
enum Kind {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
}

impl Kind {
    fn of(format: Format) -> Option<Kind> {
        Some(match format {
            Format::F32 => Kind::F32,
            Format::F16 => Kind::F16,
            Format::BF16 => Kind::BF16,
            Format::Q8_0 => Kind::Q8_0,
            Format::Q4_0 => Kind::Q4_0,
            _ => return None,
        })
    }
}

/// Byte number `at`.
#[cube]
fn byte(words: &[u32], at: u32) -> u32 {
    (words[(at / 4) as usize] >> (at % 4 * 8)) & 0xff
}

/// The two bytes at the even address `at`.
#[cube]
fn half_word(words: &[u32], at: u32) -> u32 {
    (words[(at / 4) as usize] >> (at % 4 * 8)) & 0xffff
}

/// The value of an IEEE half given by its bits. By integers, because a device may flush subnormal floats to zero.
#[cube]
fn half_value(h: u32) -> f32 {
    let (exponent, mantissa) = ((h >> 10) & 31, h & 0x3ff);
    let sign = (h >> 15) << 31;
    let rebased = select(exponent == 31, 255u32, exponent + 112);
    let normal = f32::reinterpret(sign | (rebased << 23) | (mantissa << 13));
    let small = f32::cast_from(mantissa) * 5.960_464_5e-8;
    select(exponent == 0, select(sign == 0, small, -small), normal)
}

#[cube]
fn element(words: &[u32], row: u32, col: u32, #[comptime] kind: Kind) -> f32 {
    match kind {
        Kind::F32 => f32::reinterpret(words[(row / 4 + col) as usize]),
        Kind::F16 => half_value(half_word(words, row + col * 2)),
        Kind::BF16 => f32::reinterpret(half_word(words, row + col * 2) << 16),
        Kind::Q8_0 => {
            let block = row + col / 32 * 34;
            let q = byte(words, block + 2 + col % 32);
            // Sign extension of eight bits.
            half_value(half_word(words, block)) * (f32::cast_from(q ^ 0x80) - 128.0)
        }
        Kind::Q4_0 => {
            let block = row + col / 32 * 18;
            let i = col % 32;
            let q = (byte(words, block + 2 + i % 16) >> (i / 16 * 4)) & 15;
            half_value(half_word(words, block)) * (f32::cast_from(q) - 8.0)
        }
    }
}

/// `info`: columns, bytes of a row, whether `ids` name the rows (else they are all rows in order).
#[cube(launch)]
fn unpack_kernel(words: &[u32], ids: &[u32], info: &[u32], out: &mut [f32], #[comptime] kind: Kind) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let cols = info[0];
        let mut row = i as u32 / cols;
        if info[2] != 0 {
            row = ids[row as usize];
        }
        out[i] = element(words, row * info[1], i as u32 % cols, kind);
    }
}

/// Packed weights on a device, bytes as in the file.
pub(crate) fn upload(gpu: &GpuDevice, w: &Packed) -> Result<GpuStorage> {
    if Kind::of(w.format()).is_none() {
        let what = format!("no kernel unpacks {}; convert the model to f16, bf16, q8_0 or q4_0", w.format().name());
        return Err(Error::Device { device: "gpu".into(), what });
    }
    GpuStorage::from_bytes(gpu, w.bytes())
}

/// Packed weights as `f32` in this shape: the rows that `ids` (checked) name, or all of them.
pub(super) fn unpack(
    op: &'static str,
    w: &Packed,
    words: &GpuStorage,
    ids: Option<&Tensor>,
    shape: Shape,
) -> Result<Tensor> {
    let gpu = words.device();
    let Some(kind) = Kind::of(w.format()) else {
        return Err(Error::argument(op, format!("no gpu kernel unpacks {}", w.format().name())));
    };
    // The kernel reads the ids without a layout.
    let ids = ids.map(Tensor::deep_copy).transpose()?;
    let n = shape.dims().iter().product();
    let row_bytes = if w.rows() == 0 { 0 } else { w.bytes().len() / w.rows() };
    let out = GpuStorage::scratch(gpu, op, n)?;
    let info = Info::new().number(w.cols()).number(row_bytes).number(ids.is_some().into()).upload(gpu)?;
    let list = match &ids {
        Some(ids) => storage(op, ids)?,
        None => &info,
    };
    gpu.run(op, n, |client, grid, dim| {
        unpack_kernel::launch(client, grid, dim, words.arg(), list.arg(), info.arg(), out.arg(), kind)
    })?;
    Ok(Tensor::from_gpu(out, shape, DType::F32))
}
