//! Why a sweep cannot begin, or did not end well.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;

use super::outcome::Outcome;
use crate::compose;
use crate::experiment::fsx::FsError;
use crate::experiment::publish::PublishError;
use crate::experiment::summary::Status;

/// A sweep that did not do all it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Compose(#[from] compose::Error),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Known before anything ran.
    #[error("{}", .0)]
    Cells(CellProblems),
    #[error("{}", .0)]
    Directory(String),
    #[error(
        "{}: already holds {found}, which the sweep would overwrite; \
         choose another hydra.sweep.dir, or move it away; to go on with that sweep, \
         add training.resume=auto", .path.display()
    )]
    Occupied { path: PathBuf, found: String },
    #[error(
        "{}: another process is at work in this sweep{}; \
         wait for it, stop it, or choose another hydra.sweep.dir",
        .path.display(), if .owner.is_empty() { String::new() } else { format!(" ({})", .owner) }
    )]
    Busy { path: PathBuf, owner: String },
    #[error(
        "--cell {num}: the sweep has {total} cells, from 0 to {}; --dry-run lists them",
        total.saturating_sub(1)
    )]
    NoCell { num: usize, total: usize },
    #[error(
        "--cell needs the directory of the sweep, the same one for all its cells: \
         add hydra.sweep.dir=DIR"
    )]
    CellWithoutDirectory,
    #[error("cell {num} failed: {why}")]
    Cell { num: usize, why: String },
    #[error("{failed} of {total} cells failed ({cells}); see {}", .table.display())]
    Failed {
        failed: usize,
        total: usize,
        cells: String,
        table: PathBuf,
    },
}

/// A cell that cannot run.
#[derive(Clone, Debug)]
pub struct CellProblem {
    pub num: usize,
    /// Its swept overrides.
    pub title: String,
    pub text: String,
}

/// The cells of a sweep that cannot run.
#[derive(Clone, Debug)]
pub struct CellProblems {
    total: usize,
    problems: Vec<CellProblem>,
}

impl SweepError {
    pub(super) fn cells(total: usize, problems: Vec<CellProblem>) -> SweepError {
        SweepError::Cells(CellProblems { total, problems })
    }

    /// What the outcomes say of the sweep; `None` where all is well.
    pub(super) fn of_outcomes(
        total: usize,
        outcomes: &[Outcome],
        table: PathBuf,
    ) -> Option<SweepError> {
        let failed = outcomes.iter().filter(|o| o.status == Status::Failed);
        let failed: Vec<usize> = failed.map(|o| o.num).collect();
        (!failed.is_empty()).then(|| SweepError::Failed {
            failed: failed.len(),
            total,
            cells: numbers(&failed),
            table,
        })
    }
}

/// `2`, or `0, 3, 4 and 9 more`.
fn numbers(nums: &[usize]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = nums.iter().take(SHOWN).map(|n| format!("#{n}")).collect();
    match nums.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Equal problems of several cells are told once.
impl fmt::Display for CellProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut alike: IndexMap<&str, Vec<&CellProblem>> = IndexMap::new();
        for problem in &self.problems {
            alike.entry(&problem.text).or_default().push(problem);
        }
        let mut bad: Vec<usize> = self.problems.iter().map(|p| p.num).collect();
        bad.dedup();
        write!(
            f,
            "{} of {} cells cannot run, so none was run",
            bad.len(),
            self.total
        )?;
        for (text, cells) in alike {
            let nums: Vec<usize> = cells.iter().map(|cell| cell.num).collect();
            match cells[..] {
                [one] => write!(f, "\ncell #{} ({}):", one.num, one.title)?,
                _ => write!(f, "\ncells {}:", numbers(&nums))?,
            }
            write!(f, "\n  {}", text.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}
