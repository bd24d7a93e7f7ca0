//! Flags that ask about a config instead of running it.

use clap::Args;

use crate::compose::{Request, compose_with_history};
use crate::config::underlay_defaults;

use super::completion::Action;
use super::error::Error;
use super::info::{self, Info};
use super::{output, why};

/// One of these, or one of the other flags that say what is to be done.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Print how the config comes about: search path, defaults lists, config
    #[arg(
        short,
        long,
        value_enum,
        value_name = "WHAT",
        num_args = 0..=1,
        default_missing_value = "all",
        group = "action"
    )]
    info: Option<Info>,
    /// Print the value of a key, who set it, and what it was before
    #[arg(long, value_name = "KEY", group = "action")]
    why: Vec<String>,
    /// As in Hydra: install=SHELL, uninstall=SHELL (also -sc)
    #[arg(long, value_name = "ACTION", hide = true, group = "action")]
    shell_completion: Option<Action>,
}

impl Inspect {
    /// Whether something is asked.
    pub(super) fn is_asked(&self) -> bool {
        self.info.is_some() || !self.why.is_empty() || self.shell_completion.is_some()
    }

    /// Answers what is asked; `false` where nothing is. A job has the defaults of
    /// the table under its config.
    ///
    /// # Errors
    /// A config that does not compose, an unknown key.
    pub(super) fn run(&self, request: &Request, is_job: bool) -> Result<bool, Error> {
        if let Some(action) = &self.shell_completion {
            action.call()?;
        } else if let Some(info) = self.info {
            info::print(info, request)?;
        } else if !self.why.is_empty() {
            let (composed, mut history) = compose_with_history(request)?;
            for warning in &composed.warnings {
                output::print_error(&format!("warning: {warning}\n"));
            }
            if is_job {
                underlay_defaults(&mut history);
            }
            output::print(&why::sentences(&composed, &history, &self.why)?)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}
