//! `run quantize`.

use crate::config::Command;
use crate::experiment::{self, located};

use super::args::JobArgs;
use super::error::Error;

/// Writes the model of `model.path` in NF4 to `output`.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    match args.job(Command::Quantize)? {
        Some(job) => Ok(located(job, |job| experiment::quantize(&job.config))?),
        None => Ok(()),
    }
}
