//! The encoder against sentence-transformers, on a tiny BERT with random weights
//! (tests/python/bert_fixture.py), and against files that are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::rng::Stream;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert")
}

/// A copy of the fixture that may be spoiled.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixture()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    let pooling = "1_Pooling/config.json";
    fs::copy(fixture().join(pooling), dir.path().join(pooling)).unwrap();
    dir
}

fn edit(dir: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn refusal(dir: &Path) -> String {
    let text = SentenceEncoder::check(dir).unwrap_err().to_string();
    assert_eq!(SentenceEncoder::load(dir).err().unwrap().to_string(), text);
    text
}

fn near(got: &[f32], want: &[f32], within: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= within, "{what}: {got} {want}");
    }
}

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    modes: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

#[test]
fn vectors_are_those_of_sentence_transformers_in_every_mode() {
    let bytes = fs::read(fixture().join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&bytes).unwrap();
    assert!(expected.texts.len() > 8 && expected.cases.len() == 5);
    let dir = copy();
    for case in &expected.cases {
        let pooling = json!({"embedding_dimension": 24, "pooling_mode": case.modes});
        fs::write(
            dir.path().join("1_Pooling/config.json"),
            pooling.to_string(),
        )
        .unwrap();
        let encoder = SentenceEncoder::load(dir.path()).unwrap();
        assert_eq!(encoder.width(), 24 * case.modes.len());
        let vectors = encoder.embed(&expected.texts).unwrap();
        assert_eq!(vectors.len(), expected.texts.len());
        for ((got, want), text) in vectors.iter().zip(&case.vectors).zip(&expected.texts) {
            near(got, want, 1e-5, &format!("{:?} {text:?}", case.modes));
        }
    }
    // The older switches, as the fixture's own file has them: the mean.
    let encoder = SentenceEncoder::load(&fixture()).unwrap();
    let vectors = encoder.embed(&expected.texts).unwrap();
    near(&vectors[0], &expected.cases[0].vectors[0], 1e-5, "switches");
}

#[test]
fn a_text_has_the_same_vector_alone_and_in_company() {
    let encoder = SentenceEncoder::load(&fixture()).unwrap();
    let words = ["the", "river", "oslo", "cat", "1874", "zebra", ",", "warm"];
    let s = Stream::new(3, &[]);
    // More than one batch, of unequal lengths.
    let texts: Vec<String> = (0..900u64)
        .map(|i| {
            let length = s.bits(i) % 20;
            let word = |j: u64| words[(s.bits(1000 + 31 * i + j) % 8) as usize];
            (0..length).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let together = encoder.embed(&texts).unwrap();
    assert_eq!(together.len(), texts.len());
    for i in (0..texts.len()).step_by(45) {
        let alone = encoder.embed(&texts[i..=i]).unwrap();
        near(&together[i], &alone[0], 1e-6, &texts[i]);
        let length: f64 = alone[0].iter().map(|x| f64::from(x * x)).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    assert!(encoder.embed::<&str>(&[]).unwrap().is_empty());
}

#[test]
fn texts_are_cut_where_the_model_ends() {
    let dir = copy();
    let long = "the cat and the cat and the cat and the cat and the cat and rome and oslo";
    let embed = |text: &str| {
        let encoder = SentenceEncoder::load(dir.path()).unwrap();
        encoder.embed(&[text]).unwrap().remove(0)
    };
    // 16 tokens with [CLS] and [SEP]: 14 words.
    let cut = "the cat and the cat and the cat and the cat and the cat";
    near(&embed(long), &embed(cut), 1e-6, "max_seq_length");
    assert!(cosine(&embed(long), &embed("the cat and the cat")) < 0.9999);
    // The tokenizer's own bound, where the other is not given; then the positions.
    edit(dir.path(), "sentence_bert_config.json", |v| {
        v["max_seq_length"] = Value::Null
    });
    near(
        &embed(long),
        &embed(&format!("{cut} and rome")),
        1e-6,
        "model_max_length",
    );
    edit(dir.path(), "tokenizer_config.json", |v| {
        v["model_max_length"] = json!(1e30)
    });
    let more = format!("{cut} and rome and oslo");
    near(
        &embed(&format!("{more} cat cat")),
        &embed(&more),
        1e-6,
        "positions",
    );
    edit(dir.path(), "sentence_bert_config.json", |v| {
        v["max_seq_length"] = json!(4)
    });
    near(&embed(long), &embed("the cat"), 1e-6, "4 tokens");
}

#[test]
fn a_plain_checkpoint_with_a_head_is_read_too() {
    let dir = copy();
    for file in [
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ] {
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    // As BertForMaskedLM and old conversions name the tensors.
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().map(|(name, tensor)| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        (
            format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta")),
            tensor,
        )
    });
    let written = safetensors::serialize(renamed, None).unwrap();
    fs::write(dir.path().join("model.safetensors"), written).unwrap();
    let plain = SentenceEncoder::load(dir.path()).unwrap();
    let whole = SentenceEncoder::load(&fixture()).unwrap();
    let text = ["the river flows past oslo"];
    let (plain, whole) = (plain.embed(&text).unwrap(), whole.embed(&text).unwrap());
    // A mean without normalisation: of another length, in the same direction.
    assert!(cosine(&plain[0], &whole[0]) > 1.0 - 1e-9);
    assert!((plain[0][0] - whole[0][0]).abs() > 1e-3);
}

#[test]
fn missing_files_are_named() {
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        let dir = copy();
        fs::remove_file(dir.path().join(file)).unwrap();
        let text = refusal(dir.path());
        assert!(
            text.contains(&*dir.path().to_string_lossy()) && text.contains(file),
            "{text}"
        );
    }
    assert!(
        refusal(Path::new("no/such/encoder")).contains("no/such/encoder/config.json: cannot read")
    );
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let changed = |file: &str, change: &dyn Fn(&mut Value)| {
        let dir = copy();
        edit(dir.path(), file, change);
        refusal(dir.path())
    };
    for (key, value, wanted) in [
        (
            "model_type",
            json!("mpnet"),
            "`mpnet` is not supported; supported: bert",
        ),
        ("model_type", Value::Null, "model_type `` is not supported"),
        (
            "position_embedding_type",
            json!("relative_key"),
            "`relative_key` is not supported",
        ),
        ("hidden_act", json!("relu"), "`relu` is not supported"),
        ("is_decoder", json!(true), "this is a decoder"),
        (
            "num_attention_heads",
            json!(5),
            "hidden_size=24 is no multiple",
        ),
        ("hidden_size", json!("big"), "`hidden_size` is \"big\""),
        (
            "intermediate_size",
            json!(41),
            "has shape [40, 24], but config.json asks for [41, 24]",
        ),
        (
            "num_hidden_layers",
            json!(3),
            "`encoder.layer.2.attention.self.query.weight` is missing",
        ),
        ("vocab_size", json!(5), "has shape"),
    ] {
        let text = changed("config.json", &|v| v[key] = value.clone());
        assert!(text.contains(wanted), "{key}: {text}");
    }
    let text = changed("modules.json", &|v| v[2]["type"] = json!("x.Dense"));
    assert!(text.contains("module 2 is `x.Dense`"), "{text}");
    let text = changed("modules.json", &|v| v[1]["path"] = json!("../elsewhere"));
    assert!(text.contains("outside the model's directory"), "{text}");
    let text = changed("modules.json", &|v| *v = json!({}));
    assert!(text.contains("a list of modules"), "{text}");
    let switch = "pooling_mode_weightedmean_tokens";
    let text = changed("1_Pooling/config.json", &|v| v[switch] = json!(true));
    assert!(
        text.contains(switch) && text.contains("mean_sqrt_len_tokens"),
        "{text}"
    );
    let text = changed("1_Pooling/config.json", &|v| {
        v["pooling_mode"] = json!("lasttoken")
    });
    assert!(text.contains("`lasttoken` is not supported"), "{text}");
    let text = changed("tokenizer.json", &|v| v["post_processor"] = Value::Null);
    assert!(
        text.contains("tokenizer.json: puts no special tokens"),
        "{text}"
    );
    let dir = copy();
    let prompts = dir.path().join("config_sentence_transformers.json");
    fs::write(prompts, r#"{"default_prompt_name": "query"}"#).unwrap();
    assert!(refusal(dir.path()).contains("the prompt `query`"));
}

#[test]
fn an_encoder_without_room_for_a_text_is_refused() {
    for (file, key) in [
        ("config.json", "max_position_embeddings"),
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ] {
        for most in [1, 2] {
            let dir = copy();
            if key == "model_max_length" {
                fs::remove_file(dir.path().join("sentence_bert_config.json")).unwrap();
            }
            edit(dir.path(), file, |v| v[key] = json!(most));
            let text = refusal(dir.path());
            let wanted = format!("{file}: `{key}` allows {most} tokens and the special tokens");
            assert!(text.contains(&wanted), "{text}");
        }
    }
    let dir = copy();
    edit(dir.path(), "sentence_bert_config.json", |v| {
        v["max_seq_length"] = json!(3)
    });
    SentenceEncoder::check(dir.path()).unwrap();
}

#[test]
fn damaged_weights_are_named() {
    let dir = copy();
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains("model.safetensors: "), "{length}: {text}");
    }
    let mut spoiled = bytes.clone();
    let last = spoiled.len() - 4;
    spoiled[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, spoiled).unwrap();
    let text = SentenceEncoder::load(dir.path()).err().unwrap().to_string();
    assert!(text.contains("holds NaN"), "{text}");
}

#[test]
fn a_token_that_the_model_lacks_is_an_error() {
    let dir = copy();
    edit(dir.path(), "tokenizer.json", |v| {
        v["model"]["vocab"]["zebra"] = json!(900)
    });
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    assert!(encoder.embed(&["the cat"]).is_ok());
    let text = encoder.embed(&["zebra"]).unwrap_err().to_string();
    assert!(
        text.contains("tokenizer.json: gives the token id 900"),
        "{text}"
    );
}

#[test]
fn cosines() {
    assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
    assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
    assert_eq!(cosine(&[1.0, 1.0], &[-2.0, -2.0]), -1.0);
    assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
}

#[derive(Deserialize)]
struct Pairs {
    model: PathBuf,
    pairs: Vec<[String; 2]>,
    scores: Vec<f64>,
    left: Vec<Vec<f32>>,
}

/// The pairs of the file in `KILN_SAS_CASES`: see tests/python/sas.py.
#[test]
fn as_sentence_transformers() {
    let Some(path) = std::env::var_os("KILN_SAS_CASES") else {
        println!("skipped: no KILN_SAS_CASES");
        return;
    };
    let cases: Pairs = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let encoder = SentenceEncoder::load(&cases.model).unwrap();
    let of = |side: usize| {
        let texts: Vec<&String> = cases.pairs.iter().map(|pair| &pair[side]).collect();
        encoder.embed(&texts).unwrap()
    };
    let (left, right) = (of(0), of(1));
    for (got, want) in left.iter().zip(&cases.left) {
        near(got, want, 1e-4, "vector");
    }
    let pairs = left.iter().zip(&right).zip(&cases.scores);
    let off = pairs.map(|((a, b), want)| (cosine(a, b) - want).abs());
    let worst = off.fold(0.0, f64::max);
    println!(
        "{} pairs, largest difference {worst:.2e}",
        cases.pairs.len()
    );
    assert!(cases.pairs.len() >= 100 && worst < 1e-4, "{worst}");
}
