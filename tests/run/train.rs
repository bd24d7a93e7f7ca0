//! `run train` from outside: what a run directory holds, and that a run can be
//! repeated to the bit.

use crate::common::sandbox::{Sandbox, table};
use safetensors::SafeTensors;

const MCQ: &str = "train model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
                   training.batch_size=2 training.gradient_accumulation_steps=2 \
                   training.max_steps=6 training.logging_steps=2 training.save_steps=2 \
                   training.eval_steps=3";
const ADAPTER: &str = "adapter/adapter_model.safetensors";

#[test]
fn a_run_directory_holds_what_the_contract_lists() {
    let sandbox = Sandbox::new();
    let stdout = sandbox.ok(MCQ);
    let runs = sandbox.runs();
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    let pattern = run.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(pattern, "outputs/0000-00-00/00-00-00");
    let at = |name: &str| format!("{run}/{name}");
    assert_eq!(
        sandbox.files(run),
        [
            ".hydra/config.yaml",
            ".hydra/hydra.yaml",
            ".hydra/overrides.yaml",
            "adapter/adapter_config.json",
            ADAPTER,
            "adapter/chat_template.jinja",
            "adapter/tokenizer.json",
            "adapter/tokenizer_config.json",
            "checkpoints/step-000004/manifest.json",
            "checkpoints/step-000004/state.json",
            "checkpoints/step-000004/tensors.safetensors",
            "checkpoints/step-000006/manifest.json",
            "checkpoints/step-000006/state.json",
            "checkpoints/step-000006/tensors.safetensors",
            "config.resolved.yaml",
            "metrics.csv",
            "predictions.csv",
            "run.log",
            "summary.json",
        ]
    );
    let published = sandbox.tree("outputs/adapters");
    let adapter = sandbox.tree(&at("adapter"));
    assert_eq!(published.len(), adapter.len());
    for (name, bytes) in &adapter {
        assert_eq!(&published[&format!("adapter_mcq/{name}")], bytes, "{name}");
    }
    assert_eq!(sandbox.read(&at("run.log")), stdout);
    assert!(stdout.contains("MCQ accuracy"), "{stdout}");

    check_hydra(&sandbox, run);
    check_adapter(&sandbox, run);
    let (train_loss, val_loss) = check_metrics(&sandbox.read(&at("metrics.csv")));
    let summary = sandbox.json(&at("summary.json"));
    // The mean over all steps, between the rows' means over two each.
    let mean = summary["train_loss"].as_f64().unwrap();
    assert!(
        (mean - train_loss).abs() < 0.05 * train_loss,
        "{mean} {train_loss}"
    );
    assert_eq!(summary["val_loss"], val_loss);
    check_summary(&summary);

    let (header, rows) = table(&sandbox.read(&at("predictions.csv")));
    assert_eq!(
        header.join(","),
        "id,question,prediction,reference,valid,attempts"
    );
    assert_eq!(rows.len(), 7);
    let right = rows.iter().filter(|row| row[2] == row[3]).count();
    assert_eq!(summary["metrics"]["tuned"]["accuracy"], right as f64 / 7.0);
}

fn check_hydra(sandbox: &Sandbox, run: &str) {
    let yaml = |name: &str| -> serde_yaml::Value {
        serde_yaml::from_str(&sandbox.read(&format!("{run}/{name}"))).unwrap()
    };
    let overrides: Vec<String> = serde_yaml::from_value(yaml(".hydra/overrides.yaml")).unwrap();
    let typed: Vec<&str> = MCQ.split_whitespace().skip(1).collect();
    assert_eq!(overrides, typed);
    let config = yaml(".hydra/config.yaml");
    assert_eq!(config["training"]["max_steps"], 6);
    assert_eq!(config["hydra"], serde_yaml::Value::Null);
    let hydra = yaml(".hydra/hydra.yaml");
    let output_dir = hydra["hydra"]["runtime"]["output_dir"].as_str().unwrap();
    assert!(output_dir.ends_with(run), "{output_dir}");
    let resolved = sandbox.read(&format!("{run}/config.resolved.yaml"));
    assert!(!resolved.contains("${"), "{resolved}");
    for key in ["lora", "training", "inference", "quantization", "seed"] {
        assert!(resolved.contains(&format!("\n{key}:")), "{key}");
    }
}

/// The fields that PEFT reads, and a matrix pair for every target.
fn check_adapter(sandbox: &Sandbox, run: &str) {
    let config = sandbox.json(&format!("{run}/adapter/adapter_config.json"));
    for (key, want) in [
        ("peft_type", "LORA"),
        ("task_type", "CAUSAL_LM"),
        ("base_model_name_or_path", "model"),
        ("bias", "none"),
    ] {
        assert_eq!(config[key], want, "{key}");
    }
    assert_eq!(
        (&config["r"], &config["lora_alpha"]),
        (&16.into(), &32.into())
    );
    assert_eq!(config["target_modules"].as_array().unwrap().len(), 4);
    let bytes = sandbox.bytes(&format!("{run}/{ADAPTER}"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut want = Vec::new();
    for layer in 0..2 {
        for (name, out) in [("q", 32), ("k", 16), ("v", 16), ("o", 32)] {
            let module = format!("base_model.model.model.layers.{layer}.self_attn.{name}_proj");
            want.push((format!("{module}.lora_A.weight"), vec![16, 32]));
            want.push((format!("{module}.lora_B.weight"), vec![out, 16]));
        }
    }
    want.sort();
    let mut found: Vec<(String, Vec<usize>)> = tensors
        .iter()
        .map(|(name, view)| (name.to_string(), view.shape().to_vec()))
        .collect();
    found.sort();
    assert_eq!(found, want);
    let moved = tensors
        .tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight")
        .unwrap();
    assert!(moved.data().iter().any(|b| *b != 0), "B is still zero");
}

/// Returns the last training and the last validation loss.
fn check_metrics(text: &str) -> (f64, f64) {
    let (header, rows) = table(text);
    assert_eq!(
        header.join(","),
        "step,epoch,split,loss,learning_rate,grad_norm,supervised_tokens,tokens_per_s,\
         peak_memory_bytes,elapsed_s"
    );
    let events: Vec<(&str, &str)> = rows.iter().map(|r| (&r[0][..], &r[2][..])).collect();
    assert_eq!(
        events,
        [
            ("2", "train"),
            ("3", "val"),
            ("4", "train"),
            ("6", "train"),
            ("6", "val")
        ]
    );
    let mut elapsed = 0.0;
    let mut losses = (0.0, 0.0);
    for row in &rows {
        let number = |i: usize| row[i].parse::<f64>().unwrap();
        let (train, loss) = (row[2] == "train", number(3));
        // Full precision: the shortest text that reads back to the same bits.
        assert_eq!(format!("{loss:?}"), row[3]);
        assert!(row[3].len() > 12 && (1.0..10.0).contains(&loss), "{loss}");
        assert_eq!((row[4].is_empty(), row[5].is_empty()), (!train, !train));
        assert!(number(6) > 0.0 && number(7) > 0.0 && number(8) > 1e6);
        assert!(number(9) > elapsed, "{text}");
        elapsed = number(9);
        // 20 of the 24 examples train, 4 to a step.
        assert!((number(1) - number(0) / 5.0).abs() < 1e-12, "{text}");
        match train {
            true => losses.0 = loss,
            false => losses.1 = loss,
        }
    }
    losses
}

fn check_summary(summary: &serde_json::Value) {
    for (key, want) in [("status", "finished"), ("task", "mcq"), ("device", "cpu")] {
        assert_eq!(summary[key], want, "{key}");
    }
    for side in ["base", "tuned"] {
        let accuracy = summary["metrics"][side]["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy));
    }
    // r (in + out) of q, k, v, o in two layers; the base has 17,568 weights.
    assert_eq!(summary["trainable_parameters"], 7168);
    let percent = summary["trainable_percent"].as_f64().unwrap();
    assert!(
        (percent - 100.0 * 7168.0 / 24736.0).abs() < 1e-9,
        "{percent}"
    );
    for key in [
        "peak_memory_bytes",
        "planned_memory_bytes",
        "tokens_per_s",
        "duration_s",
    ] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(summary["versions"]["kiln"], env!("CARGO_PKG_VERSION"));
    assert!(summary["versions"]["burn"].is_string());
}

#[test]
fn the_resolved_config_repeats_a_run() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!(
        "{MCQ} hydra.run.dir=first seed=5 lora.alpha=${{lora.r}}"
    ));
    sandbox.ok("train --config-dir first --config-name config.resolved hydra.run.dir=again");
    for file in [ADAPTER, "predictions.csv", "config.resolved.yaml"] {
        let (first, again) = (format!("first/{file}"), format!("again/{file}"));
        assert!(sandbox.bytes(&first) == sandbox.bytes(&again), "{file}");
    }
    let config = sandbox.read("again/config.resolved.yaml");
    assert!(
        config.contains("seed: 5") && config.contains("alpha: 16"),
        "{config}"
    );
}

#[test]
fn the_seed_decides_every_bit_of_the_adapter() {
    let sandbox = Sandbox::new();
    let train = "train task=tokens data.path=tokens.jsonl model.path=model lora.dropout=0.2 \
                 lora.target_modules=all-linear training.shuffle=true training.batch_size=3 \
                 training.gradient_accumulation_steps=2 training.val_ratio=0.2 \
                 training.epochs=2 training.learning_rate=1e-3";
    for (name, seed) in [("a", 7), ("b", 7), ("c", 8)] {
        sandbox.ok(&format!("{train} seed={seed} hydra.run.dir={name}"));
    }
    let adapter = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
    assert!(
        adapter("a") == adapter("b"),
        "the same seed gave other bytes"
    );
    assert!(
        adapter("a") != adapter("c"),
        "another seed gave the same bytes"
    );
    // Two runs without hydra.run.dir never share a directory, even within a second.
    for _ in 0..2 {
        sandbox.ok(&format!("{train} training.max_steps=1"));
    }
    assert_eq!(sandbox.runs().len(), 2);
}

#[test]
fn a_full_run_makes_a_model_for_the_next() {
    let sandbox = Sandbox::new();
    let full = "train task=saq data.path=saq.csv data.test_path=saq_test.csv method=full \
                quantization=none training.learning_rate=1e-2 training.max_steps=8 \
                inference.max_new_tokens=3";
    sandbox.ok(&format!("{full} model.path=model hydra.run.dir=first"));
    assert_eq!(
        sandbox.files("first/model"),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert!(!sandbox.path("first/adapter").exists());
    assert!(!sandbox.path("outputs/adapters").exists());
    let summary = sandbox.json("first/summary.json");
    assert_eq!(summary["trainable_percent"], 100.0);
    assert!(summary["metrics"]["base"]["f1"].is_number());

    sandbox.ok(&format!(
        "{full} model.path=first/model hydra.run.dir=second"
    ));
    // The second run begins where the first ended.
    let metric = |run: &str, side: &str| {
        let summary = sandbox.json(&format!("{run}/summary.json"));
        (
            summary["metrics"][side]["exact_match"].clone(),
            summary["metrics"][side]["f1"].clone(),
        )
    };
    assert_eq!(metric("first", "tuned"), metric("second", "base"));
    let loss = |run: &str| sandbox.json(&format!("{run}/summary.json"))["train_loss"].as_f64();
    assert!(loss("second") < loss("first"));
    // And serves as the base of an adapter.
    sandbox.ok(&format!("{MCQ} model.path=first/model hydra.run.dir=third"));
    let config = sandbox.json("third/adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], "first/model");
}

#[test]
fn an_adapter_to_start_from_keeps_its_shape_and_the_config_says_so() {
    let sandbox = Sandbox::new();
    let train = "train task=tokens model.path=model data.path=tokens.jsonl training.max_steps=2 \
                 training.warmup_steps=3";
    let shape = "lora.r=2 lora.alpha=5 lora.target_modules=[q_proj]";
    let said = sandbox.ok(&format!("{train} {shape} hydra.run.dir=first"));
    assert!(
        said.contains("training.warmup_steps=3: the run has 2 steps"),
        "{said}"
    );
    let from = "lora.init_from=first/adapter";
    sandbox.ok(&format!("{train} {from} hydra.run.dir=second"));
    let resolved = sandbox.read("second/config.resolved.yaml");
    for line in [
        "  r: 2\n",
        "  alpha: 5\n",
        "  target_modules:\n  - q_proj\n",
    ] {
        assert!(resolved.contains(line), "{line} in\n{resolved}");
    }
    assert_eq!(sandbox.json("second/adapter/adapter_config.json")["r"], 2);
    // Its dropout too, unless another one is asked for; what is written says which was used.
    let dropout = |run: &str| {
        let config = sandbox.json(&format!("{run}/adapter/adapter_config.json"));
        config["lora_dropout"].as_f64().unwrap()
    };
    sandbox.ok(&format!(
        "{train} {shape} lora.dropout=0.3 hydra.run.dir=dropping"
    ));
    let drops = "lora.init_from=dropping/adapter";
    sandbox.ok(&format!("{train} {drops} hydra.run.dir=as_it_was"));
    sandbox.ok(&format!(
        "{train} {drops} lora.dropout=0.1 hydra.run.dir=other"
    ));
    assert_eq!((dropout("as_it_was"), dropout("other")), (0.3, 0.1));
    for run in ["as_it_was", "other"] {
        sandbox.ok(&format!("train --from {run} hydra.run.dir={run}_again"));
        assert_eq!(dropout(run), dropout(&format!("{run}_again")), "{run}");
    }
    assert!(
        sandbox
            .read("as_it_was/config.resolved.yaml")
            .contains("  dropout: 0.3\n")
    );
    for again in [
        "train --config-dir second --config-name config.resolved hydra.run.dir=third".to_string(),
        format!("{train} {from} {shape} hydra.run.dir=fourth"),
        "train --from second hydra.run.dir=fifth".to_string(),
    ] {
        sandbox.ok(&again);
    }
    // What all-linear comes to is for the model to say.
    let all = "lora.target_modules=all-linear";
    sandbox.ok(&format!("{train} {all} hydra.run.dir=wide"));
    sandbox.ok(&format!(
        "{train} {all} lora.init_from=wide/adapter hydra.run.dir=wider"
    ));
    for (asked, what) in [
        (
            "lora.r=8",
            "`lora.r` is 8, but the adapter of `lora.init_from` has 2",
        ),
        ("lora.target_modules=[q_proj,v_proj]", "has [\"q_proj\"]"),
    ] {
        let refused = sandbox.run(&format!("{train} {from} {asked} hydra.run.dir=no"));
        assert_eq!(refused.code, Some(1));
        for part in [what, &format!("command line: {asked}")] {
            assert!(refused.stderr.contains(part), "{refused:?}");
        }
    }
    assert!(!sandbox.path("no").exists());
}
