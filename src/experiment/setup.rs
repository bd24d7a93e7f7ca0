//! What every job needs before it can run: device, model directory, tokenizer,
//! examples. All of it is checked before a run directory is made.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::fsx::FsError;
use crate::config::types::{Config, ModelInit, TaskKind};
use crate::data::Answers;
use crate::data::chat::{ChatError, ChatTemplate};
use crate::data::encode::Encoder;
use crate::data::example::Example;
use crate::data::formats::read_examples;
use crate::data::tokenizer::Tokenizer;
use crate::device::{self, Chosen};
use crate::evaluate::Questions;
use crate::hub::{self, Needs};
use crate::model::hf_config::ArchConfig;
use crate::model::{Adaptation, Decoder, LoadError, LoadOptions, load};
use crate::ops::Precision;

/// Where all runs lie.
pub const OUTPUTS: &str = "outputs";

/// What the model is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelUse {
    /// To compute with.
    Run,
    /// To plan, which needs no weights.
    Plan,
}

/// The common ground of a job.
pub struct Setup {
    pub chosen: Chosen,
    pub precision: Precision,
    pub model_dir: PathBuf,
    pub arch: ArchConfig,
    pub tokenizer: Option<Tokenizer>,
    /// Broken or missing, it is an error only where it is needed.
    chat: Result<Option<ChatTemplate>, ChatError>,
    /// Whether the config names a template of its own.
    chat_is_given: bool,
}

/// A file of questions.
pub struct QuestionFile {
    pub path: PathBuf,
    pub examples: Vec<Example>,
}

impl Setup {
    /// # Errors
    /// The device, the model directory or the tokenizer cannot be used.
    pub fn new(config: &Config, use_of: ModelUse) -> Result<Self, Error> {
        let chosen = device::choose(&config.device)?;
        let precision = precision(config, &chosen)?;
        let model_dir = model_dir(config, use_of)?;
        // Reading config.json first gives the better error for a wrong directory.
        let arch = ArchConfig::from_dir(&model_dir).map_err(LoadError::from)?;
        let tokenizer = Tokenizer::load_optional(&model_dir)?;
        let file = config.prompt.chat_template_file.as_deref();
        let chat = ChatTemplate::load(&model_dir, file);
        Ok(Self {
            chosen,
            precision,
            model_dir,
            arch,
            tokenizer,
            chat,
            chat_is_given: file.is_some(),
        })
    }

    /// # Errors
    /// The weights or the adapter cannot be used.
    pub fn load(&self, config: &Config, adaptation: Adaptation<'_>) -> Result<Decoder, Error> {
        Ok(load(&LoadOptions {
            dir: &self.model_dir,
            init: config.model.init,
            quantization: &config.quantization,
            adaptation,
            seed: config.seed,
            device: &self.chosen.device,
            precision: self.precision,
        })?)
    }

    /// How others find the base of an adapter: by its name, or where it lies.
    pub fn base(&self, config: &Config) -> PathBuf {
        match (&config.model.path, &config.model.name) {
            (None, Some(name)) => PathBuf::from(name),
            _ => self.model_dir.clone(),
        }
    }

    /// The encoder of the config's prompts.
    ///
    /// # Errors
    /// A template that cannot be read.
    pub fn encoder(&self, config: &Config) -> Result<Encoder<'_>, Error> {
        Ok(Encoder::new(
            &config.prompt,
            config.task.kind,
            self.tokenizer.as_ref(),
            config.training.max_seq_length,
        )?
        .with_chat(match &self.chat {
            Ok(Some(template)) => Ok(template),
            Ok(None) => Err(ChatError::None {
                path: self.model_dir.clone(),
            }
            .to_string()),
            Err(error) => Err(error.to_string()),
        }))
    }

    /// Copies the tokenizer's files into `dir`, and the chat template where the
    /// config gave one.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn copy_tokenizer(&self, dir: &Path) -> Result<(), Error> {
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.copy_files(dir)?;
        }
        if let (true, Ok(Some(template))) = (self.chat_is_given, &self.chat) {
            let path = dir.join("chat_template.jinja");
            std::fs::write(&path, template.source())
                .map_err(|e| FsError::new("write", &path, e))?;
        }
        Ok(())
    }
}

/// f32 on the CPU; on a GPU bf16 where it has it, unless the config says otherwise.
fn precision(config: &Config, chosen: &Chosen) -> Result<Precision, Error> {
    let (bf16, fp16) = (config.training.bf16, config.training.fp16);
    let Some(gpu) = &chosen.gpu else {
        for (what, set) in [("bf16", bf16), ("fp16", fp16)] {
            if set == Some(true) {
                return Err(Error::HalfOnCpu { what });
            }
        }
        return Ok(Precision::F32);
    };
    if fp16 == Some(true) {
        return Err(Error::Fp16);
    }
    match (bf16, gpu.has_bf16()) {
        (Some(true), false) => Err(Error::NoBf16(gpu.name.clone())),
        (Some(true) | None, true) => Ok(Precision::Bf16),
        (Some(false), _) | (None, false) => Ok(Precision::F32),
    }
}

/// The directory that is given, or that of the named model, fetched where it must be.
fn model_dir(config: &Config, use_of: ModelUse) -> Result<PathBuf, Error> {
    let model = &config.model;
    let name = match (&model.path, &model.name) {
        (Some(path), _) => return Ok(path.clone()),
        (None, Some(name)) => name,
        (None, None) => return Err(Error::Missing("model.path", "data/models/tiny")),
    };
    let needs = match (use_of, model.init) {
        (ModelUse::Plan, _) => Needs::Config,
        (ModelUse::Run, ModelInit::Random) => Needs::NoWeights,
        (ModelUse::Run, ModelInit::Pretrained) => Needs::Weights,
    };
    let settings = hub::Settings::from_env();
    Ok(hub::model(
        &settings,
        name,
        model.revision.as_deref(),
        needs,
    )?)
}

/// The questions at `path`, at most `task.max_test_examples` of them.
///
/// # Errors
/// The file cannot be read as the task's questions.
pub fn questions(path: &Path, config: &Config, answers: Answers) -> Result<QuestionFile, Error> {
    if config.task.kind == TaskKind::Text {
        return Err(Error::NoQuestions);
    }
    let mut examples = read_examples(path, &config.data, config.task.kind, answers)?;
    if let Some(most) = config.task.max_test_examples {
        examples.truncate(most);
    }
    Ok(QuestionFile {
        path: path.to_path_buf(),
        examples,
    })
}

impl QuestionFile {
    /// The questions with what turns them into tokens.
    ///
    /// # Errors
    /// The model directory has no tokenizer.
    pub fn with<'a>(
        &'a self,
        setup: &'a Setup,
        encoder: &'a Encoder<'a>,
        config: &Config,
    ) -> Result<Questions<'a>, Error> {
        let tokenizer = setup.tokenizer.as_ref();
        let tokenizer = match tokenizer {
            Some(tokenizer) => tokenizer,
            None => return Err(no_tokenizer(&setup.model_dir)),
        };
        Ok(Questions {
            examples: &self.examples,
            path: &self.path,
            kind: config.task.kind,
            encoder,
            tokenizer,
            max_prompt: config.training.max_seq_length,
        })
    }
}

fn no_tokenizer(dir: &Path) -> Error {
    let file = dir.join("tokenizer.json");
    crate::data::tokenizer::TokenizerError::Missing(file).into()
}
