//! Why a job cannot start.

use std::path::{Path, PathBuf};

use crate::compose::{self, Origin};

use super::error::{ConfigError, ConfigErrors};

/// Why a job cannot start.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Compose(#[from] compose::Error),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Rerun(#[from] RerunErrors),
}

/// Problems of a config that is based on a saved one, with the way out where
/// they come from what was saved.
#[derive(Debug, thiserror::Error)]
#[error("{errors}{}", self.way_out())]
pub struct RerunErrors {
    errors: ConfigErrors,
    run: PathBuf,
}

impl RerunErrors {
    /// The problems of a rerun of `run`.
    pub fn new(errors: ConfigErrors, run: &Path) -> RerunErrors {
        let run = run.to_path_buf();
        RerunErrors { errors, run }
    }

    fn way_out(&self) -> String {
        let saved = |origin: &Origin| match origin {
            Origin::File { path, .. } => path.starts_with(&self.run),
            _ => false,
        };
        // A conflict says itself how it is solved, whatever version it comes from.
        let errors = self.errors.0.iter();
        let errors = errors.filter(|error| !matches!(error, ConfigError::Conflict { .. }));
        if !errors.filter_map(ConfigError::origin).any(saved) {
            return String::new();
        }
        format!(
            "\n{} was made with other keys than this version has: leave a key out with ~KEY, \
             or give it a value with KEY=VALUE",
            self.run.display()
        )
    }
}

/// Puts the way out of a rerun beside the problems of its config.
pub fn of_rerun(error: JobError, run: &Path) -> JobError {
    match error {
        JobError::Config(errors) => JobError::Rerun(RerunErrors::new(errors, run)),
        other => other,
    }
}
