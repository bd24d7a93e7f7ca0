//! Resolving interpolations in a composed tree, with OmegaConf's rules: lazily,
//! relative to the node that holds them, following other interpolations on the way.

use std::borrow::Cow;

use super::error::{MAX_PROBLEMS, Problem};
use super::found::{Fail, Located, Step, at, child_of, dotted, fail, made, not_found, ring};
use super::grammar::interpolation;
use super::grammar::template::{Arg, Interpolation, Part, Template};
use super::node::{Key, MAX_LEVELS, MAX_NODES, Map, Node, Value, insert_key, split_path};
use super::python;
use super::resolvers::{self, Config};
use super::scope::Scope;

/// More nested interpolations than this are refused.
const MAX_DEPTH: usize = 100;

/// Resolves values of one tree.
pub(crate) struct Resolver<'a> {
    root: &'a Node,
    /// The whole tree with its `hydra` key, for `${hydra:..}`; `None` while composing.
    whole: Option<&'a Node>,
    pub(crate) scope: &'a Scope,
    /// The interpolations being resolved, by tree and place.
    stack: Vec<(*const Node, Vec<Step>)>,
    /// Failures are not shown to anybody.
    quiet: bool,
    /// The interpolation that comes next is to be a part of a text.
    as_text: bool,
    /// The interpolations whose collections are being resolved value by value.
    open: Vec<(*const Node, Vec<Step>)>,
    depth: usize,
    /// Levels of the tree being copied, and its values.
    levels: usize,
    nodes: usize,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(root: &'a Node, whole: Option<&'a Node>, scope: &'a Scope) -> Resolver<'a> {
        Resolver {
            root,
            whole,
            scope,
            stack: Vec::new(),
            quiet: false,
            as_text: false,
            open: Vec::new(),
            depth: 0,
            levels: 0,
            nodes: 0,
        }
    }

    /// For a caller that does not show failures: they come without suggestions.
    pub(crate) fn quiet(mut self) -> Resolver<'a> {
        self.quiet = true;
        self
    }

    /// The whole tree with every interpolation resolved. `???`, and what leads to it, stays `???`.
    pub(crate) fn resolve_all(&mut self) -> Result<Node, Vec<Problem>> {
        let mut problems = Vec::new();
        let node = self.tree(self.root, Some(Vec::new()), &mut problems);
        match node {
            Ok(node) if problems.is_empty() => Ok(node),
            Ok(_) => Err(problems),
            Err(fail) => {
                problems.push(Problem::new(fail.message()));
                Err(problems)
            }
        }
    }

    /// One value, resolved through and through. `None` if the path leads nowhere or to `???`.
    pub(crate) fn resolve_path(&mut self, path: &str) -> Result<Option<Node>, Vec<Problem>> {
        match self.find(path)? {
            Some(found) => self.resolved(found).map(Some),
            None => Ok(None),
        }
    }

    /// What a path leads to, and where that stands. What is inside is resolved on demand.
    pub(crate) fn part(
        &mut self,
        path: &str,
        resolve: bool,
    ) -> Result<Option<(Node, Option<String>)>, Vec<Problem>> {
        let Some(found) = self.find(path)? else {
            return Ok(None);
        };
        let place = found.place.as_deref().map(dotted);
        let node = match resolve {
            true => self.resolved(found)?,
            false => found.node.into_owned(),
        };
        Ok(Some((node, place)))
    }

    /// `None` if the path leads nowhere or to `???`.
    fn find(&mut self, path: &str) -> Result<Option<Located<'a>>, Vec<Problem>> {
        match self.select_from(Vec::new(), path, false) {
            Ok(found) => Ok(found.filter(|found| !found.node.is_missing())),
            Err(Fail::NotContainer(_)) => Ok(None),
            Err(Fail::Behind(problem)) => Err(vec![*problem]),
            Err(fail) => Err(vec![Problem::new(format!(
                "cannot resolve '{path}': {}",
                fail.message()
            ))]),
        }
    }

    /// A found value with all that is inside resolved.
    fn resolved(&mut self, found: Located<'a>) -> Result<Node, Vec<Problem>> {
        let mut problems = Vec::new();
        let node = self
            .tree(&found.node, found.place, &mut problems)
            .map_err(|fail| vec![Problem::new(fail.message())])?;
        if problems.is_empty() {
            Ok(node)
        } else {
            Err(problems)
        }
    }

    /// A copy of a node with its interpolations resolved. Problems of single
    /// values are collected; only limits stop the walk.
    fn tree(
        &mut self,
        node: &Node,
        place: Option<Vec<Step>>,
        problems: &mut Vec<Problem>,
    ) -> Result<Node, Fail> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fail::Limit(format!(
                "the resolved config has more than {MAX_NODES} values"
            )));
        }
        if self.levels > MAX_LEVELS {
            return fail(format!(
                "the resolved config has more than {MAX_LEVELS} levels"
            ));
        }
        self.levels += 1;
        let result = self.copy(node, place, problems);
        self.levels -= 1;
        result
    }

    fn copy(
        &mut self,
        node: &Node,
        place: Option<Vec<Step>>,
        problems: &mut Vec<Problem>,
    ) -> Result<Node, Fail> {
        let child_place = |step: Step| {
            place.as_ref().map(|place| {
                let mut place = place.clone();
                place.push(step);
                place
            })
        };
        match &node.value {
            Value::Map(map) => {
                let mut out = Map::with_capacity(map.len());
                for (key, child) in map {
                    let place = child_place(Step::Key(key.clone()));
                    out.insert(key.clone(), self.tree(child, place, problems)?);
                }
                Ok(Node::new(Value::Map(out), node.origin.clone()))
            }
            Value::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (index, child) in items.iter().enumerate() {
                    let place = child_place(Step::Index(index));
                    out.push(self.tree(child, place, problems)?);
                }
                Ok(Node::new(Value::List(out), node.origin.clone()))
            }
            Value::Str(text) if text.contains("${") => self.leaf(node, text, place, problems),
            _ => Ok(node.clone()),
        }
    }

    /// An interpolated string as the tree it stands for.
    fn leaf(
        &mut self,
        node: &Node,
        text: &str,
        place: Option<Vec<Step>>,
        problems: &mut Vec<Problem>,
    ) -> Result<Node, Fail> {
        let found = match &place {
            Some(place) => {
                let found = self.push(place).and_then(|()| self.text(text, Some(place)));
                self.stack.pop();
                found
            }
            None => self.text(text, None),
        };
        match found.and_then(|found| self.refuse_if_open(place.as_deref(), found)) {
            // The origin is where the interpolation was written: that is the line to change.
            Ok(found) if found.node.as_str().is_some_and(|s| s.contains("${")) => {
                Ok(Node::new(found.node.value.clone(), node.origin.clone()))
            }
            Ok(found) => {
                self.open.push((self.root, place.unwrap_or_default()));
                let resolved = self.tree(&found.node, found.place, problems);
                self.open.pop();
                resolved.map(|mut resolved| {
                    match resolved.value {
                        // Collections of the config keep their lines, those a resolver made get one.
                        Value::Map(_) | Value::List(_) => resolved.fill_origin(&node.origin),
                        _ => resolved.origin = node.origin.clone(),
                    }
                    resolved
                })
            }
            Err(Fail::Missing(_)) => Ok(Node::new(Value::Str("???".into()), node.origin.clone())),
            Err(Fail::Limit(text)) => Err(Fail::Limit(text)),
            Err(fail) => {
                let place = place.as_deref().unwrap_or_default();
                let problem = fail.problem(place, text, &node.origin);
                // Several keys may lead to the one that is wrong.
                if problems.contains(&problem) {
                    Ok(node.clone())
                } else if problems.len() < MAX_PROBLEMS {
                    problems.push(problem);
                    Ok(node.clone())
                } else {
                    let message = "there are more problems than these";
                    Err(Fail::Limit(message.to_string()))
                }
            }
        }
    }

    /// A value inside of what an interpolation stands for may lead to that interpolation again, but
    /// not to all of it: that would have no end.
    fn refuse_if_open(
        &self,
        place: Option<&[Step]>,
        found: Located<'a>,
    ) -> Result<Located<'a>, Fail> {
        let root: *const Node = self.root;
        match place {
            Some(place)
                if matches!(found.node.value, Value::Map(_) | Value::List(_))
                    && self.open.iter().any(|(r, p)| *r == root && p == place) =>
            {
                fail(format!("'{}' leads back to itself", dotted(place)))
            }
            _ => Ok(found),
        }
    }

    fn push(&mut self, place: &[Step]) -> Result<(), Fail> {
        let root: *const Node = self.root;
        let before = self
            .stack
            .iter()
            .position(|(r, p)| *r == root && p == place);
        // Pushed even then, so that every push has its pop.
        self.stack.push((root, place.to_vec()));
        if let Some(start) = before {
            // Without the one that was pushed just now.
            let end = self.stack.len() - 1;
            let places = self.stack[start..end].iter().map(|(_, p)| p.as_slice());
            return Err(ring(self.root, &places.collect::<Vec<_>>()));
        }
        if self.stack.len() > MAX_DEPTH {
            return fail(format!("interpolations nested deeper than {MAX_DEPTH}"));
        }
        Ok(())
    }

    /// What an interpolated string stands for. `place` is where it is written.
    pub(crate) fn text(&mut self, text: &str, place: Option<&[Step]>) -> Result<Located<'a>, Fail> {
        self.scope.spend_text(text.len())?;
        let template = interpolation::parse(text).map_err(|fault| {
            Fail::Other(format!("{} at column {}", fault.message, fault.column + 1))
        })?;
        self.template(&template, place)
    }

    fn template(
        &mut self,
        template: &Template,
        place: Option<&[Step]>,
    ) -> Result<Located<'a>, Fail> {
        if let [Part::Interpolation(one)] = template.parts.as_slice() {
            return self.interpolation(one, place);
        }
        let mut out = String::new();
        for part in &template.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Interpolation(one) => {
                    self.as_text = true;
                    let found = self.interpolation(one, place)?;
                    let text = python::to_str(&found.node.value);
                    self.scope.spend_text(text.len())?;
                    out.push_str(&text);
                }
            }
        }
        Ok(made(Value::Str(out)))
    }

    fn interpolation(
        &mut self,
        one: &Interpolation,
        place: Option<&[Step]>,
    ) -> Result<Located<'a>, Fail> {
        let as_text = std::mem::take(&mut self.as_text);
        self.scope.spend(1)?;
        self.depth += 1;
        let result = if self.depth > MAX_DEPTH {
            fail(format!("interpolations nested deeper than {MAX_DEPTH}"))
        } else {
            match one {
                Interpolation::Node(path) => self.node(path, place, as_text),
                Interpolation::Resolver { name, args } => self.name(name, place).and_then(|name| {
                    let args = args
                        .iter()
                        .map(|arg| self.arg(arg, place))
                        .collect::<Result<Vec<_>, _>>()?;
                    self.as_text = as_text;
                    let called = resolvers::call(self, &name, args, place);
                    self.as_text = false;
                    called
                }),
            }
        };
        self.depth -= 1;
        result
    }

    /// The text of a path or a resolver's name; nested interpolations must give strings.
    fn name(&mut self, parts: &[Part], place: Option<&[Step]>) -> Result<String, Fail> {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Interpolation(one) => match &self.interpolation(one, place)?.node.value {
                    Value::Str(text) => {
                        self.scope.spend_text(text.len())?;
                        out.push_str(text);
                    }
                    other => {
                        return fail(format!(
                            "an interpolation inside a key must give a string, not {}",
                            python::repr(other)
                        ));
                    }
                },
            }
        }
        Ok(out)
    }

    fn node(
        &mut self,
        path: &[Part],
        place: Option<&[Step]>,
        as_text: bool,
    ) -> Result<Located<'a>, Fail> {
        let key = self.name(path, place)?;
        self.as_text = as_text;
        let found = self.select(&key, place, true)?;
        let Some(found) = found else {
            let hint = !self.quiet && self.scope.take_hint();
            return fail(not_found(self.root, &key, place, hint));
        };
        if let (Some(target), Some(place)) = (&found.place, place)
            && place.len() > target.len()
            && place.starts_with(target)
        {
            return fail(format!("'{key}' holds the interpolation itself"));
        }
        Ok(found)
    }

    /// An argument with its interpolations resolved. What is nested in it counts
    /// as nested interpolations do, since one can bring a whole list into another.
    fn arg(&mut self, arg: &Arg, place: Option<&[Step]>) -> Result<Node, Fail> {
        self.scope.spend(1)?;
        self.depth += 1;
        let result = if self.depth > MAX_DEPTH {
            fail(format!("values nested deeper than {MAX_DEPTH}"))
        } else {
            self.arg_value(arg, place)
        };
        self.depth -= 1;
        result
    }

    fn arg_value(&mut self, arg: &Arg, place: Option<&[Step]>) -> Result<Node, Fail> {
        let value = match arg {
            Arg::Null => Value::Null,
            Arg::Bool(b) => Value::Bool(*b),
            Arg::Int(i) => Value::Int(*i),
            Arg::BigInt(i) => Value::BigInt(i.clone()),
            Arg::Float(f) => Value::Float(*f),
            Arg::Text(template) => {
                let found = self.template(template, place)?.node;
                self.scope.spend(found.size())?;
                return Ok(found.into_owned());
            }
            Arg::Quoted(template) => {
                self.as_text = matches!(template.parts.as_slice(), [Part::Interpolation(_)]);
                let found = self.template(template, place)?;
                Value::Str(python::to_str(&found.node.value))
            }
            Arg::List(items) => Value::List(
                items
                    .iter()
                    .map(|item| self.arg(item, place))
                    .collect::<Result<_, _>>()?,
            ),
            Arg::Dict(pairs) => {
                let mut map = Map::new();
                for (key, item) in pairs {
                    let item = self.arg(item, place)?;
                    insert_key(&mut map, key.clone(), item);
                }
                Value::Map(map)
            }
        };
        Ok(Node::built_in(value))
    }

    fn select_from(
        &mut self,
        base: Vec<Step>,
        key: &str,
        mandatory: bool,
    ) -> Result<Option<Located<'a>>, Fail> {
        let as_text = std::mem::take(&mut self.as_text);
        let Some(node) = at(self.root, &base) else {
            return Ok(None);
        };
        let mut here = Located {
            node: Cow::Borrowed(node),
            place: Some(base),
        };
        let steps = split_path(key);
        for (index, step) in steps.iter().enumerate() {
            let Some(child) = child_of(here, step)? else {
                return Ok(None);
            };
            let last = index + 1 == steps.len();
            if child.node.is_missing() {
                if mandatory {
                    return Err(Fail::Missing(format!("mandatory value '{key}' is missing")));
                }
                return Ok(last.then_some(child));
            }
            self.as_text = as_text && last;
            let followed = self.follow(child);
            self.as_text = false;
            here = followed?;
            if !last && !matches!(here.node.value, Value::Map(_) | Value::List(_)) {
                let parent = steps[..=index].join(".");
                return Err(Fail::NotContainer(format!(
                    "'{parent}' holds {}, so '{key}' leads nowhere",
                    here.node.type_name()
                )));
            }
        }
        Ok(Some(here))
    }

    /// The node itself, or what its interpolation stands for.
    fn follow(&mut self, found: Located<'a>) -> Result<Located<'a>, Fail> {
        let Some(text) = found.node.as_str().filter(|s| s.contains("${")) else {
            return Ok(found);
        };
        let Some(place) = &found.place else {
            return self.text(text, None);
        };
        let result = self.push(place).and_then(|()| self.text(text, Some(place)));
        self.stack.pop();
        result.map_err(|fail| match fail {
            Fail::Other(_) | Fail::NotContainer(_) => {
                Fail::Behind(Box::new(fail.problem(place, text, &found.node.origin)))
            }
            other => other,
        })
    }

    fn hydra_value(&mut self, path: &str) -> Result<Value, Fail> {
        let as_text = std::mem::take(&mut self.as_text);
        let base = vec![Step::Key(Key::from("hydra"))];
        let Some(found) = self.select_from(base, path, false)? else {
            return Ok(Value::Null);
        };
        if found.node.is_missing() {
            return Ok(Value::Null);
        }
        if as_text && matches!(found.node.value, Value::Map(_) | Value::List(_)) {
            self.scope.spend(found.node.size())?;
            return Ok(found.node.into_owned().value);
        }
        let mut problems = Vec::new();
        let node = self.tree(&found.node, found.place, &mut problems)?;
        match problems.into_iter().next() {
            Some(problem) => Err(Fail::Behind(Box::new(problem))),
            None => Ok(node.value),
        }
    }
}

impl<'a> Config<'a> for Resolver<'a> {
    fn scope(&self) -> &'a Scope {
        self.scope
    }

    fn select(
        &mut self,
        key: &str,
        place: Option<&[Step]>,
        mandatory: bool,
    ) -> Result<Option<Located<'a>>, Fail> {
        let dots = key.chars().take_while(|c| *c == '.').count();
        if dots == 0 {
            return self.select_from(Vec::new(), key, mandatory);
        }
        let Some(place) = place else {
            return fail(format!(
                "'{key}' is relative, but its value has no place in the config"
            ));
        };
        if dots > place.len() {
            return fail(format!("'{key}' goes above the top of the config"));
        }
        let base = place[..place.len() - dots].to_vec();
        self.select_from(base, &key[dots..], mandatory)
    }

    fn decode(&mut self, text: &str, place: Option<&[Step]>) -> Result<Located<'a>, Fail> {
        let arg = interpolation::parse_element(text).map_err(|fault| {
            Fail::Other(format!(
                "'{text}' cannot be decoded: {} at column {}",
                fault.message,
                fault.column + 1
            ))
        })?;
        match arg {
            Arg::Text(template) => self.template(&template, place),
            other => Ok(made(self.arg(&other, place)?.value)),
        }
    }

    /// Resolved in the whole tree. As part of a text a collection is written as it stands, as any
    /// other is.
    fn hydra(&mut self, path: &str) -> Result<Located<'a>, Fail> {
        let Some(whole) = self.whole else {
            return fail("'hydra:' is known only once the config is composed");
        };
        let mut inner = Resolver::new(whole, Some(whole), self.scope);
        inner.stack = std::mem::take(&mut self.stack);
        inner.open = std::mem::take(&mut self.open);
        inner.depth = self.depth;
        inner.levels = self.levels;
        inner.nodes = self.nodes;
        inner.quiet = self.quiet;
        inner.as_text = std::mem::take(&mut self.as_text);
        let result = inner.hydra_value(path);
        self.stack = inner.stack;
        self.open = inner.open;
        self.nodes = inner.nodes;
        result.map(made)
    }
}

#[cfg(test)]
#[path = "interpolate_tests.rs"]
mod tests;
