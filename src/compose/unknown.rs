//! What to say of a key that is not there: the nearest key there is, else the
//! keys beside it. Only where nothing is near may adding it be the way out.

use super::error::{Cause, Problem};
use super::library::Library;
use super::nearest;
use super::node::{Key, Node, Value};
use super::request::Elsewhere;

/// A key that a tree does not have.
pub(crate) struct Unknown<'u> {
    pub root: &'u Node,
    pub steps: &'u [String],
    /// Its groups: a choice may have been meant.
    pub library: &'u Library,
    /// The override that would add the key, where adding is a way out.
    pub add: Option<String>,
    /// Names that other programs give to its keys.
    pub elsewhere: Option<Elsewhere>,
}

impl Unknown<'_> {
    /// The problem, with its help; `what` is the deed that failed.
    pub(crate) fn problem(&self, what: &str) -> Problem {
        let key = self.steps.join(".");
        let problem = Problem::new(format!("{what} '{key}': there is no such key"));
        let mut here: &Node = self.root;
        let mut known = 0;
        while let Some(child) = self.steps.get(known).and_then(|step| here.child(step)) {
            here = child;
            known += 1;
        }
        let prefix = self.steps[..known].join(".");
        if self.steps.len() == known {
            return problem.caused_by(Cause::Absent);
        }
        let Value::Map(map) = &here.value else {
            let kind = here.type_name();
            let mut help = format!("'{prefix}' is {kind} and holds no keys");
            if let Some(add) = &self.add {
                help.push_str(&format!("\nto make a dict of it, write {add}"));
            }
            return problem.help(help).caused_by(Cause::Absent);
        };
        if let Some(near) = self.near(here, known) {
            return problem
                .help(format!("did you mean '{near}'?"))
                .caused_by(Cause::AbsentNear);
        }
        let shown: Vec<String> = map
            .keys()
            .map(Key::to_string)
            .filter(|name| name != "hydra" || known > 0)
            .collect();
        let mut help = match (shown.is_empty(), prefix.as_str()) {
            (true, _) => String::new(),
            (false, "") => format!("keys: {}\n", shown.join(", ")),
            (false, prefix) => format!("keys of '{prefix}': {}\n", shown.join(", ")),
        };
        if let Some(add) = &self.add {
            help.push_str(&format!("to add a new key, write {add}"));
        }
        problem.help(help.trim_end()).caused_by(Cause::Absent)
    }

    /// The key or group that was probably meant.
    fn near(&self, here: &Node, known: usize) -> Option<String> {
        let wrong = self.steps.get(known)?;
        let called = |elsewhere: Elsewhere| elsewhere(&self.steps.join("."));
        if let Some(key) = self.elsewhere.and_then(called) {
            return Some(key.to_string());
        }
        let mut names: Vec<String> = match &here.value {
            Value::Map(map) => map.keys().map(Key::to_string).collect(),
            _ => Vec::new(),
        };
        if known == 0 {
            names.extend(self.library.groups().iter().cloned());
        }
        if let Some(near) = nearest(wrong, names.iter().map(String::as_str)) {
            let mut path: Vec<String> = self.steps[..known].to_vec();
            path.push(near.to_string());
            path.extend(self.follow(here.child(near), known + 1));
            return Some(path.join("."));
        }
        self.elsewhere()
    }

    /// The steps after a corrected one, each corrected in turn; nothing where one has no match.
    fn follow(&self, from: Option<&Node>, start: usize) -> Vec<String> {
        let mut here = from;
        let mut path = Vec::new();
        for step in &self.steps[start.min(self.steps.len())..] {
            let name = match here.map(|node| (&node.value, node.child(step))) {
                Some((_, Some(_))) => step.clone(),
                Some((Value::Map(map), None)) => {
                    let names: Vec<String> = map.keys().map(Key::to_string).collect();
                    match nearest(step, names.iter().map(String::as_str)) {
                        Some(near) => near.to_string(),
                        None => return Vec::new(),
                    }
                }
                _ => return Vec::new(),
            };
            here = here.and_then(|node| node.child(&name));
            path.push(name);
        }
        path
    }

    /// The right name under another parent, if there is exactly one; then a
    /// misspelt one.
    fn elsewhere(&self) -> Option<String> {
        let typed = self.steps.join(".");
        let leaves = self.root.leaves();
        let paths: Vec<&str> = leaves
            .iter()
            .map(|(path, _)| path.as_str())
            .filter(|path| !path.starts_with("hydra."))
            .collect();
        let tail = format!(".{typed}");
        let mut found = paths.iter().filter(|path| path.ends_with(&tail));
        match (found.next(), found.next()) {
            (Some(path), None) => return Some(path.to_string()),
            (Some(_), Some(_)) => return None,
            (None, _) => {}
        }
        // Short names are near to too many others.
        let last = self.steps.last().filter(|name| name.chars().count() > 4)?;
        let name = |path: &&str| path.rsplit('.').next().unwrap_or_default().to_string();
        let names: Vec<String> = paths.iter().map(name).collect();
        let near = nearest(last, names.iter().map(String::as_str))?;
        let mut found = paths.iter().filter(|path| name(path) == near);
        match (found.next(), found.next()) {
            (Some(path), None) => Some(path.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::yaml_read::read_yaml;

    fn help(key: &str) -> String {
        let path = std::sync::Arc::new(std::path::PathBuf::from("u.yaml"));
        let text = "hydra: {run: {dir: x}, job: {name: y}}\nmodel: {size: 1}\n\
                    training: {learning_rate: 1, warmup: {steps: 2}}\na: {same: 1}\nb: {same: 2}\n";
        let root = read_yaml(text, &path).unwrap_or_else(|p| panic!("{p}"));
        let steps: Vec<String> = key.split('.').map(str::to_string).collect();
        let unknown = Unknown {
            root: &root,
            steps: &steps,
            library: &Library::embedded(&[("server/tls/on.yaml", "")]),
            add: Some(format!("+{key}=1")),
            elsewhere: Some(|name| name.ends_with("size_of_it").then_some("model.size")),
        };
        unknown.problem("cannot override").help.unwrap_or_default()
    }

    #[test]
    fn the_nearest_key_is_named_whole() {
        for (key, near) in [
            ("hydra.run.dri", "hydra.run.dir"),
            ("hydr.run.dri", "hydra.run.dir"),
            ("modle.siez", "model.size"),
            ("trainign.warmup.step", "training.warmup.steps"),
            ("trainign.nonsense", "training"),
            ("server/tsl", "server/tls"),
            ("learning_rate", "training.learning_rate"),
            ("learnign_rate", "training.learning_rate"),
            ("optim.learning_rte", "training.learning_rate"),
            ("size_of_it", "model.size"),
            ("training.size_of_it", "model.size"),
        ] {
            assert_eq!(help(key), format!("did you mean '{near}'?"), "{key}");
        }
    }

    #[test]
    fn adding_is_the_way_out_only_where_nothing_is_near() {
        assert_eq!(
            help("model.quantization"),
            "keys of 'model': size\nto add a new key, write +model.quantization=1"
        );
        assert!(help("same").starts_with("keys: model, training"));
        assert_eq!(
            help("model.size.x"),
            "'model.size' is int and holds no keys\nto make a dict of it, write +model.size.x=1"
        );
    }
}
