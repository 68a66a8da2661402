//! CPU kernels over slices, instruction set chosen at run time.
