use super::*;
use crate::data::example::TokenRow;
use crate::data::tokenizer::tests::write_words;

const WORDS: [&str; 6] = ["q1", "q2", "q3", "q4", "a1", "a2"];

/// `<s>` 0, `</s>` 1, q1..q4 3..6, a1 a2 7 8.
fn tokenizer() -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    write_words(dir.path(), true, &WORDS);
    std::fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"eos_token": "</s>"}"#,
    )
    .unwrap();
    Tokenizer::load(dir.path()).unwrap()
}

fn config(template: &str, answer: &str) -> PromptConfig {
    PromptConfig {
        template: template.to_string(),
        answer: answer.to_string(),
        ..PromptConfig::default()
    }
}

fn question(question: &str, answer: &str) -> Example {
    Example {
        row: 2,
        question: Some(question.to_string()),
        answers: vec![answer.to_string()],
        ..Example::default()
    }
}

fn encode(e: Example, kind: TaskKind, max: usize) -> Result<Encoded, EncodeError> {
    let t = tokenizer();
    let config = match kind {
        TaskKind::Text => config("", "{text}"),
        _ => config("{question}", " {answer}"),
    };
    Encoder::new(&config, kind, Some(&t), max)
        .unwrap()
        .encode(&[e], Path::new("d.csv"))
}

#[test]
fn the_prompt_is_masked_and_eos_supervised() {
    let got = encode(question("q1 q2", "a1"), TaskKind::Saq, 64).unwrap();
    let want = Sample {
        row: 2,
        input_ids: vec![0, 3, 4, 7, 1],
        labels: vec![-100, -100, -100, 7, 1],
        cut: 0,
    };
    assert_eq!(got.samples, [want]);
    let report = EncodeReport {
        samples: 1,
        tokens: 5,
        supervised_tokens: 2,
        truncated: 0,
        longest_whole: 5,
        longest: 5,
        largest_id: 7,
    };
    assert_eq!(got.report, report);
    let ended = encode(question("q1", "a1 </s>"), TaskKind::Saq, 64).unwrap();
    assert_eq!(ended.samples[0].input_ids, [0, 3, 7, 1]);
}

#[test]
fn a_merge_across_the_boundary_joins_the_parts() {
    let t = tokenizer();
    // "q1" + "2" would be the one unknown word "q12".
    let parts = join(&t, "q2 q1".to_string(), "a1", true).unwrap();
    assert_eq!(parts, (vec![0, 4, 3], vec![7]));
}

#[test]
fn a_part_that_is_joined_has_no_blank_of_its_own() {
    // As Llama's: a blank before each text, and a word of the vocabulary that goes over the
    // boundary between the parts.
    let dir = tempfile::tempdir().unwrap();
    let vocab = [
        "<unk>", "\n", "▁", "Q", ":", "B", "▁Q", "▁B", "o", "▁Bo", ":▁",
    ];
    let ids: serde_json::Map<String, serde_json::Value> = (0..)
        .zip(vocab)
        .map(|(id, word)| (word.to_string(), serde_json::Value::from(id)))
        .collect();
    let file = serde_json::json!({"version": "1.0", "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": ids,
            "merges": [[":", "▁"], ["▁", "Q"], ["▁", "B"], ["▁B", "o"]]}});
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let t = Tokenizer::load(dir.path()).unwrap();
    let id = |word: &str| vocab.iter().position(|w| *w == word).unwrap() as u32;
    let whole = t.encode("Q: Bo", false).unwrap();
    assert_eq!(whole, ["▁Q", ":▁", "B", "o"].map(id));
    let parts = join(&t, "Q:".to_string(), " Bo", false).unwrap();
    assert_eq!(parts, (["▁Q", ":"].map(id).to_vec(), vec![id("▁Bo")]));
    assert_eq!(t.encode("Bo", false).unwrap(), [id("▁Bo")]);
    assert_eq!(t.encode_after("Bo").unwrap(), ["B", "o"].map(id));
}

#[test]
fn truncation_cuts_the_prompt_before_the_answer() {
    let cut = |max| encode(question("q1 q2 q3 q4", "a1 a2"), TaskKind::Saq, max).unwrap();
    assert_eq!(cut(8).samples[0].cut, 0);
    let got = cut(6);
    assert_eq!(got.samples[0].input_ids, [0, 5, 6, 7, 8, 1]);
    assert_eq!(
        (
            got.samples[0].cut,
            got.report.truncated,
            got.report.longest_whole
        ),
        (2, 1, 8)
    );
    // Half the length stays with the prompt; the answer loses its end.
    assert_eq!(cut(4).samples[0].input_ids, [0, 6, 7, 8]);
    assert_eq!(cut(2).samples[0].labels, [-100, 7]);
}

#[test]
fn a_sample_without_supervision_is_refused_with_the_length_that_fits() {
    let error = encode(question("q1 q2", "a1"), TaskKind::Saq, 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("d.csv:2: training.max_seq_length=1 leaves no supervised token in 1"),
        "{error}"
    );
    assert!(error.ends_with("set training.max_seq_length=5"), "{error}");
    let row = |labels: Vec<i64>| Example {
        row: 4,
        tokens: Some(TokenRow {
            input_ids: vec![3; labels.len()],
            labels,
        }),
        ..Example::default()
    };
    let error = encode(row(vec![-100, -100, 7]), TaskKind::Saq, 2)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("(rows 4)") && error.ends_with("max_seq_length=3"),
        "{error}"
    );
    let error = encode(row(vec![7, -100]), TaskKind::Saq, 8).unwrap_err();
    assert!(
        matches!(error, EncodeError::Unsupervised { ref rows, .. } if rows[..] == [4]),
        "{error}"
    );
    assert_eq!(
        encode(row(vec![7, 9, -100]), TaskKind::Text, 2)
            .unwrap()
            .samples[0]
            .labels,
        [7, 9]
    );
}

#[test]
fn documents_split_so_that_each_token_is_a_target_once() {
    for max in 2..12 {
        let text = Some("q1 q2 q3 q4 a1 a2 q1 q2".to_string());
        let got = encode(
            Example {
                row: 1,
                text,
                ..Example::default()
            },
            TaskKind::Text,
            max,
        )
        .unwrap();
        let targets: Vec<i64> = got
            .samples
            .iter()
            .flat_map(|s| s.labels[1..].to_vec())
            .collect();
        assert_eq!(targets, [3, 4, 5, 6, 7, 8, 3, 4, 1], "{max}");
        assert!(
            got.samples
                .iter()
                .all(|s| s.input_ids.len() <= max && s.cut == 0)
        );
        assert_eq!(got.report.supervised_tokens, 9);
    }
}

#[test]
fn prompts_for_generation_are_the_training_prompts() {
    let t = tokenizer();
    let encoder = Encoder::new(
        &config("{question}", " {answer}"),
        TaskKind::Saq,
        Some(&t),
        64,
    )
    .unwrap();
    let e = question("q1 q2 q3", "a1");
    let path = Path::new("d.csv");
    assert_eq!(encoder.prompt_ids(&e, path, 64).unwrap(), [0, 3, 4, 5]);
    assert_eq!(encoder.prompt_ids(&e, path, 3).unwrap(), [0, 4, 5]);
    assert_eq!(encoder.prompt_ids(&e, path, 1).unwrap(), [5]);
    let none = Encoder::new(&config("{question}", ""), TaskKind::Saq, None, 64).unwrap();
    assert!(
        none.encode(&[e], path)
            .unwrap_err()
            .to_string()
            .contains("data.format=tokens")
    );
}
