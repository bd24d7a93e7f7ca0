//! The end of a block scalar (`|`, `>`) that ends the text without a line break. The parser
//! gives its last line a break, as YAML 1.2 has it; PyYAML reads what is written.

use saphyr_parser::{ScalarStyle, Span};

/// The value of a scalar, without the line break that nobody wrote. `chars` is how many
/// characters the text has; it ends without a line break.
pub(super) fn as_written(value: &str, style: ScalarStyle, span: Span, chars: usize) -> &str {
    let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
    if !is_block || span.end.index() < chars {
        return value;
    }
    // A last line of blanks counts as one where it reaches the content, which begins at `start`.
    // Where there is no content, at `start` stands the indicator.
    let invented = if value.bytes().all(|byte| byte == b'\n') {
        span.end.line() == span.start.line() + 1
    } else {
        span.end.col() >= span.start.col().max(1)
    };
    match value.strip_suffix('\n') {
        Some(shorter) if invented => shorter,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use crate::compose::yaml_read::read_yaml;

    /// What PyYAML gives.
    #[test]
    fn a_text_that_ends_without_a_line_break_gets_none() {
        for (text, expected) in [
            ("a: |\n  x\n  y:", r#"{"a":"x\ny:"}"#),
            ("a: >\n  x\n  y", r#"{"a":"x y"}"#),
            ("a: |+\n  x", r#"{"a":"x"}"#),
            ("a: |-\n  x", r#"{"a":"x"}"#),
            ("\u{e9}: |\n  \u{e9}", "{\"\u{e9}\":\"\u{e9}\"}"),
            ("a: |\r\n  x\r\n  y", r#"{"a":"x\ny"}"#),
            ("a:\n- |\n  x\n- >\n  y", r#"{"a":["x\n","y"]}"#),
            ("a: |\n  x\n  ", r#"{"a":"x\n"}"#),
            ("a: |\n  x\n    ", r#"{"a":"x\n  "}"#),
            ("a: |\n  x\n ", r#"{"a":"x\n"}"#),
            ("a: |\n  x\n# c", r#"{"a":"x\n"}"#),
            ("a: |+\n  x\n\n  ", r#"{"a":"x\n\n"}"#),
            ("a: |+\n  ", r#"{"a":""}"#),
            ("a: |+\n\n  ", r#"{"a":"\n"}"#),
            ("a: |", r#"{"a":""}"#),
            ("a: |\n  x\n", r#"{"a":"x\n"}"#),
            ("a: |+\n  x\n\n", r#"{"a":"x\n\n"}"#),
        ] {
            let node = read_yaml(text, &Arc::new(PathBuf::from("a.yaml")));
            let json = node.map_or_else(|p| panic!("{text}\n{p}"), |n| n.to_json().to_string());
            assert_eq!(json, expected, "{text:?}");
        }
    }
}
