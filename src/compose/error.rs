//! Errors of composition. One error may hold several problems.

use std::borrow::Cow;
use std::fmt;

use super::node::Origin;

/// Nobody reads more problems than this; finding and explaining them costs time.
pub(crate) const MAX_PROBLEMS: usize = 100;
/// A longer line of a message loses its middle.
const MAX_LINE: usize = 1000;

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

impl Error {
    /// All problems of a stage, or the first of very many.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Error {
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            problems.truncate(MAX_PROBLEMS);
            problems.push(Problem::new(format!("and {more} more problems")));
        }
        Error { problems }
    }
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
        let origin = self.origin.as_ref().map(|origin| format!("{origin}: "));
        f.write_str(&readable(&origin.unwrap_or_default()))?;
        f.write_str(&readable(&self.message))?;
        if let Some(help) = &self.help {
            write!(f, "\n  {}", readable(help).replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

/// The text with the middle of its longest lines left out.
fn readable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_LINE {
        return Cow::Borrowed(text);
    }
    let lines: Vec<Cow<str>> = text
        .split('\n')
        .map(|line| {
            if line.len() <= MAX_LINE {
                return Cow::Borrowed(line);
            }
            let head = line.floor_char_boundary(MAX_LINE / 2);
            let tail = line.ceil_char_boundary(line.len() - MAX_LINE / 4);
            let left_out = tail - head;
            let (head, tail) = (&line[..head], &line[tail..]);
            Cow::Owned(format!("{head} .. ({left_out} bytes left out) .. {tail}"))
        })
        .collect();
    Cow::Owned(lines.join("\n"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn very_long_lines_lose_their_middle() {
        let problem = Problem::new(format!("a{}z\nb", "é".repeat(5000))).help("short");
        let text = problem.to_string();
        assert!(
            text.starts_with("aé") && text.ends_with("éz\nb\n  short"),
            "{text}"
        );
        assert!(
            text.contains("bytes left out") && text.len() < 1100,
            "{}",
            text.len()
        );
    }

    #[test]
    fn very_many_problems_are_counted() {
        let error = Error::new(vec![Problem::new("x"); 250]);
        assert_eq!(error.problems.len(), 101);
        assert!(error.to_string().ends_with("and 150 more problems"));
        assert_eq!(Error::new(vec![Problem::new("x"); 100]).problems.len(), 100);
    }
}
