//! `run infer`.

use crate::config::Command;
use crate::experiment;

use super::args::JobArgs;
use super::error::Error;

/// Answers the questions of the test file.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    if let Some(job) = args.job(Command::Infer)? {
        experiment::infer(job)?;
    }
    Ok(())
}
