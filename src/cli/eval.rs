//! `run eval`.

use clap::Args;

use crate::config::{Command, Job};
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Flags of `run eval`.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Score the base alone, without an adapter, e.g. a fully tuned or merged model
    #[arg(long)]
    base: bool,
    #[command(flatten)]
    sweep: SweepArgs,
}

/// Scores the base and the adapter.
pub(super) fn call(args: EvalArgs) -> Result<(), Error> {
    let work: fn(Job) -> _ = match args.base {
        true => |job| experiment::eval(job, true),
        false => |job| experiment::eval(job, false),
    };
    args.sweep.call(Command::Eval, work)
}
