//! A past run, run again from its directory, and the two in the registry.

use crate::common::sandbox::Sandbox;

const MCQ: &str = "train model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
                   training.batch_size=2 training.gradient_accumulation_steps=2 \
                   training.max_steps=4 training.logging_steps=2 training.save_steps=0 \
                   training.eval_steps=0 lora.alpha=${lora.r}";
const ADAPTER: &str = "adapter/adapter_model.safetensors";

#[test]
fn a_rerun_is_the_run_again_and_overrides_come_on_top() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("{MCQ} lora.r=4"));
    let runs = sandbox.runs();
    assert_eq!(runs.len(), 1);
    let first = &runs[0];
    sandbox.ok(&format!(
        "train --from {first} hydra.run.dir=outputs/a/again"
    ));
    sandbox.ok(&format!(
        "train --from {first} lora.r=2 hydra.run.dir=outputs/a/other"
    ));
    let at = |run: &str, name: &str| sandbox.bytes(&format!("{run}/{name}"));
    let text = |run: &str, name: &str| sandbox.read(&format!("{run}/{name}"));

    // The same to the byte; what it came from is on record.
    for name in [
        ADAPTER,
        "predictions.csv",
        ".hydra/config.yaml",
        "config.resolved.yaml",
    ] {
        assert_eq!(at(first, name), at("outputs/a/again", name), "{name}");
    }
    assert_eq!(text("outputs/a/again", ".hydra/overrides.yaml"), "[]\n");
    assert_eq!(
        text("outputs/a/other", ".hydra/overrides.yaml"),
        "- lora.r=2\n"
    );
    let hydra = text("outputs/a/other", ".hydra/hydra.yaml");
    assert!(hydra.contains(&format!("{first}/.hydra\n")), "{hydra}");
    let shown = sandbox.ok("runs show a/other");
    let origin = shown.lines().find(|line| line.starts_with("rerun of"));
    assert!(
        origin.is_some_and(|line| line.ends_with(first.as_str())),
        "{shown}"
    );

    // The override moved what depends on it.
    let adapter = sandbox.json("outputs/a/other/adapter/adapter_config.json");
    assert_eq!(
        (&adapter["r"], &adapter["lora_alpha"]),
        (&2.into(), &2.into())
    );
    let diff: serde_json::Value =
        serde_json::from_str(&sandbox.ok(&format!("runs --json diff {first} a/other"))).unwrap();
    let keys: Vec<&String> = diff["config"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["lora.alpha", "lora.r"]);
    let same: serde_json::Value =
        serde_json::from_str(&sandbox.ok(&format!("runs --json diff {first} a/again"))).unwrap();
    assert_eq!(same["config"], serde_json::json!({}));
    assert_eq!(same["summary"].get("metrics.tuned.accuracy"), None);

    let list: serde_json::Value = serde_json::from_str(&sandbox.ok("runs --json")).unwrap();
    let order: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["directory"].as_str().unwrap())
        .collect();
    assert_eq!(
        order,
        [first.as_str(), "outputs/a/again", "outputs/a/other"]
    );
    for run in list.as_array().unwrap() {
        assert_eq!(run["status"], "finished");
        assert!(
            run["tuned"].is_number() && run["duration_s"].is_number(),
            "{run}"
        );
    }
}
