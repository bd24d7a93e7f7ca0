//! Built-in defaults below, the composed tree above: figment lays them over one
//! another and extracts the typed [`Config`]. Each origin is a figment provider
//! of its own, so figment's errors name it too.

use std::sync::LazyLock;

use figment::value::{Dict, Empty, Map as Profiles, Num, Tag, Value as Figvalue};
use figment::{Figment, Metadata, Profile, Provider, Source};

use crate::compose::{Composed, Map, Node, Origin, Value};

use super::check::{Strictness, check};
use super::cross;
use super::error::{ConfigError, ConfigErrors};
use super::job_error::JobError;
use super::keys::{self, Default};
use super::types::Config;

/// Resolves, checks and types a composed job.
///
/// # Errors
/// Interpolations that cannot be resolved, or all problems of the config at once.
pub fn from_composed(composed: &Composed) -> Result<Config, JobError> {
    Ok(from_tree(&composed.resolved_job()?)?)
}

/// Checks and types a resolved tree. Keys that it lacks get their defaults.
///
/// # Errors
/// All problems of the config at once.
pub fn from_tree(job: &Node) -> Result<Config, ConfigErrors> {
    let errors = check(job, Strictness::Resolved);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let config: Config = extract(vec![Layer::whole(job)]).or_else(|_| {
        // Anew, with an origin for each error.
        extract(Layer::of_tree(job))
    })?;
    let errors = cross::check(&config, job);
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors(errors))
    }
}

/// The layers over the defaults, as one typed config.
fn extract(layers: Vec<Layer>) -> Result<Config, ConfigErrors> {
    let mut figment = Figment::from(Layer::defaults());
    for layer in layers {
        figment = figment.merge(layer);
    }
    figment.extract().map_err(|error| {
        ConfigErrors(
            error
                .into_iter()
                .map(|error| ConfigError::Extract {
                    origin: error
                        .metadata
                        .as_ref()
                        .map_or_else(|| "config".to_string(), |meta| meta.name.to_string()),
                    message: format!("`{}`: {}", error.path.join("."), error.kind),
                })
                .collect(),
        )
    })
}

/// The tree with the default of every key that it lacks, in the table's order.
pub fn complete(job: &Node) -> Node {
    let mut tree = job.clone();
    for key in keys::all() {
        if job.select(key.name).is_none() {
            insert(&mut tree, key.name, default_node(&key.default));
        }
    }
    tree
}

/// Puts a value at a dotted path; does nothing where a scalar stands in the way.
pub(super) fn insert(tree: &mut Node, path: &str, value: Node) {
    let Some(map) = tree.as_map_mut() else { return };
    match path.split_once('.') {
        None => {
            map.insert(path.into(), value);
        }
        Some((step, rest)) => {
            let child = map.entry(step.into()).or_insert_with(Node::empty_map);
            insert(child, rest, value);
        }
    }
}

pub(super) fn default_node(default: &Default) -> Node {
    Node::built_in(match default {
        Default::Null => Value::Null,
        Default::Bool(b) => Value::Bool(*b),
        Default::Int(i) => Value::Int(*i),
        Default::Float(x) => Value::Float(*x),
        Default::Str(s) => Value::Str((*s).to_string()),
        Default::List(items) => Value::List(items.iter().map(|s| Node::str(*s)).collect()),
    })
}

/// The values of one origin.
#[derive(Clone)]
struct Layer {
    origin: Origin,
    values: Dict,
}

impl Layer {
    /// The default of every key.
    fn defaults() -> Layer {
        static DEFAULTS: LazyLock<Dict> = LazyLock::new(|| {
            let tree = complete(&Node::built_in(Value::Map(Map::new())));
            Layer::whole(&tree).values
        });
        Layer {
            origin: Origin::BuiltIn,
            values: DEFAULTS.clone(),
        }
    }

    /// The values of a tree, wherever they were written.
    fn whole(tree: &Node) -> Layer {
        let mut values = Dict::new();
        for key in keys::all() {
            if let Some(node) = tree.select(key.name) {
                put(&mut values, key.name, figvalue(node, &key.kind));
            }
        }
        Layer {
            origin: Origin::BuiltIn,
            values,
        }
    }

    /// The values of a tree, sorted by where they were written.
    fn of_tree(tree: &Node) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for key in keys::all() {
            let Some(node) = tree.select(key.name) else {
                continue;
            };
            let at = layers
                .iter()
                .position(|layer| layer.origin == node.origin)
                .unwrap_or_else(|| {
                    layers.push(Layer {
                        origin: node.origin.clone(),
                        values: Dict::new(),
                    });
                    layers.len() - 1
                });
            put(&mut layers[at].values, key.name, figvalue(node, &key.kind));
        }
        layers
    }
}

fn put(dict: &mut Dict, path: &str, value: Figvalue) {
    match path.split_once('.') {
        None => {
            dict.insert(path.to_string(), value);
        }
        Some((step, rest)) => {
            let child = dict
                .entry(step.to_string())
                .or_insert_with(|| Figvalue::Dict(Tag::Default, Dict::new()));
            if let Figvalue::Dict(_, inner) = child {
                put(inner, rest, value);
            }
        }
    }
}

/// A node for figment. A number where the table wants text becomes text.
fn figvalue(node: &Node, kind: &keys::Kind) -> Figvalue {
    let tag = Tag::Default;
    match &node.value {
        Value::Null => Figvalue::Empty(tag, Empty::None),
        Value::Bool(b) => Figvalue::Bool(tag, *b),
        Value::Int(i) if matches!(kind, keys::Kind::Str | keys::Kind::Path) => {
            Figvalue::String(tag, i.to_string())
        }
        Value::Int(i) => Figvalue::Num(tag, Num::I64(*i)),
        Value::BigInt(i) if matches!(kind, keys::Kind::Str | keys::Kind::Path) => {
            Figvalue::String(tag, i.to_string())
        }
        // The check lets it pass for floats only.
        Value::BigInt(i) => Figvalue::Num(tag, Num::F64(i.to_f64())),
        Value::Float(x) => Figvalue::Num(tag, Num::F64(*x)),
        Value::Str(s) => Figvalue::String(tag, s.clone()),
        Value::List(items) => {
            Figvalue::Array(tag, items.iter().map(|item| figvalue(item, kind)).collect())
        }
        // Pairs, since the order of the patterns counts.
        Value::Map(map)
            if matches!(kind, keys::Kind::IntByName(_) | keys::Kind::FloatByName(_)) =>
        {
            let pairs = map.iter().map(|(name, number)| {
                let name = Figvalue::String(tag, name.to_string());
                Figvalue::Array(tag, vec![name, figvalue(number, kind)])
            });
            Figvalue::Array(tag, pairs.collect())
        }
        Value::Map(map) => Figvalue::Dict(
            tag,
            map.iter()
                .map(|(key, child)| (key.to_string(), figvalue(child, kind)))
                .collect(),
        ),
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let name = self.origin.to_string();
        match &self.origin {
            Origin::File { path, .. } => Metadata::from(name, Source::File(path.as_ref().clone())),
            Origin::CommandLine { text } => Metadata::from(name, Source::Custom(text.to_string())),
            Origin::BuiltIn => Metadata::named(name),
        }
    }

    fn data(&self) -> Result<Profiles<Profile, Dict>, figment::Error> {
        Ok(Profiles::from([(Profile::Default, self.values.clone())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::*;

    fn empty() -> Node {
        Node::empty_map()
    }

    #[test]
    fn defaults_alone_make_a_config() {
        let config = from_tree(&empty()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.lora.r, 16);
        assert_eq!(config.lora.alpha, 32.0);
        assert_eq!(config.training.learning_rate, 1e-4);
        assert_eq!(config.training.save_total_limit, Some(2));
        assert_eq!(config.inference.temperature, 1.0);
        assert_eq!(config.inference.stop, vec!["\n".to_string()]);
        assert_eq!(config.quantization.method, QuantMethod::Nf4);
        assert_eq!(config.data.columns.len(), 6);
    }

    #[test]
    fn the_tree_wins_over_the_defaults() {
        let mut tree = empty();
        insert(&mut tree, "lora.r", Node::built_in(Value::Int(8)));
        insert(&mut tree, "model.path", Node::built_in(Value::Int(7)));
        insert(&mut tree, "lora.target_modules", Node::str("all-linear"));
        insert(
            &mut tree,
            "inference.temperature",
            Node::built_in(Value::Int(0)),
        );
        let config = from_tree(&tree).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.lora.r, 8);
        assert_eq!(config.lora.dropout, 0.05);
        assert_eq!(config.model.path.as_deref(), Some("7".as_ref()));
        assert_eq!(
            config.lora.target_modules,
            TargetModules::Named("all-linear".to_string())
        );
        assert_eq!(config.inference.temperature, 0.0);
    }

    /// The typed config and the table name the same keys.
    #[test]
    fn every_key_has_a_field_and_every_field_a_key() {
        let config = from_tree(&empty()).unwrap_or_else(|e| panic!("{e}"));
        let json = serde_json::to_value(&config).unwrap_or_else(|e| panic!("{e}"));
        let mut fields = Vec::new();
        collect(&json, String::new(), &mut fields);
        for field in &fields {
            assert!(keys::find(field).is_some(), "{field} is not in the table");
        }
        for key in keys::all().filter(|key| key.limit != keys::Limit::OnlyDefault) {
            assert!(
                fields.iter().any(|f| f == key.name),
                "{} has no field in Config",
                key.name
            );
        }
    }

    fn collect(json: &serde_json::Value, path: String, out: &mut Vec<String>) {
        match json {
            serde_json::Value::Object(map) => {
                for (key, child) in map {
                    let name = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    collect(child, name, out);
                }
            }
            _ => out.push(path),
        }
    }

    #[test]
    fn complete_keeps_values_and_adds_the_rest() {
        let mut tree = empty();
        insert(&mut tree, "lora.r", Node::built_in(Value::Int(8)));
        let full = complete(&tree);
        assert_eq!(full.select("lora.r").and_then(Node::as_i64), Some(8));
        for key in keys::all() {
            assert!(full.select(key.name).is_some(), "{}", key.name);
        }
    }
}
