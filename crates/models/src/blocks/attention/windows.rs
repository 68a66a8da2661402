use imaginal_tensor::LONGEST_CHUNK;

use super::{
    AttentionRow, CHUNK, CHUNK_SIZE, LAYER_TYPES, MODEL_TYPE, PATTERN, USE_WINDOW, WINDOW, WINDOW_LAYERS, Window,
};
use crate::blocks::Reader;
use crate::config::LONGEST;

/// What limits what a query sees in each layer.
impl AttentionRow {
    /// The chunk of each of the reader's layers, given which turn queries and keys.
    pub(super) fn chunks(&self, r: &Reader, turned: &[bool]) -> Vec<Option<usize>> {
        let f = r.f;
        if !matches!(self.window, Window::Chunked) {
            return vec![None; turned.len()];
        }
        let size = f.size(&CHUNK, Some(CHUNK_SIZE), LONGEST_CHUNK);
        let chunked = match f.texts(&LAYER_TYPES) {
            Some(types) if types.len() == r.shared.layers => {
                r.layers.iter().map(|&i| types[i] == "chunked_attention").collect()
            }
            Some(types) => {
                f.problem("layer_types", format!("{} entries for {} layers", types.len(), r.shared.layers));
                turned.to_vec()
            }
            None => turned.to_vec(),
        };
        chunked.into_iter().map(|chunked| chunked.then_some(size)).collect()
    }

    /// The window of each of the reader's layers.
    pub(super) fn windows(&self, r: &Reader) -> Vec<Option<usize>> {
        let (f, layers) = (r.f, r.shared.layers);
        let size = || {
            let size = f.has(&WINDOW).then(|| f.size_from(&WINDOW, None, 0, LONGEST));
            size.filter(|&size| size > 0)
        };
        // A window that looks both ways has its size as a whole.
        let size = || size().map(|size| if self.causal { size } else { size / 2 + 1 });
        let pattern = |period: usize, full: usize| -> Vec<Option<usize>> {
            let window = size();
            (0..layers).map(|i| window.filter(|_| i % period != full)).collect()
        };
        let typed = || {
            let types = f.texts(&LAYER_TYPES)?;
            if types.len() != layers {
                f.problem("layer_types", format!("{} entries for {layers} layers", types.len()));
                return Some(vec![None; layers]);
            }
            let window = size();
            Some(types.iter().map(|t| window.filter(|_| t == "sliding_attention")).collect())
        };
        let all = match self.window {
            Window::Never | Window::Chunked => vec![None; layers],
            Window::Pattern { .. } if f.is_gguf() && f.flags(&PATTERN, layers).is_some() => {
                let (window, flags) = (size(), f.flags(&PATTERN, layers).unwrap_or_default());
                flags.into_iter().map(|sliding| window.filter(|_| sliding)).collect()
            }
            Window::Pattern { period, full } => typed().unwrap_or_else(|| match f.has(&PATTERN) {
                // EXAONE 4 spells it out: LLLG.
                true if f.text_of(&PATTERN).is_some() => {
                    let letters: Vec<char> = f.text_of(&PATTERN).unwrap_or_default().chars().collect();
                    let window = size();
                    let global = |i: usize| letters.get(i % letters.len().max(1)) == Some(&'G') || i + 1 == layers;
                    (0..layers).map(|i| window.filter(|_| !global(i))).collect()
                }
                true => {
                    let period = f.size(&PATTERN, None, 1 << 12);
                    // The full one is the first or the last.
                    pattern(period, if full == 0 { 0 } else { period - 1 })
                }
                false => pattern(period, full),
            }),
            _ if f.is_gguf() => vec![size(); layers],
            Window::Always => typed().unwrap_or_else(|| vec![size(); layers]),
            Window::Types(types) => {
                let window = types.iter().any(|t| f.is_text(&MODEL_TYPE, t)).then(size).flatten();
                vec![window; layers]
            }
            Window::IfUsed => vec![f.flag(&USE_WINDOW, false).then(size).flatten(); layers],
            Window::FromLayer | Window::Alternating if f.flag(&USE_WINDOW, false) => typed().unwrap_or_else(|| {
                let (window, border) = (size(), f.size_from(&WINDOW_LAYERS, Some(28), 0, LONGEST));
                let windowed = |i: usize| match self.window {
                    Window::Alternating => i < border && i.is_multiple_of(2),
                    _ => i >= border,
                };
                (0..layers).map(|i| window.filter(|_| windowed(i))).collect()
            }),
            Window::FromLayer | Window::Alternating => vec![None; layers],
        };
        r.pick(&all)
    }
}
