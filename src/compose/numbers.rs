//! Numbers as Python writes and reads them.

use std::borrow::Cow;

use super::big_int::{Digits, Integer};

/// A float as Python's `repr` writes it: `1.0`, `0.0001`, `1e-05`, `1e+16`, `inf`, `nan`.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    // Rust and Python both print the shortest digits that read back; the layout differs.
    let shortest = format!("{value:e}");
    let digits = shortest.split('e').next().unwrap_or(&shortest);
    let digits = digits.bytes().filter(u8::is_ascii_digit).count();
    // Where two of that length are as near, Python takes the even one.
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    let text = match even.parse() == Ok(value) {
        true => even,
        false => shortest,
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    // So many digits that the value is written to its last one.
    let places = (digits as i32 - 1 - exponent).max(1) as usize;
    format!("{value:.places$}")
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
pub(crate) fn parse_int(text: &str) -> Option<Integer> {
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
        Integer::Small(index) => Some(index),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python's `repr` gives.
    #[test]
    fn floats_are_written_as_in_python() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-1234.5, "-1234.5"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
            (0.00001, "1e-05"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (2f64.powi(-44), "5.684341886080802e-14"),
            // As near to the digit above, which is odd.
            (7_439_886_965_515_317.0 / 4.0, "1859971741378829.2"),
            (-7_439_886_965_515_319.0 / 4.0, "-1859971741378829.8"),
        ] {
            assert_eq!(float(value), expected);
            assert_eq!(parse_float(expected), Some(value));
        }
    }
}
