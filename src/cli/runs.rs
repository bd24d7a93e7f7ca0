//! `run runs`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::experiment::registry::{RunDiff, RunList, RunView, locate};

use super::error::Error;
use super::output;

/// Flags of `run runs`.
#[derive(Debug, Args)]
#[command(
    after_help = "A run is named by its directory or by the last part of its path:
  run runs show 14-03-22
  run runs diff 14-03-22 multirun/2026-11-21/14-10-00/3
  run train --from 14-03-22 lora.r=8         the same again, with another rank"
)]
pub(super) struct RunsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Where the runs lie
    #[arg(long, global = true, value_name = "DIR", default_value = "outputs")]
    dir: PathBuf,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// One run: status, overrides, figures, adapter, last rows of metrics
    Show {
        /// A run directory, or the last part of its path
        run: PathBuf,
    },
    /// Where the configs and figures of two runs differ
    Diff {
        /// A run directory, or the last part of its path
        a: PathBuf,
        /// The other one
        b: PathBuf,
    },
}

/// Lists, shows or compares past runs.
pub(super) fn call(args: RunsArgs) -> Result<(), Error> {
    let dir = args.dir.as_path();
    let find = |name: &Path| locate(name, dir);
    let (text, json) = match &args.action {
        None => {
            let list = RunList::read(dir)?;
            (list.text(), serde_json::to_value(&list)?)
        }
        Some(Action::Show { run }) => {
            let view = RunView::read(&find(run)?)?;
            (view.text(), view.json())
        }
        Some(Action::Diff { a, b }) => {
            let diff = RunDiff::read(&find(a)?, &find(b)?)?;
            (diff.text(), diff.json())
        }
    };
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&json)?),
        false => text,
    };
    output::print(&text)?;
    Ok(())
}
