//! Composition and the schema together: what each finds wrong is told at once.

use crate::compose::{Composed, Error, Node, Problem, Request, compose_partly};

use super::check::{Strictness, check};
use super::error::{ConfigError, ConfigErrors};
use super::job_error::JobError;

/// Composes the config of a job.
///
/// # Errors
/// Everything that keeps it from being composed, and what the schema finds wrong
/// in what could be composed.
pub fn compose_checked(request: &Request) -> Result<Composed, JobError> {
    match compose_partly(request) {
        (Some(composed), problems) if problems.is_empty() => Ok(composed),
        (Some(composed), problems) => {
            Err(with_schema(problems, &composed.job, Strictness::Printable))
        }
        (None, problems) => Err(Error { problems }.into()),
    }
}

/// The config of a job with its interpolations resolved.
///
/// # Errors
/// Every interpolation that cannot be resolved, and what the schema finds wrong
/// with the other values.
pub(super) fn resolve_checked(composed: &Composed) -> Result<Node, JobError> {
    composed
        .resolved_job()
        .map_err(|error| with_schema(error.problems, &composed.job, Strictness::Unresolved))
}

fn with_schema(problems: Vec<Problem>, tree: &Node, strictness: Strictness) -> JobError {
    let schema = check(tree, strictness);
    if schema.is_empty() {
        return Error { problems }.into();
    }
    let problems = problems.into_iter().map(ConfigError::Composition);
    ConfigErrors(problems.chain(schema).collect()).into()
}
