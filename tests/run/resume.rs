//! Killed runs that go on: to the bit the run that nobody killed.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::common::sandbox::{Sandbox, table};

const ADAPTER: &str = "adapter/adapter_model.safetensors";
/// Rows, validations and checkpoints fall on different steps, so that a
/// checkpoint lies within a logging window.
const TRAIN: &str = "train task=tokens data.path=tokens.jsonl model.path=model lora.dropout=0.1 \
                     training.batch_size=2 training.gradient_accumulation_steps=2 \
                     training.val_ratio=0.2 training.logging_steps=7 training.eval_steps=15 \
                     training.save_steps=10 training.save_total_limit=3";
const SAVE_STEPS: usize = 10;

/// Steps of the checkpoints in a run.
fn checkpoints(sandbox: &Sandbox, run: &str) -> Vec<usize> {
    let mut steps: Vec<usize> = sandbox
        .files(&format!("{run}/checkpoints"))
        .iter()
        .filter_map(|file| {
            file.strip_prefix("step-")?
                .strip_suffix("/manifest.json")?
                .parse()
                .ok()
        })
        .collect();
    steps.dedup();
    steps
}

/// Starts a run and kills it as soon as it has the checkpoint of `step` or a
/// later one. `false`: it ended before that.
fn kill_after(
    sandbox: &Sandbox,
    args: &str,
    run: &dyn Fn() -> Option<String>,
    step: usize,
) -> bool {
    let mut child = sandbox.spawn(args);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(
            Instant::now() < deadline,
            "no checkpoint of step {step}: {args}"
        );
        // Names alone: the run removes old checkpoints meanwhile.
        let there = run().is_some_and(|run| {
            let entries = std::fs::read_dir(sandbox.path(&run).join("checkpoints"));
            entries.is_ok_and(|entries| {
                entries.flatten().any(|entry| {
                    let name = entry.file_name().into_string().unwrap();
                    let found = name.strip_prefix("step-").and_then(|n| n.parse().ok());
                    found.is_some_and(|found: usize| found >= step)
                })
            })
        });
        let over = child.try_wait().unwrap().is_some();
        if there || over {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let killed = child.wait_with_output().unwrap();
    match killed.status.signal() {
        Some(9) => true,
        _ => {
            assert!(killed.status.success(), "{killed:?}");
            false
        }
    }
}

/// Kills a run in its middle. `args` and `run` give the command line and the run
/// directory of each attempt. Returns the command line with a number of steps that
/// is large enough for this machine, that number, and the directory.
fn killed_run(
    sandbox: &Sandbox,
    args: impl Fn(usize) -> String,
    run: impl Fn(usize) -> Option<String>,
) -> (String, usize, String) {
    let mut steps = 80;
    for attempt in 0..5 {
        let command = format!("{} training.max_steps={steps}", args(attempt));
        if kill_after(sandbox, &command, &|| run(attempt), 2 * SAVE_STEPS) {
            let dir = run(attempt).unwrap();
            let newest = *checkpoints(sandbox, &dir).last().unwrap();
            let status = sandbox.json(&format!("{dir}/summary.json"))["status"].clone();
            if newest + 2 * SAVE_STEPS < steps && status == "running" {
                return (command, steps, dir);
            }
        }
        steps *= 4;
    }
    panic!("no run of {steps} steps could be killed before its end");
}

/// The columns of metrics.csv that do not depend on the clock.
fn rows(sandbox: &Sandbox, run: &str) -> Vec<Vec<String>> {
    let (_, rows) = table(&sandbox.read(&format!("{run}/metrics.csv")));
    rows.into_iter().map(|row| row[..7].to_vec()).collect()
}

/// Compares a resumed run with one that was not interrupted.
fn assert_same(sandbox: &Sandbox, resumed: &str, whole: &str) {
    let at = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
    assert!(at(resumed) == at(whole), "the adapters differ");
    assert_eq!(rows(sandbox, resumed), rows(sandbox, whole));
    // The same files: nothing is missing, nothing half-written is left.
    assert_eq!(sandbox.files(resumed), sandbox.files(whole));
    let loss = |run: &str| {
        let summary = sandbox.json(&format!("{run}/summary.json"));
        assert_eq!(summary["status"], "finished");
        (summary["train_loss"].clone(), summary["val_loss"].clone())
    };
    assert_eq!(loss(resumed), loss(whole));
}

#[test]
fn a_run_killed_twice_goes_on_in_the_directory_that_is_given() {
    let sandbox = Sandbox::new();
    let (command, steps, dir) = killed_run(
        &sandbox,
        |i| format!("{TRAIN} training.resume=auto hydra.run.dir=run{i}"),
        |i| Some(format!("run{i}")),
    );
    let before = *checkpoints(&sandbox, &dir).last().unwrap();
    // Killed again, after at least one more checkpoint.
    let more = before + 2 * SAVE_STEPS;
    let place = Some(dir.clone());
    let again = kill_after(&sandbox, &command, &|| place.clone(), more);
    if again {
        assert!(*checkpoints(&sandbox, &dir).last().unwrap() >= more);
        let stdout = sandbox.ok(&command);
        assert!(stdout.contains("resuming from "), "{stdout}");
    }
    sandbox.ok(&format!(
        "{TRAIN} hydra.run.dir=whole training.max_steps={steps}"
    ));
    assert_same(&sandbox, &dir, "whole");
    assert_eq!(
        checkpoints(&sandbox, &dir),
        [steps - 2 * SAVE_STEPS, steps - SAVE_STEPS, steps]
    );

    // A finished run is left as it is.
    let files = sandbox.tree(&dir);
    for command in [
        command,
        format!("{TRAIN} training.max_steps={steps} training.resume={dir}"),
    ] {
        let stdout = sandbox.ok(&command);
        assert!(stdout.contains("is finished; nothing to do"), "{stdout}");
        assert!(sandbox.tree(&dir) == files, "the finished run was changed");
    }
    assert_eq!(sandbox.runs().len(), 0);
}

#[test]
fn the_same_command_line_finds_the_killed_run() {
    let sandbox = Sandbox::new();
    let (command, steps, dir) = killed_run(
        &sandbox,
        |_| format!("{TRAIN} training.resume=auto"),
        |i| sandbox.runs().get(i).cloned(),
    );
    let runs = sandbox.runs().len();
    // Another config is another run.
    let other = command.replace(
        &format!("max_steps={steps}"),
        "max_steps=2 training.learning_rate=3e-4",
    );
    let stdout = sandbox.ok(&other);
    assert!(!stdout.contains("resuming"), "{stdout}");
    assert_eq!(sandbox.runs().len(), runs + 1);

    let stdout = sandbox.ok(&command);
    assert!(
        stdout.contains(&format!("resuming from {dir}/checkpoints/step-")),
        "{stdout}"
    );
    assert_eq!(sandbox.runs().len(), runs + 1);
    sandbox.ok(&format!(
        "{TRAIN} hydra.run.dir=whole training.max_steps={steps}"
    ));
    assert_same(&sandbox, &dir, "whole");
    assert!(
        sandbox.bytes("outputs/adapters/adapter_tokens/adapter_model.safetensors")
            == sandbox.bytes(&format!("{dir}/{ADAPTER}"))
    );
}

#[test]
fn a_killed_run_goes_on_when_it_is_named() {
    let sandbox = Sandbox::new();
    let (_, steps, dir) = killed_run(
        &sandbox,
        |i| format!("{TRAIN} hydra.run.dir=run{i}"),
        |i| Some(format!("run{i}")),
    );
    let plain = format!("{TRAIN} training.max_steps={steps}");
    // Without training.resume its directory is not touched.
    let files = || {
        let mut files = sandbox.tree(&dir);
        // Of the process that was killed; whoever looks in removes it.
        files.remove(".lock");
        files
    };
    let before = files();
    let refused = sandbox.run(&format!("{plain} hydra.run.dir={dir}"));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("training.resume=auto"),
        "{refused:?}"
    );
    assert!(files() == before);

    // A torn checkpoint is passed over for the one before it.
    let newest = *checkpoints(&sandbox, &dir).last().unwrap();
    let torn = sandbox
        .path(&dir)
        .join(format!("checkpoints/step-{newest:06}/tensors.safetensors"));
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let stdout = sandbox.ok(&format!("{plain} training.resume={dir}"));
    let before = format!("checkpoints/step-{:06}", newest - SAVE_STEPS);
    assert!(stdout.contains(&before), "{stdout}");
    sandbox.ok(&format!("{plain} hydra.run.dir=whole"));
    assert_same(&sandbox, &dir, "whole");
}

/// What a kill during the final evaluation leaves: all steps done, a last
/// checkpoint before them, and a summary that still says `running`.
fn unfinish(sandbox: &Sandbox, run: &str) {
    let path = format!("{run}/summary.json");
    let text = sandbox.read(&path).replace("\"finished\"", "\"running\"");
    sandbox.write(&path, &text);
}

/// As [`unfinish`], and as if the last checkpoint had not been written.
fn undo(sandbox: &Sandbox, run: &str) {
    unfinish(sandbox, run);
    let last = *checkpoints(sandbox, run).last().unwrap();
    let dir = sandbox.path(&format!("{run}/checkpoints/step-{last:06}"));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_run_killed_after_its_last_step_ends_the_same() {
    let sandbox = Sandbox::new();
    let train = format!("{TRAIN} training.max_steps=25");
    sandbox.ok(&format!("{train} hydra.run.dir=whole"));
    assert_eq!(checkpoints(&sandbox, "whole"), [10, 20, 25]);
    sandbox.ok(&format!("{train} hydra.run.dir=run"));
    // Before the last checkpoint, and after it.
    undo(&sandbox, "run");
    sandbox.ok(&format!("{train} training.resume=run"));
    assert_same(&sandbox, "run", "whole");
    unfinish(&sandbox, "run");
    sandbox.ok(&format!("{train} training.resume=run"));
    assert_same(&sandbox, "run", "whole");
}

/// A rank with matrices on both sides of 4096 numbers, from which on moments take 8 bits.
#[test]
fn every_optimiser_resumes_to_the_bit_and_refuses_what_is_not_its_own() {
    let sandbox = Sandbox::new();
    let train = format!("{TRAIN} lora.r=150 lora.target_modules=all-linear training.max_steps=25");
    for optimizer in ["adamw_8bit", "paged_adamw"] {
        let train = format!("{train} training.optimizer={optimizer}");
        let (run, whole) = (format!("{optimizer}_run"), format!("{optimizer}_whole"));
        let stdout = sandbox.ok(&format!("{train} hydra.run.dir={whole}"));
        let plain = stdout.contains("on the CPU all memory is the host's, so this is plain adamw");
        assert_eq!(plain, optimizer == "paged_adamw", "{stdout}");
        sandbox.ok(&format!("{train} hydra.run.dir={run}"));
        undo(&sandbox, &run);
        let stdout = sandbox.ok(&format!("{train} training.resume={run}"));
        assert!(stdout.contains("checkpoints/step-000020"), "{stdout}");
        assert_same(&sandbox, &run, &whole);
    }
    sandbox.ok(&format!("{train} hydra.run.dir=plain"));
    let adapter = |run: &str| sandbox.bytes(&format!("{run}/{ADAPTER}"));
    assert!(adapter("plain") == adapter("paged_adamw_whole"));
    assert!(adapter("plain") != adapter("adamw_8bit_whole"));
    for (run, other) in [("adamw_8bit_run", "adamw"), ("plain", "adamw_8bit")] {
        undo(&sandbox, run);
        let command = format!("{train} training.optimizer={other} training.resume={run}");
        let refused = sandbox.run(&command);
        assert_eq!(refused.code, Some(1));
        let what = "does not fit the config: it was made with training.optimizer=";
        assert!(refused.stderr.contains(what), "{refused:?}");
    }
    // The moments of adamw and paged_adamw are the same.
    let command = format!("{train} training.optimizer=paged_adamw training.resume=plain");
    sandbox.ok(&command);
    assert!(adapter("plain") == adapter("paged_adamw_whole"));
}

#[test]
fn a_run_that_stopped_early_does_not_train_on() {
    let sandbox = Sandbox::new();
    // No step is large enough to lower the loss; the second validation stops the run.
    let train = "train task=tokens data.path=tokens.jsonl model.path=model training.max_steps=40 \
                 training.learning_rate=1e-30 training.eval_steps=5 training.save_steps=5 \
                 training.logging_steps=5 training.early_stopping_patience=1 \
                 training.val_ratio=0.2";
    let said = sandbox.ok(&format!("{train} hydra.run.dir=whole"));
    let steps = rows(&sandbox, "whole").last().unwrap()[0].clone();
    assert_eq!(steps, "10");
    for text in [said, sandbox.read("whole/run.log")] {
        assert!(text.contains("stopped    after step 10 of 40"), "{text}");
        assert!(
            text.contains("of step 5 (training.early_stopping_patience)"),
            "{text}"
        );
    }
    sandbox.ok(&format!("{train} hydra.run.dir=run"));
    unfinish(&sandbox, "run");
    sandbox.ok(&format!("{train} training.resume=run"));
    assert_same(&sandbox, "run", "whole");

    // The steps behind the last logged one are told where the run stops, once.
    let train = train.replace("logging_steps=5", "logging_steps=4");
    sandbox.ok(&format!("{train} hydra.run.dir=odd"));
    let told = |run: &str| -> Vec<(String, String)> {
        let rows = rows(&sandbox, run).into_iter();
        rows.map(|row| (row[0].clone(), row[2].clone())).collect()
    };
    let train_at = |step: &str| (step.to_string(), "train".to_string());
    assert_eq!(told("odd").last(), Some(&train_at("10")));
    let loss = sandbox.json("odd/summary.json")["train_loss"].clone();
    assert!(loss.is_number());
    unfinish(&sandbox, "odd");
    let before = told("odd");
    sandbox.ok(&format!("{train} training.resume=odd"));
    assert_eq!(told("odd"), before);
    assert_eq!(sandbox.json("odd/summary.json")["train_loss"], loss);
}

/// A run of 40 steps that ended as a kill leaves it, with the checkpoints of 10, 20 and 30.
fn past_and_future(sandbox: &Sandbox, more: &str) -> String {
    let train = format!("{TRAIN} training.max_steps=40 {more}");
    let train = train.replace("save_total_limit=3", "save_total_limit=4");
    sandbox.ok(&format!("{train} hydra.run.dir=run"));
    undo(sandbox, "run");
    assert_eq!(checkpoints(sandbox, "run"), [10, 20, 30]);
    train
}

#[test]
fn a_run_that_goes_back_leaves_its_later_past() {
    let sandbox = Sandbox::new();
    let train = past_and_future(&sandbox, "");
    let back = format!("{train} training.learning_rate=1e-6");
    sandbox.ok(&format!(
        "{back} training.max_steps=15 training.resume=run/checkpoints/step-000010"
    ));
    // Where the later ones stayed, `auto` would go on with them.
    assert_eq!(checkpoints(&sandbox, "run"), [10, 15]);
    let steps: Vec<usize> = rows(&sandbox, "run")
        .iter()
        .map(|row| row[0].parse().unwrap())
        .collect();
    assert_eq!(steps, [7, 14, 15, 15]);
}

#[test]
fn a_refused_resume_leaves_the_run_as_it_was() {
    let sandbox = Sandbox::new();
    let train = past_and_future(&sandbox, "");
    let files = || {
        let mut files = sandbox.tree("run");
        files.remove(".lock");
        files
    };
    let before = files();
    let refused = sandbox.run(&format!("{train} lora.r=3 training.resume=run"));
    assert_eq!(refused.code, Some(1));
    let what = "resume with the run's own settings";
    assert!(refused.stderr.contains(what), "{refused:?}");
    assert!(files() == before, "its config is another now");
}

#[test]
fn other_training_data_are_told() {
    let sandbox = Sandbox::new();
    let train = past_and_future(&sandbox, "");
    let data = sandbox.read("tokens.jsonl");
    let shorter: String = data
        .lines()
        .skip(2)
        .map(|line| format!("{line}\n"))
        .collect();
    sandbox.write("tokens.jsonl", &shorter);
    let stdout = sandbox.ok(&format!("{train} training.resume=run"));
    let what = "changed since the run began: the training data: ";
    assert!(stdout.contains(what), "{stdout}");
    // The log has it too, and the time of both sessions counts.
    assert!(sandbox.read("run/run.log").contains(what));
    let summary = sandbox.json("run/summary.json");
    let (_, rows) = table(&sandbox.read("run/metrics.csv"));
    let elapsed: f64 = rows.last().unwrap()[9].parse().unwrap();
    assert!(summary["duration_s"].as_f64().unwrap() > elapsed);
}

#[test]
fn the_best_are_sought_from_where_they_are_first_asked_for() {
    let sandbox = Sandbox::new();
    let train = past_and_future(&sandbox, "");
    let stdout = sandbox.ok(&format!(
        "{train} training.load_best_model_at_end=true training.resume=run"
    ));
    assert!(stdout.contains("were not kept"), "{stdout}");
    assert!(stdout.contains("best       step 40"), "{stdout}");
}
