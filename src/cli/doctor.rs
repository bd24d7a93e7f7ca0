//! `run doctor`.

use clap::Args;

use crate::experiment::doctor::Report;

use super::error::Error;
use super::output;

/// Flags of `run doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Prints what the machine offers; that there is no GPU is no failure.
pub(super) fn call(args: DoctorArgs) -> Result<(), Error> {
    let report = Report::new();
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => report.text(),
    };
    output::print(&text)?;
    Ok(())
}
