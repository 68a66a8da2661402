//! Chat templates against what transformers' `apply_chat_template` makes of them (`tools/reference/chat_templates.py`),
//! and conversations with a model.

use imaginal_files::Tokenizer;
use imaginal_generate::chat::{Turns, Value, parse_value};
use imaginal_generate::{ChatTemplate, Conversation, Error, GenerateOptions, SamplerOptions, Session};
use imaginal_models::{LoadOptions, Loaded};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat").join(name)
}

fn list(value: Value) -> Vec<Value> {
    value.try_iter().unwrap().collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn templates_render_as_transformers_renders_them() {
    // Read as the crate reads JSON, so that fields keep their order.
    let all = parse_value("expected.json", &std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap();
    let conversations = list(all.get_attr("conversations").unwrap());
    let special = all.get_attr("special").unwrap();
    let (mut rendered, mut refused, mut wrong) = (0, 0, Vec::new());
    for name in list(all.get_attr("expected").unwrap()) {
        let name = text(&name);
        let source = std::fs::read_to_string(fixture(&format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&name, &source).unwrap();
        let results = list(all.get_attr("expected").unwrap().get_attr(&name).unwrap());
        for (case, expected) in conversations.iter().zip(results) {
            let mut c = Conversation { add_generation_prompt: true, ..Conversation::default() };
            c.messages = list(case.get_attr("messages").unwrap());
            c.now = Some(text(&all.get_attr("now").unwrap()).parse().unwrap());
            for key in list(special.clone()) {
                c.variables.push((text(&key), special.get_item(&key).unwrap()));
            }
            let options = case.get_attr("options").unwrap();
            for key in list(options.clone()) {
                let value = options.get_item(&key).unwrap();
                match key.as_str().unwrap() {
                    "tools" => c.tools = Some(list(value)),
                    "documents" => c.documents = Some(list(value)),
                    "add_generation_prompt" => c.add_generation_prompt = value.is_true(),
                    other => c.variables.push((other.to_owned(), value)),
                }
            }
            let case = text(&case.get_attr("name").unwrap());
            match (template.render(&c), expected.get_attr("text").unwrap().as_str()) {
                (Ok(ours), Some(theirs)) => {
                    rendered += 1;
                    let lines = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
                    if ours != theirs {
                        wrong.push(format!("{name}, {case}: {lines:#?}"));
                    }
                }
                (Err(Error::Template { problem, line, .. }), None) => {
                    refused += 1;
                    let theirs = text(&expected.get_attr("error").unwrap());
                    // The words of a template are its own; those of Python are not ours.
                    let own = problem == theirs;
                    let pythons = theirs.contains("undefined")
                        || theirs.contains("has no attribute")
                        || theirs.contains("Error: ");
                    if line.is_none() || !(own || pythons) {
                        wrong.push(format!("{name}, {case}: line {line:?}, {problem:?}, but {theirs:?}"));
                    }
                }
                (ours, theirs) => wrong.push(format!("{name}, {case}: {ours:?}, but {theirs:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rendered > 200 && refused > 10, "{rendered} rendered, {refused} refused");
}

/// A small model with a tokenizer.
fn loaded() -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/qwen2-tied");
    Loaded::open(path, &LoadOptions::default()).unwrap()
}

#[test]
fn a_second_turn_feeds_only_what_is_new() {
    let Loaded { model, tokenizer, .. } = loaded();
    let tokenizer = tokenizer.unwrap();
    // A template whose turns end in a special token, the only one that this vocabulary has.
    let source = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
    let mut turns = Turns::new(ChatTemplate::new("t", source).unwrap(), Conversation::default());
    let mut session = Session::new(&model).unwrap();
    let greedy = || GenerateOptions {
        max_tokens: Some(8),
        ignore_end: true,
        sampler: SamplerOptions { temperature: 0.0, ..SamplerOptions::default() },
        ..GenerateOptions::default()
    };
    let mut seen = 0;
    for (turn, line) in ["Hello there", "And now? 日本", "x"].into_iter().enumerate() {
        let prompt = turns.ask(&tokenizer, line).unwrap();
        assert_eq!(turns.text(), ChatTemplate::new("t", source).unwrap().render(turns.conversation()).unwrap());
        let (answer, ids, summary) = session.generate(&prompt, Some(&tokenizer), greedy()).unwrap();
        // All that was fed before; the last token of an answer is only fed with the next prompt.
        assert_eq!(summary.reused_tokens, seen, "turn {turn}");
        seen = session.tokens().len();
        assert!(seen + 1 >= prompt.len() + ids.len() && summary.prompt_tokens == prompt.len());
        turns.answer(&answer, &ids);
    }
    assert_eq!(turns.conversation().messages.len(), 6);
    // A template that refuses leaves the conversation as it was.
    let refuses = ChatTemplate::new("t", "{{ raise_exception('no') }}").unwrap();
    let mut turns = Turns::new(refuses, Conversation::default());
    assert!(turns.ask(&tokenizer, "Hi").unwrap_err().to_string().contains("line 1: no"));
    assert!(turns.conversation().messages.is_empty());
}

#[test]
fn a_model_brings_its_templates_and_special_tokens() {
    let json =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures/qwen2-tied/tokenizer.json"));
    let json = json.unwrap();
    let open = |config: &str| Tokenizer::from_json("t", &json, Some(config.as_bytes())).unwrap();
    let render = |tokenizer: &Tokenizer, tools: bool| {
        let mut c = Conversation::default();
        c.push("user", "Hi");
        ChatTemplate::of_model(tokenizer, tools).unwrap().map(|t| t.render(&c).unwrap())
    };
    assert_eq!(render(&open("{}"), false), None);
    let one = open(r#"{"eos_token": "<|endoftext|>", "chat_template": "{{ eos_token }}{{ messages[0].content }}"}"#);
    assert_eq!(render(&one, true).unwrap(), "<|endoftext|>Hi");
    let named = r#"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"},
        {"name": "tool_use", "template": "T"}]}"#;
    let several = open(named);
    assert_eq!((render(&several, false).unwrap().as_str(), render(&several, true).unwrap().as_str()), ("D", "T"));
    let c = Conversation::default();
    assert_eq!(ChatTemplate::by_name(&several, "rag").unwrap().render(&c).unwrap(), "R");
    assert!(ChatTemplate::by_name(&several, "chatml").is_ok());
    let no_default = open(&named.replace("default", "other"));
    let error = ChatTemplate::of_model(&no_default, false).unwrap_err().to_string();
    assert!(error.contains("rag") && error.contains("other"), "{error}");
}
