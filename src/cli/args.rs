//! The flags that job commands share. They may stand anywhere among the
//! overrides; `--` ends them.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use crate::compose::{Composed, History, Request, Source, compose, compose_with_history};
use crate::config::{
    Command, ConfigErrors, Job, JobError, SWEEPING, Strictness, check, compose_checked, key_called,
    of_rerun, saved_config, search_path, tree_search_path, underlay_defaults,
};
use crate::experiment::OUTPUTS;
use crate::experiment::registry::locate;

use super::error::Error;
use super::inspect::Inspect;
use super::show::Cfg;
use super::{help, output, show};

/// Flags of a command that runs a job.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shown").args(["cfg", "help"]).multiple(true))]
pub(super) struct JobArgs {
    /// Print the composed config instead of running
    #[arg(short, long, value_enum, value_name = "WHAT", group = "action")]
    cfg: Option<Cfg>,
    /// With --cfg or --help: resolve interpolations
    #[arg(long, requires = "shown")]
    resolve: bool,
    /// With --cfg: only this part of the config
    #[arg(short, long, requires = "cfg", value_name = "PATH")]
    package: Option<String>,
    /// Take the config of a past run, named by its directory or the last part
    /// of its path; overrides come on top
    #[arg(
        long,
        value_name = "RUN",
        alias = "experimental-rerun",
        conflicts_with = "config_name"
    )]
    from: Option<PathBuf>,
    /// With --cfg: a comment behind each value that says who set it
    #[arg(long, requires = "cfg")]
    origins: bool,
    #[command(flatten)]
    inspect: Inspect,
    #[command(flatten)]
    common: Common,
}

/// Flags of `run compose`.
#[derive(Debug, Args)]
pub(super) struct ComposeArgs {
    /// Which part of the config to print
    #[arg(
        short,
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "job",
        group = "action"
    )]
    cfg: Cfg,
    /// Resolve interpolations
    #[arg(long, conflicts_with_all = ["info", "why"])]
    resolve: bool,
    /// Only this part of the config
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["info", "why"])]
    package: Option<String>,
    /// A comment behind each value that says who set it
    #[arg(long, conflicts_with_all = ["info", "why"])]
    origins: bool,
    #[command(flatten)]
    inspect: Inspect,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// The primary config, without .yaml (also -cn)
    #[arg(long, value_name = "NAME", default_value = "config")]
    config_name: String,
    /// A folder of yours with more configs, searched after the others (also -cd)
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// The main config folder, in place of ./configs (also -cp)
    #[arg(long, value_name = "DIR")]
    config_path: Option<PathBuf>,
    /// Print this help with all groups and keys
    #[arg(short, long)]
    help: bool,
    /// Hydra overrides: key=value, +key=value, ++key=value, ~key, group=option
    #[arg(value_name = "OVERRIDE")]
    overrides: Vec<String>,
}

impl Common {
    fn request(&self, sources: Vec<Source>) -> Request {
        Request {
            sources,
            config_name: Some(self.config_name.clone()),
            overrides: self.overrides.clone(),
            job_name: "run".to_string(),
            ..Request::default()
        }
    }
}

impl JobArgs {
    /// Whether a flag asks for something to be printed instead of a run.
    pub(super) fn only_prints(&self) -> bool {
        self.common.help || self.cfg.is_some() || self.inspect.is_asked()
    }

    /// The run that --from names.
    fn past(&self) -> Result<Option<PathBuf>, Error> {
        let name = self.from.as_deref();
        Ok(name
            .map(|name| locate(name, Path::new(OUTPUTS)))
            .transpose()?)
    }

    fn request(&self, command: Command, past: Option<&Path>) -> Result<Request, Error> {
        let common = &self.common;
        let sources = search_path(common.config_path.as_deref(), common.config_dir.as_deref());
        Ok(Request {
            closed: Some(key_called),
            run: !self.only_prints(),
            base: past.map(saved_config).transpose()?,
            no_sweep: (!command.sweeps()).then(|| no_sweep(&command.to_string())),
            ..common.request(sources)
        })
    }

    /// What would be composed for a run; `None` where a flag only wants
    /// something printed.
    pub(super) fn request_to_run(&self, command: Command) -> Result<Option<Request>, Error> {
        if self.only_prints() {
            return Ok(None);
        }
        self.request(command, self.past()?.as_deref()).map(Some)
    }

    /// The job to run; `None` where a flag only wanted something printed.
    pub(super) fn job(self, command: Command) -> Result<Option<Job>, Error> {
        let common = &self.common;
        let past = self.past()?;
        let request = self.request(command, past.as_deref())?;
        if common.help {
            let text = help::job(&command.to_string(), &request, self.resolve);
            output::print(&text)?;
            return Ok(None);
        }
        if self.inspect.run(&request, true)? {
            return Ok(None);
        }
        let (composed, history) = composed(&request, self.origins)?;
        let Some(cfg) = self.cfg else {
            let job = Job::new(command, composed);
            return Ok(Some(match &past {
                Some(run) => job.map_err(|error| of_rerun(error, run))?,
                None => job?,
            }));
        };
        let errors = check(&composed.job, Strictness::Printable);
        if !errors.is_empty() {
            let error = JobError::from(ConfigErrors(errors));
            return Err(match &past {
                Some(run) => of_rerun(error, run).into(),
                None => error.into(),
            });
        }
        let history = history.map(|mut history| {
            underlay_defaults(&mut history);
            history
        });
        let package = self.package.as_deref();
        let text = show::show(&composed, cfg, self.resolve, package, history.as_ref())?;
        output::print(&text)?;
        Ok(None)
    }
}

/// What a command that makes no sweeps says where one is asked for.
pub(super) fn no_sweep(command: &str) -> String {
    format!("run {command} takes one config; {SWEEPING} sweep, with --multirun (-m)")
}

/// Composes and tells the warnings; with the history where it is wanted.
fn composed(request: &Request, history: bool) -> Result<(Composed, Option<History>), Error> {
    let (composed, history) = if history {
        let (composed, history) = compose_with_history(request)?;
        (composed, Some(history))
    } else {
        let composed = match request.closed {
            Some(_) => compose_checked(request)?,
            None => compose(request)?,
        };
        (composed, None)
    };
    for warning in &composed.warnings {
        output::print_error(&format!("warning: {warning}\n"));
    }
    Ok((composed, history))
}

impl ComposeArgs {
    /// Prints a composed tree. Nothing is checked but that it composes.
    pub(super) fn print(self) -> Result<(), Error> {
        let common = &self.common;
        let sources = tree_search_path(common.config_path.as_deref(), common.config_dir.as_deref());
        let request = Request {
            no_sweep: Some(no_sweep("compose")),
            ..common.request(sources)
        };
        if common.help {
            output::print(&help::tree("compose", &request, self.resolve))?;
            return Ok(());
        }
        if self.inspect.run(&request, false)? {
            return Ok(());
        }
        let (composed, history) = composed(&request, self.origins)?;
        let package = self.package.as_deref();
        let text = show::show(&composed, self.cfg, self.resolve, package, history.as_ref())?;
        output::print(&text)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::cli::spelling::spell_out;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Probe {
        #[command(flatten)]
        args: JobArgs,
    }

    fn probe(words: &[&str]) -> Result<JobArgs, clap::Error> {
        let argv = std::iter::once("run").chain(words.iter().copied());
        Probe::try_parse_from(spell_out(argv.map(OsString::from))).map(|p| p.args)
    }

    #[test]
    fn flags_stand_anywhere_among_overrides() {
        let args = probe(&[
            "a=1",
            "-c",
            "job",
            "~b",
            "--resolve",
            "+c=[x,y]",
            "-cn",
            "mine",
        ])
        .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(args.common.overrides, ["a=1", "~b", "+c=[x,y]"]);
        assert_eq!(args.cfg, Some(Cfg::Job));
        assert!(args.resolve);
        assert_eq!(args.common.config_name, "mine");
    }

    #[test]
    fn two_dashes_end_the_flags() {
        let args =
            probe(&["--cfg=all", "--", "-cn", "--resolve"]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(args.common.overrides, ["-cn", "--resolve"]);
        assert!(!args.resolve);
    }

    #[test]
    fn one_thing_is_asked_at_a_time() {
        for words in [
            &["--cfg", "job", "--info"][..],
            &["-i", "defaults", "--why", "seed"],
            &["--why", "seed", "-c", "all"],
            &["--cfg", "job", "-sc", "install=bash"],
        ] {
            assert!(probe(words).is_err(), "{words:?}");
        }
        for words in [
            &["--info", "lora.r=8"][..],
            &["-i"],
            &["-i", "-cn", "mine"],
            &["--why", "seed", "--why", "lora", "a=1"],
            &["--help", "--resolve"],
            &["--cfg", "job", "--origins", "-h"],
        ] {
            assert!(probe(words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn flags_that_would_do_nothing_are_refused() {
        assert!(probe(&["--resolve"]).is_err());
        assert!(probe(&["-p", "lora"]).is_err());
        assert!(probe(&["--cfg", "everything"]).is_err());
        assert!(probe(&["--no-such-flag"]).is_err());
        assert!(probe(&["--origins"]).is_err());
        assert!(probe(&["--info", "plugins"]).is_err());
    }
}
