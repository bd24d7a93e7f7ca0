//! A [`Node`] tree as YAML text, laid out as `OmegaConf.to_yaml` lays it out:
//! block style, lists not indented under their key, width 80, keys in their
//! order. What is printed reads back in OmegaConf with the same types.

use super::grammar::interpolation;
use super::node::{Key, Node, Value};
use super::python;
use super::scalar;
use super::yaml_scalar::{self, Layout};

/// The node as `OmegaConf.to_yaml` prints it; ends with a newline.
pub fn to_yaml(node: &Node) -> String {
    write(node, None)
}

/// [`to_yaml`] with comments: `note` is asked with the dotted path and the node of
/// each scalar, empty collection and list, and its text goes behind the value or
/// the list's key. The text must be one line. It reads back as the node.
pub fn to_yaml_noted(node: &Node, note: &dyn Fn(&str, &Node) -> Option<String>) -> String {
    write(node, Some(note))
}

/// [`to_yaml`] of a tree whose interpolations are resolved: a `${` left in a string is
/// text, and is escaped so that the file reads back as this very tree.
pub fn to_yaml_literal(node: &Node) -> String {
    to_yaml(&escaped(node))
}

fn escaped(node: &Node) -> Node {
    let value = match &node.value {
        Value::Str(text) => Value::Str(interpolation::escape(text)),
        Value::List(items) => Value::List(items.iter().map(escaped).collect()),
        Value::Map(map) => {
            let items = map.iter().map(|(key, child)| (key.clone(), escaped(child)));
            Value::Map(items.collect())
        }
        other => other.clone(),
    };
    Node::new(value, node.origin.clone())
}

type Note<'n> = dyn Fn(&str, &Node) -> Option<String> + 'n;

fn write(node: &Node, note: Option<&Note>) -> String {
    let mut writer = Writer {
        out: String::new(),
        path: String::new(),
        note,
    };
    writer.node(node, 0, Parent::Root);
    if !writer.out.ends_with('\n') {
        writer.out.push('\n');
    }
    writer.out
}

#[derive(Clone, Copy, PartialEq)]
enum Parent {
    Root,
    Map,
    List,
}

struct Writer<'n> {
    out: String,
    /// Dotted; kept only where there are notes.
    path: String,
    note: Option<&'n Note<'n>>,
}

impl Writer<'_> {
    /// Writes a value after its key, its dash or at the very start. `indent` is
    /// the column of the collection that holds it.
    fn node(&mut self, node: &Node, indent: usize, parent: Parent) {
        match &node.value {
            Value::Map(map) if map.is_empty() => {
                self.word("{}", parent);
                self.remark(node);
            }
            Value::List(items) if items.is_empty() => {
                self.word("[]", parent);
                self.remark(node);
            }
            Value::Map(map) => {
                let own = if parent == Parent::Root {
                    0
                } else {
                    indent + 2
                };
                for (index, (key, child)) in map.iter().enumerate() {
                    self.start_item(own, index == 0 && parent == Parent::List);
                    // After a key of its own line, a collection starts on the line of the colon.
                    let after = if self.key(key, own) {
                        Parent::Map
                    } else {
                        Parent::List
                    };
                    let above = self.enter(|| key.to_string());
                    self.node(child, own, after);
                    self.path.truncate(above);
                }
            }
            Value::List(items) => {
                // PyYAML does not indent a list under its key.
                let own = if parent == Parent::List {
                    indent + 2
                } else {
                    indent
                };
                if parent == Parent::Map {
                    self.remark(node);
                }
                for (index, child) in items.iter().enumerate() {
                    self.start_item(own, index == 0 && parent == Parent::List);
                    self.out.push('-');
                    let above = self.enter(|| index.to_string());
                    self.node(child, own, Parent::List);
                    self.path.truncate(above);
                }
            }
            _ => {
                if parent != Parent::Root {
                    self.out.push(' ');
                }
                let layout = Layout {
                    indent: if parent == Parent::Root {
                        0
                    } else {
                        indent + 2
                    },
                    fold: true,
                    key: false,
                };
                self.scalar(&node.value, layout);
                self.remark(node);
            }
        }
    }

    /// Goes one step down; gives the length of the path to come back to.
    fn enter(&mut self, step: impl Fn() -> String) -> usize {
        let above = self.path.len();
        if self.note.is_some() {
            if above > 0 {
                self.path.push('.');
            }
            self.path.push_str(&step());
        }
        above
    }

    fn remark(&mut self, node: &Node) {
        if let Some(text) = self.note.and_then(|note| note(&self.path, node)) {
            self.out.push_str("  # ");
            self.out.push_str(&text);
        }
    }

    fn word(&mut self, word: &str, parent: Parent) {
        if parent != Parent::Root {
            self.out.push(' ');
        }
        self.out.push_str(word);
    }

    /// Moves to the column of an item: a new line, or the rest of a `- `.
    fn start_item(&mut self, column: usize, after_dash: bool) {
        if after_dash {
            self.out.push(' ');
        } else {
            if !self.out.is_empty() && !self.out.ends_with('\n') {
                self.out.push('\n');
            }
            self.out.push_str(&" ".repeat(column));
        }
    }

    /// Gives whether the key stands on one line with its colon.
    fn key(&mut self, key: &Key, indent: usize) -> bool {
        let value = match key {
            Key::Str(s) => Value::Str(s.clone()),
            Key::Int(i) => Value::Int(*i),
            Key::BigInt(i) => Value::BigInt(i.clone()),
            Key::Bool(b) => Value::Bool(*b),
            Key::Float(bits) => Value::Float(f64::from_bits(*bits)),
        };
        let simple = match &value {
            Value::Str(s) => yaml_scalar::fits_simple_key(s),
            _ => true,
        };
        if !simple {
            self.out.push_str("? ");
        }
        let layout = Layout {
            indent: indent + 2,
            fold: !simple,
            key: simple,
        };
        self.scalar(&value, layout);
        if !simple {
            self.start_item(indent, false);
        }
        self.out.push(':');
        simple
    }

    fn scalar(&mut self, value: &Value, layout: Layout) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(b) => self.out.push_str(if *b { "true" } else { "false" }),
            Value::Int(i) => self.out.push_str(&i.to_string()),
            Value::BigInt(i) => self.out.push_str(i.as_str()),
            Value::Float(f) => self.out.push_str(&float(*f)),
            Value::Str(s) => {
                let quoted = scalar::is_bool_word(s)
                    || python::looks_like_int(s)
                    || python::parse_float(s).is_some();
                yaml_scalar::write(&mut self.out, s, quoted, layout);
            }
            Value::List(_) | Value::Map(_) => {}
        }
    }
}

/// A float as PyYAML prints it: Python's `repr` with a dot before the exponent.
fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_string();
    }
    let text = python::float(value);
    if text.contains('.') {
        text
    } else {
        text.replacen('e', ".0e", 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::grammar::template;
    use crate::compose::node::Map;

    fn yaml_of(value: Value) -> String {
        let mut map = Map::new();
        map.insert(Key::from("k"), Node::built_in(value));
        to_yaml(&Node::built_in(Value::Map(map)))
    }

    /// Appendix F of the measured OmegaConf behaviour.
    #[test]
    fn strings_are_quoted_as_omegaconf_quotes_them() {
        for (text, printed) in [
            ("1", "k: '1'\n"),
            ("1.0", "k: '1.0'\n"),
            ("true", "k: 'true'\n"),
            ("null", "k: 'null'\n"),
            ("", "k: ''\n"),
            ("yes", "k: 'yes'\n"),
            ("~", "k: '~'\n"),
            ("a: b", "k: 'a: b'\n"),
            ("#x", "k: '#x'\n"),
            ("- a", "k: '- a'\n"),
            ("a\nb", "k: 'a\n\n  b'\n"),
            ("a b ", "k: 'a b '\n"),
            ("1e-4", "k: '1e-4'\n"),
            ("2024-01-01", "k: '2024-01-01'\n"),
            ("${a}", "k: ${a}\n"),
            ("'q'", "k: '''q'''\n"),
            ("é", "k: é\n"),
            ("n", "k: 'n'\n"),
            ("a\tb", "k: \"a\\tb\"\n"),
        ] {
            assert_eq!(yaml_of(Value::Str(text.to_string())), printed, "{text:?}");
        }
        let long = format!("{} {}", "x".repeat(90), "y".repeat(50));
        assert_eq!(
            yaml_of(Value::Str(long)),
            format!("k: {}\n  {}\n", "x".repeat(90), "y".repeat(50))
        );
    }

    #[test]
    fn numbers_and_empty_collections() {
        assert_eq!(yaml_of(Value::Float(1e16)), "k: 1.0e+16\n");
        assert_eq!(yaml_of(Value::Float(1e-5)), "k: 1.0e-05\n");
        assert_eq!(yaml_of(Value::Float(0.0001)), "k: 0.0001\n");
        assert_eq!(yaml_of(Value::Float(f64::NEG_INFINITY)), "k: -.inf\n");
        assert_eq!(yaml_of(Value::List(vec![])), "k: []\n");
        assert_eq!(yaml_of(Value::Map(Map::new())), "k: {}\n");
        assert_eq!(to_yaml(&Node::empty_map()), "{}\n");
    }

    #[test]
    fn a_literal_dollar_brace_reads_back_as_itself() {
        for (text, printed) in [
            ("${seed}", r"k: \${seed}"),
            (r"a\${", r"k: a\\\${"),
            (r"\\${x}\${", r"k: \\\\\${x}\\\${"),
            (r"c:\dir $5 {}", r"k: c:\dir $5 {}"),
        ] {
            let mut map = Map::new();
            map.insert(Key::from("k"), Node::str(text));
            let yaml = to_yaml_literal(&Node::built_in(Value::Map(map)));
            assert_eq!(yaml.trim_end(), printed);
            let template = interpolation::parse(&interpolation::escape(text)).unwrap();
            let parts = vec![template::Part::Text(text.to_string())];
            assert_eq!(template.parts, parts);
        }
    }

    #[test]
    fn notes_stand_behind_values_and_change_nothing() {
        let path = std::sync::Arc::new(std::path::PathBuf::from("a.yaml"));
        let long = format!("{} {}", "x".repeat(90), "y".repeat(50));
        let text = format!(
            "a:\n- - 1\n  - k: v\nb: 'it''s'\nc: {{}}\nd: {long}\ne:\n  f: \"\\ta # b\"\n? {long}{long}\n: 1\n"
        );
        let node = super::super::yaml_read::read_yaml(&text, &path).expect("valid");
        let noted = to_yaml_noted(&node, &|path, _| Some(format!("at: [{path}]")));
        let back = super::super::yaml_read::read_yaml(&noted, &path).expect(&noted);
        assert_eq!(back, node, "{noted}");
        for line in [
            "a:  # at: [a]",
            "- - 1  # at: [a.0.0]",
            "  - k: v  # at: [a.0.1.k]",
            "c: {}  # at: [c]",
            "b: it's  # at: [b]",
        ] {
            assert!(noted.lines().any(|l| l == line), "{line}\n{noted}");
        }
        assert!(noted.contains("y  # at: [d]\ne:\n"), "{noted}");
    }

    #[test]
    fn nested_lists_and_maps() {
        let path = std::sync::Arc::new(std::path::PathBuf::from("a.yaml"));
        let text = "a:\n- - 1\n  - - 2\n- k: v\n  l:\n  - x: 1\n    'y': 2\nb:\n  c:\n  - 1\n  d: {}\n? ''\n: - 1\n  - x: 1\n    e:\n    - 2\n";
        let node = super::super::yaml_read::read_yaml(text, &path).expect("valid");
        assert_eq!(to_yaml(&node), text);
    }
}
