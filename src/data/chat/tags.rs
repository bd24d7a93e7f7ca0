//! `{% generation %}` .. `{% endgeneration %}`, transformers' own tags around what
//! an assistant says. They become a filter block of ours: the same scope, the same
//! control of blanks.

use super::limits::{TAG_BYTES, TAGS};

/// The filter that marks what it is given.
pub(super) const FILTER: &str = "kiln_assistant";

/// The template with its generation tags replaced, and whether it had any.
///
/// # Errors
/// More or longer tags than a chat template has, which the parser's stack would not
/// hold.
pub(super) fn replace_generation(source: &str) -> Result<(String, bool), String> {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut found, mut raw) = (source, false, false);
    let mut tags = 0;
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let end = match tail.as_bytes().get(1) {
            _ if raw => end_of_raw(tail),
            Some(b'#') => tail.find("#}").map(|e| e + 2),
            Some(b'{') => close(tail, "}}"),
            Some(b'%') => close(tail, "%}"),
            _ => Some(1),
        };
        if raw && end.is_none() {
            out.push('{');
            rest = &tail[1..];
            continue;
        }
        // An open tag at the end: the parser says what is wrong with it.
        let (tag, after) = tail.split_at(end.unwrap_or(tail.len()));
        let word = tag
            .strip_prefix("{%")
            .and_then(|t| t.strip_suffix("%}"))
            .map_or("", |t| t.trim_matches(['-', '+']).trim());
        raw = word == "raw";
        tags += usize::from(end != Some(1));
        if tags > TAGS {
            return Err(format!("it has more than {TAGS} tags"));
        }
        if !tag.starts_with("{#") && code(tag) > TAG_BYTES {
            return Err(format!("a tag of it is longer than {TAG_BYTES} bytes"));
        }
        match word {
            "generation" => {
                found = true;
                out.push_str(&tag.replacen(word, &format!("filter {FILTER}"), 1));
            }
            "endgeneration" => out.push_str(&tag.replacen(word, "endfilter", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok((out, found))
}

/// The bytes of a tag outside of strings.
fn code(tag: &str) -> usize {
    let (mut quote, mut escaped, mut count) = (None, false, 0);
    for byte in tag.bytes() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(q) if byte == q => quote = None,
            Some(_) => {}
            None if matches!(byte, b'\'' | b'"') => quote = Some(byte),
            None => count += usize::from(!byte.is_ascii_whitespace()),
        }
    }
    count
}

/// Where the tag that ends a raw block ends, if `text` begins with one: looked at no
/// further than it goes, as all else in the block is text.
fn end_of_raw(text: &str) -> Option<usize> {
    let signs = ['-', '+'];
    let rest = text.strip_prefix("{%")?.trim_start_matches(signs);
    let rest = rest.trim_start().strip_prefix("endraw")?;
    let rest = rest.trim_start().trim_start_matches(signs);
    let rest = rest.strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// Where the tag that `text` begins with ends: after `end`, outside of strings.
fn close(text: &str, end: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(q), b) if b == q => quote = None,
            (None, b @ (b'\'' | b'"')) => quote = Some(b),
            (None, _) if bytes[at..].starts_with(end.as_bytes()) => return Some(at + 2),
            _ => {}
        }
        at += 1;
    }
    None
}
