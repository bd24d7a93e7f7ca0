//! The inputs of a training run: read and checked before anything is made.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::publish;
use super::setup::{ModelUse, OUTPUTS, QuestionFile, Setup, questions};
use crate::config::types::{Config, TaskKind};
use crate::data::Answers;
use crate::data::batch::Schedule as Plan;
use crate::data::encode::Sample;
use crate::data::formats::read_examples;
use crate::data::split::split;
use crate::model::Decoder;

/// All inputs, read and checked.
pub struct Ready {
    pub setup: Setup,
    pub data_path: PathBuf,
    pub train: Vec<Sample>,
    pub val: Vec<Sample>,
    pub truncated: usize,
    largest_id: u32,
    pub plan: Plan,
    pub test: Option<QuestionFile>,
}

impl Ready {
    /// # Errors
    /// The first input that cannot be used.
    pub fn new(config: &Config, use_of: ModelUse) -> Result<Self, Error> {
        publish::adapter_path(Path::new(OUTPUTS), &config.task.name)?;
        let setup = Setup::new(config, use_of)?;
        let path = config.data.path.as_ref();
        let path = path.ok_or(Error::Missing("data.path", "data/train.csv"))?;
        let examples = read_examples(path, &config.data, config.task.kind, Answers::Required)?;
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
        let accumulation = t.gradient_accumulation_steps;
        let plan = Plan::new(
            train.len(),
            t.batch_size,
            accumulation,
            t.epochs,
            t.max_steps,
        )?;
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
            largest_id: encoded.report.largest_id,
            plan,
            test,
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

    /// Tokens of each prompt of the test set; `None` without one.
    ///
    /// # Errors
    /// A question that cannot be encoded.
    pub fn test_lengths(&self, config: &Config) -> Result<Option<Vec<usize>>, Error> {
        let Some(test) = &self.test else {
            return Ok(None);
        };
        let encoder = self.setup.encoder(config)?;
        let questions = test.with(&self.setup, &encoder, config)?;
        Ok(Some(questions.prompt_lengths()?))
    }
}
