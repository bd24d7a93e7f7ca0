//! What a model's generation_config.json asks for and answers do without: the keys of
//! `inference` decide how answers are generated.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::types::{EarlyStopping, InferenceConfig};
use crate::model::hf_config::ConfigError;
use crate::model::hf_config::keys::{parse_object, read};

/// Fields that no key stands for, with the value that leaves them off.
fn without_a_key() -> [(&'static str, Value); 18] {
    [
        ("typical_p", json!(1.0)),
        ("epsilon_cutoff", json!(0.0)),
        ("eta_cutoff", json!(0.0)),
        ("top_h", Value::Null),
        ("penalty_alpha", json!(0.0)),
        ("no_repeat_ngram_size", json!(0)),
        ("num_beam_groups", json!(1)),
        ("diversity_penalty", json!(0.0)),
        ("bad_words_ids", json!([])),
        ("sequence_bias", json!({})),
        ("suppress_tokens", json!([])),
        ("begin_suppress_tokens", json!([])),
        ("forced_bos_token_id", Value::Null),
        ("forced_eos_token_id", Value::Null),
        ("exponential_decay_length_penalty", Value::Null),
        ("guidance_scale", json!(1.0)),
        ("min_length", json!(0)),
        ("min_new_tokens", json!(0)),
    ]
}

/// A line about the fields of `dir/generation_config.json` that would have changed
/// which tokens are answered; `None` where nothing differs.
///
/// # Errors
/// A file that is not JSON.
pub(super) fn set_aside(
    dir: &Path,
    inference: &InferenceConfig,
) -> Result<Option<String>, ConfigError> {
    let file = dir.join("generation_config.json");
    if !file.is_file() {
        return Ok(None);
    }
    let object = parse_object(&read(&file)?, &file)?;
    let differ = differing(&object, inference);
    Ok((!differ.is_empty()).then(|| {
        format!(
            "generation_config.json's {} {} set aside: the keys of inference decide how answers \
             are generated",
            differ.join(", "),
            if differ.len() == 1 { "is" } else { "are" },
        )
    }))
}

fn differing(object: &Map<String, Value>, inference: &InferenceConfig) -> Vec<String> {
    let i = inference;
    let early = match i.early_stopping {
        EarlyStopping::True => json!(true),
        EarlyStopping::False => json!(false),
        EarlyStopping::Never => json!("never"),
    };
    let mut used = vec![
        ("do_sample", json!(i.do_sample)),
        ("num_beams", json!(i.num_beams)),
        ("repetition_penalty", json!(i.repetition_penalty)),
    ];
    // What only sampling looks at is nothing to speak of where neither samples.
    let samples = |key: &str| object.get(key).and_then(Value::as_bool) == Some(true);
    if i.do_sample || samples("do_sample") {
        used.extend([
            ("temperature", json!(i.temperature)),
            ("top_p", json!(i.top_p)),
            ("top_k", json!(i.top_k.unwrap_or(0))),
            ("min_p", json!(i.min_p.unwrap_or(0.0))),
        ]);
    }
    let beams = object.get("num_beams").and_then(Value::as_u64);
    if i.num_beams > 1 || beams.is_some_and(|beams| beams > 1) {
        used.extend([
            ("length_penalty", json!(i.length_penalty)),
            ("early_stopping", early),
        ]);
    }
    used.extend(without_a_key());
    let set = used.into_iter().filter_map(|(key, used)| {
        let asked = object.get(key).filter(|asked| !asked.is_null())?;
        (!same(asked, &used)).then(|| format!("{key} {asked}"))
    });
    set.collect()
}

/// Whether both say the same, whole numbers and fractions alike.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Node;
    use crate::config::from_tree;

    fn note(file: &str) -> Option<String> {
        let config = from_tree(&Node::empty_map()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), file).unwrap();
        set_aside(dir.path(), &config.inference).unwrap()
    }

    #[test]
    fn only_fields_that_would_change_answers_are_named() {
        let quiet = r#"{"eos_token_id": [2, 3], "do_sample": false, "temperature": 0.6,
            "top_k": 50, "num_beams": 1, "repetition_penalty": 1, "length_penalty": 2.0,
            "bad_words_ids": null, "transformers_version": "5.0.0", "max_length": 4096}"#;
        assert_eq!(note(quiet), None);
        let said = note(
            r#"{"do_sample": true, "temperature": 0.6, "top_p": 1.0, "top_k": 20,
            "repetition_penalty": 1.05, "no_repeat_ngram_size": 2}"#,
        );
        assert_eq!(
            said.unwrap(),
            "generation_config.json's do_sample true, repetition_penalty 1.05, temperature 0.6, \
             top_k 20, no_repeat_ngram_size 2 are set aside: the keys of inference decide how \
             answers are generated"
        );
        let beams = note(r#"{"num_beams": 4, "length_penalty": 0.5}"#).unwrap();
        assert!(
            beams.contains("num_beams 4, length_penalty 0.5 are"),
            "{beams}"
        );
    }

    #[test]
    fn no_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let config = from_tree(&Node::empty_map()).unwrap();
        assert_eq!(set_aside(dir.path(), &config.inference).unwrap(), None);
    }
}
