//! Errors of a job that are about a config value say where it was written, as the
//! errors of the config itself do.

use std::path::Path;

use super::error::Error;
use crate::compose::{Node, Origin};
use crate::config::Job;
use crate::config::keys::{self, Kind};

/// A job's error behind the place of the value that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{place}{error}")]
pub struct Located {
    place: String,
    #[source]
    error: Box<Error>,
}

impl Located {
    /// Looks up in the config `resolved` who set the value that `error` is about.
    pub fn new(error: impl Into<Error>, resolved: &Node) -> Located {
        let error = error.into();
        let message = error.to_string();
        let place = match origin(&message, resolved) {
            // The message begins with what was typed.
            Some(Origin::CommandLine { text })
                if message.starts_with(text.trim_start_matches('+')) =>
            {
                "command line: ".to_string()
            }
            Some(origin) => format!("{origin}: "),
            None => String::new(),
        };
        Located {
            place,
            error: Box::new(error),
        }
    }
}

/// Does `work`; an error gets the place of the value that it is about.
///
/// # Errors
/// Those of `work`.
pub fn located(job: Job, work: impl FnOnce(Job) -> Result<(), Error>) -> Result<(), Located> {
    let resolved = job.resolved.clone();
    work(job).map_err(|error| Located::new(error, &resolved))
}

/// Where the value was written that a message begins with, by its key (`KEY=VALUE`,
/// `KEY: ..`) or as a path that leads nowhere. What lies in a file that exists has its
/// place in that file.
fn origin<'n>(message: &str, resolved: &'n Node) -> Option<&'n Origin> {
    let named = message
        .split_once(['=', ':'])
        .and_then(|(key, _)| keys::find(key));
    let begins = |key: &str| {
        let value = resolved.select(key).and_then(Node::as_str);
        value.is_some_and(|path| {
            let rest = message.strip_prefix(path);
            !path.is_empty()
                && rest.is_some_and(|rest| rest.starts_with(['/', ':']))
                && !Path::new(path).exists()
        })
    };
    let of_path = || {
        keys::all()
            .filter(|key| matches!(key.kind, Kind::Path))
            .find(|key| begins(key.name))
    };
    let key = named.or_else(of_path)?;
    let node = resolved.select(key.name).filter(|node| !node.is_null())?;
    (node.origin != Origin::BuiltIn).then_some(&node.origin)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compose::{Map, Value};

    fn config(key: &str, value: &str) -> Node {
        let origin = Origin::CommandLine {
            text: Arc::from(format!("{key}={value}")),
        };
        let leaf = Node::new(Value::Str(value.to_string()), origin);
        key.rsplit('.').fold(leaf, |node, step| {
            let mut map = Map::new();
            map.insert(step.into(), node);
            Node::built_in(Value::Map(map))
        })
    }

    #[test]
    fn a_value_that_a_message_begins_with_has_a_place() {
        for (key, value, message, has) in [
            ("task.name", "../x", "task.name: \"../x\" cannot name", true),
            (
                "training.fp16",
                "true",
                "training.fp16=true: not here",
                true,
            ),
            (
                "adapter",
                "/no/such",
                "/no/such/adapter_config.json: cannot read",
                true,
            ),
            ("data.path", "no.csv", "no.csv: no such file", true),
            (
                "data.path",
                "Cargo.toml",
                "Cargo.toml:3: answer is empty",
                false,
            ),
            ("data.path", "no", "nothing: else", false),
            ("device", "cuda", "device memory: none is left", false),
        ] {
            let config = config(key, value);
            let found = origin(message, &config).map(Origin::to_string);
            let place = format!("command line: {key}={value}");
            assert_eq!(found, has.then_some(place), "{message}");
        }
    }
}
