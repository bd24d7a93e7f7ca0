//! A composed config as a job saved it (`.hydra/`), read back to be composed again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::error::{Error, Problem};
use super::hydra;
use super::node::{Node, Value};
use super::python;
use super::source::{Source, read_text};
use super::yaml_read::read_yaml;

/// Who puts the saved config on the search path, as `hydra.runtime.config_sources` names it.
const PROVIDER: &str = "rerun";

/// What a job saved of its composition.
///
/// As the base of a [`Request`](super::Request) it takes the place of the
/// primary config. Its values are those of the saved config, interpolations
/// still unresolved, and the overrides come on top. `hydra.*` is today's.
#[derive(Clone, Debug)]
pub struct Saved {
    /// `config.yaml`: the job config; values know their line in it.
    pub job: Node,
    /// `overrides.yaml`, as typed then.
    pub overrides: Vec<String>,
    /// Each group with its choice then; `None` for null.
    pub choices: IndexMap<String, Option<String>>,
    /// The directory of the saved config that this one was composed from, if any.
    pub origin: Option<PathBuf>,
    /// `hydra.job.num` and `hydra.job.id` of a cell of a sweep.
    cell: Vec<(&'static str, Node)>,
    dir: PathBuf,
}

impl Saved {
    /// Reads `config.yaml`, `overrides.yaml` and `hydra.yaml` of a directory,
    /// by Hydra's default the `.hydra` of a job's output directory.
    ///
    /// # Errors
    /// A file that is missing or is not what Hydra writes, with its line.
    pub fn read(dir: &Path) -> Result<Saved, Error> {
        let file = dir.join("config.yaml");
        let job = read_file(&file)?;
        if job.as_map().is_none() {
            return Err(not_saved(&file, &job, "a mapping"));
        }
        let file = dir.join("hydra.yaml");
        let hydra = read_file(&file)?;
        let Some(runtime) = hydra.select("hydra.runtime") else {
            return Err(not_saved(&file, &hydra, "a mapping with hydra.runtime"));
        };
        let mut choices = IndexMap::new();
        for (group, choice) in runtime
            .child("choices")
            .and_then(Node::as_map)
            .into_iter()
            .flatten()
        {
            let group = group.to_string();
            // Hydra's own settings are not the saved ones.
            if !group.starts_with("hydra/") {
                choices.insert(group, choice.as_str().map(str::to_string));
            }
        }
        let cell = ["num", "id"].into_iter().filter_map(|key| {
            let node = hydra.select("hydra.job")?.child(key)?;
            (!node.is_missing()).then(|| (key, node.clone()))
        });
        Ok(Saved {
            job,
            overrides: saved_overrides(dir)?,
            choices,
            origin: origin(runtime),
            cell: cell.collect(),
            dir: dir.to_path_buf(),
        })
    }

    /// Gives the job the number it had in its sweep: values may depend on it.
    pub(crate) fn number(&self, hydra: &mut Node) {
        for (key, node) in &self.cell {
            hydra::set(hydra, "job", key, node.clone());
        }
    }

    /// The saved config as an entry of the search path.
    pub(crate) fn source(&self) -> Source {
        Source::dir(PROVIDER, &self.dir)
    }
}

/// `overrides.yaml` of a directory in which a job saved its config.
///
/// # Errors
/// The file is missing or is no list of overrides.
pub fn saved_overrides(dir: &Path) -> Result<Vec<String>, Error> {
    let file = dir.join("overrides.yaml");
    let list = read_file(&file)?;
    match &list.value {
        Value::List(items) => Ok(items
            .iter()
            .map(|item| python::to_str(&item.value))
            .collect()),
        // What an empty file is read as.
        Value::Map(map) if map.is_empty() => Ok(Vec::new()),
        _ => Err(not_saved(&file, &list, "a list of overrides")),
    }
}

/// The directory of the saved config that a job was composed from, if any, by
/// its `hydra.yaml`.
///
/// # Errors
/// The file is missing or no YAML.
pub fn saved_origin(dir: &Path) -> Result<Option<PathBuf>, Error> {
    let hydra = read_file(&dir.join("hydra.yaml"))?;
    Ok(hydra.select("hydra.runtime").and_then(origin))
}

fn origin(runtime: &Node) -> Option<PathBuf> {
    let text =
        |source: &Node, key: &str| source.child(key).and_then(Node::as_str).map(str::to_string);
    let sources = runtime.child("config_sources")?.as_list()?;
    let source = sources
        .iter()
        .find(|source| text(source, "provider").as_deref() == Some(PROVIDER))?;
    text(source, "path").map(PathBuf::from)
}

/// A YAML file as a tree. Values are unresolved and know their lines.
///
/// # Errors
/// The file cannot be read, or is no YAML mapping or list.
pub fn read_file(path: &Path) -> Result<Node, Error> {
    let text = read_text(path)?;
    Ok(read_yaml(&text, &Arc::new(path.to_path_buf()))?)
}

fn not_saved(file: &Path, node: &Node, wanted: &str) -> Error {
    Problem::new(format!(
        "{} is not as a job saves it: it must hold {wanted}, not a {}",
        file.display(),
        node.type_name()
    ))
    .at(&node.origin)
    .help("restore the file, or name another directory")
    .into()
}
