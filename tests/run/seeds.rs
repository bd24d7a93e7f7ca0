//! The ready experiments on small models, the lines of the guides, and bad rows in
//! a run from end to end.

use std::path::Path;
use std::process::Command;

use crate::common::sandbox::Sandbox;
use crate::common::shared;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `run ...` between backticks and on lines of their own.
fn lines_of(doc: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(doc)).unwrap();
    let mut lines = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push(line.to_string());
        } else {
            lines.extend(line.split('`').skip(1).step_by(2).map(str::to_string));
        }
    }
    lines.retain(|line| line.starts_with("run "));
    lines
}

#[test]
fn every_line_of_the_guides_composes() {
    let sandbox = Sandbox::new();
    for (doc, least) in [("docs/tuning.md", 50), ("docs/seeds.md", 35)] {
        let lines = lines_of(doc);
        assert!(lines.len() >= least, "{doc}: {} lines", lines.len());
        for line in lines {
            let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
            // Named as a group of commands, not as a line to run.
            if words == ["train"] || words == ["eval"] || words == ["infer"] || words == ["plan"] {
                continue;
            }
            let sweep = words.contains(&"-m");
            match words[0] {
                "train" | "infer" | "eval" if sweep => words.push("--dry-run"),
                "train" | "infer" | "eval" if !words.contains(&"--cfg") => {
                    words.extend(["--cfg", "job"]);
                }
                "plan" | "merge" | "compare" | "chat" | "synth" => words.extend(["--cfg", "job"]),
                "train" | "infer" | "eval" => {}
                // No config: its flags are read, and help is printed.
                _ => words.push("--help"),
            }
            let output = Command::new(env!("CARGO_BIN_EXE_run"))
                .args(&words)
                .current_dir(sandbox.path(""))
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{doc}: {line}\n{stderr}");
            assert!(!output.stdout.is_empty(), "{doc}: {line}");
        }
    }
}

fn copy_samples(sandbox: &Sandbox) {
    for name in [
        "squad.json",
        "abstractive.jsonl",
        "academic.jsonl",
        "sst2.tsv",
    ] {
        let name = format!("data/sample_{name}");
        sandbox.write(&name, &std::fs::read_to_string(root().join(&name)).unwrap());
    }
}

/// The line for a CPU that the experiment's file gives, with the small base's place.
fn cpu_line(experiment: &str) -> String {
    let file = root().join(format!("experiments/{experiment}.yaml"));
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().filter(|line| line.contains("model=tiny"));
    let line = lines
        .next()
        .unwrap()
        .trim_start_matches("#   run ")
        .to_string();
    let tiny = root().join("data/models/tiny");
    format!("{line} model.path={}", tiny.display())
}

#[test]
fn the_experiments_train_the_small_base_by_the_line_they_give() {
    let sandbox = Sandbox::new();
    copy_samples(&sandbox);
    let short = "training.max_steps=1 task.max_test_examples=2 inference.max_new_tokens=4";
    for (experiment, task) in [
        ("squad_gpt2", "squad"),
        ("abstractive_qwen3", "abstractive"),
        ("academic_zephyr", "academic"),
    ] {
        let line = cpu_line(experiment);
        sandbox.ok(&format!("{line} {short} hydra.run.dir={experiment}"));
        let summary = sandbox.json(&format!("{experiment}/summary.json"));
        assert_eq!(summary["status"], "finished", "{experiment}");
        assert!(summary["train_loss"].as_f64().unwrap() > 0.0);
        assert!(
            sandbox
                .path(&format!("outputs/adapters/adapter_{task}"))
                .is_dir()
        );
        let adapter = sandbox.json(&format!("{experiment}/adapter/adapter_config.json"));
        let (r, modules) = match experiment {
            "squad_gpt2" => (4, 4),
            "abstractive_qwen3" => (64, 7),
            _ => (16, 4),
        };
        assert_eq!(adapter["r"], r, "{experiment}");
        assert_eq!(adapter["target_modules"].as_array().unwrap().len(), modules);
    }
    let tuned = &sandbox.json("squad_gpt2/summary.json")["metrics"]["tuned"];
    assert!(
        tuned["exact_match"].is_number() && tuned["f1"].is_number(),
        "{tuned}"
    );
    let line = cpu_line("rank_ablation");
    sandbox.ok(&format!("{line} {short} hydra.sweep.dir=ranks"));
    for (cell, r) in [4, 8, 16].iter().enumerate() {
        let adapter = sandbox.json(&format!("ranks/{cell}/adapter/adapter_config.json"));
        assert_eq!(
            (&adapter["r"], &adapter["lora_alpha"]),
            (&(*r).into(), &(2 * r).into())
        );
    }
    let table = sandbox.read("ranks/sweep.csv");
    assert!(
        table.contains("lora.r") && table.contains("trainable_parameters"),
        "{table}"
    );
}

#[test]
fn the_experiments_train_small_models_of_their_families() {
    let sandbox = Sandbox::new();
    copy_samples(&sandbox);
    for (experiment, family, data) in [
        ("squad_gpt2", "gpt2", "squad.json"),
        ("abstractive_qwen3", "qwen3_qknorm", "abstractive.jsonl"),
        ("academic_zephyr", "mistral_sw", "academic.jsonl"),
    ] {
        let Some(model) = shared(&format!("reference/tiny/{family}")) else {
            return;
        };
        sandbox.ok(&format!(
            "train experiment={experiment} model.path={} data.path=data/sample_{data} \
             data.test_path=null training.max_seq_length=120 training.max_steps=2 \
             inference.max_new_tokens=4 hydra.run.dir={family}",
            model.display()
        ));
        assert_eq!(
            sandbox.json(&format!("{family}/summary.json"))["status"],
            "finished"
        );
    }
}

#[test]
fn skipped_rows_are_in_the_log_and_counted() {
    let sandbox = Sandbox::new();
    let good = sandbox.read("saq.csv");
    sandbox.write(
        "bad.csv",
        &(good + "What,,\nWhat color is snow ?,\n\"What\"?,no\n"),
    );
    let test = sandbox.read("saq_test.csv");
    sandbox.write("bad_test.csv", &(test + "What color is snow ?,\n"));
    let args = "task=saq model.path=model data.path=bad.csv data.test_path=bad_test.csv \
                training.max_steps=2 inference.max_new_tokens=2";
    let refused = sandbox.run(&format!("train {args}"));
    assert_eq!(refused.code, Some(1));
    let first = "bad.csv:26: 3 fields where the header has 2";
    assert!(refused.stderr.contains(first), "{refused:?}");
    let said = sandbox.ok(&format!(
        "train {args} data.on_error=skip hydra.run.dir=out"
    ));
    assert!(said.contains("bad.csv: 3 bad rows skipped"), "{said}");
    let log = sandbox.read("out/run.log");
    for line in [
        first,
        "bad.csv:27: answer is empty",
        "bad.csv:28: text follows the quote",
        "bad_test.csv:9: answer is empty",
    ] {
        assert!(log.contains(&format!("skipped {line}")), "{line} in {log}");
    }
    assert_eq!(sandbox.json("out/summary.json")["skipped_rows"], 4);
    // What is left trains as a file of the good rows does.
    let whole = args.replace("bad", "saq");
    sandbox.ok(&format!("train {whole} hydra.run.dir=whole"));
    assert!(
        sandbox.bytes("out/adapter/adapter_model.safetensors")
            == sandbox.bytes("whole/adapter/adapter_model.safetensors")
    );
    for command in ["eval", "infer"] {
        let question = "data.test_path=ragged.csv";
        sandbox.write("ragged.csv", &(sandbox.read("saq_test.csv") + "a,b,c\n"));
        sandbox.ok(&format!(
            "{command} task=saq model.path=model {question} inference.max_new_tokens=2 \
             data.on_error=skip hydra.run.dir={command}"
        ));
        assert_eq!(
            sandbox.json(&format!("{command}/summary.json"))["skipped_rows"],
            1
        );
        let log = sandbox.read(&format!("{command}/run.log"));
        assert!(log.contains("skipped ragged.csv:9: 3 fields"), "{log}");
    }
}
