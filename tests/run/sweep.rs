//! `--multirun` from outside: a run for every cell, a table of them all, and a
//! cell that fails without stopping the others.

use crate::common::sandbox::{Finished, Sandbox, table};

const MCQ: &str = "model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
                   training.batch_size=2 training.gradient_accumulation_steps=2 \
                   training.max_steps=2 training.logging_steps=1 training.save_steps=2 \
                   training.eval_steps=2";

/// The only sweep under outputs/multirun.
fn only_sweep(sandbox: &Sandbox) -> String {
    let mut roots: Vec<String> = (sandbox.files("outputs/multirun").iter())
        .filter_map(|file| file.strip_suffix("/multirun.yaml").map(str::to_string))
        .collect();
    assert_eq!(roots.len(), 1, "{roots:?}");
    format!("outputs/multirun/{}", roots.remove(0))
}

/// A column of sweep.csv.
fn column(sandbox: &Sandbox, root: &str, name: &str) -> Vec<String> {
    let (header, rows) = table(&sandbox.read(&format!("{root}/sweep.csv")));
    let at = header.iter().position(|column| column == name);
    let at = at.unwrap_or_else(|| panic!("no column {name} in {header:?}"));
    rows.into_iter().map(|row| row[at].clone()).collect()
}

fn yaml(sandbox: &Sandbox, name: &str) -> serde_yaml::Value {
    serde_yaml::from_str(&sandbox.read(name)).unwrap()
}

#[test]
fn two_by_two_cells_run_one_after_another() {
    let sandbox = Sandbox::new();
    let stdout = sandbox.ok(&format!("train -m {MCQ} lora.r=4,8 seed=1,2"));
    let root = only_sweep(&sandbox);
    let pattern = root.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(pattern, "outputs/multirun/0000-00-00/00-00-00");
    assert_eq!(column(&sandbox, &root, "cell"), ["0", "1", "2", "3"]);
    assert_eq!(column(&sandbox, &root, "lora.r"), ["4", "4", "8", "8"]);
    assert_eq!(column(&sandbox, &root, "seed"), ["1", "2", "1", "2"]);
    assert_eq!(column(&sandbox, &root, "status"), ["finished"; 4]);
    let best = column(&sandbox, &root, "best");
    assert_eq!(best.iter().filter(|best| *best == "true").count(), 1);

    // The table becomes a page, with a chart for each swept key and metric.
    let said = sandbox.ok(&format!("report {root}"));
    assert_eq!(said, format!("report     {root}/report.html\n"));
    let page = sandbox.read(&format!("{root}/report.html"));
    for title in ["accuracy by lora.r", "accuracy by seed", "val_loss by seed"] {
        assert!(page.contains(&format!("{title}</title>")), "{title}");
    }
    assert!(page.contains("4 cells, 4 finished"), "{page}");

    for num in 0..4 {
        let cell = format!("{root}/{num}");
        let files = sandbox.files(&cell);
        for name in [
            ".hydra/config.yaml",
            ".hydra/hydra.yaml",
            ".hydra/overrides.yaml",
            "adapter/adapter_model.safetensors",
            "config.resolved.yaml",
            "metrics.csv",
            "predictions.csv",
            "run.log",
            "summary.json",
        ] {
            assert!(files.iter().any(|file| file == name), "{cell}: {files:?}");
        }
        assert_eq!(column(&sandbox, &root, "directory")[num], cell);
        let summary = sandbox.json(&format!("{cell}/summary.json"));
        let figure = |name: &str| column(&sandbox, &root, name)[num].parse::<f64>().unwrap();
        for name in ["train_loss", "val_loss", "tokens_per_s", "duration_s"] {
            assert_eq!(figure(name), summary[name], "{name}");
        }
        for side in ["base", "tuned"] {
            let name = format!("metrics.{side}.accuracy");
            assert_eq!(
                figure(&name),
                summary["metrics"][side]["accuracy"],
                "{name}"
            );
        }
        let count = figure("trainable_parameters");
        assert_eq!(Some(count as u64), summary["trainable_parameters"].as_u64());
        assert!(figure("peak_memory_bytes") > 0.0);
        // Each log is its own run's, and the terminal shows them all.
        let log = sandbox.read(&format!("{cell}/run.log"));
        assert!(stdout.contains(&log), "{log}");
        assert!(log.contains(&cell) && !log.contains("sweep"), "{log}");

        let hydra = yaml(&sandbox, &format!("{cell}/.hydra/hydra.yaml"));
        let job = &hydra["hydra"]["job"];
        assert_eq!(job["num"], serde_yaml::Value::from(num));
        assert_eq!(job["id"].as_str(), Some(num.to_string().as_str()));
        let dirname = job["override_dirname"].as_str().unwrap();
        assert!(
            dirname.contains(&format!("lora.r={}", [4, 8][num / 2])),
            "{dirname}"
        );
        assert_eq!(hydra["hydra"]["mode"].as_str(), Some("MULTIRUN"));
        let output_dir = hydra["hydra"]["runtime"]["output_dir"].as_str().unwrap();
        assert!(output_dir.ends_with(&cell), "{output_dir}");
        let overrides = yaml(&sandbox, &format!("{cell}/.hydra/overrides.yaml"));
        let seed = format!("seed={}", num % 2 + 1);
        let last = overrides.as_sequence().unwrap().last().unwrap();
        assert_eq!(last.as_str(), Some(seed.as_str()));
        let config = yaml(&sandbox, &format!("{cell}/.hydra/config.yaml"));
        assert_eq!(config["seed"], serde_yaml::Value::from(num % 2 + 1));
    }
    let master = yaml(&sandbox, &format!("{root}/multirun.yaml"));
    let task = master["hydra"]["overrides"]["task"].as_sequence().unwrap();
    assert!(task.iter().any(|one| one.as_str() == Some("lora.r=4,8")));
    assert!(stdout.contains("accuracy, base"), "{stdout}");
    assert!(stdout.contains("* best: cell #"), "{stdout}");
}

/// A cell is the run that its own overrides give.
#[test]
fn a_cell_equals_the_same_run_alone() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("train -m {MCQ} lora.r=4,8 hydra.sweep.dir=s"));
    sandbox.ok(&format!("train {MCQ} lora.r=8 hydra.run.dir=alone"));
    let adapter = "adapter/adapter_model.safetensors";
    let bytes = |dir: &str| sandbox.bytes(&format!("{dir}/{adapter}"));
    assert_eq!(bytes("s/1"), bytes("alone"));
    assert_ne!(bytes("s/0").len(), bytes("alone").len());
}

#[test]
fn a_failing_cell_leaves_the_others_running() {
    let sandbox = Sandbox::new();
    let Finished {
        code,
        stdout,
        stderr,
    } = sandbox.run(&format!(
        "train --multirun {MCQ} data.path=none.csv,mcq.csv seed=1,2 hydra.sweep.dir=s"
    ));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("cell 0 failed: command line: data.path=none.csv: none.csv: "),
        "{stderr}"
    );
    assert!(
        stderr.contains("error: 2 of 4 cells failed (#0, #1); see s/sweep.csv"),
        "{stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    let status = column(&sandbox, "s", "status");
    assert_eq!(status, ["failed", "failed", "finished", "finished"]);
    let errors = column(&sandbox, "s", "error");
    assert!(
        errors[0].contains("none.csv") && errors[2].is_empty(),
        "{errors:?}"
    );
    assert!(!sandbox.path("s/0").exists());
    assert!(sandbox.path("s/3/adapter").is_dir());
    assert!(
        stdout.contains("failed") && stdout.contains("finished"),
        "{stdout}"
    );
}

#[test]
fn zipped_keys_advance_together_beside_a_product() {
    let sandbox = Sandbox::new();
    let zip = "hydra.sweeper.zip=[[lora.r,lora.alpha]]";
    sandbox.ok(&format!(
        "train -m {MCQ} lora.r=4,8 lora.alpha=8,16 seed=1,2 {zip} hydra.sweep.dir=s"
    ));
    assert_eq!(column(&sandbox, "s", "lora.r"), ["4", "4", "8", "8"]);
    assert_eq!(column(&sandbox, "s", "lora.alpha"), ["8", "8", "16", "16"]);
    assert_eq!(column(&sandbox, "s", "seed"), ["1", "2", "1", "2"]);
    let bad = sandbox.run(&format!(
        "train -m {MCQ} lora.r=4,8,16 lora.alpha=8,16 {zip}"
    ));
    assert_eq!(bad.code, Some(1));
    for part in ["'lora.r' has 3 values", "'lora.alpha' has 2 values"] {
        assert!(bad.stderr.contains(part), "{}", bad.stderr);
    }
    assert!(!sandbox.path("outputs/multirun").exists());
}

#[test]
fn a_mistake_in_the_params_of_a_file_names_the_file() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "own/experiment/grid.yaml",
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      lora.r: 4,x\n      \
         +lora.rr: 1,2\n      model: tiny,tinny\n",
    );
    let done = sandbox.run(&format!(
        "train -m {MCQ} --config-dir own experiment=grid seed=7,y"
    ));
    assert_eq!(done.code, Some(1));
    for part in [
        "own/experiment/grid.yaml:5: `lora.r` must be a whole number",
        "own/experiment/grid.yaml:6: unknown key `lora.rr`",
        "own/experiment/grid.yaml:7: in 'config': the group 'model' has no option 'tinny'",
        "command line: seed=y: `seed` must be a whole number",
    ] {
        assert!(done.stderr.contains(part), "{part}\n{}", done.stderr);
    }
    assert!(
        !done.stderr.contains("command line: lora"),
        "{}",
        done.stderr
    );
    assert!(!sandbox.path("outputs").exists());
}

#[test]
fn params_of_the_config_stand_before_the_command_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "own/experiment/grid.yaml",
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweep:\n    dir: grid\n  sweeper:\n    \
         params:\n      lora.r: 4,8\n      lora.alpha: 8,16\n      seed: choice(1,2)\n    \
         zip: [[lora.r, lora.alpha]]\n",
    );
    let lines = sandbox.ok(&format!(
        "train {MCQ} --config-dir own experiment=grid seed=7 --dry-run"
    ));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("#0  lora.r=4 lora.alpha=8 seed=7 model.path=model "));
    assert!(lines[1].starts_with("#1  lora.r=8 lora.alpha=16 seed=7 model.path=model "));
    assert!(lines[1].ends_with(" grid/1"), "{lines:?}");
    assert_eq!(lines[2], "2 cells; nothing was run");
    assert!(!sandbox.path("grid").exists() && !sandbox.path("outputs").exists());
    // The mode of the config is that of the run, too.
    sandbox.ok(&format!(
        "train {MCQ} --config-dir own experiment=grid seed=7"
    ));
    assert_eq!(column(&sandbox, "grid", "lora.r"), ["4", "8"]);
    let (header, _) = table(&sandbox.read("grid/sweep.csv"));
    assert!(!header.contains(&"seed".to_string()), "{header:?}");
}

#[test]
fn eval_and_infer_can_be_swept() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("train -m {MCQ} lora.r=4,8 hydra.sweep.dir=s"));
    let eval = "-m model.path=model data.test_path=mcq_test.csv adapter=s/0/adapter,s/1/adapter";
    let stdout = sandbox.ok(&format!("eval {eval} hydra.sweep.dir=e"));
    assert_eq!(
        column(&sandbox, "e", "adapter"),
        ["s/0/adapter", "s/1/adapter"]
    );
    for num in 0..2 {
        let trained = sandbox.json(&format!("s/{num}/summary.json"));
        let scored = sandbox.json(&format!("e/{num}/summary.json"));
        assert_eq!(trained["metrics"], scored["metrics"]);
    }
    assert!(stdout.contains("* best: cell #"), "{stdout}");
    sandbox.ok(&format!(
        "infer {eval} inference.max_new_tokens=2 hydra.sweep.dir=i"
    ));
    assert!(sandbox.path("i/1/predictions.csv").is_file());
    let shared = sandbox.run(&format!("infer {eval} output=all.csv"));
    assert_eq!(shared.code, Some(1));
    assert!(shared.stderr.contains("overwritten"), "{}", shared.stderr);
}

#[test]
fn what_is_wrong_beforehand_leaves_nothing() {
    let sandbox = Sandbox::new();
    for (args, code, part) in [
        ("lora.r=4,0", 1, "cell #1 (lora.r=0)"),
        ("lora.r=4,0 --dry-run", 1, "cell #1 (lora.r=0)"),
        ("model=tiny,tinny", 1, "did you mean 'tiny'?"),
        (
            "hydra.job.name=a,b seed=1,2",
            1,
            "keys of hydra cannot be swept",
        ),
        ("seed=interval(1,2)", 1, "no list of values"),
        ("seed=1,2 hydra.sweep.subdir=x", 1, "the directory"),
        ("seed=1,2 --cfg job", 2, "cannot be used with"),
    ] {
        let finished = sandbox.run(&format!("train -m {args}"));
        assert_eq!(finished.code, Some(code), "{args}: {finished:?}");
        assert!(
            finished.stderr.contains(part),
            "{args}: {}",
            finished.stderr
        );
    }
    let alone = sandbox.run("train --dry-run");
    assert_eq!(alone.code, Some(2));
    assert!(alone.stderr.contains("--multirun (-m)"), "{}", alone.stderr);
    let unswept = sandbox.run("train seed=1,2");
    assert_eq!(unswept.code, Some(1));
    assert!(
        unswept.stderr.contains("add --multirun (-m)"),
        "{}",
        unswept.stderr
    );
    assert!(!sandbox.path("outputs").exists());
}

#[test]
fn an_interrupted_sweep_goes_on_in_its_directory() {
    let sandbox = Sandbox::new();
    let sweep = format!("train -m {MCQ} lora.r=2,4,8 hydra.sweep.dir=sweep");
    sandbox.ok(&sweep);
    let adapter = |cell: usize| format!("sweep/{cell}/adapter/adapter_model.safetensors");
    let whole: Vec<Vec<u8>> = (0..3).map(|cell| sandbox.bytes(&adapter(cell))).collect();
    // As after a kill in the second cell, before the third.
    let summary = sandbox.read("sweep/1/summary.json");
    sandbox.write(
        "sweep/1/summary.json",
        &summary.replace("\"finished\"", "\"running\""),
    );
    std::fs::remove_dir_all(sandbox.path("sweep/1/adapter")).unwrap();
    std::fs::remove_dir_all(sandbox.path("sweep/2")).unwrap();
    let first = std::fs::metadata(sandbox.path(&adapter(0))).unwrap();
    let said = sandbox.ok(&format!("{sweep} training.resume=auto"));
    assert!(
        said.contains("sweep/0 is finished; nothing to do"),
        "{said}"
    );
    assert!(
        said.contains("resuming from sweep/1/checkpoints/"),
        "{said}"
    );
    for (cell, whole) in whole.iter().enumerate() {
        assert!(sandbox.bytes(&adapter(cell)) == *whole, "cell {cell}");
    }
    let again = std::fs::metadata(sandbox.path(&adapter(0))).unwrap();
    assert_eq!(first.modified().unwrap(), again.modified().unwrap());
    assert_eq!(column(&sandbox, "sweep", "status"), ["finished"; 3]);
    assert_eq!(column(&sandbox, "sweep", "lora.r"), ["2", "4", "8"]);

    // Other cells in their places are told apart, before anything runs.
    let other = sweep.replace("lora.r=2,4,8", "lora.r=4,2,8");
    let Finished { code, stderr, .. } = sandbox.run(&format!("{other} training.resume=auto"));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("sweep/0 holds a run with other values"),
        "{stderr}"
    );
    assert!(stderr.contains("lora.r: 2 -> 4"), "{stderr}");
    // One that starts from an adapter has its shape.
    let from = format!(
        "train -m {MCQ} lora.init_from=sweep/0/adapter seed=1,2 hydra.sweep.dir=more \
         training.resume=auto"
    );
    sandbox.ok(&from);
    let said = sandbox.ok(&from);
    assert!(said.contains("more/1 is finished; nothing to do"), "{said}");
    // Cells that are gone from the sweep would be gone from its table.
    let fewer = from.replace("seed=1,2", "seed=1");
    let Finished { code, stderr, .. } = sandbox.run(&fewer);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("more: sweep.csv has 2 cells"), "{stderr}");
    // Without a directory of its own a sweep has nothing to go on with, and says so.
    let fresh = sweep.replace(" hydra.sweep.dir=sweep", "");
    let said = sandbox.ok(&format!("{fresh} training.resume=auto"));
    assert!(
        said.contains("to go on with an earlier one name it"),
        "{said}"
    );
}

#[test]
fn cells_of_a_job_array_make_the_sweep_that_one_process_makes() {
    let sandbox = Sandbox::new();
    let sweep = format!("train -m {MCQ} lora.r=4,8 hydra.sweep.dir=array");
    // In any order, and each again where its job is requeued.
    for num in [1, 0] {
        let told = sandbox.ok(&format!("{sweep} --cell {num}"));
        let cell = format!("lora.r={}\n", [4, 8][num]);
        let first = told.split_inclusive('\n').next().unwrap();
        assert!(first.starts_with(&format!("#{num} of 2 cells: ")), "{told}");
        assert!(first.ends_with(&cell), "{told}");
    }
    let told = sandbox.ok(&format!("{sweep} --cell 1 training.resume=auto"));
    assert!(told.contains("array/1 is finished"), "{told}");
    assert!(!sandbox.path("array/sweep.csv").exists());
    let again = sandbox.run(&format!("{sweep} --cell 1"));
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("cell 1 failed: "), "{again:?}");

    // A version without a key of today left its config so.
    let config = sandbox.read("array/0/config.resolved.yaml");
    let older = config.replace("  metric_for_best_model: loss\n", "");
    assert_ne!(older, config);
    sandbox.write("array/0/config.resolved.yaml", &older);
    let before = sandbox.bytes("array/1/adapter/adapter_model.safetensors");
    sandbox.ok(&format!("{sweep} training.resume=auto"));
    assert_eq!(column(&sandbox, "array", "lora.r"), ["4", "8"]);
    assert_eq!(column(&sandbox, "array", "status"), ["finished"; 2]);
    assert!(before == sandbox.bytes("array/1/adapter/adapter_model.safetensors"));
    sandbox.ok(&format!("train -m {MCQ} lora.r=4,8 hydra.sweep.dir=whole"));
    assert!(before == sandbox.bytes("whole/1/adapter/adapter_model.safetensors"));

    for (args, code, part) in [
        (
            "--cell 2 hydra.sweep.dir=other",
            1,
            "the sweep has 2 cells, from 0 to 1",
        ),
        ("--cell 0", 1, "add hydra.sweep.dir=DIR"),
        ("--cell x", 2, "invalid value 'x'"),
    ] {
        let refused = sandbox.run(&format!("train -m {MCQ} lora.r=4,8 {args}"));
        assert_eq!(refused.code, Some(code), "{args}: {refused:?}");
        assert!(refused.stderr.contains(part), "{args}: {refused:?}");
    }
    assert!(!sandbox.path("other").exists());
    let eval = format!("eval -m {MCQ} seed=1,2 hydra.sweep.dir=other --cell 0");
    assert_eq!(sandbox.run(&eval).code, Some(2));
}
