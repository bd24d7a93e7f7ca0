//! The metrics on a few validation questions while a run trains
//! (`training.eval_examples`), and the file they go to.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::error::Error;
use super::fsx;
use super::scorer::Scorer;
use crate::evaluate::Questions;
use crate::model::Decoder;

const HEADER: &str = "step,epoch,metric,value\n";

/// The questions and `eval_metrics.csv`.
pub struct Sampled<'a> {
    questions: Questions<'a>,
    scorer: &'a Scorer<'a>,
    path: PathBuf,
    /// The whole file.
    text: String,
}

impl<'a> Sampled<'a> {
    /// Goes on with the file of a run that has `done` steps; later rows are dropped,
    /// since their steps come again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(
        questions: Questions<'a>,
        scorer: &'a Scorer<'a>,
        path: PathBuf,
        done: usize,
    ) -> Result<Self, Error> {
        let mut text = HEADER.to_string();
        if done > 0 && path.exists() {
            let before = fsx::read_to_string(&path)?;
            let step = |row: &str| row.split(',').next()?.parse::<usize>().ok();
            for row in before.lines().skip(1) {
                if step(row).is_some_and(|step| step <= done) {
                    text += row;
                    text += "\n";
                }
            }
        }
        Ok(Self {
            questions,
            scorer,
            path,
            text,
        })
    }

    /// Answers the questions, adds a row a metric and returns the metrics.
    ///
    /// # Errors
    /// A question that cannot be answered, or the file cannot be written.
    pub fn score(
        &mut self,
        model: &mut Decoder,
        step: usize,
        epoch: f64,
    ) -> Result<IndexMap<String, f64>, Error> {
        let scored = self.scorer.score(model, &self.questions, true)?;
        for (metric, value) in &scored.metrics {
            self.text += &format!("{step},{epoch:?},{metric},{value:?}\n");
        }
        fsx::write(&self.path, self.text.as_bytes())?;
        Ok(scored.metrics)
    }

    /// How many questions there are.
    pub fn len(&self) -> usize {
        self.questions.examples.len()
    }
}
