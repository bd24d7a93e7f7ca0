//! Answers cleaned by rules, and scored by a sentence encoder, from outside.

use std::path::Path;
use std::process::Command;

use crate::common::sandbox::{Sandbox, table};

fn bert() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/bert").display().to_string()
}

const TASK: &str = "task=saq model.path=model data.path=saq.csv data.test_path=saq_test.csv \
                    inference.max_new_tokens=4";

fn train(sandbox: &Sandbox, args: &str) -> String {
    sandbox.ok(&format!(
        "train {TASK} training.learning_rate=1e-2 training.max_steps=8 {args}"
    ))
}

#[test]
fn similarity_stands_in_every_summary_where_a_model_is_named() {
    let sandbox = Sandbox::new();
    let sas = format!("evaluate.sas_model={}", bert());
    let said = train(&sandbox, &format!("{sas} hydra.run.dir=trained"));
    assert!(
        said.contains("semantic answer similarity (sas) by "),
        "{said}"
    );
    assert!(said.contains("SAQ SAS x EM"), "{said}");
    let trained = &sandbox.json("trained/summary.json")["metrics"];
    for side in ["base", "tuned"] {
        let of = |name: &str| trained[side][name].as_f64().unwrap();
        let exact = of("exact_match_ignore_case");
        assert!((of("sas_x_em") - of("sas") * exact).abs() < 1e-12);
        assert!((-1.0..=1.0).contains(&of("sas")) && (0.0..=1.0).contains(&exact));
        assert!(trained[side]["exact_match"].is_number(), "{trained}");
    }
    assert_ne!(trained["base"]["sas"], trained["tuned"]["sas"]);
    for command in ["eval", "compare"] {
        sandbox.ok(&format!("{command} {TASK} {sas} hydra.run.dir={command}"));
        let summary = sandbox.json(&format!("{command}/summary.json"));
        assert_eq!(&summary["metrics"], trained, "{command}");
    }
    assert!(sandbox.read("compare/comparison.svg").contains("SAS"));
    // The mean over the rows of predictions.csv, computed here.
    let (_, rows) = table(&sandbox.read("eval/predictions.csv"));
    let encoder = kiln::embed::SentenceEncoder::load(Path::new(&bert())).unwrap();
    let column = |i: usize| rows.iter().map(|row| row[i].clone()).collect::<Vec<_>>();
    let (given, wanted) = (column(2), column(3));
    let pairs = given.iter().zip(&wanted).map(|(given, wanted)| {
        let vectors = encoder.embed(&[given, wanted]).unwrap();
        kiln::embed::cosine(&vectors[0], &vectors[1])
    });
    let mean = pairs.sum::<f64>() / rows.len() as f64;
    let told = trained["tuned"]["sas"].as_f64().unwrap();
    assert!((mean - told).abs() < 1e-6, "{mean} {told}");
    // Without a model there is no such figure.
    sandbox.ok(&format!("eval {TASK} hydra.run.dir=plain"));
    let plain = &sandbox.json("plain/summary.json")["metrics"]["tuned"];
    assert!(
        plain["sas"].is_null() && plain["sas_x_em"].is_null(),
        "{plain}"
    );
    assert_eq!(plain["f1"], trained["tuned"]["f1"]);
}

#[test]
fn similarity_is_told_while_training() {
    let sandbox = Sandbox::new();
    let sas = format!("evaluate.sas_model={}", bert());
    let sampled =
        format!("{sas} training.eval_examples=3 training.eval_steps=4 training.val_ratio=0.3");
    let said = train(&sandbox, &format!("{sampled} hydra.run.dir=trained"));
    assert!(said.contains("sas_x_em "), "{said}");
    let (_, rows) = table(&sandbox.read("trained/eval_metrics.csv"));
    let told: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row[0].as_str(), row[2].as_str()))
        .collect();
    for step in ["4", "8"] {
        for metric in ["f1", "exact_match_ignore_case", "sas", "sas_x_em"] {
            assert!(told.contains(&(step, metric)), "{step} {metric} {told:?}");
        }
    }
}

#[test]
fn an_encoder_that_cannot_be_used_is_found_before_the_run() {
    let sandbox = Sandbox::new();
    for (args, wanted) in [
        (
            "evaluate.sas_model=./none",
            "evaluate.sas_model: ./none/config.json: cannot read",
        ),
        (
            "evaluate.sas_model=model",
            "model_type `llama` is not supported; supported: bert",
        ),
        (
            "evaluate.sas_model=some/encoder",
            "evaluate.sas_model=some/encoder: config.json not in the cache",
        ),
    ] {
        for command in ["train", "eval"] {
            let line = format!("{command} {TASK} {args} hydra.run.dir=out");
            let finished = Command::new(env!("CARGO_BIN_EXE_run"))
                .args(line.split_whitespace())
                .current_dir(sandbox.path(""))
                .env("HF_HUB_OFFLINE", "1")
                .env("HF_HOME", "cache")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&finished.stderr);
            assert_eq!(finished.status.code(), Some(1), "{said}");
            assert!(
                said.contains(wanted) && !said.contains("model.path=DIR"),
                "{said}"
            );
            assert!(!sandbox.path("out").exists());
        }
    }
    let mcq = TASK.replace("saq", "mcq");
    let refused = sandbox.run(&format!("eval {mcq} evaluate.sas_model={}", bert()));
    assert!(
        refused.stderr.contains("`task.type` is not saq"),
        "{refused:?}"
    );
}

#[test]
fn rules_clean_what_is_scored_and_written() {
    let sandbox = Sandbox::new();
    train(&sandbox, "hydra.run.dir=trained");
    let predictions = |dir: &str| -> Vec<Vec<String>> {
        let (_, rows) = table(&sandbox.read(&format!("{dir}/predictions.csv")));
        rows
    };
    let plain = predictions("trained");
    let mut letters = plain.iter().flat_map(|row| row[2].chars());
    let letter = letters.find(char::is_ascii_alphanumeric);
    let letter = letter.unwrap_or_else(|| panic!("no letter in {plain:?}"));
    // One letter of the answers becomes one number, then another.
    let rules = format!("inference.clean=[s/{letter}/+5+/,s/5/6/,special_tokens]");
    for (command, dir) in [("eval", "eval"), ("infer", "infer"), ("compare", "compare")] {
        sandbox.ok(&format!("{command} {TASK} {rules} hydra.run.dir={dir}"));
        let cleaned = predictions(dir);
        assert!(cleaned.iter().any(|row| row[2].contains("+6+")));
        for (row, plain) in cleaned.iter().zip(&plain) {
            assert_eq!(row[2], plain[2].replace(letter, "+6+"), "{command}");
        }
    }
    // All taken away: no answer is right, and none has the form of one.
    sandbox.ok(&format!(
        "eval {TASK} inference.clean=[s/.*//s] inference.validation.max_retries=1 hydra.run.dir=none"
    ));
    for row in predictions("none") {
        assert_eq!((&*row[2], &*row[4], &*row[5]), ("", "false", "2"));
    }
    assert_eq!(
        sandbox.json("none/summary.json")["metrics"]["tuned"]["f1"],
        0.0
    );
    // Streamed answers are shown clean, each once.
    let shown = sandbox.ok(&format!(
        "infer {TASK} {rules} inference.stream=true \
         hydra.run.dir=stream"
    ));
    for row in predictions("stream") {
        assert!(shown.contains(&format!(": {}\n", row[2])), "{shown}");
    }
    assert!(!shown.contains("+5+"), "{shown}");
    let refused = sandbox.run(&format!("eval {TASK} inference.clean=[thinking,'s/(a/b/']"));
    assert_eq!(refused.code, Some(1));
    let wanted = "`inference.clean`: rule 2, `s/(a/b/`: not a regular expression: unclosed group";
    assert!(refused.stderr.contains(wanted), "{refused:?}");
}
