//! A set of data is never in memory as a whole: every byte that the allocator gives
//! out while a large file becomes samples, counted.

use std::io::{BufWriter, Write};
use std::path::Path;

use indexmap::IndexMap;
use kiln::config::types::{DataConfig, DataFormat, OnError, PromptConfig, TaskKind};
use kiln::data::{Answers, Cache, Encoder, Samples, Source, Tokenised, Tokenizer, Want};

use crate::allocator::{alone, live, most_since};

const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": null, "decoder": null, "model": {"type": "WordLevel",
    "vocab": {"[UNK]": 0, "</s>": 1, "river": 2, "long": 3, "42": 4}, "unk_token": "[UNK]"}}"#;

/// A file of `rows` rows of a few kilobytes.
fn write(path: &Path, rows: usize, format: DataFormat) {
    let mut out = BufWriter::new(std::fs::File::create(path).unwrap());
    let text = "river long ".repeat(240);
    if format == DataFormat::Csv {
        writeln!(out, "id,question,answer").unwrap();
    }
    if format == DataFormat::Squad {
        write!(out, r#"{{"data": [{{"paragraphs": []}}"#).unwrap();
    }
    for row in 0..rows {
        match format {
            DataFormat::Csv => writeln!(out, "{row},\"{row} {text}\",42"),
            DataFormat::Text => writeln!(out, "{row} {text}"),
            DataFormat::Squad => writeln!(
                out,
                r#", {{"paragraphs": [{{"context": "", "qas": [{{"id": "{row}", "question": "{row} {text}",
                    "answers": [{{"text": "42"}}]}}]}}]}}"#
            ),
            _ => writeln!(
                out,
                r#"{{"id": {row}, "question": "{row} {text}", "answer": "42"}}"#
            ),
        }
        .unwrap();
    }
    if format == DataFormat::Squad {
        write!(out, r#"], "version": "1.1"}}"#).unwrap();
    }
    out.flush().unwrap();
}

/// Tokenises the file; with the most bytes that were given out at once.
fn tokenise(dir: &Path, path: &Path, kind: TaskKind) -> (Tokenised, usize) {
    let tokenizer = Tokenizer::load(dir).unwrap();
    let prompt = PromptConfig {
        template: match kind {
            TaskKind::Text => String::new(),
            _ => "{question} ".to_string(),
        },
        answer: match kind {
            TaskKind::Text => "{text}".to_string(),
            _ => "{answer}".to_string(),
        },
        ..PromptConfig::default()
    };
    let data = DataConfig {
        path: None,
        test_path: None,
        format: None,
        on_error: OnError::Fail,
        cache: "off".to_string(),
        columns: IndexMap::new(),
    };
    let encoder = Encoder::new(&prompt, kind, Some(&tokenizer), 1024).unwrap();
    let source = Source {
        path,
        data: &data,
        want: Want::new(kind, Answers::Required),
        encoder: &encoder,
    };
    let cache = Cache {
        dir: dir.join("tokens"),
        settings: String::new(),
        optional: false,
    };
    let before = live();
    most_since(before);
    let found = source.tokenise(Some(&cache)).unwrap();
    (found, most_since(before) as usize)
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::write(dir.join("tokenizer.json"), TOKENIZER).unwrap();
    std::fs::write(
        dir.join("tokenizer_config.json"),
        r#"{"eos_token": "</s>"}"#,
    )
    .unwrap();
    let (few, rows) = (1_500, 6_000);
    for (name, format, kind) in [
        ("a.csv", DataFormat::Csv, TaskKind::Saq),
        ("a.jsonl", DataFormat::Jsonl, TaskKind::Saq),
        ("a.txt", DataFormat::Text, TaskKind::Text),
        ("squad.json", DataFormat::Squad, TaskKind::Saq),
    ] {
        let path = dir.join(name);
        write(&path, few, format);
        let (_, most_of_few) = tokenise(dir, &path, kind);
        write(&path, rows, format);
        let size = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(size > 15 << 20);
        let (made, most) = tokenise(dir, &path, kind);
        assert_eq!((made.cached, made.store.len()), (false, rows), "{name}");
        println!("{name}: {most_of_few} bytes at most for {few} rows, {most} for {rows}");
        assert!(most < most_of_few + (2 << 20) && most < size);
        // Found again, it is mapped: not even what is left of it is allocated.
        let (found, most) = tokenise(dir, &path, kind);
        assert!(found.cached && most < 3 << 20, "{name}: {most} bytes");
        let last = found.store.get(rows - 1);
        assert_eq!(last.input_ids.last(), Some(&1));
        assert_eq!(*last, *made.store.get(rows - 1));
        std::fs::remove_file(&path).unwrap();
    }
}
