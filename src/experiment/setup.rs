//! What every job needs before it can run: device, model directory, tokenizer,
//! examples. All of it is checked before a run directory is made.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::fsx::FsError;
use super::generation_file;
use super::log::Console;
use crate::config::types::{Config, ModelInit, QuantizationConfig, TaskKind};
use crate::data::chat::{ChatError, ChatTemplate};
use crate::data::example::Example;
use crate::data::tokenizer::Tokenizer;
use crate::data::{Answers, Cache, DataError, Source, Tokenised, Want, read_examples};
use crate::data::{EncodeError, Encoder};
use crate::device::{self, Chosen, Memory};
use crate::evaluate::{AnswerError, Questions};
use crate::generate::sampling::SamplingError;
use crate::generate::{Beams, NoRoom, Room};
use crate::hub::{self, Needs};
use crate::model::bnb;
use crate::model::hf_config::ArchConfig;
use crate::model::{Adaptation, Decoder, LoadError, LoadOptions, load};
use crate::ops::Precision;

/// `data.cache=auto` keeps the tokens of files from this size, in bytes.
const WORTH_KEEPING: u64 = 4 << 20;

/// What a model directory or an adapter has its chat template in.
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Where all runs lie.
pub const OUTPUTS: &str = "outputs";

/// What the model is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelUse {
    /// To compute with.
    Run,
    /// To plan, which needs no weights.
    Plan,
    /// To turn text into tokens, which needs no weights but the tokenizer.
    Encode,
}

/// The common ground of a job.
pub struct Setup {
    pub chosen: Chosen,
    pub precision: Precision,
    pub model_dir: PathBuf,
    pub arch: ArchConfig,
    pub tokenizer: Option<Tokenizer>,
    /// The config's, but for what a checkpoint that is quantised already says itself.
    pub quantization: QuantizationConfig,
    /// A line about such a checkpoint for the log.
    pub quantised_note: Option<String>,
    /// A line about what the model's generation_config.json asks for in vain.
    pub generation_note: Option<String>,
    /// Broken or missing, it is an error only where it is needed.
    chat: Result<Option<ChatTemplate>, ChatError>,
    /// Whether the config names a template of its own.
    chat_is_given: bool,
}

/// A file of questions.
pub struct QuestionFile {
    pub path: PathBuf,
    pub examples: Vec<Example>,
    /// Questions behind the first `task.max_test_examples`, which are not asked.
    pub left_out: usize,
    /// What was wrong with the rows that were left out.
    pub skipped: Vec<DataError>,
}

impl Setup {
    /// # Errors
    /// The device, the model directory or the tokenizer cannot be used, or an answer
    /// would be longer than there is memory for.
    pub fn new(config: &Config, use_of: ModelUse) -> Result<Self, Error> {
        let chosen = device::choose(&config.device)?;
        let precision = precision(config, &chosen)?;
        let model_dir = model_dir(config, use_of)?;
        // Reading config.json first gives the better error for a wrong directory.
        let arch = ArchConfig::from_dir(&model_dir).map_err(LoadError::from)?;
        check_length(config, &arch)?;
        let tokenizer = Tokenizer::load_optional(&model_dir)?;
        let (quantization, quantised_note) = quantization(config, &model_dir)?;
        let generation_note =
            generation_file::set_aside(&model_dir, &config.inference).map_err(LoadError::from)?;
        let file = config.prompt.chat_template_file.as_deref();
        let chat = ChatTemplate::load(&model_dir, file);
        let setup = Self {
            chosen,
            precision,
            model_dir,
            arch,
            tokenizer,
            quantization,
            quantised_note,
            generation_note,
            chat,
            chat_is_given: file.is_some(),
        };
        if use_of == ModelUse::Run && config.task.kind == TaskKind::Saq {
            let beams = Beams::new(&config.inference).map_or(1, |beams| beams.num_beams);
            let room = setup.has_room(beams, config.inference.max_new_tokens);
            room.map_err(|room| AnswerError::from(SamplingError::from(room)))?;
        }
        Ok(setup)
    }

    /// Takes the chat template that an adapter carries, by which it was trained, unless the config
    /// names one.
    pub fn take_template(&mut self, adapter: Option<&Path>) {
        let carried = adapter.map(|dir| dir.join(TEMPLATE_FILE));
        if let (false, Some(file)) = (self.chat_is_given, carried.filter(|file| file.is_file())) {
            self.chat = ChatTemplate::load(&self.model_dir, Some(&file));
        }
    }

    /// Lines for the log about the base, the device and the adapters that answer.
    pub(super) fn tell_notes(&self, console: &Console, model: &Decoder) {
        let own = [
            &self.quantised_note,
            &self.generation_note,
            &self.chosen.note,
        ];
        for note in own.into_iter().flatten().chain(&model.adapter_notes) {
            console.line(note);
        }
    }

    /// Whether the model has positions for answers, whatever the task.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn check_answers(&self, config: &Config) -> Result<(), Error> {
        check_answer(config, &self.arch, config.inference.max_new_tokens)
    }

    /// Whether the device has room for one answer of so many tokens, with nothing else
    /// on it: what is certain before the prompts are read.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn has_room(&self, sequences: usize, answer: usize) -> Result<(), NoRoom> {
        let room = Room {
            sequences,
            capacity: answer.saturating_add(1),
        };
        let (number, memory) = match &self.chosen.gpu {
            Some(gpu) if self.precision == Precision::Bf16 => (2, Some(gpu.memory_bytes)),
            Some(gpu) => (4, Some(gpu.memory_bytes)),
            None => (4, Memory::probe().map(|memory| memory.total_bytes)),
        };
        room.check(&self.arch, number, memory)
    }

    /// # Errors
    /// The weights or the adapter cannot be used.
    pub fn load(&self, config: &Config, adaptation: Adaptation<'_>) -> Result<Decoder, Error> {
        Ok(load(&LoadOptions {
            dir: &self.model_dir,
            init: config.model.init,
            quantization: &self.quantization,
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

    /// The tokenizer.
    ///
    /// # Errors
    /// The model directory has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        let file = || self.model_dir.join("tokenizer.json");
        let missing = || crate::data::tokenizer::TokenizerError::Missing(file()).into();
        self.tokenizer.as_ref().ok_or_else(missing)
    }

    /// Whether the model, or the config, has a chat template.
    ///
    /// # Errors
    /// There is one, but it cannot be used.
    pub fn has_chat(&self) -> Result<bool, Error> {
        match &self.chat {
            Ok(template) => Ok(template.is_some()),
            Err(error) => Err(EncodeError::NoChat(error.to_string()).into()),
        }
    }

    /// The samples of the training file `path` in the cache of the config, or as it
    /// says in memory.
    ///
    /// # Errors
    /// A row that cannot be used, or a cache that cannot be written.
    pub fn tokenise(
        &self,
        path: &Path,
        config: &Config,
        encoder: &Encoder<'_>,
    ) -> Result<Tokenised, Error> {
        let source = Source {
            path,
            data: &config.data,
            want: Want::new(config.task.kind, Answers::Required),
            encoder,
        };
        let cache = self.cache(path, config)?;
        Ok(source.tokenise(cache.as_ref())?)
    }

    /// Where tokens of the file `path` are kept; `None`: in memory.
    fn cache(&self, path: &Path, config: &Config) -> Result<Option<Cache>, Error> {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let (dir, optional) = match config.data.cache.as_str() {
            "off" => return Ok(None),
            "auto" if size < WORTH_KEEPING => return Ok(None),
            "auto" => (device::own_cache().join("tokens"), true),
            dir => (PathBuf::from(dir), false),
        };
        let tokenizer = match &self.tokenizer {
            Some(tokenizer) => tokenizer.fingerprint()?,
            None => String::new(),
        };
        let chat = match &self.chat {
            Ok(Some(template)) => template.settings(),
            Ok(None) | Err(_) => String::new(),
        };
        let (kind, length) = (config.task.kind, config.training.max_seq_length);
        let settings = format!("{tokenizer} {kind:?} {length} {:?} {chat:?}", config.prompt);
        Ok(Some(Cache {
            dir,
            settings,
            optional,
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
            let path = dir.join(TEMPLATE_FILE);
            std::fs::write(&path, template.source())
                .map_err(|e| FsError::new("write", &path, e))?;
        }
        Ok(())
    }
}

/// How the base is quantised, and a line for the log where it is so already: then
/// its own block size and double quantisation hold.
fn quantization(
    config: &Config,
    model_dir: &Path,
) -> Result<(QuantizationConfig, Option<String>), Error> {
    let mut settings = config.quantization.clone();
    if config.model.init == ModelInit::Random {
        return Ok((settings, None));
    }
    let found = bnb::settle(model_dir, config.method, &mut settings).map_err(LoadError::from)?;
    let Some(found) = found else {
        return Ok((settings, None));
    };
    let scales = |q: &QuantizationConfig| match q.double_quant {
        true => format!("blocks of {}, double quantisation", q.block_size),
        false => format!("blocks of {}, scales in f32", q.block_size),
    };
    let mut note = format!(
        "the base is NF4 already ({}) and used as it is",
        scales(&found)
    );
    if found != config.quantization {
        note += &format!(
            "; the config's ({}) does not apply",
            scales(&config.quantization)
        );
    }
    Ok((settings, Some(note)))
}

/// Prompts are cut to `max_seq_length` before an answer is generated.
fn check_length(config: &Config, arch: &ArchConfig) -> Result<(), Error> {
    let answer = match config.task.kind {
        TaskKind::Text => 0,
        _ => config.inference.max_new_tokens,
    };
    check_answer(config, arch, answer)
}

fn check_answer(config: &Config, arch: &ArchConfig, answer: usize) -> Result<(), Error> {
    let longest = config.training.max_seq_length;
    match arch.longest_sequence() {
        Some(most) if longest + answer > most => Err(Error::TooLong {
            longest,
            and_answer: match answer {
                0 => String::new(),
                answer => format!(" and inference.max_new_tokens={answer}"),
            },
            most,
            fits: most.saturating_sub(answer).max(2),
        }),
        _ => Ok(()),
    }
}

/// On a GPU bf16 where it has it, unless the config says otherwise; on the CPU f32,
/// unless bf16 is asked for.
fn precision(config: &Config, chosen: &Chosen) -> Result<Precision, Error> {
    if config.training.fp16 == Some(true) {
        return Err(Error::Fp16);
    }
    let bf16 = config.training.bf16;
    let Some(gpu) = &chosen.gpu else {
        return Ok(match bf16 {
            Some(true) => Precision::Bf16,
            _ => Precision::F32,
        });
    };
    match (bf16, gpu.has_bf16()) {
        (Some(true), false) => Err(Error::NoBf16(gpu.name.clone())),
        (Some(true) | None, true) => Ok(Precision::Bf16),
        (Some(false), _) | (None, false) => Ok(Precision::F32),
    }
}

/// The directory that is given, or that of the named model, fetched where it must be.
pub(super) fn model_dir(config: &Config, use_of: ModelUse) -> Result<PathBuf, Error> {
    let model = &config.model;
    let name = match (&model.path, &model.name) {
        (Some(path), _) => return Ok(path.clone()),
        (None, Some(name)) => name,
        (None, None) => return Err(Error::Missing("model.path", "data/models/tiny")),
    };
    let needs = match (use_of, model.init) {
        (ModelUse::Plan, _) => Needs::Config,
        (ModelUse::Encode, _) | (ModelUse::Run, ModelInit::Random) => Needs::NoWeights,
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

/// The questions at `path` to score, at most `task.max_test_examples` of them.
///
/// # Errors
/// The file cannot be read as the task's questions.
pub fn questions(path: &Path, config: &Config, answers: Answers) -> Result<QuestionFile, Error> {
    let mut file = all_questions(path, config, Want::new(config.task.kind, answers))?;
    if let Some(most) = config.task.max_test_examples {
        file.left_out = file.examples.len().saturating_sub(most);
        file.examples.truncate(most);
    }
    Ok(file)
}

/// All questions at `path`, of one task or of several.
pub(super) fn all_questions(
    path: &Path,
    config: &Config,
    want: Want,
) -> Result<QuestionFile, Error> {
    if config.task.kind == TaskKind::Text {
        return Err(Error::NoQuestions);
    }
    let read = read_examples(path, &config.data, want)?;
    Ok(QuestionFile {
        path: path.to_path_buf(),
        examples: read.examples,
        left_out: 0,
        skipped: read.skipped,
    })
}

/// Names the rows of a file that were left out: their number on the terminal, each
/// with its reason in the log. Returns the number.
pub(super) fn tell_skipped(
    console: &Console,
    path: &Path,
    skipped: &[impl std::fmt::Display],
) -> u64 {
    if !skipped.is_empty() {
        console.line(&format!(
            "{}: {} skipped (data.on_error=skip); the first: {}",
            path.display(),
            match skipped.len() {
                1 => "1 bad row".to_string(),
                n => format!("{n} bad rows"),
            },
            skipped[0]
        ));
        for row in skipped {
            console.log_only(&format!("skipped {row}"));
        }
    }
    skipped.len() as u64
}

impl QuestionFile {
    /// `FILE, 20 questions`, for a table's head.
    pub fn title(&self, name: &str) -> String {
        let asked = self.examples.len();
        match self.left_out {
            0 => format!("{name}, {asked} questions"),
            more => format!(
                "{name}, the first {asked} of {} questions (task.max_test_examples)",
                asked + more
            ),
        }
    }

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
        let tokenizer = setup.tokenizer()?;
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
