//! CSV (RFC 4180) and TSV. TSV is read as GLUE's files are written: without quoting.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::error::{DataError, MAX_ROW, RowProblem};
use super::example::Example;
use super::fields::{Cell, Layout};
use super::reader::{Input, Source};
use super::spec::Spec;
use crate::config::types::TaskKind;

/// Put after the file: its record marks the end, and a field that holds it was
/// opened by a quote that nothing closed. The file may hold the same bytes, so they
/// count only where nothing follows.
const END: &[u8] = b"\n\0\n";

/// Records with the true line they start on. The csv crate's own position is that
/// of the end of the record before, which blank lines and `\r\n` put off.
struct Records {
    reader: csv::Reader<Quotes<Input>>,
    record: ByteRecord,
}

struct Rows {
    records: Records,
    layout: Layout,
    spec: Spec,
}

/// Reads the header and gives the rows. `row` of an example is the line it starts on.
pub(super) fn open(spec: &Spec, mut input: Input, separator: u8) -> Result<Source, DataError> {
    let head = input.fill_buf().map_err(|e| DataError::io(&spec.path, e))?;
    let inner = &head[..head.len().saturating_sub(1)];
    if inner.contains(&b'\r') && !head.contains(&b'\n') {
        return Err(DataError::Format {
            path: spec.path.to_path_buf(),
            what: "its lines end in carriage returns alone (CR)".to_string(),
            remedy: "write it with line feeds, e.g. tr '\\r' '\\n' < FILE > NEW".to_string(),
        });
    }
    let reader = ReaderBuilder::new()
        .delimiter(separator)
        .quoting(separator != b'\t')
        .terminator(Terminator::Any(b'\n'))
        .flexible(true)
        .has_headers(false)
        .from_reader(Quotes::new(input, separator));
    let mut records = Records {
        reader,
        record: ByteRecord::new(),
    };
    let line = records.advance(spec)?.unwrap_or(1);
    let end = records.reader.position().byte();
    if records.reader.get_mut().take_stray(end) {
        return Err(DataError::row(&spec.path, line, RowProblem::StrayQuote));
    }
    let mut names = Vec::with_capacity(records.record.len());
    for (i, field) in records.record.iter().enumerate() {
        let column = || format!("{} of the header", i + 1);
        let name = utf8(field, column).map_err(|p| DataError::row(&spec.path, line, p))?;
        names.push(name.trim().to_string());
    }
    let layout = Layout::new(spec, names, line)?;
    Ok(Box::new(Rows {
        records,
        layout,
        spec: spec.clone(),
    }))
}

/// A field in quotes that goes on for so many bytes was never closed; reading on would
/// take the rest of the file into memory.
const ENDLESS: u64 = 64 << 20;

/// Watches the bytes on their way to the csv crate, which takes text after a closing
/// quote into the field without a word.
struct Quotes<R> {
    inner: R,
    /// What is left of [`END`], and the bytes given so far, it included.
    end: &'static [u8],
    given: u64,
    separator: u8,
    state: Quoting,
    offset: u64,
    /// Where the quoted field at hand began, and whether it is [`ENDLESS`].
    opened: u64,
    endless: bool,
    /// Offsets of bytes that follow a closing quote and may not.
    stray: VecDeque<u64>,
}

/// Where the byte before stood, by the rules of csv-core.
#[derive(Clone, Copy, PartialEq)]
enum Quoting {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote in a quoted field: the end, or the first of two.
    QuoteInQuoted,
    /// Files without quoting.
    Off,
}

impl<R: Read> Quotes<R> {
    fn new(inner: R, separator: u8) -> Self {
        let state = match separator {
            b'\t' => Quoting::Off,
            _ => Quoting::FieldStart,
        };
        Self {
            inner,
            end: END,
            given: 0,
            separator,
            state,
            offset: 0,
            opened: 0,
            endless: false,
            stray: VecDeque::new(),
        }
    }

    fn see(&mut self, byte: u8) {
        let ends = byte == self.separator || byte == b'\n';
        if self.state == Quoting::FieldStart {
            self.opened = self.offset;
        }
        self.state = match (self.state, byte) {
            (Quoting::Off, _) => return,
            (Quoting::Quoted, b'"') => Quoting::QuoteInQuoted,
            (Quoting::Quoted, _) => Quoting::Quoted,
            (Quoting::FieldStart, b'"') | (Quoting::QuoteInQuoted, b'"') => Quoting::Quoted,
            _ if ends => Quoting::FieldStart,
            // Of a line end, or before one; the field takes it as the csv crate does.
            (Quoting::QuoteInQuoted, b'\r') => Quoting::Plain,
            (Quoting::QuoteInQuoted, _) => {
                self.stray.push_back(self.offset);
                Quoting::Plain
            }
            _ => Quoting::Plain,
        };
        self.offset += 1;
    }

    /// Whether nothing follows the byte before `end`.
    fn is_over(&self, end: u64) -> bool {
        self.end.is_empty() && end == self.given
    }

    /// Whether there was a wrong byte before `end`; forgets it.
    fn take_stray(&mut self, end: u64) -> bool {
        let mut found = false;
        while self.stray.front().is_some_and(|at| *at < end) {
            self.stray.pop_front();
            found = true;
        }
        found
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.state == Quoting::Quoted && self.offset - self.opened > ENDLESS {
            self.endless = true;
            return Err(io::Error::other("a quote is never closed"));
        }
        let mut count = self.inner.read(buffer)?;
        if count == 0 {
            count = self.end.read(buffer)?;
        }
        self.given += count as u64;
        if self.state != Quoting::Off {
            buffer[..count].iter().for_each(|&byte| self.see(byte));
        }
        Ok(count)
    }
}

impl Records {
    /// Reads the next record that is not blank; its line, or `None` at the end.
    fn advance(&mut self, spec: &Spec) -> Result<Option<usize>, DataError> {
        loop {
            let begin = self.reader.position().line();
            match self.reader.read_byte_record(&mut self.record) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if self.reader.get_ref().endless => {
                    let line = begin as usize;
                    return Err(DataError::row(&spec.path, line, RowProblem::OpenQuote));
                }
                Err(error) => return Err(csv_error(spec, error)),
            }
            let inner = self
                .record
                .as_slice()
                .iter()
                .filter(|b| **b == b'\n')
                .count();
            let line = (self.reader.position().line() as usize).saturating_sub(inner);
            let over = self.reader.get_ref().is_over(self.reader.position().byte());
            let alone = self.record.len() == 1;
            match self.record.get(self.record.len().saturating_sub(1)) {
                Some([0]) if alone && over => return Ok(None),
                Some(last) if over && last.ends_with(END) => {
                    return Err(DataError::row(&spec.path, line, RowProblem::OpenQuote));
                }
                Some(last) if alone && last.trim_ascii().is_empty() => {}
                // Every record but that one ends with a line end of its own.
                Some([0] | [0, b'\r']) if alone => {
                    let line = line.saturating_sub(1);
                    return Err(DataError::row(&spec.path, line, RowProblem::Nul));
                }
                _ => return Ok(Some(line.saturating_sub(1))),
            }
        }
    }

    /// The fields of the current record, without the `\r` of a `\r\n`.
    fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let last = self.record.len().saturating_sub(1);
        self.record.iter().enumerate().map(move |(i, f)| match f {
            [inner @ .., b'\r'] if i == last => inner,
            _ => f,
        })
    }
}

fn csv_error(spec: &Spec, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => DataError::io(&spec.path, e),
        other => DataError::Format {
            path: spec.path.to_path_buf(),
            what: format!("cannot be read as CSV ({other:?})"),
            remedy: "check the separators and quotes".to_string(),
        },
    }
}

fn utf8(field: &[u8], column: impl Fn() -> String) -> Result<&str, RowProblem> {
    std::str::from_utf8(field).map_err(|_| RowProblem::Utf8 { column: column() })
}

impl Rows {
    fn example(&mut self, line: usize) -> Result<Example, RowProblem> {
        let end = self.records.reader.position().byte();
        if self.records.reader.get_mut().take_stray(end) {
            return Err(RowProblem::StrayQuote);
        }
        let bytes = self.records.record.as_slice().len();
        if bytes >= MAX_ROW && self.spec.kind != TaskKind::Text {
            return Err(RowProblem::TooLong { bytes });
        }
        let names = self.layout.names();
        let found = self.records.record.len();
        if found != names.len() {
            return Err(RowProblem::Ragged {
                found,
                header: names.len(),
            });
        }
        let mut cells = Vec::with_capacity(names.len());
        for (field, name) in self.records.fields().zip(names) {
            cells.push(Cell::Text(utf8(field, || name.clone())?.to_string()));
        }
        self.layout.example(&self.spec, line, cells)
    }
}

impl Iterator for Rows {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = Arc::clone(&self.spec.path);
        match self.records.advance(&self.spec) {
            Ok(Some(line)) => Some(
                self.example(line)
                    .map_err(|p| DataError::row(&path, line, p)),
            ),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
