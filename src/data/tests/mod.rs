//! Whole files through the readers: each format and each error.

mod real;
mod skipped;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::*;
use crate::config::types::{DataConfig, DataFormat, OnError, TaskKind};
use crate::rng::Stream;

pub(in crate::data) fn config(format: Option<DataFormat>) -> DataConfig {
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
    // ARC's labels, and a file that is one list.
    let arc = r#"[
        {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"},
        {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["B", "A"]}, "answerKey": "A"}]"#;
    let e = f.read("arc.json", arc, TaskKind::Mcq).unwrap();
    let indices = e.iter().map(|e| (e.row, e.answer_index));
    assert_eq!(indices.collect::<Vec<_>>(), [(1, Some(0)), (2, Some(1))]);
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
    let numbered = squad.replace("\"a\"", "7");
    assert_eq!(
        f.read("n.json", numbered, TaskKind::Saq).unwrap()[0].id,
        "7"
    );
    // SQuAD 2's questions without an answer can be asked.
    let impossible = squad.replace(r#"[{"text": "z"}]"#, r#"[], "is_impossible": true"#);
    let path = f.put("i.json", impossible);
    let asked = Want::new(TaskKind::Saq, Answers::Optional);
    let asked = read_examples(&path, &config(None), asked).unwrap().examples;
    assert_eq!((asked.len(), asked[1].answers.len()), (2, 0));
    assert!(read_examples(&path, &config(None), required(TaskKind::Saq)).is_err());
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
            "a.json:1: no column 'answer'",
            "question",
        ),
        (
            "a.json",
            "[{\"question\": \"q\", \"answer\": \"a\"},",
            saq,
            "a.json: is not a JSON list of objects: it ends within the list, at row 2",
            "one object a line",
        ),
        (
            "a.json",
            "[{\"input_ids\": [1]}]",
            saq,
            "a.json: is one JSON list of tokens",
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
fn lines_that_end_in_carriage_returns_are_named() {
    let message = Folder::new().message("a.csv", "question,answer\rQ,a\rR,b\r", TaskKind::Saq);
    assert!(
        message.starts_with("a.csv: its lines end in carriage returns"),
        "{message}"
    );
}
