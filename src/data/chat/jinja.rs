//! The Jinja that chat templates are written in, set up as transformers sets up
//! jinja2: trimmed blocks, loop controls, Python's methods, and three functions.

use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::limits::{RECURSION, pay};
use super::{json, tags};

/// Around what `{% generation %}` encloses; no text has these.
pub(super) const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];

/// How an error of `raise_exception` begins, to tell it from others.
pub(super) const RAISED: &str = "raise_exception: ";

/// An environment with the template `source`, under the name `chat`.
///
/// # Errors
/// The source is not Jinja.
pub(super) fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_recursion_limit(RECURSION);
    env.set_unknown_method_callback(method);
    env.set_formatter(|out, state, value| {
        pay(state, value)?;
        minijinja::escape_formatter(out, state, value)
    });
    env.add_filter("tojson", json::tojson);
    env.add_filter("string", |state: &State, value: &Value| {
        pay(state, value)?;
        minijinja::filters::string(state, value)
    });
    env.add_filter("pprint", |state: &State, value: &Value| {
        pay(state, value)?;
        Ok::<_, Error>(value.to_string())
    });
    env.add_filter("join", join_filter);
    env.add_filter(tags::FILTER, |text: &str| {
        format!("{}{text}{}", MARKS[0], MARKS[1])
    });
    // jinja2 calls everything with a length and items a sequence.
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined
        )
    });
    env.add_function("raise_exception", |what: &Value| -> Result<Value, Error> {
        let text = format!("{RAISED}{what}");
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    env.add_function("strftime_now", strftime_now);
    env.add_template_owned("chat", source)?;
    Ok(env)
}

/// The date and time of now, in Python's notation.
fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > 1024 || StrftimeItems::new(format).any(|item| item == Item::Error) {
        let text = format!("strftime_now: '{format}' is not a time format");
        return Err(Error::new(ErrorKind::InvalidOperation, text));
    }
    Ok(chrono::Local::now().format(format).to_string())
}

/// `join(separator, attribute)`, paid for before it is done.
fn join_filter(
    state: &State,
    value: &Value,
    separator: Option<&str>,
    attribute: Option<Value>,
) -> Result<String, Error> {
    let separator = separator.unwrap_or("");
    let mut out = String::new();
    for (i, item) in value.try_iter()?.enumerate() {
        let item = match &attribute {
            None => item,
            Some(name) => item.get_item(name)?,
        };
        append(state, &mut out, if i > 0 { separator } else { "" }, &item)?;
    }
    Ok(out)
}

fn append(state: &State, out: &mut String, separator: &str, item: &Value) -> Result<(), Error> {
    pay(state, item)?;
    let text = item.to_string();
    state.consume_fuel((separator.len() + text.len()) as u64 / 64 + 1)?;
    out.push_str(separator);
    out.push_str(&text);
    Ok(())
}

/// Python's methods; those that can make much of little are paid for first.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), name, args) {
        (Some(separator), "join", [items]) => {
            let mut out = String::new();
            for (i, item) in items.try_iter()?.enumerate() {
                if item.as_str().is_none() {
                    let text = format!("join: item {i} is not a text");
                    return Err(Error::new(ErrorKind::InvalidOperation, text));
                }
                append(state, &mut out, if i > 0 { separator } else { "" }, &item)?;
            }
            return Ok(Value::from(out));
        }
        (Some(text), "title", []) => return Ok(Value::from(title(text))),
        (Some(text), "format", args) => {
            let mut argument = 0;
            for arg in args {
                pay(state, arg)?;
                // A number can be a width.
                let width = arg.as_i64().map_or(32, i64::unsigned_abs);
                argument += arg.as_str().map_or(width, |t| t.len() as u64);
            }
            let places = text.matches('{').count() as u64;
            let widths = text.split(|c: char| !c.is_ascii_digit()).map(|n| {
                if n.is_empty() {
                    0
                } else {
                    n.parse().unwrap_or(u64::MAX)
                }
            });
            let widest = widths.max().unwrap_or(0);
            state.consume_fuel(argument.saturating_add(widest).saturating_mul(places) / 64)?;
        }
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// Python's `title`: a capital after everything that is no letter.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}
