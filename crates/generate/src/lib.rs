//! Sampling, sessions and streaming text.
