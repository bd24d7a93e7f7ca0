//! Overrides of values on the composed tree, which is closed by then: a key
//! that is not there can only be added with `+` or `++`.

use super::error::{Cause, Problem};
use super::found::{Fail, Step, at, at_mut, dotted};
use super::grammar::element::{Element, ListEdit};
use super::grammar::overrides::{Kind, Override};
use super::grammar::values::Parsed;
use super::hydra_types::Types;
use super::interpolate::Resolver;
use super::library::Library;
use super::list_edit;
use super::merge::{Fault, merge};
use super::nearest;
use super::node::{Key, MAX_LEVELS, Node, Origin, Value, split_path};
use super::python;
use super::request::Elsewhere;
use super::resolvers::Config;
use super::scope::Scope;
use super::unknown::Unknown;

/// What the overrides of one composition share.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'e> {
    /// Its groups, for hints.
    pub library: &'e Library,
    /// Of the keys of `hydra`.
    pub types: Types<'e>,
    pub scope: &'e Scope,
    /// A schema follows that knows every key, so adding one is no way out.
    pub closed: Option<Elsewhere>,
}

/// Applies one override to the whole tree (`hydra` included).
///
/// # Errors
/// Unknown keys with the nearest known one, `+` on a key that is there, and so on.
pub(crate) fn apply(root: &mut Node, one: &Override, setting: Setting<'_>) -> Result<(), Problem> {
    let origin = one.origin();
    let at_origin = |problem: Problem| problem.at(&origin);
    if let Some(package) = &one.package {
        let groups = setting.library.groups();
        let near = nearest(&one.key, groups.iter().map(String::as_str));
        return Err(at_origin(
            Problem::new(format!(
                "'{}@{package}' names a group, but there is no group '{}'",
                one.key, one.key
            ))
            .help(match near {
                Some(near) => format!("did you mean '{near}@{package}'?"),
                None => format!("groups: {}", shown_groups(groups)),
            }),
        ));
    }
    let steps = split_path(&one.key);
    if steps.is_empty() {
        return Err(at_origin(Problem::new("the key before '=' is missing")));
    }
    let value = match &one.value {
        Parsed::Element(Element::Edit(edit)) => {
            let mut place = Edit {
                root,
                one,
                origin: &origin,
                setting,
            };
            return place.edit_list(&steps, edit);
        }
        Parsed::Element(element) => Some(
            element
                .to_node(&origin)
                .map_err(|message| at_origin(Problem::new(message)))?,
        ),
        Parsed::Nothing => None,
        Parsed::Sweep(_) => return Ok(()),
    };
    if steps.len() + value.as_ref().map_or(0, Node::levels) > MAX_LEVELS {
        return Err(at_origin(Problem::new(format!(
            "'{}' leads to more than {MAX_LEVELS} levels",
            one.key
        ))));
    }
    let mut edit = Edit {
        root,
        one,
        origin: &origin,
        setting,
    };
    match (one.kind, value) {
        (Kind::Delete, value) => edit.delete(&steps, value),
        (Kind::Change, Some(value)) => edit.set(&steps, value, false),
        (Kind::ForceAdd, Some(value)) => edit.set(&steps, value, true),
        (Kind::Add, Some(value)) => {
            let is_container = matches!(value.value, Value::Map(_) | Value::List(_));
            if !is_container {
                edit.refuse_if_there()?;
            }
            edit.set(&steps, value, true)
        }
        (_, None) => Ok(()),
    }
}

fn adding_to(list: &str) -> String {
    format!("to add an item, write {list}=append(..)")
}

/// Hydra's own groups are hardly ever meant.
fn shown_groups(groups: &[String]) -> String {
    let shown: Vec<&str> = groups
        .iter()
        .map(String::as_str)
        .filter(|group| *group != "hydra" && !group.starts_with("hydra/"))
        .collect();
    shown.join(", ")
}

struct Edit<'e> {
    root: &'e mut Node,
    one: &'e Override,
    origin: &'e Origin,
    setting: Setting<'e>,
}

impl Edit<'_> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(message).at(self.origin)
    }

    /// What the key holds, interpolations followed; `None` for nothing and for `???`.
    fn current(&self) -> Result<Option<Value>, Problem> {
        let mut resolver = Resolver::new(self.root, None, self.setting.scope);
        match resolver.select(&self.one.key, None, false) {
            Ok(Some(found)) if !found.node.is_missing() => Ok(Some(found.node.value.clone())),
            Ok(_) | Err(Fail::NotContainer(_)) => Ok(None),
            Err(fail) => Err(self
                .problem(format!(
                    "cannot read '{}': {}",
                    self.one.key,
                    fail.message()
                ))
                .caused_by(Cause::Absent)),
        }
    }

    fn refuse_if_there(&self) -> Result<(), Problem> {
        match self.current()? {
            None | Some(Value::Null) => Ok(()),
            Some(_) => {
                let input = &self.one.input;
                Err(self
                    .problem(format!("'{}' is there already", self.one.key))
                    .help(format!(
                        "to change it, write {}",
                        input.trim_start_matches('+')
                    )))
            }
        }
    }

    fn delete(&mut self, steps: &[String], wanted: Option<Node>) -> Result<(), Problem> {
        if steps[0] == "hydra" && self.setting.types.is_fixed(&steps[1..]) {
            return Err(self.problem(format!(
                "'{}' belongs to Hydra and cannot be deleted",
                self.one.key
            )));
        }
        let current = match self.current()? {
            None | Some(Value::Null) => {
                return Err(self.unknown(steps, "cannot delete"));
            }
            Some(value) => value,
        };
        if let Some(wanted) = wanted.filter(|w| !w.is_null())
            && !python::equal(&wanted.value, &current)
        {
            return Err(self
                .problem(format!(
                    "cannot delete '{}': its value is {}, not {}",
                    self.one.key,
                    python::repr(&current),
                    python::repr(&wanted.value)
                ))
                .help(format!(
                    "to delete it whatever it is, write ~{}",
                    self.one.key
                )));
        }
        let (last, parents) = match steps.split_last() {
            Some(split) => split,
            None => return Ok(()),
        };
        // The parent may be an interpolation: then the value it stands for loses the key.
        let place = {
            let mut resolver = Resolver::new(self.root, None, self.setting.scope);
            match resolver.select(&parents.join("."), None, false) {
                Ok(Some(found)) => found.place,
                _ => None,
            }
        };
        let place = if parents.is_empty() {
            Some(Vec::new())
        } else {
            place
        };
        let parent = place.and_then(|place| at_mut(self.root, &place));
        let removed = match parent.map(|node| &mut node.value) {
            Some(Value::Map(map)) => map.shift_remove(&Key::from(last.as_str())).is_some(),
            Some(Value::List(_)) => {
                return Err(self
                    .problem(format!(
                        "'{}' is an item of a list, and those cannot be deleted",
                        self.one.key
                    ))
                    .help(format!("give the whole list: {}=[..]", parents.join("."))));
            }
            _ => false,
        };
        if removed {
            Ok(())
        } else {
            Err(self.unknown(steps, "cannot delete"))
        }
    }

    fn set(&mut self, steps: &[String], value: Node, force: bool) -> Result<(), Problem> {
        let (last, parents) = match steps.split_last() {
            Some(split) => split,
            None => return Ok(()),
        };
        let place = self.parent_place(steps, parents, force)?;
        let Some(parent) = at(self.root, &place) else {
            return Err(self.unknown(steps, "cannot override"));
        };
        let step = match &parent.value {
            Value::List(items) => match python::parse_index(last) {
                Some(index) if (0..items.len() as i64).contains(&index) => {
                    Step::Index(index as usize)
                }
                Some(_) => {
                    return Err(self
                        .problem(format!(
                            "'{}': the list has {} items, the first is 0",
                            self.one.key,
                            items.len()
                        ))
                        .help(adding_to(&dotted(&place))));
                }
                None => {
                    return Err(self
                        .problem(format!(
                            "'{}' is a list; its keys are numbers, not '{last}'",
                            dotted(&place)
                        ))
                        .help(adding_to(&dotted(&place))));
                }
            },
            _ => Step::Key(Key::from(last.as_str())),
        };
        let mut target = place;
        target.push(step);
        self.put(target, steps, value, force)
    }

    /// Finds the dictionary or list that holds the last key. With `force`,
    /// what is missing or holds nothing on the way becomes a dictionary.
    fn parent_place(
        &mut self,
        steps: &[String],
        parents: &[String],
        force: bool,
    ) -> Result<Vec<Step>, Problem> {
        let mut place: Vec<Step> = Vec::new();
        for name in parents {
            let here = at(self.root, &place);
            let step = match here.map(|node| &node.value) {
                Some(Value::Map(_)) => Step::Key(Key::from(name.as_str())),
                Some(Value::List(items)) => match python::parse_index(name) {
                    Some(index) if (0..items.len() as i64).contains(&index) => {
                        Step::Index(index as usize)
                    }
                    _ => {
                        return Err(self.problem(format!(
                            "'{}' is a list with {} items; there is no '{name}' in it",
                            dotted(&place),
                            items.len()
                        )));
                    }
                },
                _ => return Err(self.unknown(steps, "cannot override")),
            };
            let mut next = place.clone();
            next.push(step.clone());
            let holds = at(self.root, &next)
                .is_some_and(|node| matches!(node.value, Value::Map(_) | Value::List(_)));
            if !holds {
                if !force {
                    return Err(self.unknown(steps, "cannot override"));
                }
                let empty = Node::new(Node::empty_map().value, self.origin.clone());
                self.write(&place, step, empty);
            }
            place = next;
        }
        Ok(place)
    }

    fn write(&mut self, parent: &[Step], step: Step, node: Node) {
        match (at_mut(self.root, parent).map(|n| &mut n.value), step) {
            (Some(Value::Map(map)), Step::Key(key)) => {
                map.insert(key, node);
            }
            (Some(Value::List(items)), Step::Index(index)) => {
                if let Some(item) = items.get_mut(index) {
                    *item = node;
                }
            }
            _ => {}
        }
    }

    fn put(
        &mut self,
        mut target: Vec<Step>,
        steps: &[String],
        value: Node,
        force: bool,
    ) -> Result<(), Problem> {
        let there = at(self.root, &target).map(|node| &node.value);
        let force = force || (steps[0] == "hydra" && self.setting.types.may_be_absent(&steps[1..]));
        let clash = match (there, &value.value) {
            (None, _) if !force => return Err(self.unknown(steps, "cannot override")),
            (Some(Value::Map(_)), Value::Map(_)) => {
                let merged = merge(self.root, &mut target, &value, !force, self.setting.scope);
                return merged.map_err(|fault| match fault {
                    Fault::Unknown { place } => {
                        let steps: Vec<String> = place
                            .iter()
                            .map(|step| dotted(std::slice::from_ref(step)))
                            .collect();
                        self.unknown(&steps, "cannot override")
                    }
                    Fault::Clash { place, .. } => self.problem(format!(
                        "a dict and a list meet at '{}' and cannot be merged",
                        dotted(&place)
                    )),
                    Fault::Limit { place, message } => {
                        self.problem(format!("cannot merge into '{}': {message}", dotted(&place)))
                    }
                });
            }
            (Some(Value::Map(_)), Value::List(_)) => Some("dict"),
            (Some(Value::List(_)), Value::Map(_)) => Some("list"),
            _ => None,
        };
        if let Some(kind) = clash {
            let key = &self.one.key;
            let text = self.one.input.split_once('=').map_or("", |(_, text)| text);
            return Err(self
                .problem(format!(
                    "'{key}' is a {kind}; a {} cannot be merged into it",
                    value.type_name()
                ))
                .help(match self.in_list(&target) {
                    true => "items of a list cannot be deleted: give the whole list".to_string(),
                    false => format!("to replace it, delete it first: '~{key}' '+{key}={text}'"),
                }));
        }
        if let Some(step) = target.pop() {
            self.write(&target, step, value);
        }
        Ok(())
    }

    /// Whether a place is an item of a list.
    fn in_list(&self, place: &[Step]) -> bool {
        let above = place.split_last().map(|(_, above)| above);
        let above = above.and_then(|above| at(self.root, above));
        above.is_some_and(|node| matches!(node.value, Value::List(_)))
    }

    /// The problem of a key that is not there.
    fn unknown(&self, steps: &[String], what: &str) -> Problem {
        let add = (self.one.kind == Kind::Change).then(|| format!("+{}", self.one.input));
        self.unknown_but(steps, what, add)
    }

    /// The same, with the override that would add the key.
    fn unknown_but(&self, steps: &[String], what: &str, add: Option<String>) -> Problem {
        if !self.setting.scope.take_hint() {
            let key = steps.join(".");
            return self
                .problem(format!("{what} '{key}': there is no such key"))
                .caused_by(Cause::Absent);
        }
        Unknown {
            root: self.root,
            steps,
            library: self.setting.library,
            add: add.filter(|_| self.setting.closed.is_none()),
            elsewhere: self.setting.closed,
        }
        .problem(what)
        .at(self.origin)
    }

    /// `append(..)` and its relatives.
    fn edit_list(&mut self, steps: &[String], edit: &ListEdit) -> Result<(), Problem> {
        let key = &self.one.key;
        if self.one.kind != Kind::Change {
            let text = edit.to_text();
            return Err(self
                .problem(format!(
                    "{}() edits a list that is there, so its key has no prefix",
                    edit.function
                ))
                .help(format!("write {key}={text}")));
        }
        let found = list_edit::find(self.root, steps, edit, self.setting.scope);
        match found.map_err(|problem| problem.at(self.origin))? {
            Some(place) => list_edit::carry_out(self.root, &place, edit, self.origin)
                .map_err(|problem| problem.at(self.origin)),
            None => Err(self.unknown_but(steps, "cannot edit", Some(format!("+{key}=[..]")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::hydra_types::Choices;
    use crate::compose::to_yaml;
    use crate::compose::yaml_read::read_yaml;

    const CONFIG: &str = "hydra: {}\na: 1\nd: {x: 1, l: [1, {k: v}]}\nn: null\nr: ${d}\nm: ???\n";

    fn applied(text: &str) -> Result<String, String> {
        let path = std::sync::Arc::new(std::path::PathBuf::from("a.yaml"));
        let mut root = read_yaml(CONFIG, &path).map_err(|p| p.to_string())?;
        let one = Override::parse(text).map_err(|f| f.message)?;
        let setting = Setting {
            library: &Library::embedded(&[("model/one.yaml", "")]),
            types: Types(&Choices::default()),
            scope: &Scope::new(chrono::Local::now()),
            closed: None,
        };
        apply(&mut root, &one, setting).map_err(|p| p.to_string())?;
        Ok(to_yaml(&root).replacen("hydra: {}\n", "", 1))
    }

    #[test]
    fn values_are_changed_added_and_deleted() {
        for (text, part) in [
            ("a=2", "a: 2\n"),
            ("d.l.1.k=w", "  - k: w\n"),
            ("d={x:5}", "  x: 5\n  l:\n"),
            ("+d={z:5}", "  z: 5\n"),
            ("d.l=[7]", "  l:\n  - 7\n"),
            ("+n.q=1", "n:\n  q: 1\n"),
            ("+m=1", "m: 1\n"),
            ("++a.b.c=1", "a:\n  b:\n    c: 1\n"),
            ("+new=1", "new: 1\n"),
            ("r={z:1}", "r:\n  z: 1\n"),
        ] {
            let yaml = applied(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let yaml = yaml.replace("'n':", "n:");
            assert!(yaml.contains(part), "{text}:\n{yaml}");
        }
        assert!(!applied("~a").expect("deletes").contains("a: 1"));
        // Deleting through an interpolation deletes what it stands for.
        assert!(!applied("~r.x").expect("deletes").contains("x: 1"));
    }

    #[test]
    fn a_closed_tree_refuses_what_it_does_not_have() {
        for (text, part) in [
            ("b=2", "there is no such key"),
            ("d.y=2", "no such key"),
            ("d={y:2}", "'d.y'"),
            ("n.q=1", "holds no keys"),
            ("+a=2", "there already"),
            ("~a=2", "its value is 1, not 2"),
            ("~n", "cannot delete"),
            ("~d.l.0", "item of a list"),
            ("d.l.7=1", "has 2 items"),
            ("d.l={a:1}", "is a list"),
            ("d=[1]", "is a dict"),
            ("modle=x", "did you mean 'model'?"),
            ("x=2", "did you mean 'd.x'?"),
            ("=2", "missing"),
            ("a@b=2", "no group 'a'"),
        ] {
            let message = applied(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
