//! YAML 1.1 scalars as OmegaConf reads them: PyYAML's safe loader with floats
//! that need no dot (`1e-4`) and with dates left as strings. `yes`, `no`, `on`
//! and `off` are booleans, `017` is octal, `1:30` is base 60, `0o17` is a string.

use super::big_int::Digits;
use super::node::Value;

/// What a plain scalar means. An error says why the text is no value at all.
pub(crate) fn resolve(text: &str) -> Result<Value, String> {
    if let Some(value) = null_or_bool(text) {
        return Ok(value);
    }
    if is_float(text) {
        return parse_float(text);
    }
    if is_int(text) {
        return parse_int(text);
    }
    if is_dotless_float(text) {
        return parse_float(text);
    }
    match text {
        "=" => Err("a plain '=' has a meaning of its own in YAML 1.1; quote it".to_string()),
        "<<" => Err("the merge key '<<' cannot be a value; quote it".to_string()),
        _ => Ok(Value::Str(text.to_string())),
    }
}

/// Whether PyYAML's plain dumper may leave the string unquoted: its own rules
/// must read it back as a string. Those rules differ from [`resolve`]: dates
/// count, floats without a dot do not.
pub(crate) fn plain_reads_as_string(text: &str) -> bool {
    null_or_bool(text).is_none()
        && !is_float(text)
        && !is_int(text)
        && !is_timestamp(text)
        && !matches!(text, "=" | "<<")
}

/// The booleans of the YAML 1.1 repository, whose single letters OmegaConf quotes on output.
pub(crate) fn is_bool_word(text: &str) -> bool {
    matches!(text, "y" | "Y" | "n" | "N") || matches!(null_or_bool(text), Some(Value::Bool(_)))
}

/// `!!int`, `!!float`, ... on a scalar: the value read under a named type.
pub(crate) fn resolve_tagged(text: &str, tag: &str) -> Result<Value, String> {
    match tag {
        "str" => Ok(Value::Str(text.to_string())),
        "null" => Ok(Value::Null),
        "bool" => match null_or_bool(&text.to_lowercase()) {
            Some(value @ Value::Bool(_)) => Ok(value),
            _ => Err(format!("'{text}' is not a bool")),
        },
        "int" => parse_int(text),
        "float" => parse_float(text),
        _ => Err(format!(
            "the tag '!!{tag}' is not supported; known are !!str !!int !!float !!bool !!null !!seq !!map"
        )),
    }
}

fn null_or_bool(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Some(Value::Bool(true))
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(Value::Bool(false))
        }
        _ => None,
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn all(text: &str, test: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(test)
}

fn digit_or_underscore(b: u8) -> bool {
    b.is_ascii_digit() || b == b'_'
}

fn starts_with_digit(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

/// One `:MM` group of a base 60 number.
fn is_sixtieth(text: &str) -> bool {
    match text.as_bytes() {
        [a] => a.is_ascii_digit(),
        [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
        _ => false,
    }
}

/// PyYAML's int pattern.
fn is_int(text: &str) -> bool {
    let body = unsigned(text);
    if let Some(bits) = body.strip_prefix("0b") {
        return !bits.is_empty() && all(bits, |b| matches!(b, b'0' | b'1' | b'_'));
    }
    if let Some(hex) = body.strip_prefix("0x") {
        return !hex.is_empty() && all(hex, |b| b.is_ascii_hexdigit() || b == b'_');
    }
    if body == "0" {
        return true;
    }
    if let Some(octal) = body.strip_prefix('0') {
        return all(octal, |b| matches!(b, b'0'..=b'7' | b'_'));
    }
    if !starts_with_digit(body) {
        return false;
    }
    let mut parts = body.split(':');
    parts
        .next()
        .is_some_and(|head| all(head, digit_or_underscore))
        && parts.all(is_sixtieth)
}

/// PyYAML's float pattern: a dot is needed, and a sign in the exponent.
fn is_float(text: &str) -> bool {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if let Some(fraction) = text.strip_prefix('.') {
        let (fraction, exponent) = split_exponent(fraction);
        return starts_with_digit(fraction)
            && all(fraction, digit_or_underscore)
            && exponent.is_none_or(|e| is_exponent(e, true));
    }
    let Some((whole, rest)) = body.split_once('.') else {
        return false;
    };
    if !starts_with_digit(whole) {
        return false;
    }
    let mut parts = whole.split(':');
    if !parts
        .next()
        .is_some_and(|head| all(head, digit_or_underscore))
    {
        return false;
    }
    let mut sixtieths = parts.peekable();
    if sixtieths.peek().is_some() {
        return sixtieths.all(is_sixtieth) && all(rest, digit_or_underscore);
    }
    let (fraction, exponent) = split_exponent(rest);
    all(fraction, digit_or_underscore) && exponent.is_none_or(|e| is_exponent(e, true))
}

/// What OmegaConf adds: `1e-4`, `1e4`, `1.5e3`, `.5e-3` written with or without the dot or sign.
fn is_dotless_float(text: &str) -> bool {
    let body = unsigned(text);
    let (mantissa, exponent) = split_exponent(body);
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole_ok = starts_with_digit(whole)
        && whole
            .split('_')
            .all(|part| !part.is_empty() && all(part, |b| b.is_ascii_digit()));
    whole_ok
        && fraction.is_none_or(|f| all(f, digit_or_underscore))
        && exponent.map_or(fraction.is_some(), |e| is_exponent(e, false))
}

fn split_exponent(text: &str) -> (&str, Option<&str>) {
    match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn is_exponent(text: &str, signed: bool) -> bool {
    let digits = unsigned(text);
    !digits.is_empty() && all(digits, |b| b.is_ascii_digit()) && (!signed || digits != text)
}

/// PyYAML's timestamp pattern: a date alone, or a date with a time.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = split_date(text) else {
        return false;
    };
    let numbers: Vec<&str> = date.split('-').collect();
    let [year, month, day] = numbers[..] else {
        return false;
    };
    let digits = |s: &str, min: usize, max: usize| {
        (min..=max).contains(&s.len()) && all(s, |b| b.is_ascii_digit())
    };
    if !digits(year, 4, 4) {
        return false;
    }
    match time {
        None => digits(month, 2, 2) && digits(day, 2, 2),
        Some(time) => digits(month, 1, 2) && digits(day, 1, 2) && is_time(time),
    }
}

fn split_date(text: &str) -> Option<(&str, Option<&str>)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(text.len());
    let (date, rest) = text.split_at(end);
    match rest.as_bytes().first() {
        None => Some((date, None)),
        Some(b'T' | b't') => Some((date, Some(&rest[1..]))),
        Some(b' ' | b'\t') => Some((date, Some(rest.trim_start_matches([' ', '\t'])))),
        Some(_) => None,
    }
}

fn is_time(text: &str) -> bool {
    let two = |s: &str, min: usize| (min..=2).contains(&s.len()) && all(s, |b| b.is_ascii_digit());
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.')
        .unwrap_or(text.len());
    let (clock, zone) = text.split_at(end);
    let (clock, fraction_ok) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, all(fraction, |b| b.is_ascii_digit())),
        None => (clock, true),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts[..] else {
        return false;
    };
    let zone = zone.trim_start_matches([' ', '\t']);
    let zone_ok = zone.is_empty()
        || zone == "Z"
        || (zone.starts_with(['+', '-']) && {
            let mut parts = zone[1..].splitn(2, ':');
            parts.next().is_some_and(|h| two(h, 1)) && parts.next().is_none_or(|m| two(m, 2))
        });
    two(hour, 1) && two(minute, 2) && two(second, 2) && fraction_ok && zone_ok
}

fn parse_int(text: &str) -> Result<Value, String> {
    let plain = text.replace('_', "");
    let body = unsigned(&plain);
    let digits = Digits::default();
    let digits = if let Some(bits) = body.strip_prefix("0b") {
        digits.read(bits, 2)
    } else if let Some(hex) = body.strip_prefix("0x") {
        digits.read(hex, 16)
    } else if body.len() > 1 && body.starts_with('0') {
        digits.read(body, 8)
    } else {
        let mut parts = body.split(':');
        let first = parts.next().and_then(|head| digits.read(head, 10));
        first.and_then(|first| {
            parts.try_fold(first, |mut total, part| {
                total.push(60, part.parse().ok()?);
                Some(total)
            })
        })
    };
    let digits = digits.ok_or_else(|| format!("'{text}' is not an int"))?;
    digits
        .value(plain.starts_with('-'))
        .map(Value::from)
        .ok_or_else(|| {
            "the integer has more than 4300 digits; quote it to keep it as a string".to_string()
        })
}

fn parse_float(text: &str) -> Result<Value, String> {
    let plain = text.replace('_', "").to_lowercase();
    let negative = plain.starts_with('-');
    let body = unsigned(&plain);
    let magnitude = match body {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if body.contains(':') => {
            let mut total = 0.0;
            for part in body.split(':') {
                let part: f64 = part
                    .parse()
                    .map_err(|_| format!("'{text}' is not a float"))?;
                total = total * 60.0 + part;
            }
            total
        }
        _ => super::python::parse_float(body).ok_or_else(|| format!("'{text}' is not a float"))?,
    };
    Ok(Value::Float(if negative { -magnitude } else { magnitude }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix F of the measured OmegaConf behaviour.
    #[test]
    fn scalars_read_as_omegaconf_reads_them() {
        let str = |s: &str| Value::Str(s.to_string());
        for (text, value) in [
            ("1e-4", Value::Float(0.0001)),
            ("1e4", Value::Float(10000.0)),
            ("1.", Value::Float(1.0)),
            ("0x1F", Value::Int(31)),
            ("0o17", str("0o17")),
            ("017", Value::Int(15)),
            ("08", str("08")),
            ("1_000", Value::Int(1000)),
            ("yes", Value::Bool(true)),
            ("off", Value::Bool(false)),
            ("y", str("y")),
            ("TRUE", Value::Bool(true)),
            ("tRUE", str("tRUE")),
            ("~", Value::Null),
            ("2024-01-01", str("2024-01-01")),
            ("12:30:45", Value::Int(45045)),
            ("1:30", Value::Int(90)),
            ("1:30.5", Value::Float(90.5)),
            (".5", Value::Float(0.5)),
            ("-.5", str("-.5")),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            ("inf", str("inf")),
            ("+1", Value::Int(1)),
            ("1e", str("1e")),
            ("0b11", Value::Int(3)),
            ("3.14e2", Value::Float(314.0)),
            ("1_0.5_0", Value::Float(10.5)),
            ("4E5", Value::Float(400000.0)),
        ] {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
        assert!(matches!(resolve(".nan"), Ok(Value::Float(f)) if f.is_nan()));
        assert!(resolve("=").is_err());
        for (text, digits) in [
            ("99999999999999999999", "99999999999999999999"),
            ("-0xFFFF_FFFF_FFFF_FFFF", "-18446744073709551615"),
            ("9_999_999_999_999_999_999:59", "599999999999999999999"),
        ] {
            let value = resolve(text);
            assert!(
                matches!(&value, Ok(Value::BigInt(b)) if b.as_str() == digits),
                "{value:?}"
            );
        }
        assert!(resolve(&"9".repeat(4301)).is_err());
        assert!(resolve("0b_").is_err());
    }

    #[test]
    fn dates_are_not_left_plain_on_output() {
        assert!(!plain_reads_as_string("2024-01-01"));
        assert!(!plain_reads_as_string("2024-1-1 1:02:03.5 +01:00"));
        assert!(plain_reads_as_string("2024-1-1"));
        assert!(plain_reads_as_string("1e-4"));
        assert!(!plain_reads_as_string("1.5"));
    }
}
