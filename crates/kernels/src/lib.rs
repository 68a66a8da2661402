//! CPU kernels over slices, instruction set chosen at run time.
//!
//! Nothing here knows what a tensor is: shapes and strides come as numbers, data as slices, and parallelism goes through
//! [`pool`]. A function panics when a slice is too short for the shape it is called with.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod bytes;
pub mod gemm;
pub mod grouped;
pub mod isa;
pub mod memory;
pub mod packed;
pub mod pool;
mod scratch;
mod simd;
#[cfg(target_arch = "aarch64")]
mod simd_aarch64;
#[cfg(target_arch = "x86_64")]
mod simd_x86;
#[cfg(test)]
mod testing;
#[cfg(target_arch = "x86_64")]
mod unpack;
pub mod vecmath;

pub use gemm::{MatRef, MatRef64, gemm, gemm_batch, gemm_f64};
pub use packed::{PackedProduct, matmul_packed, matmul_packed_all};
pub mod attention;
pub mod conv;
pub mod embedding;
pub mod linear_attention;
pub mod loss;
pub mod norm;
pub mod optim;
pub mod rope;
pub mod scan;
pub mod slstm;
pub mod softmax;
pub mod wkv;
