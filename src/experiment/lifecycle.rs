//! How a run begins and ends, the same for every command: its directory gets
//! the config and the log or is taken back, and its summary tells the outcome.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;

use super::error::Error;
use super::fsx;
use super::log::Console;
use super::metrics::{peak_memory, peak_memory_bytes};
use super::publish;
use super::run_dir::{RunDir, Snapshot};
use super::setup::OUTPUTS;
use super::summary::{Status, Summary};
use crate::config::Job;
use crate::config::types::{Command, Method};

/// A new run directory with the config in it.
///
/// # Errors
/// The directory cannot be made or written; then nothing of it is left.
pub fn new_run(job: &mut Job, console: &Console) -> Result<RunDir, Error> {
    let run = match job.run_dir_given {
        true => RunDir::create_given(&job.run_dir)?,
        false => RunDir::create_numbered(&job.run_dir)?,
    };
    begin(job, run, console)
}

/// Writes the config into the run directory and opens its log.
///
/// # Errors
/// As [`new_run`]; a reopened run stays.
pub fn begin(job: &mut Job, run: RunDir, console: &Console) -> Result<RunDir, Error> {
    match prepare(job, &run, console) {
        Ok(()) => Ok(run),
        Err(error) => {
            run.abandon();
            Err(error)
        }
    }
}

fn prepare(job: &mut Job, run: &RunDir, console: &Console) -> Result<(), Error> {
    publish::check_apart(Path::new(OUTPUTS), run.root())?;
    if job.command == Command::Train && job.config.method == Method::Lora {
        // Found now, not after an hour of training.
        publish::check_writable(Path::new(OUTPUTS), &job.config.task.name)?;
    }
    job.set_output_dir(run.root())?;
    if let (Command::Infer | Command::Eval | Command::Compare, Some(output)) =
        (job.command, &job.config.output)
    {
        let of_a_directory = output.as_os_str().as_encoded_bytes().ends_with(b"/");
        if output.is_dir() || of_a_directory {
            return Err(Error::OutputIsDirectory(output.clone()));
        }
        fsx::create_dir_all(fsx::parent_of(output))?;
        let data = &job.config.data;
        let inputs = [
            ("data.test_path", &data.test_path),
            ("data.path", &data.path),
        ];
        for (key, input) in inputs {
            if input
                .as_deref()
                .is_some_and(|input| fsx::same_place(input, output))
            {
                let output = output.clone();
                return Err(Error::OutputIsInput { key, output });
            }
        }
        // Found now, not after an hour of answers.
        fsx::check_writable(output)?;
    }
    run.write_snapshot(&Snapshot {
        config: &job.config_yaml(),
        overrides: &job.overrides_yaml(),
        hydra: &job.hydra_yaml(),
        resolved: &job.resolved_yaml(),
    })?;
    Ok(console.attach(&run.log())?)
}

/// Writes the final summary, whatever the outcome, which it returns.
///
/// # Errors
/// Those of `outcome`, or the summary cannot be written.
pub fn close(
    run: &RunDir,
    console: &Console,
    device: &Device,
    mut summary: Summary,
    began: Instant,
    mut outcome: Result<(), Error>,
) -> Result<(), Error> {
    let answers = run.predictions();
    if let Err(Error::Fs(error)) = &mut outcome
        && summary.command != "train"
        && error.path != answers
        && answers.is_file()
    {
        error.kept = Some(format!("the answers are kept in {}", answers.display()).into());
    }
    // Until here it holds what earlier sessions of a resumed run took.
    let before = summary.duration_s.unwrap_or_default();
    summary.duration_s = Some(before + began.elapsed().as_secs_f64());
    // A device that failed may not answer any more.
    summary.peak_memory_bytes = match outcome {
        Ok(()) => peak_memory(device),
        Err(_) => peak_memory_bytes(),
    };
    match &outcome {
        Ok(()) => summary.status = Status::Finished,
        Err(error) => {
            summary.status = Status::Failed;
            summary.error = Some(error.to_string());
            // The command line prints it to the terminal.
            console.log_only(&format!("error: {error}"));
        }
    }
    let written = summary.write(&run.summary());
    outcome?;
    Ok(written?)
}
