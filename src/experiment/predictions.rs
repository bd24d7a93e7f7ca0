//! predictions.csv: one row a question.

use std::path::Path;

use super::error::Error;
use super::fsx;
use crate::data::example::Example;
use crate::evaluate::{Answer, references};

/// Writes `id,question,prediction,reference,valid,attempts`, atomically. Several
/// reference answers are joined by ` | `.
///
/// # Errors
/// The file cannot be written.
pub fn write<'a>(
    path: &Path,
    examples: impl IntoIterator<Item = &'a Example>,
    answers: &[Answer],
) -> Result<(), Error> {
    let fail = |error| Error::Csv {
        path: path.to_path_buf(),
        error,
    };
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "id",
        "question",
        "prediction",
        "reference",
        "valid",
        "attempts",
    ])
    .map_err(fail)?;
    for (example, answer) in examples.into_iter().zip(answers) {
        out.write_record([
            example.id.as_str(),
            example.question.as_deref().unwrap_or_default(),
            answer.text.as_str(),
            references(example).join(" | ").as_str(),
            if answer.valid { "true" } else { "false" },
            answer.attempts.to_string().as_str(),
        ])
        .map_err(fail)?;
    }
    let bytes = out.into_inner().map_err(|e| fail(e.into_error().into()))?;
    Ok(fsx::write(path, &bytes)?)
}
