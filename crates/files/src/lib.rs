//! GGUF, safetensors and tokenizers, read as untrusted input.
