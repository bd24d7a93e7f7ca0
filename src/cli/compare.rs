//! `run compare`.

use crate::config::Command;
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Compares the base with the tuned model, question by question.
pub(super) fn call(args: SweepArgs) -> Result<(), Error> {
    args.call(Command::Compare, experiment::compare)
}
