//! CPU kernels over slices, instruction set chosen at run time.
//!
//! Nothing here knows what a tensor is: shapes and strides come as numbers, data as slices, and parallelism goes through
//! [`pool`]. A function panics when a slice is too short for the shape it is called with.

pub mod isa;
pub mod pool;
mod simd;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
