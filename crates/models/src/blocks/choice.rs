use super::{BlockConfig, BlockRow, Keys, Reader, write_recurrent};
use crate::config::LONGEST;
use crate::fields::Key;

/// Blocks of which each layer has one.
#[derive(Copy, Clone)]
pub struct Choice {
    /// Which of them each of the reader's layers has, by its number in `of`.
    pub(crate) pick: fn(&Reader) -> Vec<usize>,
    /// The blocks, each of another kind.
    pub of: &'static [BlockRow],
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Choice").field(&self.of).finish()
    }
}

impl Choice {
    /// Only the fields of blocks that some layer has are read.
    pub(super) fn read(&self, r: &Reader) -> Vec<BlockConfig> {
        let picked = (self.pick)(r);
        let mut all: Vec<Option<BlockConfig>> = vec![None; r.layers.len()];
        for (i, row) in self.of.iter().enumerate() {
            let at: Vec<usize> = (0..picked.len()).filter(|&n| picked[n] == i).collect();
            let layers: Vec<usize> = at.iter().map(|&n| r.layers[n]).collect();
            if layers.is_empty() {
                continue;
            }
            let configs = row.read(&Reader { layers: &layers, ..*r });
            at.into_iter().zip(configs).for_each(|(n, config)| all[n] = Some(config));
        }
        all.into_iter().flatten().collect()
    }
}

impl Choice {
    /// Where all layers have another block, metadata has to say so too.
    pub(super) fn write_absent(&self, layers: &[(usize, &BlockConfig)], keys: &mut Keys) {
        let attends = |row: &BlockRow| matches!(row, BlockRow::Attention(_) | BlockRow::Mla(_));
        if self.of.iter().any(attends) && !keys.has("attention.head_count_kv") {
            keys.set("attention.head_count_kv", 0u32);
        }
        let recurrent = |row: &BlockRow| matches!(row, BlockRow::DeltaNet(_) | BlockRow::Lightning(_));
        let block = |c: &BlockConfig| matches!(c, BlockConfig::DeltaNet(_) | BlockConfig::Lightning(_));
        if self.of.iter().any(recurrent) && !layers.iter().any(|(_, c)| block(c)) {
            write_recurrent(std::iter::empty(), keys);
        }
    }
}

/// For GGUF files: 1 where the layer has key heads, 0 where it has none.
pub(crate) fn by_kv_heads(r: &Reader) -> Vec<usize> {
    let key = Key::new(&["attention.head_count_kv"], &[]);
    let heads = r.f.per_layer(&key, None, 0, 1 << 14, r.shared.layers);
    r.pick(&heads.iter().map(|&heads| usize::from(heads > 0)).collect::<Vec<_>>())
}

/// For `config.json`: by a list of strings, one for each layer, the number beside the string that matches.
pub(crate) fn by_types(r: &Reader, key: &Key, names: &[(&str, usize)]) -> Vec<usize> {
    let layers = r.shared.layers;
    let types = r.f.texts(key).unwrap_or_default();
    if types.len() != layers {
        r.f.problem(r.f.name(key), format!("{} entries for {layers} layers", types.len()));
        return vec![0; r.layers.len()];
    }
    let number = |&layer: &usize| {
        let found = names.iter().find(|(name, _)| *name == types[layer]);
        found.map(|f| f.1).unwrap_or_else(|| {
            let known: Vec<&str> = names.iter().map(|n| n.0).collect();
            r.f.problem(r.f.name(key), format!("{:?} is none of {}", types[layer], known.join(", ")));
            0
        })
    };
    r.layers.iter().map(number).collect()
}

const RECURRENT: Key = Key::new(&["attention.recurrent_layers"], &[]);
const LAYER_TYPES: Key = Key::new(&[], &["layer_types"]);
const INTERVAL: Key = Key::new(&["full_attention_interval"], &["full_attention_interval"]);

/// 0 for layers with attention, 1 for recurrent ones: by a list, or else all but each n-th are, where `usual` is the number
/// that files leave out.
pub(crate) fn by_interval(r: &Reader, usual: usize) -> Vec<usize> {
    if let Some(flags) = r.f.flags(&RECURRENT, r.shared.layers) {
        return r.pick(&flags.into_iter().map(usize::from).collect::<Vec<_>>());
    }
    if r.f.texts(&LAYER_TYPES).is_some() {
        return by_types(r, &LAYER_TYPES, &[("full_attention", 0), ("linear_attention", 1)]);
    }
    let interval = r.f.size(&INTERVAL, Some(usual), LONGEST);
    r.layers.iter().map(|layer| usize::from(!(layer + 1).is_multiple_of(interval))).collect()
}
