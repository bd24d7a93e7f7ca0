//! What the readers of all formats share: the file as bytes or lines, and the
//! examples they give.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::error::{DataError, MAX_ROW, RowProblem};
use super::example::Example;
use super::spec::Spec;
use crate::config::types::TaskKind;

pub(super) type Input = BufReader<File>;
pub(super) type Source = Box<dyn Iterator<Item = Result<Example, DataError>> + Send>;

/// Lines of bytes without their ends, with their numbers from 1; skips blank ones.
pub(super) struct Lines {
    input: Input,
    path: Arc<Path>,
    number: usize,
    /// Whether lines are rows of questions, which have a largest length.
    bounded: bool,
}

impl Lines {
    pub fn new(spec: &Spec, input: Input) -> Self {
        Self {
            input,
            path: spec.path.clone(),
            number: 0,
            bounded: spec.kind != TaskKind::Text,
        }
    }

    /// The next line with something on it.
    pub fn next_filled(&mut self) -> Option<Result<(usize, String), DataError>> {
        loop {
            match self.next_line()? {
                Ok((_, line)) if line.trim().is_empty() => {}
                item => return Some(item),
            }
        }
    }

    pub fn next_line(&mut self) -> Option<Result<(usize, String), DataError>> {
        let (mut bytes, mut rest) = (Vec::new(), 0);
        let read = match self.bounded {
            false => self.input.read_until(b'\n', &mut bytes),
            // The rest of a line that is too long is only counted.
            true => {
                let mut start = (&mut self.input).take(MAX_ROW as u64);
                match start.read_until(b'\n', &mut bytes) {
                    Ok(MAX_ROW) if !bytes.ends_with(b"\n") => {
                        self.input.skip_until(b'\n').map(|count| {
                            rest = count.saturating_sub(1);
                            MAX_ROW
                        })
                    }
                    read => read,
                }
            }
        };
        match read {
            Ok(0) => return None,
            Ok(_) => self.number += 1,
            Err(e) => return Some(Err(DataError::io(&self.path, e))),
        }
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        if self.bounded && bytes.len() >= MAX_ROW {
            let bytes = bytes.len() + rest;
            let problem = RowProblem::TooLong { bytes };
            return Some(Err(DataError::row(&self.path, self.number, problem)));
        }
        Some(match String::from_utf8(bytes) {
            Ok(line) => Ok((self.number, line)),
            Err(_) => Err(DataError::row(
                &self.path,
                self.number,
                RowProblem::Utf8Line { what: "the line" },
            )),
        })
    }
}
