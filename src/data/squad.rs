//! SQuAD v1.1 (Rajpurkar et al., 2016): articles of paragraphs of questions.
//! Every reference answer is kept, in the file's order, repeats included.

use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::{DataError, RowProblem};
use super::example::Example;
use super::json_list::{Elements, ListError};
use super::reader::{Input, Source};
use super::spec::{Answers, Spec};

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
    #[serde(default, deserialize_with = "id")]
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// Text, or a number as text; empty for null.
fn id<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    match Value::deserialize(input)? {
        Value::String(id) => Ok(id),
        Value::Number(id) => Ok(id.to_string()),
        Value::Null => Ok(String::new()),
        other => Err(D::Error::custom(format!(
            "the id {other} is neither text nor a number"
        ))),
    }
}

/// Opens the file, of which an article at a time is read; `row` of an example is the
/// number of its question, from 1.
pub(super) fn open(spec: &Spec, input: Input) -> Source {
    let spec = spec.clone();
    let title: Arc<str> = "title".into();
    let (mut articles, mut questions) = (0, 0);
    let read = move |item: Result<Vec<u8>, ListError>| {
        articles += 1;
        let article = article(&spec, articles, item)?;
        let mut examples = Vec::new();
        for paragraph in article.paragraphs {
            let context: Arc<str> = paragraph.context.into();
            for question in paragraph.qas {
                questions += 1;
                let field = (title.clone(), article.title.clone());
                let found = example(&spec, questions, question, context.clone(), field);
                examples.push(found.map_err(|problem| DataError::Question {
                    path: spec.path.to_path_buf(),
                    number: questions,
                    problem,
                }));
            }
        }
        Ok(examples)
    };
    let articles = Elements::under("data", input).map(read);
    Box::new(articles.flat_map(|read| read.unwrap_or_else(|error| vec![Err(error)])))
}

fn article(
    spec: &Spec,
    number: usize,
    item: Result<Vec<u8>, ListError>,
) -> Result<Article, DataError> {
    let bad = |what: String| DataError::Format {
        path: spec.path.to_path_buf(),
        what: format!("is not SQuAD v1.1 JSON: {what}"),
        remedy: "give the original file (data, paragraphs, qas), or set data.format".to_string(),
    };
    let bytes = item.map_err(|error| match error {
        ListError::Io(error) => DataError::io(&spec.path, error),
        ListError::What(what) => bad(what.to_string()),
    })?;
    serde_json::from_slice(&bytes).map_err(|e| bad(format!("article {number}: {e}")))
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
    if answers.is_empty() && spec.answers == Answers::Required {
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
