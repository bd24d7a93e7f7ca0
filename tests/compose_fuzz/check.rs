//! What every input must go through, and what must hold of the outcome.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use kiln::compose::{
    Composed, Error, Request, Source, compose, expand_sweep, sweep_cells, to_yaml,
};
use tempfile::TempDir;

use super::generate::Input;

/// The directories that cases are written to.
pub struct Place {
    tree: TempDir,
    again: TempDir,
    /// What lies in `tree`.
    written: RefCell<Vec<(String, Vec<u8>)>>,
}

pub enum Outcome {
    Composed,
    Refused,
}

/// No message is longer, whatever the input was.
const LONGEST_MESSAGE: usize = 200_000;

impl Place {
    pub fn new() -> Place {
        let place = Place {
            tree: tempfile::tempdir().expect("a directory"),
            again: tempfile::tempdir().expect("a directory"),
            written: RefCell::default(),
        };
        for group in ["g/sub", "h"] {
            fs::create_dir_all(place.tree.path().join(group)).expect("made");
        }
        place
    }

    /// Writes the files that differ from those of the case before.
    fn write(&self, files: &[(String, Vec<u8>)]) {
        let mut written = self.written.borrow_mut();
        for (path, _) in written.iter() {
            if !files.iter().any(|(new, _)| new == path) {
                fs::remove_file(self.tree.path().join(path)).expect("removed");
            }
        }
        for file in files {
            if !written.contains(file) {
                fs::write(self.tree.path().join(&file.0), &file.1).expect("written");
            }
        }
        *written = files.to_vec();
    }
}

fn request(dir: &Path, overrides: &[String]) -> Request {
    Request {
        sources: vec![Source::dir("main", dir)],
        config_name: Some("config".to_string()),
        overrides: overrides.to_vec(),
        job_name: "app".to_string(),
        ..Request::default()
    }
}

/// Composes the input in every way there is.
///
/// # Errors
/// What does not hold.
pub fn run(place: &Place, input: &Input) -> Result<Outcome, String> {
    place.write(&input.files);
    sweep(&input.overrides)?;
    let mut request = request(place.tree.path(), &input.overrides);
    if input.multirun {
        request.multirun = true;
        if let Err(error) = sweep_cells(&request) {
            message(&error)?;
        }
    }
    let composed = match compose(&request) {
        Ok(composed) => composed,
        Err(error) => {
            message(&error)?;
            return Ok(Outcome::Refused);
        }
    };
    for resolved in [composed.resolved_job(), composed.resolved_hydra()] {
        match resolved {
            Ok(node) => drop((to_yaml(&node), node.to_json())),
            Err(error) => message(&error)?,
        }
    }
    reads_back(place, &composed)?;
    Ok(Outcome::Composed)
}

/// Every error says something, and not too much.
fn message(error: &Error) -> Result<(), String> {
    let text = error.to_string();
    if text.trim().is_empty() || text.len() > LONGEST_MESSAGE {
        return Err(format!("an error of {} bytes: {:.200}", text.len(), text));
    }
    Ok(())
}

/// A cell of a sweep is a command line that stands for itself.
fn sweep(overrides: &[String]) -> Result<(), String> {
    let cells = match expand_sweep(overrides) {
        Ok(cells) => cells,
        Err(error) => return message(&error),
    };
    for cell in cells.iter().take(2) {
        match expand_sweep(cell) {
            Ok(again) if again.len() == 1 => {}
            Ok(again) => return Err(format!("the cell {cell:?} gives {} cells", again.len())),
            Err(error) => return Err(format!("the cell {cell:?} is refused: {error}")),
        }
    }
    Ok(())
}

/// What is printed composes to the same values.
fn reads_back(place: &Place, composed: &Composed) -> Result<(), String> {
    let yaml = to_yaml(&composed.job);
    let special = |key: &str| composed.job.child(key).is_some();
    if special("defaults") || special("hydra") || composed.job.as_map().is_none() {
        return Ok(());
    }
    fs::write(place.again.path().join("config.yaml"), &yaml).expect("written");
    match compose(&request(place.again.path(), &[])) {
        Ok(again) if to_yaml(&again.job) == yaml => Ok(()),
        Ok(again) => Err(format!(
            "printed as\n{yaml}read back as\n{}",
            to_yaml(&again.job)
        )),
        Err(error) => Err(format!("printed as\n{yaml}refused with\n{error}")),
    }
}
