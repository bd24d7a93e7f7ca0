//! What resolving finds: nodes with their places in the tree, or why there is none.

use std::borrow::Cow;

use super::error::Problem;
use super::nearest;
use super::node::{Key, Node, Origin, Value, list_index};
use super::numbers;

/// One step from a node to its child.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Key(Key),
    Index(usize),
}

/// A node found while resolving. Nodes made by resolvers have no place in the tree.
#[derive(Clone)]
pub(crate) struct Located<'a> {
    pub node: Cow<'a, Node>,
    pub place: Option<Vec<Step>>,
}

/// Why a value has no resolution.
#[derive(Debug)]
pub(crate) enum Fail {
    /// It leads to a `???`.
    Missing(String),
    /// The path goes through a value that holds nothing.
    NotContainer(String),
    /// A limit of the whole composition: there is no going on.
    Limit(String),
    Other(String),
    /// Another key, which was read on the way, cannot be resolved: its problem.
    Behind(Box<Problem>),
}

impl Fail {
    pub(crate) fn message(&self) -> &str {
        match self {
            Fail::Missing(text)
            | Fail::NotContainer(text)
            | Fail::Limit(text)
            | Fail::Other(text) => text,
            Fail::Behind(problem) => &problem.message,
        }
    }

    /// The failure as the problem of the key at `place`, which holds `text`.
    pub(crate) fn problem(self, place: &[Step], text: &str, origin: &Origin) -> Problem {
        match self {
            Fail::Behind(problem) => *problem,
            other => Problem::new(format!(
                "cannot resolve '{}: {text}': {}",
                dotted(place),
                other.message()
            ))
            .at(origin),
        }
    }
}

pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Other(message.into()))
}

/// A value that a resolver made.
pub(crate) fn made<'a>(value: Value) -> Located<'a> {
    Located {
        node: Cow::Owned(Node::new(value, Origin::BuiltIn)),
        place: None,
    }
}

/// The child that a step of a path names, if there is one.
///
/// # Errors
/// A name where a list has numbers.
pub(crate) fn child_of<'a>(parent: Located<'a>, step: &str) -> Result<Option<Located<'a>>, Fail> {
    let step = match &parent.node.value {
        Value::Map(_) => Step::Key(Key::from(step)),
        Value::List(items) => {
            if !numbers::looks_like_int(step) {
                return fail(format!("a list has no key '{step}', only numbers"));
            }
            match list_index(step, items.len()) {
                Some(index) => Step::Index(index),
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let node = match parent.node {
        Cow::Borrowed(node) => child(node, &step).map(Cow::Borrowed),
        Cow::Owned(node) => match (node.value, &step) {
            (Value::Map(mut map), Step::Key(key)) => map.swap_remove(key),
            (Value::List(mut items), Step::Index(index)) => Some(items.swap_remove(*index)),
            _ => None,
        }
        .map(Cow::Owned),
    };
    let place = parent.place.map(|mut place| {
        place.push(step);
        place
    });
    Ok(node.map(|node| Located { node, place }))
}

fn child<'n>(node: &'n Node, step: &Step) -> Option<&'n Node> {
    match (&node.value, step) {
        (Value::Map(map), Step::Key(key)) => map.get(key),
        (Value::List(items), Step::Index(index)) => items.get(*index),
        _ => None,
    }
}

/// The node at a place.
pub(crate) fn at<'n>(root: &'n Node, place: &[Step]) -> Option<&'n Node> {
    place.iter().try_fold(root, |node, step| child(node, step))
}

/// The node at a place, to be changed.
pub(crate) fn at_mut<'n>(root: &'n mut Node, place: &[Step]) -> Option<&'n mut Node> {
    place
        .iter()
        .try_fold(root, |node, step| match (&mut node.value, step) {
            (Value::Map(map), Step::Key(key)) => map.get_mut(key),
            (Value::List(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        })
}

/// A place as a dotted path.
pub(crate) fn dotted(place: &[Step]) -> String {
    let steps: Vec<String> = place
        .iter()
        .map(|step| match step {
            Step::Key(key) => key.to_string(),
            Step::Index(index) => index.to_string(),
        })
        .collect();
    steps.join(".")
}

/// That there is no such key; with `hint` also the nearest one, in the form it was written.
pub(crate) fn not_found(root: &Node, key: &str, place: Option<&[Step]>, hint: bool) -> String {
    let message = format!("interpolation key '{key}' not found");
    if !hint {
        return message;
    }
    let dots = key.chars().take_while(|c| *c == '.').count();
    let up = place.unwrap_or_default().len().saturating_sub(dots);
    let base = match dots {
        0 => Some(root),
        _ => at(root, &place.unwrap_or_default()[..up]),
    };
    let mut names: Vec<String> = Vec::new();
    for (path, _) in base.map(Node::leaves).unwrap_or_default() {
        let ends = path.match_indices('.').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            names.push(format!("{}{}", &key[..dots], &path[..end]));
        }
    }
    match nearest(key, names.iter().map(String::as_str)) {
        Some(near) => format!("{message}; did you mean '{near}'?"),
        None => message,
    }
}

/// The problem of interpolations at these places, each of which leads to the next and the last
/// to the first: the same one from whichever of them it is found.
pub(crate) fn ring(root: &Node, places: &[&[Step]]) -> Fail {
    let mut keys: Vec<String> = places.iter().map(|place| dotted(place)).collect();
    let first = (0..keys.len()).min_by_key(|i| &keys[*i]).unwrap_or(0);
    keys.rotate_left(first);
    let Some(node) = places.get(first).and_then(|place| at(root, place)) else {
        return Fail::Other("an interpolation leads back to itself".to_string());
    };
    let way = match keys.as_slice() {
        [_] => String::new(),
        many => format!(", by {}", many[1..].join(", ")),
    };
    let message = format!("'{}' leads back to itself{way}", keys[0]);
    let text = node.as_str().unwrap_or_default();
    Fail::Behind(Box::new(Fail::Other(message).problem(
        places[first],
        text,
        &node.origin,
    )))
}
