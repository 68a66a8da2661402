//! The verbs, a file each: arguments, and what they do with the library.

pub(crate) mod alias;
pub(crate) mod bench;
pub(crate) mod formats;
pub(crate) mod inspect;
pub(crate) mod inventory;
pub(crate) mod list;
pub(crate) mod logits;
pub(crate) mod morph;
pub(crate) mod perplexity;
pub(crate) mod pull;
pub(crate) mod reference;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod template;
pub(crate) mod texts;
pub(crate) mod tokenize;
pub(crate) mod train;
