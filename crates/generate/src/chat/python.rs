//! What templates know from Python: methods of texts, lists and maps, tests and numbers, the date.

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

/// Gives an environment what Jinja in Python has beyond the engine's own.
pub(super) fn extend(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(|state, value, method, args| match method_of(value, method, args) {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    });
    environment.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        Ok(x) if value.kind() == ValueKind::Number && !value.is_integer() => {
            out.write_str(&float(x)).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter(super::source::ITERATED, iterated);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("wordcount", |text: String| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).count()
    });
    // In Python texts and maps have a length and elements too, and that is all Jinja asks for.
    let iterable =
        |v: &Value| v.is_undefined() || v.kind() == ValueKind::String || v.try_iter().is_ok() && !v.is_none();
    environment.add_test("iterable", iterable);
    environment.add_test("sequence", |v: &Value| {
        v.is_undefined() || matches!(v.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
}

/// A message as Hugging Face hands it to a template: fields without a value are absent, and what the model thought is
/// there under the names that templates of different families look for.
pub(super) fn message(message: &Value) -> Value {
    const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let Ok(keys) = message.try_iter() else { return message.clone() };
    let mut fields: Vec<(Value, Value)> = Vec::new();
    for key in keys {
        match message.get_item(&key) {
            Ok(value) if !value.is_none() => fields.push((key, value)),
            _ => {}
        }
    }
    let get = |name: &str| fields.iter().find(|(k, _)| k.as_str() == Some(name)).map(|(_, v)| v.clone());
    if let Some(thought) = REASONING.iter().find_map(|name| get(name)) {
        if get("thinking").is_none() {
            fields.insert(0, ("thinking".into(), thought.clone()));
        }
        match fields.iter_mut().find(|(k, _)| k.as_str() == Some("reasoning_content")) {
            Some((_, value)) => *value = thought,
            None => fields.push(("reasoning_content".into(), thought)),
        }
    }
    Value::from_pairs(fields)
}

/// The function `strftime_now(format)`.
pub(super) fn strftime(now: DateTime) -> Value {
    Value::from_function(move |format: String| {
        jiff::fmt::strtime::format(&format, now)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

/// A number as Python writes it: the shortest digits that mean it, with a sign and two digits in the exponent.
pub(super) fn float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let text = format!("{x:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// What a loop goes over. The engine takes `none` for an empty list.
fn iterated(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::None => Err(Error::new(ErrorKind::InvalidOperation, "'NoneType' object is not iterable")),
        _ => Ok(value),
    }
}

/// The filter `length`, by which nothing has the length zero.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    let wrong = || Error::new(ErrorKind::InvalidOperation, format!("a {} has no length", value.kind()));
    value.len().ok_or_else(wrong)
}

/// The filter `default(default_value='', boolean=false)`.
fn default(value: Value, other: Option<Value>, boolean: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let (named, flag): (Option<Value>, Option<Value>) = (kwargs.get("default_value")?, kwargs.get("boolean")?);
    kwargs.assert_all_used()?;
    let falsy = boolean.or(flag).is_some_and(|b| b.is_true()) && !value.is_true();
    Ok(if value.is_undefined() || falsy { other.or(named).unwrap_or_else(|| Value::from("")) } else { value })
}

/// Methods that the compatibility layer of the engine lacks.
fn method_of(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let text = value.as_str();
    let argument = args.first().and_then(Value::as_str);
    Some(Ok(match (method, text, argument) {
        ("removeprefix", Some(s), Some(x)) => s.strip_prefix(x).unwrap_or(s).into(),
        ("removesuffix", Some(s), Some(x)) => s.strip_suffix(x).unwrap_or(s).into(),
        ("partition" | "rpartition", Some(s), Some(x)) if !x.is_empty() => {
            let first = method == "partition";
            let found = if first { s.split_once(x) } else { s.rsplit_once(x) };
            let parts = match found {
                Some((a, b)) => [a, x, b],
                None if first => [s, "", ""],
                None => ["", "", s],
            };
            Value::from(minijinja::value::Tuple::from(parts.map(Value::from)))
        }
        ("rsplit", Some(s), Some(x)) if !x.is_empty() => {
            let most = args.get(1).and_then(Value::as_i64).and_then(|n| usize::try_from(n).ok());
            let mut parts: Vec<&str> = s.rsplitn(most.map_or(usize::MAX, |n| n.saturating_add(1)), x).collect();
            parts.reverse();
            parts.into_iter().map(Value::from).collect()
        }
        ("copy", None, None) if matches!(value.kind(), ValueKind::Map | ValueKind::Seq) => value.clone(),
        _ => return None,
    }))
}
