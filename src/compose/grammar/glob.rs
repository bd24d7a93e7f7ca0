//! Shell patterns: `*`, `?`, `[a-z]`, `[!a]`.

/// A pattern, taken apart once so that matching is linear in the pattern for
/// every start that a `*` allows.
pub(crate) struct Glob {
    pieces: Vec<Piece>,
}

enum Piece {
    Star,
    Any,
    Char(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    pub(crate) fn new(pattern: &str) -> Glob {
        let chars: Vec<char> = pattern.chars().collect();
        let last_close = chars.iter().rposition(|c| *c == ']').unwrap_or(0);
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            let (piece, width) = match c {
                '*' => (Piece::Star, 1),
                '?' => (Piece::Any, 1),
                '[' if at < last_close => class(&chars[at..]).unwrap_or((Piece::Char(c), 1)),
                _ => (Piece::Char(c), 1),
            };
            at += width;
            // Stars in a row are one.
            if !matches!((pieces.last(), &piece), (Some(Piece::Star), Piece::Star)) {
                pieces.push(piece);
            }
        }
        Glob { pieces }
    }

    /// Whether the whole name fits.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Position in the pattern after the last star, and the name position tried for it.
        let (mut p, mut n, mut retry) = (0, 0, None);
        while n < name.len() {
            let fits = match self.pieces.get(p) {
                Some(Piece::Star) => {
                    p += 1;
                    retry = Some((p, n));
                    continue;
                }
                Some(piece) => piece.fits(name[n]),
                None => false,
            };
            match retry {
                _ if fits => {
                    p += 1;
                    n += 1;
                }
                Some((after, from)) => {
                    p = after;
                    n = from + 1;
                    retry = Some((after, n));
                }
                None => return false,
            }
        }
        self.pieces[p..]
            .iter()
            .all(|piece| matches!(piece, Piece::Star))
    }
}

impl Piece {
    fn fits(&self, c: char) -> bool {
        match self {
            Piece::Star => false,
            Piece::Any => true,
            Piece::Char(own) => *own == c,
            Piece::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

/// The class that starts the text, with its width; `None` if it is not closed.
fn class(text: &[char]) -> Option<(Piece, usize)> {
    let negated = text.get(1) == Some(&'!');
    let start = 1 + usize::from(negated);
    // A `]` in first place is a member.
    let end = (start + 1..text.len()).find(|i| text[*i] == ']')?;
    let mut ranges = Vec::new();
    let mut rest = &text[start..end];
    while let Some(&from) = rest.first() {
        let (to, width) = match rest {
            [_, '-', to, ..] => (*to, 3),
            _ => (from, 1),
        };
        ranges.push((from, to));
        rest = &rest[width..];
    }
    Some((Piece::Class { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("?b", "ab", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[", "[", true),
            ("[[]", "[", true),
            ("[]]", "]", true),
            ("[]", "[]", true),
            ("[!]", "[!]", true),
            ("x[a", "x[a", true),
            ("[a-]", "-", true),
            ("", "", true),
            ("", "a", false),
            ("**", "", true),
            ("a*b*c*", "aXbXcX", true),
            ("*a*b", "xaxbxb", true),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let name = "a".repeat(250);
        assert!(!Glob::new(&"*a".repeat(500_000)).matches(&name));
        assert!(!Glob::new(&format!("{}b", "*a".repeat(200))).matches(&name));
        assert!(!Glob::new(&format!("*{}", "[".repeat(1_000_000))).matches(&"[".repeat(250)));
        assert!(!Glob::new(&"[".repeat(1_000_000)).matches(&name));
    }
}
