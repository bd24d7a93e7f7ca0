//! Runs whose adapters begin with a part of the weights: PiSSA and LoftQ.

use crate::common;

use common::sandbox::Sandbox;

const TOKENS: &str = "train task=tokens data.path=tokens.jsonl model.path=model \
                      training.batch_size=2 training.gradient_accumulation_steps=2 lora.r=4";

#[test]
fn a_resumed_run_finds_the_same_base_again() {
    let sandbox = Sandbox::new();
    for (name, quantization) in [("dense", "none"), ("small", "nf4")] {
        let train = format!(
            "{TOKENS} quantization={quantization} lora.init_lora_weights=pissa \
             training.max_steps=12 training.save_steps=5"
        );
        let (whole, run) = (format!("{name}-whole"), format!("{name}-run"));
        sandbox.ok(&format!("{train} hydra.run.dir={whole}"));
        sandbox.ok(&format!("{train} hydra.run.dir={run}"));
        // As a kill after the checkpoint of step 10 leaves it.
        let path = format!("{run}/summary.json");
        let text = sandbox.read(&path).replace("\"finished\"", "\"running\"");
        sandbox.write(&path, &text);
        let last = sandbox.path(&format!("{run}/checkpoints/step-000012"));
        std::fs::remove_dir_all(last).unwrap();
        let stdout = sandbox.ok(&format!("{train} training.resume={run}"));
        assert!(stdout.contains("step-000010"), "{stdout}");
        let adapter =
            |run: &str| sandbox.bytes(&format!("{run}/adapter/adapter_model.safetensors"));
        assert!(adapter(&run) == adapter(&whole), "the adapters differ");
        // As PEFT's conversion writes it.
        let config = sandbox.json(&format!("{run}/adapter/adapter_config.json"));
        assert_eq!(config["init_lora_weights"], true);
        assert_eq!(
            (&config["r"], &config["lora_alpha"]),
            (&8.into(), &64.into())
        );
    }
}

#[test]
fn the_published_adapter_answers_on_the_base_as_it_was() {
    let sandbox = Sandbox::new();
    let train = "train task=mcq model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
                 quantization=none lora.r=4 training.learning_rate=5e-3 training.max_steps=20";
    sandbox.ok(&format!("{train} hydra.run.dir=plain"));
    sandbox.ok(&format!(
        "{train} hydra.run.dir=run lora.init_lora_weights=pissa_niter_8"
    ));
    let metrics =
        |run: &str, of: &str| sandbox.json(&format!("{run}/summary.json"))["metrics"][of].clone();
    assert_eq!(metrics("run", "base"), metrics("plain", "base"));
    sandbox.ok(
        "eval task=mcq model.path=model data.test_path=mcq_test.csv quantization=none \
         adapter=run/adapter hydra.run.dir=eval",
    );
    assert_eq!(metrics("eval", "tuned"), metrics("run", "tuned"));
    let answers = |run: &str| sandbox.read(&format!("{run}/predictions.csv"));
    assert_eq!(answers("eval"), answers("run"));
}

#[test]
fn later_rounds_of_loftq_leave_their_base() {
    let sandbox = Sandbox::new();
    let loftq = "lora.init_lora_weights=loftq lora.alpha=4 quantization=nf4 training.max_steps=3";
    sandbox.ok(&format!("{TOKENS} {loftq} hydra.run.dir=one"));
    assert!(!sandbox.path("one/base").exists());
    let stdout = sandbox.ok(&format!(
        "{TOKENS} {loftq} lora.loftq_iter=3 hydra.run.dir=three"
    ));
    assert!(stdout.contains("model.path=three/base"), "{stdout}");
    let config = sandbox.json("three/adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], "three/base");
    assert_eq!(config["r"], 4);
    let files = sandbox.files("three/base");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(files.iter().any(|f| f == file), "{files:?}");
    }
    // The adapter goes on beside it, and it is quantised already.
    let on = TOKENS.replace("model.path=model", "model.path=three/base");
    let more = "quantization=nf4 training.max_steps=2";
    sandbox.ok(&format!(
        "{on} {more} lora.init_from=three/adapter hydra.run.dir=on"
    ));
    let refused = sandbox.run(&format!(
        "{on} {more} lora.init_lora_weights=pissa hydra.run.dir=no"
    ));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("quantised to NF4 already"),
        "{refused:?}"
    );
}

#[test]
fn what_does_not_go_together_is_refused_before_a_run() {
    let sandbox = Sandbox::new();
    for (overrides, wanted) in [
        (
            "lora.init_lora_weights=pissa lora.init_from=a",
            "lora.init_from",
        ),
        ("lora.init_lora_weights=pissa lora.use_dora=true", "DoRA"),
        (
            "lora.init_lora_weights=loftq quantization=none lora.alpha=4",
            "quantization=nf4",
        ),
        (
            "lora.init_lora_weights=loftq quantization=nf4 lora.alpha=8",
            "lora.alpha=4",
        ),
        ("lora.init_lora_weights=pisa", "pissa"),
        ("lora.init_lora_weights=pissa_niter_x", "pissa"),
        ("lora.init_lora_weights=false", "lora.init_lora_weights"),
        (
            "lora.init_lora_weights=pissa lora.r=33 quantization=none",
            "fewer than the rank",
        ),
    ] {
        let refused = sandbox.run(&format!("{TOKENS} {overrides} hydra.run.dir=no"));
        assert_ne!(refused.code, Some(0), "{overrides}");
        assert!(refused.stderr.contains(wanted), "{overrides}: {refused:?}");
        assert!(
            !refused.stderr.contains("panicked"),
            "{overrides}: {refused:?}"
        );
        assert!(!sandbox.path("no/adapter").exists());
    }
}
