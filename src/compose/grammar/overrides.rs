//! The override grammar: `key=value`, `+key=value`, `++key=value`, `~key`,
//! `group@package=option` and their values.

use super::Fault;
use super::cursor::Cursor;
use super::element::Element;
use super::scan::{self, spaces};
use super::sweeps::Sweep;
use super::values::Parsed;
use crate::compose::error::Problem;
use crate::compose::node::{Node, Origin};

/// What an override does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `key=value`
    Change,
    /// `+key=value`
    Add,
    /// `++key=value`
    ForceAdd,
    /// `~key`
    Delete,
}

/// One parsed override.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Override {
    pub kind: Kind,
    /// A dotted key or a group with slashes.
    pub key: String,
    /// After the `@`.
    pub package: Option<String>,
    pub value: Parsed,
    /// As typed.
    pub input: String,
    /// Where it was written, if not on the command line.
    pub written: Option<Origin>,
}

/// The value that an override with this text behind its `=` has; none where it has no single one.
pub fn override_value(text: &str) -> Option<Node> {
    let typed = format!("key={text}");
    let one = Override::parse(&typed).ok()?;
    let origin = Origin::CommandLine { text: typed.into() };
    match one.value {
        Parsed::Element(element) => element.to_node(&origin).ok(),
        Parsed::Nothing | Parsed::Sweep(_) => None,
    }
}

impl Override {
    /// Parses one override.
    ///
    /// # Errors
    /// A [`Fault`] with the column where the text stops making sense.
    pub(crate) fn parse(text: &str) -> Result<Override, Fault> {
        Cursor::new(text).override_(text)
    }

    /// Parses one override, or reports it with a caret under the fault.
    pub(crate) fn read(text: &str) -> Result<Override, Problem> {
        Override::parse(text).map_err(|fault| {
            Problem::new(format!("column {}: {}", fault.column + 1, fault.message))
                .at(&Origin::CommandLine { text: text.into() })
                .help(excerpt(text, fault.column))
        })
    }

    /// Parses all, or reports every one that fails.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Override>, Vec<Problem>> {
        let mut parsed = Vec::new();
        let mut problems = Vec::new();
        for text in texts {
            match Override::read(text) {
                Ok(one) => parsed.push(one),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(problems)
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        let typed = || Origin::CommandLine {
            text: self.input.as_str().into(),
        };
        self.written.clone().unwrap_or_else(typed)
    }

    pub(crate) fn is_hydra(&self) -> bool {
        self.key.starts_with("hydra.") || self.key.starts_with("hydra/")
    }

    /// Whether the value changes the list of its key instead of replacing it.
    pub(crate) fn edits_list(&self) -> bool {
        match &self.value {
            Parsed::Element(element) => matches!(element, Element::Edit(_)),
            Parsed::Sweep(Sweep::Choice { values, .. }) => {
                values.iter().any(|value| matches!(value, Element::Edit(_)))
            }
            _ => false,
        }
    }

    /// `key` or `key@package`, without the prefix.
    pub(crate) fn bare_key(&self) -> String {
        match &self.package {
            Some(package) => format!("{}@{package}", self.key),
            None => self.key.clone(),
        }
    }

    /// The key with its prefix, which is how overrides of the same thing are recognised.
    pub(crate) fn key_element(&self) -> String {
        let prefix = match self.kind {
            Kind::Change => "",
            Kind::Add => "+",
            Kind::ForceAdd => "++",
            Kind::Delete => "~",
        };
        format!("{prefix}{}", self.bare_key())
    }
}

/// Keys are read here, values in [`super::values`].
impl Cursor {
    fn override_(&mut self, input: &str) -> Result<Override, Fault> {
        let kind = match self.peek() {
            Some('~') => {
                self.pos += 1;
                Kind::Delete
            }
            Some('+') => {
                self.pos += 1;
                if self.peek() == Some('+') {
                    self.pos += 1;
                    Kind::ForceAdd
                } else {
                    Kind::Add
                }
            }
            _ => Kind::Change,
        };
        let key = self.key()?;
        let package = if self.peek() == Some('@') {
            self.pos += 1;
            let start = self.pos;
            self.pos += self.package_length();
            Some(self.text(start, self.pos))
        } else {
            None
        };
        let value = match self.peek() {
            None if kind == Kind::Delete => Parsed::Nothing,
            None => return self.fault("'=' is missing; an override is key=value"),
            Some('=') => {
                self.pos += 1;
                self.pos += spaces(&self.chars, self.pos);
                self.value()?
            }
            Some(':') if package.is_some() => {
                let package = package.unwrap_or_default();
                return self.fault(format!(
                    "a package cannot be renamed; write ~{key}@{package} +{key}@NEW=option"
                ));
            }
            Some(' ') if matches!(key.as_str(), "override" | "optional") => {
                return self.fault(format!(
                    "'{key}' belongs into a defaults list; on the command line a choice is group=option"
                ));
            }
            Some('-') if key.is_empty() => {
                return self.fault("a key does not begin with '-': overrides have no dashes");
            }
            Some('.') if key.contains('/') => {
                return self.fault(
                    "the name of a group, which '/' makes it, has no '.'; a key has '.' in place of '/'",
                );
            }
            Some(c) => {
                return self.fault(format!(
                    "'{c}' cannot stand in a key; keys are letters, digits, '_', '-' and '.', groups have '/'"
                ));
            }
        };
        Ok(Override {
            kind,
            key,
            package,
            value,
            input: input.to_string(),
            written: None,
        })
    }

    /// A dotted key, or identifiers with slashes between them.
    fn key(&mut self) -> Result<String, Fault> {
        let start = self.pos;
        let length = self.package_length();
        let is_id = length > 0 && scan::id(&self.chars[start..]) == length;
        self.pos += length;
        if self.peek() == Some('/') && is_id {
            while self.peek() == Some('/') {
                self.pos += 1;
                let rest = &self.chars[self.pos..];
                match (scan::id(rest), special_id(rest)) {
                    (0, _) => return self.fault("a group name is missing after '/'"),
                    (id, special) if special > id => {
                        self.pos += id;
                        return self.fault("a group name is letters, digits, '_' and '-'");
                    }
                    (id, _) => self.pos += id,
                }
            }
        }
        Ok(self.text(start, self.pos))
    }

    /// The length of a dotted path at the position; 0 for none. Path steps
    /// after a first one may be list indices.
    fn package_length(&self) -> usize {
        let rest = &self.chars[self.pos..];
        let step = |at: usize| {
            let rest = rest.get(at..).unwrap_or(&[]);
            special_id(rest).max(scan::unsigned_int(rest))
        };
        let first = step(0);
        if first == 0 {
            return 0;
        }
        let mut length = first;
        while rest.get(length) == Some(&'.') {
            match step(length + 1) {
                0 => break,
                n => length += 1 + n,
            }
        }
        // A lone number is no key.
        if length == first && special_id(rest) == 0 {
            0
        } else {
            length
        }
    }
}

/// The text around a column, and a caret under it.
pub(crate) fn excerpt(text: &str, column: usize) -> String {
    const SHOWN: usize = 80;
    let skipped = column.saturating_sub(SHOWN);
    let shown: String = text.chars().skip(skipped).take(2 * SHOWN).collect();
    format!("{shown}\n{}^", " ".repeat(column - skipped))
}

/// An identifier that may hold `$`.
fn special_id(rest: &[char]) -> usize {
    match rest.first() {
        Some(c) if c.is_ascii_alphabetic() || matches!(c, '_' | '$') => rest
            .iter()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'))
            .count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<String, Fault> {
        Override::parse(text).map(|o| match o.value {
            Parsed::Nothing => "nothing".to_string(),
            Parsed::Element(e) => format!("{} {}", e.type_name(), e.to_text()),
            Parsed::Sweep(Sweep::Choice { values, .. }) => format!(
                "sweep {}",
                values
                    .iter()
                    .map(Element::to_text)
                    .collect::<Vec<_>>()
                    .join(" ; ")
            ),
            Parsed::Sweep(_) => "sweep".to_string(),
        })
    }

    /// Appendix A of the measured Hydra behaviour.
    #[test]
    fn values() {
        for (text, expected) in [
            ("k=", "str "),
            ("k=null", "null null"),
            ("k=yes", "str yes"),
            ("k=+10", "int 10"),
            ("k=1_000", "int 1000"),
            ("k=-99999999999999999999", "int -99999999999999999999"),
            ("k=010", "str 010"),
            ("k=0x10", "str 0x10"),
            ("k=1.", "float 1.0"),
            ("k=.5", "float 0.5"),
            ("k=-1.5e+3", "float -1500.0"),
            ("k=NaN", "float nan"),
            ("k=Infinity", "str Infinity"),
            (r"k='a\'b'", r"str 'a\'b'"),
            (r"k='a\\b'", r"str 'a\\b'"),
            ("k=a  b", r"str a\ \ b"),
            ("k= a ", "str a"),
            (r"k=a\,b", r"str a\,b"),
            ("k=a:b", r"str a\:b"),
            ("k=/a/b", "str /a/b"),
            ("k=${a.b}_${c}", r"str $\{a.b\}_$\{c\}"),
            ("k=[a, b, [c]]", "list [a,b,[c]]"),
            ("k=[1,a,null,true,1e3]", "list [1,a,null,True,1000.0]"),
            ("k={a: 1, b: {c: [1,2]}}", "dict {a:1,b:{c:[1,2]}}"),
            ("k=[]", "list []"),
            ("k={}", "dict {}"),
            ("k={a b:1}", r"dict {a\ b:1}"),
            ("k=a,b,c", "sweep a ; b ; c"),
            ("k=[a,b],[c,d]", "sweep [a,b] ; [c,d]"),
            ("k='a,b',c", "sweep 'a,b' ; c"),
            ("~k", "nothing"),
            ("k=range(3)", "sweep"),
        ] {
            assert_eq!(value(text), Ok(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn keys() {
        let parse =
            |text: &str| Override::parse(text).map(|o| (o.kind, o.key.clone(), o.package.clone()));
        let some = |s: &str| Some(s.to_string());
        assert_eq!(parse("a.b.0=1"), Ok((Kind::Change, "a.b.0".into(), None)));
        assert_eq!(parse("++$x.y=1"), Ok((Kind::ForceAdd, "$x.y".into(), None)));
        assert_eq!(
            parse("+a/b@c.d=1"),
            Ok((Kind::Add, "a/b".into(), some("c.d")))
        );
        assert_eq!(parse("~db@="), Ok((Kind::Delete, "db".into(), some(""))));
        for text in [
            "a b=1", "a[0]=1", "ü=1", "1=2", "a..b=1", "a/=1", "a/b.c=1", "a:b=1", "k", "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn faults_name_the_column() {
        for (text, column) in [
            ("k=a=b", 3),
            ("k=a#b", 3),
            ("k=[1,2", 6),
            ("k=a,", 4),
            ("k={'a b':1}", 3),
            ("k=~", 2),
            ("k='x", 2),
            ("k=${oc.env:A,${b}}", 17),
            ("k=ünï", 2),
            ("seed", 4),
            ("quoted(=3", 6),
            ("k='a'b", 5),
        ] {
            let fault = Override::parse(text).expect_err(text);
            assert_eq!(fault.column, column, "{text}: {}", fault.message);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("k={}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Override::parse(&deep).is_err());
        let calls = format!("k={}", "int(".repeat(100_000));
        assert!(Override::parse(&calls).is_err());
    }

    #[test]
    fn all_bad_overrides_are_reported() {
        let texts = ["a=1", "b", "c=#"].map(String::from);
        let problems = Override::parse_all(&texts).expect_err("two are bad");
        assert_eq!(problems.len(), 2);
        assert!(
            problems[1].to_string().contains("c=#\n    ^"),
            "{}",
            problems[1]
        );
    }
}
