use imaginal_numeric::Format;

use crate::{Param, Weight};

/// One of a layer's tensors.
#[derive(Debug)]
pub enum Slot<'a> {
    /// A matrix that may be packed.
    Weight(&'a Weight),
    /// A float tensor of any rank: norms, biases, convolution kernels, state matrices.
    Param(&'a Param),
}

impl Slot<'_> {
    /// The number format that it is held in.
    pub fn format(&self) -> Format {
        match self {
            Slot::Param(_) => Format::F32,
            Slot::Weight(w) => w.format(),
        }
    }

    /// Bytes it takes, as it is held now.
    pub fn bytes(&self) -> usize {
        match self {
            Slot::Param(p) => 4 * p.get().elem_count(),
            Slot::Weight(w) => {
                let packed = w.packed().map_or(0, |p| p.bytes().len());
                packed + w.master().map_or(0, |_| 4 * w.rows() * w.cols())
            }
        }
    }
}

/// Something made of parameters, each of which has a name.
///
/// Names are those of GGUF tensors (`blk.0.attn_q.weight`), whatever file the values came from.
pub trait Module {
    /// Calls `visit` with every tensor, always in the same order. A tensor that is used twice is visited once.
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>));

    /// Calls `visit` with every float parameter: all but the weights that exist in packed form only.
    fn params(&self, prefix: &str, visit: &mut dyn FnMut(String, &Param)) {
        self.slots(prefix, &mut |name, slot| match slot {
            Slot::Param(p) => visit(name, p),
            Slot::Weight(w) => {
                if let Some(master) = w.master() {
                    visit(name, &master);
                }
            }
        });
    }
}

/// `prefix.name`, or `name` alone under an empty prefix.
pub fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}
