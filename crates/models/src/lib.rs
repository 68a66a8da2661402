//! The table of architectures and the one decoder.
