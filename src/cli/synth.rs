//! `run synth`.

use crate::config::Command;
use crate::experiment;

use super::args::JobArgs;
use super::error::Error;

/// Turns abstracts into questions and answers to train on.
pub(super) fn call(args: JobArgs) -> Result<(), Error> {
    match args.job(Command::Synth)? {
        Some(job) => Ok(experiment::synth(&job.config)?),
        None => Ok(()),
    }
}
