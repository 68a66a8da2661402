use super::*;

fn conversation(pairs: &[(&str, &str)]) -> Conversation {
    let mut c = Conversation { add_generation_prompt: true, ..Conversation::default() };
    pairs.iter().for_each(|(role, content)| c.push(role, content));
    c
}

#[test]
fn named_templates_render_a_conversation() {
    let c = conversation(&[("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]);
    for name in ChatTemplate::names() {
        let mut template = ChatTemplate::named(name).unwrap();
        template.variables = [("bos_token", "<B>"), ("eos_token", "<E>")].map(|(k, v)| (k.into(), v.into())).to_vec();
        let text = template.render(&c).unwrap();
        let order: Vec<usize> = ["Hi", "Hello!", "Bye"].iter().map(|w| text.find(w).unwrap()).collect();
        assert!(order.is_sorted() && text.contains("Be brief."), "{name}: {text}");
        // What the model is to say is its own turn: the text must not end in the user's words.
        assert!(!text.ends_with("Bye"), "{name}: {text}");
    }
    let chatml = ChatTemplate::named("chatml").unwrap().render(&conversation(&[("user", "Hi")])).unwrap();
    assert_eq!(chatml, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    assert!(ChatTemplate::named("chatlm").unwrap_err().to_string().contains("chatml"));
}

#[test]
fn errors_name_the_line() {
    let line = |text: &str| match ChatTemplate::new("t", text).and_then(|t| t.render(&conversation(&[("user", "x")]))) {
        Err(Error::Template { line, problem, .. }) => (line, problem),
        other => panic!("{other:?}"),
    };
    assert_eq!(line("a\nb\n{% for %}").0, Some(3));
    assert_eq!(line("a\n{{ raise_exception('roles!') }}"), (Some(2), "roles!".into()));
    let inside = "{% macro m(x) %}\n\n{{ raise_exception('no ' ~ x) }}{% endmacro %}\n{{ m(messages[0].role) }}";
    assert_eq!(line(inside), (Some(3), "no user".into()));
    assert_eq!(line("\n{{ messages[3].content }}").0, Some(2));
    assert_eq!(line("{{ missing | tojson }}").0, Some(1));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert!(line(endless).1.contains("does not end"), "{:?}", line(endless));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(ChatTemplate::new("t", &deep).is_err());
}

#[test]
fn json_from_outside_is_checked() {
    assert!(parse_list("messages", "{}").unwrap_err().to_string().contains("list of objects"));
    assert!(parse_list("messages", "[1]").unwrap_err().to_string().contains("entry 0"));
    assert!(parse_list("messages", "[{").unwrap_err().to_string().contains("not JSON"));
    let c =
        Conversation { messages: parse_list("m", r#"[{"z": 1.0, "a": [1e20, null]}]"#).unwrap(), ..Default::default() };
    let json = ChatTemplate::new("t", "{{ messages[0] | tojson }} {{ messages[0].z }}").unwrap().render(&c).unwrap();
    assert_eq!(json, r#"{"z": 1.0, "a": [1e+20, null]} 1.0"#);
}
