//! `run eval`.

use crate::config::Command;
use crate::experiment;

use super::args::JobArgs;
use super::error::Error;

/// Scores the base and the adapter.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    if let Some(job) = args.job(Command::Eval)? {
        experiment::eval(job)?;
    }
    Ok(())
}
