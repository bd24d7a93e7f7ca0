//! Errors of composition. One error may hold several problems.

use std::fmt;

use super::node::Origin;

/// One thing that is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub message: String,
    /// Where it was written, when it is known.
    pub origin: Option<Origin>,
    /// What to do.
    pub help: Option<String>,
    pub(crate) cause: Cause,
}

/// Whether a problem may be only the consequence of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It stands by itself.
    Own,
    /// Something is not there, which a config that could not be read may have brought.
    Absent,
    /// The same, but the name is near to one that is there.
    AbsentNear,
}

/// Everything found wrong with a request, in the order it was found.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    pub problems: Vec<Problem>,
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            origin: None,
            help: None,
            cause: Cause::Own,
        }
    }

    /// Says where the problem was written.
    pub fn at(mut self, origin: &Origin) -> Problem {
        self.origin = Some(origin.clone());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn caused_by(mut self, cause: Cause) -> Problem {
        self.cause = cause;
        self
    }
}

/// Leaves each problem once: one file may stand in several defaults lists, one value
/// may be wanted by several keys.
pub(crate) fn drop_repeated(problems: &mut Vec<Problem>) {
    let mut seen = std::collections::HashSet::new();
    problems.retain(|problem| seen.insert(problem.to_string()));
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  {}", help.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.problems.len() > 1 {
            writeln!(f, "{} problems:", self.problems.len())?;
        }
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
