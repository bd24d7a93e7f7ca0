//! Why a job failed. Errors that hold such an error in turn stand beside it.

use std::path::PathBuf;

use super::checkpoints::CheckpointError;
use super::fsx::FsError;
use super::metrics::MetricsError;
use super::publish::PublishError;
use super::registry::RegistryError;
use super::run_dir::RunDirError;
use super::summary::SummaryError;
use crate::ask::AskError;
use crate::config::JobError;
use crate::data::EncodeError;
use crate::data::batch::ScheduleError;
use crate::data::error::DataError;
use crate::data::tokenise::{CacheError, TokeniseError};
use crate::data::tokenizer::TokenizerError;
use crate::device::DeviceError;
use crate::evaluate::AnswerError;
use crate::hub::HubError;
use crate::model::LoadError;
use crate::model::export::ExportError;
use crate::model::peft::PeftError;
use crate::model::rewrite::RewriteError;
use crate::train::Diverged;

/// Any failure of a job; each message says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Tokens(#[from] CacheError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Judge(#[from] JudgeError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    Peft(#[from] PeftError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Summary(#[from] SummaryError),
    #[error(transparent)]
    Synth(Box<SynthError>),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{0} is not set: give it on the command line, e.g. {0}={1}")]
    Missing(&'static str, &'static str),
    #[error(
        "training.fp16=true: no device computes in fp16 in this version, since its loss would have \
         to be scaled; use training.bf16=true, or leave both unset"
    )]
    Fp16,
    #[error(
        "training.bf16=true needs a GPU of compute capability 8.0 (Ampere) or later, and {0} is older: leave training.bf16 unset"
    )]
    NoBf16(String),
    #[error(
        "training.max_seq_length={longest}{and_answer}: the model has learned {most} positions and \
         can take no longer sequence; set training.max_seq_length={fits}"
    )]
    TooLong {
        longest: usize,
        and_answer: String,
        most: usize,
        fits: usize,
    },
    #[error(
        "{key}: needs validation, but {} has one example, and that trains; add examples, or leave \
         {key} out", path.display()
    )]
    NoValidation { key: &'static str, path: PathBuf },
    #[error("{0}")]
    OutOfMemory(String),
    /// A sentence encoder that cannot be had or used.
    #[error("{0}")]
    SasModel(String),
    #[error(
        "{}: token id {id} is outside the model's vocabulary of {vocab}: the data was made with another tokenizer; \
         give the model it belongs to (model.path=DIR), or make the data again",
        path.display()
    )]
    Vocabulary {
        path: PathBuf,
        id: u32,
        vocab: usize,
    },
    #[error(
        "step {step}: {what}: training diverged; lower training.learning_rate (now {lr:e}) \
         or lengthen {warmup}{}",
        .checkpoints.as_ref().map_or(String::new(), |dir| format!(
            ". Checkpoints before it are kept in {}: training.resume=DIR goes on from one",
            dir.display()
        ))
    )]
    Diverged {
        step: usize,
        what: Diverged,
        /// `training.learning_rate`.
        lr: f64,
        /// The key that says how long the rate rises.
        warmup: &'static str,
        checkpoints: Option<PathBuf>,
    },
    #[error(
        "training.metric_for_best_model={0}: the validation questions have nothing that gives this metric; use another, or loss"
    )]
    NoMetric(&'static str),
    #[error("output={}: a directory of safetensors would be made under the name of a GGUF file: add export.format=gguf, or name a directory", .0.display())]
    GgufFormat(PathBuf),
    #[error("{}: this checkpoint does not fit the config: {what}; resume with the run's own settings", path.display())]
    CheckpointMismatch { path: PathBuf, what: String },
    #[error("{}: cannot write: {error}", path.display())]
    Csv { path: PathBuf, error: csv::Error },
    #[error(
        "adapter is not set and outputs/adapters/adapter_{0} does not exist: run `run train task={0}` first, or give adapter=DIR"
    )]
    NoAdapter(String),
    #[error(
        "adapter is not set and outputs/adapters/adapter_{0} does not exist: run `run train task={0}` \
         first, give adapter=DIR, or take the base alone (--base), e.g. a fully tuned model"
    )]
    NoAdapterNorBase(String),
    #[error(
        "--base takes no adapter, but adapter={} is set: leave one of them out", .0.display()
    )]
    BaseAndAdapter(PathBuf),
    #[error("output={}: is a directory; name a file, e.g. output={}/predictions.csv", .0.display(), .0.display())]
    OutputIsDirectory(PathBuf),
    #[error("output={}: that file is {key}, which would be overwritten; give another", .output.display())]
    OutputIsInput { key: &'static str, output: PathBuf },
    #[error("output={}: is a directory; with export.format=gguf name a file, e.g. output={}/model.gguf", .0.display(), .0.display())]
    GgufIsDirectory(PathBuf),
    #[error("output={}: there is such a file already; choose another output or remove it", .0.display())]
    OutputExists(PathBuf),
    #[error("task.type=text has no questions to answer; choose task=mcq, saq or squad")]
    NoQuestions,
}

/// The judge could not be asked to the end.
#[derive(Debug, thiserror::Error)]
#[error("{cause}\n{done} of {of} verdicts are there{kept}")]
pub struct JudgeError {
    pub(super) cause: Box<Error>,
    pub(super) done: usize,
    pub(super) of: usize,
    pub(super) kept: String,
}

/// Why there is no set of questions and answers.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{}: holds {format} and not abstracts: give JSONL or CSV with a column text or abstract, or plain text", .path.display())]
    NoText { path: PathBuf, format: &'static str },
    #[error(
        "{}: was begun with {key}={was}, and now it is {is}: replies of both would be mixed; use \
         the former value, choose another output, or remove the file to ask for all anew", .path.display()
    )]
    OtherSettings {
        path: PathBuf,
        key: String,
        was: String,
        is: String,
    },
    #[error("{}:{line}: not a line of a journal: {error}; remove the line, or the file to begin anew", .path.display())]
    Journal {
        path: PathBuf,
        line: usize,
        error: serde_json::Error,
    },
    #[error("{}: another process is writing it{}; wait for it or choose another output", .path.display(),
        if .owner.is_empty() { String::new() } else { format!(" ({})", .owner) })]
    Busy { path: PathBuf, owner: String },
    #[error(
        "{cause}\n{done} of {of} abstracts are done and kept in {}; the same command goes on with the others",
        .journal.display()
    )]
    BrokenOff {
        cause: Box<Error>,
        done: usize,
        of: usize,
        journal: PathBuf,
    },
    #[error("no pair was kept: {} says why of each; {hint}", .report.display())]
    NothingKept { report: PathBuf, hint: String },
}

impl From<SynthError> for Error {
    fn from(error: SynthError) -> Self {
        Error::Synth(Box::new(error))
    }
}

impl From<TokeniseError> for Error {
    fn from(error: TokeniseError) -> Self {
        match error {
            TokeniseError::Data(error) => error.into(),
            TokeniseError::Encode(error) => error.into(),
            TokeniseError::Cache(error) => error.into(),
        }
    }
}
