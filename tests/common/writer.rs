//! A stand-in for a model that writes and reviews pairs, the abstracts it knows, and
//! `run synth` with it.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::sandbox::{Finished, Sandbox, table};
use super::server::{Answer, Asked, Server};

pub const BRIDGE: &str = "The bridge at Cape Orun was built in 1874 of granite. It spans 412 metres and carries two railway tracks.";
pub const MOTH: &str =
    "We count moths in 30 gardens. Numbers fall by 12 % where street lamps burn all night.";
pub const PARSER: &str =
    "A parser for tables is presented. It reads 5,000 rows a second and uses a single pass.";

pub fn pair(kind: &str, question: &str, answer: &str) -> Value {
    json!({"kind": kind, "question": question, "answer": answer})
}

/// What a good model writes of an abstract.
pub fn good(text: &str) -> Vec<Value> {
    match text {
        BRIDGE => vec![
            pair(
                "answer",
                "When was the bridge at Cape Orun built?",
                "It was built in 1874.",
            ),
            pair(
                "refusal",
                "Who designed the bridge?",
                "The text does not name its designer.",
            ),
            pair(
                "correction",
                "Why was it built of steel?",
                "It was not built of steel but of granite.",
            ),
        ],
        MOTH => vec![
            pair(
                "answer",
                "In how many gardens were moths counted?",
                "In 30 gardens.",
            ),
            pair(
                "refusal",
                "Which moth species was rarest?",
                "The abstract does not say.",
            ),
            pair(
                "correction",
                "Why do lamps raise the numbers?",
                "They do not: numbers fall by 12 %.",
            ),
        ],
        PARSER => vec![
            pair(
                "answer",
                "How many rows does the parser read a second?",
                "5000 rows a second.",
            ),
            pair(
                "refusal",
                "Which language is it written in?",
                "That is not stated.",
            ),
            pair(
                "correction",
                "Why does the parser need three passes?",
                "It does not; it uses a single pass.",
            ),
        ],
        other => panic!("{other}"),
    }
}

/// The abstract that a request is about.
pub fn about(asked: &Asked) -> String {
    let first = asked.json()["messages"][1]["content"]
        .as_str()
        .unwrap()
        .to_string();
    first.rsplit("Abstract:\n").next().unwrap().to_string()
}

pub fn is_review(asked: &Asked) -> bool {
    let messages = asked.json()["messages"].to_string();
    messages.contains("verdicts")
}

/// Approves of three pairs.
pub fn approve() -> Answer {
    let verdicts: Vec<Value> = (1..=3)
        .map(|n| json!({"number": n, "ok": true, "why": "right"}))
        .collect();
    Answer::chat(&json!({"verdicts": verdicts}).to_string())
}

pub fn write(pairs: &[Value]) -> Answer {
    Answer::chat(&format!("Here:\n```json\n{}\n```", json!({"pairs": pairs})))
}

pub fn usual(asked: &Asked) -> Answer {
    match is_review(asked) {
        true => approve(),
        false => write(&good(&about(asked))),
    }
}

pub fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let rows = [("bridge", BRIDGE), ("moth", MOTH), ("parser", PARSER)];
    let lines: String = rows
        .iter()
        .map(|(id, text)| format!("{}\n", json!({"id": id, "abstract": text, "year": 2020})))
        .collect();
    sandbox.write("papers.jsonl", &lines);
    sandbox
}

pub const ARGS: &str =
    "synth synth.abstracts=papers.jsonl output=made/qa.jsonl synth.model=writer synth.answers=1";

pub fn spawn(sandbox: &Sandbox, server: &Server, more: &str) -> Child {
    let args = format!("{ARGS} synth.base_url={}/v1 {more}", server.address);
    Command::new(env!("CARGO_BIN_EXE_run"))
        .args(args.split_whitespace())
        .current_dir(sandbox.path(""))
        .env("WRITER_KEY", "sk-not-to-be-seen")
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub fn synth(sandbox: &Sandbox, server: &Server, more: &str) -> Finished {
    let output = spawn(sandbox, server, more).wait_with_output().unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn ok(sandbox: &Sandbox, server: &Server, more: &str) -> String {
    let done = synth(sandbox, server, more);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    done.stdout
}

pub fn texts(sandbox: &Sandbox, file: &str) -> Vec<String> {
    let rows = sandbox.read(file);
    let rows = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["text"].as_str().unwrap().to_string())
        .collect()
}

/// Reasons of the report that are not empty.
pub fn reasons(sandbox: &Sandbox) -> Vec<String> {
    let (header, rows) = table(&sandbox.read("made/qa.jsonl.report.csv"));
    assert_eq!(
        header,
        [
            "abstract", "row", "kind", "question", "answer", "kept", "reason"
        ]
    );
    for row in &rows {
        assert_eq!(row[5] == "true", row[6].is_empty(), "{row:?}");
    }
    let reasons = rows.into_iter().map(|row| row[6].clone());
    reasons.filter(|reason| !reason.is_empty()).collect()
}

/// Trains the sandbox's model to reply with `word`, which becomes one token of it, to
/// whatever it is asked: `taught/model`.
pub fn teach(sandbox: &Sandbox, word: &str) {
    const TOKEN: u32 = 50;
    let mut tokenizer = sandbox.json("model/tokenizer.json");
    tokenizer["model"]["vocab"][word] = json!(TOKEN);
    sandbox.write("model/tokenizer.json", &tokenizer.to_string());
    // Prompts of words that it does not know.
    let rows: String = (4..36)
        .map(|length| {
            let mut ids = vec![2; length];
            let mut labels = vec![-100; length];
            ids.extend([TOKEN, 1]);
            labels.extend([TOKEN as i32, 1]);
            format!("{}\n", json!({"input_ids": ids, "labels": labels}))
        })
        .collect();
    sandbox.write("lesson.jsonl", &rows);
    sandbox.ok(
        "train task=tokens method=full quantization=none model.path=model data.path=lesson.jsonl \
         training.learning_rate=1e-2 training.max_steps=40 training.val_ratio=0 \
         hydra.run.dir=taught",
    );
}
