//! Completion in the shell: `run completion SHELL` prints a script that calls back
//! with `--shell-completion query=SHELL` and the command line in `COMP_LINE`.

mod line;
mod query;

use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::error::Error;
use super::output;

/// A shell that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `run completion`.
#[derive(Debug, Args)]
#[command(after_help = "To complete with TAB in every new shell:
  bash   put into ~/.bashrc:                    eval \"$(run completion bash)\"
  zsh    put into ~/.zshrc, after compinit:     eval \"$(run completion zsh)\"
  fish   put into ~/.config/fish/config.fish:   run completion fish | source")]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// What `--shell-completion` wants, written `install=bash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Install(Shell),
    Uninstall(Shell),
    /// Asked by the script at each TAB.
    Query(Shell),
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Action, String> {
        let wrong =
            || "write install=SHELL or uninstall=SHELL; shells: bash, zsh, fish".to_string();
        let (verb, shell) = text.split_once('=').ok_or_else(wrong)?;
        let shell = Shell::from_str(shell, false).map_err(|_| wrong())?;
        match verb {
            "install" => Ok(Action::Install(shell)),
            "uninstall" => Ok(Action::Uninstall(shell)),
            "query" => Ok(Action::Query(shell)),
            _ => Err(wrong()),
        }
    }
}

impl Action {
    /// Prints the script or the answer.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub(super) fn call(self) -> Result<(), Error> {
        match self {
            Action::Install(shell) => output::print(script(shell))?,
            Action::Uninstall(shell) => output::print(undo(shell))?,
            Action::Query(shell) => output::print(&query::answer(shell))?,
        }
        Ok(())
    }
}

/// Prints the script.
pub(super) fn call(args: CompletionArgs) -> Result<(), Error> {
    Action::Install(args.shell).call()
}

fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("run.bash"),
        Shell::Zsh => include_str!("run.zsh"),
        Shell::Fish => include_str!("run.fish"),
    }
}

fn undo(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => "complete -r run\nunset -f _run_completion\n",
        Shell::Zsh => "compdef -d run\nunfunction _run_completion\n",
        Shell::Fish => "complete -c run -e\nfunctions -e __run_completion\n",
    }
}
