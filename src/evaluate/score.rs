//! A test set answered and scored by the metrics of its task.

use indexmap::{IndexMap, IndexSet};

use super::answer::{Answer, AnswerError, Questions};
use super::metrics;
use crate::config::types::{InferenceConfig, Metric, TaskKind};
use crate::data::example::{Example, option_letter};
use crate::generate::validate::chosen_option;
use crate::model::Decoder;

/// A model's answers with their scores, fractions 0-1 by metric name.
pub struct Scored {
    pub answers: Vec<Answer>,
    pub metrics: IndexMap<String, f64>,
}

/// Answers every question and scores the answers: multiple choice by ranking the
/// options, other questions by generation.
///
/// # Errors
/// A question that cannot be answered.
pub fn score(
    model: &mut Decoder,
    questions: &Questions<'_>,
    wanted: &[Metric],
    inference: &InferenceConfig,
    seed: u64,
    adapter: bool,
) -> Result<Scored, AnswerError> {
    let answers = if questions.kind == TaskKind::Mcq {
        let chosen = questions.rank_options(model, adapter, inference.batch_size)?;
        let letter = |i| Answer {
            text: option_letter(i).to_string(),
            valid: true,
            attempts: 1,
        };
        chosen.into_iter().map(letter).collect()
    } else {
        questions.generate(model, inference, seed, adapter, None)?
    };
    let metrics = wanted
        .iter()
        .filter_map(|metric| {
            let value = value(*metric, questions.examples, &answers)?;
            Some((metric_name(*metric).to_string(), value))
        })
        .collect();
    Ok(Scored { answers, metrics })
}

/// The metric of each question alone. `None` where a question has nothing to compare
/// with.
pub fn by_question(metric: Metric, examples: &[Example], answers: &[Answer]) -> Vec<Option<f64>> {
    let one = |i: usize| value(metric, &examples[i..=i], &answers[i..=i]);
    (0..examples.len().min(answers.len())).map(one).collect()
}

/// The metric's name in configs, summaries and tables.
pub fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::ExactMatch => "exact_match",
        Metric::ExactMatchIgnoreCase => "exact_match_ignore_case",
        Metric::F1 => "f1",
        Metric::WinRate => "win_rate",
    }
}

fn value(metric: Metric, examples: &[Example], answers: &[Answer]) -> Option<f64> {
    let pairs = examples.iter().zip(answers);
    match metric {
        Metric::Accuracy => metrics::mean(pairs.filter_map(|(example, answer)| {
            if example.options.is_empty() {
                // The answer is the label itself.
                return Some(metrics::exact_match(&answer.text, &references(example)));
            }
            let chosen = chosen_option(&answer.text, &example.options);
            Some(metrics::accuracy(chosen, example.answer_index?))
        })),
        Metric::ExactMatch => {
            metrics::mean(pairs.map(|(e, a)| metrics::exact_match(&a.text, &references(e))))
        }
        // Not ours to give: another model judges it.
        Metric::WinRate => None,
        Metric::ExactMatchIgnoreCase => metrics::mean(
            pairs.map(|(e, a)| metrics::exact_match_ignore_case(&a.text, &references(e))),
        ),
        Metric::F1 => metrics::mean(pairs.map(|(e, a)| metrics::f1(&a.text, &references(e)))),
    }
}

/// The reference answers, each once though several annotators gave it: for
/// multiple choice the right letter.
pub fn references(example: &Example) -> Vec<String> {
    match example.letter() {
        Some(letter) => vec![letter.to_string()],
        None => {
            let distinct: IndexSet<&String> = example.answers.iter().collect();
            distinct.into_iter().cloned().collect()
        }
    }
}
