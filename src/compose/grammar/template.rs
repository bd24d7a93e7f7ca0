//! What a string with interpolations consists of.

use crate::compose::big_int::BigInt;
use crate::compose::node::Key;

/// A string with interpolations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pub parts: Vec<Part>,
}

/// A piece of a string.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Interpolation(Interpolation),
}

/// One `${..}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Interpolation {
    /// `${a.b}`, `${..a[0]}`: the pieces join to a path, dots and brackets included.
    Node(Vec<Part>),
    /// `${name:args}`.
    Resolver { name: Vec<Part>, args: Vec<Arg> },
}

/// An argument of a resolver.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    Null,
    Bool(bool),
    Int(i64),
    BigInt(BigInt),
    Float(f64),
    /// A bare interpolation (which keeps its type), or text joined from parts.
    Text(Template),
    /// Text in quotes, which is a string also where it is a lone interpolation.
    Quoted(Template),
    List(Vec<Arg>),
    Dict(Vec<(Key, Arg)>),
}

/// Adds text to the last part, where that is text.
pub(super) fn push_text(path: &mut Vec<Part>, text: &str) {
    match path.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        _ => path.push(Part::Text(text.to_string())),
    }
}

/// The parts with neighbouring texts as one.
pub(super) fn join_text(parts: Vec<Part>) -> Vec<Part> {
    let mut joined = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => push_text(&mut joined, &text),
            other => joined.push(other),
        }
    }
    joined
}
