//! JSON Lines: one object a line, keys as column names.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{DataError, RowProblem};
use super::example::Example;
use super::fields::{Cell, Layout};
use super::reader::{Input, Lines, Source};
use super::spec::Spec;

struct Rows {
    lines: Lines,
    objects: Objects,
}

/// JSON objects into examples.
pub(super) struct Objects {
    spec: Spec,
    /// The layout of the last row: most files have the same keys in every row.
    layout: Option<Layout>,
}

pub(super) fn open(spec: &Spec, input: Input) -> Source {
    Box::new(Rows {
        lines: Lines::new(spec, input),
        objects: Objects::new(spec),
    })
}

/// serde_json's message, without the line number it counts from our line.
pub(super) fn json_problem(error: &serde_json::Error) -> String {
    error
        .to_string()
        .replace(" at line 1 column ", " at column ")
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A list of scalars, or `{"text": [..], ..}` as Hugging Face's sets write
/// answers and choices, becomes a list; other nesting stays JSON.
fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::String(s) => Cell::Text(s),
        Value::Array(ref items) => match items.iter().map(scalar).collect() {
            Some(list) => Cell::List(list),
            None => Cell::Nested(value.to_string()),
        },
        Value::Object(ref map) => match map.get("text") {
            Some(Value::Array(items)) => match items.iter().map(scalar).collect() {
                Some(list) => Cell::List(list),
                None => Cell::Nested(value.to_string()),
            },
            _ => Cell::Nested(value.to_string()),
        },
        Value::Bool(_) | Value::Number(_) => Cell::Text(value.to_string()),
    }
}

impl Rows {
    fn example(&mut self, line: usize, text: &str) -> Result<Example, DataError> {
        let map: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
            DataError::row(
                self.objects.path(),
                line,
                RowProblem::Json(json_problem(&e)),
            )
        })?;
        self.objects.example(line, map)
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

impl Iterator for Rows {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.lines.next_filled()? {
            Ok((line, text)) => self.example(line, &text),
            Err(error) => Err(error),
        })
    }
}
