use std::io::{IsTerminal, Read, Write};

use clap::Parser;
use imaginal_files::Tokenizer;
use imaginal_generate::chat::Turns;
use imaginal_generate::{
    ChatTemplate, Event, Finish, GenerateOptions, SamplerOptions, Session, Summary, encode_prompt,
};
use imaginal_models::Model;
use serde_json::json;

use super::template::ChatArgs;
use super::tokenize::tokenizer;
use crate::cli::{CacheArgs, Common, Failure};
use crate::find;

/// Generate text from a prompt, or hold a conversation with a terminal
#[derive(Parser, Debug)]
#[command(
    long_about = "Generate text from a prompt. Without a model the built-in one runs; without a prompt the text is read from standard input, or, at a terminal, line by line. A model that brings a chat template is given a conversation and answers; another goes on with the text, and what you type and what it adds is one growing text",
    after_help = "Examples:\n  imaginal run -p 'pub fn parse('\n  imaginal run model.gguf 'Once upon a time' -n 200 --temperature 0.7 --seed 1\n  imaginal run chat-model.gguf 'Why is the sky blue?' --system 'Be brief.'\n  imaginal run model.gguf < prompt.txt"
)]
pub struct Run {
    /// A GGUF file, a Hugging Face directory, `default`, or the name of a pulled model
    #[arg(default_value = find::DEFAULT)]
    model: String,
    /// The prompt
    prompt: Option<String>,
    /// The prompt, without naming a model
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", conflicts_with = "prompt", allow_hyphen_values = true)]
    text: Option<String>,
    /// Tokens to generate at most
    #[arg(short = 'n', long, default_value_t = 256, value_name = "TOKENS")]
    max_tokens: usize,
    /// How freely tokens are chosen; 0 always takes the most probable
    #[arg(long, default_value_t = SamplerOptions::default().temperature)]
    temperature: f32,
    /// Draw from the K most probable tokens only; 0 is off
    #[arg(long, value_name = "K", default_value_t = SamplerOptions::default().top_k)]
    top_k: usize,
    /// Draw from the most probable tokens that together have this probability; 1 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().top_p)]
    top_p: f32,
    /// Draw from tokens with this share of the best one's probability; 0 is off
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().min_p)]
    min_p: f32,
    /// Make tokens that came lately less probable; 1 is off
    #[arg(long, value_name = "FACTOR", default_value_t = SamplerOptions::default().repeat_penalty)]
    repeat_penalty: f32,
    /// How many tokens back the penalty looks
    #[arg(long, value_name = "TOKENS", default_value_t = SamplerOptions::default().repeat_window)]
    repeat_window: usize,
    /// The same seed, model and prompt give the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End the text before this string. May be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after tokens that end the text
    #[arg(long)]
    ignore_end: bool,
    /// Hold a conversation, which is what happens anyway with a model that brings a chat template
    #[arg(long)]
    chat: bool,
    /// What the model is told before a conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    #[command(flatten)]
    format: ChatArgs,
    /// Go on with the text as it is, whatever template the model brings
    #[arg(long, conflicts_with_all = ["chat", "system", "name", "variables"])]
    raw: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

impl Run {
    /// Runs the verb.
    ///
    /// # Errors
    /// The model cannot be loaded, an option is out of range, or standard output is closed.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let mut loaded = find::load(&self.model, common)?;
        self.cache.apply(&mut loaded.model)?;
        let tokenizer = tokenizer(&self.model, loaded.tokenizer.as_ref())?;
        let mut turns = self.turns(tokenizer)?;
        let prompt = match self.text.as_ref().or(self.prompt.as_ref()) {
            Some(prompt) => prompt.clone(),
            None if std::io::stdin().is_terminal() => return self.converse(&loaded.model, tokenizer, turns),
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            }
        };
        let mut session = Session::new(&loaded.model)?;
        let ids = match &mut turns {
            Some(turns) => turns.ask(tokenizer, &prompt)?,
            None => encode_prompt(tokenizer, &prompt)?,
        };
        if common.json {
            let (text, tokens, summary) = session.generate(&ids, Some(tokenizer), self.options())?;
            let ms = |d: Option<std::time::Duration>| d.map(|d| d.as_secs_f64() * 1e3);
            let document = json!({
                "model": self.model,
                "prompt": turns.as_ref().map_or(prompt.as_str(), Turns::text),
                "text": text,
                "tokens": tokens,
                "finish": finish(&summary.finish),
                "prompt_tokens": summary.prompt_tokens,
                "generated_tokens": summary.generated_tokens,
                "prompt_ms": ms(summary.prompt_time),
                "generation_ms": ms(summary.generation_time),
            });
            println!("{}", serde_json::to_string_pretty(&document)?);
            return Ok(());
        }
        let summary = self.print(&mut session, &ids, tokenizer)?.summary;
        println!();
        report(&summary);
        Ok(())
    }

    fn options(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: Some(self.max_tokens),
            stop: self.stop.clone(),
            ignore_end: self.ignore_end,
            sampler: SamplerOptions {
                temperature: self.temperature,
                repeat_penalty: self.repeat_penalty,
                repeat_window: self.repeat_window,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                seed: self.seed,
            },
            ..GenerateOptions::default()
        }
    }

    /// The conversation to hold, where one is held: with a template that is asked for, or that the model brings.
    fn turns(&self, tokenizer: &Tokenizer) -> Result<Option<Turns>, Failure> {
        if self.raw {
            return Ok(None);
        }
        let Some(template) = self.format.template(tokenizer, false)? else {
            if !self.chat && self.system.is_none() {
                return Ok(None);
            }
            let names = ChatTemplate::names().collect::<Vec<_>>().join(", ");
            let problem =
                format!("{} brings no template for conversations; name one with --template ({names})", self.model);
            return Err(problem.into());
        };
        let mut conversation = self.format.conversation()?;
        if let Some(system) = &self.system {
            conversation.push("system", system);
        }
        Ok(Some(Turns::new(template, conversation)))
    }

    /// Prints the text as it comes.
    fn print(
        &self,
        session: &mut Session<'_, Model>,
        prompt: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<Answer, Failure> {
        let mut out = std::io::stdout().lock();
        let (mut answer, mut ids) = (String::new(), Vec::new());
        for event in session.stream(prompt, Some(tokenizer), self.options())? {
            let (text, end) = match event? {
                Event::Prompt { .. } => continue,
                Event::Token { id, text } => {
                    ids.push(id);
                    (text, None)
                }
                Event::End { text, summary } => (text, Some(summary)),
            };
            out.write_all(text.as_bytes())?;
            out.flush()?;
            answer.push_str(&text);
            if let Some(summary) = end {
                return Ok(Answer { text: answer, ids, summary });
            }
        }
        Err("the text ended without a summary".into())
    }

    /// A line from the user and an answer from the model in turn: a conversation, or one growing text.
    fn converse(&self, model: &Model, tokenizer: &Tokenizer, mut turns: Option<Turns>) -> Result<(), Failure> {
        let does = if turns.is_some() { "answers" } else { "continues the text" };
        eprintln!("{}: type a line, the model {does}; an empty line or Ctrl-D ends", self.model);
        let mut session = Session::new(model)?;
        let mut editor = rustyline::DefaultEditor::new()?;
        let mut ids: Vec<u32> = Vec::new();
        loop {
            let line = match editor.readline("> ") {
                Ok(line) if !line.is_empty() => line,
                Ok(_) | Err(rustyline::error::ReadlineError::Eof | rustyline::error::ReadlineError::Interrupted) => {
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            };
            editor.add_history_entry(&line)?;
            match &mut turns {
                Some(turns) => ids = turns.ask(tokenizer, &line)?,
                None if ids.is_empty() => ids = encode_prompt(tokenizer, &line)?,
                None => ids.extend(tokenizer.encode(&format!("\n{line}"), false)?),
            }
            let answer = self.print(&mut session, &ids, tokenizer)?;
            match &mut turns {
                Some(turns) => turns.answer(&answer.text, &answer.ids),
                None => ids.extend(answer.ids),
            }
            println!();
            if answer.summary.finish == Finish::Context {
                eprintln!("the text has reached the {} tokens the model was made for", model.config().context());
                return Ok(());
            }
        }
    }
}

/// What a model said.
struct Answer {
    text: String,
    ids: Vec<u32>,
    summary: Summary,
}

fn finish(f: &Finish) -> &'static str {
    match f {
        Finish::End(_) => "end",
        Finish::Length => "length",
        Finish::Stop(_) => "stop",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    }
}

/// How fast it was, on stderr.
fn report(s: &Summary) {
    let speed = |tokens: usize, time: Option<std::time::Duration>| {
        time.map_or(0.0, |t| tokens as f64 / t.as_secs_f64().max(1e-9))
    };
    eprintln!(
        "{} prompt tokens at {:.0}/s, {} generated at {:.1}/s ({})",
        s.prompt_tokens,
        speed(s.prompt_tokens - s.reused_tokens, s.prompt_time),
        s.generated_tokens,
        speed(s.generated_tokens, s.generation_time),
        finish(&s.finish)
    );
}
