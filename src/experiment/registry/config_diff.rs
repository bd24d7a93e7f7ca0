//! Which keys two resolved configs differ in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use thiserror::Error;

use super::super::fsx::{self, FsError};

/// A config that cannot be compared.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{}: cannot be read as YAML: {why}; restore the file or start a new run", .path.display())]
    Yaml { path: PathBuf, why: String },
}

/// A config as leaf keys (`training.epochs`) and values. What only says where
/// a run lies and how it is resumed is left out: `hydra.*`, `training.resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves(BTreeMap<String, String>);

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
        let mut leaves = BTreeMap::new();
        add_leaves("", &config, &mut leaves);
        leaves.retain(|key, _| {
            let run_directory = key == "hydra" || key.starts_with("hydra.");
            !run_directory && key != "training.resume"
        });
        Ok(Self(leaves))
    }

    /// The keys whose values differ, each as `key: then -> now`, sorted.
    pub fn changes(&self, now: &Leaves) -> Vec<String> {
        let mut keys: Vec<&String> = self.0.keys().chain(now.0.keys()).collect();
        keys.sort();
        keys.dedup();
        let value = |leaves: &Leaves, key| match leaves.0.get(key) {
            Some(value) => value.clone(),
            None => "absent".to_string(),
        };
        keys.into_iter()
            .filter(|key| self.0.get(*key) != now.0.get(*key))
            .map(|key| format!("{key}: {} -> {}", value(self, key), value(now, key)))
            .collect()
    }
}

fn add_leaves(key: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            for (name, inner) in map {
                let name = shown(name);
                let key = if key.is_empty() {
                    name
                } else {
                    format!("{key}.{name}")
                };
                add_leaves(&key, inner, leaves);
            }
        }
        other => {
            leaves.insert(key.to_string(), shown(other));
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        // Quoted only where it would read as another type.
        Value::String(text) if reads_as_string(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn reads_as_string(text: &str) -> bool {
    matches!(serde_yaml::from_str(text), Ok(Value::String(same)) if same == text)
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
