//! What can be wrong with a data file. Each message names the file and the
//! line, says what is wrong and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::compose::nearest;

/// A problem with a data set as a whole, or with one row of it.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("{path}: no such file: name one that exists", path = .0.display())]
    Missing(PathBuf),
    #[error("{path}: is a directory, not a file: name one data file inside it", path = .0.display())]
    Directory(PathBuf),
    #[error("{path}: cannot read: {error}: check that the file may be read", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {what}: add at least one example", path = path.display())]
    Empty { path: PathBuf, what: &'static str },
    #[error("{path}: {what}: {remedy}", path = path.display())]
    Format {
        path: PathBuf,
        what: String,
        remedy: String,
    },
    #[error("{path}:{line}: no column '{wanted}' for {field}: the columns are {columns}; {remedy}",
        path = path.display(), columns = list(columns))]
    Column {
        path: PathBuf,
        line: usize,
        field: &'static str,
        wanted: String,
        columns: Vec<String>,
        remedy: String,
    },
    #[error("{path}: question {number}: {problem}: SQuAD v1.1 has an answer to each question",
        path = path.display())]
    Question {
        path: PathBuf,
        number: usize,
        problem: RowProblem,
    },
    #[error(
        "{first}\n{} with data.on_error=skip: none of the {rows} rows can be used", path.display()
    )]
    NoneLeft {
        path: PathBuf,
        rows: usize,
        first: Box<DataError>,
    },
    #[error("{path}:{line}: {problem}", path = path.display())]
    Row {
        path: PathBuf,
        line: usize,
        problem: RowProblem,
    },
}

/// A row of questions and answers has fewer bytes. A longer one is a file that lost
/// its line ends, and would be tokenised whole only to be cut.
pub(crate) const MAX_ROW: usize = 1_000_000;

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum RowProblem {
    #[error(
        "{found} fields where the header has {header}: quote a field that holds the separator, a quote or a line end"
    )]
    Ragged { found: usize, header: usize },
    #[error(
        "a quote that opens in this row is never closed: close it, or write two for a quote in the text"
    )]
    OpenQuote,
    #[error(
        "text follows the quote that ends a field: write two quotes for a quote in a quoted field"
    )]
    StrayQuote,
    #[error("the row is a NUL byte: the file is damaged, write it again or remove the row")]
    Nul,
    #[error(
        "the row has {bytes} bytes, and a question with its answer has less than {MAX_ROW}: \
         look for a missing line end or quote, or cut the text"
    )]
    TooLong { bytes: usize },
    #[error("column '{column}' is not valid UTF-8: save the file as UTF-8")]
    Utf8 { column: String },
    #[error("{what} is not valid UTF-8: save the file as UTF-8")]
    Utf8Line { what: &'static str },
    #[error("bad JSON: {0}: write complete JSON objects, one a line or in one list")]
    Json(String),
    #[error("{field} (column '{column}') is {found}, not {wanted}")]
    Type {
        field: &'static str,
        column: String,
        found: &'static str,
        wanted: &'static str,
    },
    #[error("{field} is empty: fill it or remove the row")]
    EmptyField { field: &'static str },
    #[error("no {field}: fill it or remove the row")]
    NoField { field: &'static str },
    #[error(
        "cannot split the options '{text}' ({why}): write a JSON list, 'a | b | c', or 'A) ..' lines"
    )]
    Options { text: String, why: &'static str },
    #[error("option {letter} is empty: fill it or remove the row")]
    EmptyOption { letter: char },
    #[error("{0} options: a multiple-choice question needs 2 to 26")]
    OptionCount(usize),
    #[error(
        "answer '{answer}' matches no option (of {options}): write {number} or the option's text"
    )]
    NoSuchOption {
        answer: String,
        options: String,
        /// What may be written beside the text.
        number: &'static str,
    },
    #[error("answer '{answer}' can mean {meanings}: write the {name} of the option")]
    AmbiguousAnswer {
        answer: String,
        meanings: String,
        /// What tells options apart.
        name: &'static str,
    },
    #[error(
        "answer '0', but the columns of the options are numbered from 1: where answers count from 0, \
         rename the columns (option0, option1, ..), or write letters"
    )]
    ZeroOfOne,
    #[error(
        "column '{column}' names the task '{name}': {problem}, leave the cell empty, or answer all \
         questions with one adapter (adapter=DIR)"
    )]
    Task {
        name: String,
        column: String,
        /// Ends with the tasks that may be named.
        problem: String,
    },
    #[error("id '{id}' was used before, on line {first}: ids must differ")]
    DuplicateId { id: String, first: usize },
    #[error(
        "'{id}' is the id of one row and the number of another, which has no id and goes by its \
         number: give every row an id, or none"
    )]
    NumberAsId { id: String },
    #[error("{0}")]
    Tokens(String),
    #[error("{0}")]
    Chat(String),
}

impl DataError {
    /// Whether the rows after this one can still be read. A quote that is never
    /// closed has swallowed them.
    pub(crate) fn is_of_one_row(&self) -> bool {
        match self {
            // Answers that count from 0 are all off by one, those that fit too.
            DataError::Row { problem, .. } => {
                !matches!(problem, RowProblem::OpenQuote | RowProblem::ZeroOfOne)
            }
            // Of a JSON object: a table's header is read before its rows.
            DataError::Column { .. } | DataError::Question { .. } => true,
            _ => false,
        }
    }

    /// The error of failing to open or read `path`.
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => DataError::Missing(path.to_path_buf()),
            io::ErrorKind::IsADirectory => DataError::Directory(path.to_path_buf()),
            _ => DataError::Io {
                path: path.to_path_buf(),
                error,
            },
        }
    }

    pub(crate) fn row(path: &Path, line: usize, problem: RowProblem) -> Self {
        DataError::Row {
            path: path.to_path_buf(),
            line,
            problem,
        }
    }

    /// A missing column, with the override that maps the nearest one there is.
    pub(crate) fn column(
        path: &Path,
        line: usize,
        field: &'static str,
        wanted: &str,
        columns: &[String],
    ) -> Self {
        let remedy = match nearest(wanted, columns.iter().map(String::as_str)) {
            Some(near) => format!("if '{near}' is meant, set data.columns.{field}={near}"),
            None => format!("rename one, or set data.columns.{field}=COLUMN"),
        };
        DataError::Column {
            path: path.to_path_buf(),
            line,
            field,
            wanted: wanted.to_string(),
            columns: columns.to_vec(),
            remedy,
        }
    }
}

/// Names as `a, b, c`, or `none`.
pub(crate) fn list<T: fmt::Display>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_string();
    }
    names
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// At most `max` characters of `text`, for a message.
pub(crate) fn excerpt(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
