//! What was asked and answered, kept beside the output while it grows: one line an
//! abstract, so that a run that was killed goes on without asking again.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::experiment::error::SynthError;
use crate::experiment::lines::Lines;
use crate::synth::{Pair, Verdict};

/// What became of one abstract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The abstract's content, hashed: the file may be sorted anew or grow.
    pub text: String,
    pub pairs: Vec<Pair>,
    /// What the review said of each pair; `None` before it.
    pub review: Option<Vec<Verdict>>,
    /// Pairs beyond those that were asked for.
    pub surplus: usize,
    /// Why replies could not be used.
    pub malformed: Vec<String>,
    /// Why the review could not be used, after the last attempt.
    pub no_review: Option<String>,
    pub requests: usize,
    /// The limits that it was asked under: what failed is asked again under larger ones.
    pub max_attempts: usize,
    pub max_tokens: usize,
}

/// A journal that lines are added to.
pub(super) struct Journal {
    path: PathBuf,
    lines: Lines,
    entries: HashMap<String, Entry>,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. `settings` are those that the
    /// replies depend on.
    ///
    /// # Errors
    /// It was begun with other settings, is damaged, or cannot be written.
    pub fn open(path: &Path, settings: &Value) -> Result<Self, SynthError> {
        let (lines, mut file) = Lines::open(path)?;
        let wrong = |line: usize, error| SynthError::Journal {
            path: path.to_path_buf(),
            line,
            error,
        };
        match lines.first() {
            None => file.add(settings)?,
            Some(first) => {
                let theirs = serde_json::from_str(first).map_err(|e| wrong(1, e))?;
                check(path, &theirs, settings)?;
            }
        }
        let mut entries = HashMap::new();
        for (i, line) in lines.iter().enumerate().skip(1) {
            let entry: Entry = serde_json::from_str(line).map_err(|e| wrong(i + 1, e))?;
            entries.insert(entry.text.clone(), entry);
        }
        Ok(Self {
            path: path.to_path_buf(),
            lines: file,
            entries,
        })
    }

    /// Removes a journal in which nothing stands but the settings.
    pub fn remove_if_empty(&self) {
        if self.entries.is_empty() {
            // One that stays does no harm: nobody was asked.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// How often anyone was asked, in this run and before it.
    pub fn requests(&self) -> usize {
        self.entries.values().map(|entry| entry.requests).sum()
    }

    /// What is known of an abstract.
    pub fn entry(&self, text: &str) -> Option<&Entry> {
        self.entries.get(text)
    }

    /// Adds a line, which is on the disk when this returns.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, entry: Entry) -> Result<(), SynthError> {
        let line = serde_json::to_value(&entry).map_err(|error| SynthError::Journal {
            path: self.path.clone(),
            line: self.entries.len() + 2,
            error,
        })?;
        self.lines.add(&line)?;
        self.entries.insert(entry.text.clone(), entry);
        Ok(())
    }
}

/// Whether the journal was begun with these settings.
fn check(path: &Path, theirs: &Value, ours: &Value) -> Result<(), SynthError> {
    let mut ours = ours.as_object().into_iter().flatten();
    match ours.find(|(key, value)| theirs.get(key.as_str()) != Some(*value)) {
        None => Ok(()),
        Some((key, value)) => Err(SynthError::OtherSettings {
            path: path.to_path_buf(),
            key: key.clone(),
            was: theirs.get(key).unwrap_or(&Value::Null).to_string(),
            is: value.to_string(),
        }),
    }
}
