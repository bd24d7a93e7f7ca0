//! Tokens that a model's `tokenizer_config.json` names beside `tokenizer.json`.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use tokenizers::AddedToken;

/// The special tokens that have names, in the order of transformers.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Adds the tokens that `tokenizer_config.json` names and `tokenizer.json` does not
/// have, as transformers does: those of `added_tokens_decoder` by their ids, then `eos_token`
/// and its like, then the `additional_special_tokens` (transformers 5: `extra_special_tokens`).
///
/// # Errors
/// What is wrong: a token that would get another id than the file gives it.
pub(super) fn add_tokens(inner: &mut tokenizers::Tokenizer, config: &Value) -> Result<(), String> {
    let known: HashSet<String> = (inner.get_added_tokens_decoder().into_values())
        .map(|token| token.content)
        .collect();
    let mut by_id = BTreeMap::new();
    if let Some(all) = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
    {
        for (id, token) in all {
            let wrong = || format!("`added_tokens_decoder` has {id}: {token}, which is no token");
            let number: u32 = id.parse().map_err(|_| wrong())?;
            by_id.insert(number, added_token(token).ok_or_else(wrong)?);
        }
    }
    for (id, token) in by_id {
        if known.contains(&token.content) {
            continue;
        }
        let content = token.content.clone();
        inner.add_tokens(&[token]);
        let given = inner.token_to_id(&content);
        if given != Some(id) {
            let given = given.map_or("none".to_string(), |id| id.to_string());
            return Err(format!(
                "`added_tokens_decoder` gives `{content}` the id {id}, but after tokenizer.json it \
                 would get {given}; the two files belong to different models"
            ));
        }
    }
    for name in NAMED {
        let Some(token) = config.get(name).filter(|token| !token.is_null()) else {
            continue;
        };
        let wrong = || format!("`{name}` is {token}, which is no token");
        add_special(inner, added_token(token).ok_or_else(wrong)?);
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        for token in config
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let wrong = || format!("`{key}` has {token}, which is no token");
            add_special(inner, added_token(token).ok_or_else(wrong)?);
        }
    }
    Ok(())
}

/// Adds a special token, unless it is there.
fn add_special(inner: &mut tokenizers::Tokenizer, mut token: AddedToken) {
    let held = inner.get_added_tokens_decoder();
    if !token.content.is_empty() && !held.values().any(|held| held.content == token.content) {
        token.special = true;
        inner.add_special_tokens(&[token]);
    }
}

/// A token with its flags, or its text alone, which is a special token.
fn added_token(value: &Value) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(AddedToken::from(text, true));
    }
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_string(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::Tokenizer;
    use super::super::tokenizer::tests::{put, write_words};

    #[test]
    fn tokens_of_tokenizer_config_are_added() {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), false, &["a", "b", "ab"]);
        let config = |text: &str| put(dir.path(), "tokenizer_config.json", text);
        let load = || Tokenizer::load(dir.path());
        let plain = load().unwrap();
        // A word becomes a token wherever it stands, new ones get the next ids, and what
        // tokenizer.json has stays as it is.
        config(
            r#"{"added_tokens_decoder": {
                "6": {"content": "<tool>", "special": true},
                "1": {"content": "</s>", "special": true},
                "5": {"content": "ab", "special": false, "normalized": false}},
                "additional_special_tokens": ["<tool>", "<think>"], "eos_token": "<end>",
                "bos_token": null}"#,
        );
        let t = load().unwrap();
        assert_eq!(
            t.encode("a<tool>b abb<think></s><end>", false).unwrap(),
            [3, 6, 4, 5, 4, 8, 1, 7]
        );
        assert_eq!((t.vocab_size(), plain.vocab_size()), (9, 6));
        assert_eq!(t.eos_id().unwrap(), 7);
        assert!(t.is_mark(6) && t.is_mark(8) && !t.is_mark(5));
        assert_ne!(t.fingerprint().unwrap(), plain.fingerprint().unwrap());
        for (text, part) in [
            (
                r#"{"added_tokens_decoder": {"9": {"content": "<tool>"}}}"#,
                "gives `<tool>` the id 9, but after tokenizer.json it would get 6",
            ),
            (
                r#"{"added_tokens_decoder": {"x": {"content": "<tool>"}}}"#,
                "`added_tokens_decoder` has x:",
            ),
            (
                r#"{"additional_special_tokens": [3]}"#,
                "`additional_special_tokens` has 3",
            ),
        ] {
            config(text);
            let error = load().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("tokenizer_config.json"),
                "{error}"
            );
        }
    }
}
