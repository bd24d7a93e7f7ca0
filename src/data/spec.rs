//! What a reader is told of the task whose rows it reads.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::config::types::TaskKind;

/// Whether a row without an answer is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Training and scoring.
    Required,
    /// Prediction.
    Optional,
}

/// The tasks that rows of a mixed file may name: of which kind each one's questions
/// are, or why it has none.
pub type Tasks = IndexMap<Arc<str>, Result<TaskKind, String>>;

/// What a reader needs to know of the task.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub path: Arc<Path>,
    pub kind: TaskKind,
    /// Each row says by itself whether it is multiple choice.
    pub by_row: bool,
    /// What a column `task` may say.
    pub tasks: Option<Arc<Tasks>>,
    pub answers: Answers,
    /// Field name -> column name, where they differ.
    pub columns: IndexMap<String, Option<String>>,
}
