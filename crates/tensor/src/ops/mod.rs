//! The operations, a folder each: `mod.rs` (interface, shapes, errors, paper; for a fused operation its reference form
//! composed of primitives), `cpu.rs`, `gpu.rs`, `grad.rs` and `tests.rs`. Adding one touches nothing but the list below.

pub(crate) mod adamw;
pub(crate) mod affine;
pub(crate) mod attention;
pub(crate) mod binary;
pub(crate) mod cast;
pub(crate) mod causal_conv1d;
pub(crate) mod chunks;
pub(crate) mod common;
pub(crate) mod compare;
pub(crate) mod concat;
pub(crate) mod cross_entropy;
pub(crate) mod cumsum;
pub(crate) mod grouped_linear;
pub(crate) mod index;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod linear_attention;
pub(crate) mod matmul;
pub(crate) mod mlstm;
pub(crate) mod packed_linear;
pub(crate) mod random;
pub(crate) mod reduce;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod select;
pub(crate) mod selective_scan;
pub(crate) mod slstm;
pub(crate) mod softmax;
pub(crate) mod sort;
pub(crate) mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod trapezoid_scan;
pub(crate) mod unary;
pub(crate) mod view;
pub(crate) mod weighted_sum;
pub(crate) mod wkv;
