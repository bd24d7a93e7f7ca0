//! From the named cells of a row (a CSV record, a JSON object) to an example.

use std::sync::Arc;

use super::columns::{column, find, option_columns, refuse_doubles, refuse_shared};
use super::error::{DataError, RowProblem, list};
use super::example::Example;
use super::options::{
    Labels, finish_options, labelled, literal_list, parse_options, resolve_answer, trimmed,
};
use super::spec::{Answers, Spec, Tasks};
use crate::config::types::TaskKind;

/// One cell of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Missing,
    Text(String),
    List(Vec<String>),
    /// Texts, each with its label.
    Labelled {
        texts: Vec<String>,
        labels: Vec<String>,
    },
    /// Nested JSON, as text.
    Nested(String),
}

/// Which column holds which field.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    id: Option<usize>,
    question: Option<usize>,
    context: Option<usize>,
    text: Option<usize>,
    answer: Option<usize>,
    /// One column with all options, or one column an option.
    options: Vec<usize>,
    labels: Labels,
    /// The other columns, with their names.
    extras: Vec<(usize, Arc<str>)>,
    /// The column that names the task of a row.
    task: Option<usize>,
    /// The column that may say `mcq` or `saq`.
    kind: Option<usize>,
    /// `answers` in the plural may hold a list even in a CSV cell.
    plural: bool,
    names: Vec<String>,
}

impl Layout {
    /// Finds the fields that the task needs among the columns `names`.
    ///
    /// # Errors
    /// A field the task needs, or a column the config names, is not there, or
    /// two columns have one name.
    pub fn new(spec: &Spec, names: Vec<String>, line: usize) -> Result<Self, DataError> {
        refuse_doubles(spec, &names)?;
        let lookup = |field, needed| column(spec, &names, line, field, needed);
        let question_needed = spec.kind != TaskKind::Text;
        let answer_needed = question_needed && spec.answers == Answers::Required;
        let id = lookup("id", false)?;
        let question = lookup("question", question_needed)?;
        let context = lookup("context", false)?;
        let text = lookup("text", spec.kind == TaskKind::Text)?;
        let answer = lookup("answer", answer_needed)?;
        let (options, labels) = match spec.kind {
            _ if spec.by_row => match option_columns(spec, &names, line) {
                // A column that the config names must be there.
                Err(_) if !matches!(spec.columns.get("options"), Some(Some(_))) => {
                    (Vec::new(), Labels::None)
                }
                found => found?,
            },
            TaskKind::Mcq => option_columns(spec, &names, line)?,
            TaskKind::Saq | TaskKind::Text => (Vec::new(), Labels::None),
        };
        let fields = [
            ("id", id),
            ("question", question),
            ("context", context),
            ("text", text),
            ("answer", answer),
        ];
        let named = |field: &str| matches!(spec.columns.get(field), Some(Some(_)));
        let fields = fields.into_iter().filter(|(field, _)| named(field));
        let fields = fields.filter_map(|(field, at)| Some((at?, field)));
        refuse_shared(spec, &names, fields)?;
        let taken = |i: &usize| {
            [id, question, context, text, answer].contains(&Some(*i)) || options.contains(i)
        };
        let extras: Vec<(usize, Arc<str>)> = (0..names.len())
            .filter(|i| !taken(i))
            .map(|i| (i, Arc::from(names[i].as_str())))
            .collect();
        let own = |name: &str| find(&names, name).filter(|i| !taken(i));
        let (task, kind) = (own("task"), own("type"));
        let plural = answer.is_some_and(|i| names[i].eq_ignore_ascii_case("answers"));
        Ok(Self {
            id,
            question,
            context,
            text,
            answer,
            options,
            labels,
            extras,
            task,
            kind,
            plural,
            names,
        })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether `column` has a meaning of its own.
    pub fn uses(&self, column: &str) -> bool {
        !self.extras.iter().any(|(_, name)| **name == *column)
    }

    /// Makes an example of the cells of a row, which are as many as the columns.
    /// Its `id` is empty where the file has none.
    pub fn example(
        &self,
        spec: &Spec,
        row: usize,
        mut cells: Vec<Cell>,
    ) -> Result<Example, RowProblem> {
        let (kind, task) = match spec.by_row {
            true => self.task_of(spec, &cells)?,
            false => (spec.kind, None),
        };
        let mut out = Example {
            row,
            kind: spec.by_row.then_some(kind),
            task,
            ..Example::default()
        };
        if let Some(i) = self.id {
            out.id = trimmed(self.text_cell(&mut cells, i, "id")?.unwrap_or_default());
            if out.id.is_empty() {
                return Err(RowProblem::EmptyField { field: "id" });
            }
        }
        if let Some(i) = self.question {
            out.question = self
                .text_cell(&mut cells, i, "question")?
                .map(trimmed)
                .filter(|q| !q.is_empty());
            if out.question.is_none() && kind != TaskKind::Text {
                return Err(RowProblem::EmptyField { field: "question" });
            }
        }
        if let Some(i) = self.context {
            out.context = self.text_cell(&mut cells, i, "context")?.map(Arc::from);
        }
        if let Some(i) = self.text {
            out.text = self.text_cell(&mut cells, i, "text")?;
            if kind == TaskKind::Text && out.text.as_ref().is_none_or(|t| t.trim().is_empty()) {
                return Err(RowProblem::EmptyField { field: "text" });
            }
        }
        let mut labels = Labels::None;
        if kind == TaskKind::Mcq {
            (out.options, labels) = self.options(&mut cells)?;
        }
        if let Some(i) = self.answer {
            out.answers = self.answers(&mut cells, i)?;
        }
        if kind == TaskKind::Mcq {
            match &out.answers[..] {
                [] => {}
                [answer] => {
                    let index = resolve_answer(answer, &out.options, &labels)?;
                    out.answers = vec![out.options[index].clone()];
                    out.answer_index = Some(index);
                }
                _ => {
                    let column = self
                        .answer
                        .map(|i| self.names[i].clone())
                        .unwrap_or_default();
                    return Err(RowProblem::Type {
                        field: "answer",
                        column,
                        found: "a list of several",
                        wanted: "one option",
                    });
                }
            }
        }
        if out.answers.is_empty() && kind != TaskKind::Text && spec.answers == Answers::Required {
            return Err(RowProblem::EmptyField { field: "answer" });
        }
        for (i, name) in &self.extras {
            match std::mem::replace(&mut cells[*i], Cell::Missing) {
                Cell::Missing => {}
                Cell::Text(text) | Cell::Nested(text) => out.fields.push((name.clone(), text)),
                Cell::List(items) | Cell::Labelled { texts: items, .. } => {
                    out.fields.push((name.clone(), items.join(", ")))
                }
            }
        }
        Ok(out)
    }

    /// The task that a row of a mixed file belongs to: the one that its column `task`
    /// names; else of the kind in its column `type`, which may also mean something
    /// else; else multiple choice where it has options.
    fn task_of(
        &self,
        spec: &Spec,
        cells: &[Cell],
    ) -> Result<(TaskKind, Option<Arc<str>>), RowProblem> {
        let filled = |&i: &usize| match &cells[i] {
            Cell::Missing => false,
            Cell::Text(text) => !text.trim().is_empty(),
            Cell::List(items) | Cell::Labelled { texts: items, .. } => !items.is_empty(),
            Cell::Nested(_) => true,
        };
        if let (Some(i), Some(tasks)) = (self.task.filter(filled), &spec.tasks) {
            let Cell::Text(name) = &cells[i] else {
                return Err(RowProblem::Type {
                    field: "task",
                    column: self.names[i].clone(),
                    found: "a list or nested JSON",
                    wanted: "the name of a task",
                });
            };
            return named_task(tasks, name.trim(), &self.names[i]);
        }
        let named = self.kind.and_then(|i| match &cells[i] {
            Cell::Text(text) if text.trim().eq_ignore_ascii_case("mcq") => Some(TaskKind::Mcq),
            Cell::Text(text) if text.trim().eq_ignore_ascii_case("saq") => Some(TaskKind::Saq),
            _ => None,
        });
        let kind = named.unwrap_or(match self.options.iter().any(filled) {
            true => TaskKind::Mcq,
            false => TaskKind::Saq,
        });
        Ok((kind, None))
    }

    fn text_cell(
        &self,
        cells: &mut [Cell],
        i: usize,
        field: &'static str,
    ) -> Result<Option<String>, RowProblem> {
        let fail = |found| RowProblem::Type {
            field,
            column: self.names[i].clone(),
            found,
            wanted: "text",
        };
        match std::mem::replace(&mut cells[i], Cell::Missing) {
            Cell::Missing => Ok(None),
            Cell::Text(text) => Ok(Some(text)),
            Cell::List(_) | Cell::Labelled { .. } => Err(fail("a list")),
            Cell::Nested(_) => Err(fail("nested JSON")),
        }
    }

    /// The options, and how the data names them.
    fn options(&self, cells: &mut [Cell]) -> Result<(Vec<String>, Labels), RowProblem> {
        if let &[one] = &self.options[..] {
            let mut named = Labels::None;
            let options = match std::mem::replace(&mut cells[one], Cell::Missing) {
                Cell::Missing => Err(RowProblem::EmptyField { field: "options" }),
                Cell::Text(text) => match json_object(&text).as_ref().and_then(labelled) {
                    Some((texts, labels)) => {
                        named = Labels::Listed(labels);
                        finish_options(texts)
                    }
                    None => parse_options(&text),
                },
                Cell::List(items) => finish_options(items),
                Cell::Labelled { texts, labels } => {
                    named = Labels::Listed(labels);
                    finish_options(texts)
                }
                // A mapping from letters.
                Cell::Nested(json) => parse_options(&json),
            };
            return Ok((options?, named));
        }
        let mut options = Vec::with_capacity(self.options.len());
        for &i in &self.options {
            options.push(
                self.text_cell(cells, i, "options")?
                    .map(trimmed)
                    .unwrap_or_default(),
            );
        }
        // Rows may have fewer options than the widest one; gaps are an error.
        while options.last().is_some_and(String::is_empty) {
            options.pop();
        }
        Ok((finish_options(options)?, self.labels.clone()))
    }

    /// The answers, trimmed, none empty; no element where the cell is empty.
    fn answers(&self, cells: &mut [Cell], i: usize) -> Result<Vec<String>, RowProblem> {
        let items = match std::mem::replace(&mut cells[i], Cell::Missing) {
            Cell::Missing => return Ok(Vec::new()),
            Cell::Text(text) => {
                let text = trimmed(text);
                if text.is_empty() {
                    return Ok(Vec::new());
                }
                // A dict of Python or JSON, as tables made of SQuAD hold it.
                if self.plural && is_mapping(&text) {
                    return Err(RowProblem::Type {
                        field: "answer",
                        column: self.names[i].clone(),
                        found: "a dict",
                        wanted: "text or a list of texts",
                    });
                }
                let listed = self.plural && text.starts_with('[') && text.ends_with(']');
                match listed.then(|| literal_list(&text)).flatten() {
                    Some(items) => items,
                    None => vec![text],
                }
            }
            Cell::List(items) | Cell::Labelled { texts: items, .. } => items,
            Cell::Nested(_) => {
                return Err(RowProblem::Type {
                    field: "answer",
                    column: self.names[i].clone(),
                    found: "nested JSON",
                    wanted: "text or a list of texts",
                });
            }
        };
        let items: Vec<String> = items.into_iter().map(trimmed).collect();
        if items.iter().any(String::is_empty) {
            return Err(RowProblem::EmptyField { field: "answer" });
        }
        Ok(items)
    }
}

/// The object that a cell holds as JSON.
fn json_object(text: &str) -> Option<serde_json::Value> {
    let is_object = text.trim_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok())?
}

/// Whether a cell holds a dict with names in quotes.
fn is_mapping(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    inner.is_some_and(|inner| inner.trim_start().starts_with(['\'', '"']) && inner.contains(':'))
}

/// The task `name` among those that rows may name, with its kind of questions.
fn named_task(
    tasks: &Tasks,
    name: &str,
    column: &str,
) -> Result<(TaskKind, Option<Arc<str>>), RowProblem> {
    let found = tasks
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    let why = match found {
        Some((known, Ok(kind))) => return Ok((*kind, Some(known.clone()))),
        Some((_, Err(why))) => why.clone(),
        None => "there is no such task".to_string(),
    };
    let answering = tasks.iter().filter(|(_, kind)| kind.is_ok());
    let answering: Vec<_> = answering.map(|(known, _)| known).collect();
    Err(RowProblem::Task {
        name: name.to_string(),
        column: column.to_string(),
        problem: format!("{why}: write one of {}", list(&answering)),
    })
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
