//! Values as Python writes them. Interpolations inside a longer string are
//! turned to text by Python's `str()`, so `v${flag}` is `vTrue`.

use super::big_int::truncated;
use super::node::{Key, Node, Value};
use super::numbers;
pub(crate) use super::numbers::{float, looks_like_int, parse_float, parse_index};

/// Python's `str()` of a value.
pub fn to_str(value: &Value) -> String {
    match value {
        Value::Str(s) => s.clone(),
        other => repr(other),
    }
}

/// Python's `repr()` of a value.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::BigInt(i) => out.push_str(i.as_str()),
        Value::Float(f) => out.push_str(&float(*f)),
        Value::Str(s) => write_str(s, out),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&item.value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                match key {
                    Key::Str(s) => write_str(s, out),
                    other => out.push_str(&other.to_string()),
                }
                out.push_str(": ");
                write_repr(&item.value, out);
            }
            out.push('}');
        }
    }
}

fn write_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// What Python's `json.dumps` gives: ASCII, with a space after `,` and `:`.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::BigInt(i) => out.push_str(i.as_str()),
        Value::Float(f) if f.is_nan() => out.push_str("NaN"),
        Value::Float(f) if f.is_infinite() => {
            out.push_str(if *f > 0.0 { "Infinity" } else { "-Infinity" });
        }
        Value::Float(f) => out.push_str(&float(*f)),
        Value::Str(text) => write_json_str(text, out),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_json(&item.value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                match key {
                    Key::Bool(b) => write_json_str(if *b { "true" } else { "false" }, out),
                    other => write_json_str(&other.to_string(), out),
                }
                out.push_str(": ");
                write_json(&item.value, out);
            }
            out.push('}');
        }
    }
}

fn write_json_str(text: &str, out: &mut String) {
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
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

/// What Python's `int(text)` gives; `None` where it raises.
pub(crate) fn parse_int(text: &str) -> Option<Value> {
    numbers::parse_int(text).map(Value::from)
}

/// Equality as Python has it: `1 == True == 1.0`.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(&a.value, &b.value))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, x)| b.get(key).is_some_and(|y: &Node| equal(&x.value, &y.value)))
        }
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Null, Value::Null) => true,
        (Value::BigInt(a), Value::BigInt(b)) => a == b,
        (big @ Value::BigInt(_), Value::Float(f)) | (Value::Float(f), big @ Value::BigInt(_)) => {
            f.fract() == 0.0 && truncated(*f).map(Value::from).as_ref() == Some(big)
        }
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_python_prints_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (-0.0, "-0.0"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn reads_numbers_as_python_does() {
        assert_eq!(parse_int(" 1_000 "), Some(Value::Int(1000)));
        assert_eq!(parse_int("-7"), Some(Value::Int(-7)));
        assert_eq!(
            parse_int("99999999999999999999").map(|v| to_str(&v)),
            Some("99999999999999999999".to_string())
        );
        assert_eq!(parse_int("1__0"), None);
        assert_eq!(parse_int("1\u{663}"), Some(Value::Int(13)));
        assert_eq!(parse_int("\u{bd}"), None);
        assert_eq!(parse_float("\u{ff11}.\u{1d7ff}"), Some(1.9));
        assert_eq!(parse_float("1e-4"), Some(0.0001));
        assert_eq!(parse_float("1_0.5_0"), Some(10.5));
        assert_eq!(parse_float("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(parse_float("."), None);
        assert_eq!(parse_float("1e"), None);
        assert_eq!(parse_float("é"), None);
    }

    #[test]
    fn repr_chooses_quotes() {
        let list = Value::List(vec![
            Node::str("it's"),
            Node::str("a\nb"),
            Node::built_in(Value::Bool(true)),
            Node::built_in(Value::Null),
        ]);
        assert_eq!(repr(&list), r#"["it's", 'a\nb', True, None]"#);
    }
}
