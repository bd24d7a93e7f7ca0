//! `run report`.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::error::ErrorKind;

use crate::experiment;

use super::error::Error;
use super::output;

/// Flags of `run report`.
#[derive(Debug, Args)]
#[command(
    after_help = "A run or a sweep is named by its directory or by the last part of its path:
  run report 14-03-22
  run report outputs/multirun/2026-11-21/14-10-00 output=sweep.html"
)]
pub(super) struct ReportArgs {
    /// A run or sweep directory, or the last part of its path; output=FILE puts the
    /// report there in place of report.html in the directory
    #[arg(value_name = "RUN", required = true)]
    words: Vec<String>,
    /// Where the runs lie
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    dir: PathBuf,
}

/// Writes the report and says where it lies.
pub(super) fn call(args: ReportArgs) -> Result<(), Error> {
    let (mut run, mut output) = (None, None);
    for word in &args.words {
        let place = match word.strip_prefix("output=") {
            Some(path) if !path.is_empty() => (&mut output, path),
            Some(_) => return Err(usage("output= needs a file: output=report.html")),
            None => (&mut run, word.as_str()),
        };
        if place.0.replace(PathBuf::from(place.1)).is_some() {
            let text = format!("{word}: one run or sweep a report, and one output=FILE");
            return Err(usage(&text));
        }
    }
    let Some(run) = run else {
        return Err(usage("name a run or a sweep; `run runs` lists them"));
    };
    let path = experiment::report(&run, &args.dir, output.as_deref().map(Path::new))?;
    output::print(&format!("report     {}\n", path.display()))?;
    Ok(())
}

fn usage(text: &str) -> Error {
    super::usage_error("report", ErrorKind::InvalidValue, text)
}
