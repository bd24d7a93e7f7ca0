//! A job: one command with its config, and the texts its run directory keeps.

use std::path::{Path, PathBuf};

use crate::compose::{self, Composed, Map, Node, Origin, Request, Value, to_yaml, to_yaml_literal};

use super::check::origin_below;
use super::checked::{compose_checked, resolve_checked};
use super::error::{ConfigError, ConfigErrors};
use super::layers::{complete, from_tree, insert};
use super::rerun::RerunErrors;
use super::types::{Command, Config, ExportFormat, SWEEPING};

/// Why a job cannot start.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Compose(#[from] compose::Error),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Rerun(#[from] RerunErrors),
}

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

/// What a command asks of its config beyond the schema.
fn fits_command(command: Command, config: &Config, tree: &Node) -> Vec<ConfigError> {
    let origin = |key: &str| {
        tree.select(key)
            .map_or(Origin::BuiltIn, |n| n.origin.clone())
    };
    let mut errors = Vec::new();
    let meant = match command {
        Command::Plan | Command::Preview => Command::Train,
        Command::Compare => Command::Eval,
        Command::Chat => Command::Infer,
        other => other,
    };
    let writes = matches!(command, Command::Quantize | Command::Merge | Command::Synth);
    if let Some(mode) = config.mode
        && mode != meant
        && !writes
    {
        errors.push(ConfigError::Conflict {
            origin: origin("mode"),
            message: format!("this config is meant for `run {mode}`, not for `run {command}`"),
            hint: format!("call run {mode}, or set mode=null"),
        });
    }
    if command == Command::Quantize {
        let export = &config.export;
        let set = [
            ("export.format", export.format != ExportFormat::Safetensors),
            ("export.dtype", export.dtype.is_some()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            errors.push(ConfigError::Conflict {
                origin: origin(key),
                message: format!(
                    "`{key}` is for `run merge`; `run quantize` writes NF4 safetensors"
                ),
                hint: format!("leave {key} out"),
            });
        }
    }
    if matches!(command, Command::Train | Command::Preview) && config.data.path.is_none() {
        errors.push(ConfigError::Conflict {
            origin: origin("data.path"),
            message: "`data.path` is null, so there is nothing to train on".to_string(),
            hint: "name the training file: data.path=FILE".to_string(),
        });
    }
    errors
}

/// The keys of `hydra` that a job of Hydra heeds and one of this program does not, each
/// with why. Only values that change nothing are let through.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("output_subdir", "a run keeps its config in `.hydra`"),
    ("job.chdir", "a run stays in the working directory"),
    (
        "job.env_copy",
        "a run is one process that sets no environment variables",
    ),
    (
        "job.env_set",
        "a run is one process that sets no environment variables",
    ),
    ("callbacks", "callbacks are Python"),
    (
        "launcher._target_",
        "cells run one after another in this process",
    ),
    (
        "sweeper._target_",
        "the sweeper is built in, and sweeps as Hydra's basic one",
    ),
    ("verbose", "there is no Python logging to be made verbose"),
];

fn without_effect(command: Command, composed: &Composed) -> Result<Vec<ConfigError>, JobError> {
    let mut errors: Vec<ConfigError> = Vec::new();
    let copied = composed.hydra.select("job.env_copy");
    let copies = copied
        .and_then(Node::as_list)
        .is_some_and(|names| !names.is_empty());
    for (key, why) in WITHOUT_EFFECT {
        let Some(written) = composed.hydra.select(key) else {
            continue;
        };
        // What is copied is put among what is set, and told already.
        if copies && *key == "job.env_set" {
            continue;
        }
        let Some(value) = composed.resolve(&format!("hydra.{key}"))? else {
            continue;
        };
        let harmless = match &value.value {
            Value::Null | Value::Bool(false) => *key != "output_subdir",
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Str(text) => match *key {
                "output_subdir" => text == ".hydra",
                "launcher._target_" => text.ends_with("basic_launcher.BasicLauncher"),
                "sweeper._target_" => text.ends_with("basic_sweeper.BasicSweeper"),
                _ => false,
            },
            _ => false,
        };
        if !harmless {
            errors.push(ConfigError::Conflict {
                origin: origin_below(written),
                message: format!("`hydra.{key}` has no effect on a run here: {why}"),
                hint: "leave it out".to_string(),
            });
        }
    }
    let mode = composed.hydra.select("mode");
    if let Some(mode) = mode.filter(|mode| mode.as_str() == Some("MULTIRUN") && !command.sweeps()) {
        errors.push(ConfigError::Conflict {
            origin: mode.origin.clone(),
            message: format!(
                "`run {command}` takes one config, so `hydra.mode` cannot be MULTIRUN"
            ),
            hint: format!("leave it out; {SWEEPING} sweep"),
        });
    }
    Ok(errors)
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
