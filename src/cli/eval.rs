//! `run eval`.

use crate::config::Command;
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Scores the base and the adapter.
pub(super) fn call(args: SweepArgs) -> Result<(), Error> {
    args.call(Command::Eval, experiment::eval)
}
