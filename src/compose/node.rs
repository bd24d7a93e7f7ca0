//! The value tree that composition works on. Every node knows where it came from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use super::big_int::{BigInt, Integer, truncated};
use super::numbers;

/// No tree has more levels than this, whatever it is made of: functions that
/// walk one call themselves once a level.
pub(crate) const MAX_LEVELS: usize = 100;
/// No config has more values than this.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// A mapping in insertion order, as YAML wrote it.
pub type Map = IndexMap<Key, Node>;

/// A value with the place it was written.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

/// What OmegaConf can hold. Interpolations (`${..}`) and `???` are strings
/// here, as they are there: quoting does not change what they mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// An int outside 64 bits.
    BigInt(BigInt),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Map(Map),
}

/// A mapping key. OmegaConf allows strings, ints, bools and floats; nearly all are strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Str(String),
    Int(i64),
    BigInt(BigInt),
    Bool(bool),
    /// A float key by its bits, so that it can be hashed.
    Float(u64),
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A config file; `line` counts from 1.
    File { path: Arc<PathBuf>, line: usize },
    /// A command-line override, as it was typed.
    CommandLine { text: Arc<str> },
    /// Made by the program itself (built-in defaults, resolvers).
    BuiltIn,
}

/// Nodes are equal when their values are; origins do not count.
impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.value == other.value
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::CommandLine { text } => write!(f, "command line: {text}"),
            Origin::BuiltIn => f.write_str("built-in default"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Str(s) => f.write_str(s),
            Key::Int(i) => write!(f, "{i}"),
            Key::BigInt(i) => write!(f, "{i}"),
            Key::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Key::Float(bits) => f.write_str(&numbers::float(f64::from_bits(*bits))),
        }
    }
}

impl From<&str> for Key {
    fn from(s: &str) -> Key {
        Key::Str(s.to_string())
    }
}

impl From<Integer> for Value {
    fn from(int: Integer) -> Self {
        match int {
            Integer::Small(i) => Value::Int(i),
            Integer::Big(i) => Value::BigInt(i),
        }
    }
}

impl Node {
    pub fn new(value: Value, origin: Origin) -> Node {
        Node { value, origin }
    }

    /// A value made by the program itself.
    pub fn built_in(value: Value) -> Node {
        Node::new(value, Origin::BuiltIn)
    }

    pub fn str(text: impl Into<String>) -> Node {
        Node::built_in(Value::Str(text.into()))
    }

    pub fn empty_map() -> Node {
        Node::built_in(Value::Map(Map::new()))
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self.value {
            Value::Int(i) => Some(i),
            _ => None,
        }
    }

    /// A float, or an int as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match &self.value {
            Value::Int(i) => Some(*i as f64),
            Value::BigInt(i) => Some(i.to_f64()),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Whether the value is OmegaConf's mandatory marker `???`.
    pub fn is_missing(&self) -> bool {
        self.as_str() == Some("???")
    }

    /// Whether the value is a string with an interpolation in it.
    pub fn is_interpolation(&self) -> bool {
        self.as_str().is_some_and(|s| s.contains("${"))
    }

    /// The child under one step of a path: a key of a mapping, an index of a list.
    pub fn child(&self, step: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(map) => map.get(&Key::from(step)),
            Value::List(items) => list_index(step, items.len()).and_then(|i| items.get(i)),
            _ => None,
        }
    }

    /// The same as [`Node::child`], to be changed.
    pub fn child_mut(&mut self, step: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(map) => map.get_mut(&Key::from(step)),
            Value::List(items) => {
                let index = list_index(step, items.len())?;
                items.get_mut(index)
            }
            _ => None,
        }
    }

    /// The node at a dotted path: `a.b`, `a.0`, `a[0].b`. The empty path is the
    /// node itself. Interpolations are not followed.
    pub fn select(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for step in split_path(path) {
            node = node.child(&step)?;
        }
        Some(node)
    }

    /// Every scalar, empty list and empty mapping with its dotted path, in order.
    pub fn leaves(&self) -> Vec<(String, &Node)> {
        let mut out = Vec::new();
        collect_leaves(self, String::new(), &mut out);
        out
    }

    /// The tree as JSON. Infinite and NaN floats become strings (`"inf"`), and so do
    /// ints outside 64 bits.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::BigInt(i) => Json::String(i.to_string()),
            Value::Float(f) => serde_json::Number::from_f64(*f)
                .map_or_else(|| Json::String(numbers::float(*f)), Json::Number),
            Value::Str(s) => Json::String(s.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(map) => Json::Object(
                map.iter()
                    .map(|(k, v)| (k.to_string(), v.to_json()))
                    .collect(),
            ),
        }
    }

    /// Gives the node and all below it one origin.
    pub(crate) fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_origin(origin)),
            Value::Map(map) => map.values_mut().for_each(|item| item.set_origin(origin)),
            _ => {}
        }
    }

    /// Gives an origin to what the program made: the node, and what it holds
    /// down to values that have an origin of their own.
    pub(crate) fn fill_origin(&mut self, origin: &Origin) {
        if self.origin != Origin::BuiltIn {
            return;
        }
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.fill_origin(origin)),
            Value::Map(map) => map.values_mut().for_each(|item| item.fill_origin(origin)),
            _ => {}
        }
    }

    /// How many values there are, the node itself included.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(map) => map.values().map(Node::size).sum(),
            _ => 0,
        }
    }

    /// How many levels lie below the node; 0 for a scalar and for what is empty.
    pub(crate) fn levels(&self) -> usize {
        let deepest = match &self.value {
            Value::List(items) => items.iter().map(Node::levels).max(),
            Value::Map(map) => map.values().map(Node::levels).max(),
            _ => None,
        };
        deepest.map_or(0, |below| below + 1)
    }

    /// What the value is, in a word: `int`, `list`, ... (Python's names, which users of Hydra know).
    pub fn type_name(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Map(_) => "dict",
        }
    }
}

fn collect_leaves<'a>(node: &'a Node, path: String, out: &mut Vec<(String, &'a Node)>) {
    let join = |step: String| {
        if path.is_empty() {
            step
        } else {
            format!("{path}.{step}")
        }
    };
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            for (key, child) in map {
                collect_leaves(child, join(key.to_string()), out);
            }
        }
        Value::List(items) if !items.is_empty() => {
            for (index, child) in items.iter().enumerate() {
                collect_leaves(child, join(index.to_string()), out);
            }
        }
        _ => out.push((path, node)),
    }
}

/// Whether a key is there, as a Python dictionary takes keys for equal.
pub(crate) fn has_key(map: &Map, key: &Key) -> bool {
    let mut equal = spellings(key).into_iter().flatten();
    map.contains_key(key) || equal.any(|spelling| map.contains_key(&spelling))
}

/// Inserts under a key as a Python dictionary does: `1`, `1.0` and `True` are
/// one key, and the first spelling stays.
pub(crate) fn insert_key(map: &mut Map, key: Key, node: Node) {
    let equal = spellings(&key).into_iter().flatten();
    let there = equal
        .into_iter()
        .find(|spelling| map.contains_key(spelling));
    map.insert(there.unwrap_or(key), node);
}

/// The keys that Python takes for equal to a number, itself included; none for a string.
fn spellings(key: &Key) -> [Option<Key>; 4] {
    let number = key_number(key);
    let as_float = match &number {
        Key::Int(i) => *i as f64,
        Key::BigInt(i) => i.to_f64(),
        // Strings and what is between the integers have one spelling.
        _ => return [const { None }; 4],
    };
    let float = Key::Float(as_float.to_bits());
    let is_exact = key_number(&float) == number;
    let (zero, one) = (number == Key::Int(0), number == Key::Int(1));
    [
        Some(number),
        is_exact.then_some(float),
        zero.then(|| Key::Float((-0.0f64).to_bits())),
        (zero || one).then_some(Key::Bool(one)),
    ]
}

/// The number a key is, an int where it is a whole one; strings are themselves.
pub(crate) fn key_number(key: &Key) -> Key {
    match key {
        Key::Bool(b) => Key::Int(i64::from(*b)),
        Key::Float(bits) => {
            let float = f64::from_bits(*bits);
            match truncated(float).filter(|_| float.fract() == 0.0) {
                Some(Integer::Small(i)) => Key::Int(i),
                Some(Integer::Big(i)) => Key::BigInt(i),
                None => key.clone(),
            }
        }
        other => other.clone(),
    }
}

/// A list index in a path. As in OmegaConf, negative ones name nothing.
pub(crate) fn list_index(step: &str, len: usize) -> Option<usize> {
    let index = usize::try_from(numbers::parse_index(step)?).ok()?;
    (index < len).then_some(index)
}

/// The steps of a dotted path with optional brackets: `a.b[0]` is `a`, `b`,
/// `0`. A leading or doubled dot gives an empty step; the empty path has none.
pub(crate) fn split_path(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    if !rest.is_empty() && !rest.starts_with('[') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        steps.push(rest[..end].to_string());
        rest = &rest[end..];
    }
    while let Some(open) = rest.chars().next() {
        let body = &rest[1..];
        let end = match open {
            '[' => body.find(']').unwrap_or(body.len()),
            _ => body.find(['.', '[']).unwrap_or(body.len()),
        };
        // A dot before a bracket adds nothing: `a.[b]` is `a[b]`.
        if !(open == '.' && end == 0 && body.starts_with('[')) {
            steps.push(body[..end].to_string());
        }
        rest = &body[end..];
        if open == '[' {
            rest = rest.strip_prefix(']').unwrap_or(rest);
            // Text between a bracket and the next separator has no meaning, as in OmegaConf.
            if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                rest = &rest[end..];
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Node {
        let mut inner = Map::new();
        inner.insert(Key::from("b"), Node::str("x"));
        inner.insert(Key::Int(1), Node::str("y"));
        let list = Node::built_in(Value::List(vec![
            Node::built_in(Value::Map(inner)),
            Node::empty_map(),
        ]));
        let mut map = Map::new();
        map.insert(Key::from("a"), list);
        Node::built_in(Value::Map(map))
    }

    #[test]
    fn selects_through_lists_and_maps() {
        let node = sample();
        for path in ["a.0.b", "a[0].b", "a[0][b]"] {
            assert_eq!(
                node.select(path).and_then(Node::as_str),
                Some("x"),
                "{path}"
            );
        }
        for path in ["a.2", "a.-1", "a.0.1", "b", "a.0.b.c"] {
            assert!(node.select(path).is_none(), "{path}");
        }
        assert_eq!(node.select("").map(Node::type_name), Some("dict"));
    }

    #[test]
    fn numbers_that_python_takes_for_equal_are_one_key() {
        let mut map = Map::new();
        for key in [
            Key::Int(1),
            Key::Bool(true),
            Key::Float(1f64.to_bits()),
            Key::Float((-0.0f64).to_bits()),
            Key::Int(0),
            Key::Bool(false),
            Key::Float(1.5f64.to_bits()),
            Key::from("1"),
            // Neighbours that one float stands for are two ints.
            Key::Int((1 << 53) + 1),
            Key::Int(1 << 53),
            Key::Int(i64::MAX),
            Key::Float((i64::MAX as f64).to_bits()),
        ] {
            insert_key(&mut map, key, Node::built_in(Value::Null));
        }
        let keys: Vec<String> = map.keys().map(Key::to_string).collect();
        let expected = [
            "1",
            "-0.0",
            "1.5",
            "1",
            "9007199254740993",
            "9007199254740992",
        ];
        assert_eq!(keys[..6], expected);
        assert_eq!(keys.len(), 8);
    }

    #[test]
    fn sizes_and_levels() {
        assert_eq!((sample().size(), sample().levels()), (6, 3));
        assert_eq!(
            (Node::empty_map().size(), Node::empty_map().levels()),
            (1, 0)
        );
    }

    #[test]
    fn leaves_are_in_order_with_empty_collections() {
        let node = sample();
        let paths: Vec<String> = node.leaves().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a.0.b", "a.0.1", "a.1"]);
    }

    #[test]
    fn paths_split_as_omegaconf_splits_them() {
        for (path, steps) in [
            ("a.b", vec!["a", "b"]),
            ("a[b].c", vec!["a", "b", "c"]),
            ("[a].b", vec!["a", "b"]),
            (".a", vec!["", "a"]),
            ("a[", vec!["a", ""]),
            ("", vec![]),
        ] {
            assert_eq!(split_path(path), steps, "{path}");
        }
    }
}
