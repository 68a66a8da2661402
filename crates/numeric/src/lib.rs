//! Number formats: encode, decode, pack.
