//! OmegaConf's interpolation grammar: text with `${key.path}` and
//! `${resolver:args}` in it, nested as one likes.

use super::scan::{self, Scalar, Token, spaces, token, typed};
use super::template::{Arg, Interpolation, Part, Template, join_text, push_text};
use super::{Fault, MAX_DEPTH};
use crate::compose::big_int::Integer;
use crate::compose::node::Key;

/// Parses a whole string value.
///
/// # Errors
/// A `${` that is not closed or holds no valid interpolation.
pub(crate) fn parse(text: &str) -> Result<Template, Fault> {
    let mut parser = Parser::new(text);
    let parts = parser.text(None)?;
    Ok(Template { parts })
}

/// The text that reads back as `text` itself: each `${` gets a backslash, and the
/// backslashes right before it are doubled, since they count only there.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let slashes = before.len() - before.trim_end_matches('\\').len();
        out.push_str(before);
        out.extend(std::iter::repeat_n('\\', slashes + 1));
        out.push_str("${");
        rest = &rest[at + 2..];
    }
    out + rest
}

/// Whether a string value is well formed; the error says why not.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if !text.contains("${") {
        return Ok(());
    }
    parse(text)
        .map(|_| ())
        .map_err(|fault| format!("{} at column {}", fault.message, fault.column + 1))
}

/// Parses one typed value, as `oc.decode` reads it.
pub(crate) fn parse_element(text: &str) -> Result<Arg, Fault> {
    let mut parser = Parser::new(text);
    let arg = parser.element()?;
    if parser.pos < parser.chars.len() {
        return parser.fault("unexpected text after the value");
    }
    Ok(arg)
}

struct Parser {
    chars: Vec<char>,
    pos: usize,
    depth: usize,
}

impl Parser {
    fn new(text: &str) -> Parser {
        Parser {
            chars: text.chars().collect(),
            pos: 0,
            depth: 0,
        }
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(self.pos, message))
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.pos).copied()
    }

    fn opens(&self, at: usize) -> bool {
        self.chars.get(at) == Some(&'$') && self.chars.get(at + 1) == Some(&'{')
    }

    fn skip_spaces(&mut self) {
        self.pos += spaces(&self.chars, self.pos);
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fault(format!("nested deeper than {MAX_DEPTH}"));
        }
        Ok(())
    }

    /// Text up to the end, or up to the closing quote, which is consumed.
    /// Backslashes count only before `${` and before the closing quote.
    fn text(&mut self, quote: Option<char>) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        let mut text = String::new();
        loop {
            let slashes = self.chars[self.pos..]
                .iter()
                .take_while(|c| **c == '\\')
                .count();
            let after = self.pos + slashes;
            let at_quote = quote.is_some() && self.chars.get(after).copied() == quote;
            if slashes > 0 && (self.opens(after) || at_quote) {
                text.extend(std::iter::repeat_n('\\', slashes / 2));
                self.pos = after;
                if slashes % 2 == 1 {
                    let width = if at_quote { 1 } else { 2 };
                    text.extend(&self.chars[after..after + width]);
                    self.pos += width;
                    continue;
                }
            } else if slashes > 0 {
                text.extend(std::iter::repeat_n('\\', slashes));
                self.pos = after;
            }
            match self.peek() {
                None if quote.is_some() => return self.fault("the quote is not closed"),
                None => break,
                c if c == quote => {
                    self.pos += 1;
                    break;
                }
                _ if self.opens(self.pos) => {
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(Part::Interpolation(self.interpolation()?));
                }
                Some(c) => {
                    text.push(c);
                    self.pos += 1;
                }
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    /// A `${..}` at the position.
    fn interpolation(&mut self) -> Result<Interpolation, Fault> {
        self.enter()?;
        self.pos += 2;
        self.skip_spaces();
        let mut path: Vec<Part> = Vec::new();
        // Only identifiers with dots between them can name a resolver.
        let mut names_resolver = true;
        while self.peek() == Some('.') {
            self.pos += 1;
            push_text(&mut path, ".");
            names_resolver = false;
        }
        let mut expects_key = true;
        let result = loop {
            if expects_key && self.peek() == Some('[') {
                names_resolver = false;
                self.bracket(&mut path)?;
            } else if expects_key {
                names_resolver &= self.config_key(&mut path)?;
            }
            let next = self.pos + spaces(&self.chars, self.pos);
            match self.chars.get(next) {
                Some('}') => {
                    self.pos = next + 1;
                    break Interpolation::Node(path);
                }
                Some(':') if names_resolver => {
                    self.pos = next + 1;
                    self.skip_spaces();
                    let args = self.resolver_args()?;
                    break Interpolation::Resolver { name: path, args };
                }
                Some('.') if next == self.pos => {
                    self.pos += 1;
                    push_text(&mut path, ".");
                    if self.peek() == Some('[') {
                        return self.fault("a key is missing between '.' and '['");
                    }
                    expects_key = true;
                }
                Some('[') if next == self.pos => {
                    names_resolver = false;
                    self.bracket(&mut path)?;
                    expects_key = false;
                }
                None => return self.fault("'}' is missing"),
                Some(c) => {
                    let c = *c;
                    self.pos = next;
                    return self.fault(format!("unexpected '{c}' inside ${{..}}"));
                }
            }
        };
        self.depth -= 1;
        Ok(result)
    }

    fn bracket(&mut self, path: &mut Vec<Part>) -> Result<(), Fault> {
        self.pos += 1;
        push_text(path, "[");
        self.config_key(path)?;
        if self.peek() != Some(']') {
            return self.fault("']' is missing");
        }
        self.pos += 1;
        push_text(path, "]");
        Ok(())
    }

    /// One key of a path: bare text or a nested interpolation. Gives whether it
    /// may be part of a resolver's name.
    fn config_key(&mut self, path: &mut Vec<Part>) -> Result<bool, Fault> {
        if self.opens(self.pos) {
            let inner = self.interpolation()?;
            path.push(Part::Interpolation(inner));
            return Ok(true);
        }
        let start = self.pos;
        let length = self.chars[start..]
            .iter()
            .take_while(|c| !is_reserved(**c))
            .count();
        if length == 0 {
            return match self.peek() {
                Some(c) => self.fault(format!("a key is expected here, not '{c}'")),
                None => self.fault("'}' is missing"),
            };
        }
        self.pos += length;
        let key: String = self.chars[start..self.pos].iter().collect();
        push_text(path, &key);
        Ok(scan::id(&self.chars[start..self.pos]) == length)
    }

    fn resolver_args(&mut self) -> Result<Vec<Arg>, Fault> {
        if self.closes('}') {
            return Ok(Vec::new());
        }
        self.sequence('}')
    }

    /// Whether the closing character stands next, after spaces; consumes it.
    fn closes(&mut self, close: char) -> bool {
        let at = self.pos + spaces(&self.chars, self.pos);
        let found = self.chars.get(at) == Some(&close);
        if found {
            self.pos = at + 1;
        }
        found
    }

    fn comma(&mut self) -> bool {
        let found = self.closes(',');
        if found {
            self.skip_spaces();
        }
        found
    }

    /// Values with commas between them, up to and with the closing character.
    /// A value left out is the empty string.
    fn sequence(&mut self, close: char) -> Result<Vec<Arg>, Fault> {
        let mut args = Vec::new();
        let empty = || Arg::Text(Template { parts: Vec::new() });
        loop {
            let next = self.pos + spaces(&self.chars, self.pos);
            let missing = match self.chars.get(next) {
                Some(',') => true,
                Some(c) => *c == close,
                None => false,
            };
            args.push(if missing { empty() } else { self.element()? });
            if self.closes(close) {
                return Ok(args);
            }
            if !self.comma() {
                return match self.peek() {
                    None => self.fault(format!("'{close}' is missing")),
                    Some(c) => self.fault(format!("unexpected '{c}'; quote the value to use it")),
                };
            }
        }
    }

    fn element(&mut self) -> Result<Arg, Fault> {
        self.enter()?;
        let arg = match self.peek() {
            Some('[') => {
                self.pos += 1;
                self.skip_spaces();
                if self.closes(']') {
                    Arg::List(Vec::new())
                } else {
                    Arg::List(self.sequence(']')?)
                }
            }
            Some('{') => Arg::Dict(self.dict()?),
            Some(quote @ ('\'' | '"')) => {
                self.pos += 1;
                let parts = self.text(Some(quote))?;
                Arg::Quoted(Template { parts })
            }
            _ => self.primitive()?,
        };
        self.depth -= 1;
        Ok(arg)
    }

    fn dict(&mut self) -> Result<Vec<(Key, Arg)>, Fault> {
        self.pos += 1;
        self.skip_spaces();
        let mut pairs = Vec::new();
        if self.closes('}') {
            return Ok(pairs);
        }
        loop {
            let key = self.dict_key()?;
            if !self.closes(':') {
                return self.fault("':' is missing after the key");
            }
            self.skip_spaces();
            pairs.push((key, self.element()?));
            if self.closes('}') {
                return Ok(pairs);
            }
            if !self.comma() {
                return self.fault("'}' is missing");
            }
        }
    }

    fn dict_key(&mut self) -> Result<Key, Fault> {
        let start = self.pos;
        let tokens = self.tokens(true)?;
        match self.typed(tokens)? {
            Arg::Bool(b) => Ok(Key::Bool(b)),
            Arg::Int(i) => Ok(Key::Int(i)),
            Arg::BigInt(i) => Ok(Key::BigInt(i)),
            Arg::Float(f) => Ok(Key::Float(f.to_bits())),
            Arg::Text(template) => match template.parts.as_slice() {
                [Part::Text(text)] => Ok(Key::Str(text.clone())),
                _ => Err(Fault::new(start, "a key is expected here")),
            },
            Arg::Null | Arg::Quoted(_) | Arg::List(_) | Arg::Dict(_) => {
                Err(Fault::new(start, "null cannot be a key"))
            }
        }
    }

    fn primitive(&mut self) -> Result<Arg, Fault> {
        let tokens = self.tokens(false)?;
        self.typed(tokens)
    }

    /// The tokens of bare text, up to punctuation.
    fn tokens(&mut self, is_key: bool) -> Result<Vec<(Option<Token>, Part)>, Fault> {
        let mut tokens = Vec::new();
        loop {
            let space = spaces(&self.chars, self.pos);
            match self.chars.get(self.pos + space) {
                Some(',' | ']' | '}') => return Ok(tokens),
                Some(':') if is_key => return Ok(tokens),
                Some(':') => {
                    let start = self.pos;
                    self.pos += space + 1;
                    self.skip_spaces();
                    let text = self.chars[start..self.pos].iter().collect();
                    tokens.push((None, Part::Text(text)));
                    continue;
                }
                _ => {}
            }
            let Some(c) = self.peek() else {
                return Ok(tokens);
            };
            if self.opens(self.pos) {
                if is_key {
                    return self.fault("a key cannot be an interpolation");
                }
                let inner = self.interpolation()?;
                tokens.push((None, Part::Interpolation(inner)));
                continue;
            }
            let Some((kind, length)) = token(&self.chars, self.pos) else {
                return self.fault(format!("'{c}' cannot stand here without quotes"));
            };
            let text = &self.chars[self.pos..self.pos + length];
            let text = match kind {
                Token::Escape => scan::unescape(text),
                _ => text.iter().collect(),
            };
            tokens.push((Some(kind), Part::Text(text)));
            self.pos += length;
        }
    }

    fn typed(&self, mut tokens: Vec<(Option<Token>, Part)>) -> Result<Arg, Fault> {
        if tokens.is_empty() {
            return self.fault("a value is missing");
        }
        if tokens.len() > 1 {
            let parts = tokens.into_iter().map(|(_, part)| part).collect();
            return Ok(Arg::Text(Template {
                parts: join_text(parts),
            }));
        }
        let (kind, part) = tokens.remove(0);
        let Part::Text(text) = part else {
            return Ok(Arg::Text(Template { parts: vec![part] }));
        };
        match typed(kind, &text).map_err(|message| Fault::new(self.pos, message))? {
            Scalar::Null => Ok(Arg::Null),
            Scalar::Bool(b) => Ok(Arg::Bool(b)),
            Scalar::Int(Integer::Small(i)) => Ok(Arg::Int(i)),
            Scalar::Int(Integer::Big(i)) => Ok(Arg::BigInt(i)),
            Scalar::Float(f) => Ok(Arg::Float(f)),
            Scalar::Text(text) => Ok(Arg::Text(Template {
                parts: vec![Part::Text(text)],
            })),
        }
    }
}

/// A `$` is part of a key, also before a `{`, which then is out of place.
fn is_reserved(c: char) -> bool {
    matches!(
        c,
        '\\' | '{' | '}' | '(' | ')' | '[' | ']' | ':' | '.' | ' ' | '\t' | '\'' | '"'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(parts: &[Part]) -> String {
        parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Interpolation(Interpolation::Node(path)) => format!("<{}>", text_of(path)),
                Part::Interpolation(Interpolation::Resolver { name, args }) => {
                    let args: Vec<String> = args.iter().map(arg_text).collect();
                    format!("<{}:{}>", text_of(name), args.join("|"))
                }
            })
            .collect()
    }

    fn arg_text(arg: &Arg) -> String {
        match arg {
            Arg::Text(template) | Arg::Quoted(template) => {
                format!("'{}'", text_of(&template.parts))
            }
            Arg::List(items) => format!("{:?}", items.iter().map(arg_text).collect::<Vec<_>>()),
            other => format!("{other:?}"),
        }
    }

    fn shape(text: &str) -> String {
        parse(text).map_or_else(|f| format!("fault {}", f.column), |t| text_of(&t.parts))
    }

    #[test]
    fn strings() {
        for (text, expected) in [
            ("plain $a", "plain $a"),
            ("${a.b}", "<a.b>"),
            ("pre_${a}_post", "pre_<a>_post"),
            ("${..a[0].b}", "<..a[0].b>"),
            ("${[a].b}", "<[a].b>"),
            ("${a.${k}}", "<a.<k>>"),
            ("${ a.b }", "<a.b>"),
            (r"\${a}", "${a}"),
            (r"\\${a}", r"\<a>"),
            (r"\\\${a}", r"\${a}"),
            (r"a\b", r"a\b"),
            ("}${a}", "}<a>"),
            ("${a.0}", "<a.0>"),
            ("${$}", "<$>"),
            ("${$x.a$b[$]}", "<$x.a$b[$]>"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn resolvers() {
        for (text, expected) in [
            ("${oc.env:HOME}", "<oc.env:'HOME'>"),
            (
                "${f:a,1,1.5,true,null}",
                "<f:'a'|Int(1)|Float(1.5)|Bool(true)|Null>",
            ),
            ("${f:}", "<f:>"),
            ("${f:,}", "<f:''|''>"),
            ("${f:a,}", "<f:'a'|''>"),
            ("${f: a , b c }", "<f:'a'|'b c'>"),
            ("${f:http://x/y?z}", "<f:'http://x/y?z'>"),
            ("${f:x${a}y,${b}}", "<f:'x<a>y'|'<b>'>"),
            ("${f:'a,${b}',\"d\"}", "<f:'a,<b>'|'d'>"),
            (r"${f:'it\'s',\,}", "<f:'it's'|','>"),
            ("${now:%Y-%m-%d}", "<now:'%Y-%m-%d'>"),
            ("${f:[a:b]}", "<f:[\"'a:b'\"]>"),
            ("${${n}:1}", "<<n>:Int(1)>"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn faults() {
        for (text, column) in [
            ("${", 2),
            ("${a.b", 5),
            ("${}", 2),
            ("${a. b}", 4),
            ("${a b}", 4),
            ("${f:a(b)}", 5),
            ("${f:'a}", 7),
            ("${a[b}", 5),
            ("${.f:a}", 4),
            ("${f:{a}}", 6),
            ("${d.a${y}}", 6),
            ("${d.$${y}}", 6),
            ("${d.${y}$}", 8),
            ("${$x:1}", 4),
        ] {
            assert_eq!(shape(text), format!("fault {column}"), "{text}");
        }
        assert!(check(&"${a:".repeat(10_000)).is_err());
        assert!(check(&"${".repeat(10_000)).is_err());
    }

    #[test]
    fn typed_elements() {
        assert_eq!(parse_element("123"), Ok(Arg::Int(123)));
        assert!(
            matches!(parse_element("{a: 1, b: [x]}"), Ok(Arg::Dict(pairs)) if pairs.len() == 2)
        );
        assert!(parse_element("[1").is_err());
        assert!(parse_element("1]").is_err());
        assert!(parse_element("").is_err());
    }
}
