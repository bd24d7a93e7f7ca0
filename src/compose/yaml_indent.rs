//! Where PyYAML reads on and the parser stops: it asks that every line of a quoted
//! text, and of what stands in brackets, begins behind the key it belongs to.
//! PyYAML asks nothing of the kind. White space at the beginning of such lines
//! means nothing, so they are moved to the right, and the text is read anew. A lone
//! `-` in brackets, before a comma or a bracket, gets the quotes that PyYAML does not need,
//! and a comment right behind a bracket or a quote gets the space.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::ScanError;

/// Texts read anew may have so many bytes together.
const MAX_READ: usize = 8 << 20;
/// How far a line in brackets is moved at first.
const STEP: usize = 8;

/// A YAML text, with lines moved to the right where that was needed.
pub(super) struct Indented<'t> {
    text: Cow<'t, str>,
    /// The spaces put before a line, by its number from 1.
    moved: HashMap<usize, usize>,
    read: usize,
}

/// What the parser finds too far on the left.
enum Fault {
    /// A line of the quoted text that begins at the mark.
    Quoted,
    /// The line of the mark, in a quoted text.
    LineOfQuoted,
    /// The line of the mark, in brackets.
    Bracketed,
    /// The `-` at the mark, with a comma or a bracket behind it.
    Dash,
    /// The comment at the mark, with a bracket, a comma or a quote right before it.
    Comment,
}

impl<'t> Indented<'t> {
    pub fn new(text: &'t str) -> Indented<'t> {
        Indented {
            text: Cow::Borrowed(text),
            moved: HashMap::new(),
            read: 0,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The column, from 1, that a fault of the parser has in the text as it was given.
    pub fn column(&self, error: &ScanError) -> usize {
        let mark = error.marker();
        let moved = self.moved.get(&mark.line()).copied().unwrap_or(0);
        mark.col().saturating_sub(moved) + 1
    }

    /// Moves the lines that the parser finds too far on the left. `false` if the
    /// fault is another one, or if it has been tried often enough.
    pub fn mend(&mut self, error: &ScanError) -> bool {
        let fault = match error.info() {
            "invalid indentation in quoted scalar" => Fault::Quoted,
            "tab cannot be used as indentation" => Fault::LineOfQuoted,
            "invalid indentation" | "invalid indentation in flow construct" => Fault::Bracketed,
            "plain scalar cannot start with '-' followed by ,[]{}" => Fault::Dash,
            "comments must be separated from other tokens by whitespace" => Fault::Comment,
            _ => return false,
        };
        let mark = error.marker();
        let at = match self.text.is_ascii() {
            true => mark.index(),
            false => {
                let mut places = self.text.char_indices().map(|(at, _)| at);
                places.nth(mark.index()).unwrap_or(self.text.len())
            }
        };
        let Some(rest) = self.text.get(at..) else {
            return false;
        };
        // Before the mark its line has white space only.
        let this = (at.saturating_sub(mark.col()), mark.line());
        let twice = self.moved.get(&mark.line()).copied().unwrap_or(STEP);
        let (lines, spaces) = match fault {
            // The quote stands behind its key, and so will the lines.
            Fault::Quoted => (lines_of_quoted(rest, this, at), mark.col() + 1),
            Fault::LineOfQuoted => (vec![this], twice),
            Fault::Bracketed => (lines_in_brackets(rest, this, at), twice),
            // At the end of a longer text there is nothing to be done.
            Fault::Dash if !self.begins_value(at) => return false,
            Fault::Dash => (vec![(at, mark.line()), (at + 1, mark.line())], 1),
            Fault::Comment if !self.text[..at].ends_with(['[', ']', '{', '}', ',', '\'', '"']) => {
                return false;
            }
            Fault::Comment => (vec![(at, mark.line())], 1),
        };
        let filler = if matches!(fault, Fault::Dash) {
            "'"
        } else {
            " "
        };
        let bytes = self.text.len() + lines.len() * spaces;
        self.read = self.read.saturating_add(bytes);
        if lines.is_empty() || self.read > MAX_READ {
            return false;
        }
        let mut text = String::with_capacity(bytes);
        let mut end = 0;
        for (start, line) in lines {
            text.push_str(&self.text[end..start]);
            text.push_str(&filler.repeat(spaces));
            end = start;
            *self.moved.entry(line).or_default() += spaces;
        }
        text.push_str(&self.text[end..]);
        self.text = Cow::Owned(text);
        true
    }

    /// Whether only white space parts this place in brackets from a mark that a value follows.
    fn begins_value(&self, at: usize) -> bool {
        let before = self.text.get(..at).unwrap_or_default().trim_end();
        before.ends_with([',', ':', '[', '{'])
    }
}

/// A line: where it begins in the text, and its number.
type Line = (usize, usize);

/// The lines of a quoted text after its first one. None if it does not end, or if
/// another document begins in it.
fn lines_of_quoted(rest: &str, first: Line, at: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = first.1;
    let mut chars = rest.char_indices().peekable();
    let Some((_, quote)) = chars.next() else {
        return lines;
    };
    while let Some((index, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match c {
            '\\' if quote == '"' && next.is_some_and(|c| !is_break(c)) => drop(chars.next()),
            '\'' if quote == '\'' && next == Some('\'') => drop(chars.next()),
            c if c == quote => return lines,
            '\r' if next == Some('\n') => {}
            c if is_break(c) => {
                line += 1;
                if begins_document(&rest[index + 1..]) {
                    return Vec::new();
                }
                lines.push((at + index + 1, line));
            }
            _ => {}
        }
    }
    Vec::new()
}

/// The line within brackets that begins at `rest`, and those after it that surely
/// stand within the same ones.
fn lines_in_brackets(rest: &str, first: Line, at: usize) -> Vec<Line> {
    let mut lines = vec![first];
    let mut line = first.1;
    let mut depth = 0;
    let mut chars = rest.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' if depth == 0 => break,
            ']' | '}' => depth -= 1,
            // What follows may be text.
            '\'' | '"' | '#' => break,
            '\r' if matches!(chars.peek(), Some((_, '\n'))) => {}
            c if is_break(c) => {
                line += 1;
                if begins_document(&rest[index + 1..]) {
                    break;
                }
                lines.push((at + index + 1, line));
            }
            _ => {}
        }
    }
    lines
}

/// What the parser takes for the end of a line.
fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

/// Whether `---` or `...` stands at the beginning.
fn begins_document(line: &str) -> bool {
    let rest = line.strip_prefix("---").or(line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use crate::compose::yaml_read::read_yaml;

    fn json(text: &str) -> String {
        let node = read_yaml(text, &Arc::new(PathBuf::from("a.yaml")));
        node.map_or_else(|p| panic!("{text}\n{p}"), |n| n.to_json().to_string())
    }

    fn refused(text: &str) -> String {
        let node = read_yaml(text, &Arc::new(PathBuf::from("a.yaml")));
        node.map_or_else(|p| p.to_string(), |n| panic!("{text}\n{}", n.to_json()))
    }

    /// What PyYAML gives.
    #[test]
    fn quoted_texts_may_go_on_at_the_left() {
        for (text, expected) in [
            ("a:\n  b: 'x\n'\nc: 1\n", r#"{"a":{"b":"x "},"c":1}"#),
            ("a:\n  b: 'x\n\n  y\n z'\n", r#"{"a":{"b":"x\ny z"}}"#),
            ("a:\n  b: \"x\\\ny\\\"\n\"\n", r#"{"a":{"b":"xy\" "}}"#),
            ("a:\r\n  b: 'it''s\r\n'\r\n", r#"{"a":{"b":"it's "}}"#),
            ("a:\n  b: 'x\n\ty'\n", r#"{"a":{"b":"x y"}}"#),
            (
                "\u{e9}:\n  \u{e9}: '\u{e9}\n\u{e9}'\n",
                "{\"\u{e9}\":{\"\u{e9}\":\"\u{e9} \u{e9}\"}}",
            ),
            ("a:\n- - 'x\n'\n- 'y\nz'\n", r#"{"a":[["x "],"y z"]}"#),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        let text = "a:\n  b: 'x\n---\n'\n";
        assert!(
            refused(text).contains("document indicator"),
            "{}",
            refused(text)
        );
        refused("a:\n  b: 'x\ny\n");
    }

    #[test]
    fn brackets_may_go_on_at_the_left() {
        for (text, expected) in [
            (
                "a:\n  b: [1,\n2,\n 3\n]\nc: 1\n",
                r#"{"a":{"b":[1,2,3]},"c":1}"#,
            ),
            ("a:\n  b: [\n]\n", r#"{"a":{"b":[]}}"#),
            (
                "a:\n  b: {x: [\n1], y: 'z\n', # w\nv: 2\n}\n",
                r#"{"a":{"b":{"x":[1],"y":"z ","v":2}}}"#,
            ),
            ("a:\n                  b: [1,\n2]\n", r#"{"a":{"b":[1,2]}}"#),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        refused("a:\n  b: [1,\n---\n2]\n");
        refused("a:\n  b: [1,\n2\nc: 1\n");
    }

    #[test]
    fn a_lone_dash_in_brackets_is_text() {
        for (text, expected) in [
            ("a: [-]\n", r#"{"a":["-"]}"#),
            ("a: [-, 1, -]\n", r#"{"a":["-",1,"-"]}"#),
            ("a: {k: -}\n", r#"{"a":{"k":"-"}}"#),
            (
                "\u{e9}: {k: -, j: [\n  -, 'x']}\n",
                "{\"\u{e9}\":{\"k\":\"-\",\"j\":[\"-\",\"x\"]}}",
            ),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        assert!(
            refused("a: [-, %]\n").contains("(column 8)"),
            "{}",
            refused("a: [-, %]\n")
        );
    }

    #[test]
    fn a_comment_needs_no_space_behind_a_bracket_or_a_quote() {
        for (text, expected) in [
            ("a: [1, 2]# two\nb: 'x'# x\n", r#"{"a":[1,2],"b":"x"}"#),
            ("a: {k: 1}#\nb: \"x\"# x", r#"{"a":{"k":1},"b":"x"}"#),
            ("a: [# one\n  1,# two\n  2]\n", r#"{"a":[1,2]}"#),
            ("\u{e9}: ['\u{e9}'# x\n]#x\n", "{\"\u{e9}\":[\"\u{e9}\"]}"),
            ("a: x#y\nb: '#'\n", r##"{"a":"x#y","b":"#"}"##),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        refused("a: |# c\n  x\n");
        let text = "a: [1]# x\nb: [2, %]\n";
        assert!(refused(text).contains("(column 8)"), "{}", refused(text));
    }

    #[test]
    fn faults_stand_where_they_were_written() {
        let text = "a:\n  b: [1,\n2, %]\n";
        assert!(refused(text).starts_with("a.yaml:3: "), "{}", refused(text));
        assert!(refused(text).contains("(column 4)"), "{}", refused(text));
    }

    #[test]
    fn many_of_them_take_no_long_time() {
        let line = "  k: 'x\n'\n";
        let few: String = (0..500)
            .map(|i| line.replace('k', &format!("k{i}")))
            .collect();
        assert!(json(&format!("a:\n{few}")).contains("k499"));
        let many: String = (0..20_000)
            .map(|i| line.replace('k', &format!("k{i}")))
            .collect();
        let started = std::time::Instant::now();
        refused(&format!("a:\n{many}"));
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
