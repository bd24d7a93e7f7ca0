//! `run preview`.

use std::io::{self, IsTerminal};

use clap::Args;

use crate::config::Command;
use crate::experiment::{self, Located};

use super::args::JobArgs;
use super::error::Error;
use super::output;

/// Flags of `run preview`.
#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// How many examples to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    #[command(flatten)]
    job: JobArgs,
}

/// Shows the first examples as training sees them, and counts over the set.
pub(super) fn call(args: PreviewArgs) -> Result<(), Error> {
    let Some(job) = args.job.job(Command::Preview)? else {
        return Ok(());
    };
    let preview = experiment::preview(&job.config, args.examples, wants_colour())
        .map_err(|error| Located::new(error, &job.resolved))?;
    output::print(&preview.text)?;
    match preview.refused {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Colours are for terminals, and not where the user has said no (no-color.org).
pub(super) fn wants_colour() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb
}
