//! The inputs of a training run: read and checked before anything is made.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::publish;
use super::setup::{ModelUse, OUTPUTS, QuestionFile, Setup, questions};
use crate::config::types::{Config, TaskKind};
use crate::data::batch::Schedule as Plan;
use crate::data::encode::Sample;
use crate::data::pack::{Packs, packs};
use crate::data::split::split;
use crate::data::{Answers, DataError, Want, read_examples};
use crate::model::Decoder;

/// All inputs, read and checked.
pub struct Ready {
    pub setup: Setup,
    pub data_path: PathBuf,
    pub train: Vec<Sample>,
    pub val: Vec<Sample>,
    pub truncated: usize,
    /// What was wrong with the rows of the training file that were left out.
    pub skipped: Vec<DataError>,
    largest_id: u32,
    /// The training samples that count as one example of a batch.
    pub packs: Packs,
    pub plan: Plan,
    pub test: Option<QuestionFile>,
    /// Held-out questions that are answered at every validation.
    pub sampled: Option<QuestionFile>,
}

impl Ready {
    /// # Errors
    /// The first input that cannot be used.
    pub fn new(config: &Config, use_of: ModelUse) -> Result<Self, Error> {
        publish::adapter_path(Path::new(OUTPUTS), &config.task.name)?;
        let setup = Setup::new(config, use_of)?;
        let path = config.data.path.as_ref();
        let path = path.ok_or(Error::Missing("data.path", "data/train.csv"))?;
        let want = Want::new(config.task.kind, Answers::Required);
        let read = read_examples(path, &config.data, want)?;
        let examples = read.examples;
        let encoded = setup.encoder(config)?.encode(&examples, path)?;
        let parts = split(
            encoded.samples.len(),
            config.training.val_ratio,
            config.seed,
        );
        let mut samples: Vec<Option<Sample>> = encoded.samples.into_iter().map(Some).collect();
        let mut pick = |rows: Vec<usize>| -> Vec<Sample> {
            rows.into_iter().filter_map(|i| samples[i].take()).collect()
        };
        let (train, val) = (pick(parts.train), pick(parts.val));
        let t = &config.training;
        let lengths: Vec<usize> = train.iter().map(|s| s.input_ids.len()).collect();
        let packs = packs(&lengths, t, config.seed);
        let accumulation = t.gradient_accumulation_steps;
        let plan = Plan::new(
            packs.len(),
            t.batch_size,
            accumulation,
            t.epochs,
            t.max_steps,
        )?;
        let sampled = (t.eval_examples > 0).then(|| {
            let rows: Vec<usize> = val.iter().take(t.eval_examples).map(|s| s.row).collect();
            let of_rows = examples.into_iter().filter(|e| rows.contains(&e.row));
            QuestionFile {
                path: path.clone(),
                examples: of_rows.collect(),
                skipped: Vec::new(),
            }
        });
        let test = match &config.data.test_path {
            Some(path) if config.task.kind != TaskKind::Text => {
                Some(questions(path, config, Answers::Required)?)
            }
            _ => None,
        };
        Ok(Self {
            setup,
            data_path: path.clone(),
            train,
            val,
            truncated: encoded.report.truncated,
            skipped: read.skipped,
            largest_id: encoded.report.largest_id,
            packs,
            plan,
            test,
            sampled,
        })
    }

    /// # Errors
    /// Data or questions have tokens that the model does not have.
    pub fn check_vocabulary(&self, config: &Config, model: &Decoder) -> Result<(), Error> {
        let vocab = model.arch.vocab_size;
        if self.largest_id as usize >= vocab {
            return Err(Error::Vocabulary {
                path: self.data_path.clone(),
                id: self.largest_id,
                vocab,
            });
        }
        // Found now, not after an hour of training.
        if let Some(test) = &self.test {
            let encoder = self.setup.encoder(config)?;
            let questions = test.with(&self.setup, &encoder, config)?;
            questions.check(vocab, config.task.kind == TaskKind::Mcq)?;
        }
        Ok(())
    }

    /// Tokens of each prompt of a file of questions; `None` without one.
    ///
    /// # Errors
    /// A question that cannot be encoded.
    pub fn prompt_lengths(
        &self,
        file: Option<&QuestionFile>,
        config: &Config,
    ) -> Result<Option<Vec<usize>>, Error> {
        let Some(file) = file else {
            return Ok(None);
        };
        let encoder = self.setup.encoder(config)?;
        let questions = file.with(&self.setup, &encoder, config)?;
        Ok(Some(questions.prompt_lengths()?))
    }
}
