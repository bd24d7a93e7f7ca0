//! Who set a value, and who before. Composition is watched step by step: after
//! each merged config and each override the tree is compared with what is known.

use indexmap::IndexMap;

use super::composed::{Composed, compose_watched};
use super::error::{Error, Problem};
use super::grammar::overrides::Override;
use super::nearest;
use super::node::{Node, Origin, Value};
use super::request::Request;
use super::yaml_write::to_yaml;

/// One setting of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `None`: the key was deleted, or its parent replaced.
    pub value: Option<Node>,
    pub origin: Origin,
}

/// The changes of every value of a composition. A list counts as one value: it is
/// replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct History {
    leaves: IndexMap<String, Leaf>,
    step: usize,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    /// Oldest first, never empty.
    changes: Vec<Change>,
    /// The last step that had this leaf.
    seen: usize,
}

/// Composes, and keeps the history of every value, `hydra` included.
///
/// # Errors
/// Those of [`super::compose`].
pub fn compose_with_history(req: &Request) -> Result<(Composed, History), Error> {
    let mut history = History::default();
    let composed = compose_watched(req, &mut |root, by| history.record(root, by))?;
    // What is filled in at the end: the choices, the name of the job, ...
    history.record(&composed.all(), None);
    Ok((composed, history))
}

impl History {
    /// The changes of a leaf, oldest first; empty if it never was there.
    pub fn of(&self, path: &str) -> &[Change] {
        self.leaves.get(path).map_or(&[], |leaf| &leaf.changes)
    }

    /// The leaf at a path, deleted or not, or the leaves that stand below it.
    pub fn under(&self, path: &str) -> Vec<(&str, &[Change])> {
        let below = format!("{path}.");
        self.leaves
            .iter()
            .filter(|(name, leaf)| {
                let is_leaf = leaf.seen == self.step;
                let is_gone = leaf.changes.last().is_some_and(|c| c.value.is_none());
                is_leaf && name.starts_with(&below) || (is_leaf || is_gone) && name.as_str() == path
            })
            .map(|(name, leaf)| (name.as_str(), leaf.changes.as_slice()))
            .collect()
    }

    /// Lays a default under the history of a leaf. Nothing is added where the
    /// oldest value is the same. A deleted value falls back to the default.
    pub fn underlay(&mut self, path: &str, default: Node) {
        let step = self.step;
        let leaf = self.leaves.entry(path.to_string()).or_default();
        let change = Change {
            origin: default.origin.clone(),
            value: Some(default),
        };
        let is_gone = leaf.changes.last().is_some_and(|c| c.value.is_none());
        let is_new = leaf
            .changes
            .first()
            .is_none_or(|oldest| oldest.value != change.value);
        if is_gone || leaf.changes.is_empty() {
            leaf.seen = step;
        }
        if is_new {
            leaf.changes.insert(0, change.clone());
        }
        if is_gone {
            leaf.changes.push(change);
        }
    }

    /// The problem of asking for a key that is not there.
    pub fn unknown(&self, path: &str) -> Problem {
        let problem = Problem::new(format!("there is no key '{path}'"));
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.leaves.iter().filter(|(_, l)| l.seen == self.step) {
            names.push(name);
            names.extend(name.match_indices('.').map(|(at, _)| &name[..at]));
        }
        let last = path.rsplit('.').next().unwrap_or(path);
        let same_last = || {
            let mut found = names
                .iter()
                .filter(|name| !name.starts_with("hydra."))
                .filter(|name| name.rsplit('.').next() == Some(last));
            found.next().filter(|_| found.next().is_none()).copied()
        };
        match nearest(path, names.iter().copied()).or_else(same_last) {
            Some(near) => problem.help(format!("did you mean '{near}'?")),
            None => problem.help("--cfg all prints all keys"),
        }
    }

    fn record(&mut self, root: &Node, by: Option<&Override>) {
        self.step += 1;
        self.walk(root, &mut String::new());
        let step = self.step;
        for (path, leaf) in &mut self.leaves {
            let is_gone = leaf.changes.last().is_none_or(|c| c.value.is_none());
            // What became a mapping is still there.
            if leaf.seen == step || is_gone || root.select(path).is_some() {
                continue;
            }
            leaf.changes.push(Change {
                value: None,
                origin: by.map_or_else(|| ancestor(root, path), Override::origin),
            });
        }
    }

    fn walk(&mut self, node: &Node, path: &mut String) {
        match &node.value {
            Value::Map(map) if !map.is_empty() => {
                for (key, child) in map {
                    let above = path.len();
                    if above > 0 {
                        path.push('.');
                    }
                    path.push_str(&key.to_string());
                    self.walk(child, path);
                    path.truncate(above);
                }
            }
            // The empty root holds nothing.
            _ if path.is_empty() => {}
            _ => {
                let leaf = match self.leaves.get_mut(path.as_str()) {
                    Some(leaf) => leaf,
                    None => self.leaves.entry(path.clone()).or_default(),
                };
                leaf.seen = self.step;
                leaf.note(node);
            }
        }
    }
}

impl Leaf {
    fn note(&mut self, node: &Node) {
        let known = self.changes.last_mut().and_then(|c| c.value.as_mut());
        let origin = match known {
            None => node.origin.clone(),
            Some(known) => match set_anew(known, node) {
                Some(origin) => origin,
                None => {
                    // At most converted to the type of its key.
                    if known.value != node.value {
                        known.value = node.value.clone();
                    }
                    return;
                }
            },
        };
        self.changes.push(Change {
            value: Some(node.clone()),
            origin,
        });
    }
}

/// The origin of what was set since, if anything was. Items of a list can be set
/// one by one.
fn set_anew(before: &Node, now: &Node) -> Option<Origin> {
    if before.origin != now.origin {
        return Some(now.origin.clone());
    }
    match (&before.value, &now.value) {
        (Value::List(old), Value::List(new)) => {
            if old.len() != new.len() {
                return Some(now.origin.clone());
            }
            old.iter().zip(new).find_map(|(a, b)| set_anew(a, b))
        }
        (Value::Map(old), Value::Map(new)) => new
            .iter()
            .find_map(|(key, child)| match old.get(key) {
                Some(before) => set_anew(before, child),
                None => Some(child.origin.clone()),
            })
            .or_else(|| (old.len() != new.len()).then(|| now.origin.clone())),
        _ => None,
    }
}

/// The origin of what stands where the path breaks off.
fn ancestor(root: &Node, path: &str) -> Origin {
    path.rmatch_indices('.')
        .find_map(|(at, _)| root.select(&path[..at]))
        .map_or(Origin::BuiltIn, |node| node.origin.clone())
}

/// A value in one line: scalars as YAML writes them, collections in brackets.
pub fn one_line(node: &Node) -> String {
    match &node.value {
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, child)| format!("{key}: {}", one_line(child)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => {
            let text = to_yaml(node);
            match text.trim_end_matches('\n') {
                line if !line.contains('\n') => line.to_string(),
                // Folded: too long, or with line breaks of its own.
                _ => match node.as_str() {
                    Some(text) if !text.contains(char::is_control) => text.to_string(),
                    _ => node.to_json().to_string(),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compose::Source;

    fn history(files: &[(&str, &str)], overrides: &[&str]) -> History {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let request = Request {
            sources: vec![Source::dir("main", dir.path())],
            config_name: Some("config".to_string()),
            overrides: overrides.iter().map(|o| o.to_string()).collect(),
            ..Request::default()
        };
        match compose_with_history(&request) {
            Ok((_, history)) => history,
            Err(error) => panic!("{error}"),
        }
    }

    fn told(history: &History, path: &str) -> String {
        let parts: Vec<String> = history
            .of(path)
            .iter()
            .map(|change| {
                let value = change.value.as_ref().map_or("-".to_string(), one_line);
                let place = match &change.origin {
                    Origin::File { path, line } => format!(
                        "{}:{line}",
                        path.file_name().unwrap_or_default().to_string_lossy()
                    ),
                    other => other.to_string(),
                };
                format!("{value} {place}")
            })
            .collect();
        parts.join("; ")
    }

    const FILES: &[(&str, &str)] = &[
        (
            "config.yaml",
            "defaults: [{db: a}, _self_, {over: b}]\nx: 1\nl: [1, 2]\nd: {k: 1}\nm: {p: 1}\n",
        ),
        ("db/a.yaml", "port: 1\nhost: h\n"),
        (
            "over/b.yaml",
            "# @package _global_\nx: 1\ndb: {port: \"???\"}\nm: 5\n",
        ),
    ];

    #[test]
    fn every_setter_is_kept_in_order() {
        let history = history(FILES, &["x=3", "++x=4", "l.0=9", "~d.k", "+new.k=[a]"]);
        for (path, expected) in [
            (
                "x",
                "1 config.yaml:2; 1 b.yaml:2; 3 command line: x=3; 4 command line: ++x=4",
            ),
            // `???` sets nothing.
            ("db.port", "1 a.yaml:1"),
            ("l", "[1, 2] config.yaml:3; [9, 2] command line: l.0=9"),
            ("d.k", "1 config.yaml:4; - command line: ~d.k"),
            ("m.p", "1 config.yaml:5; - b.yaml:4"),
            ("m", "5 b.yaml:4"),
            ("new.k", "[a] command line: +new.k=[a]"),
            ("nothing", ""),
        ] {
            assert_eq!(told(&history, path), expected, "{path}");
        }
    }

    #[test]
    fn a_mapping_has_the_leaves_that_are_left() {
        let history = history(FILES, &["~db.host"]);
        let names = |path: &str| -> Vec<String> {
            let found = history.under(path);
            found.iter().map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names("db"), ["db.port"]);
        assert_eq!(names("db.host"), ["db.host"]);
        assert_eq!(names("m"), ["m"]);
        assert!(names("m.p") == ["m.p"] && names("dbb").is_empty());
        let help = |path: &str| history.unknown(path).help.unwrap_or_default();
        assert_eq!(help("db.prot"), "did you mean 'db.port'?");
        assert_eq!(help("dbb"), "did you mean 'db'?");
        assert_eq!(help("a.b.port"), "did you mean 'db.port'?");
    }

    #[test]
    fn a_default_lies_under_what_differs_from_it() {
        let mut history = history(FILES, &["~db.host"]);
        let int = |i| Node::built_in(Value::Int(i));
        history.underlay("x", int(1));
        history.underlay("db.port", int(7));
        history.underlay("db.host", int(8));
        history.underlay("absent", int(9));
        for (path, expected) in [
            ("x", "1 config.yaml:2; 1 b.yaml:2"),
            ("db.port", "7 built-in default; 1 a.yaml:1"),
            (
                "db.host",
                "8 built-in default; h a.yaml:2; - command line: ~db.host; 8 built-in default",
            ),
            ("absent", "9 built-in default"),
        ] {
            assert_eq!(told(&history, path), expected, "{path}");
        }
        assert_eq!(history.under("absent").len(), 1);
    }

    #[test]
    fn values_fit_in_a_line() {
        for (value, expected) in [
            (Value::Str("8".into()), "'8'"),
            (Value::Str("a\nb".into()), "\"a\\nb\""),
            (Value::Str("a b ".repeat(40)), &"a b ".repeat(40)),
            (Value::Float(1e-5), "1.0e-05"),
            (Value::Null, "null"),
            (
                Value::List(vec![Node::str("a"), Node::empty_map()]),
                "[a, {}]",
            ),
        ] {
            assert_eq!(one_line(&Node::built_in(value)), expected);
        }
    }
}
