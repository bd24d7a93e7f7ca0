//! `run chat`.

use std::io::{self, IsTerminal};

use clap::Args;

use crate::config::Command;
use crate::experiment::{self, ChatAsked, located};

use super::args::JobArgs;
use super::error::Error;

/// Flags of `run chat`.
#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// Chat with the base alone, without an adapter, e.g. with a fully tuned model
    #[arg(long)]
    base: bool,
    #[command(flatten)]
    job: JobArgs,
}

/// Answers what is typed, or what comes through a pipe, a line at a time.
pub(super) fn call(args: ChatArgs) -> Result<(), Error> {
    let Some(job) = args.job.job(Command::Chat)? else {
        return Ok(());
    };
    let asked = ChatAsked {
        base: args.base,
        person: io::stdin().is_terminal(),
    };
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    Ok(located(job, |job| {
        experiment::chat(&job.config, asked, &mut input, &mut output)
    })?)
}
