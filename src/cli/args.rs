//! The flags that job commands share. They may stand anywhere among the
//! overrides; `--` ends them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::compose::{Request, Source, Tree, compose};
use crate::config::{
    Command, ConfigErrors, Job, JobError, Strictness, check, compose_checked, of_rerun,
    saved_config, search_path,
};
use crate::experiment::OUTPUTS;
use crate::experiment::registry::locate;

use super::error::Error;
use super::{help, output, show};

/// Which part of the config to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Cfg {
    /// The config of the job
    Job,
    /// The config of Hydra itself
    Hydra,
    /// Both
    All,
}

/// Flags of a command that runs a job.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// Print the composed config instead of running
    #[arg(short, long, value_enum, value_name = "WHAT")]
    cfg: Option<Cfg>,
    /// With --cfg: resolve interpolations
    #[arg(long, requires = "cfg")]
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
    #[command(flatten)]
    common: Common,
}

/// Flags of `run compose`.
#[derive(Debug, Args)]
pub(super) struct ComposeArgs {
    /// Which part of the config to print
    #[arg(short, long, value_enum, value_name = "WHAT", default_value = "job")]
    cfg: Cfg,
    /// Resolve interpolations
    #[arg(long)]
    resolve: bool,
    /// Only this part of the config
    #[arg(short, long, value_name = "PATH")]
    package: Option<String>,
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
        self.common.help || self.cfg.is_some()
    }

    /// The run that --from names.
    fn past(&self) -> Result<Option<PathBuf>, Error> {
        let name = self.from.as_deref();
        Ok(name
            .map(|name| locate(name, Path::new(OUTPUTS)))
            .transpose()?)
    }

    fn request(&self, past: Option<&Path>) -> Result<Request, Error> {
        let common = &self.common;
        let sources = search_path(common.config_path.as_deref(), common.config_dir.as_deref());
        Ok(Request {
            closed: true,
            run: !self.only_prints(),
            base: past.map(saved_config).transpose()?,
            ..common.request(sources)
        })
    }

    /// What would be composed for a run; `None` where a flag only wants
    /// something printed.
    pub(super) fn request_to_run(&self) -> Result<Option<Request>, Error> {
        if self.only_prints() {
            return Ok(None);
        }
        self.request(self.past()?.as_deref()).map(Some)
    }

    /// The job to run; `None` where a flag only wanted something printed.
    pub(super) fn job(self, command: Command) -> Result<Option<Job>, Error> {
        let common = &self.common;
        if common.help {
            let sources = search_path(common.config_path.as_deref(), common.config_dir.as_deref());
            output::print(&help::job(&command.to_string(), &sources))?;
            return Ok(None);
        }
        let past = self.past()?;
        let composed = compose_checked(&self.request(past.as_deref())?)?;
        for warning in &composed.warnings {
            output::print_error(&format!("warning: {warning}\n"));
        }
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
        let text = show::show(&composed, cfg, self.resolve, self.package.as_deref())?;
        output::print(&text)?;
        Ok(None)
    }
}

impl ComposeArgs {
    /// Prints a composed tree. Nothing is checked but that it composes.
    pub(super) fn print(self) -> Result<(), Error> {
        let common = &self.common;
        let sources = match (&common.config_path, &common.config_dir) {
            // A tree of its own: this project's configs are no part of it.
            (None, Some(dir)) => vec![Source {
                provider: "main".to_string(),
                tree: Tree::Dir(dir.clone()),
                mount: None,
            }],
            (path, dir) => search_path(path.as_deref(), dir.as_deref()),
        };
        if common.help {
            output::print(&help::groups_only("compose", &sources))?;
            return Ok(());
        }
        let composed = compose(&common.request(sources))?;
        for warning in &composed.warnings {
            output::print_error(&format!("warning: {warning}\n"));
        }
        let text = show::show(&composed, self.cfg, self.resolve, self.package.as_deref())?;
        output::print(&text)?;
        Ok(())
    }
}

/// Hydra has flags of one dash and two letters, which getopt-like parsers read as
/// two flags. They become their long forms here.
pub(super) fn spell_out(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    argv.into_iter()
        .map(|arg| {
            flags &= arg != "--";
            match arg.to_str() {
                Some("-cn") if flags => "--config-name".into(),
                Some("-cd") if flags => "--config-dir".into(),
                Some("-cp") if flags => "--config-path".into(),
                _ => arg,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
    fn flags_that_would_do_nothing_are_refused() {
        assert!(probe(&["--resolve"]).is_err());
        assert!(probe(&["-p", "lora"]).is_err());
        assert!(probe(&["--cfg", "everything"]).is_err());
        assert!(probe(&["--no-such-flag"]).is_err());
    }
}
