//! A sweep: one run for every cell, one after another in this process, in one
//! directory with a table of what came out.
//!
//! All cells are composed and checked before the first one runs, so a mistake
//! in the last is told at once. What fails later is the failure of its cell: the
//! rest goes on.

mod best;
mod cells;
mod csv;
mod error;
mod outcome;
mod plan;
mod root;
mod table;

use std::fmt::Display;
use std::path::Path;

use super::log::Console;
use super::publish;
use super::setup::OUTPUTS;
use crate::compose::Request;
use crate::config::Job;
use crate::config::types::Command;

use outcome::Outcome;
use plan::{Plan, count};
use root::SweepDir;

pub use error::{CellProblem, SweepError};

/// Runs every cell of the sweep that `request` describes; `work` runs a job.
/// After each cell `sweep.csv` is written anew, so a killed sweep leaves what it
/// knows.
///
/// # Errors
/// The sweep or a cell cannot be composed, or its directory cannot be had: then
/// nothing has run and nothing is left. Or cells failed: then the others have
/// run.
pub fn run<E: Display>(
    command: Command,
    request: &Request,
    work: impl Fn(Job) -> Result<(), E>,
) -> Result<(), SweepError> {
    run_on(&Console::stdio(), command, request, work)
}

fn run_on<E: Display>(
    console: &Console,
    command: Command,
    request: &Request,
    work: impl Fn(Job) -> Result<(), E>,
) -> Result<(), SweepError> {
    let plan = Plan::new(command, request)?;
    let checked = plan.checked();
    warn(console, &checked.warnings);
    if !checked.problems.is_empty() {
        return Err(SweepError::cells(plan.len(), checked.problems));
    }
    if checked.resumes && !plan.given {
        console.line(
            "training.resume=auto: this sweep gets a new directory, so each cell begins; to go on \
             with an earlier one name it: hydra.sweep.dir=DIR",
        );
    }
    publish::check_apart(Path::new(OUTPUTS), &plan.root)?;
    let dir = SweepDir::create(&plan.root, plan.given, checked.resumes, &checked.subdirs)?;
    dir.write_master(&plan.master_yaml())?;
    console.line(&format!(
        "{} in {}",
        count(plan.len()),
        dir.root().display()
    ));
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(plan.len());
    let mut unwritten = None;
    for num in 0..plan.len() {
        console.line(&format!("\n#{num}: {}", plan.title(num)));
        let outcome = cells::run(&plan, num, dir.root(), &work);
        if let Some(error) = &outcome.error {
            console.error(&format!("cell {num} failed: {error}"));
        }
        outcomes.push(outcome);
        unwritten = csv::write(&dir.table(), plan.keys(), &outcomes).err();
        if let Some(error) = &unwritten {
            console.error(&error.to_string());
        }
    }
    console.line(&format!("\n{}", table::render(plan.keys(), &outcomes)));
    console.line(&format!("sweep      {}", dir.root().display()));
    if let Some(error) = unwritten {
        return Err(error.into());
    }
    SweepError::of_outcomes(plan.len(), &outcomes, dir.table()).map_or(Ok(()), Err)
}

/// Runs one cell of the sweep, as a task of a cluster's job array does: below the sweep's own
/// directory, which the user names, without its table. When all cells have ended, the whole sweep
/// with `training.resume=auto` makes that.
///
/// # Errors
/// As [`run`]; or the sweep has no such cell, or it failed.
pub fn run_cell<E: Display>(
    command: Command,
    request: &Request,
    num: usize,
    work: impl Fn(Job) -> Result<(), E>,
) -> Result<(), SweepError> {
    run_cell_on(&Console::stdio(), command, request, num, work)
}

fn run_cell_on<E: Display>(
    console: &Console,
    command: Command,
    request: &Request,
    num: usize,
    work: impl Fn(Job) -> Result<(), E>,
) -> Result<(), SweepError> {
    let plan = Plan::new(command, request)?;
    if num >= plan.len() {
        let total = plan.len();
        return Err(SweepError::NoCell { num, total });
    }
    if !plan.given {
        return Err(SweepError::CellWithoutDirectory);
    }
    let checked = plan.checked();
    warn(console, &checked.warnings);
    if !checked.problems.is_empty() {
        return Err(SweepError::cells(plan.len(), checked.problems));
    }
    publish::check_apart(Path::new(OUTPUTS), &plan.root)?;
    SweepDir::join(&plan.root, &plan.master_yaml())?;
    console.line(&format!(
        "#{num} of {}: {}",
        count(plan.len()),
        plan.title(num)
    ));
    let outcome = cells::run(&plan, num, &plan.root, &work);
    match outcome.error {
        Some(why) => Err(SweepError::Cell { num, why }),
        None => Ok(()),
    }
}

/// Prints the cells of a sweep with their overrides and directories, checks
/// each, runs none and makes no directory.
///
/// # Errors
/// As [`run`], for what can be known beforehand.
pub fn dry_run(command: Command, request: &Request) -> Result<(), SweepError> {
    dry_run_on(&Console::stdio(), command, request)
}

fn dry_run_on(console: &Console, command: Command, request: &Request) -> Result<(), SweepError> {
    let plan = Plan::new(command, request)?;
    let checked = plan.checked();
    warn(console, &checked.warnings);
    console.line(&plan.listing(&checked));
    if !checked.problems.is_empty() {
        return Err(SweepError::cells(plan.len(), checked.problems));
    }
    publish::check_apart(Path::new(OUTPUTS), &plan.root)?;
    SweepDir::refuse_occupied(&plan.root, plan.given, checked.resumes, &checked.subdirs)
}

fn warn(console: &Console, warnings: &[String]) {
    for warning in warnings {
        console.error(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests;
