//! Checks that look at several keys at once.

use crate::clean::Cleaner;
use crate::compose::{Node, Origin};

use super::error::ConfigError;
use super::types::{
    BestMetric, Config, ExportFormat, ExportType, LoraInit, Method, Metric, ModelInit, QuantMethod,
    TargetModules, TaskKind,
};

/// Values that do not go together. `tree` is asked where they were written.
pub(super) fn check(config: &Config, tree: &Node) -> Vec<ConfigError> {
    let mut found = Found {
        tree,
        errors: Vec::new(),
    };
    let training = &config.training;

    if config.model.name.is_none() && config.model.path.is_none() {
        found.conflict(
            &["model.path", "model.name"],
            "`model.path` and `model.name` are both null, so there is no base model",
            "choose a model (model=tiny) or name a directory (model.path=DIR)",
        );
    }
    let typed = |key: &str| {
        let node = tree.select(key);
        node.is_some_and(|node| matches!(node.origin, Origin::CommandLine { .. }))
    };
    if let (Some(path), Some(name)) = (&config.model.path, &config.model.name)
        && typed("model.name")
        && !typed("model.path")
    {
        found.conflict(
            &["model.name"],
            &format!(
                "`model.name` names a model of the hub, but `model.path` is {}, which wins",
                path.display()
            ),
            &format!("model.path=null model.name={name}"),
        );
    }
    if config.method == Method::Full && config.quantization.method == QuantMethod::Nf4 {
        found.conflict(
            &["method", "quantization.method"],
            "`method=full` trains every weight, which quantised weights cannot be",
            "add quantization=none, or use method=lora",
        );
    }
    if !config.quantization.block_size.is_power_of_two() {
        found.conflict(
            &["quantization.block_size"],
            "`quantization.block_size` must be a power of two",
            "64, 128, 256, 512, 1024, 2048 or 4096",
        );
    }
    if matches!(&config.lora.target_modules, TargetModules::List(names) if names.is_empty()) {
        found.conflict(
            &["lora.target_modules"],
            "`lora.target_modules` is empty, so nothing would be trained",
            "name layers (lora.target_modules=[q_proj,v_proj]) or write all-linear",
        );
    }
    if config.method == Method::Lora {
        found.lora_start(config);
    }
    if training.fp16 == Some(true) && training.bf16 == Some(true) {
        found.conflict(
            &["training.bf16", "training.fp16"],
            "`training.fp16` and `training.bf16` are both true",
            "set one of them to false, or both to null",
        );
    }
    if training.activation_offloading && !training.gradient_checkpointing {
        found.conflict(
            &[
                "training.activation_offloading",
                "training.gradient_checkpointing",
            ],
            "`training.activation_offloading` moves the layers' inputs, and with `training.gradient_checkpointing=false` everything else is kept as well",
            "training.gradient_checkpointing=true",
        );
    }
    for key in training.need_validation() {
        if training.val_ratio == 0.0 {
            found.conflict(
                &[key],
                &format!("`{key}` needs validation, but `training.val_ratio` is 0"),
                "set training.val_ratio above 0, or leave it out",
            );
        }
    }
    // Another model judges win_rate, and not while training.
    let mut metrics = config.task.metrics.iter();
    let scores =
        metrics.any(|metric| *metric != Metric::WinRate) || config.evaluate.sas_model.is_some();
    if training.eval_examples > 0 && !scores {
        found.conflict(
            &["training.eval_examples", "task.metrics"],
            "`training.eval_examples` is above 0, but `task.metrics` names no metric",
            "training.eval_examples=0, or name metrics; the validation loss is always reported",
        );
    }
    found.best_metric(config);
    if config.task.kind == TaskKind::Text && !config.task.metrics.is_empty() {
        found.conflict(
            &["task.metrics"],
            "`task.metrics` must be empty for `task.type=text`: there is no question to score",
            "task.metrics=[]; the loss is always reported",
        );
    }
    let only = match (config.export.format, config.export.dtype) {
        (ExportFormat::Safetensors, Some(ExportType::Q8_0)) => Some((
            "`export.dtype=q8_0` is a type of GGUF files",
            "add export.format=gguf, or use f32, bf16 or f16",
        )),
        (ExportFormat::Gguf, Some(ExportType::Bf16)) => Some((
            "`export.dtype=bf16` cannot be written as GGUF",
            "use f16, q8_0 or f32",
        )),
        _ => None,
    };
    if let Some((message, hint)) = only {
        found.conflict(&["export.dtype", "export.format"], message, hint);
    }
    if config.inference.use_stop_tokens && config.inference.stop.is_empty() {
        found.conflict(
            &["inference.use_stop_tokens"],
            "`inference.use_stop_tokens` is true, but `inference.stop` is empty",
            "list the strings that end an answer: inference.stop=[\"###\"]",
        );
    }
    if config.task.kind == TaskKind::Mcq && config.task.metrics.contains(&Metric::WinRate) {
        found.conflict(
            &["task.metrics", "task.type"],
            "`win_rate` compares free answers with references, and `task.type=mcq` has letters",
            "leave win_rate out, or use task.type=saq",
        );
    }
    let synth = &config.synth;
    if synth.answers + synth.refusals + synth.corrections == 0 {
        found.conflict(
            &["synth.answers", "synth.refusals", "synth.corrections"],
            "`synth.answers`, `synth.refusals` and `synth.corrections` are all 0, so no pair is made",
            "set one of them above 0",
        );
    }
    let inference = &config.inference;
    if let Err(error) = Cleaner::new(&inference.clean) {
        found.conflict(
            &["inference.clean"],
            &format!("`inference.clean`: {error}"),
            "rules are applied in order: inference.clean=[thinking,'s/PATTERN/REPLACEMENT/']",
        );
    }
    if config.evaluate.sas_model.is_some() && config.task.kind != TaskKind::Saq {
        found.conflict(
            &["evaluate.sas_model"],
            "`evaluate.sas_model` compares answers in free text, and `task.type` is not saq",
            "leave it out, or choose a task with answers in words (task=saq, squad, abstractive)",
        );
    }
    if inference.num_beams > 1 && inference.do_sample {
        found.conflict(
            &["inference.num_beams", "inference.do_sample"],
            "`inference.num_beams` above 1 searches, `inference.do_sample` draws: not both",
            "inference.num_beams=1 to sample, inference.do_sample=false to search",
        );
    }
    if inference.num_beams > 1 && inference.stream {
        found.conflict(
            &["inference.stream", "inference.num_beams"],
            "`inference.stream` cannot show a beam search: its answer is known at the end only",
            "inference.num_beams=1, or inference.stream=false",
        );
    }
    found.errors
}

struct Found<'a> {
    tree: &'a Node,
    errors: Vec<ConfigError>,
}

impl Found<'_> {
    /// What `lora.init_lora_weights` does not go with.
    fn lora_start(&mut self, config: &Config) {
        let (lora, key) = (&config.lora, "lora.init_lora_weights");
        let init = lora.init_lora_weights;
        if init != LoraInit::True && lora.init_from.is_some() {
            self.conflict(
                &[key, "lora.init_from"],
                "`lora.init_lora_weights` says how a new adapter begins, but `lora.init_from` names an old one",
                "leave one of them out",
            );
        }
        if init.decomposes() && lora.use_dora {
            self.conflict(
                &[key, "lora.use_dora"],
                &format!(
                    "`lora.init_lora_weights={}` cannot be used with DoRA",
                    init.word()
                ),
                "add lora.use_dora=false, or lora.init_lora_weights=true",
            );
        }
        if init != LoraInit::Loftq {
            return;
        }
        if config.quantization.method == QuantMethod::None {
            self.conflict(
                &[key, "quantization.method"],
                "`lora.init_lora_weights=loftq` makes up for what quantising loses, but `quantization.method` is none",
                "add quantization=nf4, or use lora.init_lora_weights=pissa",
            );
        }
        if lora.loftq_iter > 1 && config.model.init == ModelInit::Random {
            self.conflict(
                &["lora.loftq_iter", "model.init"],
                "`lora.loftq_iter` above 1 quantises another base than the checkpoint's, but `model.init` is random",
                "lora.loftq_iter=1, or model.init=pretrained",
            );
        }
        for (key, set) in [
            ("lora.rank_pattern", !lora.rank_pattern.is_empty()),
            ("lora.alpha_pattern", !lora.alpha_pattern.is_empty()),
        ] {
            if set {
                self.conflict(
                    &[key, "lora.init_lora_weights"],
                    &format!("`{key}` cannot be used with `lora.init_lora_weights=loftq`, which begins with one rank and no scale"),
                    &format!("leave {key} out, or use lora.init_lora_weights=pissa"),
                );
            }
        }
        let (r, alpha) = (lora.r as f64, lora.alpha);
        let wanted = if lora.use_rslora { r.sqrt() } else { r };
        if (alpha - wanted).abs() > 1e-6 * wanted {
            self.conflict(
                &["lora.alpha", "lora.r", key],
                &format!("`lora.init_lora_weights=loftq` needs an adapter that is not scaled, but `lora.alpha` is {alpha}"),
                &format!("lora.alpha={wanted} adds what quantising lost once"),
            );
        }
    }

    /// A metric that `training.metric_for_best_model` names must be measured.
    fn best_metric(&mut self, config: &Config) {
        let (training, key) = (&config.training, "training.metric_for_best_model");
        let by = training.metric_for_best_model;
        let asked = |metric| config.task.metrics.contains(&metric);
        let measured = match by {
            BestMetric::Loss => true,
            BestMetric::Accuracy => asked(Metric::Accuracy),
            BestMetric::ExactMatch => asked(Metric::ExactMatch),
            BestMetric::ExactMatchIgnoreCase => {
                asked(Metric::ExactMatchIgnoreCase) || config.evaluate.sas_model.is_some()
            }
            BestMetric::F1 => asked(Metric::F1),
            BestMetric::Sas => config.evaluate.sas_model.is_some(),
        };
        let name = by.name();
        if by != BestMetric::Loss && config.task.kind == TaskKind::Text {
            self.conflict(
                &[key, "task.type"],
                &format!(
                    "`{key}` is {name}, but with `task.type=text` there is no question to score"
                ),
                &format!("{key}=loss"),
            );
            return;
        }
        if !measured {
            let (other, hint) = match by {
                BestMetric::Sas => ("evaluate.sas_model", "evaluate.sas_model=DIR".to_string()),
                _ => ("task.metrics", format!("'task.metrics=append({name})'")),
            };
            self.conflict(
                &[key, other],
                &format!("`{key}` is {name}, which `{other}` does not ask for"),
                &format!("{hint}, or {key}=loss"),
            );
        }
        if by != BestMetric::Loss && training.eval_examples == 0 {
            self.conflict(
                &[key, "training.eval_examples"],
                &format!("`{key}` is {name}, but `training.eval_examples` is 0, so no question is answered"),
                &format!("training.eval_examples=50 answers as many at each validation; {key}=loss needs none"),
            );
        }
    }

    /// Reports a conflict at the key among `keys` that was typed on the command
    /// line, else at the first.
    fn conflict(&mut self, keys: &[&str], message: &str, hint: &str) {
        let mut origins = keys
            .iter()
            .filter_map(|key| self.tree.select(key))
            .map(|node| &node.origin);
        let typed = origins
            .clone()
            .find(|origin| matches!(origin, Origin::CommandLine { .. }));
        let origin = typed.or_else(|| origins.next()).cloned();
        self.errors.push(ConfigError::Conflict {
            origin: origin.unwrap_or(Origin::BuiltIn),
            message: message.to_string(),
            hint: hint.to_string(),
        });
    }
}
