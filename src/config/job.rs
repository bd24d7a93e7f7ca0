//! A job: one command with its config, and the texts its run directory keeps.

use std::path::{Path, PathBuf};

use crate::compose::{Composed, Map, Node, Origin, Request, Value, to_yaml, to_yaml_literal};

use super::checked::{compose_checked, resolve_checked};
use super::error::{ConfigError, ConfigErrors};
use super::fits::{fits_command, without_effect};
use super::job_error::JobError;
use super::layers::{complete, from_tree, insert};
use super::types::{Command, Config};

/// A command that is ready to run.
#[derive(Clone, Debug)]
pub struct Job {
    pub command: Command,
    pub config: Config,
    /// Every key with its value, interpolations resolved.
    pub resolved: Node,
    pub composed: Composed,
    /// `hydra.run.dir`, resolved. Another run may already have it.
    pub run_dir: PathBuf,
    /// Whether `hydra.run.dir` names one directory: then it may be one that exists, and
    /// `training.resume=auto` looks into it. Else it is a pattern for fresh ones.
    pub run_dir_given: bool,
    /// See [`Job::settle`].
    pub(crate) settled: Vec<(&'static str, Value)>,
}

impl Job {
    /// Composes, resolves, checks and types a job.
    ///
    /// # Errors
    /// A config that cannot be composed, or all problems of its values at once.
    pub fn load(command: Command, request: &Request) -> Result<Job, JobError> {
        Job::new(command, compose_checked(request)?)
    }

    /// Resolves, checks and types a composed job.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn new(command: Command, composed: Composed) -> Result<Job, JobError> {
        let tree = resolve_checked(&composed)?;
        let config = from_tree(&tree)?;
        let mut fitting = fits_command(command, &config, &tree);
        fitting.extend(without_effect(command, &composed)?);
        if !fitting.is_empty() {
            return Err(ConfigErrors(fitting).into());
        }
        let (run_dir, run_dir_given) = run_dir(&composed)?;
        Ok(Job {
            command,
            config,
            resolved: complete(&tree),
            composed,
            run_dir,
            run_dir_given,
            settled: Vec::new(),
        })
    }

    /// Gives keys the values that only the run's inputs know. The config as composed
    /// stays as it was.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn settle(&mut self, values: Vec<(&'static str, Value)>) -> Result<(), JobError> {
        self.settled.extend(values);
        self.resolve()
    }

    /// Tells the config which directory the run really has, and resolves again
    /// what depends on `${hydra:runtime.output_dir}`.
    ///
    /// # Errors
    /// As [`Job::load`].
    pub fn set_output_dir(&mut self, dir: &Path) -> Result<(), JobError> {
        self.composed.set_output_dir(dir);
        self.resolve()
    }

    fn resolve(&mut self) -> Result<(), JobError> {
        let mut tree = self.composed.resolved_job()?;
        for (key, value) in &self.settled {
            insert(&mut tree, key, Node::built_in(value.clone()));
        }
        self.config = from_tree(&tree)?;
        self.resolved = complete(&tree);
        Ok(())
    }

    /// `.hydra/config.yaml`: the config as composed, interpolations unresolved.
    pub fn config_yaml(&self) -> String {
        to_yaml(&self.composed.job)
    }

    /// `.hydra/overrides.yaml`: the task's overrides as typed.
    pub fn overrides_yaml(&self) -> String {
        let overrides = &self.composed.task_overrides;
        to_yaml(&Node::built_in(Value::List(
            overrides.iter().map(Node::str).collect(),
        )))
    }

    /// `.hydra/hydra.yaml`: the node `hydra`. Call [`Job::set_output_dir`] first.
    pub fn hydra_yaml(&self) -> String {
        let mut map = Map::new();
        map.insert("hydra".into(), self.composed.hydra.clone());
        to_yaml(&Node::built_in(Value::Map(map)))
    }

    /// `config.resolved.yaml`: every value; as a primary config it repeats the run.
    /// How the run was resumed is no part of it.
    pub fn resolved_yaml(&self) -> String {
        let mut tree = self.resolved.clone();
        insert(&mut tree, "training.resume", Node::built_in(Value::Null));
        to_yaml_literal(&tree)
    }
}

/// Whether a setting such as `hydra.run.dir` means the very directory that it names. On
/// the command line it does; in a config file, one with `${now:..}` is a pattern for
/// fresh directories, as the built-in one is.
pub(crate) fn names_one_directory(node: &Node) -> bool {
    match &node.origin {
        Origin::CommandLine { .. } => true,
        Origin::BuiltIn => false,
        Origin::File { .. } => !node.as_str().unwrap_or_default().contains("${now:"),
    }
}

/// `hydra.run.dir` resolved, and whether it names one directory.
fn run_dir(composed: &Composed) -> Result<(PathBuf, bool), JobError> {
    const KEY: &str = "hydra.run.dir";
    let wrong = |origin: Origin, found: &str| {
        JobError::Config(ConfigErrors(vec![ConfigError::WrongType {
            key: KEY.to_string(),
            origin,
            expected: "a path".to_string(),
            found: found.to_string(),
            hint: "name a directory: hydra.run.dir=DIR".to_string(),
        }]))
    };
    let Some(node) = composed.resolve(KEY)? else {
        return Err(wrong(Origin::BuiltIn, "absent"));
    };
    let given = composed
        .hydra
        .select("run.dir")
        .is_some_and(names_one_directory);
    match node.as_str() {
        Some(dir) if !dir.is_empty() => Ok((PathBuf::from(dir), given)),
        Some(_) => Err(wrong(node.origin.clone(), "the empty string")),
        None => Err(wrong(node.origin.clone(), node.type_name())),
    }
}
