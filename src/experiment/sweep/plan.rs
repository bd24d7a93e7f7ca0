//! What a sweep is going to do: its cells, their directories and what is wrong
//! with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{CellProblem, SweepError};
use crate::compose::{self, Composed, Multirun, Origin, Request, to_yaml};
use crate::config::types::Command;
use crate::config::{Job, JobError, names_one_directory};
use crate::experiment::registry::{ConfigError, Leaves};
use crate::experiment::run_dir::RunPaths;
use crate::experiment::start_from;
use crate::experiment::table::WIDEST;

/// A composed sweep. Its cells are composed when they are asked for.
pub(super) struct Plan {
    command: Command,
    sweep: Multirun,
    /// `hydra.sweep.dir`, resolved.
    pub root: PathBuf,
    /// Whether the user named that very directory: it may exist then.
    pub given: bool,
}

/// What looking at every cell found.
#[derive(Default)]
pub(super) struct Checked {
    /// The directory of each cell below the root; empty for one that cannot be composed.
    pub subdirs: Vec<PathBuf>,
    pub problems: Vec<CellProblem>,
    /// Every cell goes on with what its directory holds (`training.resume=auto`).
    pub resumes: bool,
    pub warnings: Vec<String>,
}

impl Plan {
    /// # Errors
    /// The sweep cannot be composed, or it has no directory.
    pub fn new(command: Command, request: &Request) -> Result<Plan, SweepError> {
        let sweep = Multirun::new(request)?;
        let root = path_at(&sweep.master, "hydra.sweep.dir")?;
        let typed = sweep.master.hydra.select("sweep.dir");
        let given = typed.is_some_and(names_one_directory);
        Ok(Plan {
            command,
            sweep,
            root,
            given,
        })
    }

    pub fn len(&self) -> usize {
        self.sweep.cells.len()
    }

    /// The swept keys.
    pub fn keys(&self) -> &[String] {
        &self.sweep.keys
    }

    /// The values of the swept keys in a cell.
    pub fn values(&self, num: usize) -> &[String] {
        &self.sweep.cells[num].values
    }

    /// A cell's overrides as typed one after another.
    pub fn title(&self, num: usize) -> String {
        self.sweep.cells[num].overrides.join(" ")
    }

    /// `multirun.yaml`: the whole master config, as Hydra keeps it.
    pub fn master_yaml(&self) -> String {
        to_yaml(&self.sweep.master.all())
    }

    /// The job of a cell in the sweep directory `root`.
    ///
    /// # Errors
    /// A config that cannot be composed, or all problems of its values.
    pub fn job(&self, num: usize, root: &Path) -> Result<Job, JobError> {
        Ok(self.cell(num, root)?.0)
    }

    /// A cell's job and its directory below the root.
    fn cell(&self, num: usize, root: &Path) -> Result<(Job, PathBuf), JobError> {
        let mut composed = self.sweep.compose(num)?;
        let subdir = path_at(&composed, "hydra.sweep.subdir")?;
        let own_root = path_at(&composed, "hydra.sweep.dir")?;
        if own_root != self.root {
            return Err(misplaced(&self.root, &own_root, &composed).into());
        }
        let run_dir = root.join(&subdir);
        composed.set_output_dir(&run_dir);
        let job = Job::new(self.command, composed)?;
        let job = Job {
            run_dir,
            run_dir_given: true,
            ..job
        };
        Ok((job, subdir))
    }

    /// Composes and checks every cell.
    pub fn checked(&self) -> Checked {
        let mut checked = Checked {
            warnings: self.sweep.master.warnings.clone(),
            resumes: self.command == Command::Train,
            ..Checked::default()
        };
        let mut taken = Taken::default();
        for num in 0..self.len() {
            let (subdir, texts) = match self.cell(num, &self.root) {
                Ok((job, subdir)) => {
                    for warning in &job.composed.warnings {
                        if !checked.warnings.contains(warning) {
                            checked.warnings.push(warning.clone());
                        }
                    }
                    let mut texts = taken.problems(num, &job, &subdir);
                    let auto = job.config.training.resume.as_deref() == Some("auto");
                    checked.resumes &= auto;
                    if auto {
                        texts.extend(another_run(&job));
                    }
                    (subdir, texts)
                }
                Err(error) => (PathBuf::new(), vec![error.to_string()]),
            };
            checked.subdirs.push(subdir);
            let title = self.title(num);
            checked
                .problems
                .extend(texts.into_iter().map(|text| CellProblem {
                    num,
                    title: title.clone(),
                    text,
                }));
        }
        checked
    }

    /// The cells as a table: number, overrides, directory.
    pub fn listing(&self, checked: &Checked) -> String {
        let titles: Vec<String> = (0..self.len()).map(|num| self.title(num)).collect();
        let width = titles.iter().map(|t| t.chars().count()).max().unwrap_or(0);
        let width = width.min(WIDEST);
        let digits = self.len().saturating_sub(1).to_string().len();
        let mut bad = checked.problems.iter().map(|p| p.num).peekable();
        let mut text = String::new();
        for (num, title) in titles.iter().enumerate() {
            let mut is_bad = false;
            while bad.next_if_eq(&num).is_some() {
                is_bad = true;
            }
            let place = match is_bad {
                true => "cannot run".to_string(),
                false => self.root.join(&checked.subdirs[num]).display().to_string(),
            };
            text.push_str(&format!("#{num:<digits$}  {title:<width$}  {place}\n"));
        }
        text + &format!("{}; nothing was run", count(self.len()))
    }
}

/// What cells have that only one of them may have.
#[derive(Default)]
struct Taken {
    directories: HashMap<PathBuf, usize>,
    outputs: HashMap<PathBuf, usize>,
}

impl Taken {
    /// What is wrong with a cell that is right by itself.
    fn problems(&mut self, num: usize, job: &Job, subdir: &Path) -> Vec<String> {
        let mut texts = Vec::new();
        if let Some(first) = self.directories.insert(subdir.to_path_buf(), num) {
            texts.push(format!(
                "hydra.sweep.subdir gives it the directory {} of cell #{first}\n  \
                 let the directory depend on the cell: hydra.sweep.subdir='${{hydra.job.num}}'",
                job.run_dir.display()
            ));
        }
        if let Some(output) = &job.config.output
            && let Some(first) = self.outputs.insert(output.clone(), num)
        {
            texts.push(format!(
                "`output` is {}, as in cell #{first}, whose answers would be overwritten\n  \
                 leave output unset, or write output='${{hydra:runtime.output_dir}}/answers.csv'",
                output.display()
            ));
        }
        if let Some(run) = &job.config.training.resume
            && run != "auto"
        {
            let origin = job.resolved.select("training.resume");
            texts.push(format!(
                "{}: `training.resume` names one run, but a sweep has many\n  \
                 leave it unset",
                origin.map_or(&Origin::BuiltIn, |node| &node.origin)
            ));
        }
        texts
    }
}

/// Why a cell cannot go on in its directory: the run there is of another config.
fn another_run(job: &Job) -> Option<String> {
    let there = RunPaths::new(&job.run_dir).resolved_config();
    if !there.is_file() {
        return None;
    }
    let leaves = |found: Result<Leaves, ConfigError>| found.map_err(|error| error.to_string());
    // As the run was settled before it wrote its config.
    let mut job = job.clone();
    let settled = start_from::settle(&mut job).map_err(|error| error.to_string());
    let changes = leaves(Leaves::read(&there)).and_then(|then| {
        settled?;
        let now = leaves(Leaves::parse(&job.resolved_yaml()))?;
        Ok(then.completed().changes(&now.completed()))
    });
    match changes {
        Err(error) => Some(error),
        Ok(changes) if changes.is_empty() => None,
        Ok(changes) => Some(format!(
            "{} holds a run with other values: {}\n  \
             give the sweep its own cells in their order, or another hydra.sweep.dir",
            job.run_dir.display(),
            changes.join(", ")
        )),
    }
}

/// A number of cells in words.
pub(super) fn count(cells: usize) -> String {
    match cells {
        1 => "1 cell".to_string(),
        n => format!("{n} cells"),
    }
}

/// A directory that stands in the config, resolved.
fn path_at(composed: &Composed, key: &str) -> Result<PathBuf, compose::Error> {
    let wrong = |found: &str| {
        let origin = composed.all().select(key).map(|node| node.origin.clone());
        compose::Problem::new(format!("{key} must name a directory, not {found}"))
            .at(&origin.unwrap_or(Origin::BuiltIn))
            .help(format!("write {key}=DIR"))
            .into()
    };
    let node = composed.resolve(key)?;
    match node.as_ref().map(|node| (node.as_str(), node)) {
        None => Err(wrong("nothing")),
        Some((Some(""), _)) => Err(wrong("the empty string")),
        Some((Some(dir), _)) => Ok(PathBuf::from(dir)),
        Some((None, node)) => match (node.as_i64(), node.type_name()) {
            (Some(number), _) => Ok(PathBuf::from(number.to_string())),
            (None, kind) => Err(wrong(kind)),
        },
    }
}

fn misplaced(root: &Path, own: &Path, composed: &Composed) -> compose::Error {
    let origin = composed.hydra.select("sweep.dir").map(|n| n.origin.clone());
    compose::Problem::new(format!(
        "hydra.sweep.dir is {} in this cell, but {} in the sweep",
        own.display(),
        root.display()
    ))
    .at(&origin.unwrap_or(Origin::BuiltIn))
    .help("all cells lie in one directory; what depends on the cell goes into hydra.sweep.subdir")
    .into()
}
