//! The engine as a plain WebAssembly module: no imports, and exports with numbers only, so that any host can call it.
//!
//! A host asks [`alloc`] for room, writes the bytes of a GGUF file and of a prompt there, calls [`generate`], and reads
//! the answer at [`text_ptr`] and [`text_len`]. The answer is the text or what went wrong; where the module traps, it is
//! the message of the panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use imaginal_files::Bytes;
use imaginal_generate::{GenerateOptions, SamplerOptions, Session, encode_prompt};
use imaginal_models::Loaded;
use imaginal_tensor::Device;

/// Buffers that the host has been given and that [`generate`] has not taken back.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The last answer.
static TEXT: Mutex<String> = Mutex::new(String::new());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for `len` bytes of the host; [`generate`] takes it back. Zero where memory is short.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> usize {
    let mut buffer = Vec::new();
    // An empty buffer has no address of its own to be found by.
    if buffer.try_reserve_exact(len.max(1)).is_err() {
        return 0;
    }
    buffer.resize(len, 0);
    let address = buffer.as_mut_ptr().expose_provenance();
    lock(&BUFFERS).push(buffer);
    address
}

/// The buffer that [`alloc`] has given out at this address, found by it, so that a wrong number is an error and not a
/// read of other memory.
fn take(address: usize, len: usize) -> Result<Vec<u8>, String> {
    let mut buffers = lock(&BUFFERS);
    let at = buffers.iter().position(|b| b.as_ptr().addr() == address && b.len() == len);
    at.map(|at| buffers.swap_remove(at)).ok_or_else(|| format!("alloc gave no buffer of {len} bytes at {address}"))
}

fn text(model: Vec<u8>, prompt: Vec<u8>, max_tokens: usize) -> Result<String, Box<dyn std::error::Error>> {
    let prompt = String::from_utf8(prompt).map_err(|e| format!("the prompt is not UTF-8: {e}"))?;
    let Loaded { model, tokenizer, .. } = Loaded::from_gguf_bytes("model", Bytes::from(model), &Device::Cpu)?;
    let tokenizer = tokenizer.ok_or("the model has no tokenizer; give one whose GGUF file holds it")?;
    let ids = encode_prompt(&tokenizer, &prompt)?;
    let sampler = SamplerOptions::greedy();
    let options = GenerateOptions { max_tokens: Some(max_tokens), sampler, ..GenerateOptions::default() };
    Ok(Session::new(&model)?.generate(&ids, Some(&tokenizer), options)?.0)
}

/// Takes a GGUF file and a prompt, both in buffers of [`alloc`], and generates at most `max_tokens` tokens, always the
/// most probable one. Returns 0 and leaves the text, or 1 and leaves what went wrong.
#[unsafe(no_mangle)]
pub extern "C" fn generate(model: usize, model_len: usize, prompt: usize, prompt_len: usize, max_tokens: usize) -> u32 {
    std::panic::set_hook(Box::new(|panic| *lock(&TEXT) = panic.to_string()));
    let answer = take(model, model_len).and_then(|model| {
        let prompt = take(prompt, prompt_len)?;
        text(model, prompt, max_tokens).map_err(|e| e.to_string())
    });
    let failed = answer.is_err();
    *lock(&TEXT) = answer.unwrap_or_else(|e| e);
    u32::from(failed)
}

/// Where the last answer begins. It stays there until the next call of [`generate`].
#[unsafe(no_mangle)]
pub extern "C" fn text_ptr() -> usize {
    lock(&TEXT).as_ptr().expose_provenance()
}

/// How many bytes of UTF-8 the last answer has.
#[unsafe(no_mangle)]
pub extern "C" fn text_len() -> usize {
    lock(&TEXT).len()
}
