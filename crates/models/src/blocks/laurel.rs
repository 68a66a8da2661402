use imaginal_nn::{LaurelConfig, NormKind};

use super::Reader;
use crate::config::WIDTH;
use crate::fields::Key;
use crate::tensors::Specs;

const RANK: Key = Key::new(&[], &["laurel_rank"]);
/// Where no field says.
const USUAL_RANK: usize = 64;

pub(super) fn read(r: &Reader) -> LaurelConfig {
    let hidden = r.shared.hidden;
    // No field of a GGUF file says it.
    let rows = |layer: &usize| Some(r.tensors.floats(&format!("blk.{layer}.laurel_l.weight"))?.len() / hidden.max(1));
    let rank = match r.layers.first().filter(|_| r.f.is_gguf()).and_then(rows) {
        Some(rank) => rank.max(1),
        None => r.f.size(&RANK, Some(USUAL_RANK), WIDTH),
    };
    LaurelConfig { hidden, rank, eps: r.shared.eps }
}

pub(super) fn tensors(c: &LaurelConfig, specs: &mut Specs) {
    specs.linear("laurel_l", "laurel.linear_left", [c.rank, c.hidden], false, None);
    specs.linear("laurel_r", "laurel.linear_right", [c.hidden, c.rank], false, None);
    specs.norm("laurel_post_norm", &["laurel.post_laurel_norm"], &[c.hidden], NormKind::Rms);
}
