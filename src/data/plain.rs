//! Plain text: one document a paragraph where the file has blank lines between
//! its lines, else one document a line.

use std::io::{BufRead, Seek, SeekFrom};

use super::error::DataError;
use super::example::Example;
use super::fields::Spec;
use super::formats::{Input, Lines, Source};

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

impl Iterator for Documents {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (row, mut text) = match self.lines.next_filled()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        if self.paragraphs {
            loop {
                match self.lines.next_line() {
                    Some(Ok((_, line))) if !line.trim().is_empty() => {
                        text.push('\n');
                        text.push_str(&line);
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(_)) | None => break,
                }
            }
        }
        Some(Ok(Example {
            row,
            text: Some(text),
            ..Example::default()
        }))
    }
}
