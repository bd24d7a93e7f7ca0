//! `run plan`.

use clap::Args;

use crate::config::Command;
use crate::device::parse_memory_size;
use crate::experiment::Located;
use crate::experiment::forecast::{Ask, forecast};

use super::args::JobArgs;
use super::error::Error;
use super::output;

/// Flags of `run plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Plan for a GPU with this much memory, such as 24GiB, that need not be here
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_size)]
    gpu: Option<u64>,
    #[command(flatten)]
    job: JobArgs,
}

/// Prints what training with this config needs.
pub(super) fn call(args: PlanArgs) -> Result<(), Error> {
    let ask = Ask {
        json: args.json,
        gpu_bytes: args.gpu,
    };
    if let Some(job) = args.job.job(Command::Plan)? {
        let said = forecast(&job, ask).map_err(|error| Located::new(error, &job.resolved))?;
        output::print(&said)?;
    }
    Ok(())
}
