//! The win rate of `run eval` and `run compare`, with a small server in the place of a
//! judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::sandbox::{Sandbox, config, table};
use crate::common::server::{Answer, Asked, Server};
use kiln::experiment::fsx::{LockFile, Locking};
use serde_json::Value;

/// The two answers that a judge is shown.
fn answers(asked: &Asked) -> [String; 2] {
    let text = asked.last_message();
    ["A", "B"].map(|letter| {
        let (_, rest) = text.split_once(&format!("<answer_{letter}>\n")).unwrap();
        rest.split_once(&format!("\n</answer_{letter}>"))
            .unwrap()
            .0
            .to_string()
    })
}

fn trained() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(
        "train task=saq model.path=model data.path=saq.csv data.test_path=null \
         training.learning_rate=1e-2 training.max_steps=8 inference.max_new_tokens=4",
    );
    sandbox
}

fn args(command: &str, server: &Server, more: &str) -> String {
    format!(
        "{command} task=saq task.metrics=[win_rate,f1] model.path=model data.test_path=saq_test.csv \
         inference.max_new_tokens=4 judge.base_url={}/v1 judge.model=judge {more}",
        server.address
    )
}

/// Every verdict of a run: model, id, both orders, outcome.
fn verdicts(sandbox: &Sandbox, run: &str) -> Vec<Vec<String>> {
    let (header, rows) = table(&sandbox.read(&format!("{run}/verdicts.csv")));
    assert_eq!(
        header,
        [
            "model",
            "id",
            "question",
            "answer",
            "reference",
            "answer_first",
            "reference_first",
            "outcome"
        ]
    );
    rows
}

#[test]
fn a_judge_that_looks_at_the_place_alone_gives_one_half() {
    let sandbox = trained();
    for (verdict, run) in [("[[A]]", "first"), ("[[B]]", "second"), ("[[tie]]", "tie")] {
        let server = Server::start(move |_, _| Answer::chat(verdict));
        let stdout = sandbox.ok(&args("eval", &server, &format!("hydra.run.dir={run}")));
        let summary = sandbox.json(&format!("{run}/summary.json"));
        for model in ["base", "tuned"] {
            assert_eq!(
                summary["metrics"][model]["win_rate"], 0.5,
                "{verdict}: {summary}"
            );
            let judged = &summary["judged"][model];
            let word = if run == "tie" {
                "ties"
            } else {
                "contradictions"
            };
            assert_eq!(
                (&judged["questions"], &judged[word]),
                (&Value::from(7), &Value::from(7))
            );
            assert_eq!(judged["standard_error"], 0.0);
        }
        assert!(
            stdout.contains("win rate   tuned: 50.0 % +- 0.0"),
            "{stdout}"
        );
        assert!(stdout.contains("SAQ win rate"), "{stdout}");
        assert!(summary["metrics"]["tuned"]["f1"].is_number());
    }
}

#[test]
fn who_is_better_wins_in_both_orders() {
    let sandbox = trained();
    // The longer answer, by letters; the same for the expected figures.
    let better = |a: &str, b: &str| a.len().cmp(&b.len());
    let server = Server::start(move |asked, _| {
        let [a, b] = answers(asked);
        Answer::chat(match better(&a, &b) {
            std::cmp::Ordering::Greater => "A says more. [[A]]",
            std::cmp::Ordering::Less => "[[B]]",
            std::cmp::Ordering::Equal => "<think>[[A]]</think> [[tie]]",
        })
    });
    let stdout = sandbox.ok(&args("compare", &server, "hydra.run.dir=out"));
    let (_, rows) = table(&sandbox.read("out/evaluation.csv"));
    let summary = sandbox.json("out/summary.json");
    for (model, column) in [("base", 1), ("tuned", 2)] {
        let shown = |text: &String| match text.is_empty() {
            true => "(empty)".to_string(),
            false => text.clone(),
        };
        let scores: Vec<f64> = rows
            .iter()
            .map(|row| match better(&shown(&row[column]), &row[3]) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 0.5,
            })
            .collect();
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let figure = |value: &Value| value.as_f64().unwrap();
        assert!((figure(&summary["metrics"][model]["win_rate"]) - mean).abs() < 1e-12);
        let error = figure(&summary["judged"][model]["standard_error"]);
        assert!((error - (variance / n).sqrt()).abs() < 1e-12);
        assert_eq!(summary["judged"][model]["contradictions"], 0);
    }
    assert!(stdout.contains("tuned is better on"), "{stdout}");
    assert!(sandbox.read("out/comparison.svg").contains("win rate"));
    let all = verdicts(&sandbox, "out");
    assert_eq!(all.len(), 14);
    for row in &all {
        let expected = match row[7].as_str() {
            "win" => "answer",
            "loss" => "reference",
            "tie" => "tie",
            other => panic!("{other}"),
        };
        assert_eq!(
            (row[5].as_str(), row[6].as_str()),
            (expected, expected),
            "{row:?}"
        );
    }
    // The same answers again, by another command: nobody is asked.
    let before = server.count();
    assert!(before > 0);
    sandbox.ok(&args("eval", &server, "hydra.run.dir=again"));
    assert_eq!(server.count(), before);
    assert_eq!(
        sandbox.json("again/summary.json")["metrics"],
        summary["metrics"]
    );
    // Unless another judge is asked, or none of it is kept.
    sandbox.ok(&args(
        "eval",
        &server,
        "judge.model=other judge.cache=null hydra.run.dir=other",
    ));
    assert_eq!(server.count(), 2 * before);
}

#[test]
fn verdicts_that_cannot_be_read_are_counted_and_named() {
    let sandbox = trained();
    // Of one question the judge says nothing, in one of the orders.
    let questions = sandbox.read("saq_test.csv");
    let odd = questions
        .lines()
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_string();
    let ids: Vec<String> = questions
        .lines()
        .skip(1)
        .enumerate()
        .filter(|(_, line)| line.starts_with(&odd))
        .map(|(i, _)| (i + 1).to_string())
        .collect();
    let reference = questions
        .lines()
        .nth(1)
        .unwrap()
        .split(',')
        .nth(1)
        .unwrap()
        .to_string();
    let asked_odd = format!("<task>\n{odd}\n</task>");
    let server = Server::start(move |asked, _| {
        let [first, _] = answers(asked);
        match asked.last_message().contains(&asked_odd) && first == reference {
            true => Answer::chat("Both have their merits."),
            false => Answer::chat("[[A]]"),
        }
    });
    let stdout = sandbox.ok(&args("eval", &server, "hydra.run.dir=out"));
    let summary = sandbox.json("out/summary.json");
    for model in ["base", "tuned"] {
        let judged = &summary["judged"][model];
        assert_eq!(judged["questions"], 7 - ids.len());
        assert_eq!(judged["unparsed"], serde_json::json!(ids));
        assert_eq!(summary["metrics"][model]["win_rate"], 0.5);
    }
    let named = format!(
        "{} questions without a verdict (ids {}",
        ids.len(),
        ids.join(", ")
    );
    assert!(stdout.contains(&named), "{named}: {stdout}");
    let rows = verdicts(&sandbox, "out");
    let open: Vec<&Vec<String>> = rows.iter().filter(|row| row[7] == "not counted").collect();
    assert_eq!(open.len(), 2 * ids.len());
    assert!(
        open.iter()
            .all(|row| row[6] == "none: no verdict in 'Both have their merits.'")
    );
    // They are asked again, the others are not.
    let before = server.count();
    sandbox.ok(&args("eval", &server, "hydra.run.dir=again"));
    let again = server.of("completions").split_off(before);
    assert!(!again.is_empty());
    assert!(
        again
            .iter()
            .all(|asked| asked.last_message().contains(&odd))
    );
}

#[test]
fn a_broken_connection_does_not_judge_again_what_was_judged() {
    let sandbox = trained();
    let up = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&up);
    let server = Server::start(
        move |_, before| match before < 5 || state.load(Ordering::SeqCst) {
            true => Answer::chat("[[A]]"),
            false => Answer::new(401, ""),
        },
    );
    let more = "judge.concurrency=1 hydra.run.dir=";
    let broken = sandbox.run(&args("eval", &server, &format!("{more}broken")));
    assert_eq!(broken.code, Some(1));
    for part in [
        "refused the key (401)",
        "5 of ",
        "verdicts are there and kept in outputs/judged.jsonl: the same command asks for the others alone",
    ] {
        assert!(broken.stderr.contains(part), "{part}: {broken:?}");
    }
    assert_eq!(sandbox.json("broken/summary.json")["status"], "failed");
    assert!(sandbox.path("broken/predictions.csv").exists());
    up.store(true, Ordering::SeqCst);
    // As if it had been killed while writing.
    let kept = sandbox.read("outputs/judged.jsonl");
    assert_eq!(kept.lines().count(), 5);
    sandbox.write("outputs/judged.jsonl", &format!("{kept}{{\"key\": \"0"));
    sandbox.ok(&args("eval", &server, &format!("{more}whole")));
    let asked: Vec<String> = server
        .of("completions")
        .iter()
        .map(Asked::last_message)
        .collect();
    let mut distinct = asked.clone();
    distinct.sort();
    distinct.dedup();
    // One request was refused and came again.
    assert_eq!(asked.len(), distinct.len() + 1);
    assert_eq!(
        sandbox.read("outputs/judged.jsonl").lines().count(),
        distinct.len()
    );
    assert_eq!(
        sandbox.json("whole/summary.json")["metrics"]["tuned"]["win_rate"],
        0.5
    );
}

#[test]
fn two_runs_do_not_write_verdicts_at_once() {
    let sandbox = trained();
    let server = Server::start(|_, _| Answer::chat("[[A]]"));
    let path = sandbox.path("outputs/judged.jsonl.lock");
    let Locking::Held(lock) = LockFile::acquire(&path, "process 7").unwrap() else {
        panic!("nobody else is here");
    };
    let mut child = sandbox.spawn(&args("eval", &server, "hydra.run.dir=out"));
    let begun = Instant::now();
    let log = sandbox.path("out/run.log");
    let waits =
        || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("waiting until process 7"));
    while !waits() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.count(), 0);
    drop(lock);
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(server.count() > 0);
}

#[test]
fn a_judge_is_needed_before_answers_are_generated() {
    let sandbox = trained();
    let server = Server::start(|_, _| Answer::chat("[[A]]"));
    let before = sandbox.runs().len();
    for command in ["eval", "compare"] {
        for (more, part) in [
            (
                "judge.base_url=null",
                "nobody to ask: name an OpenAI-compatible endpoint (judge.base_url=URL",
            ),
            (
                "judge.path=model",
                "judge.base_url and judge.path are both set",
            ),
            ("task.type=mcq", "`win_rate` compares free answers"),
        ] {
            let refused = sandbox.run(&args(command, &server, more));
            assert_eq!(refused.code, Some(1), "{more}");
            assert!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
    }
    assert_eq!((sandbox.runs().len(), server.count()), (before, 0));
    // Training does not judge, and says so.
    let stdout = sandbox.ok(
        "train task=saq task.metrics=[f1,win_rate] model.path=model data.path=saq.csv \
         data.test_path=saq_test.csv training.max_steps=1 inference.max_new_tokens=2",
    );
    assert!(
        stdout.contains("win_rate is judged by run eval and run compare"),
        "{stdout}"
    );
}

#[test]
fn a_local_model_judges_in_the_same_way() {
    let sandbox = trained();
    let stdout = sandbox.ok(
        "eval task=saq task.metrics=[win_rate] model.path=model data.test_path=saq_test.csv \
         inference.max_new_tokens=4 judge.path=model judge.max_tokens=8 hydra.run.dir=out",
    );
    // It has learned nothing: whatever it says is read or named.
    let summary = sandbox.json("out/summary.json");
    for model in ["base", "tuned"] {
        let judged = &summary["judged"][model];
        let unparsed = judged["unparsed"].as_array().unwrap().len();
        assert_eq!(judged["questions"].as_u64().unwrap() as usize + unparsed, 7);
    }
    assert!(stdout.contains("judge      model: "), "{stdout}");
}

#[test]
fn a_local_judge_is_asked_by_its_own_template() {
    let sandbox = trained();
    // The answers are asked for by this template, which a judge that used it would refuse.
    let own = "{% if messages[0].content | length > 60 %}{{ raise_exception('long') }}{% endif %}\
               {{ messages[0].content }}";
    sandbox.write("own.jinja", own);
    sandbox.ok(
        "eval task=saq task.metrics=[win_rate] model.path=model data.test_path=saq_test.csv \
         inference.max_new_tokens=4 judge.path=model judge.max_tokens=8 judge.cache=null \
         prompt.chat_template=true prompt.chat_template_file=own.jinja",
    );
}

#[test]
fn a_local_judge_with_the_tokenizer_of_another_model_is_named() {
    let sandbox = trained();
    sandbox.copy("model", "judge");
    sandbox.write("judge/config.json", &config(2, 32, 2));
    sandbox.write_weights("judge");
    let run = sandbox.run(
        "eval task=saq task.metrics=[win_rate] model.path=model data.test_path=saq_test.csv \
         inference.max_new_tokens=4 judge.path=judge",
    );
    assert_eq!(run.code, Some(1), "{run:?}");
    let message = "judge.path=judge: token id ";
    assert!(
        run.stderr.contains(message) && run.stderr.contains("vocabulary of 2"),
        "{run:?}"
    );
}
