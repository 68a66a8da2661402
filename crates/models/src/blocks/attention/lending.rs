use imaginal_nn::AttentionConfig;

use super::{AttentionRow, Fused, KV_HEADS};
use crate::blocks::Reader;

/// Layers with the keys and values of others.
impl AttentionRow {
    /// The layer whose keys and values each of the reader's layers has, if they are not its own.
    pub(super) fn lenders(&self, r: &Reader, windowed: &[bool], kv_heads: &[usize]) -> Vec<Option<usize>> {
        let (f, n) = (r.f, r.layers.len());
        let Some(key) = self.shared else { return vec![None; n] };
        let count = f.size_from(&key, None, 0, r.shared.layers - 1);
        let own = r.layers.iter().filter(|&&layer| layer < r.shared.layers - count).count();
        let lender = |i: usize| {
            let found = (0..own).rev().find(|&at| windowed[at] == windowed[i]);
            match found {
                Some(at) if kv_heads[at] == kv_heads[i] => return Some(r.layers[at]),
                Some(at) => f.conflict(f.name(&KV_HEADS), format!("layers {at} and {i} share keys, but differ in it")),
                None => f.conflict(f.name(&key), format!("no layer of the kind of layer {i} has keys and values")),
            }
            None
        };
        (0..n).map(|i| if i < own { None } else { lender(i) }).collect()
    }

    /// Beginnings of the names, within a layer, of tensors that a Hugging Face checkpoint holds for keys and values that are
    /// another layer's.
    pub(crate) fn unused(&self, c: &AttentionConfig) -> Vec<String> {
        match (c.shared, self.fused) {
            (Some(_), Fused::Split([_, k, v])) => {
                let norm = self.qk_norm.map(|n| n.hf[1]);
                [Some(k), Some(v), norm].into_iter().flatten().map(|name| format!("{}.{name}.", self.hf)).collect()
            }
            _ => Vec::new(),
        }
    }
}
