//! A value of the override grammar, and how it is written back.

use super::scan::Scalar;
use crate::compose::big_int::{BigInt, Integer};
use crate::compose::node::{Key, Map, Node, Origin, Value, insert_key};
use crate::compose::python;

/// A parsed value. Quoted strings stay apart from bare ones, because they are
/// written back with their quotes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Element {
    Null,
    Bool(bool),
    Int(i64),
    BigInt(BigInt),
    Float(f64),
    Str(String),
    Quoted {
        text: String,
        quote: char,
    },
    List(Vec<Element>),
    Dict(Vec<(Element, Element)>),
    /// `append(..)` and its relatives; never inside another value.
    Edit(ListEdit),
}

impl Element {
    /// An int of any size.
    pub(crate) fn int(int: Integer) -> Element {
        match int {
            Integer::Small(i) => Element::Int(i),
            Integer::Big(i) => Element::BigInt(i),
        }
    }

    /// The value of a single token.
    pub(super) fn scalar(scalar: Scalar) -> Element {
        match scalar {
            Scalar::Null => Element::Null,
            Scalar::Bool(b) => Element::Bool(b),
            Scalar::Int(int) => Element::int(int),
            Scalar::Float(f) => Element::Float(f),
            Scalar::Text(text) => Element::Str(text),
        }
    }

    /// The value as a node. A dictionary key may be a string, a number or a bool.
    pub(crate) fn to_node(&self, origin: &Origin) -> Result<Node, String> {
        let value = match self {
            Element::Null => Value::Null,
            Element::Bool(b) => Value::Bool(*b),
            Element::Int(i) => Value::Int(*i),
            Element::BigInt(i) => Value::BigInt(i.clone()),
            Element::Float(f) => Value::Float(*f),
            Element::Str(text) | Element::Quoted { text, .. } => {
                super::interpolation::check(text)?;
                Value::Str(text.clone())
            }
            Element::List(items) => Value::List(
                items
                    .iter()
                    .map(|item| item.to_node(origin))
                    .collect::<Result<_, _>>()?,
            ),
            Element::Dict(pairs) => {
                let mut map = Map::new();
                for (key, item) in pairs {
                    insert_key(&mut map, key.to_key()?, item.to_node(origin)?);
                }
                Value::Map(map)
            }
            Element::Edit(edit) => return Err(edit.misplaced("this place")),
        };
        Ok(Node::new(value, origin.clone()))
    }

    pub(super) fn to_key(&self) -> Result<Key, String> {
        match self {
            Element::Bool(b) => Ok(Key::Bool(*b)),
            Element::Int(i) => Ok(Key::Int(*i)),
            Element::BigInt(i) => Ok(Key::BigInt(i.clone())),
            Element::Float(f) => Ok(Key::Float(f.to_bits())),
            Element::Str(text) | Element::Quoted { text, .. } => Ok(Key::Str(text.clone())),
            Element::Null => Err("null cannot be a key".to_string()),
            Element::List(_) | Element::Dict(_) | Element::Edit(_) => {
                Err("a list or a dict cannot be a key".to_string())
            }
        }
    }

    /// The value as it can be typed in an override.
    pub(crate) fn to_text(&self) -> String {
        let join = |items: Vec<String>| items.join(",");
        match self {
            Element::Null => "null".to_string(),
            Element::Bool(b) => if *b { "True" } else { "False" }.to_string(),
            Element::Int(i) => i.to_string(),
            Element::BigInt(i) => i.to_string(),
            Element::Float(f) => python::float(*f),
            Element::Str(text) if needs_quotes(text) => with_quotes(text, '\''),
            Element::Str(text) => escape(text),
            Element::Quoted { text, quote } => with_quotes(text, *quote),
            Element::List(items) => {
                format!(
                    "[{}]",
                    join(items.iter().map(Element::to_inner_text).collect())
                )
            }
            Element::Dict(pairs) => {
                let pair =
                    |(k, v): &(Element, Element)| format!("{}:{}", k.to_text(), v.to_inner_text());
                format!("{{{}}}", join(pairs.iter().map(pair).collect()))
            }
            Element::Edit(edit) => edit.to_text(),
        }
    }

    /// As [`Element::to_text`], for a place among others, where nothing is no value.
    pub(super) fn to_inner_text(&self) -> String {
        match self {
            Element::Str(text) if text.is_empty() => with_quotes(text, '\''),
            other => other.to_text(),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Element::Null => "null",
            Element::Bool(_) => "bool",
            Element::Int(_) | Element::BigInt(_) => "int",
            Element::Float(_) => "float",
            Element::Str(_) | Element::Quoted { .. } => "str",
            Element::List(_) => "list",
            Element::Dict(_) => "dict",
            Element::Edit(_) => "a list edit",
        }
    }
}

/// What a call does to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Append,
    Prepend,
    /// Each item that is equal goes.
    Remove,
}

/// A list edit as an override's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListEdit {
    pub how: How,
    /// The function as typed; two of them append.
    pub function: &'static str,
    pub items: Vec<Element>,
}

impl ListEdit {
    /// As it can be typed.
    pub(crate) fn to_text(&self) -> String {
        let items: Vec<String> = self.items.iter().map(Element::to_inner_text).collect();
        format!("{}({})", self.function, items.join(","))
    }

    /// Why the edit cannot stand where it does.
    pub(crate) fn misplaced(&self, place: &str) -> String {
        format!(
            "{}() edits the list of its key, so it is the whole value or one of a sweep's; it cannot stand in {place}",
            self.function
        )
    }
}

/// Whether the text holds a character that only quotes can carry. Functions make such texts.
fn needs_quotes(text: &str) -> bool {
    text.chars()
        .any(|c| !(c.is_ascii_graphic() || c == ' ' || c == '\t') || "#!&;<>^`~\"'".contains(c))
}

/// A backslash before every character that the grammar gives a meaning.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '(' | ')' | '[' | ']' | '{' | '}' | ':' | '=' | ',' | ' ' | '\t'
        ) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Backslashes are doubled only before a quote or the end, as the grammar reads them.
fn with_quotes(text: &str, quote: char) -> String {
    let mut out = String::from(quote);
    let mut slashes = 0;
    for c in text.chars() {
        if c == '\\' {
            slashes += 1;
            continue;
        }
        let doubled = if c == quote { 2 * slashes + 1 } else { slashes };
        out.extend(std::iter::repeat_n('\\', doubled));
        slashes = 0;
        out.push(c);
    }
    out.extend(std::iter::repeat_n('\\', 2 * slashes));
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_values_back() {
        let quoted = |text: &str| Element::Quoted {
            text: text.to_string(),
            quote: '\'',
        };
        for (element, text) in [
            (Element::Str("c d".into()), r"c\ d"),
            (Element::Bool(true), "True"),
            (Element::Float(1e-5), "1e-05"),
            (quoted("a,b"), "'a,b'"),
            (quoted("a'b"), r"'a\'b'"),
            (quoted(r"a\b"), r"'a\b'"),
            (quoted(r"a\"), r"'a\\'"),
            (quoted(r"a\'b"), r"'a\\\'b'"),
            (
                Element::Str("${oc.env:'A',#}".into()),
                r"'${oc.env:\'A\',#}'",
            ),
            (Element::Str("${a}".into()), r"$\{a\}"),
        ] {
            assert_eq!(element.to_text(), text);
        }
        let dict = Element::Dict(vec![(
            Element::Str("a".into()),
            Element::List(vec![Element::Int(1), Element::Null]),
        )]);
        assert_eq!(dict.to_text(), "{a:[1,null]}");
    }

    #[test]
    fn equal_keys_of_different_types_are_one_key() {
        let dict = Element::Dict(vec![
            (Element::Int(1), Element::Int(2)),
            (Element::Bool(true), Element::Int(3)),
        ]);
        let node = dict.to_node(&Origin::BuiltIn).expect("valid");
        assert_eq!(node.to_json().to_string(), r#"{"1":3}"#);
        let null_key = Element::Dict(vec![(Element::Null, Element::Null)]);
        assert!(null_key.to_node(&Origin::BuiltIn).is_err());
    }
}
