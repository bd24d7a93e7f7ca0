//! `run infer`.

use crate::config::Command;
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Answers the questions of the test file.
pub(super) fn call(args: SweepArgs) -> Result<(), Error> {
    args.call(Command::Infer, experiment::infer)
}
