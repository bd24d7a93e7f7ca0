//! Ready tokens: JSONL rows with `input_ids` and `labels`, taken as they are.

use serde::Deserialize;
use serde_json::Value;

use super::error::{DataError, RowProblem};
use super::example::{Example, TokenRow};
use super::jsonl::json_problem;
use super::reader::{Input, Lines, Source};
use super::spec::Spec;

struct Rows {
    lines: Lines,
    spec: Spec,
}

/// What a row may hold; other keys are ignored.
#[derive(Deserialize)]
struct Row {
    input_ids: Option<Vec<u32>>,
    labels: Option<Vec<i64>>,
    attention_mask: Option<Vec<u8>>,
    id: Option<Value>,
}

pub(super) fn open(spec: &Spec, input: Input) -> Source {
    Box::new(Rows {
        lines: Lines::new(spec, input),
        spec: spec.clone(),
    })
}

fn parse(line: usize, text: &str) -> Result<Example, RowProblem> {
    let row = serde_json::from_str(text).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => no_tokens(&e),
        _ => RowProblem::Json(json_problem(&e)),
    })?;
    finish(line, row)
}

/// The example of a row that is JSON already.
pub(super) fn example(line: usize, row: Value) -> Result<Example, RowProblem> {
    let row = serde_json::from_value(row).map_err(|e| no_tokens(&e))?;
    finish(line, row)
}

fn no_tokens(error: &serde_json::Error) -> RowProblem {
    RowProblem::Tokens(format!(
        "{}: input_ids are whole numbers from 0, labels whole numbers from 0 or -100",
        json_problem(error)
    ))
}

fn finish(line: usize, row: Row) -> Result<Example, RowProblem> {
    let bad = |what: String| RowProblem::Tokens(what);
    let mut input_ids = row
        .input_ids
        .ok_or_else(|| bad("no input_ids: add them to the row".to_string()))?;
    let mut labels = row.labels.ok_or_else(|| {
        bad("no labels: add a list as long as input_ids, -100 = not supervised".to_string())
    })?;
    let n = input_ids.len();
    if n == 0 {
        return Err(bad("input_ids is empty: remove the row".to_string()));
    }
    if labels.len() != n {
        return Err(bad(format!(
            "{} labels for {n} input_ids: write one label a token",
            labels.len()
        )));
    }
    if let Some((at, label)) = labels
        .iter()
        .enumerate()
        .find(|(_, l)| **l != -100 && u32::try_from(**l).is_err())
    {
        return Err(bad(format!(
            "label {label} at position {at}: write a token id, or -100 for not supervised"
        )));
    }
    // Padding on the right carries nothing: batches are padded afresh.
    if let Some(mask) = row.attention_mask {
        let kept = mask.iter().take_while(|m| **m == 1).count();
        if mask.len() != n || kept == 0 || mask[kept..].iter().any(|m| *m != 0) {
            return Err(bad(
                "attention_mask must be as long as input_ids, ones and then zeros: remove it"
                    .to_string(),
            ));
        }
        input_ids.truncate(kept);
        labels.truncate(kept);
    }
    let id = match row.id {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        _ => String::new(),
    };
    Ok(Example {
        id,
        row: line,
        tokens: Some(TokenRow { input_ids, labels }),
        ..Example::default()
    })
}

impl Iterator for Rows {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.lines.next_filled()? {
            Ok((line, text)) => {
                parse(line, &text).map_err(|p| DataError::row(&self.spec.path, line, p))
            }
            Err(error) => Err(error),
        })
    }
}
