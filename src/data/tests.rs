//! Whole files through the readers: each format, each error, and the real sets
//! of the shared folder where it is present.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::*;
use crate::config::types::{DataConfig, DataFormat, OnError, TaskKind};
use crate::rng::Stream;

fn config(format: Option<DataFormat>) -> DataConfig {
    DataConfig {
        path: None,
        test_path: None,
        format,
        on_error: OnError::Fail,
        cache: "off".to_string(),
        columns: IndexMap::new(),
    }
}

fn required(kind: TaskKind) -> Want {
    Want::new(kind, Answers::Required)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(
        &self,
        name: &str,
        bytes: impl AsRef<[u8]>,
        kind: TaskKind,
    ) -> Result<Vec<Example>, DataError> {
        let path = self.put(name, bytes);
        let read = read_examples(&path, &config(None), required(kind))?;
        assert!(read.skipped.is_empty());
        Ok(read.examples)
    }

    /// The message of the error, without the folder.
    fn message(&self, name: &str, bytes: impl AsRef<[u8]>, kind: TaskKind) -> String {
        let error = self.read(name, bytes, kind).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn csv_of_both_tasks_reads() {
    let f = Folder::new();
    let csv = "question,options,answer\nQ1?,\"['x', 'y']\",B\r\n\"Q,\n2?\",x | y,0\n";
    let e = f.read("a.csv", csv, TaskKind::Mcq).unwrap();
    assert_eq!(
        (e[0].row, e[1].row, e[0].id.as_str(), e[1].id.as_str()),
        (2, 3, "1", "2")
    );
    assert_eq!((e[0].answer_index, e[1].answer_index), (Some(1), Some(0)));
    assert_eq!(e[1].question.as_deref(), Some("Q,\n2?"));
    let e = f
        .read(
            "b.csv",
            "\u{feff}id,question,answer\nq7,Who?,\"Ann \"\n",
            TaskKind::Saq,
        )
        .unwrap();
    assert_eq!(
        (e[0].id.as_str(), &e[0].answers[..]),
        ("q7", &["Ann".to_string()][..])
    );
}

#[test]
fn tsv_quotes_are_text() {
    let f = Folder::new();
    let e = f
        .read(
            "a.tsv",
            "question\tanswer\n\"he said\ta \"b\n",
            TaskKind::Saq,
        )
        .unwrap();
    assert_eq!(
        (e[0].question.as_deref(), e[0].answers[0].as_str()),
        (Some("\"he said"), "a \"b")
    );
}

#[test]
fn jsonl_reads_lists_numbers_and_mappings() {
    let f = Folder::new();
    let lines = concat!(
        "{\"question\": \"Q?\", \"options\": [\"x\", \"y\"], \"answer\": 1}\n\n",
        "{\"id\": 9, \"answer\": \"x\", \"question\": \"Q?\", \"options\": {\"A\": \"x\", \"B\": \"y\"}}\n",
        "{\"question\": \"Q?\", \"choices\": {\"text\": [\"x\", \"y\"], \"label\": [\"A\", \"B\"]}, \"answerKey\": \"B\"}",
    );
    let e = f.read("a.jsonl", lines, TaskKind::Mcq).unwrap();
    assert_eq!(
        e.iter().map(|e| e.answer_index).collect::<Vec<_>>(),
        [Some(1), Some(0), Some(1)]
    );
    assert_eq!(e.iter().map(|e| e.row).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(e[1].id, "9");
    let saq =
        "{\"question\": \"Q?\", \"answers\": {\"text\": [\"a\", \"b\"], \"answer_start\": [0, 1]}}";
    assert_eq!(
        f.read("b.json", saq, TaskKind::Saq).unwrap()[0].answers,
        ["a", "b"]
    );
}

#[test]
fn squad_keeps_every_reference() {
    let f = Folder::new();
    let squad = r#"{"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": " C ", "qas": [
        {"id": "a", "question": "Q1?", "answers": [{"text": "x", "answer_start": 0}, {"text": "x"}, {"text": "y"}]},
        {"id": "b", "question": "Q2?", "answers": [{"text": "z"}]}]}]}]}"#;
    let e = f.read("a.json", squad, TaskKind::Saq).unwrap();
    assert_eq!(
        (e[0].answers.join(","), e[1].id.as_str(), e[1].row),
        ("x,x,y".to_string(), "b", 2)
    );
    assert_eq!(
        (e[1].context.as_deref(), &e[1].fields[..]),
        (Some(" C "), &[("title".into(), "T".to_string())][..])
    );
    let none = squad.replace(r#"[{"text": "z"}]"#, "[]");
    assert!(
        f.message("b.json", none, TaskKind::Saq)
            .starts_with("b.json: question 2: no answer")
    );
    assert!(
        f.message("c.json", "{\"data\": [{\"a\": 1}]}", TaskKind::Saq)
            .contains("missing field `paragraphs`")
    );
    assert!(
        f.message("d.json", squad, TaskKind::Mcq)
            .contains("no options")
    );
}

#[test]
fn text_splits_by_paragraph_or_line() {
    let f = Folder::new();
    let of = |text: &str| -> Vec<(usize, String)> {
        let e = f.read("a.txt", text, TaskKind::Text).unwrap();
        e.into_iter().map(|e| (e.row, e.text.unwrap())).collect()
    };
    assert_eq!(
        of("one\ntwo\r\n\n"),
        [(1, "one".to_string()), (2, "two".to_string())]
    );
    assert_eq!(
        of("\n\na\nb\n \n\nc"),
        [(3, "a\nb".to_string()), (7, "c".to_string())]
    );
    assert!(
        f.message("b.txt", "one", TaskKind::Saq)
            .contains("no questions")
    );
    let e = f.read("c.csv", "text\n a \n", TaskKind::Text).unwrap();
    assert_eq!(e[0].text.as_deref(), Some(" a "));
}

#[test]
fn tokens_are_taken_as_they_are() {
    let f = Folder::new();
    let rows = concat!(
        "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7]}\n",
        "{\"input_ids\": [5, 6, 0], \"labels\": [-100, 6, -100], \"attention_mask\": [1, 1, 0]}\n",
    );
    let e = f.read("a.jsonl", rows, TaskKind::Saq).unwrap();
    assert_eq!(
        e[0].tokens,
        Some(TokenRow {
            input_ids: vec![5, 6, 7],
            labels: vec![-100, 6, 7]
        })
    );
    assert_eq!(
        e[1].tokens,
        Some(TokenRow {
            input_ids: vec![5, 6],
            labels: vec![-100, 6]
        })
    );
    for (row, what) in [
        (r#"{"input_ids": [5]}"#, "no labels"),
        (
            r#"{"input_ids": [5], "labels": [1, 2]}"#,
            "2 labels for 1 input_ids",
        ),
        (r#"{"input_ids": [], "labels": []}"#, "empty"),
        (
            r#"{"input_ids": [5, -1], "labels": [1, 2]}"#,
            "integer `-1`",
        ),
        (
            r#"{"input_ids": [5, 6], "labels": [-100, -5]}"#,
            "label -5 at position 1",
        ),
        (
            r#"{"input_ids": [5, 6], "labels": [5, 6], "attention_mask": [0, 1]}"#,
            "attention_mask",
        ),
        (r#"{"input_ids": [5, 6"#, "bad JSON"),
    ] {
        let message = f.message("b.jsonl", row, TaskKind::Text);
        assert!(
            message.starts_with("b.jsonl:1: ") && message.contains(what),
            "{message}"
        );
    }
}

#[test]
fn every_error_names_the_file_and_the_line() {
    let f = Folder::new();
    let (mcq, saq) = (TaskKind::Mcq, TaskKind::Saq);
    for (name, bytes, kind, start, what) in [
        ("a.csv", "", saq, "a.csv: the file is empty", "add"),
        ("a.csv", " \n\u{a}", saq, "a.csv: the file is empty", "add"),
        (
            "a.csv",
            "question,answer\n",
            saq,
            "a.csv: has a header but no rows",
            "add",
        ),
        (
            "a.jsonl",
            "{\"data\": []}",
            saq,
            "a.jsonl: has no examples",
            "add",
        ),
        (
            "a.csv",
            "question,answr\nq,a\n",
            saq,
            "a.csv:1: no column 'answer'",
            "question, answr",
        ),
        (
            "a.csv",
            "question,answer\nq,a\nq,a,b\n",
            saq,
            "a.csv:3: 3 fields where the header has 2",
            "quote",
        ),
        (
            "a.csv",
            "question,answer\r\nq,a\r\n\r\n\nq,\"a\r\nb\"\r\nq,",
            saq,
            "a.csv:7: answer is empty",
            "fill",
        ),
        (
            "a.csv",
            "question,answer\nq,a\n\nq,\"a\nq,a\n",
            saq,
            "a.csv:4: a quote that opens",
            "two",
        ),
        (
            "a.csv",
            "question,answer\nq,a\nq, \n",
            saq,
            "a.csv:3: answer is empty",
            "fill",
        ),
        (
            "a.csv",
            "id,question,answer\n7,q,a\n7,q,a\n",
            saq,
            "a.csv:3: id '7' was used before, on line 2",
            "differ",
        ),
        (
            "a.csv",
            "question,options,answer\nq,a | b,C\n",
            mcq,
            "a.csv:2: answer 'C' matches no option",
            "A) a, B) b",
        ),
        (
            "a.csv",
            "question,options,answer\nq,a,A\n",
            mcq,
            "a.csv:2: cannot split the options 'a'",
            "JSON list",
        ),
        (
            "a.csv",
            "question,answer\nq,A\n",
            mcq,
            "a.csv:1: no column 'options'",
            "data.columns.options",
        ),
        (
            "a.jsonl",
            "{\"question\": \"q\", \"answer\": \"a\"}\n{\"question\"",
            saq,
            "a.jsonl:2: bad JSON",
            "column",
        ),
        (
            "a.jsonl",
            "{\"question\": [1], \"answer\": \"a\"}",
            saq,
            "a.jsonl:1: question (column 'question') is a list",
            "text",
        ),
        (
            "a.jsonl",
            "{\"question\": \"q\"}",
            saq,
            "a.jsonl:1: no column 'answer'",
            "question",
        ),
        (
            "a.json",
            "[{\"question\": \"q\"}]",
            saq,
            "a.json: is one JSON list",
            "jq",
        ),
        (
            "a.json",
            "{\n\"question\": \"q\"}",
            saq,
            "a.json: is one JSON object over several lines",
            "data.format",
        ),
        (
            "a.dat",
            "nothing known",
            saq,
            "a.dat: cannot tell the format",
            "data.format",
        ),
        (
            "a.parquet",
            "PAR1\0\0",
            saq,
            "a.parquet: cannot be read as Parquet",
            "damaged",
        ),
        (
            "b.parquet",
            "question,answer\nq,a\n",
            saq,
            "b.parquet: is no Parquet file",
            "data.format",
        ),
        (
            "c.parquet",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            saq,
            "c.parquet: is a pointer of Git LFS",
            "git lfs pull",
        ),
    ] {
        let message = f.message(name, bytes, kind);
        assert!(
            message.starts_with(start) && message.contains(what),
            "{message}"
        );
    }
    let message = f.message("b.csv", b"question,answer\nq,a\nq,\xff\n", saq);
    assert_eq!(
        message,
        "b.csv:3: column 'answer' is not valid UTF-8: save the file as UTF-8"
    );
    assert!(
        f.message("b.jsonl", b"{\"question\": \"\xff\"}", saq)
            .starts_with("b.jsonl:1: the line is not valid UTF-8")
    );
    assert!(f.message("b.csv", b"\xff\xfeq\0", saq).contains("UTF-16"));
    let open = |path: &Path| read_examples(path, &config(None), required(saq)).unwrap_err();
    assert!(matches!(
        open(&f.0.path().join("no.csv")),
        DataError::Missing(_)
    ));
    assert!(matches!(open(f.0.path()), DataError::Directory(_)));
}

#[test]
fn reading_ends_after_an_error_and_names_win_over_guesses() {
    let f = Folder::new();
    let path = f.put("a.csv", "question,answer\nq,a\nq\nq,a\n");
    let rows: Vec<_> = Examples::open(&path, &config(None), required(TaskKind::Saq))
        .unwrap()
        .collect();
    assert_eq!(
        (rows.len(), rows[0].is_ok(), rows[1].is_err()),
        (2, true, true)
    );
    let path = f.put("a.log", "question\tanswer\nq\ta\n");
    let examples = Examples::open(&path, &config(None), required(TaskKind::Saq)).unwrap();
    assert_eq!(examples.format(), DataFormat::Tsv);
    let text = config(Some(DataFormat::Text));
    assert_eq!(
        read_examples(&path, &text, required(TaskKind::Text))
            .unwrap()
            .examples
            .len(),
        2
    );
}

/// Random questions written as CSV by the csv crate read back as they were.
#[test]
fn random_csv_reads_back() {
    let f = Folder::new();
    let random = Stream::new(5, &[9]);
    let mut counter = 0;
    let mut draw = |n: u64| {
        counter += 1;
        random.bits(counter) % n
    };
    let glyphs: Vec<char> = "ab,\"\n|é{} 東'\t".chars().collect();
    for _ in 0..50 {
        let mut word = || -> String {
            let inner: String = (0..draw(8))
                .map(|_| glyphs[draw(glyphs.len() as u64) as usize])
                .collect();
            format!("x{inner}x")
        };
        let rows: Vec<(String, String)> = (0..20).map(|_| (word(), word())).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["answer", "question"]).unwrap();
        for (q, a) in &rows {
            writer.write_record([a, q]).unwrap();
        }
        let read = f
            .read("r.csv", writer.into_inner().unwrap(), TaskKind::Saq)
            .unwrap();
        let got: Vec<(String, String)> = read
            .into_iter()
            .map(|e| (e.question.unwrap(), e.answers.into_iter().next().unwrap()))
            .collect();
        assert_eq!(got, rows);
    }
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")).join(name);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_mmlu_reads_as_it_is() {
    let Some(folder) = shared("mmlu") else { return };
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let examples = read_examples(&path, &config(None), required(TaskKind::Mcq))
            .unwrap()
            .examples;
        assert!(
            examples
                .iter()
                .all(|e| e.options.len() == 4 && e.answer_index.is_some())
        );
        count += examples.len();
    }
    assert!(count > 500, "{count}");
}

#[test]
fn real_squad_and_sst2_read_as_they_are() {
    if let Some(path) = shared("squad/dev-v1.1-part1.json") {
        let examples = read_examples(&path, &config(None), required(TaskKind::Saq))
            .unwrap()
            .examples;
        assert_eq!(examples.len(), 4961);
        assert_eq!(examples[0].answers, ["Denver Broncos"; 3]);
        assert!(examples.iter().all(|e| e.context.is_some()));
    }
    let mut data = config(None);
    data.columns
        .insert("question".to_string(), Some("sentence".to_string()));
    data.columns
        .insert("answer".to_string(), Some("label".to_string()));
    for (name, rows) in [("sst2/dev.tsv", 872), ("sst2/train-8000.tsv", 8000)] {
        if let Some(path) = shared(name) {
            let examples = read_examples(&path, &data, required(TaskKind::Saq))
                .unwrap()
                .examples;
            assert_eq!(examples.len(), rows);
            assert!(
                examples
                    .iter()
                    .all(|e| matches!(e.answers[0].as_str(), "0" | "1"))
            );
        }
    }
}

#[test]
fn a_line_without_end_is_counted_and_a_quote_without_end_is_found() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let long = "x".repeat(3_000_000);
    let text = format!("{{\"question\": \"{long}\"}}\n{{\"question\": \"Q\", \"answer\": \"a\"}}");
    let read = read_examples(&f.put("a.jsonl", text), &skip, required(TaskKind::Saq)).unwrap();
    assert_eq!(read.examples[0].row, 2);
    let said = read.skipped[0].to_string();
    assert!(
        said.contains("a.jsonl:1: the row has 3000016 bytes"),
        "{said}"
    );
    // More than is ever held: an error long before the end of the file.
    let mut endless = "question,answer\nQ,a\nQ,\"a\n".to_string();
    endless.push_str(&"Q,a\n".repeat(20 << 20));
    let message = f.message("b.csv", endless, TaskKind::Saq);
    assert!(
        message.starts_with("b.csv:3: a quote that opens in this row is never closed"),
        "{message}"
    );
}

#[test]
fn a_nul_byte_does_not_end_a_table() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let rows = |name: &str, text: &str, kind| {
        let read = read_examples(&f.put(name, text), &skip, required(kind)).unwrap();
        let skipped = read.skipped.iter().map(|e| e.to_string());
        let skipped: Vec<String> = skipped.collect();
        let bad = |line: usize| {
            let said = format!("{name}:{line}: the row is a NUL byte");
            skipped.iter().any(|s| s.contains(&said))
        };
        let rows: Vec<usize> = read.examples.iter().map(|e| e.row).collect();
        (rows, (1..9).filter(|&line| bad(line)).collect::<Vec<_>>())
    };
    // Behind what is looked at to tell the format.
    let long = format!("Q,{}\n", "a ".repeat(150_000));
    for (end, others) in [
        ("", vec![]),
        ("\n", vec![]),
        ("\nQ,a", vec![4]),
        ("\r\nQ,a\n", vec![4]),
    ] {
        let text = format!("question,answer\n{long}\0{end}");
        let want = [vec![2], others].concat();
        assert_eq!(rows("a.csv", &text, TaskKind::Saq), (want.clone(), vec![3]));
        let tabs = text.replace(',', "\t");
        assert_eq!(rows("a.tsv", &tabs, TaskKind::Saq), (want, vec![3]));
    }
    let text = format!("text\n{}\n\n\0\nmore\n", "a ".repeat(150_000));
    assert_eq!(rows("b.csv", &text, TaskKind::Text), (vec![2, 5], vec![4]));
    // A field that ends as a file does.
    let text = format!("question,answer\n{long}Q,\"a\n\0\n\"\nQ,a");
    assert_eq!(rows("c.csv", &text, TaskKind::Saq), (vec![2, 3, 6], vec![]));
}

#[test]
fn a_number_and_an_id_of_the_file_cannot_be_the_same() {
    let f = Folder::new();
    // A row for each id, without one where it is empty.
    let read = |ids: &[&str]| {
        let row = |id: &&str| match *id {
            "" => "{\"question\": \"Q\", \"answer\": \"a\"}\n".to_string(),
            id => format!("{{\"id\": \"{id}\", \"question\": \"Q\", \"answer\": \"a\"}}\n"),
        };
        f.read(
            "a.jsonl",
            ids.iter().map(row).collect::<String>(),
            TaskKind::Saq,
        )
    };
    let examples = read(&["a", "", "02", "4x", "", "+2"]).unwrap();
    let ids: Vec<&str> = examples.iter().map(|e| &e.id[..]).collect();
    assert_eq!(ids, ["a", "2", "02", "4x", "5", "+2"]);
    for (ids, line) in [
        (&["", "", "x", "2"][..], 4),
        (&["", "x", "", "3"], 4),
        (&["3", "", ""], 3),
    ] {
        let error = read(ids).unwrap_err().to_string();
        assert!(
            error.contains(&format!("a.jsonl:{line}: '")) && error.contains("number of another"),
            "{error}"
        );
    }
}

#[test]
fn a_bad_line_costs_its_paragraph_and_no_other() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let read = |text: &[u8]| {
        let read = read_examples(&f.put("a.txt", text), &skip, required(TaskKind::Text)).unwrap();
        let kept = read.examples.into_iter().map(|e| (e.row, e.text.unwrap()));
        let said = read.skipped.iter().map(|e| e.to_string());
        (kept.collect::<Vec<_>>(), said.collect::<Vec<_>>())
    };
    // The bad bytes in the first line, between good ones, and twice.
    let bad = b"a\nb\n\n\xFFc\nd\n\ne\nf\xFF\ng\n\nh\xFF\ni\xFF\n\nj\nk\n";
    let (kept, said) = read(bad);
    assert_eq!(kept, [(1, "a\nb".into()), (14, "j\nk".into())]);
    assert_eq!(said.len(), 3);
    for (said, line) in said.iter().zip([4, 8, 11]) {
        let want = format!("a.txt:{line}: this line of a paragraph is not valid UTF-8");
        assert!(said.contains(&want), "{said}");
    }
    let (kept, said) = read(b"a\n\xFFb\nc\n");
    assert_eq!(kept, [(1, "a".into()), (3, "c".into())]);
    assert!(
        said[0].contains("a.txt:2: the line is not valid UTF-8"),
        "{said:?}"
    );
}

/// Each bad row with what is said of it.
const BAD_ROWS: [(&str, &str, &str); 8] = [
    ("a.csv", "x,Q?", "2 fields where the header has 3"),
    (
        "a.csv",
        "x,\"Q\"?,a",
        "text follows the quote that ends a field",
    ),
    ("a.csv", "x,Q?,", "answer is empty"),
    ("a.csv", "x,,a", "question is empty"),
    ("a.csv", "1,Q?,a", "id '1' was used before, on line 2"),
    (
        "a.jsonl",
        "{\"id\": 7, \"question\": \"Q?\"}",
        "no column 'answer'",
    ),
    ("a.jsonl", "{\"id\": 7, \"question\": ", "bad JSON"),
    ("a.jsonl", "[1]", "bad JSON"),
];

#[test]
fn a_bad_row_is_named_and_can_be_skipped() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let want = required(TaskKind::Saq);
    for (name, row, what) in BAD_ROWS {
        let (before, after) = match name {
            "a.csv" => ("id,question,answer\n1,\"a \"\"b\"\"\",x\n", "\n2,Q,y\n"),
            _ => (
                "\n{\"id\": 1, \"question\": \"a \\\"b\\\"\", \"answer\": \"x\"}\n",
                "\n{\"id\": 2, \"question\": \"Q\", \"answer\": \"y\"}\n",
            ),
        };
        let text = format!("{before}{row}{after}");
        let message = f.message(name, &text, TaskKind::Saq);
        assert!(
            message.starts_with(&format!("{name}:3: {what}")),
            "{message}"
        );
        let read = read_examples(&f.put(name, &text), &skip, want.clone()).unwrap();
        let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
        assert_eq!(kept, [("1", 2), ("2", 4)], "{row}");
        assert_eq!(read.examples[0].question.as_deref(), Some("a \"b\""));
        assert_eq!(read.skipped.len(), 1, "{row}");
        assert!(read.skipped[0].to_string().ends_with(&message), "{row}");
    }
}

#[test]
fn bytes_and_options_are_skipped_alike_and_ids_do_not_move() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let long = "x".repeat(1_000_000);
    let mut csv = b"\xEF\xBB\xBFquestion,options,answer\nQ,x | y,A\n\xFF,x | y,A\n".to_vec();
    csv.extend(format!("Q,x | y,z\n{long},x | y,A\nQ,x,A\nQ,x | y,B\n").bytes());
    let read = read_examples(&f.put("a.csv", &csv), &skip, required(TaskKind::Mcq)).unwrap();
    let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
    assert_eq!(kept, [("1", 2), ("6", 7)]);
    let said: Vec<String> = read.skipped.iter().map(DataError::to_string).collect();
    for (line, (said, part)) in said
        .iter()
        .zip([
            "column 'question' is not valid UTF-8",
            "answer 'z' matches no option",
            "the row has 1000006 bytes",
            "cannot split the options 'x'",
        ])
        .enumerate()
    {
        assert!(
            said.contains(&format!("a.csv:{}: {part}", line + 3)),
            "{said}"
        );
    }
    assert_eq!(said.len(), 4);
    let line = format!("{{\"question\": \"{long}\", \"answer\": \"a\"}}\n");
    let message = f.message("a.jsonl", line, TaskKind::Saq);
    assert!(
        message.starts_with("a.jsonl:1: the row has 10000"),
        "{message}"
    );
    // A document may be long.
    assert_eq!(f.read("a.txt", &long, TaskKind::Text).unwrap().len(), 1);
}

#[test]
fn lines_that_end_in_carriage_returns_are_named() {
    let message = Folder::new().message("a.csv", "question,answer\rQ,a\rR,b\r", TaskKind::Saq);
    assert!(
        message.starts_with("a.csv: its lines end in carriage returns"),
        "{message}"
    );
}

#[test]
fn what_swallows_the_rest_and_what_leaves_nothing_cannot_be_skipped() {
    let f = Folder::new();
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let want = required(TaskKind::Saq);
    let open = f.put("a.csv", "question,answer\nQ,a\nQ,\"a\nQ,a\n");
    let error = read_examples(&open, &skip, want.clone())
        .unwrap_err()
        .to_string();
    assert!(error.contains("a.csv:3: a quote that opens"), "{error}");
    let none = f.put("b.csv", "question,answer\nQ,\nQ,\n");
    let error = read_examples(&none, &skip, want.clone())
        .unwrap_err()
        .to_string();
    assert!(error.contains("b.csv:2: answer is empty"), "{error}");
    assert!(error.contains("none of the 2 rows can be used"), "{error}");
    let squad = r#"{"data": [{"paragraphs": [{"context": "c", "qas": [
        {"id": "a", "question": "Q", "answers": []},
        {"id": "b", "question": "Q", "answers": [{"text": "t"}]}]}]}]}"#;
    let read = read_examples(&f.put("a.json", squad), &skip, want.clone()).unwrap();
    assert_eq!((read.examples.len(), read.skipped.len()), (1, 1));
    let header = f.put("c.csv", "question,reply\nQ,a\n");
    assert!(read_examples(&header, &skip, want).is_err());
}

#[test]
fn bad_rows_of_a_list_of_conversations_are_named_and_can_be_skipped() {
    let f = Folder::new();
    let talk = |id: &str| {
        format!(
            r#"{{"id": "{id}", "messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "b, ]"}}]}}"#
        )
    };
    let mut list = format!("\u{feff}[{}, 7, ", talk("x")).into_bytes();
    list.extend(b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\xFF\"}]},");
    list.extend(format!("{}, {{\"messages\": []}}, {}\n]\n", talk("x"), talk("y")).bytes());
    let path = f.put("a.json", &list);
    let mut skip = config(None);
    skip.on_error = OnError::Skip;
    let read = read_examples(&path, &skip, required(TaskKind::Text)).unwrap();
    let kept: Vec<_> = read.examples.iter().map(|e| (&e.id[..], e.row)).collect();
    assert_eq!(kept, [("x", 1), ("y", 6)]);
    let said: Vec<String> = read.skipped.iter().map(DataError::to_string).collect();
    for (said, part) in said.iter().zip([
        "2: bad JSON: invalid type: integer `7`",
        "3: the row is not valid UTF-8",
        "4: id 'x' was used before, on line 1",
        "5: no message of an assistant",
    ]) {
        assert!(said.contains(&format!("a.json:{part}")), "{said}");
    }
    assert_eq!(said.len(), 4);
    let message = f.message("b.json", format!("[{},", talk("x")), TaskKind::Text);
    let cut = "b.json: is not a list of conversations: it ends within the list, at row 2";
    assert!(message.starts_with(cut), "{message}");
}
