use super::*;

const SPECIAL: [&str; 3] = ["<s>", "</s>", "<eot>"];

/// A word-level tokenizer with BOS, EOS and an end-of-turn token.
pub(crate) fn write_words(dir: &Path, bos: bool, words: &[&str]) {
    let mut vocab = serde_json::Map::new();
    for word in SPECIAL.iter().chain(words) {
        let id = vocab.len();
        vocab.insert(word.to_string(), Value::from(id));
    }
    let added: Vec<Value> = (0..3)
        .map(|i| {
            serde_json::json!({"id": i, "content": SPECIAL[i], "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let post = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}});
    let tokenizer = serde_json::json!({"version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1,
            "pad_type_id": 0, "pad_token": "</s>"},
        "added_tokens": added, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": if bos { post } else { Value::Null }, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<eot>"}});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

pub(crate) fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

#[test]
fn stored_truncation_and_padding_are_off_and_bos_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    write_words(dir.path(), true, &["a", "b", "c"]);
    let t = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(
        t.encode("a b c a b c", true).unwrap(),
        [0, 3, 4, 5, 3, 4, 5]
    );
    assert_eq!(t.encode("a", false).unwrap(), [3]);
    assert_eq!(t.encode("<s> a", true).unwrap(), [0, 3]);
    assert_eq!(t.encode("", true).unwrap(), [0]);
    assert_eq!(t.decode(&[0, 3, 5, 1]).unwrap(), "a c");
    assert_eq!((t.prefix(), t.vocab_size()), (&[0][..], 6));
    assert!(matches!(t.eos_id(), Err(TokenizerError::NoEos(_))));
    assert!(t.eos_ids().is_empty());
}

#[test]
fn special_tokens_come_from_any_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    write_words(dir.path(), false, &["a"]);
    put(
        dir.path(),
        "config.json",
        r#"{"bos_token_id": 0, "eos_token_id": 1}"#,
    );
    let t = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((t.eos_id().unwrap(), t.eos_ids()), (1, &[1][..]));
    assert!(t.prefix().is_empty());
    put(
        dir.path(),
        "generation_config.json",
        r#"{"eos_token_id": [1, 3]}"#,
    );
    put(
        dir.path(),
        "special_tokens_map.json",
        r#"{"eos_token": {"content": "<eot>", "lstrip": false}}"#,
    );
    let t = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((t.eos_id().unwrap(), t.eos_ids()), (2, &[1, 3, 2][..]));
    put(
        dir.path(),
        "tokenizer_config.json",
        r#"{"eos_token": "</s>"}"#,
    );
    let t = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(t.eos_id().unwrap(), 1);
}

#[test]
fn missing_and_broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Tokenizer::load_optional(dir.path()).unwrap().is_none());
    let message = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json: no such file"),
        "{message}"
    );
    put(dir.path(), "tokenizer.json", "{\"version\":");
    assert!(matches!(
        Tokenizer::load(dir.path()),
        Err(TokenizerError::Bad { .. })
    ));
    write_words(dir.path(), true, &["a"]);
    put(dir.path(), "tokenizer_config.json", "[1,");
    let message = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer_config.json: bad JSON"),
        "{message}"
    );
}

#[test]
fn the_files_are_copied() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_words(from.path(), true, &["a"]);
    put(from.path(), "chat_template.jinja", "{{ messages }}");
    let t = Tokenizer::load(from.path()).unwrap();
    assert_eq!(t.copy_files(to.path()).unwrap().len(), 2);
    assert_eq!(
        Tokenizer::load(to.path())
            .unwrap()
            .encode("a", true)
            .unwrap(),
        [0, 3]
    );
    let missing = to.path().join("no");
    assert!(matches!(
        t.copy_files(&missing),
        Err(TokenizerError::Write { .. })
    ));
}

#[test]
fn agrees_with_transformers() {
    let shared = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/reference/tiny"
    ));
    let Ok(models) = fs::read_dir(shared) else {
        println!("skipped: no reference folder");
        return;
    };
    let mut checked = 0;
    for model in models {
        let dir = model.unwrap().path();
        let Ok(bytes) = fs::read(dir.join("reference_tokenizer.json")) else {
            continue;
        };
        let reference: Value = serde_json::from_slice(&bytes).unwrap();
        let t = Tokenizer::load(&dir).unwrap();
        for sample in reference["samples"].as_array().unwrap() {
            let text = sample["text"].as_str().unwrap();
            let special = t.encode(text, true).unwrap();
            assert_eq!(special, ids(Some(&sample["ids"])), "{dir:?} {text:?}");
            assert_eq!(
                t.encode(text, false).unwrap(),
                ids(Some(&sample["ids_no_special"])),
                "{dir:?} {text:?}"
            );
            assert_eq!(
                t.decode(&special).unwrap(),
                sample["decoded_skip"].as_str().unwrap(),
                "{dir:?} {text:?}"
            );
            checked += 1;
        }
    }
    assert!(checked > 0);
}

/// A `tokenizer.json` over the words a and b, with one part in place of its own.
fn with_part(dir: &Path, name: &str, part: Value) {
    write_words(dir, true, &["a", "b"]);
    let path = dir.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json[name] = part;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_file_that_makes_the_crate_panic_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let id = |name: &str| serde_json::json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
    let parts = [
        (
            "post_processor",
            serde_json::json!({"type": "TemplateProcessing", "single": [id("<s>"), text],
                "pair": [text, text], "special_tokens": {}}),
        ),
        (
            "pre_tokenizer",
            serde_json::json!({"type": "FixedLength", "length": 0}),
        ),
        (
            "normalizer",
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}),
        ),
        (
            "model",
            serde_json::json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
                "merges": ["a b"], "continuing_subword_prefix": "#####"}),
        ),
    ];
    for (name, part) in parts {
        with_part(dir.path(), name, part.clone());
        let error = match Tokenizer::load(dir.path()) {
            Err(error) => error,
            Ok(tokenizer) => tokenizer.encode("a b a", true).unwrap_err(),
        };
        let text = error.to_string();
        assert!(
            matches!(error, TokenizerError::Bad { .. }),
            "{part}: {text}"
        );
        assert!(
            text.contains("tokenizer.json: ") && text.contains("copy the file again"),
            "{text}"
        );
    }
}
