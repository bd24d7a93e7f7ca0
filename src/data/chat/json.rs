//! `tojson` as transformers defines it: Python's `json.dumps` with
//! `ensure_ascii=False`, and no HTML escapes.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::limits::pay;

/// How `json.dumps` is asked to write.
struct Style {
    ascii: bool,
    /// Text of one step of indentation; `None` writes one line.
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

/// The filter `tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ascii: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    pay(state, value)?;
    let indent: Option<Value> = options.get("indent")?;
    let separators: Option<Value> = options.get("separators")?;
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.or(ascii);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let indent = match indent.filter(|v| !v.is_none()) {
        None => None,
        Some(v) => Some(match (v.as_str(), v.as_i64()) {
            (Some(text), _) => text.to_string(),
            (None, Some(n)) if n <= 64 => " ".repeat(n.max(0) as usize),
            _ => return Err(refuse("tojson: indent must be at most 64 blanks or a text")),
        }),
    };
    let mut style = Style {
        ascii: ascii.unwrap_or(false),
        item: if indent.is_some() { "," } else { ", " }.to_string(),
        key: ": ".to_string(),
        indent,
        sorted,
    };
    if let Some(pair) = separators.filter(|v| !v.is_none()) {
        let part = |i: usize| {
            let text = pair.get_item_by_index(i).ok()?;
            text.as_str().map(str::to_string)
        };
        match (part(0), part(1)) {
            (Some(item), Some(key)) => (style.item, style.key) = (item, key),
            _ => return Err(refuse("tojson: separators must be two texts")),
        }
    }
    let mut out = String::new();
    write(&mut out, value, &style, 0)?;
    Ok(out)
}

fn refuse(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quote(out, value.as_str().unwrap_or(""), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            block(out, ('[', ']'), items.len(), style, depth, |out, i| {
                write(out, &items[i], style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort();
            }
            block(out, ('{', '}'), keys.len(), style, depth, |out, i| {
                match keys[i].kind() {
                    ValueKind::String => quote(out, keys[i].as_str().unwrap_or(""), style.ascii),
                    _ => {
                        out.push('"');
                        write(out, &keys[i], style, depth + 1)?;
                        out.push('"');
                    }
                }
                out.push_str(&style.key);
                write(out, &value.get_item(&keys[i])?, style, depth + 1)
            })?;
        }
        _ => return Err(refuse("tojson: the value is undefined or has no JSON form")),
    }
    Ok(())
}

fn block(
    out: &mut String,
    (open, close): (char, char),
    count: usize,
    style: &Style,
    depth: usize,
    mut item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let (Some(step), true) = (&style.indent, count > 0) {
            out.push('\n');
            out.push_str(&step.repeat(depth));
        }
    };
    out.push(open);
    for i in 0..count {
        if i > 0 {
            out.push_str(&style.item);
        }
        line(out, depth + 1);
        item(out, i)?;
    }
    line(out, depth);
    out.push(close);
    Ok(())
}

/// A number as Python writes it: exponents from 1e16 and below 1e-4, two digits.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(x) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    if x.is_nan() {
        return "NaN".to_string();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}");
    }
    let text = format!("{x:e}");
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = match power.strip_prefix('-') {
                Some(power) => ('-', power),
                None => ('+', power),
            };
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text,
    }
}

fn quote(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !c.is_ascii()) || (ascii && c == '\u{7f}') => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
