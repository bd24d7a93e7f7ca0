//! What other programs call our keys: the names of transformers' `TrainingArguments`, TRL's
//! `SFTConfig`, PEFT's `LoraConfig`, bitsandbytes' settings and their many scripts. Nothing is set by
//! such a name; it is answered with the key that was meant.

/// Key, names elsewhere. Those that differ from the key's last part only in spelling need no entry.
const NAMES: &[(&str, &[&str])] = &[
    ("seed", &["random_seed", "data_seed", "random_state"]),
    (
        "device",
        &["device_map", "gpu", "gpus", "use_cpu", "no_cuda"],
    ),
    ("method", &["use_peft", "finetuning_type", "peft_type"]),
    (
        "adapter",
        &[
            "adapter_path",
            "adapter_name_or_path",
            "peft_model_id",
            "lora_path",
        ],
    ),
    (
        "hydra.run.dir",
        &["output_dir", "out_dir", "save_dir", "logging_dir"],
    ),
    ("task.metrics", &["compute_metrics", "metric"]),
    (
        "task.max_test_examples",
        &["max_eval_samples", "max_predict_samples"],
    ),
    (
        "prompt.template",
        &["prompt_template", "instruction_template"],
    ),
    ("prompt.system", &["system_prompt", "system_message"]),
    ("prompt.chat_template", &["apply_chat_template"]),
    ("prompt.chat_template_file", &["chat_template_path"]),
    (
        "data.path",
        &[
            "dataset",
            "dataset_name",
            "dataset_path",
            "train_file",
            "train_data",
            "train_path",
            "training_file",
        ],
    ),
    (
        "data.test_path",
        &["test_file", "test_data", "eval_file", "predict_file"],
    ),
    ("data.columns.text", &["dataset_text_field", "text_column"]),
    (
        "model.path",
        &[
            "model_name_or_path",
            "pretrained_model_name_or_path",
            "base_model",
            "base_model_name_or_path",
            "model_path",
        ],
    ),
    ("model.name", &["model_id", "model_name", "repo_id"]),
    ("model.revision", &["model_revision"]),
    (
        "quantization.method",
        &[
            "load_in_4bit",
            "load_in_8bit",
            "use_4bit",
            "bnb_4bit_quant_type",
            "quantization_bit",
            "quantization_config",
        ],
    ),
    (
        "quantization.double_quant",
        &[
            "bnb_4bit_use_double_quant",
            "use_double_quant",
            "use_nested_quant",
        ],
    ),
    ("quantization.block_size", &["blocksize"]),
    ("lora.r", &["lora_r", "lora_rank", "rank"]),
    ("lora.alpha", &["lora_alpha"]),
    ("lora.dropout", &["lora_dropout"]),
    (
        "lora.target_modules",
        &["lora_target", "lora_target_modules", "lora_modules"],
    ),
    ("lora.loftq_iter", &["loftq_config"]),
    ("lora.init_from", &["resume_adapter", "adapter_to_resume"]),
    (
        "training.epochs",
        &["num_train_epochs", "num_epochs", "n_epochs", "max_epochs"],
    ),
    (
        "training.max_steps",
        &["num_steps", "max_train_steps", "max_iters", "iters"],
    ),
    (
        "training.batch_size",
        &[
            "batch_size",
            "per_device_train_batch_size",
            "per_device_batch_size",
            "train_batch_size",
            "micro_batch_size",
        ],
    ),
    (
        "inference.batch_size",
        &["per_device_eval_batch_size", "eval_batch_size"],
    ),
    (
        "training.gradient_accumulation_steps",
        &[
            "gradient_accumulation",
            "grad_accum",
            "grad_accumulation_steps",
            "accumulate_grad_batches",
        ],
    ),
    ("training.learning_rate", &["lr"]),
    ("training.scheduler", &["lr_scheduler_type", "lr_scheduler"]),
    ("training.warmup_ratio", &["warmup"]),
    (
        "training.warmup_steps",
        &["num_warmup_steps", "warmup_iters"],
    ),
    ("training.optimizer", &["optim", "optimizer_type"]),
    ("training.adam_beta1", &["beta1"]),
    ("training.adam_beta2", &["beta2"]),
    ("training.adam_epsilon", &["adam_eps", "eps"]),
    (
        "training.max_grad_norm",
        &[
            "gradient_clip_val",
            "gradient_clipping",
            "grad_clip",
            "clip_grad_norm",
        ],
    ),
    (
        "training.val_ratio",
        &[
            "validation_file",
            "eval_dataset",
            "val_set_size",
            "val_size",
            "validation_split",
            "validation_split_percentage",
            "test_size",
        ],
    ),
    (
        "training.max_seq_length",
        &[
            "max_length",
            "max_seq_len",
            "model_max_length",
            "cutoff_len",
            "sequence_len",
        ],
    ),
    (
        "training.bf16",
        &[
            "torch_dtype",
            "dtype",
            "bnb_4bit_compute_dtype",
            "mixed_precision",
        ],
    ),
    (
        "training.gradient_checkpointing",
        &[
            "activation_checkpointing",
            "use_gradient_checkpointing",
            "checkpointing",
        ],
    ),
    ("training.packing", &["sample_packing"]),
    (
        "training.logging_steps",
        &["log_every", "log_interval", "logging_strategy"],
    ),
    (
        "training.save_steps",
        &["save_every", "save_interval", "save_strategy"],
    ),
    (
        "training.eval_steps",
        &[
            "eval_every",
            "eval_interval",
            "eval_strategy",
            "evaluation_strategy",
        ],
    ),
    (
        "training.load_best_model_at_end",
        &["save_best_only", "restore_best_weights"],
    ),
    ("training.metric_for_best_model", &["greater_is_better"]),
    ("training.early_stopping_patience", &["patience"]),
    (
        "training.resume",
        &["resume_from_checkpoint", "ckpt_path", "checkpoint_path"],
    ),
    (
        "inference.max_new_tokens",
        &["max_tokens", "max_generate_length"],
    ),
    ("inference.top_k", &["topk"]),
    ("inference.num_beams", &["beams", "num_beam"]),
    ("inference.stop", &["stop_strings", "stop_sequences"]),
    ("export.max_shard_gb", &["max_shard_size"]),
];

/// The key that other programs call `name`, or by the last part of it: `lr`, `training.lr`. Case does
/// not count, and dashes stand for underscores. Below a section it must be one of that section;
/// `training` may stand for all of `TrainingArguments`.
pub fn called(name: &str) -> Option<&'static str> {
    let (section, last) = name.rsplit_once(['.', '/']).unwrap_or(("", name));
    let section = section.split(['.', '/']).next().unwrap_or_default();
    let last = last.to_lowercase().replace('-', "_");
    let (key, _) = NAMES.iter().find(|(_, names)| names.contains(&&*last))?;
    let free = section == "training" || section != "hydra" && !super::is_branch(section);
    (free || is_within(key, section)).then_some(*key)
}

fn is_within(key: &str, section: &str) -> bool {
    let rest = key.strip_prefix(section);
    rest.is_some_and(|rest| section.is_empty() || rest.starts_with('.'))
}

/// The key that is meant by a whole name, by its last part in one of `sections`, the first that has
/// it, by a name that other programs have for it, or by its last part where no other key has it.
pub fn meant(name: &str, sections: &[&str]) -> Option<&'static str> {
    if let Some(key) = super::find(name) {
        return Some(key.name);
    }
    let name = name.to_lowercase();
    let only = |section: &str| {
        let last = |key: &str| key.rsplit('.').next() == Some(name.as_str());
        let mut found = super::all().filter(|key| is_within(key.name, section) && last(key.name));
        match (found.next(), found.next()) {
            (Some(key), None) => Some(key.name),
            _ => None,
        }
    };
    let near = sections.iter().find_map(|section| only(section));
    near.or_else(|| called(&name)).or_else(|| only(""))
}

/// What other programs call a key.
pub fn names(key: &str) -> &'static [&'static str] {
    let found = NAMES.iter().find(|(known, _)| *known == key);
    found.map_or(&[], |(_, names)| names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn every_name_means_one_key_and_is_none() {
        let mut seen = std::collections::BTreeSet::new();
        for (key, names) in NAMES {
            let known = keys::find(key).or_else(|| keys::hydra::find(key));
            assert!(known.is_some(), "{key}");
            assert!(!names.is_empty(), "{key}");
            for name in *names {
                assert!(seen.insert(*name), "{name} stands twice");
                assert_eq!(called(name), Some(*key));
                assert!(keys::find(name).is_none(), "{name} is a key");
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(name.chars().all(plain), "{name}");
            }
        }
        assert_eq!(called("training.LR"), Some("training.learning_rate"));
        assert_eq!(called("num-train-epochs"), Some("training.epochs"));
        assert_eq!(called("learning_rate"), None);
        for (name, sections, key) in [
            ("lora.r", &[][..], Some("lora.r")),
            ("Learning_Rate", &[], Some("training.learning_rate")),
            ("batch_size", &[], Some("training.batch_size")),
            ("batch_size", &["inference"], Some("inference.batch_size")),
            ("enabled", &[], Some("inference.validation.enabled")),
            ("max_tokens", &["synth"], Some("synth.max_tokens")),
            ("dtype", &[], Some("training.bf16")),
            ("base_url", &[], None),
        ] {
            assert_eq!(meant(name, sections), key, "{name}");
        }
        for name in ["synth.rank", "judge.model_name", "hydra.lr", "model.gpu"] {
            assert_eq!(called(name), None, "{name}");
        }
    }
}
