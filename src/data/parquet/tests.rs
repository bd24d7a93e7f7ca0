//! Files that pyarrow wrote (tests/python/parquet_files.py), whole, cut off and damaged.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::*;
use crate::config::types::{DataConfig, DataFormat, OnError};
use crate::data::{Answers, Read, Want, read_examples};
use crate::rng::Stream;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/parquet"
    ))
    .join(name)
}

fn config(on_error: OnError) -> DataConfig {
    DataConfig {
        path: None,
        test_path: None,
        format: None,
        on_error,
        cache: "off".to_string(),
        columns: IndexMap::new(),
    }
}

fn read(path: &Path, kind: TaskKind, on_error: OnError) -> Result<Read, DataError> {
    read_examples(path, &config(on_error), Want::new(kind, Answers::Required))
}

fn examples(name: &str, kind: TaskKind) -> Vec<Example> {
    read(&fixture(name), kind, OnError::Fail).unwrap().examples
}

/// The rows of a file as objects.
fn rows(path: &Path) -> Rows {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let mut leaves = Vec::new();
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let shape = shape::of(&schema, &mut leaves).unwrap();
    Rows {
        spec: Spec {
            path: Arc::from(path),
            kind: TaskKind::Text,
            by_row: false,
            tasks: None,
            answers: Answers::Required,
            columns: IndexMap::new(),
        },
        file,
        shape,
        leaves,
        group: 0,
        columns: Vec::new(),
        left: 0,
        ready: 0,
        row: 0,
        into: Into::Tokens,
        done: false,
    }
}

#[test]
fn every_type_reads_as_pyarrow_reads_it() {
    for (name, count) in [
        ("snappy", 70),
        ("zstd", 30),
        ("gzip", 20),
        ("none", 20),
        ("delta", 20),
    ] {
        let mut rows = rows(&fixture(&format!("types_{name}.parquet")));
        let wanted = std::fs::read_to_string(fixture(&format!("types_{name}.jsonl"))).unwrap();
        let mut seen = 0;
        for line in wanted.lines() {
            let wanted: Map<String, Value> = serde_json::from_str(line).unwrap();
            let Ok(Some(found)) = rows.object() else {
                panic!("{name}: row {} is missing", seen + 1);
            };
            for (column, value) in &wanted {
                let found = found.get(column);
                assert_eq!(found, Some(value), "{name}, {column}, row {}", seen + 1);
            }
            assert_eq!(found.len(), wanted.len());
            seen += 1;
        }
        assert_eq!(seen, count);
        assert!(matches!(rows.object(), Ok(None)));
    }
}

#[test]
fn sets_of_the_hub_read_as_they_are() {
    let squad = examples("squad.parquet", TaskKind::Saq);
    assert_eq!(squad.len(), 7);
    assert_eq!(
        (
            squad[3].id.as_str(),
            squad[3].row,
            squad[3].answers.join("|")
        ),
        ("q3", 4, "3 km|3".to_string())
    );
    assert_eq!(squad[3].context.as_deref(), Some("River 3 is 3 km long."));
    assert_eq!(squad[3].fields, [("title".into(), "Rivers".to_string())]);

    let mmlu = examples("mmlu.parquet", TaskKind::Mcq);
    assert_eq!(mmlu.len(), 5);
    assert_eq!(mmlu[2].options, ["is 3", "is 6", "is 9", "is 12"]);
    assert_eq!(mmlu[2].answer_index, Some(1));

    for (name, rows) in [("messages.parquet", 2), ("share_gpt.parquet", 1)] {
        let talks = examples(name, TaskKind::Text);
        assert_eq!(talks.len(), rows);
        let messages = &talks[0].conversation.as_ref().unwrap().messages;
        assert_eq!(messages[0]["role"], "user", "{name}");
        assert_eq!(messages[1]["content"], "Hello.", "{name}");
    }
    let tokens = examples("tokens.parquet", TaskKind::Text);
    let second = tokens[1].tokens.as_ref().unwrap();
    assert_eq!(
        (&second.input_ids[..], &second.labels[..]),
        (&[4, 5][..], &[-100, 5][..])
    );

    // Images beside the text are left alone.
    let text = read(&fixture("text.parquet"), TaskKind::Text, OnError::Skip).unwrap();
    assert_eq!(text.examples[1].text.as_deref(), Some("Two."));
    assert_eq!(text.examples[0].fields[0].1, r#"{"path":"a.png"}"#);
    assert!(
        text.skipped[0]
            .to_string()
            .ends_with("text.parquet:2: text is empty: fill it or remove the row")
    );
}

#[test]
fn a_format_that_is_named_otherwise_is_refused() {
    let mut data = config(OnError::Fail);
    let want = Want::new(TaskKind::Saq, Answers::Required);
    data.format = Some(DataFormat::Squad);
    let error = read_examples(&fixture("squad.parquet"), &data, want.clone()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("is a Parquet file: set data.format=parquet"),
        "{text}"
    );
    data.format = Some(DataFormat::Parquet);
    assert_eq!(
        read_examples(&fixture("squad.parquet"), &data, want.clone())
            .unwrap()
            .examples
            .len(),
        7
    );
}

#[test]
fn a_codec_that_is_not_built_in_is_named() {
    let bytes = std::fs::read(fixture("text.parquet")).unwrap();
    // The column's path in the footer, and behind it the number of its codec.
    let snappy = b"\x19\x18\x04text\x15\x02";
    let at = bytes.windows(snappy.len()).position(|w| w == snappy);
    let at = at.unwrap() + snappy.len() - 1;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    for (number, codec) in [(4, "Brotli"), (5, "LZ4"), (7, "LZ4")] {
        let mut bytes = bytes.clone();
        bytes[at] = 2 * number;
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, TaskKind::Text, OnError::Fail).unwrap_err();
        let text = error.to_string();
        let what = format!("a.parquet: column 'text' is compressed with {codec}, which");
        assert!(text.contains(&what), "{text}");
        assert!(text.contains("zstd or snappy"), "{text}");
    }
}

#[test]
fn columns_are_mapped_and_missing_ones_named() {
    let mut data = config(OnError::Fail);
    let name = |n: &str| Some(n.to_string());
    data.columns.insert("question".to_string(), name("context"));
    data.columns.insert("answer".to_string(), name("title"));
    let want = Want::new(TaskKind::Saq, Answers::Required);
    let read = read_examples(&fixture("squad.parquet"), &data, want.clone()).unwrap();
    assert_eq!(
        read.examples[0].question.as_deref(),
        Some("River 0 is 0 km long.")
    );
    assert_eq!(read.examples[0].answers, ["Rivers"]);
    data.columns.insert("answer".to_string(), name("titel"));
    data.on_error = OnError::Skip;
    let error = read_examples(&fixture("squad.parquet"), &data, want).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no column 'titel' for answer"), "{text}");
    assert!(text.ends_with("set data.columns.answer=title"), "{text}");
}

#[test]
fn bad_rows_are_named_and_can_be_skipped() {
    let path = fixture("bad.parquet");
    let first = read(&path, TaskKind::Mcq, OnError::Fail).unwrap_err();
    let place = path.display();
    let utf8 = "column 'question' is not valid UTF-8: save the file as UTF-8";
    assert_eq!(first.to_string(), format!("{place}:2: {utf8}"));
    let read = read(&path, TaskKind::Mcq, OnError::Skip).unwrap();
    assert_eq!(read.examples.len(), 1);
    let said: Vec<String> = read.skipped.iter().map(DataError::to_string).collect();
    for (said, (row, what)) in said.iter().zip([
        (2, utf8),
        (3, "id 'a' was used before, on line 1"),
        (4, "question is empty"),
        (5, "answer 'z' matches no option"),
        (6, "answer is empty"),
    ]) {
        assert!(
            said.starts_with(&format!("{place}:{row}: {what}")),
            "{said}"
        );
    }
    assert_eq!(said.len(), 5);
}

#[test]
fn a_file_cut_off_or_damaged_ends_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let random = Stream::new(12, &[]);
    let mut refused = 0;
    for name in ["squad", "types_delta", "types_zstd", "types_none"] {
        let whole = std::fs::read(fixture(&format!("{name}.parquet"))).unwrap();
        let all = rows_of(&fixture(&format!("{name}.parquet"))).unwrap();
        let path = folder.path().join("a.parquet");
        for case in 0..40u64 {
            let mut bytes = whole.clone();
            let at = |n: u64, below: usize| random.bits(case * 8 + n) as usize % below;
            match case % 4 {
                0 => bytes.truncate(4 + at(0, bytes.len() - 4)),
                1 => {
                    let from = 4 + at(0, bytes.len() / 2);
                    bytes.drain(from..from + 1 + at(1, 50));
                }
                // Within the data, whose pages are at the front.
                2 => {
                    let i = 4 + at(0, bytes.len() / 2);
                    bytes[i] ^= 1 << at(1, 8);
                }
                _ => {
                    let i = bytes.len() - 1 - at(0, bytes.len() / 2);
                    bytes[i] = at(1, 256) as u8;
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            match rows_of(&path) {
                // What was changed may be a value, or nothing that is read.
                Ok(rows) => assert!(case % 4 > 1 || rows == all, "{name}, {case}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("a.parquet"), "{text}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 80, "{refused}");
}

/// A file without rows, whose one column lies within so many groups.
fn nested(groups: usize) -> Vec<u8> {
    // Version 1; the schema, of so many elements.
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    let mut count = groups + 2;
    while count > 0x7f {
        footer.push(count as u8 | 0x80);
        count >>= 7;
    }
    footer.push(count as u8);
    for _ in 0..=groups {
        // Required, named g, with one field.
        footer.extend(b"\x35\x00\x18\x01g\x15\x02\x00");
    }
    // Bytes of UTF-8, required, named text.
    footer.extend(b"\x15\x0c\x25\x00\x18\x04text\x25\x00\x00");
    // No rows, no row groups.
    footer.extend(b"\x16\x00\x19\x0c\x00");
    let length = (footer.len() as u32).to_le_bytes();
    [MAGIC, &footer, &length, MAGIC].concat()
}

#[test]
fn a_schema_nested_too_deep_is_refused_before_it_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let refusal = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, TaskKind::Text, OnError::Fail).err().unwrap();
        error.to_string()
    };
    for groups in [33, 1000, 200_000] {
        let text = refusal(&nested(groups));
        assert!(text.contains("nested deeper than 32"), "{groups}: {text}");
    }
    for groups in [0, 32] {
        std::fs::write(&path, nested(groups)).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(footer::check(&file), Ok(()), "{groups}");
        assert_eq!(rows(&path).shape.len(), 1, "{groups}");
    }
    // A group that has more fields than the file.
    let mut bytes = nested(0);
    let at = bytes.windows(3).position(|w| w == b"g\x15\x02").unwrap();
    bytes[at + 2] = 4;
    let text = refusal(&bytes);
    assert!(text.contains("its schema contradicts itself"), "{text}");
}

/// The number of examples, whatever they are.
fn rows_of(path: &Path) -> Result<usize, DataError> {
    let mut data = config(OnError::Fail);
    if !path.to_string_lossy().contains("squad") {
        data.columns
            .insert("text".to_string(), Some("whole".to_string()));
    }
    let kind = match path.to_string_lossy().contains("squad") {
        true => TaskKind::Saq,
        false => TaskKind::Text,
    };
    data.on_error = OnError::Skip;
    let read = read_examples(path, &data, Want::new(kind, Answers::Required))?;
    Ok(read.examples.len())
}
