//! Typed access to the keys of a `config.json`, with errors that name file and key.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::ConfigError;

pub(crate) fn read(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
        file: file.to_path_buf(),
        source,
    })
}

pub(crate) fn parse_object(text: &str, file: &Path) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ConfigError::Syntax {
            file: file.to_path_buf(),
            line: 1,
            message: "the file must hold an object, { ... }".into(),
        }),
        Err(error) => Err(ConfigError::Syntax {
            file: file.to_path_buf(),
            line: error.line(),
            message: error.to_string(),
        }),
    }
}

/// Typed access to the keys of one JSON object. A null counts as absent.
pub(crate) struct Keys<'a> {
    object: &'a Map<String, Value>,
    pub(crate) file: &'a Path,
    prefix: String,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>, file: &'a Path) -> Self {
        Self {
            object,
            file,
            prefix: String::new(),
        }
    }

    /// The keys of an object inside this one; errors name them `name.key`.
    pub(crate) fn inside(&self, name: &str, object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            file: self.file,
            prefix: format!("{name}."),
        }
    }

    /// Whether the key is there at all, null or not.
    pub(crate) fn named(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    pub(crate) fn error(&self, key: &str, problem: String) -> ConfigError {
        ConfigError::Key {
            file: self.file.to_path_buf(),
            key: format!("{}{key}", self.prefix),
            problem,
        }
    }

    pub(crate) fn unsupported(
        &self,
        what: &'static str,
        found: &str,
        supported: &[&str],
    ) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.to_path_buf(),
            what,
            found: found.to_string(),
            supported: supported.join(", "),
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// The value under `key` as `read` sees it; `None` where absent.
    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                self.error(key, format!("is {}; it must be {wanted}", brief(value)))
            }),
        }
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_string))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ConfigError> {
        self.typed(key, "an object or null", Value::as_object)
    }

    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a finite number above 0", |v| {
            v.as_f64().filter(|x| x.is_finite() && *x > 0.0)
        })
    }

    pub(crate) fn share(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number from 0 to 1", |v| {
            v.as_f64().filter(|x| (0.0..=1.0).contains(x))
        })
    }

    pub(crate) fn optional_size(
        &self,
        key: &str,
        max: usize,
    ) -> Result<Option<usize>, ConfigError> {
        self.typed(key, &format!("a whole number from 1 to {max}"), |v| {
            let size = usize::try_from(v.as_u64()?).ok()?;
            (1..=max).contains(&size).then_some(size)
        })
    }

    pub(crate) fn size(&self, key: &str, max: usize) -> Result<usize, ConfigError> {
        self.optional_size(key, max)?
            .ok_or_else(|| self.error(key, "is missing".into()))
    }

    /// A whole number from 0 up.
    pub(crate) fn whole(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number from 0 up", |v| {
            usize::try_from(v.as_u64()?).ok()
        })
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        self.typed(key, "a list of strings", |v| {
            let list = v.as_array()?.iter();
            list.map(|v| v.as_str().map(str::to_string)).collect()
        })
    }

    /// A token id; -1, which older files write for "none", is `None`.
    pub(crate) fn token_id(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.typed(key, "a token id or null", token_id)
            .map(Option::flatten)
    }

    pub(crate) fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        self.typed(key, "a token id, a list of them, or null", |v| {
            match v.as_array() {
                Some(list) => list.iter().map(token_id).collect::<Option<Vec<_>>>(),
                None => token_id(v).map(|id| vec![id]),
            }
            .map(|ids| ids.into_iter().flatten().collect())
        })
    }
}

fn token_id(value: &Value) -> Option<Option<u32>> {
    match value.as_i64()? {
        -1 => Some(None),
        id => u32::try_from(id).ok().map(Some),
    }
}

/// A value as it stands in an error message, cut where long.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
