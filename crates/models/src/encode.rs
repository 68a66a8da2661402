//! Whole texts: their hidden states, vectors and scores.

use imaginal_tensor::{Tensor, no_grad};

use crate::heads::Head;
use crate::{Error, HeadConfig, Loaded, Model, Result, Rows};

/// A text as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Its tokens, with those at its beginning and end.
    pub tokens: Vec<u32>,
    /// For each token, which part of a pair it belongs to: 0 or 1. Empty if all belong to one text.
    pub types: Vec<u32>,
}

/// Tokens of texts that are computed together: more do not make matrices faster, but need more memory.
const TOGETHER: usize = 1024;

impl Model {
    /// Hidden states `[tokens, hidden]` after the final norm, of texts one after another. Tokens see nothing of other
    /// texts, and no text is filled up to the length of another.
    ///
    /// # Errors
    /// [`Error::Token`] for an id beyond the vocabulary; a text without tokens or with more than the model has positions
    /// for; types that the model does not tell apart.
    pub fn hidden(&self, texts: &[Text]) -> Result<Tensor> {
        for (i, text) in texts.iter().enumerate() {
            if text.tokens.is_empty() {
                return Err(Error::Argument(format!("text {i} has no tokens")));
            }
            self.check_tokens(&text.tokens, text.tokens.len())?;
            self.check_length(text.tokens.len())?;
            if !text.types.is_empty() && text.types.len() != text.tokens.len() {
                let (types, tokens) = (text.types.len(), text.tokens.len());
                return Err(Error::Argument(format!("text {i} has {types} types for {tokens} tokens")));
            }
        }
        if texts.is_empty() {
            return Err(Error::Argument("there are no texts to run".into()));
        }
        if self.packs() {
            return self.encode_packed(texts);
        }
        let each = texts.iter().map(|text| self.encode_packed(std::slice::from_ref(text)));
        Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn encode_packed(&self, texts: &[Text]) -> Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.tokens.len()).collect();
        let n = lengths.iter().sum();
        let row = |values: Vec<u32>| Tensor::from_vec(values, [1, n], self.device());
        let ids = row(texts.iter().flat_map(|text| text.tokens.iter().copied()).collect())?;
        let positions = row(lengths.iter().flat_map(|&len| 0..len as u32).collect())?;
        // Models that do not tell parts apart read them as one.
        let types = match self.config().types() > 1 && texts.iter().any(|text| !text.types.is_empty()) {
            true => Some(row(texts.iter().flat_map(|text| text.part_of_each()).collect())?),
            false => None,
        };
        let lengths = self.packs().then_some(&lengths[..]);
        let x = self.stream(&ids, Some(&positions), types.as_ref(), lengths, None, Rows::All)?;
        Ok(self.final_norm(x)?.squeeze(0)?)
    }

    /// Vectors `[texts, hidden]`, pooled and normalised as the model declares ([`crate::Config::pooling`]).
    ///
    /// # Errors
    /// As [`Model::hidden`].
    pub fn embed(&self, texts: &[Text]) -> Result<Tensor> {
        let pooling = self.config().pooling();
        let vectors =
            self.together(texts, |model, texts, lengths| Ok(pooling.kind.apply(&model.hidden(texts)?, lengths)?))?;
        if !pooling.normalize {
            return Ok(vectors);
        }
        // As torch.nn.functional.normalize does it.
        let lengths = vectors.sqr()?.sum(&[1], true)?.sqrt()?.clamp(1e-12, f64::INFINITY)?;
        Ok(vectors.div(&lengths)?)
    }

    /// Scores `[texts, labels]` of the model's labels, as the head computes them, before any softmax.
    ///
    /// # Errors
    /// As [`Model::hidden`], or the model has no such head.
    pub fn scores(&self, texts: &[Text]) -> Result<Tensor> {
        let Head::Labels(head) = self.head() else {
            let what = "the model has no head that scores labels; one with such a head is called \
                        …ForSequenceClassification, cross-encoder or reranker";
            return Err(Error::Argument(what.into()));
        };
        self.together(texts, |model, texts, lengths| Ok(head.forward(&model.hidden(texts)?, lengths)?))
    }

    /// Runs `f` on some of the texts after the other, those of like lengths together, and puts the rows of its results in
    /// the order of the texts.
    fn together(&self, texts: &[Text], f: impl Fn(&Model, &[Text], &[usize]) -> Result<Tensor>) -> Result<Tensor> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| texts[i].tokens.len());
        let (mut parts, mut rest) = (Vec::new(), &order[..]);
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |&&i: &&usize| {
                tokens += texts[i].tokens.len();
                tokens <= TOGETHER
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let now: Vec<Text> = now.iter().map(|&i| texts[i].clone()).collect();
            let lengths: Vec<usize> = now.iter().map(|text| text.tokens.len()).collect();
            parts.push(f(self, &now, &lengths)?);
            rest = later;
        }
        if parts.is_empty() {
            return Err(Error::Argument("there are no texts to run".into()));
        }
        let mut places = vec![0u32; order.len()];
        order.iter().enumerate().for_each(|(row, &i)| places[i] = row as u32);
        let places = Tensor::from_vec(places, texts.len(), self.device())?;
        Ok(Tensor::cat(&parts, 0)?.index_select(0, &places)?)
    }
}

impl Text {
    /// A text of these tokens.
    pub fn new(tokens: Vec<u32>) -> Text {
        Text { tokens, types: Vec::new() }
    }

    fn part_of_each(&self) -> Vec<u32> {
        if self.types.is_empty() { vec![0; self.tokens.len()] } else { self.types.clone() }
    }
}

impl Loaded {
    /// How many tokens of a text the model reads.
    pub fn longest_text(&self) -> usize {
        let config = self.model.config();
        config.pooling().limit.unwrap_or(usize::MAX).min(config.context())
    }

    /// A text, or a pair of them, as tokens with those at beginning and end, and how many tokens were cut off because the
    /// model reads no more.
    ///
    /// # Errors
    /// There is no tokenizer, or it has no tokens for some of the text, or does not tell how two texts are joined.
    pub fn text(&self, text: &str, second: Option<&str>) -> Result<(Text, usize)> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| {
            Error::Argument("the model has no tokenizer: its file holds token ids only (no_vocab)".into())
        })?;
        let parts = tokenizer.encode_parts(text, second, self.longest_text())?;
        Ok((Text { tokens: parts.ids, types: parts.types }, parts.cut))
    }

    /// The vectors of texts: see [`Model::embed`].
    ///
    /// # Errors
    /// As [`Loaded::text`] and [`Model::embed`].
    pub fn embed(&self, texts: &[Text]) -> Result<Vec<Vec<f32>>> {
        rows(&no_grad(|| self.model.embed(texts))?)
    }

    /// The scores of texts, one for each of [`Loaded::labels`]: see [`Model::scores`].
    ///
    /// # Errors
    /// As [`Loaded::text`] and [`Model::scores`].
    pub fn scores(&self, texts: &[Text]) -> Result<Vec<Vec<f32>>> {
        rows(&no_grad(|| self.model.scores(texts))?)
    }

    /// The names of the model's labels; none if it does not score labels.
    pub fn labels(&self) -> &[String] {
        match self.model.config().head() {
            HeadConfig::Labels(labels) => &labels.names,
            _ => &[],
        }
    }
}

fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let width = x.dim(1)?.max(1);
    Ok(x.to_vec::<f32>()?.chunks(width).map(<[f32]>::to_vec).collect())
}
