//! How one string is written in YAML: plain, single quoted or double quoted,
//! and where long lines fold. The choices are those of PyYAML's emitter with
//! `allow_unicode` and width 80, which OmegaConf prints with.

use super::scalar;

const WIDTH: usize = 80;

/// Where a string is written.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// The column of continuation lines.
    pub indent: usize,
    /// Whether long lines may fold.
    pub fold: bool,
    /// Whether it is a key before a `:`, which must stay on one line.
    pub key: bool,
}

/// Whether a string can be a key on one line; longer ones are written `? key`.
pub(crate) fn fits_simple_key(text: &str) -> bool {
    // PyYAML counts the tag '!!str' too.
    !text.is_empty() && text.chars().count() + 5 < 128 && !text.chars().any(is_break)
}

/// Appends the string. `quoted` asks for single quotes where plain would do.
pub(crate) fn write(out: &mut String, text: &str, quoted: bool, layout: Layout) {
    let forms = analyse(text);
    let plain = !quoted
        && forms.plain
        && !(layout.key && (text.is_empty() || forms.multiline))
        && scalar::plain_reads_as_string(text);
    let mut pen = Pen {
        column: column_of(out),
        out,
        indent: layout.indent,
        fold: layout.fold,
    };
    if plain {
        pen.plain(text);
    } else if forms.single && !(layout.key && forms.multiline) {
        pen.single(text);
    } else {
        pen.double(text);
    }
}

fn column_of(out: &str) -> usize {
    let start = out.rfind('\n').map_or(0, |at| at + 1);
    out[start..].chars().count()
}

fn is_break(c: char) -> bool {
    c == '\n'
}

fn is_blank_or_break(c: char) -> bool {
    matches!(
        c,
        '\0' | ' ' | '\t' | '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Which styles may hold a string.
struct Forms {
    plain: bool,
    single: bool,
    multiline: bool,
}

fn analyse(text: &str) -> Forms {
    if text.is_empty() {
        return Forms {
            plain: true,
            single: true,
            multiline: false,
        };
    }
    let chars: Vec<char> = text.chars().collect();
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut breaks, mut special) = (false, false);
    let (mut break_space, mut space_break) = (false, false);
    for (index, &c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).map(|i| chars[i]);
        let blank_before = before.is_none_or(is_blank_or_break);
        let blank_after = chars.get(index + 1).is_none_or(|&c| is_blank_or_break(c));
        indicators |= match c {
            '#' if index > 0 => blank_before,
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
            | '@' | '`' => index == 0,
            ':' => blank_after,
            '?' | '-' => index == 0 && blank_after,
            _ => false,
        };
        breaks |= is_break(c);
        special |= !(c == '\n' || (' '..='~').contains(&c) || is_printable_unicode(c));
        break_space |= c == ' ' && before.is_some_and(is_break);
        space_break |= is_break(c) && before == Some(' ');
    }
    let edge = |c: Option<&char>| c.is_some_and(|&c| c == ' ' || is_break(c));
    let ragged = edge(chars.first()) || edge(chars.last());
    Forms {
        plain: !(ragged || break_space || space_break || special || breaks || indicators),
        single: !(break_space || space_break || special),
        multiline: breaks,
    }
}

/// YAML 1.1 takes U+0085, U+2028 and U+2029 for line breaks and YAML 1.2 does
/// not: they are escaped, so that both read the same text.
fn is_printable_unicode(c: char) -> bool {
    !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
        && (('\u{a0}'..='\u{d7ff}').contains(&c)
            || ('\u{e000}'..='\u{fffd}').contains(&c)
            || ('\u{10000}'..'\u{10ffff}').contains(&c))
}

/// A writer that knows its column.
struct Pen<'o> {
    out: &'o mut String,
    column: usize,
    indent: usize,
    fold: bool,
}

impl Pen<'_> {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn put_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.put(c));
    }

    fn new_line(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indent(&mut self) {
        self.new_line();
        self.pad();
    }

    fn pad(&mut self) {
        while self.column < self.indent {
            self.put(' ');
        }
    }

    fn plain(&mut self, text: &str) {
        let chars: Vec<char> = text.chars().collect();
        for (index, &c) in chars.iter().enumerate() {
            if c == ' ' && self.folds_at(&chars, index) {
                self.indent();
            } else {
                self.put(c);
            }
        }
    }

    /// Whether the single space at `index` of a line that is already too long becomes a line break.
    fn folds_at(&self, chars: &[char], index: usize) -> bool {
        let lone = index.checked_sub(1).is_none_or(|i| chars[i] != ' ')
            && chars.get(index + 1).is_some_and(|&c| c != ' ');
        self.fold && lone && index > 0 && self.column > WIDTH
    }

    fn single(&mut self, text: &str) {
        let chars: Vec<char> = text.chars().collect();
        self.put('\'');
        let mut index = 0;
        while index < chars.len() {
            let c = chars[index];
            if is_break(c) {
                // A single line break in the text is two in quotes.
                let end = chars[index..]
                    .iter()
                    .position(|&c| !is_break(c))
                    .map_or(chars.len(), |n| index + n);
                for _ in index..end {
                    self.new_line();
                }
                self.new_line();
                self.pad();
                index = end;
                continue;
            }
            match c {
                ' ' if self.folds_at(&chars, index) => self.indent(),
                '\'' => self.put_str("''"),
                _ => self.put(c),
            }
            index += 1;
        }
        self.put('\'');
    }

    fn double(&mut self, text: &str) {
        let chars: Vec<char> = text.chars().collect();
        self.put('"');
        // Text up to `start` is written; what follows waits until a break or an escape.
        let mut start = 0;
        for (end, &c) in chars.iter().enumerate() {
            if needs_escape(c) {
                self.flush(&chars[start..end]);
                self.put_str(&escape(c));
                start = end + 1;
            }
            let may_break = c == ' ' || start >= end;
            if self.fold
                && end > 0
                && end + 1 < chars.len()
                && may_break
                && self.column + end > WIDTH + start
            {
                if start < end {
                    self.flush(&chars[start..end]);
                    start = end;
                }
                self.put('\\');
                self.indent();
                if chars.get(start) == Some(&' ') {
                    self.put('\\');
                }
            }
        }
        self.flush(&chars[start.min(chars.len())..]);
        self.put('"');
    }

    fn flush(&mut self, chars: &[char]) {
        chars.iter().for_each(|&c| self.put(c));
    }
}

fn needs_escape(c: char) -> bool {
    matches!(
        c,
        '"' | '\\' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
    ) || !((' '..='~').contains(&c)
        || ('\u{a0}'..='\u{d7ff}').contains(&c)
        || ('\u{e000}'..='\u{fffd}').contains(&c))
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = c as u32;
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::from("k: ");
        let layout = Layout {
            indent: 2,
            fold: true,
            key: false,
        };
        write(&mut out, text, false, layout);
        out
    }

    #[test]
    fn folds_only_past_the_width() {
        let text = format!("{} b c", "a".repeat(77));
        assert_eq!(written(&text), format!("k: {} b\n  c", "a".repeat(77)));
        let text = format!("# {} b  c", "a".repeat(90));
        assert_eq!(written(&text), format!("k: '# {}\n  b  c'", "a".repeat(90)));
    }

    /// PyYAML counts one column less right behind an escape.
    #[test]
    fn folds_behind_an_escape_only_past_the_width() {
        for (length, expected) in [(74, r" \n\n\"), (75, r" \n\")] {
            let text = format!("{} \n\nbc d", "a".repeat(length));
            let line = written(&text).lines().next().map(str::to_string);
            let expected = format!("k: \"{}{expected}", "a".repeat(length));
            assert_eq!(line, Some(expected));
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(written("a\u{1}\u{7f}\t"), r#"k: "a\x01\x7F\t""#);
        assert_eq!(written("a \nb"), r#"k: "a \nb""#);
    }

    #[test]
    fn keys_that_are_long_or_broken_are_not_simple() {
        assert!(fits_simple_key("a"));
        assert!(!fits_simple_key(""));
        assert!(!fits_simple_key("a\nb"));
        assert!(!fits_simple_key(&"a".repeat(123)));
        assert!(fits_simple_key(&"a".repeat(122)));
    }
}
