//! Scores of a model on a test set by all that the config asks for: the task's metrics
//! and, with a sentence encoder (`evaluate.sas_model`), semantic answer similarity.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::setup::ModelUse;
use crate::config::types::Config;
use crate::embed::{EmbedError, EncoderSize, SentenceEncoder};
use crate::evaluate::{Questions, Scored, score, similarity};
use crate::hub::{self, HubError, Needs};
use crate::model::Decoder;

const SAS_MODEL: &str = "evaluate.sas_model";

/// The sentence encoder of a job, found and checked.
#[derive(Clone, Debug)]
pub struct SasModel {
    dir: PathBuf,
    pub size: EncoderSize,
}

impl SasModel {
    /// That of `evaluate.sas_model`, fetched where it must be; `None` without one.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn find(config: &Config, use_of: ModelUse) -> Result<Option<Self>, Error> {
        let Some(model) = &config.evaluate.sas_model else {
            return Ok(None);
        };
        let needs = match use_of {
            ModelUse::Plan => Needs::Config,
            ModelUse::Run | ModelUse::Encode => Needs::Encoder,
        };
        let dir = encoder_dir(model, needs)?;
        if needs == Needs::Encoder {
            SentenceEncoder::check(&dir).map_err(unusable)?;
        }
        let size = EncoderSize::of(&dir).map_err(unusable)?;
        Ok(Some(Self { dir, size }))
    }

    /// A line for the log.
    pub fn note(&self) -> String {
        format!("semantic answer similarity (sas) by {}", self.dir.display())
    }
}

/// What a job scores with. The encoder's weights are read when they are first needed.
pub struct Scorer<'a> {
    config: &'a Config,
    sas: Option<&'a SasModel>,
    encoder: OnceCell<SentenceEncoder>,
}

impl<'a> Scorer<'a> {
    pub fn new(config: &'a Config, sas: Option<&'a SasModel>) -> Self {
        Self {
            config,
            sas,
            encoder: OnceCell::new(),
        }
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
        if let Some(SasModel { dir, .. }) = self.sas {
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
fn encoder_dir(model: &str, needs: Needs) -> Result<PathBuf, Error> {
    let dir = Path::new(model);
    let named = !dir.is_absolute() && !model.starts_with('.') && model.matches('/').count() <= 1;
    match dir.is_dir() || !named {
        true => Ok(dir.to_path_buf()),
        false => hub::model(&hub::Settings::from_env(), model, None, needs)
            .map_err(|e: HubError| Error::SasModel(e.of_key(SAS_MODEL))),
    }
}

fn unusable(error: EmbedError) -> Error {
    let text = error.to_string();
    let text = text.replace("model.path=DIR", &format!("{SAS_MODEL}=DIR"));
    Error::SasModel(format!("{SAS_MODEL}: {text}"))
}
