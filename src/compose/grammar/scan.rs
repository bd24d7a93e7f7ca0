//! The scalar tokens of both grammars: at a position, the longest token wins,
//! and among equals the first kind in the order float, int, bool, null, other.

use crate::compose::big_int::Integer;
use crate::compose::numbers;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token {
    Float,
    Int,
    Bool,
    Null,
    Id,
    /// One of `/ - \ + . $ % * @ ? |`.
    Char,
    /// Escaped characters, a backslash before each.
    Escape,
    Space,
}

/// The token at `pos` and its length, or `None` when no token may begin there.
pub(crate) fn token(chars: &[char], pos: usize) -> Option<(Token, usize)> {
    let rest = chars.get(pos..)?;
    let candidates = [
        (Token::Float, float(rest)),
        (Token::Int, int(rest)),
        (Token::Bool, word(rest, "true").max(word(rest, "false"))),
        (Token::Null, word(rest, "null")),
        (
            Token::Char,
            usize::from(rest.first().is_some_and(|c| is_char(*c))),
        ),
        (Token::Id, id(rest)),
        (Token::Escape, escape(rest)),
        (Token::Space, spaces(chars, pos)),
    ];
    let mut best = (Token::Space, 0);
    for (token, length) in candidates {
        if length > best.1 {
            best = (token, length);
        }
    }
    (best.1 > 0).then_some(best)
}

/// How many spaces and tabs stand at `pos`.
pub(crate) fn spaces(chars: &[char], pos: usize) -> usize {
    chars[pos.min(chars.len())..]
        .iter()
        .take_while(|c| is_space(**c))
        .count()
}

/// The length of the identifier at the start: letters, digits, `_` and `-`, not starting with a digit or `-`.
pub(crate) fn id(rest: &[char]) -> usize {
    match rest.first() {
        Some(c) if c.is_ascii_alphabetic() || *c == '_' => rest
            .iter()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            .count(),
        _ => 0,
    }
}

/// The length of an int without sign: `0`, or digits with single underscores that do not start with 0.
pub(crate) fn unsigned_int(rest: &[char]) -> usize {
    match rest.first() {
        Some('0') => 1,
        Some('1'..='9') => digits(rest),
        _ => 0,
    }
}

/// The text of an escape token without its backslashes.
pub(crate) fn unescape(text: &[char]) -> String {
    text.iter().skip(1).step_by(2).collect()
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_char(c: char) -> bool {
    matches!(
        c,
        '/' | '-' | '\\' | '+' | '.' | '$' | '%' | '*' | '@' | '?' | '|'
    )
}

fn word(rest: &[char], word: &str) -> usize {
    let length = word.len();
    let same = rest.len() >= length
        && rest
            .iter()
            .zip(word.chars())
            .all(|(a, b)| a.eq_ignore_ascii_case(&b));
    if same { length } else { 0 }
}

/// Digits with single underscores between them.
fn digits(rest: &[char]) -> usize {
    let mut length = 0;
    loop {
        match rest.get(length) {
            Some(c) if c.is_ascii_digit() => length += 1,
            Some('_') if length > 0 && rest.get(length + 1).is_some_and(char::is_ascii_digit) => {
                length += 2;
            }
            _ => return length,
        }
    }
}

fn sign(rest: &[char]) -> usize {
    usize::from(matches!(rest.first(), Some('+' | '-')))
}

fn int(rest: &[char]) -> usize {
    let sign = sign(rest);
    match unsigned_int(&rest[sign..]) {
        0 => 0,
        length => sign + length,
    }
}

fn float(rest: &[char]) -> usize {
    let sign = sign(rest);
    let body = &rest[sign..];
    let named = word(body, "inf").max(word(body, "nan"));
    if named > 0 {
        return sign + named;
    }
    let whole = unsigned_int(body);
    let mut point = 0;
    if body.get(whole) == Some(&'.') {
        let fraction = digits(&body[whole + 1..]);
        if fraction > 0 || whole > 0 {
            point = whole + 1 + fraction;
        }
    }
    let mantissa = point.max(whole);
    if mantissa > 0 && matches!(body.get(mantissa), Some('e' | 'E')) {
        let at = mantissa + 1;
        let at = at + usize::from(matches!(body.get(at), Some('+' | '-')));
        let exponent = digits(body.get(at..).unwrap_or(&[]));
        if exponent > 0 {
            return sign + at + exponent;
        }
    }
    if point > 0 { sign + point } else { 0 }
}

fn escape(rest: &[char]) -> usize {
    rest.chunks(2)
        .take_while(|pair| {
            matches!(
                pair,
                [
                    '\\',
                    '\\' | '(' | ')' | '[' | ']' | '{' | '}' | ':' | '=' | ',' | ' ' | '\t'
                ]
            )
        })
        .count()
        * 2
}

/// The value of a single token.
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(Integer),
    Float(f64),
    Text(String),
}

/// Reads a token as what it is; text that joins several is text.
///
/// # Errors
/// An integer of more than 4300 digits.
pub(super) fn typed(kind: Option<Token>, text: &str) -> Result<Scalar, String> {
    Ok(match kind {
        Some(Token::Null) => Scalar::Null,
        Some(Token::Bool) => Scalar::Bool(text.eq_ignore_ascii_case("true")),
        Some(Token::Int) => numbers::parse_int(text)
            .map(Scalar::Int)
            .ok_or("the integer has more than 4300 digits; quote it to keep it as a string")?,
        Some(Token::Float) => Scalar::Float(
            numbers::parse_float(text).ok_or_else(|| format!("{text} is not a float"))?,
        ),
        _ => Scalar::Text(text.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_token_wins() {
        for (text, expected) in [
            ("1e-4", (Token::Float, 4)),
            ("1e", (Token::Int, 1)),
            ("1.", (Token::Float, 2)),
            (".5x", (Token::Float, 2)),
            (".x", (Token::Char, 1)),
            ("010", (Token::Int, 1)),
            ("-10", (Token::Int, 3)),
            ("-x", (Token::Char, 1)),
            ("1_000_", (Token::Int, 5)),
            ("inf", (Token::Float, 3)),
            ("infinity", (Token::Id, 8)),
            ("True", (Token::Bool, 4)),
            ("true-ish", (Token::Id, 8)),
            ("NULL", (Token::Null, 4)),
            (r"\,\=x", (Token::Escape, 4)),
            (r"\x", (Token::Char, 1)),
            (" \t x", (Token::Space, 3)),
        ] {
            let chars: Vec<char> = text.chars().collect();
            assert_eq!(token(&chars, 0), Some(expected), "{text}");
        }
        assert_eq!(token(&['#'], 0), None);
        assert_eq!(token(&[], 0), None);
    }
}
