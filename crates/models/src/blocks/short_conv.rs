use imaginal_nn::ShortConvConfig;

use super::mamba::MOST;
use super::{Keys, Reader};
use crate::fields::Key;
use crate::tensors::{Specs, Stored};

/// What an architecture fixes of its gated short convolution.
#[derive(Copy, Clone, Debug)]
pub struct ShortConvRow {
    /// Where its tensors are within a layer of a Hugging Face checkpoint: `conv`.
    pub hf: &'static str,
}

const KERNEL: Key = Key::new(&["shortconv.l_cache"], &["conv_L_cache"]);
const BIAS: Key = Key::new(&[], &["conv_bias"]);

impl ShortConvRow {
    pub(super) fn read(&self, r: &Reader) -> ShortConvConfig {
        let conv = r.f.size(&KERNEL, None, MOST);
        ShortConvConfig { hidden: r.shared.hidden, conv, bias: r.f.flag(&BIAS, false) }
    }

    pub(super) fn tensors(&self, c: &ShortConvConfig, specs: &mut Specs) {
        let (name, n) = (|what: &str| format!("{}.{what}", self.hf), c.hidden);
        let conv = Stored::whole(name("conv.weight"), &[n, 1, c.conv]);
        specs.add_stored("shortconv.conv.weight", vec![conv], &[n, c.conv], false);
        specs.linear("shortconv.in_proj", &name("in_proj"), [3 * n, n], false, None);
        specs.linear("shortconv.out_proj", &name("out_proj"), [n, n], false, None);
        // The format knows no biases here.
        for (what, width) in [("in_proj", 3 * n), ("conv", n), ("out_proj", n)].into_iter().filter(|_| c.bias) {
            specs.add(&format!("shortconv.{what}.bias"), &[&name(&format!("{what}.bias"))], &[width], false);
            specs.without_gguf();
        }
    }

    pub(super) fn write(&self, layers: &[(usize, &ShortConvConfig)], keys: &mut Keys) -> Result<(), String> {
        let Some((_, c)) = layers.first() else { return Ok(()) };
        keys.set("shortconv.l_cache", c.conv as u32);
        match c.bias {
            true => Err("biases of short convolutions have no place in a GGUF file".into()),
            false => Ok(()),
        }
    }
}
