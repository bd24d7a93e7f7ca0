//! `run infer`.

use clap::Args;

use crate::config::{Command, Job};
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Flags of `run infer`.
#[derive(Debug, Args)]
pub(super) struct InferArgs {
    /// Answer with the base alone, without an adapter, e.g. with a fully tuned model
    #[arg(long)]
    base: bool,
    #[command(flatten)]
    sweep: SweepArgs,
}

/// Answers the questions of the test file.
pub(super) fn call(args: InferArgs) -> Result<(), Error> {
    let work: fn(Job) -> _ = match args.base {
        true => |job| experiment::infer(job, true),
        false => |job| experiment::infer(job, false),
    };
    args.sweep.call(Command::Infer, work)
}
