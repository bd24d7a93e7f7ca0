//! The inputs of a training run: read and checked before anything is made.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::publish;
use super::resume::DataSize;
use super::scorer::SasModel;
use super::setup::{ModelUse, OUTPUTS, QuestionFile, Setup, questions};
use crate::config::types::{Config, TaskKind};
use crate::data::batch::Schedule as Plan;
use crate::data::pack::{Packs, packs};
use crate::data::split::split;
use crate::data::{Answers, Examples, Part, Samples, Store, Want};
use crate::model::Decoder;

/// All inputs, read and checked.
pub struct Ready {
    pub setup: Setup,
    pub data_path: PathBuf,
    pub train: Part,
    pub val: Part,
    /// Lines for the log: where the tokens are, what is not held out, what of the base
    /// is left out.
    pub notes: Vec<String>,
    pub truncated: usize,
    /// What was wrong with the rows of the training file that were left out.
    pub skipped: Vec<String>,
    largest_id: u32,
    /// The training samples that count as one example of a batch.
    pub packs: Packs,
    pub plan: Plan,
    pub test: Option<QuestionFile>,
    /// Held-out questions that are answered at every validation.
    pub sampled: Option<QuestionFile>,
    /// What compares the answers to both.
    pub sas: Option<SasModel>,
}

/// What was wrong with the rows of `path` that were left out.
pub(super) fn skipped_rows(path: &Path, store: &Store) -> Vec<String> {
    let rows = store.said.skipped.iter();
    rows.map(|what| format!("{}{what}", path.display()))
        .collect()
}

/// The questions in these rows of the training file, read once more.
fn of_rows(path: &Path, config: &Config, mut rows: HashSet<usize>) -> Result<QuestionFile, Error> {
    let want = Want::new(config.task.kind, Answers::Required);
    let mut found = Vec::with_capacity(rows.len());
    for example in Examples::open(path, &config.data, want)? {
        let example = example?;
        if rows.remove(&example.row) {
            found.push(example);
        }
        if rows.is_empty() {
            break;
        }
    }
    Ok(QuestionFile {
        path: path.to_path_buf(),
        examples: found,
        left_out: 0,
        skipped: Vec::new(),
    })
}

/// The questions that are asked after training; `None` where there are none.
///
/// # Errors
/// The file cannot be read as the task's questions.
pub(super) fn test_questions(config: &Config) -> Result<Option<QuestionFile>, Error> {
    match &config.data.test_path {
        Some(path) if config.task.kind != TaskKind::Text => {
            Ok(Some(questions(path, config, Answers::Required)?))
        }
        _ => Ok(None),
    }
}

/// # Errors
/// A question that a model with `vocab` tokens cannot be asked.
pub(super) fn check_questions(
    test: &QuestionFile,
    setup: &Setup,
    config: &Config,
    vocab: usize,
) -> Result<(), Error> {
    let encoder = setup.encoder(config)?;
    let questions = test.with(setup, &encoder, config)?;
    questions.check(vocab, config.task.kind == TaskKind::Mcq)?;
    Ok(())
}

impl Ready {
    /// # Errors
    /// The first input that cannot be used.
    pub fn new(config: &Config, use_of: ModelUse) -> Result<Self, Error> {
        publish::adapter_path(Path::new(OUTPUTS), &config.task.name)?;
        let setup = Setup::new(config, use_of)?;
        let path = config.data.path.as_ref();
        let path = path.ok_or(Error::Missing("data.path", "data/train.csv"))?;
        let encoder = setup.encoder(config)?;
        let tokenised = setup.tokenise(path, config, &encoder)?;
        let store = Arc::new(tokenised.store);
        encoder.refuse_unsupervised(store.briefs(), path)?;
        drop(encoder);
        let parts = split(&*store, config.training.val_ratio, config.seed);
        let part = |of: Vec<usize>| Part {
            store: store.clone(),
            of,
        };
        let (train, val) = (part(parts.train), part(parts.val));
        let t = &config.training;
        if let (true, Some(key)) = (val.is_empty(), t.need_validation().next()) {
            let path = path.clone();
            return Err(Error::NoValidation { key, path });
        }
        let mut notes = tokenised.notes;
        if t.val_ratio > 0.0 && val.is_empty() {
            notes.push(format!(
                "nothing is held out for validation: {} has one example, and its samples stay \
                 together",
                path.display()
            ));
        }
        let lengths: Vec<usize> = train.briefs().map(|s| s.tokens).collect();
        let packs = packs(&lengths, t, config.seed);
        let accumulation = t.gradient_accumulation_steps;
        let plan = Plan::new(
            packs.len(),
            t.batch_size,
            accumulation,
            t.epochs,
            t.max_steps,
        )?;
        let sampled = match t.eval_examples {
            0 => None,
            most => {
                let rows = val.briefs().take(most).map(|s| s.row).collect();
                Some(of_rows(path, config, rows)?)
            }
        };
        let test = test_questions(config)?;
        let sas = match (&test, &sampled) {
            (None, None) => None,
            _ => SasModel::find(config, use_of)?,
        };
        notes.extend(setup.arch.dropout_note());
        Ok(Self {
            setup,
            sas,
            data_path: path.clone(),
            train,
            val,
            truncated: store.said.report.truncated,
            skipped: skipped_rows(path, &store),
            largest_id: store.said.report.largest_id,
            notes,
            packs,
            plan,
            test,
            sampled,
        })
    }

    /// How much there is to train and validate on.
    pub fn data_size(&self) -> DataSize {
        let all = || self.train.briefs().chain(self.val.briefs());
        DataSize {
            samples: all().count(),
            tokens: all().map(|s| s.tokens as u64).sum(),
            supervised: all().map(|s| s.supervised as u64).sum(),
        }
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
            check_questions(test, &self.setup, config, vocab)?;
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
