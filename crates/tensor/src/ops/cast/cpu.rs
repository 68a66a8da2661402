use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::dtype::with_element;
use crate::ops::common::{build_as, map, map_runs};
use crate::storage::CpuStorage;
use crate::{DType, Element, Layout, Result, Tensor};

/// How a value of one element type becomes one of another.
trait Cast<To>: Element {
    fn cast(self) -> To;
}

macro_rules! cast {
    ($from:ty => $($to:ty: $f:expr),*) => {$(
        impl Cast<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to { ($f)(self) }
        }
    )*};
}
cast!(f64 => f64: |x| x, f32: |x| x as f32, f16: f16::from_f64, bf16: bf16::from_f64,
    i64: |x| x as i64, i32: |x| x as i32, u32: |x| x as u32, u8: |x| x as u8);
cast!(f32 => f64: |x| x as f64, f32: |x| x, f16: f16::from_f32, bf16: bf16::from_f32,
    i64: |x| x as i64, i32: |x| x as i32, u32: |x| x as u32, u8: |x| x as u8);

macro_rules! from_half {
    ($($t:ty),*) => {$(
        cast!($t => f64: <$t>::to_f64, f32: <$t>::to_f32, f16: |x: $t| f16::from_f32(x.to_f32()),
            bf16: |x: $t| bf16::from_f32(x.to_f32()), i64: |x: $t| x.to_f32() as i64, i32: |x: $t| x.to_f32() as i32,
            u32: |x: $t| x.to_f32() as u32, u8: |x: $t| x.to_f32() as u8);
    )*};
}
from_half!(f16, bf16);

macro_rules! from_integer {
    ($($t:ty),*) => {$(
        cast!($t => f64: |x| x as f64, f32: |x| x as f32, f16: |x| f16::from_f64(x as f64),
            bf16: |x| bf16::from_f64(x as f64), i64: |x| x as i64,
            i32: |x| (x as i64).clamp(i32::MIN as i64, i32::MAX as i64) as i32,
            u32: |x| (x as i64).clamp(0, u32::MAX as i64) as u32,
            u8: |x| (x as i64).clamp(0, u8::MAX as i64) as u8);
    )*};
}
from_integer!(i64, i32, u32, u8);

pub(super) fn cast(source: &CpuStorage, layout: &Layout, from: DType, to: DType) -> Result<Tensor> {
    match (from, to) {
        (_, DType::Bool) => with_element!(from, A => {
            let zero = A::from_f64(0.0);
            build_as::<u8>(layout.dims(), to, |out| {
                map(source.slice::<A>(), layout, out, |x| (x != zero) as u8);
                Ok(())
            })
        }),
        // The processor's own conversion, where it has one.
        (DType::F16, DType::F32) => Tensor::build::<f32>(layout.dims(), |out| {
            map_runs(source.slice::<f16>(), layout, out, &|src, dst| src.convert_to_f32_slice(dst));
            Ok(())
        }),
        (DType::F32, DType::F16) => Tensor::build::<f16>(layout.dims(), |out| {
            map_runs(source.slice::<f32>(), layout, out, &|src, dst| dst.convert_from_f32_slice(src));
            Ok(())
        }),
        _ => with_element!(from, A => with_element!(to, O => Tensor::build::<O>(layout.dims(), |out| {
            map(source.slice::<A>(), layout, out, <A as Cast<O>>::cast);
            Ok(())
        }))),
    }
}
