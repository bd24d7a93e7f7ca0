//! `run merge`.

use crate::config::Command;
use crate::experiment::{self, located};

use super::args::JobArgs;
use super::error::Error;

/// Writes the base of `model.path` with an adapter merged in to `output`.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    match args.job(Command::Merge)? {
        Some(job) => Ok(located(job, experiment::merge)?),
        None => Ok(()),
    }
}
