//! The config of a past run as the base of a new one, checked against the table
//! of keys as it is today.

use std::path::Path;

use crate::compose::{self, Node, Saved, Value, read_file};

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
