//! Eager tensors with run-time device and dtype, and gradients.
