//! Scores of a model on a test set by all that the config asks for: the task's metrics
//! and, with a sentence encoder (`evaluate.sas_model`), semantic answer similarity.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::config::types::Config;
use crate::embed::{EmbedError, SentenceEncoder};
use crate::evaluate::{Questions, Scored, score, similarity};
use crate::hub::{self, HubError, Needs};
use crate::model::Decoder;

const SAS_MODEL: &str = "evaluate.sas_model";

/// What a job scores with. The encoder's weights are read when they are first needed.
pub struct Scorer<'a> {
    config: &'a Config,
    sas: Option<PathBuf>,
    encoder: OnceCell<SentenceEncoder>,
}

impl<'a> Scorer<'a> {
    /// Finds the sentence encoder, or fetches it, and checks that it can be used.
    ///
    /// # Errors
    /// It cannot.
    pub fn new(config: &'a Config) -> Result<Self, Error> {
        let sas = match &config.evaluate.sas_model {
            Some(model) => Some(encoder_dir(model)?),
            None => None,
        };
        Ok(Self {
            config,
            sas,
            encoder: OnceCell::new(),
        })
    }

    /// A line for the log about what scores besides the task's metrics.
    pub fn note(&self) -> Option<String> {
        let dir = self.sas.as_ref()?;
        Some(format!(
            "semantic answer similarity (sas) by {}",
            dir.display()
        ))
    }

    /// Answers the questions with the base or its adapter and scores the answers.
    ///
    /// # Errors
    /// A question that cannot be answered, or an answer that cannot be scored.
    pub fn score(
        &self,
        model: &mut Decoder,
        questions: &Questions<'_>,
        adapter: bool,
    ) -> Result<Scored, Error> {
        let (metrics, inference) = (&self.config.task.metrics, &self.config.inference);
        let seed = self.config.seed;
        let mut scored = score(model, questions, metrics, inference, seed, adapter)?;
        if let Some(dir) = &self.sas {
            let encoder = match self.encoder.get() {
                Some(encoder) => encoder,
                None => {
                    let loaded = SentenceEncoder::load(dir).map_err(unusable)?;
                    self.encoder.get_or_init(|| loaded)
                }
            };
            similarity::add(&mut scored, encoder, questions.examples).map_err(unusable)?;
        }
        Ok(scored)
    }
}

/// A directory, or else a name on the hub.
fn encoder_dir(model: &str) -> Result<PathBuf, Error> {
    let dir = Path::new(model);
    let named = !dir.is_absolute() && !model.starts_with('.') && model.matches('/').count() <= 1;
    let dir = match dir.is_dir() || !named {
        true => dir.to_path_buf(),
        false => {
            let settings = hub::Settings::from_env();
            hub::model(&settings, model, None, Needs::Encoder)
                .map_err(|e: HubError| Error::SasModel(e.of_key(SAS_MODEL)))?
        }
    };
    SentenceEncoder::check(&dir).map_err(unusable)?;
    Ok(dir)
}

fn unusable(error: EmbedError) -> Error {
    let text = error.to_string();
    let text = text.replace("model.path=DIR", &format!("{SAS_MODEL}=DIR"));
    Error::SasModel(format!("{SAS_MODEL}: {text}"))
}
