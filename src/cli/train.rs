//! `run train`.

use crate::config::Command;
use crate::experiment;

use super::args::JobArgs;
use super::error::Error;

/// Fine-tunes; the run directory and the closing table are made below.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    if let Some(job) = args.job(Command::Train)? {
        experiment::train(job)?;
    }
    Ok(())
}
