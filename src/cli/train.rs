//! `run train`.

use crate::config::Command;
use crate::experiment;

use super::error::Error;
use super::sweep::SweepArgs;

/// Fine-tunes; the run directory and the closing table are made below.
pub(super) fn call(args: SweepArgs) -> Result<(), Error> {
    args.call(Command::Train, experiment::train)
}
