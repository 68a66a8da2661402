use super::Compare;
use crate::dtype::with_element;
use crate::ops::binary::cpu::map2;
use crate::ops::common::build_as;
use crate::storage::CpuStorage;
use crate::{DType, Layout, Result, Tensor};

pub(super) fn compare(
    kind: Compare,
    dtype: DType,
    a: &CpuStorage,
    la: &Layout,
    b: &CpuStorage,
    lb: &Layout,
) -> Result<Tensor> {
    build_as::<u8>(la.dims(), DType::Bool, |out| {
        with_element!(dtype, T => {
            let (a, b) = (a.slice::<T>(), b.slice::<T>());
            match kind {
                Compare::Eq => map2(a, la, b, lb, out, |x: T, y: T| (x == y) as u8),
                Compare::Ne => map2(a, la, b, lb, out, |x: T, y: T| (x != y) as u8),
                Compare::Lt => map2(a, la, b, lb, out, |x: T, y: T| (x < y) as u8),
                Compare::Le => map2(a, la, b, lb, out, |x: T, y: T| (x <= y) as u8),
                Compare::Gt => map2(a, la, b, lb, out, |x: T, y: T| (x > y) as u8),
                Compare::Ge => map2(a, la, b, lb, out, |x: T, y: T| (x >= y) as u8),
            }
        });
        Ok(())
    })
}
