//! The typed experiment: what the rest of the program reads. Field names are
//! the config keys; defaults, ranges and help live in the table of keys.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::switches::{BestMetric, EarlyStopping};
use super::switches::{Written, true_false_or_auto};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub task: TaskConfig,
    pub prompt: PromptConfig,
    pub model: ModelConfig,
    pub method: Method,
    /// The command this config is meant for; `None` fits every command.
    pub mode: Option<Command>,
    pub quantization: QuantizationConfig,
    pub lora: LoraConfig,
    pub training: TrainingConfig,
    pub inference: InferenceConfig,
    pub evaluate: EvaluateConfig,
    pub data: DataConfig,
    pub export: ExportConfig,
    pub synth: SynthConfig,
    pub judge: JudgeConfig,
    pub seed: u64,
    pub device: String,
    pub adapter: Option<PathBuf>,
    pub output: Option<PathBuf>,
}

/// A command that runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Train,
    Infer,
    Eval,
    /// What training would need. No value of the key `mode`: a config that is
    /// meant for training can be planned.
    #[serde(skip)]
    Plan,
    /// Writes a model in NF4. As `Merge`, it fits every config: both only read a base.
    #[serde(skip)]
    Quantize,
    #[serde(skip)]
    Merge,
    /// Base and adapter side by side; takes what `eval` takes.
    #[serde(skip)]
    Compare,
    /// Shows what training would see.
    #[serde(skip)]
    Preview,
    /// Answers what is typed; takes what `infer` takes.
    #[serde(skip)]
    Chat,
    /// Makes training data of abstracts; fits every config, of which it reads a part.
    #[serde(skip)]
    Synth,
}

impl Command {
    /// Whether `--multirun` makes it run once for each combination of swept values.
    pub fn sweeps(self) -> bool {
        matches!(
            self,
            Command::Train | Command::Infer | Command::Eval | Command::Compare
        )
    }
}

/// The commands that sweep, for messages.
pub const SWEEPING: &str = "run train, run infer, run eval and run compare";

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Train => "train",
            Command::Infer => "infer",
            Command::Eval => "eval",
            Command::Plan => "plan",
            Command::Quantize => "quantize",
            Command::Merge => "merge",
            Command::Compare => "compare",
            Command::Preview => "preview",
            Command::Chat => "chat",
            Command::Synth => "synth",
        })
    }
}

/// What is trained: LoRA matrices beside a frozen base, or every weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Lora,
    Full,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskConfig {
    /// Names the adapter (`adapter_NAME`) and the row in tables.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: TaskKind,
    /// `accuracy`, `exact_match`, `exact_match_ignore_case`, `f1`, `win_rate`.
    pub metrics: Vec<Metric>,
    /// Test questions scored for the closing table; null scores them all.
    pub max_test_examples: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Multiple choice: the answer is the letter of an option.
    Mcq,
    /// Short answer: free text compared with the reference.
    Saq,
    /// Plain text or ready tokens: language modelling, no question.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Accuracy,
    ExactMatch,
    ExactMatchIgnoreCase,
    F1,
    /// Beside the reference, by another model's judgement.
    WinRate,
}

/// How an example becomes text. `{name}` is replaced by the field of that name
/// (`question`, `options`, `context`, `answer`, `letter`, `text`); `{{` and `}}` are braces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptConfig {
    /// The part before the answer; masked from the loss.
    pub template: String,
    /// The supervised part, followed by EOS.
    pub answer: String,
    /// One option of a multiple-choice question: `{letter}`, `{text}`.
    pub option: String,
    pub option_separator: String,
    /// Questions and answers as turns of the model's chat template.
    pub chat_template: bool,
    /// A Jinja file in place of the model's chat template.
    pub chat_template_file: Option<PathBuf>,
    /// The system message of chats that have none.
    pub system: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub name: Option<String>,
    pub path: Option<PathBuf>,
    pub revision: Option<String>,
    /// Where weights come from: the checkpoint, or a fresh random start.
    pub init: ModelInit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelInit {
    Pretrained,
    Random,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizationConfig {
    pub method: QuantMethod,
    pub double_quant: bool,
    pub block_size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantMethod {
    Nf4,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    pub r: usize,
    pub alpha: f64,
    pub dropout: f64,
    pub target_modules: TargetModules,
    /// Modules that are left out, named as in `target_modules`.
    pub exclude_modules: Vec<String>,
    /// The only layers that get an adapter, from 0.
    #[serde(deserialize_with = "one_or_some")]
    pub layers_to_transform: Option<Vec<u64>>,
    /// Ranks of the modules that a regular expression matches, by the first that does.
    #[serde(deserialize_with = "none_is_empty")]
    pub rank_pattern: Vec<(String, usize)>,
    /// Likewise their alphas.
    #[serde(deserialize_with = "none_is_empty")]
    pub alpha_pattern: Vec<(String, f64)>,
    pub use_rslora: bool,
    pub use_dora: bool,
    pub init_lora_weights: LoraInit,
    pub loftq_iter: usize,
    pub init_from: Option<PathBuf>,
}

impl LoraConfig {
    /// Whether a new adapter stands beside another base than the checkpoint's: what
    /// PiSSA leaves of it, or what later rounds of LoftQ quantise.
    pub fn changes_base(&self) -> bool {
        let init = self.init_lora_weights;
        let later = init == LoraInit::Loftq && self.loftq_iter > 1;
        self.init_from.is_none() && (init.is_pissa() || later)
    }
}

/// How a new adapter begins, by PEFT's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoraInit {
    /// A uniform, B zero.
    #[default]
    True,
    /// A normal, B zero.
    Gaussian,
    /// The principal singular triplets of the weight (Meng et al., 2024,
    /// arXiv:2404.02948), which the base loses.
    Pissa,
    /// The same by so many steps of subspace iteration.
    PissaSteps(usize),
    /// Those of what quantising loses (Li et al., 2023, arXiv:2310.08659).
    Loftq,
}

impl LoraInit {
    /// All but the one with a number.
    pub const WORDS: [&str; 4] = ["true", "gaussian", "pissa", "loftq"];
    /// The value with a number, without it.
    pub const STEPS: &str = "pissa_niter_";

    /// By PEFT's name; `true` is no word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "gaussian" => Some(Self::Gaussian),
            "pissa" => Some(Self::Pissa),
            "loftq" => Some(Self::Loftq),
            _ => {
                let steps = word.strip_prefix(Self::STEPS)?;
                let plain = !steps.is_empty() && steps.bytes().all(|b| b.is_ascii_digit());
                let steps = steps.parse().ok().filter(|n| *n <= 1000)?;
                plain.then_some(Self::PissaSteps(steps))
            }
        }
    }

    /// PEFT's name.
    pub fn word(self) -> String {
        match self {
            Self::True => "true".into(),
            Self::Gaussian => "gaussian".into(),
            Self::Pissa => "pissa".into(),
            Self::PissaSteps(steps) => format!("{}{steps}", Self::STEPS),
            Self::Loftq => "loftq".into(),
        }
    }

    pub fn is_pissa(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaSteps(_))
    }

    /// Whether A and B come from the weight, which must be dense for it.
    pub fn decomposes(self) -> bool {
        self.is_pissa() || self == Self::Loftq
    }
}

impl Serialize for LoraInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::True => serializer.serialize_bool(true),
            other => serializer.serialize_str(&other.word()),
        }
    }
}

impl<'de> Deserialize<'de> for LoraInit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let unknown = |word: &str| serde::de::Error::unknown_variant(word, &Self::WORDS);
        match Written::deserialize(deserializer)? {
            Written::Bool(true) => Ok(Self::True),
            Written::Bool(false) => Err(unknown("false")),
            Written::Word(word) => Self::from_word(&word).ok_or_else(|| unknown(&word)),
        }
    }
}

/// A list, or null.
fn none_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    input: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// A number, several, or null.
fn one_or_some<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<u64>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(u64),
        Some(Vec<u64>),
    }
    Ok(Option::deserialize(input)?.map(|written| match written {
        Written::One(one) => vec![one],
        Written::Some(some) => some,
    }))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// `all-linear`, as PEFT writes it.
    Named(String),
    List(Vec<String>),
}

impl TargetModules {
    pub fn names(&self) -> &[String] {
        match self {
            Self::Named(name) => std::slice::from_ref(name),
            Self::List(names) => names,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    pub epochs: f64,
    pub max_steps: Option<usize>,
    pub batch_size: usize,
    pub gradient_accumulation_steps: usize,
    pub learning_rate: f64,
    pub warmup_ratio: f64,
    pub warmup_steps: Option<usize>,
    pub scheduler: Scheduler,
    /// Share of the steps in which `warmup_stable_decay` falls to 0.
    pub decay_ratio: f64,
    pub optimizer: Optimizer,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub val_ratio: f64,
    pub max_seq_length: usize,
    #[serde(deserialize_with = "true_false_or_auto")]
    pub fp16: Option<bool>,
    #[serde(deserialize_with = "true_false_or_auto")]
    pub bf16: Option<bool>,
    pub gradient_checkpointing: bool,
    pub activation_offloading: bool,
    pub packing: bool,
    pub shuffle: bool,
    pub logging_steps: usize,
    pub save_steps: usize,
    pub eval_steps: usize,
    pub eval_examples: usize,
    pub load_best_model_at_end: bool,
    pub metric_for_best_model: BestMetric,
    pub save_total_limit: Option<usize>,
    pub early_stopping_patience: Option<usize>,
    pub resume: Option<String>,
}

impl TrainingConfig {
    /// Whether anything depends on which validation is the best.
    pub fn seeks_best(&self) -> bool {
        self.load_best_model_at_end || self.early_stopping_patience.is_some()
    }

    /// The keys that are set and say nothing without a validation set.
    pub fn need_validation(&self) -> impl Iterator<Item = &'static str> {
        let needs = [
            (
                "training.early_stopping_patience",
                self.early_stopping_patience.is_some(),
            ),
            (
                "training.load_best_model_at_end",
                self.load_best_model_at_end,
            ),
            ("training.eval_examples", self.eval_examples > 0),
        ];
        needs
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(key, _)| key)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    Cosine,
    Linear,
    Constant,
    WarmupStableDecay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    Adamw,
    /// AdamW with its moments in host memory.
    PagedAdamw,
    /// AdamW with moments of 8 bits.
    #[serde(rename = "adamw_8bit")]
    Adamw8bit,
}

impl fmt::Display for Optimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Optimizer::Adamw => "adamw",
            Optimizer::PagedAdamw => "paged_adamw",
            Optimizer::Adamw8bit => "adamw_8bit",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InferenceConfig {
    pub max_new_tokens: usize,
    pub do_sample: bool,
    /// 0 is greedy; null in the config means 1, the model's own distribution.
    #[serde(deserialize_with = "null_is_one")]
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: Option<usize>,
    pub min_p: Option<f64>,
    pub num_beams: usize,
    pub length_penalty: f64,
    pub early_stopping: EarlyStopping,
    /// 1 leaves the logits as they are; so does null in the config.
    #[serde(deserialize_with = "null_is_one")]
    pub repetition_penalty: f64,
    pub batch_size: usize,
    pub use_stop_tokens: bool,
    pub stop: Vec<String>,
    /// Rules of [`crate::clean`].
    pub clean: Vec<String>,
    pub stream: bool,
    pub validation: ValidationConfig,
}

/// What scores answers besides the task's metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateConfig {
    /// Directory or hub name of a sentence encoder.
    pub sas_model: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationConfig {
    pub enabled: bool,
    pub max_retries: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    pub path: Option<PathBuf>,
    pub test_path: Option<PathBuf>,
    pub format: Option<DataFormat>,
    pub on_error: OnError,
    /// `auto`, `off` or a directory.
    pub cache: String,
    /// Field name -> column name, where they differ.
    pub columns: IndexMap<String, Option<String>>,
}

/// What a row that cannot be used does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    Fail,
    /// The row is left out and named in the log.
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    Csv,
    Tsv,
    Jsonl,
    Squad,
    Text,
    Chat,
    Tokens,
    Parquet,
}

/// Another model, and how to ask it: behind an OpenAI-compatible endpoint, or local.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskConfig {
    pub base_url: Option<String>,
    /// Its name at the endpoint.
    pub model: Option<String>,
    pub path: Option<PathBuf>,
    pub api_key_env: Option<String>,
    pub max_tokens: usize,
    pub temperature: Option<f64>,
    pub timeout_s: usize,
    pub max_retries: usize,
    /// Chats asked at once.
    pub concurrency: usize,
}

/// How abstracts become questions and answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SynthConfig {
    #[serde(flatten)]
    pub asked: AskConfig,
    pub abstracts: Option<PathBuf>,
    pub answers: usize,
    pub refusals: usize,
    pub corrections: usize,
    pub max_attempts: usize,
    pub review: bool,
    pub min_grounded: f64,
    pub max_overlap: f64,
    pub context: bool,
    pub system: Option<String>,
}

/// Who judges answers for the metric `win_rate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeConfig {
    #[serde(flatten)]
    pub asked: AskConfig,
    /// Where verdicts are kept.
    pub cache: Option<PathBuf>,
}

/// How models are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportConfig {
    pub format: ExportFormat,
    /// `None`: as the base is stored; f16 in a GGUF file.
    pub dtype: Option<ExportType>,
    pub compute_dtype: Option<ComputeType>,
    /// In units of 10^9 bytes.
    pub max_shard_gb: f64,
    pub check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    Safetensors,
    Gguf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeType {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportType {
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "f16")]
    F16,
    #[serde(rename = "q8_0")]
    Q8_0,
}

fn null_is_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(1.0))
}
