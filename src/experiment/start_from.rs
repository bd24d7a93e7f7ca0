//! `lora.init_from`: the adapter that training starts from brings its own shape, and
//! the config has to say so.

use std::path::Path;

use super::error::Error;
use super::registry::Leaves;
use super::run_dir::RunPaths;
use crate::compose::{Node, Origin, Value};
use crate::config::types::Method;
use crate::config::{ConfigError, ConfigErrors, Job, JobError};
use crate::model::peft::AdapterConfig;

/// Writes the shape of the adapter that training starts from into the job's config.
///
/// # Errors
/// It cannot be read, or the user asked for another shape.
pub fn settle(job: &mut Job) -> Result<(), Error> {
    let lora = &job.config.lora;
    let Some(dir) = lora.init_from.clone() else {
        return Ok(());
    };
    if job.config.method == Method::Full {
        return Ok(());
    }
    let adapter = AdapterConfig::read(&dir)?;
    let mut errors = Vec::new();
    let mut taken = Vec::new();
    for (key, value, same) in [
        ("lora.r", Value::Int(adapter.r as i64), lora.r == adapter.r),
        (
            "lora.alpha",
            number(adapter.lora_alpha),
            lora.alpha == adapter.lora_alpha,
        ),
        (
            "lora.use_rslora",
            Value::Bool(adapter.use_rslora),
            lora.use_rslora == adapter.use_rslora,
        ),
        (
            "lora.use_dora",
            Value::Bool(adapter.use_dora),
            lora.use_dora == adapter.use_dora,
        ),
        (
            "lora.target_modules",
            Value::List(adapter.target_modules.iter().map(Node::str).collect()),
            same_modules(job, &adapter),
        ),
    ] {
        if same {
            continue;
        }
        let node = job.resolved.select(key);
        match node.filter(|node| is_of_user(job, &node.origin)) {
            Some(node) => errors.push(ConfigError::Conflict {
                origin: node.origin.clone(),
                message: format!(
                    "`{key}` is {}, but the adapter of `lora.init_from` has {}",
                    shown(&node.value),
                    shown(&value)
                ),
                hint: format!(
                    "leave {key} out: the adapter {} keeps its own",
                    dir.display()
                ),
            }),
            None => taken.push((key, value)),
        }
    }
    for (key, default) in [
        ("lora.exclude_modules", Value::List(Vec::new())),
        ("lora.layers_to_transform", Value::Null),
        ("lora.rank_pattern", Value::Null),
        ("lora.alpha_pattern", Value::Null),
    ] {
        let Some(node) = job
            .resolved
            .select(key)
            .filter(|node| node.value != default)
        else {
            continue;
        };
        if is_of_user(job, &node.origin) {
            errors.push(ConfigError::Conflict {
                origin: node.origin.clone(),
                message: format!(
                    "`{key}` is {}, but the adapter of `lora.init_from` brings its own modules, \
                     ranks and alphas",
                    shown(&node.value)
                ),
                hint: format!("leave {key} out"),
            });
        } else {
            taken.push((key, default));
        }
    }
    let dropout = dropout(job, &adapter);
    if lora.dropout != dropout {
        taken.push(("lora.dropout", number(dropout)));
    }
    if !errors.is_empty() {
        return Err(JobError::Config(ConfigErrors(errors)).into());
    }
    Ok(job.settle(taken)?)
}

/// What the adapter is trained with. It is no part of the shape: what the user asks for holds, as
/// in PEFT, else the adapter's own; a run that is done again has what it had, whichever that was.
fn dropout(job: &Job, adapter: &AdapterConfig) -> f64 {
    let node = job.resolved.select("lora.dropout");
    let origin = node.map_or(&Origin::BuiltIn, |node| &node.origin);
    if is_of_user(job, origin) {
        return job.config.lora.dropout;
    }
    let from = job.resolved.select("lora.init_from");
    let again = match (origin, from.map(|node| &node.origin)) {
        (Origin::File { path, .. }, Some(Origin::File { path: other, .. })) if path == other => {
            let run = path.parent().and_then(Path::parent);
            run.filter(|_| path.ends_with(".hydra/config.yaml"))
        }
        _ => None,
    };
    let then = again.and_then(|run| Leaves::read(&RunPaths::new(run).resolved_config()).ok());
    let then = then.as_ref().and_then(|leaves| {
        let mut all = leaves.iter();
        all.find(|(key, _)| *key == "lora.dropout")?.1.as_f64()
    });
    then.unwrap_or(adapter.lora_dropout)
}

/// Whether the config asks for the adapter's modules, as far as can be told: what a
/// pattern or `all-linear`, on either side, comes to is known only with the model.
fn same_modules(job: &Job, adapter: &AdapterConfig) -> bool {
    let value = job.resolved.select("lora.target_modules");
    let Some(asked) = value.and_then(Node::as_list) else {
        return true;
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names.dedup();
        names
    };
    let asked = asked.iter().filter_map(Node::as_str).map(str::to_string);
    adapter.target_modules.is_empty()
        || sorted(asked.collect()) == sorted(adapter.target_modules.clone())
}

/// Whether a value was asked for, rather than being a default of the main configs or
/// of the run that is done again.
pub(super) fn is_of_user(job: &Job, origin: &Origin) -> bool {
    match origin {
        Origin::BuiltIn => false,
        Origin::CommandLine { .. } => true,
        Origin::File { path, .. } => {
            let mut sources = job.composed.sources.iter();
            let ours = sources.any(|source| source.provider == "main" && source.holds(path));
            !ours && !path.ends_with(".hydra/config.yaml")
        }
    }
}

fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => Value::Int(value as i64),
        false => Value::Float(value),
    }
}

fn shown(value: &Value) -> String {
    Node::built_in(value.clone()).to_json().to_string()
}
