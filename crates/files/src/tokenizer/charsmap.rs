//! SentencePiece's table of normalised characters, checked before the tokenizers library gets it.
//!
//! The bytes are the length of a double-array trie (little-endian `u32`), the trie's units (`u32` each: a label, an
//! offset that is XORed with the place, and a flag for a value), and texts that values point to, ended by zeros. See
//! `sentencepiece/src/normalizer.h` and darts-clone. The library follows offsets without looking.

/// Real tables have some 300,000 bytes.
const MOST_BYTES: usize = 4 << 20;

/// Why a table would lead the library out of its bounds; `None` where it does not.
pub(super) fn problem(bytes: &[u8]) -> Option<&'static str> {
    if bytes.len() > MOST_BYTES {
        return Some("the table is larger than 4 MiB");
    }
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else { return Some("the table has no length") };
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) || size == 0 || size > rest.len() {
        return Some("the length of the trie is wrong");
    }
    let (trie, texts) = rest.split_at(size);
    let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let Ok(texts) = std::str::from_utf8(texts) else { return Some("the texts are not UTF-8") };

    // Every state that some text can reach; from a state any byte may lead on.
    let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
    let mut seen = vec![false; units.len()];
    let mut pending = vec![offset(units[0])];
    while let Some(state) = pending.pop() {
        if (state | 0xff) >= units.len() {
            return Some("an offset leads out of the trie");
        }
        if std::mem::replace(&mut seen[state], true) {
            continue;
        }
        for byte in 1..=0xff_usize {
            let unit = units[state ^ byte];
            if (unit & (1 << 31 | 0xff)) as usize != byte {
                continue;
            }
            let next = (state ^ byte) ^ offset(unit);
            if next >= units.len() {
                return Some("an offset leads out of the trie");
            }
            if unit >> 8 & 1 == 1 && !texts.is_char_boundary((units[next] & (u32::MAX >> 1)) as usize) {
                return Some("a value points outside of the texts");
            }
            pending.push(next);
        }
    }
    None
}
