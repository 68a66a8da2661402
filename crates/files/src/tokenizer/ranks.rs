//! Vocabularies of tiktoken: tokens in base64 with their ranks, one a line, and no merges. Two neighbours merge where
//! together they are a token, the one of lowest rank first.

use super::vocab::char_of_byte;
use crate::Result;
use crate::error::Origin;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::HashMap;

/// Longest token: the merges of one are looked for in every place it can be cut.
const MOST_TOKEN: usize = 4096;

/// Two tokens that merge.
pub(super) type Merge = (String, String);

/// The tokens in GPT-2's alphabet by id, and the merges that make them, in order.
pub(super) fn read(origin: &Origin, text: &str) -> Result<(Vec<String>, Vec<Merge>)> {
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let wrong = |problem: &str| origin.malformed(format_args!("line {}", i + 1), problem);
        let (token, rank) = line.split_once(' ').ok_or_else(|| wrong("no token in base64 and rank"))?;
        let token = BASE64.decode(token).map_err(|_| wrong("the token is no base64"))?;
        if rank.trim().parse() != Ok(tokens.len()) {
            return Err(wrong(&format!("the rank is {rank:?}, and {} comes next", tokens.len())));
        }
        if token.is_empty() || token.len() > MOST_TOKEN {
            return Err(wrong("the token is empty or longer than any real one"));
        }
        tokens.push(token);
    }
    let ranks: HashMap<&[u8], u32> = tokens.iter().enumerate().map(|(i, t)| (t.as_slice(), i as u32)).collect();
    let spelled = |bytes: &[u8]| -> String { bytes.iter().map(|b| char_of_byte(*b)).collect() };
    let mut merges = Vec::new();
    for token in &tokens {
        let mut cuts: Vec<(u32, u32, usize)> = (1..token.len())
            .filter_map(|at| Some((*ranks.get(&token[..at])?, *ranks.get(&token[at..])?, at)))
            .collect();
        cuts.sort_unstable();
        merges.extend(cuts.into_iter().map(|(_, _, at)| (spelled(&token[..at]), spelled(&token[at..]))));
    }
    Ok((tokens.iter().map(|t| spelled(t)).collect(), merges))
}
