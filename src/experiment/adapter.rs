//! The adapter that a job answers with.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::publish::adapter_path;
use super::run_dir::RunPaths;
use super::setup::{OUTPUTS, Setup};
use crate::config::types::Config;
use crate::model::peft::{AdapterConfig, CONFIG_FILE};

/// The adapter to answer with; with `base` none, and then none may be set.
///
/// # Errors
/// There is none, or both were asked for.
pub fn adapter_or_base(config: &Config, base: bool) -> Result<Option<PathBuf>, Error> {
    match (base, &config.adapter) {
        (true, Some(dir)) => Err(Error::BaseAndAdapter(dir.clone())),
        (true, None) => Ok(None),
        (false, _) => adapter_dir(config).map(Some).map_err(|error| match error {
            Error::NoAdapter(task) => Error::NoAdapterNorBase(task),
            other => other,
        }),
    }
}

/// A line about an adapter that says it was trained on another base than the model in
/// use. PEFT puts it there without a word, and where the shapes are the same it fits.
pub fn other_base(adapter: Option<&Path>, setup: &Setup, config: &Config) -> Option<String> {
    let adapter = adapter?;
    let trained = AdapterConfig::base_of(adapter)?;
    let base = setup.base(config);
    let same_place = |a: &Path| Some(a.canonicalize().ok()? == base.canonicalize().ok()?);
    if trained == base || same_place(&trained) == Some(true) {
        return None;
    }
    Some(format!(
        "adapter {} was trained on {}, and the model in use is {}",
        adapter.display(),
        trained.display(),
        base.display()
    ))
}

/// `adapter`, or the adapter of the run that it names, else the published adapter of the task.
pub fn adapter_dir(config: &Config) -> Result<PathBuf, Error> {
    if let Some(dir) = &config.adapter {
        // A run may be named for its adapter.
        let inside = RunPaths::new(dir.as_path()).adapter();
        let is_run = !dir.join(CONFIG_FILE).exists() && inside.join(CONFIG_FILE).is_file();
        return Ok(if is_run { inside } else { dir.clone() });
    }
    let published = adapter_path(Path::new(OUTPUTS), &config.task.name)?;
    if published.is_dir() {
        return Ok(published);
    }
    Err(Error::NoAdapter(config.task.name.clone()))
}
