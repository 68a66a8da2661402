use half::{bf16, f16};

use super::Scalar;
use crate::ops::common::{Float, Real, map};
use crate::storage::CpuStorage;
use crate::{DType, Element, Error, Layout, Result, Tensor};

pub(super) fn run(kind: Scalar, dtype: DType, s: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    match dtype {
        DType::F64 => float::<f64>(kind, s, layout),
        DType::F32 => float::<f32>(kind, s, layout),
        DType::F16 => float::<f16>(kind, s, layout),
        DType::BF16 => float::<bf16>(kind, s, layout),
        DType::I64 => integer(kind, s, layout, i64::wrapping_add, i64::wrapping_mul),
        DType::I32 => integer(kind, s, layout, i32::wrapping_add, i32::wrapping_mul),
        DType::U32 => integer(kind, s, layout, u32::wrapping_add, u32::wrapping_mul),
        DType::U8 | DType::Bool => integer(kind, s, layout, u8::wrapping_add, u8::wrapping_mul),
    }
}

fn float<T: Float>(kind: Scalar, s: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    let source = s.slice::<T>();
    let wide = T::Wide::of;
    Tensor::build::<T>(layout.dims(), |out| {
        match kind {
            Scalar::Add(c) => map(source, layout, out, |x: T| T::round(x.widen() + wide(c))),
            Scalar::Mul(c) => map(source, layout, out, |x: T| T::round(x.widen() * wide(c))),
            Scalar::Clamp(low, high) => {
                let (low, high) = (T::round(wide(low)), T::round(wide(high)));
                map(source, layout, out, |x: T| bounded(x, low, high));
            }
            Scalar::Powf(2.0) => map(source, layout, out, |x: T| T::round(x.widen() * x.widen())),
            Scalar::Powf(e) => map(source, layout, out, |x: T| T::round(x.widen().powf(wide(e)))),
        }
        Ok(())
    })
}

fn integer<T: Element>(
    kind: Scalar,
    s: &CpuStorage,
    layout: &Layout,
    add: fn(T, T) -> T,
    mul: fn(T, T) -> T,
) -> Result<Tensor> {
    let source = s.slice::<T>();
    let exact = |c: f64| {
        let t = T::from_f64(c);
        // The largest 64-bit integers round up to a double that they are not equal to; 2^63 itself is out of range.
        if t.to_f64() == c && c.abs() < 2f64.powi(63) {
            Ok(t)
        } else {
            Err(Error::argument(kind.name(), format!("{c} is no value of {}; cast the tensor to a float", T::DTYPE)))
        }
    };
    Tensor::build::<T>(layout.dims(), |out| {
        match kind {
            Scalar::Add(c) => {
                let c = exact(c)?;
                map(source, layout, out, |x: T| add(x, c));
            }
            Scalar::Mul(c) => {
                let c = exact(c)?;
                map(source, layout, out, |x: T| mul(x, c));
            }
            // Ends between integers move inwards, ends beyond the type's range to the end of that.
            Scalar::Clamp(low, high) => {
                if low.ceil() > high.floor() {
                    return Err(Error::argument(kind.name(), format!("no integer lies in {low} ..= {high}")));
                }
                let (low, high) = (T::from_f64(low.ceil()), T::from_f64(high.floor()));
                map(source, layout, out, |x: T| bounded(x, low, high));
            }
            Scalar::Powf(_) => return Err(crate::ops::common::not_a_float(kind.name(), T::DTYPE)),
        }
        Ok(())
    })
}

#[inline(always)]
fn bounded<T: PartialOrd>(x: T, low: T, high: T) -> T {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}
