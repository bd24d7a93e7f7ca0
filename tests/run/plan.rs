//! `run plan` from outside, and what a run writes of its plan.

use crate::common::sandbox::Sandbox;

#[test]
fn the_command_prints_a_plan_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let plan = "plan model.path=model data.path=mcq.csv data.test_path=mcq_test.csv training.batch_size=2 \
         inference.batch_size=1";
    let text = sandbox.ok(plan);
    for part in [
        "24,736 parameters, 7,168 of them train (28.98 %)",
        "20 training and 4 validation examples, 9 steps",
        "base weights: NF4 codes",
        "\nfits: ",
        "GFLOP",
        "an estimate from",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(sandbox.runs().is_empty());
    let json = |args: &str| -> serde_json::Value {
        serde_json::from_str(&sandbox.ok(&format!("{plan} --json {args}"))).unwrap()
    };
    // Without the copy of a checkpoint, which is the peak of so small a model.
    let small = json("training.save_steps=0");
    assert_eq!(small["trainable_parameters"], 7168);
    assert_eq!(small["fits"], true);
    assert_eq!(small["device"], "cpu");
    let large = json("training.save_steps=0 training.gradient_checkpointing=false lora.r=64");
    let bytes = |value: &serde_json::Value, part: &str| value["memory"][part].as_u64().unwrap();
    assert_eq!(bytes(&large, "trained"), 4 * bytes(&small, "trained"));
    assert!(bytes(&large, "kept") > bytes(&small, "kept"));
    // A GPU that is not here, too small for anything.
    let tiny = json("--gpu 512MiB");
    assert_eq!(
        (&tiny["fits"], &tiny["would_fit_with"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert!(tiny["memory"]["context"].as_u64().is_some() && tiny["estimate"].is_null());
}

#[test]
fn without_data_the_longest_batches_are_assumed() {
    let sandbox = Sandbox::new();
    let assumed = "plan model.path=model data.path=null training.max_seq_length=100 --json";
    let json: serde_json::Value = serde_json::from_str(&sandbox.ok(assumed)).unwrap();
    assert_eq!(json["assumed_batches"], "data.path is not set");
    assert_eq!(json["batch"]["tokens"], 400);
    // The largest that a config can ask for takes no longer.
    let largest = "plan model.path=model data.path=null training.batch_size=16384 \
                   training.gradient_accumulation_steps=65536 training.max_steps=10000000 \
                   training.eval_examples=9000000000000000000 inference.batch_size=4096 \
                   inference.num_beams=256 task.type=saq task.metrics=[f1] --json";
    let json: serde_json::Value = serde_json::from_str(&sandbox.ok(largest)).unwrap();
    assert_eq!(json["batch"]["sequences"], 16384);
    assert_eq!(json["batch"]["tokens"], 16384 * 512);
    // A config.json alone is enough.
    std::fs::create_dir(sandbox.path("bare")).unwrap();
    std::fs::copy(
        sandbox.path("model/config.json"),
        sandbox.path("bare/config.json"),
    )
    .unwrap();
    let bare = "plan model.path=bare data.path=mcq.csv data.test_path=mcq_test.csv";
    let text = sandbox.ok(bare);
    assert!(
        text.contains("the model directory has no tokenizer"),
        "{text}"
    );
    let missing = sandbox.run("plan model.path=model data.path=none.csv");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("none.csv"), "{}", missing.stderr);
}

#[test]
fn a_run_writes_what_it_had_planned() {
    let sandbox = Sandbox::new();
    let run = "model.path=model data.path=saq.csv data.test_path=saq_test.csv training.max_steps=2";
    let log = sandbox.ok(&format!("train task=saq {run} hydra.run.dir=run"));
    assert!(log.contains("planned memory "), "{log}");
    let summary = sandbox.json("run/summary.json");
    let planned = summary["planned_memory_bytes"].as_u64().unwrap();
    let text = sandbox.ok(&format!("plan task=saq {run} --json"));
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    // The program itself takes a little more or less each time.
    let part = |name: &str| plan["memory"][name].as_u64().unwrap_or(0);
    let again = plan["planned_memory_bytes"].as_u64().unwrap();
    let program = part("program");
    assert!(
        planned.abs_diff(again) < program / 5,
        "{planned} {again} {program}"
    );
}
