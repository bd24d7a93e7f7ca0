//! A command line as a shell reads it, up to the cursor.

/// The words before the cursor's, and the cursor's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Without quotes.
    pub before: Vec<String>,
    pub word: Word,
}

/// The word at the cursor, cut there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Without quotes.
    pub text: String,
    /// A quote that is still open.
    pub quote: Option<char>,
    /// How much of `text` stands before the place from where bash replaces: after
    /// the open quote, or after the last break character.
    pub kept: usize,
}

/// Splits a line. `breaks` are the characters at which bash cuts words.
pub(super) fn split(line: &str, breaks: &str) -> Line {
    let mut before = Vec::new();
    let mut word = Word::default();
    let mut started = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (word.quote, c) {
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut started) {
                    before.push(std::mem::take(&mut word).text);
                }
                continue;
            }
            (None, '\'' | '"') => {
                word.quote = Some(c);
                word.kept = word.text.len();
            }
            (Some(quote), c) if c == quote => word.quote = None,
            (None, '\\') => word.text.extend(chars.next()),
            (Some('"'), '\\') if matches!(chars.peek(), Some('"' | '\\' | '$' | '`')) => {
                word.text.extend(chars.next());
            }
            (quote, c) => {
                word.text.push(c);
                if quote.is_none() && breaks.contains(c) {
                    word.kept = word.text.len();
                }
            }
        }
        started = true;
    }
    Line { before, word }
}

/// A text with what bash would take for its own escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() || "\\'\"$`&;|<>()*?!#{}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &str = " \t\n\"'@><=;|&(:";

    fn cut(line: &str) -> (Vec<String>, String, Option<char>, String) {
        let Line { before, word } = split(line, BREAKS);
        let rest = word.text[word.kept..].to_string();
        (before, word.text, word.quote, rest)
    }

    #[test]
    fn words_are_read_as_bash_reads_them() {
        for (line, before, word, quote, rest) in [
            ("run ", vec!["run"], "", None, ""),
            ("run tr", vec!["run"], "tr", None, "tr"),
            ("run a\\ b c=d", vec!["run", "a b"], "c=d", None, "d"),
            (
                "run 'a b' 'c=[d",
                vec!["run", "a b"],
                "c=[d",
                Some('\''),
                "c=[d",
            ),
            ("run c=\"d e", vec!["run"], "c=d e", Some('"'), "d e"),
            ("run c=d\\ e", vec!["run"], "c=d e", None, "d e"),
            ("run m@a=b:c", vec!["run"], "m@a=b:c", None, "c"),
            ("run '' x", vec!["run", ""], "x", None, "x"),
            ("", vec![], "", None, ""),
        ] {
            let before: Vec<String> = before.into_iter().map(str::to_string).collect();
            let expected = (before, word.to_string(), quote, rest.to_string());
            assert_eq!(cut(line), expected, "{line}");
        }
    }

    #[test]
    fn what_means_something_to_bash_is_escaped() {
        assert_eq!(escaped("a b$c'd[e,f"), "a\\ b\\$c\\'d[e,f");
    }
}
