//! The command line. One file a command: parse, call, print; nothing here that a
//! user of the library would miss.

mod args;
mod chat;
mod compare;
mod completion;
mod compose;
mod crash;
mod doctor;
mod error;
mod eval;
mod explain;
mod help;
mod infer;
mod info;
mod inspect;
mod merge;
mod output;
mod plan;
mod preview;
mod quantize;
mod report;
mod runs;
mod show;
mod spelling;
mod sweep;
mod synth;
mod train;
mod usage;
mod why;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use args::{ComposeArgs, JobArgs};
use chat::ChatArgs;
use completion::{Action, CompletionArgs};
use doctor::DoctorArgs;
use eval::EvalArgs;
use explain::ExplainArgs;
use infer::InferArgs;
use plan::PlanArgs;
use preview::PreviewArgs;
use report::ReportArgs;
use runs::RunsArgs;
use sweep::SweepArgs;

pub use crash::guard;
pub use error::Error;
pub use output::print;

/// Fine-tunes language models for question answering from one command line.
#[derive(Debug, Parser)]
#[command(
    name = "run",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    override_usage = "run <COMMAND>"
)]
#[command(after_help = "First steps:
  run train                                  QLoRA on the small base that comes with it
  run train task=saq lora.r=8                another task, another rank
  run train model=llama3_8b training=mcq     another base
  run train --help                           all groups and keys
  run explain lora.r                         what a key does, when to change it
  run train --cfg job                        the config, without running
  run preview task=saq                       what training sees of the data
  run plan model.path=DIR                    how much memory training takes
  run compare task=saq                       base and tuned, question by question
  run chat                                   talk with what was trained
  run merge model.path=DIR output=OUT        base and adapter as one dense model
  run doctor                                 what this machine offers
  run train -m lora.r=4,8,16 seed=1,2        a sweep: six runs and a table
  eval \"$(run completion bash)\"              completion with TAB; also zsh and fish")]
pub struct Cli {
    /// As in Hydra: install=SHELL, uninstall=SHELL (also -sc)
    #[arg(long, value_name = "ACTION", hide = true)]
    shell_completion: Option<Action>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune: data in, adapter and figures out
    #[command(disable_help_flag = true)]
    Train(SweepArgs),
    /// Answer the questions of a file with the base and an adapter
    #[command(disable_help_flag = true)]
    Infer(InferArgs),
    /// Score the base and an adapter on the test file
    #[command(disable_help_flag = true)]
    Eval(EvalArgs),
    /// Base and tuned model side by side, question by question, with a sheet to mark
    #[command(disable_help_flag = true)]
    Compare(SweepArgs),
    /// Talk with the base and an adapter; answers appear word by word
    #[command(disable_help_flag = true)]
    Chat(ChatArgs),
    /// Say what training needs, without running it: memory by component, work, time
    #[command(disable_help_flag = true)]
    Plan(PlanArgs),
    /// Show the first examples as training sees them: tokens, labels, cuts; and counts
    #[command(disable_help_flag = true)]
    Preview(PreviewArgs),
    /// Write a model in bitsandbytes' 4-bit layout: model.path=IN output=OUT
    #[command(disable_help_flag = true)]
    Quantize(JobArgs),
    /// Write base and adapter as one dense model: model.path=BASE adapter=DIR output=OUT
    #[command(disable_help_flag = true)]
    Merge(JobArgs),
    /// Turn abstracts into questions and answers to train on, by way of another model
    #[command(disable_help_flag = true)]
    Synth(JobArgs),
    /// Compose and print any Hydra config tree, without a schema
    #[command(disable_help_flag = true)]
    Compose(ComposeArgs),
    /// Say what config keys mean: range, default, when to change them, how
    Explain(ExplainArgs),
    /// Show what this machine offers: devices, drivers, memory, disk; what is missing
    Doctor(DoctorArgs),
    /// List, show and compare past runs
    Runs(RunsArgs),
    /// Write a run or a sweep as one HTML page with curves and tables
    Report(ReportArgs),
    /// Print the script that completes commands, groups and keys in your shell
    Completion(CompletionArgs),
}

/// Reads the command line. Nothing is printed, nothing is run.
///
/// # Errors
/// Usage errors; a call for `--help` or `--version` comes as one too, as in clap.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, Error> {
    let argv = spelling::spell_out(argv);
    let argv = spelling::help_last(argv);
    let mut command = Cli::command();
    if argv.len() < 2 {
        return Err(Error::help(command.render_help().to_string()));
    }
    let matches = match command.try_get_matches_from_mut(&argv) {
        Ok(matches) => matches,
        Err(error) => return Err(Error::Usage(usage::advised(&mut command, &argv, error))),
    };
    Cli::from_arg_matches(&matches).map_err(Error::Usage)
}

/// A usage error of one command, with that command's usage.
fn usage_error(name: &str, kind: ErrorKind, text: &str) -> Error {
    Error::Usage(usage::error_of(&mut Cli::command(), name, kind, text))
}

/// Runs the command.
///
/// # Errors
/// Whatever makes the command fail.
pub fn call(cli: Cli) -> Result<(), Error> {
    if let Some(action) = cli.shell_completion {
        return action.call();
    }
    let Some(command) = cli.command else {
        return Err(Error::help(Cli::command().render_help().to_string()));
    };
    match command {
        Command::Train(args) => train::call(args),
        Command::Infer(args) => infer::call(args),
        Command::Eval(args) => eval::call(args),
        Command::Compare(args) => compare::call(args),
        Command::Chat(args) => chat::call(args),
        Command::Plan(args) => plan::call(args),
        Command::Preview(args) => preview::call(args),
        Command::Quantize(args) => quantize::call(args),
        Command::Merge(args) => merge::call(args),
        Command::Synth(args) => synth::call(args),
        Command::Compose(args) => compose::call(args),
        Command::Explain(args) => explain::call(args),
        Command::Doctor(args) => doctor::call(args),
        Command::Runs(args) => runs::call(args),
        Command::Report(args) => report::call(args),
        Command::Completion(args) => completion::call(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
