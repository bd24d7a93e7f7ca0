//! The override grammar: `key=value`, `+key=value`, `++key=value`, `~key`,
//! `group@package=option` and their values.

use super::element::Element;
use super::functions::{Arg, call};
use super::scan::{self, Token, spaces, token};
use super::sweeps::Sweep;
use super::{Fault, MAX_DEPTH};
use crate::compose::error::Problem;
use crate::compose::node::Origin;
use crate::compose::python;

/// No function has as many named arguments as this.
const MAX_NAMED: usize = 16;

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

/// The part after the `=`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// There was no `=` (only after `~`).
    Nothing,
    Element(Element),
    Sweep(Sweep),
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
}

impl Override {
    /// Parses one override.
    ///
    /// # Errors
    /// A [`Fault`] with the column where the text stops making sense.
    pub(crate) fn parse(text: &str) -> Result<Override, Fault> {
        let mut parser = Parser {
            chars: text.chars().collect(),
            pos: 0,
            depth: 0,
        };
        parser.override_(text)
    }

    /// Parses all, or reports every one that fails, each with a caret under the fault.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Override>, Vec<Problem>> {
        let mut parsed = Vec::new();
        let mut problems = Vec::new();
        for text in texts {
            match Override::parse(text) {
                Ok(one) => parsed.push(one),
                Err(fault) => problems.push(
                    Problem::new(format!("column {}: {}", fault.column + 1, fault.message))
                        .at(&Origin::CommandLine {
                            text: text.as_str().into(),
                        })
                        .help(excerpt(text, fault.column)),
                ),
            }
        }
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(problems)
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::CommandLine {
            text: self.input.as_str().into(),
        }
    }

    pub(crate) fn is_hydra(&self) -> bool {
        self.key.starts_with("hydra.") || self.key.starts_with("hydra/")
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

struct Parser {
    chars: Vec<char>,
    pos: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.pos).copied()
    }

    fn text(&self, start: usize, end: usize) -> String {
        self.chars[start..end].iter().collect()
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(self.pos, message))
    }

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

    fn value(&mut self) -> Result<Parsed, Fault> {
        if self.peek().is_none() {
            return Ok(Parsed::Element(Element::Str(String::new())));
        }
        let start = self.pos;
        let first = self.element()?;
        let mut values = vec![first];
        while self.punctuation(',') {
            values.push(self.element()?);
        }
        if self.peek().is_some() {
            return self.unexpected();
        }
        if values.len() == 1 {
            return Ok(match values.remove(0) {
                Arg::Element(element) => Parsed::Element(element),
                Arg::Sweep(sweep) => Parsed::Sweep(sweep),
            });
        }
        let values = values
            .into_iter()
            .map(|value| match value {
                Arg::Element(element) => Ok(element),
                Arg::Sweep(_) => Err(Fault::new(
                    start,
                    "a sweep cannot hold another sweep; use one list of values",
                )),
            })
            .collect::<Result<_, _>>()?;
        Ok(Parsed::Sweep(Sweep::Choice {
            values,
            simple: true,
            shuffle: false,
        }))
    }

    /// Consumes a punctuation character with the spaces around it.
    fn punctuation(&mut self, wanted: char) -> bool {
        let at = self.pos + spaces(&self.chars, self.pos);
        if self.chars.get(at) != Some(&wanted) {
            return false;
        }
        self.pos = at + 1;
        // Closing brackets take only the spaces before them.
        if !matches!(wanted, ')' | ']' | '}') {
            self.pos += spaces(&self.chars, self.pos);
        }
        true
    }

    fn unexpected<T>(&mut self) -> Result<T, Fault> {
        self.pos += spaces(&self.chars, self.pos);
        match self.peek() {
            None => self.fault("the value ends too early"),
            Some('=') => self.fault(
                "'=' cannot stand in a value without quotes; write key='..' or escape it as \\=",
            ),
            Some(c @ ('[' | '{' | '(' | ')' | ']' | '}' | '\'' | '"')) => self.fault(format!(
                "unexpected {c}; quote the whole value, or escape the character as \\{c}"
            )),
            Some(c) => self.fault(format!("unexpected '{c}'; quote the value to use it")),
        }
    }

    fn element(&mut self) -> Result<Arg, Fault> {
        if self.depth >= MAX_DEPTH {
            return self.fault(format!("brackets nested deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let element = match self.peek() {
            None => return self.fault("a value is missing"),
            Some('[') => self.list().map(Arg::Element),
            Some('{') => self.dict().map(Arg::Element),
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Arg::Element),
            Some(_) => match self.function_name() {
                Some(length) => self.function(length),
                None => self.primitive(false).map(Arg::Element),
            },
        };
        self.depth -= 1;
        element
    }

    /// An element that may not be a sweep.
    fn plain_element(&mut self, place: &str) -> Result<Element, Fault> {
        let start = self.pos;
        match self.element()? {
            Arg::Element(element) => Ok(element),
            Arg::Sweep(_) => Err(Fault::new(
                start,
                format!("a sweep cannot stand inside a {place}"),
            )),
        }
    }

    fn list(&mut self) -> Result<Element, Fault> {
        self.punctuation('[');
        let mut items = Vec::new();
        if self.punctuation(']') {
            return Ok(Element::List(items));
        }
        loop {
            items.push(self.plain_element("list")?);
            if self.punctuation(']') {
                return Ok(Element::List(items));
            }
            if !self.punctuation(',') {
                return self.close_or_fault(']');
            }
        }
    }

    fn dict(&mut self) -> Result<Element, Fault> {
        self.punctuation('{');
        let mut pairs = Vec::new();
        if self.punctuation('}') {
            return Ok(Element::Dict(pairs));
        }
        loop {
            if matches!(self.peek(), Some('\'' | '"')) {
                return self.fault("keys inside {..} are not quoted; escape spaces as '\\ '");
            }
            let key = self.primitive(true)?;
            if !self.punctuation(':') {
                return self.fault("':' is missing after the key");
            }
            let value = self.plain_element("dict")?;
            // A later key replaces the value of an equal one, as in Python.
            pairs.push((key, value));
            if self.punctuation('}') {
                return Ok(Element::Dict(pairs));
            }
            if !self.punctuation(',') {
                return self.close_or_fault('}');
            }
        }
    }

    fn close_or_fault<T>(&mut self, close: char) -> Result<T, Fault> {
        if self.pos + spaces(&self.chars, self.pos) >= self.chars.len() {
            return self.fault(format!("'{close}' is missing"));
        }
        self.unexpected()
    }

    /// Text in quotes. A backslash counts only in a row of them before a quote.
    fn quoted(&mut self, quote: char) -> Result<Element, Fault> {
        let open = self.pos;
        self.pos += 1;
        let mut text = String::new();
        let mut slashes = 0;
        while let Some(c) = self.peek() {
            self.pos += 1;
            if c == '\\' {
                slashes += 1;
                continue;
            }
            if c != quote {
                text.extend(std::iter::repeat_n('\\', slashes));
                slashes = 0;
                text.push(c);
                continue;
            }
            text.extend(std::iter::repeat_n('\\', slashes / 2));
            if slashes % 2 == 0 {
                return Ok(Element::Quoted { text, quote });
            }
            slashes = 0;
            text.push(quote);
        }
        self.pos = open;
        self.fault("the quote is not closed")
    }

    /// The length of the name when a call `name(` stands here.
    fn function_name(&self) -> Option<usize> {
        let (kind, length) = token(&self.chars, self.pos)?;
        let after = self.pos + length;
        let at = after + spaces(&self.chars, after);
        (kind == Token::Id && self.chars.get(at) == Some(&'(')).then_some(length)
    }

    fn function(&mut self, name_length: usize) -> Result<Arg, Fault> {
        let start = self.pos;
        let name = self.text(start, start + name_length);
        self.pos += name_length;
        self.punctuation('(');
        let mut args = Vec::new();
        let mut named: Vec<(String, Arg)> = Vec::new();
        if !self.punctuation(')') {
            loop {
                match self.argument_name() {
                    Some(key) => {
                        let value = self.element()?;
                        if let Some(old) = named.iter_mut().find(|(k, _)| *k == key) {
                            old.1 = value;
                        } else if named.len() >= MAX_NAMED {
                            return self.fault(format!("more than {MAX_NAMED} named arguments"));
                        } else {
                            named.push((key, value));
                        }
                    }
                    None if named.is_empty() => args.push(self.element()?),
                    None => return self.fault("an unnamed argument stands after a named one"),
                }
                if self.punctuation(')') {
                    break;
                }
                if !self.punctuation(',') {
                    return self.close_or_fault(')');
                }
            }
        }
        call(&name, args, named).map_err(|message| Fault::new(start, message))
    }

    /// Consumes `name=` before an argument.
    fn argument_name(&mut self) -> Option<String> {
        let (kind, length) = token(&self.chars, self.pos)?;
        let end = self.pos + length;
        let at = end + spaces(&self.chars, end);
        if kind != Token::Id || self.chars.get(at) != Some(&'=') {
            return None;
        }
        let name = self.text(self.pos, end);
        self.pos = end;
        self.punctuation('=');
        Some(name)
    }

    /// Bare text: one typed token, or several that join to a string.
    fn primitive(&mut self, is_key: bool) -> Result<Element, Fault> {
        let mut tokens: Vec<(Option<Token>, String)> = Vec::new();
        loop {
            let space = spaces(&self.chars, self.pos);
            match self.chars.get(self.pos + space) {
                Some(',' | '(' | ')' | ']' | '}' | '=') => break,
                Some(':') if is_key => break,
                Some(':') => {
                    let start = self.pos;
                    self.punctuation(':');
                    tokens.push((None, self.text(start, self.pos)));
                    continue;
                }
                _ => {}
            }
            let Some(c) = self.peek() else { break };
            if matches!(c, '[' | '{' | '\'' | '"') {
                break;
            }
            if let Some(length) = self.interpolation_length()
                && !is_key
            {
                tokens.push((None, self.text(self.pos, self.pos + length)));
                self.pos += length;
                continue;
            }
            let Some((kind, length)) = token(&self.chars, self.pos) else {
                return self.fault(format!("'{c}' cannot stand in a value without quotes"));
            };
            let text = &self.chars[self.pos..self.pos + length];
            let text = match kind {
                Token::Escape => scan::unescape(text),
                _ => text.iter().collect(),
            };
            tokens.push((Some(kind), text));
            self.pos += length;
        }
        let is_space = |t: Option<&(Option<Token>, String)>| {
            t.is_some_and(|(kind, _)| *kind == Some(Token::Space))
        };
        let start = usize::from(is_space(tokens.first()));
        let end = tokens.len() - usize::from(tokens.len() > start && is_space(tokens.last()));
        match &tokens[start..end] {
            [] => self.unexpected(),
            [(kind, text)] => typed(*kind, text).map_err(|message| Fault::new(self.pos, message)),
            many => Ok(Element::Str(
                many.iter().map(|(_, text)| text.as_str()).collect(),
            )),
        }
    }

    /// The length of a `${..}` without nested braces.
    fn interpolation_length(&self) -> Option<usize> {
        let rest = &self.chars[self.pos..];
        if !rest.starts_with(&['$', '{']) {
            return None;
        }
        let close = rest.iter().position(|c| *c == '}')?;
        (close > 2).then_some(close + 1)
    }
}

/// The text around a column, and a caret under it.
fn excerpt(text: &str, column: usize) -> String {
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

/// The value of a single token.
pub(crate) fn typed(kind: Option<Token>, text: &str) -> Result<Element, String> {
    Ok(match kind {
        Some(Token::Null) => Element::Null,
        Some(Token::Bool) => Element::Bool(text.eq_ignore_ascii_case("true")),
        Some(Token::Int) => Element::Int(python::parse_int(text).ok_or_else(|| {
            format!("the integer {text} does not fit 64 bits; quote it to keep it as a string")
        })?),
        Some(Token::Float) => Element::Float(
            python::parse_float(text).ok_or_else(|| format!("{text} is not a float"))?,
        ),
        _ => Element::Str(text.to_string()),
    })
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
            ("k=99999999999999999999", 22),
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
