use std::io::{Read, Write};

use clap::{Args, Parser};
use imaginal_files::Tokenizer;
use imaginal_generate::chat::{DateTime, Value, parse_list, parse_value};
use imaginal_generate::{ChatTemplate, Conversation};
use serde_json::json;

use crate::cli::{Common, Failure};
use crate::find;

/// What a conversation is rendered with, for the verbs that hold one.
#[derive(Args, Debug, Clone)]
pub(crate) struct ChatArgs {
    /// The format of conversations: a template of the model by its name, or one of chatml, llama2, llama3, llama4,
    /// gemma, mistral, mistral-v7, phi3, zephyr, deepseek, command-r, glm4, granite, exaone, gpt-oss, vicuna, alpaca,
    /// rwkv-world [default: the one that the model brings]
    #[arg(long = "template", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A variable of the template, its value in JSON; for instance enable_thinking=false. May be repeated
    #[arg(long = "var", value_name = "NAME=JSON", value_parser = variable)]
    variables: Vec<(String, String)>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=JSON")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ChatArgs {
    /// The template asked for, or that the model brings.
    pub(crate) fn template(&self, tokenizer: &Tokenizer, tools: bool) -> Result<Option<ChatTemplate>, Failure> {
        Ok(match &self.name {
            Some(name) => Some(ChatTemplate::by_name(tokenizer, name)?),
            None => ChatTemplate::of_model(tokenizer, tools)?,
        })
    }

    /// A conversation that has not begun.
    pub(crate) fn conversation(&self) -> Result<Conversation, Failure> {
        let mut conversation = Conversation {
            add_generation_prompt: true,
            now: Some(jiff::Zoned::now().datetime()),
            ..Conversation::default()
        };
        for (name, value) in &self.variables {
            // What is no JSON is a text, so that words need no second pair of quotes.
            let value = parse_value("--var", value).unwrap_or_else(|_| Value::from(value.as_str()));
            conversation.variables.push((name.clone(), value));
        }
        Ok(conversation)
    }
}

/// Print a conversation as the text that a chat model is given
#[derive(Parser, Debug)]
#[command(
    after_help = "Examples:\n  imaginal template model.gguf --messages chat.json --tools tools.json\n  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | imaginal template default --template chatml"
)]
pub struct Template {
    /// A GGUF file, a Hugging Face directory, or `default`: whose template and special tokens are used
    #[arg(default_value = find::DEFAULT)]
    model: String,
    /// A file with the messages, a list of JSON objects; read from standard input if there is none
    #[arg(long, value_name = "FILE")]
    messages: Option<String>,
    /// A file with JSON schemas of the functions that the model may call
    #[arg(long, value_name = "FILE")]
    tools: Option<String>,
    /// A file with documents to answer from
    #[arg(long, value_name = "FILE")]
    documents: Option<String>,
    /// A file with a Jinja template, instead of the model's
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    file: Option<String>,
    #[command(flatten)]
    chat: ChatArgs,
    /// End with the last message, not with the beginning of an answer
    #[arg(long)]
    no_generation_prompt: bool,
    /// The date and time that the template is told, for instance 2025-01-31T12:00 [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<DateTime>,
}

impl Template {
    /// Runs the verb.
    ///
    /// # Errors
    /// There is no such model or template, a file is no JSON, or the template refuses the conversation.
    pub fn run(&self, common: &Common) -> Result<(), Failure> {
        let tokenizer = find::tokenizer(&self.model)?;
        let read = |file: &str| std::fs::read_to_string(file).map_err(|e| format!("{file}: cannot read: {e}"));
        let list = |name: &'static str, file: &Option<String>| -> Result<Option<Vec<Value>>, Failure> {
            Ok(match file {
                Some(file) => Some(parse_list(name, &read(file)?)?),
                None => None,
            })
        };
        let mut conversation = self.chat.conversation()?;
        conversation.messages = match list("--messages", &self.messages)? {
            Some(messages) => messages,
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                parse_list("messages", &text)?
            }
        };
        conversation.tools = list("--tools", &self.tools)?;
        conversation.documents = list("--documents", &self.documents)?;
        conversation.add_generation_prompt = !self.no_generation_prompt;
        conversation.now = self.now.or(conversation.now);
        let template = match &self.file {
            Some(file) => Some(ChatTemplate::new(file, &read(file)?)?.for_tokenizer(&tokenizer)),
            None => self.chat.template(&tokenizer, conversation.tools.is_some())?,
        };
        let template = template.ok_or_else(|| {
            let names = ChatTemplate::names().collect::<Vec<_>>().join(", ");
            format!("{} brings no template; name one with --template ({names}) or --file", self.model)
        })?;
        let text = template.render(&conversation)?;
        if common.json {
            let ids = tokenizer.encode(&text, false)?;
            println!("{}", json!({ "text": text, "count": ids.len(), "ids": ids }));
        } else {
            std::io::stdout().write_all(text.as_bytes())?;
        }
        Ok(())
    }
}
