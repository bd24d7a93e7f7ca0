//! The part of an override after the `=`: typed words, quoted text, lists,
//! dictionaries, functions, and several of them with commas between.

use std::collections::HashMap;

use super::arguments::Arg;
use super::cursor::Cursor;
use super::element::Element;
use super::functions::call;
use super::scan::{self, Token, spaces, token, typed};
use super::sweeps::Sweep;
use super::{Fault, MAX_DEPTH};
use crate::compose::node::key_number;

/// No function has as many named arguments as this.
const MAX_NAMED: usize = 16;

/// The part after the `=`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// There was no `=` (only after `~`).
    Nothing,
    Element(Element),
    Sweep(Sweep),
}

impl Cursor {
    pub(super) fn value(&mut self) -> Result<Parsed, Fault> {
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
            Some(']' | '}') if self.inside_interpolation() => {
                self.fault("an interpolation that holds another one needs quotes: key='${a.${b}}'")
            }
            Some(c @ ('[' | '{' | '(' | ')' | ']' | '}' | '\'' | '"')) => self.fault(format!(
                "unexpected {c}; quote the whole value, or escape the character as \\{c}"
            )),
            Some(c) => self.fault(format!("unexpected '{c}'; quote the value to use it")),
        }
    }

    /// Whether a `${` before the position is still open.
    fn inside_interpolation(&self) -> bool {
        let before: String = self.chars[..self.pos].iter().collect();
        before.matches("${").count() > before.matches('}').count()
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
            Arg::Element(Element::Edit(edit)) => {
                Err(Fault::new(start, edit.misplaced(&format!("a {place}"))))
            }
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
        let mut pairs: Vec<(Element, Element)> = Vec::new();
        let mut places = HashMap::new();
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
            // A later key replaces the value of an equal one, as in Python. What is no key is
            // refused later.
            let last = pairs.len();
            let place = match key.to_key() {
                Ok(key) => *places.entry(key_number(&key)).or_insert(last),
                Err(_) => last,
            };
            match pairs.get_mut(place) {
                Some((_, there)) => *there = value,
                None => pairs.push((key, value)),
            }
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
                return self.fault(format!(
                    "'{c}' cannot stand in a value without quotes; write key='..'"
                ));
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
            [(kind, text)] => typed(*kind, text)
                .map(Element::scalar)
                .map_err(|message| Fault::new(self.pos, message)),
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
