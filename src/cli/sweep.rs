//! The commands that run a job, or with `--multirun` one for every cell of a sweep.

use clap::Args;
use clap::error::ErrorKind;

use crate::compose::is_multirun;
use crate::config::{Command, Job};
use crate::experiment::{self, located, sweep};

use super::args::JobArgs;
use super::error::Error;

/// Flags of a command that can be swept.
#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// Run every combination of the values of keys such as lora.r=4,8
    #[arg(short, long, conflicts_with = "action")]
    multirun: bool,
    /// With --multirun: list and check the cells, run none
    #[arg(long)]
    dry_run: bool,
    /// With --multirun, in train: run this cell alone, below hydra.sweep.dir; for job arrays
    #[arg(long, value_name = "N", conflicts_with = "dry_run")]
    cell: Option<usize>,
    #[command(flatten)]
    job: JobArgs,
}

impl SweepArgs {
    /// Runs the job with `work`, or each job of a sweep.
    pub(super) fn call(
        self,
        command: Command,
        work: fn(Job) -> Result<(), experiment::Error>,
    ) -> Result<(), Error> {
        let request = self.job.request_to_run(command)?;
        let request = request.filter(|request| self.multirun || is_multirun(request));
        let work = |job| located(job, work);
        match (request, self.dry_run, self.cell) {
            (Some(request), true, _) => Ok(sweep::dry_run(command, &request)?),
            (Some(request), false, None) => Ok(sweep::run(command, &request, work)?),
            (Some(request), false, Some(num)) if command == Command::Train => {
                Ok(sweep::run_cell(command, &request, num, work)?)
            }
            (Some(_), false, Some(_)) => Err(alone(
                command,
                "--cell is for run train, whose table can be made when all cells have ended",
            )),
            (None, true, _) if !self.job.only_prints() => Err(alone(
                command,
                "--dry-run lists the cells of a sweep: add --multirun (-m), \
                 or see the config of one run with --cfg job",
            )),
            (None, _, Some(_)) if !self.job.only_prints() => Err(alone(
                command,
                "--cell runs one cell of a sweep: add --multirun (-m) and all of the sweep's overrides",
            )),
            (None, ..) => match self.job.job(command)? {
                Some(job) => Ok(work(job)?),
                None => Ok(()),
            },
        }
    }
}

/// A flag of sweeps where there is none, or none that has it.
fn alone(command: Command, text: &str) -> Error {
    super::usage_error(
        &command.to_string(),
        ErrorKind::MissingRequiredArgument,
        text,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Probe {
        #[command(flatten)]
        args: SweepArgs,
    }

    fn code(words: &[&str]) -> Result<(), u8> {
        let argv = std::iter::once("run").chain(words.iter().copied());
        let probe = Probe::try_parse_from(argv).map_err(|e| Error::Usage(e).code())?;
        let call = probe.args.call(Command::Train, |_| Ok(()));
        call.map_err(|error| error.code())
    }

    #[test]
    fn flags_that_contradict_one_another_are_usage_errors() {
        assert_eq!(code(&["-m", "--cfg", "job"]), Err(2));
        assert_eq!(code(&["--cfg=job", "seed=1", "--multirun"]), Err(2));
        assert_eq!(code(&["--dry-run", "seed=1"]), Err(2));
        assert_eq!(code(&["--cell", "0", "seed=1"]), Err(2));
        assert_eq!(code(&["-m", "--cell=0", "--dry-run", "seed=1,2"]), Err(2));
    }
}
