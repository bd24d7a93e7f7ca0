//! Plain text: one document a paragraph where the file has blank lines between
//! its lines, else one document a line.

use std::io::{BufRead, Seek, SeekFrom};

use super::error::{DataError, RowProblem};
use super::example::Example;
use super::reader::{Input, Lines, Source};
use super::spec::Spec;

struct Documents {
    lines: Lines,
    paragraphs: bool,
}

/// Scans the file for blank lines once, then streams the documents.
pub(super) fn open(spec: &Spec, mut input: Input) -> Result<Source, DataError> {
    let io = |e| DataError::io(&spec.path, e);
    let start = input.stream_position().map_err(io)?;
    let paragraphs = has_paragraphs(&mut input).map_err(io)?;
    input.seek(SeekFrom::Start(start)).map_err(io)?;
    Ok(Box::new(Documents {
        lines: Lines::new(spec, input),
        paragraphs,
    }))
}

/// Whether a blank line lies between two lines with text.
fn has_paragraphs(input: &mut Input) -> std::io::Result<bool> {
    let mut line = Vec::new();
    let (mut text, mut gap) = (false, false);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        let blank = line.trim_ascii().is_empty();
        if !blank && gap {
            return Ok(true);
        }
        text |= !blank;
        gap = blank && text;
    }
}

impl Documents {
    /// The lines of the paragraph at hand behind its first one, to the blank line.
    fn rest(&mut self, text: &mut String) -> Result<(), DataError> {
        loop {
            match self.lines.next_line().transpose()? {
                Some((_, line)) if !line.trim().is_empty() => {
                    text.push('\n');
                    text.push_str(&line);
                }
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// The error of a paragraph with a bad line, read to its end: the lines behind the
    /// bad one are no document of their own.
    fn spoilt(&mut self, error: DataError) -> DataError {
        match error {
            DataError::Row { path, line, .. } => loop {
                match self.rest(&mut String::new()) {
                    Err(error) if error.is_of_one_row() => {}
                    Err(error) => return error,
                    Ok(()) => {
                        let what = "this line of a paragraph";
                        return DataError::row(&path, line, RowProblem::Utf8Line { what });
                    }
                }
            },
            other => other,
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = match self.lines.next_filled()? {
            Ok((row, mut text)) if self.paragraphs => self.rest(&mut text).map(|()| (row, text)),
            read => read,
        };
        Some(match read {
            Ok((row, text)) => Ok(Example {
                row,
                text: Some(text),
                ..Example::default()
            }),
            Err(error) if self.paragraphs => Err(self.spoilt(error)),
            Err(error) => Err(error),
        })
    }
}
