//! `training.eval_examples`, `training.load_best_model_at_end` and `training.metric_for_best_model`.

use crate::common::sandbox::{Sandbox, table};

const ADAPTER: &str = "adapter/adapter_model.safetensors";
/// A rate at which the small model soon forgets what the validation set asks.
const TRAIN: &str = "train model.path=model training.val_ratio=0.3 training.batch_size=2 \
                     training.gradient_accumulation_steps=1 training.learning_rate=3e-2 \
                     training.scheduler=constant training.warmup_ratio=0 training.logging_steps=0 \
                     training.eval_steps=3 training.save_steps=5 data.test_path=null";

/// (step, validation loss) of a run.
fn losses(sandbox: &Sandbox, run: &str) -> Vec<(usize, f64)> {
    let (_, rows) = table(&sandbox.read(&format!("{run}/metrics.csv")));
    let val = rows.into_iter().filter(|row| row[2] == "val");
    val.map(|row| (row[0].parse().unwrap(), row[3].parse().unwrap()))
        .collect()
}

fn unfinish(sandbox: &Sandbox, run: &str) {
    let path = format!("{run}/summary.json");
    let text = sandbox.read(&path).replace("\"finished\"", "\"running\"");
    sandbox.write(&path, &text);
}

#[test]
fn the_best_parameters_are_those_of_the_run_that_ends_there() {
    let sandbox = Sandbox::new();
    let train = format!("{TRAIN} task=saq data.path=saq.csv");
    let best = format!("{train} training.load_best_model_at_end=true training.max_steps=24");
    let stdout = sandbox.ok(&format!("{best} hydra.run.dir=best"));
    let losses = losses(&sandbox, "best");
    assert_eq!(losses.len(), 8);
    let lowest = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(lowest.0 < 24, "the last step is the best: {losses:?}");
    let said = format!("best       step {}, validation loss", lowest.0);
    assert!(stdout.contains(&said), "{stdout}");
    let summary = sandbox.json("best/summary.json");
    assert_eq!(summary["val_loss"].as_f64(), Some(lowest.1));
    let kept: Vec<String> = sandbox
        .files("best/checkpoints/best")
        .into_iter()
        .filter(|file| file.ends_with("manifest.json"))
        .collect();
    assert_eq!(kept, [format!("step-{:06}/manifest.json", lowest.0)]);

    let adapter = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
    sandbox.ok(&format!(
        "{train} training.max_steps={} hydra.run.dir=short",
        lowest.0
    ));
    sandbox.ok(&format!("{train} training.max_steps=24 hydra.run.dir=last"));
    assert!(adapter("best") == adapter("short"));
    assert!(adapter("best") != adapter("last"));

    // Killed before its last checkpoint, it ends the same.
    sandbox.ok(&format!("{best} hydra.run.dir=run"));
    unfinish(&sandbox, "run");
    std::fs::remove_dir_all(sandbox.path("run/checkpoints/step-000024")).unwrap();
    let stdout = sandbox.ok(&format!("{best} training.resume=run"));
    assert!(stdout.contains("checkpoints/step-000020"), "{stdout}");
    assert!(adapter("run") == adapter("best"));
    assert_eq!(sandbox.files("run"), sandbox.files("best"));
}

#[test]
fn a_metric_says_which_parameters_are_the_best() {
    let sandbox = Sandbox::new();
    let train = format!(
        "{TRAIN} task=mcq data.path=mcq.csv training.eval_examples=7 training.max_steps=24 \
         training.load_best_model_at_end=true training.metric_for_best_model=accuracy"
    );
    let stdout = sandbox.ok(&format!("{train} hydra.run.dir=best"));
    let (_, rows) = table(&sandbox.read("best/eval_metrics.csv"));
    assert_eq!(rows.len(), 8);
    let accuracy = rows
        .iter()
        .map(|r| (r[0].parse().unwrap(), r[3].parse().unwrap()));
    let accuracy: Vec<(usize, f64)> = accuracy.collect();
    // The first of the highest; `max_by` gives the last.
    let best = accuracy.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
    let best = best.unwrap();
    let losses = losses(&sandbox, "best");
    let said = format!(
        "best       step {}, accuracy {:.4}, validation",
        best.0, best.1
    );
    assert!(stdout.contains(&said), "{stdout}");
    let there = losses.iter().find(|(step, _)| *step == best.0).unwrap().1;
    let summary = sandbox.json("best/summary.json");
    assert_eq!(summary["val_loss"].as_f64(), Some(there));
    let adapter = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
    sandbox.ok(&format!(
        "{TRAIN} task=mcq data.path=mcq.csv training.max_steps={} hydra.run.dir=short",
        best.0
    ));
    assert!(adapter("best") == adapter("short"));

    // Killed before its last checkpoint, it ends the same; by another metric it begins to look anew.
    let again = |run: &str, changed: &str| {
        sandbox.ok(&format!("{train} hydra.run.dir={run}"));
        unfinish(&sandbox, run);
        let last = sandbox.path(&format!("{run}/checkpoints/step-000024"));
        std::fs::remove_dir_all(last).unwrap();
        sandbox.ok(&format!("{train} training.resume={run} {changed}"))
    };
    again("run", "");
    assert!(adapter("run") == adapter("best"));
    let stdout = again("other", "training.metric_for_best_model=loss");
    assert!(
        stdout.contains("the best so far was so by another"),
        "{stdout}"
    );
    let late: Vec<_> = losses.iter().filter(|(step, _)| *step > 20).collect();
    let lowest = late.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let said = format!("best       step {}, validation loss", lowest.0);
    assert!(stdout.contains(&said), "{stdout}");

    // Nothing changes, so nothing gets better after the first validation.
    let stdout = sandbox.ok(&format!(
        "{train} training.early_stopping_patience=2 training.learning_rate=1e-30 hydra.run.dir=stopped"
    ));
    let said = "stopped    after step 9 of 24: in 2 validations accuracy did not rise above";
    assert!(stdout.contains(said), "{stdout}");
}

#[test]
fn metrics_on_a_sample_stand_in_a_file_of_their_own() {
    let sandbox = Sandbox::new();
    for (task, metrics) in [("mcq", 1), ("saq", 2)] {
        let train = format!(
            "{TRAIN} task={task} data.path={task}.csv training.max_steps=12 \
             inference.max_new_tokens=3"
        );
        sandbox.ok(&format!("{train} hydra.run.dir={task}_plain"));
        let sampled = format!("{train} training.eval_examples=4");
        let stdout = sandbox.ok(&format!("{sampled} hydra.run.dir={task}"));
        assert!(stdout.contains("of 4 validation questions"), "{stdout}");
        let (header, rows) = table(&sandbox.read(&format!("{task}/eval_metrics.csv")));
        assert_eq!(header.join(","), "step,epoch,metric,value");
        let steps: Vec<&str> = rows.iter().map(|row| &row[0][..]).collect();
        let want = ["3", "6", "9", "12"].into_iter();
        let want: Vec<&str> = want.flat_map(|s| std::iter::repeat_n(s, metrics)).collect();
        assert_eq!(steps, want);
        for row in rows.iter().filter(|row| row[2] != "f1") {
            let right = 4.0 * row[3].parse::<f64>().unwrap();
            assert!(
                right == right.round() && (0.0..=4.0).contains(&right),
                "{row:?}"
            );
        }
        // Answering changes nothing of the training.
        let adapter = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
        assert!(adapter(task) == adapter(&format!("{task}_plain")));
        let before = sandbox.bytes(&format!("{task}/eval_metrics.csv"));
        unfinish(&sandbox, task);
        sandbox.ok(&format!("{sampled} training.resume={task}"));
        assert!(sandbox.bytes(&format!("{task}/eval_metrics.csv")) == before);
    }
    for wrong in [
        "task=saq data.path=saq.csv training.eval_examples=4 training.val_ratio=0",
        "task=saq data.path=saq.csv training.load_best_model_at_end=true training.val_ratio=0",
        "task=tokens data.path=tokens.jsonl training.eval_examples=4",
    ] {
        let refused = sandbox.run(&format!("{TRAIN} {wrong}"));
        assert_eq!(refused.code, Some(1), "{wrong}");
        assert!(refused.stderr.contains("training."), "{refused:?}");
    }
}
