use crate::{Param, Weight};

/// One of a layer's tensors.
#[derive(Debug)]
pub enum Slot<'a> {
    /// A matrix that may be packed.
    Weight(&'a Weight),
    /// A float tensor of any rank: norms, biases, convolution kernels, state matrices.
    Param(&'a Param),
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
