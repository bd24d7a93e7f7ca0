//! Objects with keys as column names: JSON Lines, or one JSON list.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{DataError, MAX_ROW, RowProblem};
use super::example::Example;
use super::fields::{Cell, Layout};
use super::json_list::{Elements, ListError};
use super::options::{labelled, scalars};
use super::reader::{Input, Lines, Source};
use super::spec::Spec;
use crate::config::types::TaskKind;

/// JSON objects into examples.
pub(super) struct Objects {
    spec: Spec,
    /// The layout of the last row: most files have the same keys in every row.
    layout: Option<Layout>,
}

/// Opens `input`; examples are counted by line, or from 1 within a list.
///
/// # Errors
/// The file cannot be read.
pub(super) fn open(spec: &Spec, input: Input) -> Result<Source, DataError> {
    let mut rows = Objects::new(spec);
    let objects = objects(spec, input)?;
    Ok(Box::new(objects.map(move |row| {
        row.and_then(|(row, map)| rows.example(row, map))
    })))
}

type Row = Result<(usize, Map<String, Value>), DataError>;

/// The objects of JSON Lines with their lines, or those of one JSON list with their numbers
/// from 1.
///
/// # Errors
/// The file cannot be read.
pub(super) fn objects(
    spec: &Spec,
    mut input: Input,
) -> Result<Box<dyn Iterator<Item = Row> + Send>, DataError> {
    let path = Arc::clone(&spec.path);
    let head = input.fill_buf().map_err(|e| DataError::io(&path, e))?;
    if head.trim_ascii_start().first() == Some(&b'[') {
        let (bounded, mut row) = (spec.kind != TaskKind::Text, 0);
        return Ok(Box::new(Elements::new(input).map(move |item| {
            row += 1;
            let fail = |problem| DataError::row(&path, row, problem);
            let bytes = item.map_err(|error| match error {
                ListError::Io(error) => DataError::io(&path, error),
                ListError::What(what) => DataError::Format {
                    path: path.to_path_buf(),
                    what: format!("is not a JSON list of objects: {what}, at row {row}"),
                    remedy: "write a JSON list of objects, or one object a line".to_string(),
                },
            })?;
            if bounded && bytes.len() >= MAX_ROW {
                return Err(fail(RowProblem::TooLong { bytes: bytes.len() }));
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| fail(RowProblem::Utf8Line { what: "the row" }))?;
            let map = serde_json::from_str(&text);
            let map = map.map_err(|e: serde_json::Error| {
                let what = e.to_string();
                // It counts lines within the element.
                let what = what.split(" at line ").next().unwrap_or(&what);
                fail(RowProblem::Json(match text.trim().is_empty() {
                    true => "nothing between two commas, or behind the last one".to_string(),
                    false => what.to_string(),
                }))
            })?;
            Ok((row, map))
        })));
    }
    let mut lines = Lines::new(spec, input);
    Ok(Box::new(std::iter::from_fn(move || {
        Some(lines.next_filled()?.and_then(|(line, text)| {
            let map = serde_json::from_str(&text)
                .map_err(|e| DataError::row(&path, line, RowProblem::Json(json_problem(&e))));
            Ok((line, map?))
        }))
    })))
}

/// serde_json's message, without the line number it counts from our line.
pub(super) fn json_problem(error: &serde_json::Error) -> String {
    error
        .to_string()
        .replace(" at line 1 column ", " at column ")
}

/// A list of scalars becomes a list, and so does `{"text": [..], ..}`, as Hugging Face's sets
/// write answers and choices, with `label` where that is a list as long; other nesting stays JSON.
fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::String(s) => Cell::Text(s),
        Value::Array(_) => match scalars(&value) {
            Some(items) => Cell::List(items),
            None => Cell::Nested(value.to_string()),
        },
        Value::Object(_) => match (labelled(&value), value.get("text").and_then(scalars)) {
            (Some((texts, labels)), _) => Cell::Labelled { texts, labels },
            (None, Some(texts)) => Cell::List(texts),
            (None, None) => Cell::Nested(value.to_string()),
        },
        Value::Bool(_) | Value::Number(_) => Cell::Text(value.to_string()),
    }
}

impl Objects {
    pub fn new(spec: &Spec) -> Self {
        Self {
            spec: spec.clone(),
            layout: None,
        }
    }

    /// For rows that all have these columns.
    ///
    /// # Errors
    /// The task needs a column that is not there.
    pub fn of_columns(spec: &Spec, names: Vec<String>) -> Result<Self, DataError> {
        Ok(Self {
            spec: spec.clone(),
            layout: Some(Layout::new(spec, names, 1)?),
        })
    }

    /// Whether a column has a meaning of its own in the rows seen so far.
    pub fn uses(&self, column: &str) -> bool {
        self.layout.as_ref().is_some_and(|l| l.uses(column))
    }

    /// The file that the objects come from.
    pub fn path(&self) -> &Path {
        &self.spec.path
    }

    /// The example of the object in row `line`.
    pub fn example(&mut self, line: usize, map: Map<String, Value>) -> Result<Example, DataError> {
        let path = Arc::clone(&self.spec.path);
        let fail = |problem| DataError::row(&path, line, problem);
        let fits = self
            .layout
            .as_ref()
            .is_some_and(|l| map.keys().eq(l.names()));
        let layout = match self.layout.take().filter(|_| fits) {
            Some(layout) => layout,
            None => Layout::new(&self.spec, map.keys().cloned().collect(), line)?,
        };
        let layout = self.layout.insert(layout);
        let cells = map.into_iter().map(|(_, value)| cell(value)).collect();
        layout.example(&self.spec, line, cells).map_err(fail)
    }
}
