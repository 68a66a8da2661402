//! What is changed in a template's text before it is parsed.

/// The text with `{% generation %}` … `{% endgeneration %}` as blocks that the engine knows. Hugging Face marks with
/// them what the model says, for training; in the text they only are a scope, as `with` is. Lines stay where they are.
pub(super) fn without_generation(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let close = match tag.as_bytes().get(1) {
            Some(b'%') => "%}",
            Some(b'#') if !raw => "#}",
            Some(b'{') if !raw => "}}",
            _ => {
                out.push('{');
                rest = &tag[1..];
                continue;
            }
        };
        // Without an end the engine says what is wrong.
        let Some(end) = end_of_tag(tag, close) else {
            rest = tag;
            break;
        };
        let body = &tag[..end];
        rest = &tag[end..];
        let inner = body.strip_prefix("{%").and_then(|b| b.strip_suffix("%}"));
        let word = inner.map(|b| b.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim());
        match word {
            Some("raw") => raw = true,
            Some("endraw") => raw = false,
            Some("generation") if !raw => {
                out.push_str(&body.replacen("generation", "with", 1));
                continue;
            }
            Some("endgeneration") if !raw => {
                out.push_str(&body.replacen("endgeneration", "endwith", 1));
                continue;
            }
            _ => {}
        }
        out.push_str(body);
    }
    out.push_str(rest);
    out
}

/// How many bytes of `tag` are up to and with `close`, which does not count inside of strings.
fn end_of_tag(tag: &str, close: &str) -> Option<usize> {
    if close == "#}" {
        return tag.find(close).map(|at| at + close.len());
    }
    let mut quote = None;
    let mut chars = tag.char_indices().skip(2);
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => {
                chars.next();
            }
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if tag[at..].starts_with(close) => return Some(at + close.len()),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::without_generation;

    #[test]
    fn only_tags_are_changed() {
        for (text, expected) in [
            ("a{%- generation -%}b{% endgeneration +%}c", "a{%- with -%}b{% endwith +%}c"),
            ("{# {% generation %} #}{{ '{% generation %}}}' }}", "{# {% generation %} #}{{ '{% generation %}}}' }}"),
            ("{% raw %}{% generation %}{{ {% endraw %}{%generation%}", "{% raw %}{% generation %}{{ {% endraw %}{%with%}"),
            ("{% set generation = '%}' %}{ {", "{% set generation = '%}' %}{ {"),
            ("{{ 'it\\'s }}' }}{% generation", "{{ 'it\\'s }}' }}{% generation"),
        ] {
            assert_eq!(without_generation(text), expected);
        }
    }
}
