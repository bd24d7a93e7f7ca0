//! `adapter_config.json`: the fields that PEFT writes for LORA, and which of
//! them can differ here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{CONFIG_FILE, PeftError};
use crate::config::types::LoraInit;
use crate::model::peft_patterns::Patterns;
use crate::model::peft_targets::Targets;

const PEFT_VERSION: &str = "0.21.2";

/// What `adapter_config.json` says, as far as it can differ here.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    pub base_model_name_or_path: Option<String>,
    /// Rank of every module that `ranks` does not name.
    pub r: usize,
    /// Likewise of those that `alphas` does not name.
    pub lora_alpha: f64,
    /// Ranks of some modules, by their paths: what PEFT's `rank_pattern` comes to.
    pub ranks: BTreeMap<String, usize>,
    /// Alphas of some modules: what PEFT's `alpha_pattern` comes to.
    pub alphas: BTreeMap<String, f64>,
    pub lora_dropout: f64,
    /// Module names or their last parts, e.g. `q_proj`.
    pub target_modules: Vec<String>,
    /// Rank-stabilised scaling (Kalajdzievski, 2023, arXiv:2312.03732).
    pub use_rslora: bool,
    /// Weight-decomposed LoRA (Liu et al., 2024, arXiv:2402.09353).
    pub use_dora: bool,
    /// The base stores its weights as `[in, out]`. It tells PEFT so; A and B are
    /// the same either way.
    pub fan_in_fan_out: bool,
    /// How A and B began. PEFT does it again when it reads pissa or loftq, so that
    /// an adapter is written with `true` in their place.
    pub init_lora_weights: LoraInit,
}

impl AdapterConfig {
    /// The rank of a module.
    pub fn rank(&self, module: &str) -> usize {
        self.ranks.get(module).copied().unwrap_or(self.r)
    }

    /// The factor of a module's B A x: alpha / r, or alpha / sqrt(r) with rsLoRA.
    pub fn scaling(&self, module: &str) -> f64 {
        let alpha = self.alphas.get(module).copied();
        let (alpha, r) = (alpha.unwrap_or(self.lora_alpha), self.rank(module) as f64);
        match self.use_rslora {
            true => alpha / r.sqrt(),
            false => alpha / r,
        }
    }

    /// Twice the ranks; the factors of B A stay what they were.
    pub(in crate::model) fn widen(&mut self) {
        self.r *= 2;
        self.ranks.values_mut().for_each(|r| *r *= 2);
        let factor = match self.use_rslora {
            true => f64::sqrt(2.0),
            false => 2.0,
        };
        self.lora_alpha *= factor;
        self.alphas.values_mut().for_each(|alpha| *alpha *= factor);
    }

    /// What the adapter in `dir` says without its weights; of `target_modules` only a
    /// list, and no ranks and alphas of single modules.
    ///
    /// # Errors
    /// No adapter_config.json, or one that cannot be used.
    pub fn read(dir: &Path) -> Result<Self, PeftError> {
        let file = dir.join(CONFIG_FILE);
        let source = |source| PeftError::Read {
            file: file.clone(),
            source,
        };
        let text = std::fs::read_to_string(&file).map_err(source)?;
        let mut written = read_config(&text, &file)?;
        if let Targets::List(named) = written.targets {
            written.config.target_modules = named.names;
        }
        Ok(written.config)
    }

    /// The base that the adapter in `dir` says it was trained on.
    pub fn base_of(dir: &Path) -> Option<PathBuf> {
        let base = AdapterConfig::read(dir).ok()?.base_model_name_or_path?;
        (!base.is_empty()).then(|| PathBuf::from(base))
    }

    /// Every field that PEFT 0.21.2 writes for LORA, keys sorted.
    pub(super) fn to_json(&self) -> String {
        // PEFT types alpha as an integer; a fraction is written as it is.
        let number = |alpha: f64| match alpha {
            alpha if alpha.fract() == 0.0 && alpha.abs() < 1e15 => json!(alpha as i64),
            alpha => json!(alpha),
        };
        let alphas = self.alphas.iter().map(|(m, alpha)| (m, number(*alpha)));
        let alphas: BTreeMap<_, _> = alphas.collect();
        let init = match self.init_lora_weights {
            init if init.decomposes() => LoraInit::True,
            init => init,
        };
        let mut object = json!({
            "alora_invocation_tokens": null,
            "alpha_pattern": alphas,
            "arrow_config": null,
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": "none",
            "corda_config": null,
            "ensure_weight_tying": false,
            "eva_config": null,
            "exclude_modules": null,
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": init,
            "kasa_config": null,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": number(self.lora_alpha),
            "lora_bias": false,
            "lora_dropout": self.lora_dropout,
            "lora_ga_config": null,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": null,
            "monteclora_config": null,
            "peft_type": "LORA",
            "peft_version": PEFT_VERSION,
            "qalora_group_size": 16,
            "r": self.r,
            "rank_pattern": self.ranks,
            "revision": null,
            "target_modules": self.target_modules,
            "target_parameters": null,
            "task_type": "CAUSAL_LM",
            "trainable_token_indices": null,
            "use_bdlora": null,
            "use_dora": self.use_dora,
            "use_qalora": false,
            "use_rslora": self.use_rslora,
            "velora_config": null,
        });
        object.sort_all_objects();
        format!("{object:#}")
    }
}

/// The file's content.
pub(super) struct Written {
    /// Without target modules and what patterns come to.
    pub config: AdapterConfig,
    pub targets: Targets,
    pub ranks: Patterns<usize>,
    pub alphas: Patterns<f64>,
}

impl Written {
    /// Gives `modules` what the patterns say of them.
    pub fn settle<'a>(&mut self, modules: impl Iterator<Item = &'a str>) {
        for module in modules {
            if let Some(r) = self.ranks.of(module).filter(|r| *r != self.config.r) {
                self.config.ranks.insert(module.to_string(), r);
            }
            let alpha = self.alphas.of(module);
            if let Some(alpha) = alpha.filter(|alpha| *alpha != self.config.lora_alpha) {
                self.config.alphas.insert(module.to_string(), alpha);
            }
        }
    }
}

/// PEFT features that would change the result, and the value that leaves them off.
const MUST_BE_OFF: [(&str, &str); 12] = [
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "BD-LoRA"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("velora_config", "VeLoRA"),
    ("lora_bias", "a bias on B"),
    ("modules_to_save", "fully trained modules"),
    ("trainable_token_indices", "trained tokens"),
    ("target_parameters", "targets that are not modules"),
    ("layer_replication", "replicated layers"),
];

pub(super) fn read_config(text: &str, file: &Path) -> Result<Written, PeftError> {
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| PeftError::Syntax {
            file: file.to_path_buf(),
            line: error.line(),
            message: error.to_string(),
        })?;
    let error = |key: &str, problem: String| PeftError::Key {
        file: file.to_path_buf(),
        key: key.to_string(),
        problem,
    };
    let get = |key: &str| object.get(key).filter(|value| !value.is_null());
    let text_of = |key: &str| get(key).and_then(Value::as_str);
    match text_of("peft_type") {
        Some("LORA") => {}
        Some(other) => {
            let problem = format!("is {other}; only LORA adapters can be read");
            return Err(error("peft_type", problem));
        }
        None => return Err(error("peft_type", "is missing; it must be LORA".into())),
    }
    for (key, what) in MUST_BE_OFF {
        if get(key).is_some_and(is_on) {
            return Err(error(
                key,
                format!("asks for {what}, which is not supported"),
            ));
        }
    }
    if let Some(bias) = text_of("bias").filter(|bias| *bias != "none") {
        return Err(error(
            "bias",
            format!("is `{bias}`; only `none` is supported"),
        ));
    }
    if let Some(init) = text_of("init_lora_weights")
        && !["gaussian", "eva", "orthogonal"].contains(&init)
    {
        return Err(error(
            "init_lora_weights",
            format!(
                "is `{init}`, which changes the base weights too; convert the adapter to plain \
                 LoRA with PEFT (path_initial_model_for_weight_conversion)"
            ),
        ));
    }
    // Absent, PEFT's default.
    let r = get("r").map_or(Some(8), rank_in);
    let r = r.ok_or_else(|| error("r", RANK.into()))?;
    let ranks = get("rank_pattern").map(|value| {
        let rank = |value: &Value| rank_in(value).ok_or_else(|| RANK.to_string());
        Patterns::read(value, rank).map_err(|problem| error("rank_pattern", problem))
    });
    let alphas = get("alpha_pattern").map(|value| {
        let alpha = |value: &Value| number_in(value).ok_or("must be a number".to_string());
        Patterns::read(value, alpha).map_err(|problem| error("alpha_pattern", problem))
    });
    let number = |key: &str, default: f64| match get(key) {
        None => Ok(default),
        Some(value) => {
            number_in(value).ok_or_else(|| error(key, format!("is {value}; it must be a number")))
        }
    };
    let targets = Targets::read(&object).map_err(|(key, problem)| error(key, problem))?;
    let config = AdapterConfig {
        base_model_name_or_path: text_of("base_model_name_or_path").map(str::to_string),
        r,
        ranks: BTreeMap::new(),
        alphas: BTreeMap::new(),
        // PEFT's LoraConfig defaults.
        lora_alpha: number("lora_alpha", 8.0)?,
        lora_dropout: number("lora_dropout", 0.0)?,
        target_modules: Vec::new(),
        use_rslora: get("use_rslora").is_some_and(is_on),
        use_dora: get("use_dora").is_some_and(is_on),
        fan_in_fan_out: get("fan_in_fan_out").is_some_and(is_on),
        init_lora_weights: match text_of("init_lora_weights") {
            Some("gaussian") => LoraInit::Gaussian,
            _ => LoraInit::True,
        },
    };
    Ok(Written {
        config,
        targets,
        ranks: ranks.transpose()?.unwrap_or_default(),
        alphas: alphas.transpose()?.unwrap_or_default(),
    })
}

const RANK: &str = "must be a whole number from 1 to 65536";

fn rank_in(value: &Value) -> Option<usize> {
    let r = value.as_u64().filter(|r| (1..=65_536).contains(r));
    r.map(|r| r as usize)
}

fn number_in(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

/// Whether a field holds something other than null, false or emptiness.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Number(_) => true,
    }
}
