//! `run synth`.

use crate::config::Command;
use crate::experiment::{self, located};

use super::args::JobArgs;
use super::error::Error;

/// Turns abstracts into questions and answers to train on.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    match args.job(Command::Synth)? {
        Some(job) => Ok(located(job, |job| experiment::synth(&job.config))?),
        None => Ok(()),
    }
}
