//! SQuAD v1.1 (Rajpurkar et al., 2016): articles of paragraphs of questions.
//! Every reference answer is kept, in the file's order, repeats included.

use std::sync::Arc;

use serde::Deserialize;

use super::error::{DataError, RowProblem};
use super::example::Example;
use super::fields::{Answers, Spec};
use super::formats::{Input, Source};

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// Reads the file; `row` of an example is the number of its question, from 1.
pub(super) fn open(spec: &Spec, input: Input) -> Result<Source, DataError> {
    let path = &spec.path;
    let file: File = serde_json::from_reader(input).map_err(|e| {
        if e.is_io() {
            DataError::io(path, e.into())
        } else {
            DataError::Format {
                path: path.to_path_buf(),
                what: format!("is not SQuAD v1.1 JSON: {e}"),
                remedy: "give the original file (data, paragraphs, qas), or set data.format"
                    .to_string(),
            }
        }
    })?;
    let spec = spec.clone();
    let mut number = 0;
    Ok(Box::new(
        file.data
            .into_iter()
            .flat_map(|article| {
                let title: Arc<str> = "title".into();
                article
                    .paragraphs
                    .into_iter()
                    .map(move |p| (title.clone(), article.title.clone(), p))
            })
            .flat_map(|(key, title, paragraph)| {
                let context: Arc<str> = paragraph.context.into();
                paragraph
                    .qas
                    .into_iter()
                    .map(move |q| (key.clone(), title.clone(), context.clone(), q))
            })
            .map(move |(key, title, context, q)| {
                number += 1;
                example(&spec, number, q, context, (key, title)).map_err(|problem| {
                    DataError::Question {
                        path: spec.path.to_path_buf(),
                        number,
                        problem,
                    }
                })
            }),
    ))
}

fn example(
    spec: &Spec,
    row: usize,
    question: Question,
    context: Arc<str>,
    title: (Arc<str>, String),
) -> Result<Example, RowProblem> {
    let answers: Vec<String> = question
        .answers
        .into_iter()
        .map(|a| a.text.trim().to_string())
        .filter(|a| !a.is_empty())
        .collect();
    if question.question.trim().is_empty() {
        return Err(RowProblem::EmptyField { field: "question" });
    }
    if answers.is_empty() && (question.is_impossible || spec.answers == Answers::Required) {
        return Err(RowProblem::NoField { field: "answer" });
    }
    Ok(Example {
        id: question.id,
        row,
        question: Some(question.question.trim().to_string()),
        context: Some(context),
        answers,
        fields: vec![title],
        ..Example::default()
    })
}
