//! Reading what a model wrote where JSON was asked for: reasoning before it, code
//! fences and polite sentences around it are usual and do no harm.

use serde_json::Value;

/// The text without `<think>` blocks; one that never ends takes the rest with it. A
/// closing tag alone ends thoughts that the template began.
pub fn without_thoughts(text: &str) -> String {
    let (open, close) = ("<think>", "</think>");
    let mut rest = match (text.find(close), text.find(open)) {
        (Some(end), begin) if begin.is_none_or(|begin| begin > end) => &text[end + close.len()..],
        _ => text,
    };
    let mut kept = String::new();
    while let Some(at) = rest.find(open) {
        kept.push_str(&rest[..at]);
        rest = match rest[at..].find(close) {
            Some(end) => &rest[at + end + close.len()..],
            None => "",
        };
    }
    kept.push_str(rest);
    kept.trim().to_string()
}

/// The first whole JSON object or list in a text that `fits`.
pub fn first_json(text: &str, fits: impl Fn(&Value) -> bool) -> Option<Value> {
    let begins = text.char_indices().filter(|(_, c)| matches!(c, '{' | '['));
    // A text of brackets must not take time that grows with its square.
    for (at, _) in begins.take(64) {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        if let Some(Ok(value)) = values.next()
            && fits(&value)
        {
            return Some(value);
        }
    }
    None
}
