//! What is changed in a template's text before it is parsed.

/// The filter that refuses what Python does not iterate.
pub(super) const ITERATED: &str = "_iterated";

/// The text as the engine has to see it, every line where it is:
/// - `{% generation %}` … `{% endgeneration %}` as blocks that it knows. Hugging Face marks with them what the model says,
///   for training; in the text they only are a scope, as `with` is.
/// - what a loop goes over through a filter that refuses `none`, which the engine takes for an empty list.
pub(super) fn prepared(text: &str) -> String {
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
            Some(word) if !raw && word.starts_with("for") => {
                out.push_str(&checked_loop(body).unwrap_or_else(|| body.to_owned()));
                continue;
            }
            _ => {}
        }
        out.push_str(body);
    }
    out.push_str(rest);
    out
}

/// `{% for x in E if C %}` with E behind the filter; `None` where the tag is no such loop.
fn checked_loop(tag: &str) -> Option<String> {
    let words = words(tag);
    let (first, _) = *words.first()?;
    let (_, from) = *words.iter().find(|(start, end)| &tag[*start..*end] == "in")?;
    if !tag[first..].starts_with("for") || from <= first {
        return None;
    }
    // An expression in a loop has no "if" of its own outside of parentheses.
    let ends = words.iter().filter(|(start, _)| *start > from);
    let until = ends.map(|(start, end)| (*start, &tag[*start..*end])).find(|(_, w)| matches!(*w, "if" | "recursive"));
    let close = tag.len() - 2 - usize::from(tag.ends_with("-%}") || tag.ends_with("+%}"));
    let until = until.map_or(close, |(start, _)| start);
    let expression = tag[from..until].trim_end();
    let rest = &tag[from + expression.len()..];
    Some(format!("{} ({expression})|{ITERATED}{rest}", &tag[..from]))
}

/// Where words begin and end in a tag that are in no string and no brackets.
fn words(tag: &str) -> Vec<(usize, usize)> {
    let (mut words, mut quote, mut depth, mut escaped) = (Vec::new(), None, 0_i32, false);
    let mut start = None;
    for (at, c) in tag.char_indices().skip(2) {
        let letter = c.is_alphanumeric() || c == '_';
        if quote.is_none() && depth == 0 && letter && start.is_none() {
            start = Some(at);
        } else if !letter && let Some(from) = start.take() {
            words.push((from, at));
        }
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None => depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c)),
        }
    }
    words
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
    use super::prepared;

    #[test]
    fn only_tags_are_changed() {
        for (text, expected) in [
            ("a{%- generation -%}b{% endgeneration +%}c", "a{%- with -%}b{% endwith +%}c"),
            ("{# {% generation %} #}{{ '{% generation %}}}' }}", "{# {% generation %} #}{{ '{% generation %}}}' }}"),
            (
                "{% raw %}{% generation %}{{ {% endraw %}{%generation%}",
                "{% raw %}{% generation %}{{ {% endraw %}{%with%}",
            ),
            ("{% set generation = '%}' %}{ {", "{% set generation = '%}' %}{ {"),
            ("{%- for a in b -%}", "{%- for a in ( b)|_iterated -%}"),
            (
                "{% for k, (a, b) in d['in'].x(1 if y else 2) if a recursive %}",
                "{% for k, (a, b) in ( d['in'].x(1 if y else 2))|_iterated if a recursive %}",
            ),
            ("{%for x in [1]+\n y%}", "{%for x in ( [1]+\n y)|_iterated%}"),
            ("{% format %}{% for %}", "{% format %}{% for %}"),
            ("{{ 'it\\'s }}' }}{% generation", "{{ 'it\\'s }}' }}{% generation"),
        ] {
            assert_eq!(prepared(text), expected);
        }
    }
}
