//! From folders of text to batches of tokens: [`walk`] finds the files, [`split`] holds some out, [`corpus`] keeps
//! their tokens on disk, [`pack`] deals them out in sequences of one length.

pub mod corpus;
pub mod pack;
pub mod split;
pub mod walk;
