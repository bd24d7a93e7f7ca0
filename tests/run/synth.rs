//! `run synth` from outside, with a small server in the place of a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::server::{Answer, Asked, Server};
use crate::common::writer::{
    BRIDGE, MOTH, PARSER, about, good, is_review, ok, pair, reasons, sandbox, spawn, synth, teach,
    texts, usual, write,
};
use kiln::config::types::{DataConfig, TaskKind};
use kiln::data::{Answers, Want, read_examples};
use serde_json::json;

#[test]
fn abstracts_become_texts_that_training_reads() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| usual(asked));
    let stdout = ok(&sandbox, &server, "synth.api_key_env=WRITER_KEY");
    assert!(stdout.contains("kept       9 pairs from 3 abstracts: 3 of kind answer, 3 of kind refusal, 3 of kind correction"), "{stdout}");
    assert!(stdout.contains("requests   6"), "{stdout}");
    assert!(reasons(&sandbox).is_empty());
    let made = texts(&sandbox, "made/qa.jsonl");
    assert_eq!(made.len(), 9);
    assert_eq!(
        made[0],
        format!(
            "<|system|>Answer from the text, and say so where it has no answer.<|user|>{BRIDGE}\n\nWhen was the bridge at Cape Orun built?<|assistant|>It was built in 1874."
        )
    );
    for asked in server.of("/v1/chat/completions") {
        assert_eq!(asked.headers["authorization"], "Bearer sk-not-to-be-seen");
        assert_eq!(asked.json()["model"], "writer");
    }
    // The key is in nothing that was written or printed.
    for (name, bytes) in sandbox.tree("made") {
        assert!(
            !String::from_utf8_lossy(&bytes).contains("sk-not"),
            "{name}"
        );
    }
    assert!(!stdout.contains("sk-not"));
    assert!(!sandbox.path("made/qa.jsonl.lock").exists());
    assert!(sandbox.runs().is_empty());
    // As the trainer of chats reads it.
    let data: DataConfig = crate::common::default_config().data;
    let want = Want::new(TaskKind::Text, Answers::Required);
    let read = read_examples(&sandbox.path("made/qa.jsonl"), &data, want).unwrap();
    let read: Vec<String> = read.examples.into_iter().map(|e| e.text.unwrap()).collect();
    assert_eq!(read, made);
    let shown = sandbox.ok(
        "preview task=chat model.path=model data.path=made/qa.jsonl training.max_seq_length=4096",
    );
    assert!(shown.contains("examples    9 in made/qa.jsonl"), "{shown}");
    assert!(shown.contains("dropped     0 examples"), "{shown}");
    // Without system and context, and again without a request.
    let before = server.count();
    ok(&sandbox, &server, "synth.system=null synth.context=false");
    assert_eq!(
        texts(&sandbox, "made/qa.jsonl")[1],
        "<|user|>Who designed the bridge?<|assistant|>The text does not name its designer."
    );
    assert_eq!(server.count(), before);
}

#[test]
fn csv_and_plain_text_are_read_as_well() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| usual(asked));
    sandbox.write(
        "papers.csv",
        &format!("nr,body\n7,\"{BRIDGE}\"\n8,{MOTH}\n"),
    );
    ok(
        &sandbox,
        &server,
        "synth.abstracts=papers.csv data.columns.text=body output=made/csv.jsonl",
    );
    sandbox.write("papers.txt", &format!("{BRIDGE}\n\n{MOTH}\n\n{BRIDGE}\n"));
    let stdout = ok(
        &sandbox,
        &server,
        "synth.abstracts=papers.txt output=made/text.jsonl",
    );
    assert!(
        stdout.contains("dropped    1: abstract given twice"),
        "{stdout}"
    );
    assert_eq!(
        texts(&sandbox, "made/csv.jsonl"),
        texts(&sandbox, "made/text.jsonl")
    );
    assert_eq!(texts(&sandbox, "made/text.jsonl").len(), 6);
}

#[test]
fn malformed_replies_are_asked_for_again_and_counted() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| {
        let messages = asked.json()["messages"].as_array().unwrap().len();
        match (about(asked).as_str(), is_review(asked), messages) {
            // Never right, but two pairs can be used.
            (MOTH, false, _) => write(&good(MOTH)[..2]),
            (MOTH, true, _) => Answer::chat(
                r#"{"verdicts": [{"number": 1, "ok": true}, {"number": 2, "ok": true}]}"#,
            ),
            // Never anything.
            (PARSER, ..) => Answer::chat("As a language model I like tables."),
            // At the second try.
            (_, _, 2) => Answer::chat("Gladly! {\"pairs\": ["),
            _ => usual(asked),
        }
    });
    let stdout = ok(&sandbox, &server, "");
    assert!(
        stdout.contains("kept       5 pairs from 3 abstracts"),
        "{stdout}"
    );
    assert!(stdout.contains("dropped    8: malformed reply"), "{stdout}");
    assert!(stdout.contains("dropped    1: no usable reply"), "{stdout}");
    let none = "malformed reply: it has no JSON object with a list";
    let reasons = reasons(&sandbox);
    let of = |part: &str| reasons.iter().filter(|r| r.contains(part)).count();
    assert_eq!(
        (of(none), of("it has 0 of 1 pairs of kind correction")),
        (5, 3),
        "{reasons:?}"
    );
    assert!(reasons.contains(&"no usable reply: 3 attempts".to_string()));
    // Bridge 2 + 2, moth 3 + 1, parser 3.
    assert_eq!(server.count(), 11);
    assert!(stdout.contains("requests   11"), "{stdout}");
    // Only what failed is asked for again, and only if more is allowed.
    let before = server.count();
    ok(&sandbox, &server, "");
    assert_eq!(server.count(), before);
    ok(&sandbox, &server, "synth.max_tokens=4000");
    assert_eq!(server.count(), before + 3);
    assert!(
        server.of("completions")[before..]
            .iter()
            .all(|a| about(a) == PARSER)
    );
    // What was wrong is told to the model.
    let again: Vec<Asked> = server
        .of("completions")
        .into_iter()
        .filter(|a| a.json()["messages"].as_array().unwrap().len() == 4)
        .collect();
    assert!(
        again
            .iter()
            .any(|a| a.json()["messages"][2]["content"] == "Gladly! {\"pairs\": [")
    );
    assert!(
        again
            .iter()
            .all(|a| a.last_message().starts_with("This cannot be used: it has"))
    );
}

#[test]
fn doubled_unfounded_and_rejected_pairs_are_dropped_and_told() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| match (about(asked).as_str(), is_review(asked)) {
        (BRIDGE, true) => Answer::chat(
            r#"{"verdicts": [{"number": 1, "ok": true}, {"number": 2, "ok": true}, {"number": 3, "ok": false, "why": "Nobody would ask this."}]}"#,
        ),
        (MOTH, false) => write(&[
            pair(
                "answer",
                "when was a bridge at cape orun built",
                "In 30 gardens.",
            ),
            pair(
                "refusal",
                "Which moth species was rarest?",
                "It was the hawk moth.",
            ),
            pair(
                "correction",
                "Why do lamps raise the numbers?",
                "They do not: numbers fall by 13 %.",
            ),
        ]),
        (PARSER, false) => write(&[
            pair(
                "answer",
                "How fast is it?",
                "Modern compilers optimise branches aggressively.",
            ),
            pair(
                "refusal",
                "Who designed the bridge there?",
                "That is not stated.",
            ),
            pair(
                "correction",
                "Why does the parser need three passes?",
                "It does not; it uses a single pass.",
            ),
        ]),
        _ => usual(asked),
    });
    let expected = [
        "rejected in review: Nobody would ask this.",
        "duplicate question: of 'When was the bridge at Cape Orun built?' (abstract bridge)",
        "not grounded: a refusal that does not say no",
        "not grounded: the number 13 is not in the abstract",
        "not grounded: 0 of 5 content words are in the abstract",
        "near-duplicate question: 67 % of 'Who designed the bridge?' (abstract bridge)",
    ];
    let stdout = ok(&sandbox, &server, "synth.max_overlap=0.6");
    assert_eq!(reasons(&sandbox), expected);
    assert!(stdout.contains("dropped    3: not grounded"), "{stdout}");
    assert_eq!(texts(&sandbox, "made/qa.jsonl").len(), 3);
    // Other thresholds cost no request; the review can be left out of account.
    let before = server.count();
    ok(
        &sandbox,
        &server,
        "synth.min_grounded=0 synth.max_overlap=1.0 synth.review=false",
    );
    assert_eq!(reasons(&sandbox), [expected[1]]);
    assert_eq!(texts(&sandbox, "made/qa.jsonl").len(), 8);
    assert_eq!(server.count(), before);
    // What the replies depend on may not change under them.
    let refused = synth(&sandbox, &server, "synth.refusals=2");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("made/qa.jsonl.journal: was begun with synth.refusals=1, and now it is 2"),
        "{refused:?}"
    );
    assert_eq!(server.count(), before);
}

#[test]
fn a_killed_run_goes_on_without_asking_again() {
    let sandbox = sandbox();
    let free = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&free);
    let server = Server::start(move |asked, _| {
        if about(asked) == PARSER && !is_review(asked) {
            while !gate.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        usual(asked)
    });
    let mut child = spawn(&sandbox, &server, "synth.concurrency=1");
    let begun = Instant::now();
    // The third abstract has been asked about and gets no answer.
    while !server.of("completions").iter().any(|a| about(a) == PARSER) {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    // Meanwhile nobody else may write the same file.
    let other = synth(&sandbox, &server, "");
    assert!(
        other
            .stderr
            .contains("another process is writing it (process"),
        "{other:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    free.store(true, Ordering::SeqCst);
    assert!(!sandbox.path("made/qa.jsonl").exists());
    let journal = sandbox.read("made/qa.jsonl.journal");
    assert!(journal.lines().count() >= 3, "{journal}");
    // As if it had died while writing.
    sandbox.write(
        "made/qa.jsonl.journal",
        &format!("{journal}{{\"text\": \"12"),
    );
    let before = server.count();
    let stdout = ok(&sandbox, &server, "");
    assert!(stdout.contains("kept       9 pairs"), "{stdout}");
    let later = server.of("completions").split_off(before);
    // Pairs that were written are only reviewed.
    let written: Vec<String> = later.iter().filter(|a| !is_review(a)).map(about).collect();
    assert_eq!(
        written,
        [PARSER],
        "only what was not answered is asked again"
    );
    let uninterrupted = texts(&sandbox, "made/qa.jsonl");
    ok(&sandbox, &server, "output=made/other.jsonl");
    assert_eq!(texts(&sandbox, "made/other.jsonl"), uninterrupted);
    // Another abstract joins: it alone is asked about.
    let rows = sandbox.read("papers.jsonl");
    sandbox.write(
        "papers.jsonl",
        &format!("{}\n{rows}", json!({"id": "again", "abstract": MOTH})),
    );
    let before = server.count();
    let stdout = ok(&sandbox, &server, "");
    assert!(
        stdout.contains("3 of them were asked about before"),
        "{stdout}"
    );
    assert_eq!(server.count(), before);
    // A damaged line is named.
    sandbox.write("made/qa.jsonl.journal", &format!("{journal}nonsense\n"));
    let refused = synth(&sandbox, &server, "");
    let line = journal.lines().count() + 1;
    assert!(
        refused.stderr.contains(&format!(
            "made/qa.jsonl.journal:{line}: not a line of a journal"
        )),
        "{refused:?}"
    );
}

#[test]
fn passing_trouble_is_waited_for_and_lasting_trouble_keeps_what_is_done() {
    let sandbox = sandbox();
    let server = Server::start(|asked, before| match before {
        0 => Answer {
            headers: vec![("Retry-After", "1".to_string())],
            ..Answer::new(429, "")
        },
        2 => Answer::new(500, ""),
        _ => usual(asked),
    });
    let begun = Instant::now();
    let stdout = ok(&sandbox, &server, "synth.concurrency=1");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(stdout.contains("kept       9 pairs"), "{stdout}");
    assert_eq!(server.count(), 8);
    // The key is refused half-way.
    let server = Server::start(|asked, before| match before {
        0..=3 => usual(asked),
        _ => Answer::new(
            401,
            r#"{"error": {"message": "expired: sk-not-to-be-seen"}}"#,
        ),
    });
    let broken = synth(
        &sandbox,
        &server,
        "output=made/b.jsonl synth.concurrency=1 synth.review=false synth.api_key_env=WRITER_KEY synth.max_attempts=1",
    );
    assert_eq!(
        broken.code,
        Some(0),
        "three requests suffice without a review: {broken:?}"
    );
    let broken = synth(
        &sandbox,
        &server,
        "output=made/c.jsonl synth.concurrency=1 synth.api_key_env=WRITER_KEY",
    );
    assert_eq!(broken.code, Some(1));
    for part in [
        "refused the key (401, expired: ***)",
        "environment variable WRITER_KEY",
    ] {
        assert!(broken.stderr.contains(part), "{broken:?}");
    }
    assert!(!sandbox.path("made/c.jsonl").exists());
    assert!(!sandbox.path("made/c.jsonl.report.csv").exists());
}

#[test]
fn an_error_half_way_says_what_is_kept() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| match about(asked) == PARSER {
        true => Answer::new(403, ""),
        false => usual(asked),
    });
    let broken = synth(&sandbox, &server, "synth.concurrency=1 synth.review=false");
    assert_eq!(broken.code, Some(1));
    for part in [
        "refused the key (403)",
        "no key was sent, since OPENAI_API_KEY is not set",
        "2 of 3 abstracts are done and kept in made/qa.jsonl.journal; the same command goes on",
    ] {
        assert!(broken.stderr.contains(part), "{broken:?}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_anyone_is_asked() {
    let sandbox = sandbox();
    let server = Server::start(|asked, _| usual(asked));
    sandbox.write("mine.jsonl", "keep me");
    for (more, part) in [
        ("synth.abstracts=null", "synth.abstracts is not set"),
        (
            "output=null",
            "output is not set: give it on the command line, e.g. output=data/synthetic_qa.jsonl",
        ),
        (
            "synth.base_url=null",
            "nobody to ask: name an OpenAI-compatible endpoint (synth.base_url=URL",
        ),
        (
            "synth.path=model",
            "synth.base_url and synth.path are both set",
        ),
        ("synth.model=null", "synth.model is not set"),
        (
            "synth.base_url=localhost",
            "synth.base_url=localhost: is not an address",
        ),
        ("synth.abstracts=none.jsonl", "none.jsonl: no such file"),
        ("synth.abstracts=saq.csv", "no column 'text'"),
        (
            "synth.abstracts=tokens.jsonl",
            "holds tokens or chats and not abstracts",
        ),
        (
            "output=mine.jsonl",
            "output=mine.jsonl: there is such a file already",
        ),
        ("output=model", "output=model: is a directory"),
        (
            "synth.answers=0 synth.refusals=0 synth.corrections=0",
            "so no pair is made",
        ),
    ] {
        let refused = synth(&sandbox, &server, more);
        assert_eq!(refused.code, Some(1), "{more}");
        assert!(refused.stderr.contains(part), "{more}: {refused:?}");
    }
    assert_eq!(server.count(), 0);
    assert_eq!(sandbox.read("mine.jsonl"), "keep me");
    assert!(!sandbox.path("made").exists());
}

#[test]
fn without_a_network_it_says_so() {
    let sandbox = sandbox();
    let server = Server {
        address: {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", gone.local_addr().unwrap())
        },
        asked: Arc::default(),
    };
    let refused = synth(&sandbox, &server, "synth.max_retries=1");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot be reached"), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("check synth.base_url and whether the server runs"),
        "{refused:?}"
    );
    assert_eq!(sandbox.files("made"), [""; 0]);
}

#[test]
fn a_local_model_writes_in_the_same_way() {
    let sandbox = sandbox();
    teach(
        &sandbox,
        r#"{"pairs":[{"kind":"answer","question":"Why?","answer":"So."}]}"#,
    );
    let args = "synth synth.abstracts=papers.jsonl output=made/qa.jsonl synth.path=taught/model \
                synth.max_tokens=12 synth.review=false synth.refusals=0 synth.corrections=0 \
                synth.answers=1 synth.context=false synth.min_grounded=0 quantization=none";
    let stdout = sandbox.ok(args);
    assert!(stdout.contains("asked taught/model"), "{stdout}");
    assert!(
        stdout.contains("dropped    2: duplicate question"),
        "{stdout}"
    );
    let text = "<|system|>Answer from the text, and say so where it has no answer.\
                <|user|>Why?<|assistant|>So.";
    assert_eq!(texts(&sandbox, "made/qa.jsonl"), [text]);
    // Two kinds are beyond it: its one pair is taken after the last attempt.
    let stdout = sandbox.ok(&format!("{args} synth.refusals=1 output=made/b.jsonl"));
    assert!(stdout.contains("dropped    9: malformed reply"), "{stdout}");
    assert_eq!(texts(&sandbox, "made/b.jsonl"), [text]);
}

#[test]
fn a_local_model_that_cannot_write_is_told_from_one_that_can() {
    let sandbox = sandbox();
    let args = "synth synth.abstracts=papers.jsonl output=made/qa.jsonl synth.path=model synth.max_tokens=12 synth.max_attempts=2 quantization=none";
    // It has read nothing and writes nothing that can be used.
    let done = sandbox.run(args);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stdout
            .contains("3 abstracts in papers.jsonl, asked model"),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("dropped    6: malformed reply"),
        "{done:?}"
    );
    assert!(
        done.stdout.contains("dropped    3: no usable reply"),
        "{done:?}"
    );
    assert!(
        done.stderr
            .contains("no pair was kept: made/qa.jsonl.report.csv says why of each"),
        "{done:?}"
    );
    assert!(!sandbox.path("made/qa.jsonl").exists());
    std::fs::remove_file(sandbox.path("model/chat_template.jinja")).unwrap();
    let refused = sandbox.run(&format!("{args} output=made/b.jsonl"));
    assert!(
        refused
            .stderr
            .contains("model: no chat template; synth.path needs a model that was tuned for chat"),
        "{refused:?}"
    );
}
