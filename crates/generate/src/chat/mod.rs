//! Conversations as the text that a chat model was trained on.
//!
//! A model brings a template in the Jinja language, written for Hugging Face's `apply_chat_template`: Python's Jinja2
//! with blocks trimmed, loop controls, a `tojson` of its own, `raise_exception`, `strftime_now` and `{% generation %}`
//! blocks. [`ChatTemplate`] renders one to the same bytes. Models without a template have one picked by name
//! ([`ChatTemplate::named`]).

mod json;
mod named;
mod python;
mod source;
mod turns;

use imaginal_files::Tokenizer;
pub use jiff::civil::DateTime;
pub use minijinja::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
pub use turns::Turns;

use crate::{Error, Result};

/// Steps after which a template is taken for one that never ends. Long conversations with many tools need some 100,000.
const MOST_STEPS: u64 = 50_000_000;

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Each a map with `role` and `content` (a text, or a list of parts), and what else the template knows:
    /// `tool_calls`, `reasoning_content`, `name`.
    pub messages: Vec<Value>,
    /// JSON schemas of functions the model may call; `None` is not the same as none of them.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from, maps with `title` and `text`.
    pub documents: Option<Vec<Value>>,
    /// Whether the text ends with the beginning of the model's answer.
    pub add_generation_prompt: bool,
    /// Variables of this template alone, for instance `enable_thinking`. They hide special tokens of the same name.
    pub variables: Vec<(String, Value)>,
    /// The date and time that `strftime_now` tells. Without it the template finds no such function, and most have a
    /// date of their own then.
    pub now: Option<DateTime>,
}

impl Conversation {
    /// Adds a message of text.
    pub fn push(&mut self, role: &str, content: &str) {
        self.messages.push(Value::from_pairs([("role", Value::from(role)), ("content", Value::from(content))]));
    }
}

/// A list of JSON objects (messages, tools, documents) with their fields in the order of the text, which templates
/// print them in. `name` stands for the text in errors.
///
/// # Errors
/// [`Error::Option`]: the text is no list of objects.
pub fn parse_list(name: &'static str, json: &str) -> Result<Vec<Value>> {
    let wrong = |what: String| Error::Option { name, what };
    let value: Value = serde_json::from_str(json).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let list: Vec<Value> = match value.kind() {
        minijinja::value::ValueKind::Seq => value.try_iter().map_err(|e| wrong(e.to_string()))?.collect(),
        kind => return Err(wrong(format!("a list of objects is needed, this is a {kind}"))),
    };
    match list.iter().position(|item| item.kind() != minijinja::value::ValueKind::Map) {
        Some(at) => Err(wrong(format!("entry {at} of the list is no object, but a {}", list[at].kind()))),
        None => Ok(list),
    }
}

/// A value of JSON, with the fields of objects in the order of the text.
///
/// # Errors
/// [`Error::Option`]: the text is no JSON.
pub fn parse_value(name: &'static str, json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| Error::Option { name, what: format!("not JSON: {e}") })
}

/// A template that is ready to render.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    name: String,
    environment: Environment<'static>,
    variables: Vec<(String, Value)>,
}

impl ChatTemplate {
    /// A template from its text; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Template`] where the text is no Jinja, with the line.
    pub fn new(name: &str, text: &str) -> Result<ChatTemplate> {
        let mut environment = Environment::new();
        let syntax = environment.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| error(name, &e))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(MOST_STEPS));
        python::extend(&mut environment);
        environment.add_filter("tojson", json::tojson);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_template_owned(TEMPLATE, source::prepared(text)).map_err(|e| error(name, &e))?;
        Ok(ChatTemplate { name: name.to_owned(), environment, variables: Vec::new() })
    }

    /// One of the templates that are built in ([`ChatTemplate::names`]).
    ///
    /// # Errors
    /// [`Error::Option`]: there is none of that name.
    pub fn named(name: &str) -> Result<ChatTemplate> {
        match named::TEMPLATES.iter().find(|(n, _)| *n == name) {
            Some((name, text)) => ChatTemplate::new(name, text),
            None => Err(Error::Option {
                name: "template",
                what: format!("there is no template {name:?}; known: {}", Self::names().collect::<Vec<_>>().join(", ")),
            }),
        }
    }

    /// The names of the templates that are built in.
    pub fn names() -> impl Iterator<Item = &'static str> {
        named::TEMPLATES.iter().map(|(name, _)| *name)
    }

    /// The template that a model brings: of several, the one for tools if there are any, else the default one.
    /// `None` where it brings none.
    ///
    /// # Errors
    /// [`Error::Template`], or [`Error::Option`] where there are several and none of them is the default.
    pub fn of_model(tokenizer: &Tokenizer, tools: bool) -> Result<Option<ChatTemplate>> {
        let all = tokenizer.chat_templates();
        let find = |name: &str| all.iter().find(|(n, _)| n == name);
        let found = match all {
            [] => return Ok(None),
            all => tools.then(|| find("tool_use")).flatten().or_else(|| find("default")).or(match all {
                [only] => Some(only),
                _ => None,
            }),
        };
        let Some((name, text)) = found else {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            let what = format!("the model has several and none is the default; name one of {}", names.join(", "));
            return Err(Error::Option { name: "template", what });
        };
        Ok(Some(ChatTemplate::new(&format!("chat template {name}"), text)?.for_tokenizer(tokenizer)))
    }

    /// The template called `name`: the model's own of that name, else the built-in one.
    ///
    /// # Errors
    /// [`Error::Template`], or [`Error::Option`] where there is none of that name.
    pub fn by_name(tokenizer: &Tokenizer, name: &str) -> Result<ChatTemplate> {
        let template = match tokenizer.chat_templates().iter().find(|(n, _)| n == name) {
            Some((name, text)) => ChatTemplate::new(&format!("chat template {name}"), text)?,
            None => ChatTemplate::named(name)?,
        };
        Ok(template.for_tokenizer(tokenizer))
    }

    /// Gives the template the tokenizer's special tokens: `bos_token`, `eos_token` and the like.
    pub fn for_tokenizer(mut self, tokenizer: &Tokenizer) -> ChatTemplate {
        self.variables.extend(tokenizer.special_tokens().map(|(name, text)| (name.to_owned(), Value::from(text))));
        self
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::Template`] where the template refuses the conversation (roles that do not alternate, for instance) or
    /// fails, with its line.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let list = |items: &Option<Vec<Value>>| items.as_ref().map_or(Value::from(()), |v| Value::from(v.clone()));
        let mut variables = self.variables.clone();
        variables.extend(conversation.variables.iter().cloned());
        variables.extend([
            ("messages".to_owned(), conversation.messages.iter().map(python::message).collect()),
            ("tools".to_owned(), list(&conversation.tools)),
            ("documents".to_owned(), list(&conversation.documents)),
            ("add_generation_prompt".to_owned(), conversation.add_generation_prompt.into()),
        ]);
        if let Some(now) = conversation.now {
            variables.push(("strftime_now".to_owned(), python::strftime(now)));
        }
        let template = self.environment.get_template(TEMPLATE).map_err(|e| error(&self.name, &e))?;
        template.render(Value::from_pairs(variables)).map_err(|e| error(&self.name, &e))
    }
}

/// What the template is called inside its environment.
const TEMPLATE: &str = "chat";

fn error(name: &str, error: &minijinja::Error) -> Error {
    // An error inside a macro is wrapped by the call of the macro; the innermost says what went wrong.
    let mut inner = error;
    while let Some(next) = std::error::Error::source(inner).and_then(|e| e.downcast_ref::<minijinja::Error>()) {
        inner = next;
    }
    let line = inner.line().or(error.line());
    let problem = match (inner.kind(), inner.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (ErrorKind::OutOfFuel, _) => "does not end".to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    Error::Template { name: name.to_owned(), line, problem }
}

#[cfg(test)]
mod tests;
