//! One item of a defaults list, and what its group, package and place make of it.

use crate::compose::error::Problem;
use crate::compose::nearest;
use crate::compose::node::{Key, Node, Origin, Value};

/// An item of a defaults list, or of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub item: Item,
    /// After the `@`.
    pub package: Option<String>,
    pub optional: bool,
    /// `override group: option`.
    pub overrides: bool,
    /// `+group=option` from the command line.
    pub appended: bool,
    /// The primary config itself.
    pub primary: bool,
    /// A group whose values a saved config has; it counts only when chosen anew.
    pub saved: bool,
    /// Dropped: deleted on the command line, or optional and absent.
    pub deleted: bool,
    /// The `# @package` of its file, absolute.
    pub header: Option<String>,
    pub parent: Parent,
    pub origin: Origin,
}

/// The group and package of the config whose defaults list holds the entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parent {
    pub group: String,
    pub package: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// `_self_`
    OwnBody,
    /// `path/to/config`
    Config(String),
    /// `group: choice`
    Group { group: String, choice: Choice },
}

/// What is chosen in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Null,
    One(String),
    Many(Vec<String>),
}

impl Entry {
    pub(crate) fn new(item: Item, origin: Origin) -> Entry {
        Entry {
            item,
            package: None,
            optional: false,
            overrides: false,
            appended: false,
            primary: false,
            saved: false,
            deleted: false,
            header: None,
            parent: Parent::default(),
            origin,
        }
    }

    pub(crate) fn with_package(mut self, package: Option<String>) -> Entry {
        // `_here_` as the whole package is the parent's own.
        self.package = package.map(|p| if p == "_here_" { String::new() } else { p });
        self
    }

    pub(crate) fn is_own_body(&self) -> bool {
        matches!(self.item, Item::OwnBody)
    }

    /// Puts the entry under its parent. `_group_` in its package can then be replaced.
    pub(crate) fn set_parent(&mut self, group: &str, package: &str) {
        self.parent = Parent {
            group: group.to_string(),
            package: package.to_string(),
        };
        if let Some(package) = &self.package
            && package.contains("_group_")
        {
            let resolved = package.replace("_group_", &self.default_package());
            self.package = Some(format!("_global_.{resolved}"));
        }
    }

    /// A package header is absolute.
    pub(crate) fn set_header(&mut self, header: Option<&str>) {
        self.header = header.map(|header| {
            if header == "_global_" || header.starts_with("_global_.") {
                header.to_string()
            } else if header.is_empty() {
                "_global_".to_string()
            } else {
                format!("_global_.{header}")
            }
        });
    }

    /// The option or file name; `None` for a null choice and for lists.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.item {
            Item::OwnBody => Some("_self_"),
            Item::Config(path) => path.rsplit('/').next(),
            Item::Group {
                choice: Choice::One(name),
                ..
            } => Some(name),
            Item::Group { .. } => None,
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.name() == Some("???")
    }

    pub(crate) fn is_interpolation(&self) -> bool {
        match &self.item {
            Item::OwnBody => false,
            Item::Config(path) => path.contains("${"),
            Item::Group { .. } => self.name().is_some_and(|name| name.contains("${")),
        }
    }

    /// A path under the parent's group, unless it starts with `/`.
    fn absolute(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(absolute) => absolute.to_string(),
            None if self.parent.group.is_empty() => path.to_string(),
            None if path.is_empty() => self.parent.group.clone(),
            None => format!("{}/{path}", self.parent.group),
        }
    }

    /// The group in the search path.
    pub(crate) fn group_path(&self) -> String {
        match &self.item {
            Item::OwnBody => self.parent.group.clone(),
            Item::Config(path) => {
                let absolute = path.starts_with('/');
                let trimmed = path.strip_prefix('/').unwrap_or(path);
                let group = trimmed.rsplit_once('/').map_or("", |(group, _)| group);
                if absolute {
                    group.to_string()
                } else {
                    self.absolute(group)
                }
            }
            Item::Group { group, .. } => self.absolute(group),
        }
    }

    /// The config in the search path, without `.yaml`.
    pub(crate) fn config_path(&self) -> String {
        match &self.item {
            Item::OwnBody => self.absolute("_self_"),
            Item::Config(path) => self.absolute(path),
            Item::Group { .. } => {
                format!("{}/{}", self.group_path(), self.name().unwrap_or("null"))
            }
        }
    }

    fn default_package(&self) -> String {
        self.group_path().replace('/', ".")
    }

    /// The group part as written, which gives the package below the parent's.
    fn relative_package(&self) -> String {
        let written = match &self.item {
            Item::OwnBody => "",
            Item::Config(path) => {
                let path = path.strip_prefix('/').unwrap_or(path);
                path.rsplit_once('/').map_or("", |(group, _)| group)
            }
            Item::Group { group, .. } => group.strip_prefix('/').unwrap_or(group),
        };
        written.replace('/', ".")
    }

    fn package_under_parent(&self, package: Option<&str>) -> String {
        let package = package.map_or_else(|| self.relative_package(), str::to_string);
        let joined = match (self.parent.package.as_str(), package.as_str()) {
            ("", package) => package.to_string(),
            (parent, "") => parent.to_string(),
            (parent, package) => format!("{parent}.{package}"),
        };
        const GLOBAL: &str = "_global_";
        match joined.rfind(GLOBAL) {
            Some(at) => joined
                .get(at + GLOBAL.len() + 1..)
                .unwrap_or_default()
                .to_string(),
            None => joined,
        }
    }

    /// The package its content goes to: the one written beside it, else its
    /// file's header, else the group. Empty is the top.
    pub(crate) fn final_package(&self) -> String {
        let package = self.package.as_deref().or(self.header.as_deref());
        self.package_under_parent(package)
    }

    /// What overrides call it: the group, with `@package` if that is not the default one.
    pub(crate) fn override_key(&self) -> String {
        let default = self.default_package();
        let package = self.package_under_parent(self.package.as_deref());
        let group = self.group_path();
        if package == default {
            group
        } else if package.is_empty() {
            format!("{group}@_global_")
        } else {
            format!("{group}@{package}")
        }
    }
}

/// The entries of a `defaults:` node.
///
/// # Errors
/// Every item that is no entry.
pub(crate) fn read_entries(config: &str, list: &Node) -> Result<Vec<Entry>, Vec<Problem>> {
    let Value::List(items) = &list.value else {
        return Err(vec![
            Problem::new(format!(
                "the defaults of '{config}' must be a list, not {}",
                list.type_name()
            ))
            .at(&list.origin)
            .help("write\n  defaults:\n    - group: option\n    - _self_"),
        ]);
    };
    let mut entries = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    let mut own_body_seen = false;
    for item in items {
        match read_entry(item) {
            Ok(entry) if entry.is_own_body() && std::mem::replace(&mut own_body_seen, true) => {
                problems.push(
                    Problem::new(format!(
                        "'_self_' stands twice in the defaults of '{config}'"
                    ))
                    .at(&item.origin)
                    .help("keep the one that marks where this file's own values go"),
                );
            }
            Ok(entry) => entries.push(entry),
            Err((message, help)) => {
                let problem =
                    Problem::new(format!("defaults of '{config}': {message}")).at(&item.origin);
                problems.push(match help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(entries)
    } else {
        Err(problems)
    }
}

/// What may stand before a group.
const KEYWORDS: [&str; 2] = ["optional", "override"];

type Fault = (String, Option<String>);

fn fault<T>(message: impl Into<String>, help: Option<&str>) -> Result<T, Fault> {
    Err((message.into(), help.map(str::to_string)))
}

fn read_entry(node: &Node) -> Result<Entry, Fault> {
    match &node.value {
        Value::Str(text) => {
            let (path, package) = split_package(text);
            if path == "_self_" {
                if package.is_some() {
                    return fault("_self_ cannot have a package", None);
                }
                return Ok(Entry::new(Item::OwnBody, node.origin.clone()));
            }
            if let Some((keyword, rest)) = path.split_once(' ') {
                return match nearest(keyword, KEYWORDS.into_iter()) {
                    Some(near) if near != keyword => fault(
                        format!("unknown keyword '{keyword}'"),
                        Some(&format!(
                            "did you mean '{near}'? It stands before a group: '{near} {rest}: option'"
                        )),
                    ),
                    _ => fault(
                        format!(
                            "'{keyword}' works only for groups, as in '{keyword} group: option'"
                        ),
                        None,
                    ),
                };
            }
            let item = Item::Config(path.to_string());
            Ok(Entry::new(item, node.origin.clone()).with_package(package))
        }
        Value::Map(map) => {
            let mut pairs = map.iter();
            let (Some((key, value)), None) = (pairs.next(), pairs.next()) else {
                return fault(
                    format!("an item has one group, this one has {}", map.len()),
                    Some("give each group a '- ' of its own"),
                );
            };
            let Key::Str(key) = key else {
                return fault(
                    format!("the group name '{key}' must be a string"),
                    Some("quote it"),
                );
            };
            read_group(key, value)
        }
        _ => fault(
            format!(
                "an item is a config name or 'group: option', not {}",
                node.type_name()
            ),
            None,
        ),
    }
}

fn read_group(key: &str, value: &Node) -> Result<Entry, Fault> {
    let (group, package) = split_package(key);
    let mut words: Vec<&str> = group.split(' ').collect();
    let group = words.pop().unwrap_or_default().to_string();
    let (mut optional, mut overrides) = (false, false);
    for word in words.into_iter().filter(|w| !w.is_empty()) {
        match word {
            "optional" => optional = true,
            "override" => overrides = true,
            _ => {
                let help = match nearest(word, KEYWORDS.into_iter()) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => "before a group stand only 'optional' and 'override'".to_string(),
                };
                return fault(format!("unknown keyword '{word}'"), Some(&help));
            }
        }
    }
    if group.is_empty() {
        return fault("the group name is empty", None);
    }
    let choice = match &value.value {
        Value::Null => Choice::Null,
        Value::Str(name) => Choice::One(name.clone()),
        Value::List(items) => {
            let mut names = Vec::with_capacity(items.len());
            for item in items {
                match item.as_str() {
                    Some(name) => names.push(name.to_string()),
                    None => {
                        return fault(
                            format!(
                                "an option of '{group}' must be a string, not {}",
                                item.type_name()
                            ),
                            Some("quote it"),
                        );
                    }
                }
            }
            Choice::Many(names)
        }
        _ => {
            return fault(
                format!(
                    "the option of '{group}' must be a string, a list of strings or null, not {}",
                    value.type_name()
                ),
                Some(match value.value {
                    Value::Map(_) => "an option is the name of a file; values go into that file",
                    _ => "quote it if it is the name of a file",
                }),
            );
        }
    };
    // `group: _self_` is the body too, under another name.
    let item = if choice == Choice::One("_self_".to_string()) {
        Item::OwnBody
    } else {
        Item::Group { group, choice }
    };
    let mut entry = Entry::new(item, value.origin.clone()).with_package(package);
    entry.optional = optional;
    entry.overrides = overrides;
    Ok(entry)
}

/// `name@package`; what follows a `:` in the package is Hydra 1.0's renaming and has no meaning.
fn split_package(text: &str) -> (&str, Option<String>) {
    match text.split_once('@') {
        None => (text, None),
        Some((name, package)) => {
            let package = package.split(':').next().unwrap_or_default();
            (name, Some(package.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: &str, package: Option<&str>, parent: (&str, &str)) -> Entry {
        let item = Item::Group {
            group: group.to_string(),
            choice: Choice::One("x".to_string()),
        };
        let mut entry = Entry::new(item, Origin::BuiltIn).with_package(package.map(str::to_string));
        entry.set_parent(parent.0, parent.1);
        entry
    }

    #[test]
    fn packages_follow_hydra() {
        for (name, package, parent, expected, key) in [
            ("db", None, ("", ""), "db", "db"),
            ("sub", None, ("g", "g"), "g.sub", "g/sub"),
            ("/h", None, ("g", "g"), "g.h", "h@g.h"),
            ("/h", Some("_global_.top"), ("g", "g"), "top", "h@top"),
            ("/h", Some("_group_"), ("g", "g"), "h", "h"),
            ("/h", Some("_group_.q"), ("g", "g"), "h.q", "h@h.q"),
            ("h", Some("_here_"), ("g", "g"), "g", "g/h@g"),
            ("h", Some("_global_"), ("", ""), "", "h@_global_"),
            ("h", Some("src"), ("", ""), "src", "h@src"),
        ] {
            let entry = group(name, package, parent);
            assert_eq!(entry.final_package(), expected, "{name} {package:?}");
            assert_eq!(entry.override_key(), key, "{name} {package:?}");
        }
    }

    #[test]
    fn the_header_is_absolute_and_yields_to_the_list() {
        let mut entry = group("h", None, ("g", "g"));
        entry.set_header(Some("foo.bar"));
        assert_eq!(entry.final_package(), "foo.bar");
        let mut entry = group("h", Some("zz"), ("g", "g"));
        entry.set_header(Some("foo.bar"));
        assert_eq!(entry.final_package(), "g.zz");
    }

    #[test]
    fn bad_items_are_named() {
        let path = std::sync::Arc::new(std::path::PathBuf::from("c.yaml"));
        for (text, expected) in [
            ("defaults: 5", "must be a list"),
            ("defaults: [{a: b, c: d}]", "has 2"),
            (
                "defaults: [{a: {b: 1}}]",
                "a list of strings or null, not dict",
            ),
            ("defaults: [{a: yes}]", "not bool"),
            ("defaults: [{overide a: b}]", "did you mean 'override'"),
            ("defaults: [optional a]", "works only for groups"),
            (
                "defaults: [optinal a]",
                "did you mean 'optional'? It stands before",
            ),
            ("defaults: [_self_, _self_]", "twice"),
            ("defaults: [_self_@a]", "cannot have a package"),
            ("defaults: [[a]]", "not list"),
        ] {
            let node = crate::compose::yaml_read::read_yaml(text, &path).expect("valid");
            let list = node.select("defaults").expect("there");
            let problems = read_entries("c", list).expect_err(text);
            let message = problems[0].to_string();
            assert!(
                message.contains(expected) && message.starts_with("c.yaml:1"),
                "{message}"
            );
        }
    }
}
