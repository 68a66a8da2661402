//! The verbs for whole texts: their vectors, the scores of labels, and their order for a question.

use std::io::IsTerminal;

use clap::Parser;
use imaginal_models::{Loaded, Text};
use serde_json::{Value, json};

use crate::cli::{Common, Failure};
use crate::find;

/// Turn texts into vectors whose dot product says how alike they are
#[derive(Parser, Debug)]
#[command(
    long_about = "Turn texts into vectors, pooled and normalised as the model's files declare (modules.json of sentence-transformers, pooling_type of GGUF; without a declaration the normalised mean, or the last token of models that generate). One line of numbers for each text",
    after_help = "Examples:\n  imaginal embed ./all-MiniLM-L6-v2 'a cat' 'a kitten' --json\n  imaginal embed bge.gguf < lines.txt > vectors.txt"
)]
pub struct Embed {
    /// A GGUF file, a Hugging Face directory, or `default`
    model: String,
    /// The texts; without any, the lines of standard input
    texts: Vec<String>,
}

/// Score texts with the labels of a classifier
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal classify ./sentiment-model 'what a day' 'never again'\n  imaginal classify ./sentiment-model --json < reviews.txt"
)]
pub struct Classify {
    /// A GGUF file or a Hugging Face directory of a model for sequence classification
    model: String,
    /// The texts; without any, the lines of standard input
    texts: Vec<String>,
}

/// Put texts in the order in which they answer a question
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal rerank ./bge-reranker-base 'what is a panda?' 'a bear from China' 'a kind of bread'\n  imaginal rerank ./ms-marco-MiniLM-L6 'capital of Peru' --json < passages.txt"
)]
pub struct Rerank {
    /// A GGUF file or a Hugging Face directory of a reranker (a cross-encoder with one label)
    model: String,
    /// The question
    query: String,
    /// The texts; without any, the lines of standard input
    texts: Vec<String>,
}

/// The given texts, or the lines of standard input.
fn given(texts: &[String]) -> Result<Vec<String>, Failure> {
    if !texts.is_empty() {
        return Ok(texts.to_vec());
    }
    if std::io::stdin().is_terminal() {
        return Err("there are no texts: give them as arguments, or as lines on standard input".into());
    }
    let lines: Vec<String> = std::io::stdin().lines().collect::<Result<_, _>>()?;
    if lines.is_empty() { Err("standard input has no lines".into()) } else { Ok(lines) }
}

/// The texts as tokens, each behind the query if there is one. Says on stderr which were cut.
fn tokens(loaded: &Loaded, query: Option<&str>, texts: &[String]) -> Result<Vec<Text>, Failure> {
    let mut all = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let (tokens, cut) = match query {
            Some(query) => loaded.text(query, Some(text))?,
            None => loaded.text(text, None)?,
        };
        if cut > 0 {
            eprintln!("text {}: the last {cut} tokens are left out; the model reads {}", i + 1, loaded.longest_text());
        }
        all.push(tokens);
    }
    Ok(all)
}

impl Embed {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded or has no tokenizer.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let loaded = find::load(&self.model, common)?;
        let texts = tokens(&loaded, None, &given(&self.texts)?)?;
        let vectors = loaded.embed(&texts)?;
        if common.json {
            let counts: Vec<usize> = texts.iter().map(|text| text.tokens.len()).collect();
            let width = loaded.model.config().hidden();
            println!("{}", json!({ "dimensions": width, "tokens": counts, "embeddings": vectors }));
        } else {
            for vector in vectors {
                println!("{}", vector.iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
            }
        }
        Ok(())
    }
}

impl Classify {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded, has no tokenizer, or has no labels.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let loaded = find::load(&self.model, common)?;
        let texts = given(&self.texts)?;
        let scores = loaded.scores(&tokens(&loaded, None, &texts)?)?;
        let labels = loaded.labels();
        if common.json {
            let results: Vec<Value> = texts
                .iter()
                .zip(&scores)
                .map(|(text, scores)| {
                    let best = best(scores).map(|i| &labels[i]);
                    json!({ "text": text, "label": best, "scores": scores })
                })
                .collect();
            println!("{}", json!({ "labels": labels, "results": results }));
        } else {
            for (text, scores) in texts.iter().zip(&scores) {
                let each: Vec<String> = labels.iter().zip(scores).map(|(l, s)| format!("{l} {s:.4}")).collect();
                println!("{}  {text}", each.join("  "));
            }
        }
        Ok(())
    }
}

/// The number of the highest score.
fn best(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

impl Rerank {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded, has no tokenizer, or is no reranker.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let loaded = find::load(&self.model, common)?;
        if loaded.labels().len() > 1 {
            let labels = loaded.labels().join(", ");
            return Err(format!("{} scores several labels ({labels}); use `imaginal classify`", self.model).into());
        }
        let texts = given(&self.texts)?;
        let scores = loaded.scores(&tokens(&loaded, Some(&self.query), &texts)?)?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by(|&a, &b| scores[b][0].total_cmp(&scores[a][0]));
        if common.json {
            let results: Vec<Value> =
                order.iter().map(|&i| json!({ "index": i, "score": scores[i][0], "text": texts[i] })).collect();
            println!("{}", json!({ "query": self.query, "results": results }));
        } else {
            order.iter().for_each(|&i| println!("{:9.4}  {}", scores[i][0], texts[i]));
        }
        Ok(())
    }
}
