//! Values as Python writes them. Interpolations inside a longer string are
//! turned to text by Python's `str()`, so `v${flag}` is `vTrue`.

use std::borrow::Cow;

use super::big_int::{Digits, truncated};
use super::node::{Key, Node, Value};

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

/// A float as Python's `repr` writes it: `1.0`, `0.0001`, `1e-05`, `1e+16`, `inf`, `nan`.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    // Rust and Python both print the shortest digits that read back; the layout differs.
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

/// The zeros of the scripts beside ASCII, whose digits Python reads too (Unicode 14.0.0, category
/// Nd). The nine others follow each.
const ZEROS: [u32; 65] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66,
    0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// The text without blanks around it and with ASCII digits for those of all scripts.
fn ascii_digits(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let ascii = |c: char| {
        let below = ZEROS.partition_point(|zero| *zero <= c as u32);
        let digit = below.checked_sub(1).map(|i| c as u32 - ZEROS[i]);
        digit.and_then(|d| char::from_digit(d, 10)).unwrap_or(c)
    };
    Cow::Owned(text.chars().map(ascii).collect())
}

/// What Python's `int(text)` gives; `None` where it raises.
pub(crate) fn parse_int(text: &str) -> Option<Value> {
    if !looks_like_int(text) {
        return None;
    }
    let text = ascii_digits(text);
    let digits = text.replace(['_', '+', '-'], "");
    Digits::default()
        .read(&digits, 10)?
        .value(text.starts_with('-'))
}

/// An int that may be an index; `None` also where 64 bits are too few.
pub(crate) fn parse_index(text: &str) -> Option<i64> {
    match parse_int(text)? {
        Value::Int(index) => Some(index),
        _ => None,
    }
}

/// Whether Python's `int(text)` succeeds.
pub(crate) fn looks_like_int(text: &str) -> bool {
    let text = ascii_digits(text);
    digits_with_underscores(text.strip_prefix(['+', '-']).unwrap_or(&text))
}

/// What Python's `float(text)` gives; `None` where it raises.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let text = ascii_digits(text);
    let (sign, body) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text.as_ref()),
    };
    let lower = body.to_ascii_lowercase();
    match lower.as_str() {
        "inf" | "infinity" => return Some(sign * f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((m, e)) => (m, Some(e)),
        None => (lower.as_str(), None),
    };
    if let Some(exponent) = exponent
        && !digits_with_underscores(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
    {
        return None;
    }
    let valid = match mantissa.split_once('.') {
        None => digits_with_underscores(mantissa),
        Some(("", "")) => false,
        Some((whole, fraction)) => {
            (whole.is_empty() || digits_with_underscores(whole))
                && (fraction.is_empty() || digits_with_underscores(fraction))
        }
    };
    if !valid {
        return None;
    }
    lower.replace('_', "").parse::<f64>().ok().map(|f| sign * f)
}

fn digits_with_underscores(text: &str) -> bool {
    !text.is_empty()
        && text
            .split('_')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
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
            f.fract() == 0.0 && truncated(*f).as_ref() == Some(big)
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
