//! `run explain`.

use std::path::PathBuf;

use clap::Args;

use crate::compose::{Composed, History, Request, compose_with_history, groups};
use crate::config::explain::{Group, Topic, branch, key, topic};
use crate::config::{
    ConfigErrors, Strictness, check, compose_checked, key_called, search_path, underlay_defaults,
    why,
};

use super::error::Error;
use super::output;

/// Flags of `run explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  run explain lora.r                         one key
  run explain learning_rate dropout          several, by the last part of their names
  run explain lora                           the keys of a group
  run explain lora.r experiment=low_memory   with its value in this config")]
pub(super) struct ExplainArgs {
    /// The primary config, without .yaml (also -cn)
    #[arg(long, value_name = "NAME", default_value = "config")]
    config_name: String,
    /// A folder of yours with more configs, searched after the others (also -cd)
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// The main config folder, in place of ./configs (also -cp)
    #[arg(long, value_name = "DIR")]
    config_path: Option<PathBuf>,
    /// Keys, groups of keys, or the last parts of keys; overrides (key=value) show
    /// the value in the config that they compose
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

/// Explains keys.
pub(super) fn call(args: ExplainArgs) -> Result<(), Error> {
    let (overrides, words): (Vec<String>, Vec<String>) = args
        .keys
        .iter()
        .cloned()
        .partition(|word| is_override(word));
    let request = Request {
        sources: search_path(args.config_path.as_deref(), args.config_dir.as_deref()),
        config_name: Some(args.config_name.clone()),
        closed: Some(key_called),
        job_name: "run".to_string(),
        ..Request::default()
    };
    let groups: Vec<Group> = groups(&request.sources)
        .into_iter()
        .map(|(name, options)| Group { name, options })
        .collect();
    // A config of one's own is asked about as much as an override is.
    let own =
        args.config_dir.is_some() || args.config_path.is_some() || args.config_name != "config";
    let config = match own || !overrides.is_empty() {
        true => Some(composed(&Request {
            overrides: overrides.clone(),
            ..request
        })?),
        false => None,
    };
    let value = |name: &str| {
        let (composed, history) = config.as_ref()?;
        let found = why(composed, history, name).ok()?;
        found.into_iter().next().map(|(_, text)| text)
    };
    // Keys that are only set are those that are asked about.
    let words = match words.is_empty() {
        true => overrides
            .iter()
            .map(|text| name_of(text).to_string())
            .collect(),
        false => words,
    };
    let mut parts = Vec::new();
    for word in &words {
        match topic(word, &groups)? {
            Topic::Keys(found) => {
                parts.extend(
                    found
                        .into_iter()
                        .map(|one| key(one, value(one.name).as_deref())),
                );
            }
            Topic::Branch(prefix) => parts.push(branch(&prefix, &groups, &value)),
        }
    }
    output::print(&parts.join("\n"))?;
    Ok(())
}

/// The config with the history of its values, checked.
fn composed(request: &Request) -> Result<(Composed, History), Error> {
    let errors = check(&compose_checked(request)?.job, Strictness::Printable);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors).into());
    }
    let (composed, mut history) = compose_with_history(request)?;
    for warning in &composed.warnings {
        output::print_error(&format!("warning: {warning}\n"));
    }
    underlay_defaults(&mut history);
    Ok((composed, history))
}

fn is_override(word: &str) -> bool {
    word.contains('=') || word.starts_with(['~', '+'])
}

/// The key or group that an override is about.
fn name_of(text: &str) -> &str {
    let name = text.trim_start_matches(['+', '~']);
    let name = name.split('=').next().unwrap_or(name);
    name.split('@').next().unwrap_or(name)
}
