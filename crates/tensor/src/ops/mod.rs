//! The operations, a folder each: `mod.rs` (interface, shapes, errors, paper; for a fused operation its reference form
//! composed of primitives), `cpu.rs`, `gpu.rs`, `grad.rs` and `tests.rs`. Adding one touches nothing but the list below.

pub(crate) mod affine;
pub(crate) mod binary;
pub(crate) mod cast;
pub(crate) mod common;
pub(crate) mod compare;
pub(crate) mod reduce;
pub(crate) mod select;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod unary;
pub(crate) mod view;
