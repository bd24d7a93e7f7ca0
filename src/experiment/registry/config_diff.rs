//! Which keys two resolved configs differ in.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::config::keys::{self, Default, Key};
use crate::experiment::fsx::{self, FsError};

/// A config that cannot be compared.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{}: cannot be read as YAML: {why}; restore the file or start a new run", .path.display())]
    Yaml { path: PathBuf, why: String },
}

/// A key whose value is not the same in two runs; None where a run has no such key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    #[serde(skip)]
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

/// A config as leaf keys (`training.epochs`) and values. What only says where
/// a run lies and how it is resumed is left out: `hydra.*`, `training.resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves(IndexMap<String, Value>);

impl Leaves {
    /// Reads a config.resolved.yaml.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse_from(path, &fsx::read_to_string(path)?)
    }

    /// Takes the text of a config composed just now.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_from(Path::new("the composed config"), text)
    }

    fn parse_from(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Value = serde_yaml::from_str(text).map_err(|e| ConfigError::Yaml {
            path: path.to_path_buf(),
            why: e.to_string(),
        })?;
        Ok(Self::of_config(&config))
    }

    /// The leaves of a config, sorted, without those that do not count.
    pub fn of_config(config: &Value) -> Self {
        let mut leaves = Self::of(config);
        leaves.0.retain(|key, _| {
            let run_directory = key == "hydra" || key.starts_with("hydra.");
            !run_directory && key != "training.resume"
        });
        leaves.0.sort_keys();
        leaves
    }

    /// With the defaults of keys that an older version did not write.
    pub fn completed(mut self) -> Self {
        for key in keys::all() {
            let below = |leaf: &String| {
                leaf.strip_prefix(key.name)
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            if !self.0.contains_key(key.name) && !self.0.keys().any(below) {
                self.0.insert(key.name.to_string(), default_of(key));
            }
        }
        self.0.sort_keys();
        self
    }

    /// All leaves of a tree, in its order.
    pub fn of(tree: &Value) -> Self {
        let mut leaves = IndexMap::new();
        add_leaves("", tree, &mut leaves);
        Self(leaves)
    }

    /// Without mappings that hold nothing.
    pub fn without_empty(mut self) -> Self {
        self.0
            .retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
        self
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// Keys and values, which may be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Value)> {
        self.0.iter_mut()
    }

    /// The keys whose values differ, in this one's order, then those of the other alone.
    pub fn differences(&self, other: &Leaves) -> Vec<Difference> {
        let more = other.0.keys().filter(|key| !self.0.contains_key(*key));
        self.0
            .keys()
            .chain(more)
            .filter(|key| self.0.get(*key) != other.0.get(*key))
            .map(|key| Difference {
                key: key.clone(),
                a: self.0.get(key).cloned(),
                b: other.0.get(key).cloned(),
            })
            .collect()
    }

    /// The keys whose values differ, each as `key: then -> now`, sorted.
    pub fn changes(&self, now: &Leaves) -> Vec<String> {
        let value = |value: &Option<Value>| value.as_ref().map_or("absent".to_string(), shown);
        let mut changes: Vec<String> = self
            .differences(now)
            .iter()
            .map(|one| format!("{}: {} -> {}", one.key, value(&one.a), value(&one.b)))
            .collect();
        changes.sort();
        changes
    }
}

fn add_leaves(key: &str, value: &Value, leaves: &mut IndexMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, inner) in map {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                add_leaves(&key, inner, leaves);
            }
        }
        other => {
            leaves.insert(key.to_string(), other.clone());
        }
    }
}

fn default_of(key: &Key) -> Value {
    match key.default {
        Default::Null => Value::Null,
        Default::Bool(value) => value.into(),
        Default::Int(value) => value.into(),
        Default::Float(value) => value.into(),
        Default::Str(value) => value.into(),
        Default::List(values) => values.into(),
    }
}

/// A value as it is written in a config.
pub fn shown(value: &Value) -> String {
    match value {
        // Quoted only where it would read as another type.
        Value::String(text) if reads_as_string(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn reads_as_string(text: &str) -> bool {
    matches!(serde_yaml::from_str(text), Ok(serde_yaml::Value::String(same)) if same == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(text: &str) -> Leaves {
        Leaves::parse(text).unwrap()
    }

    #[test]
    fn values_count_and_the_run_directory_does_not() {
        let then = leaves("a: 0.0001\ntraining:\n  resume: null\n");
        let now = "a: 1.0e-4\ntraining:\n  resume: auto\nhydra:\n  run:\n    dir: elsewhere\n";
        assert_eq!(then, leaves(now));
    }

    #[test]
    fn changes_name_key_and_values() {
        let then = leaves("a: {b: 1, c: [1, 2]}\nd: {}\n");
        let now = leaves("a: {b: '1', c: [1, 3]}\ne: x\n");
        assert_eq!(
            then.changes(&now),
            [
                "a.b: 1 -> \"1\"",
                "a.c: [1,2] -> [1,3]",
                "d: {} -> absent",
                "e: absent -> x"
            ]
        );
    }

    #[test]
    fn what_is_no_yaml_is_named() {
        let text = Leaves::parse("a: [").unwrap_err().to_string();
        assert!(
            text.contains("the composed config: cannot be read as YAML"),
            "{text}"
        );
    }
}
