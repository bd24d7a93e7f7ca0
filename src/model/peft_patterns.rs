//! What an adapter's configuration says of single modules by patterns: PEFT's
//! `rank_pattern` and `alpha_pattern`.

use regex::Regex;
use serde_json::Value;

/// What stands around a pattern.
const BEFORE: &str = r"^(?:.*\.)?(?:";
const AFTER: &str = ")$";

/// Regular expressions and what they give, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Patterns<T>(Vec<(Regex, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// As PEFT matches a pattern: a module's path ends with it, after a dot or whole. `None`
/// where it cannot be read.
pub(super) fn ending(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("{BEFORE}{pattern}{AFTER}")).ok()
}

impl<T: Copy> Patterns<T> {
    /// Of a config.
    ///
    /// # Errors
    /// The pattern that cannot be read.
    pub fn new(entries: &[(String, T)]) -> Result<Self, String> {
        let entry = |(pattern, value): &(String, T)| -> Result<_, String> {
            let regex = ending(pattern).ok_or_else(|| pattern.clone())?;
            Ok((regex, *value))
        };
        Ok(Self(entries.iter().map(entry).collect::<Result<_, _>>()?))
    }

    /// Reads an object whose values `value` reads. The error says what is wrong with the
    /// key that holds the object.
    pub fn read(
        object: &Value,
        value: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<Self, String> {
        let Some(object) = object.as_object() else {
            return Err("must be an object of patterns and numbers".into());
        };
        let entry = |(pattern, given): (&String, &Value)| {
            let value = value(given)
                .map_err(|problem| format!("gives `{pattern}` {given}, which {problem}"))?;
            let regex = ending(pattern).ok_or_else(|| {
                format!("has `{pattern}`, which is no regular expression that can be read")
            })?;
            Ok((regex, value))
        };
        Ok(Self(
            object.iter().map(entry).collect::<Result<_, String>>()?,
        ))
    }

    /// The first pattern that matches none of the modules.
    pub fn idle<'m>(&self, modules: impl Iterator<Item = &'m str> + Clone) -> Option<&str> {
        let mut all = self.0.iter().map(|(regex, _)| regex);
        let idle = all.find(|regex| !modules.clone().any(|module| regex.is_match(module)))?;
        let written = idle.as_str().strip_prefix(BEFORE)?;
        written.strip_suffix(AFTER)
    }

    /// Of the first pattern that matches the module.
    pub fn of(&self, module: &str) -> Option<T> {
        let found = self.0.iter().find(|(regex, _)| regex.is_match(module));
        found.map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patterns(object: Value) -> Result<Patterns<u64>, String> {
        Patterns::read(&object, |v| v.as_u64().ok_or_else(|| "is odd".to_string()))
    }

    #[test]
    fn the_first_pattern_that_ends_a_path_counts() {
        let all = json!({r"layers\.0\.self_attn\.q_proj": 1, "q_proj": 2, "^v_proj": 3, ".*k_.*": 4,
            "o_proj|up": 5});
        let all = patterns(all).unwrap();
        for (module, want) in [
            ("model.layers.0.self_attn.q_proj", Some(1)),
            ("model.layers.10.self_attn.q_proj", Some(2)),
            ("q_proj", Some(2)),
            ("model.layers.0.self_attn.xq_proj", None),
            ("model.layers.0.self_attn.v_proj", None),
            ("v_proj", Some(3)),
            ("model.layers.1.self_attn.k_proj", Some(4)),
            ("model.o_proj", Some(5)),
            ("model.mlp.up", Some(5)),
            ("model.mlp.upper", None),
        ] {
            assert_eq!(all.of(module), want, "{module}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (object, part) in [
            (json!([1]), "must be an object"),
            (json!({"q_proj": "x"}), "gives `q_proj` \"x\", which is odd"),
            (json!({"(q": 1}), "has `(q`, which is no regular expression"),
        ] {
            let problem = patterns(object).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
