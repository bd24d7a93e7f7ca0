//! Which modules an adapter's configuration means: PEFT's rules for `target_modules`,
//! `exclude_modules`, `layers_to_transform` and `layers_pattern`.

use regex::Regex;
use serde_json::{Map, Value};

use super::hf_config::ArchConfig;

/// What the file's `target_modules` was.
pub(super) enum Targets {
    List(Named),
    /// A regular expression or a shorthand, or modules excluded by one; the weights say
    /// what it matched.
    Pattern,
}

/// The modules that a list names.
pub(super) struct Named {
    pub names: Vec<String>,
    excluded: Vec<String>,
    layers: Option<Layers>,
}

/// The group of a layer's number: a pattern of the user may have groups of its own.
const LAYER: &str = "kiln_layer";

/// Finds a layer's number in a module's path where nothing says how its list is called.
const ANY_LIST: &str = r"^.*?\.[^.]*\.(?P<kiln_layer>\d+)\.";

/// Some layers only, by the number in a module's path.
pub(super) struct Layers {
    numbers: Vec<u64>,
    /// What finds the number; the first that matches.
    places: Vec<Regex>,
}

impl Targets {
    /// Reads the four keys of `object`; the error is a key and what is wrong with it.
    pub fn read(object: &Map<String, Value>) -> Result<Self, (&'static str, String)> {
        let get = |key: &str| object.get(key).filter(|value| !value.is_null());
        let names = match get("target_modules") {
            Some(Value::Array(list)) => {
                strings(list).ok_or(("target_modules", "must be a list of module names".into()))?
            }
            Some(Value::String(_)) | None => return Ok(Self::Pattern),
            Some(other) => {
                let problem = format!("is {other}; it must be a list of module names or a string");
                return Err(("target_modules", problem));
            }
        };
        let excluded = match get("exclude_modules") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                strings(list).ok_or(("exclude_modules", "must be a list of module names".into()))?
            }
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(Value::String(_)) => return Ok(Self::Pattern),
            Some(other) => {
                let problem = format!("is {other}; it must be a list of module names or a string");
                return Err(("exclude_modules", problem));
            }
        };
        Ok(Self::List(Named {
            names,
            excluded,
            layers: Layers::read(get("layers_to_transform"), get("layers_pattern"))?,
        }))
    }
}

impl Named {
    /// Whether the list means this module.
    pub fn takes(&self, module: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|name| matches(module, name));
        if among(&self.excluded) || !among(&self.names) {
            return false;
        }
        let whole = self.names.iter().any(|name| name == module);
        whole || self.layers.as_ref().is_none_or(|l| l.take(module))
    }

    /// Whether the names alone say which modules are meant.
    pub fn are_all(&self) -> bool {
        self.excluded.is_empty() && self.layers.is_none()
    }
}

impl Layers {
    /// These, by the number after the second part of a path.
    pub fn new(numbers: &[u64]) -> Self {
        let place = Regex::new(ANY_LIST).expect("a constant pattern");
        Self {
            numbers: numbers.to_vec(),
            places: vec![place],
        }
    }

    fn read(
        numbers: Option<&Value>,
        patterns: Option<&Value>,
    ) -> Result<Option<Self>, (&'static str, String)> {
        let key = "layers_to_transform";
        let numbers = match numbers {
            None => return Ok(None),
            Some(Value::Array(list)) if list.is_empty() => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            Some(one) => one.as_u64().map(|number| vec![number]),
        };
        let numbers: Vec<u64> = numbers.ok_or((
            key,
            "must be a layer's number, or a list of them".to_string(),
        ))?;
        let key = "layers_pattern";
        let patterns = match patterns {
            None => Some(Vec::new()),
            Some(Value::String(text)) if text.is_empty() => Some(Vec::new()),
            Some(Value::String(text)) => Some(vec![text.clone()]),
            Some(Value::Array(list)) => strings(list),
            Some(_) => None,
        };
        let patterns = patterns.ok_or((key, "must be a string, or a list of them".to_string()))?;
        let places = match patterns.is_empty() {
            true => vec![Regex::new(ANY_LIST)],
            // As PEFT puts it together: alternatives of the pattern are those of the whole.
            false => patterns
                .iter()
                .map(|pattern| {
                    let place = format!(r"^(?:(?:|.*?\.){pattern}\.(?P<{LAYER}>\d+)\.)");
                    Regex::new(&place)
                })
                .collect(),
        };
        let places = places.into_iter().collect::<Result<_, _>>();
        let places =
            places.map_err(|_| (key, "is no regular expression that can be read".to_string()))?;
        Ok(Some(Self { numbers, places }))
    }

    pub fn take(&self, module: &str) -> bool {
        let mut found = self.places.iter().filter_map(|p| p.captures(module));
        let number = found.next().and_then(|found| found.name(LAYER));
        let number = number.and_then(|number| number.as_str().parse::<u64>().ok());
        number.is_some_and(|number| self.numbers.contains(&number))
    }
}

fn strings(list: &[Value]) -> Option<Vec<String>> {
    list.iter()
        .map(|v| v.as_str().map(str::to_string))
        .collect()
}

/// PEFT's rule for a list of targets.
pub(super) fn matches(module: &str, name: &str) -> bool {
    let head = module.strip_suffix(name);
    head.is_some_and(|head| head.is_empty() || (head.ends_with('.') && !name.is_empty()))
}

pub(super) fn last_part(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// Targets that mean these modules and no others: last parts of their paths where
/// these do, else whole paths.
pub(super) fn names_of(modules: &[&str], arch: &ArchConfig) -> Vec<String> {
    let mut short: Vec<String> = Vec::new();
    for module in modules {
        let name = last_part(module).to_string();
        if !short.contains(&name) {
            short.push(name);
        }
    }
    let matched = arch
        .linears()
        .iter()
        .filter(|linear| short.iter().any(|name| matches(&linear.module, name)))
        .count();
    match matched == modules.len() {
        true => short,
        false => modules.iter().map(|m| m.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(object: Value) -> Result<Targets, (&'static str, String)> {
        Targets::read(object.as_object().unwrap())
    }

    /// What PEFT 0.21's check_target_module_exists says of the same.
    #[test]
    fn layers_and_exclusions_as_in_peft() {
        let names = json!(["q_proj", "model.layers.9.mlp.up_proj"]);
        let with = |key: &str, value: Value| {
            let mut object = json!({"target_modules": names, "layers_to_transform": [1, 3]});
            object[key] = value;
            match read(object).unwrap() {
                Targets::List(named) => named,
                Targets::Pattern => panic!("a list"),
            }
        };
        let q = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj");
        let taken = |named: &Named| (0..12).filter(|n| named.takes(&q(*n))).collect::<Vec<_>>();
        let plain = with("r", json!(8));
        assert_eq!(taken(&plain), [1, 3]);
        // Named by its whole path, so that its layer does not matter.
        assert!(plain.takes("model.layers.9.mlp.up_proj") && !plain.are_all());
        assert!(!plain.takes("model.layers.1.mlp.up_proj") && plain.takes("q_proj"));
        assert!(!plain.takes("model.q_proj"));
        assert_eq!(taken(&with("layers_to_transform", json!(11))), [11]);
        let all = with("layers_to_transform", json!([]));
        assert_eq!((taken(&all).len(), all.are_all()), (12, true));
        for (pattern, want) in [
            (json!("layers"), &[1, 3][..]),
            (json!(["h", "layers"]), &[1, 3]),
            (json!("h"), &[]),
            (json!(""), &[1, 3]),
            (json!([]), &[1, 3]),
            // Groups of their own; and one that matches without the number.
            (json!("(h|layers)"), &[1, 3]),
            (json!("(l)ayers|(h)"), &[]),
            (json!(["layers|(h)", "layers"]), &[]),
            (json!("(h)|model.layers"), &[1, 3]),
        ] {
            assert_eq!(
                taken(&with("layers_pattern", pattern.clone())),
                want,
                "{pattern}"
            );
        }
        let less = with("exclude_modules", json!(["layers.1.self_attn.q_proj"]));
        assert_eq!(taken(&less), [3]);
    }

    #[test]
    fn what_the_weights_decide_and_what_cannot_be_read() {
        for object in [
            json!({"target_modules": ".*q_proj"}),
            json!({}),
            json!({"target_modules": ["q_proj"], "exclude_modules": ".*1.*"}),
        ] {
            assert!(matches!(read(object).unwrap(), Targets::Pattern));
        }
        for (key, value) in [
            ("target_modules", json!([1])),
            ("target_modules", json!(3)),
            ("exclude_modules", json!({"a": 1})),
            ("layers_to_transform", json!("1")),
            ("layers_to_transform", json!([-1])),
            ("layers_pattern", json!(["("])),
            ("layers_pattern", json!(1)),
        ] {
            let mut object = json!({"target_modules": ["q_proj"], "layers_to_transform": 1});
            object[key] = value;
            assert_eq!(read(object).err().map(|(key, _)| key), Some(key));
        }
    }
}
