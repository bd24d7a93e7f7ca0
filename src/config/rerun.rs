//! The config of a past run as the base of a new one, checked against the table
//! of keys as it is today.

use std::path::{Path, PathBuf};

use crate::compose::{self, Node, Origin, Saved, Value, read_file};

use super::error::{ConfigError, ConfigErrors};
use super::job::JobError;
use super::keys;
use super::layers::{default_node, insert};

/// What a run composed, to be composed again: its `.hydra/`, interpolations
/// unresolved. A key that it does not name has the value of the run's
/// config.resolved.yaml, or the default where the key is new since. How the run
/// was resumed (`training.resume`) is no part of it.
///
/// # Errors
/// A file that is missing or damaged, with its line.
pub fn saved_config(run: &Path) -> Result<Saved, compose::Error> {
    let mut saved = Saved::read(&run.join(".hydra"))?;
    let path = run.join("config.resolved.yaml");
    let resolved = match path.exists() {
        true => read_file(&path)?,
        false => Node::empty_map(),
    };
    for key in keys::all() {
        if saved.job.select(key.name).is_none() {
            let then = resolved.select(key.name).cloned();
            let value = then.unwrap_or_else(|| default_node(&key.default));
            insert(&mut saved.job, key.name, value);
        }
    }
    let resume = saved.job.select("training.resume");
    if resume.is_some_and(|node| !node.is_null()) {
        insert(
            &mut saved.job,
            "training.resume",
            Node::built_in(Value::Null),
        );
    }
    Ok(saved)
}

/// Problems of a config that is based on a saved one, with the way out where
/// they come from what was saved.
#[derive(Debug, thiserror::Error)]
#[error("{errors}{}", self.way_out())]
pub struct RerunErrors {
    errors: ConfigErrors,
    run: PathBuf,
}

impl RerunErrors {
    /// The problems of a rerun of `run`.
    pub fn new(errors: ConfigErrors, run: &Path) -> RerunErrors {
        let run = run.to_path_buf();
        RerunErrors { errors, run }
    }

    fn way_out(&self) -> String {
        let saved = |origin: &Origin| match origin {
            Origin::File { path, .. } => path.starts_with(&self.run),
            _ => false,
        };
        // A conflict says itself how it is solved, whatever version it comes from.
        let errors = self.errors.0.iter();
        let errors = errors.filter(|error| !matches!(error, ConfigError::Conflict { .. }));
        if !errors.filter_map(ConfigError::origin).any(saved) {
            return String::new();
        }
        format!(
            "\n{} was made with other keys than this version has: leave a key out with ~KEY, \
             or give it a value with KEY=VALUE",
            self.run.display()
        )
    }
}

/// Puts the way out of a rerun beside the problems of its config.
pub fn of_rerun(error: JobError, run: &Path) -> JobError {
    match error {
        JobError::Config(errors) => JobError::Rerun(RerunErrors::new(errors, run)),
        other => other,
    }
}
