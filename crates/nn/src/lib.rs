//! Layers, weights in any format, parameters by name, state.
