//! `run runs` and `run train --from` from outside, over run directories that the
//! tests write themselves. Nothing here trains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a process left.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A working directory with an `outputs/` in it. It has no `configs/`, so the
/// copy inside the binary is used.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        Place { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Finished {
        let output = Command::new(env!("CARGO_BIN_EXE_run"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
        done.stdout
    }

    fn refused(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(1), "{args:?}: {done:?}");
        assert!(done.stdout.is_empty(), "{args:?}: {done:?}");
        done.stderr
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("read");
        assert!(text.contains(from), "{name} has no {from}: {text}");
        self.write(name, &text.replacen(from, to, 1));
    }

    /// The config files of a run, as a run writes them.
    fn snapshot(&self, run: &str, args: &[&str]) {
        let print = |flags: &[&str]| self.ok(&[&["train"], flags, args].concat());
        self.write(&format!("{run}/.hydra/config.yaml"), &print(&["-c", "job"]));
        let resolved = print(&["-c", "job", "--resolve"]);
        self.write(&format!("{run}/config.resolved.yaml"), &resolved);
        self.write(
            &format!("{run}/.hydra/hydra.yaml"),
            &print(&["-c", "hydra"]),
        );
        let overrides: Vec<&&str> = match args {
            ["--from", _, rest @ ..] => rest.iter().collect(),
            all => all.iter().collect(),
        };
        let lines: String = overrides.iter().map(|one| format!("- {one}\n")).collect();
        let list = if lines.is_empty() { "[]\n" } else { &lines };
        self.write(&format!("{run}/.hydra/overrides.yaml"), list);
    }

    fn summary(&self, run: &str, started: &str, more: Value) {
        let mut summary = json!({
            "status": "finished", "command": "train", "task": "mcq", "device": "cpu",
            "started": started,
            "metrics": {"base": {"accuracy": 0.25}, "tuned": {"accuracy": 0.9}},
            "train_loss": 0.5, "val_loss": 0.625, "trainable_parameters": 4096,
            "trainable_percent": 1.5, "peak_memory_bytes": 1_000_000,
            "planned_memory_bytes": null, "tokens_per_s": 1000.0, "duration_s": 61.0,
            "versions": {"kiln": "0.1.0"},
        });
        for (key, value) in more.as_object().expect("an object") {
            summary[key] = value.clone();
        }
        self.write(&format!("{run}/summary.json"), &summary.to_string());
    }

    /// A finished run with everything in it.
    fn finished(&self, run: &str, started: &str, overrides: &[&str]) {
        self.snapshot(run, overrides);
        self.summary(run, started, json!({}));
        let mut rows = String::from(
            "step,epoch,split,loss,learning_rate,grad_norm,supervised_tokens,tokens_per_s,peak_memory_bytes,elapsed_s\n",
        );
        for step in 1..=7 {
            rows.push_str(&format!(
                "{step},0.5,train,1.{step},0.0001,2.5,16,900.0,1000,3.5\n"
            ));
        }
        rows.push_str("7,0.5,val,0.625,,,64,,,3.9\n");
        self.write(&format!("{run}/metrics.csv"), &rows);
        self.write(&format!("{run}/adapter/adapter_config.json"), "{}");
    }
}

const EARLY: &str = "2026-03-01T10:00:00.000000+00:00";
const LATER: &str = "2026-03-01T10:30:00.000000+00:00";
const FIRST: &str = "outputs/2026-03-01/10-00-00";
const SECOND: &str = "outputs/2026-03-01/10-30-00";

fn line<'t>(text: &'t str, part: &str) -> &'t str {
    let mut lines = text.lines().filter(|line| line.contains(part));
    let found = lines
        .next()
        .unwrap_or_else(|| panic!("no {part} in:\n{text}"));
    assert_eq!(lines.next(), None, "{part} stands twice in:\n{text}");
    found
}

#[test]
fn without_runs_the_list_says_so() {
    let place = Place::new();
    assert_eq!(place.ok(&["runs"]), "no runs below outputs\n");
    assert_eq!(place.json(&["runs", "--json"]), json!([]));
    place.write("file", "");
    let text = place.refused(&["runs", "--dir", "file"]);
    assert!(text.contains("file: no such directory"), "{text}");
    let text = place.refused(&["runs", "show", "10-00-00"]);
    assert!(
        text.contains("10-00-00: no such run; there are no runs below outputs"),
        "{text}"
    );
}

#[test]
fn the_list_tells_how_each_run_stands() {
    let place = Place::new();
    place.finished(SECOND, LATER, &["task=mcq", "lora.r=8"]);
    let cell = "outputs/multirun/2026-03-01/09-00-00/3";
    place.finished(cell, EARLY, &["seed=3"]);
    place.edit(
        &format!("{cell}/summary.json"),
        "\"finished\"",
        "\"running\"",
    );
    let failed = "outputs/2026-03-01/10-10-00";
    place.snapshot(failed, &[]);
    let why =
        json!({"status": "failed", "error": "no space\nleft", "metrics": {}, "val_loss": null});
    place.summary(failed, "2026-03-01T10:10:00+00:00", why);
    let damaged = "outputs/2026-03-01/10-20-00";
    place.snapshot(damaged, &[]);
    place.write(&format!("{damaged}/summary.json"), "{\n");
    let text = place.ok(&["runs"]);
    let at = |part: &str| {
        text.find(part)
            .unwrap_or_else(|| panic!("no {part} in:\n{text}"))
    };
    assert!(at(cell) < at(failed) && at(failed) < at(SECOND), "{text}");
    let row = line(&text, SECOND);
    for part in [
        "2026-03-01 10:30:00",
        "train mcq",
        "finished",
        "accuracy 25.0 % -> 90.0 %",
        "0.6250",
        "1 min 1 s",
        "task=mcq lora.r=8",
    ] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(line(&text, cell).contains("interrupted"), "{text}");
    assert!(line(&text, failed).contains("failed"), "{text}");
    let row = line(&text, damaged);
    assert!(
        row.contains("unreadable") && row.contains("summary.json:2:"),
        "{row}"
    );

    let rows = place.json(&["runs", "--json"]);
    let find = |dir: &str| {
        let rows = rows.as_array().expect("a list");
        rows.iter()
            .find(|row| row["directory"] == dir)
            .expect("the run")
            .clone()
    };
    let row = find(SECOND);
    assert_eq!(row["overrides"], json!(["task=mcq", "lora.r=8"]));
    assert_eq!((&row["base"], &row["tuned"]), (&json!(0.25), &json!(0.9)));
    assert_eq!(row["metric"], "accuracy");
    assert_eq!(find(failed)["error"], "no space\nleft");
    assert_eq!(find(damaged)["status"], "unreadable");
}

#[test]
fn a_run_with_a_living_process_is_running() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &[]);
    place.edit(
        &format!("{FIRST}/summary.json"),
        "\"finished\"",
        "\"running\"",
    );
    // The lock of a killed run is a file that nobody holds.
    place.write(&format!("{FIRST}/.lock"), "process 1");
    assert!(place.ok(&["runs"]).contains("interrupted"));
    let lock = fs::File::open(place.path(&format!("{FIRST}/.lock"))).expect("opened");
    lock.lock().expect("locked");
    assert!(line(&place.ok(&["runs"]), FIRST).contains(" running "));
    let shown = place.ok(&["runs", "show", "10-00-00"]);
    assert!(line(&shown, "status").ends_with("running"), "{shown}");
    drop(lock);
    assert!(place.ok(&["runs"]).contains("interrupted"));
    // Killed before its first summary.
    fs::remove_file(place.path(&format!("{FIRST}/summary.json"))).expect("removed");
    assert!(place.ok(&["runs"]).contains("interrupted"));
    assert!(place.ok(&["runs", "show", FIRST]).contains("interrupted"));
}

#[test]
fn a_run_is_shown_whole() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &["lora.r=8"]);
    for name in ["10-00-00", "2026-03-01/10-00-00", FIRST] {
        let text = place.ok(&["runs", "show", name]);
        for (name, value) in [
            ("status ", "finished"),
            ("overrides ", "lora.r=8"),
            ("command ", "train mcq"),
            ("accuracy ", "25.0 % -> 90.0 %"),
            ("trainable ", "4096 parameters (1.50 %)"),
            ("adapter ", "outputs/2026-03-01/10-00-00/adapter"),
        ] {
            assert!(line(&text, name).ends_with(value), "{name}: {text}");
        }
        let rows: Vec<&str> = text.lines().rev().take(5).collect();
        assert!(rows[0].starts_with("7     0.50   val    0.6250"), "{text}");
        assert!(rows[4].starts_with("4 "), "{text}");
    }
    let json = place.json(&["runs", "show", FIRST, "--json"]);
    assert_eq!(json["summary"]["val_loss"], 0.625);
    assert_eq!(json["metrics"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["metrics"][4]["split"], "val");
    assert_eq!(json["status"], "finished");
    assert_eq!(json["adapter"], "outputs/2026-03-01/10-00-00/adapter");
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &[]);
    let shown = |file: &str, text: Option<&str>| {
        let path = place.path(&format!("{FIRST}/{file}"));
        let before = fs::read_to_string(&path).expect("read");
        match text {
            Some(text) => fs::write(&path, text).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let error = place.refused(&["runs", "show", FIRST]);
        fs::write(&path, before).expect("written");
        assert!(error.contains(&format!("{FIRST}/{file}")), "{error}");
        error
    };
    shown("summary.json", Some("[]"));
    shown("metrics.csv", None);
    assert!(shown("metrics.csv", Some("step\n")).contains("metrics.csv:1:"));
    shown(".hydra/overrides.yaml", None);
    shown(".hydra/overrides.yaml", Some("a: 1\n"));
    shown(".hydra/overrides.yaml", Some("- [\n"));
    shown(".hydra/hydra.yaml", Some("\t- a: b: c\n"));
    place.ok(&["runs", "show", FIRST]);
    fs::remove_file(place.path(&format!("{FIRST}/config.resolved.yaml"))).expect("removed");
    fs::remove_file(place.path(&format!("{FIRST}/.hydra/config.yaml"))).expect("removed");
    let error = place.refused(&["runs", "diff", FIRST, FIRST]);
    assert!(
        error.contains(&format!("{FIRST}/.hydra/config.yaml")),
        "{error}"
    );
}

#[test]
fn ambiguous_and_unknown_names_get_the_candidates() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &[]);
    place.finished("outputs/2026-03-02/10-00-00", LATER, &[]);
    let text = place.refused(&["runs", "show", "10-00-00"]);
    assert!(
        text.contains("names 2 runs; say which:\n  outputs/2026-03-01/10-00-00\n"),
        "{text}"
    );
    let text = place.refused(&["runs", "diff", "2026-03-02/10-00-00", "10-00-01"]);
    assert!(
        text.contains("10-00-01: no such run; runs below outputs:\n  outputs"),
        "{text}"
    );
    let text = place.refused(&["train", "--from", "10-00-00", "--cfg", "job"]);
    assert!(text.contains("names 2 runs"), "{text}");
}

#[test]
fn two_runs_are_compared_key_by_key() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &["lora.r=8"]);
    place.finished(SECOND, LATER, &["training.resume=auto"]);
    let more = json!({"val_loss": 0.5, "metrics": {"base": {"accuracy": 0.25}, "tuned": {}}});
    place.summary(SECOND, LATER, more);
    place.edit(&format!("{SECOND}/config.resolved.yaml"), "seed: 42\n", "");
    let text = place.ok(&["runs", "diff", "10-00-00", "10-30-00"]);
    let expected = "\
A  outputs/2026-03-01/10-00-00
B  outputs/2026-03-01/10-30-00

config  A   B
lora.r  8   16
seed    42  (absent)

summary                 A      B
metrics.tuned.accuracy  0.9    (absent)
val_loss                0.625  0.5
";
    assert_eq!(text, expected);
    let json = place.json(&["runs", "--json", "diff", "10-00-00", "10-30-00"]);
    assert_eq!(json["equal"], false);
    assert_eq!(json["config"]["lora.r"], json!({"a": 8, "b": 16}));
    assert_eq!(json["config"]["seed"], json!({"a": 42}));
    assert_eq!(json["summary"]["val_loss"], json!({"a": 0.625, "b": 0.5}));
    let text = place.ok(&["runs", "diff", FIRST, FIRST]);
    assert!(
        text.ends_with("the runs are equal: the same config, the same figures\n"),
        "{text}"
    );
}

#[test]
fn without_a_resolved_config_the_saved_one_is_resolved() {
    let place = Place::new();
    place.finished(
        FIRST,
        EARLY,
        &["lora.r=8", "lora.alpha=${lora.r}", "seed=1"],
    );
    place.finished(SECOND, LATER, &["lora.r=8", "lora.alpha=9", "seed=1"]);
    fs::remove_file(place.path(&format!("{FIRST}/config.resolved.yaml"))).expect("removed");
    place.edit(
        &format!("{FIRST}/.hydra/config.yaml"),
        "seed: 1",
        "seed: ${nowhere}",
    );
    let json = place.json(&["runs", "diff", FIRST, SECOND, "--json"]);
    assert_eq!(
        json["config"],
        json!({"lora.alpha": {"a": 8, "b": 9}, "seed": {"a": "${nowhere}", "b": 1}})
    );
}

#[test]
fn a_rerun_composes_what_the_run_composed() {
    let place = Place::new();
    let overrides = [
        "task=saq",
        "lora.r=8",
        "lora.alpha=${lora.r}",
        "training.resume=auto",
    ];
    place.snapshot(FIRST, &overrides);
    let saved = fs::read_to_string(place.path(&format!("{FIRST}/.hydra/config.yaml")))
        .expect("read")
        .replace("resume: auto", "resume: null");
    let cfg = |args: &[&str]| place.ok(&[&["train", "--cfg", "job"], args].concat());
    for name in [
        FIRST,
        "10-00-00",
        "outputs/2026-03-01/10-00-00/.hydra/config.yaml",
    ] {
        assert_eq!(cfg(&["--from", name]), saved, "{name}");
    }
    assert_eq!(
        cfg(&[
            "--experimental-rerun",
            &format!("{FIRST}/.hydra/config.pickle")
        ]),
        saved
    );
    // Overrides come on top, and what depends on them follows.
    let text = cfg(&["--resolve", "-p", "lora", "--from", FIRST, "lora.r=4"]);
    assert!(text.contains("r: 4\nalpha: 4\n"), "{text}");
    // Today's configs do not matter.
    place.write(
        "configs/config.yaml",
        "seed: 7\nhydra:\n  run:\n    dir: elsewhere\n",
    );
    assert_eq!(cfg(&["--from", FIRST]), saved);
    // But Hydra's own settings are today's.
    let hydra = |args: &[&str]| place.ok(&[&["train", "--cfg", "hydra"], args].concat());
    let text = hydra(&["--from", FIRST, "-p", "hydra.run.dir"]);
    assert_eq!(text, "elsewhere\n");
    let text = hydra(&["--from", FIRST, "lora.r=4", "hydra.job.name=x"]);
    assert!(text.contains("    task:\n    - lora.r=4\n"), "{text}");
    assert!(
        text.contains("provider: rerun\n") && text.contains("10-00-00/.hydra\n"),
        "{text}"
    );
    assert!(text.contains("      task: saq\n"), "{text}");
}

#[test]
fn a_rerun_tells_where_it_came_from() {
    let place = Place::new();
    place.finished(FIRST, EARLY, &["lora.r=8"]);
    place.finished(SECOND, LATER, &["--from", FIRST, "seed=1"]);
    let shown = place.ok(&["runs", "show", SECOND]);
    assert!(line(&shown, "rerun of").ends_with(FIRST), "{shown}");
    assert!(line(&shown, "overrides").ends_with("  seed=1"), "{shown}");
    assert!(!place.ok(&["runs", "show", FIRST]).contains("rerun of"));
    // And can be run again itself.
    let text = place.ok(&["train", "--from", SECOND, "-c", "job", "-p", "lora.r"]);
    assert_eq!(text, "8\n");
}

#[test]
fn a_rerun_is_checked_against_the_keys_of_today() {
    let place = Place::new();
    place.snapshot(FIRST, &[]);
    let file = format!("{FIRST}/.hydra/config.yaml");
    place.edit(
        &file,
        "  learning_rate: 0.0001\n",
        "  learning_rte: 0.0001\n",
    );
    place.edit(&file, "  r: 16\n", "  r: sixteen\n");
    let line_of = |text: &str| {
        let saved = fs::read_to_string(place.path(&file)).expect("read");
        1 + saved
            .lines()
            .position(|line| line.trim() == text)
            .expect("the line")
    };
    for flags in [&["--cfg", "job"][..], &[]] {
        let args = [&["train", "--from", FIRST], flags].concat();
        let text = place.refused(&args);
        let at = line_of("learning_rte: 0.0001");
        for part in [
            format!(
                "{file}:{at}: unknown key `training.learning_rte`\n  did you mean `training.learning_rate`?"
            ),
            format!("{file}:{}: `lora.r` must be", line_of("r: sixteen")),
            "2 problems".to_string(),
            format!("{FIRST} was made with other keys than this version has"),
        ] {
            assert!(text.contains(&part), "no {part} in:\n{text}");
        }
    }
    // The way out. What the saved config lacks it has from config.resolved.yaml.
    place.edit(
        &format!("{FIRST}/config.resolved.yaml"),
        "learning_rate: 0.0001",
        "learning_rate: 0.5",
    );
    let args = [
        "train",
        "--from",
        FIRST,
        "~training.learning_rte",
        "lora.r=4",
        "-c",
        "job",
    ];
    let text = place.ok(&args);
    assert!(
        text.contains("learning_rate: 0.5\n") && text.contains("r: 4\n"),
        "{text}"
    );
    let args = [&args[..], &["training.learning_rate=0.25"]].concat();
    assert!(place.ok(&args).contains("learning_rate: 0.25\n"));
    // A mistake on the command line is not blamed on the run.
    let text = place.refused(&["train", "--from", FIRST, "lora.rr=4"]);
    assert!(
        text.contains("did you mean 'lora.r'?") && !text.contains("was made with"),
        "{text}"
    );
}

#[test]
fn a_group_chosen_anew_replaces_its_part_of_the_saved_config() {
    let place = Place::new();
    place.snapshot(FIRST, &["model.path=mine", "training.epochs=7"]);
    let cfg = |args: &[&str]| place.ok(&[&["train", "-c", "job", "--from", FIRST], args].concat());
    let text = cfg(&["model=gpt2"]);
    let before = cfg(&[]);
    // The lines of one top-level key.
    let part = |text: &str, name: &str| -> String {
        let head = format!("{name}:");
        let lines = text.lines().skip_while(|line| **line != head);
        let inner = lines
            .skip(1)
            .take_while(|line| line.starts_with([' ', '-']));
        inner.map(|line| format!("{line}\n")).collect()
    };
    assert!(part(&before, "model").contains("path: mine"));
    assert_eq!(
        part(&text, "model"),
        part(&place.ok(&["train", "-c", "job", "model=gpt2"]), "model")
    );
    assert_eq!(
        text.replace(&part(&text, "model"), ""),
        before.replace(&part(&before, "model"), "")
    );
    // Overrides of values come on top of the new choice.
    let text = cfg(&["model.revision=main", "model=gpt2", "-p", "model"]);
    assert!(text.contains("revision: main"), "{text}");
    // An experiment is laid over a run without one.
    let text = cfg(&["experiment=low_memory"]);
    assert!(
        text.contains("  r: 8\n") && text.contains("epochs: 7\n"),
        "{text}"
    );
    let hydra = place.ok(&["train", "-c", "hydra", "--from", FIRST, "model=gpt2"]);
    assert!(hydra.contains("      model: gpt2\n"), "{hydra}");
    // What the old task had set everywhere cannot be taken back.
    let text = place.refused(&["train", "-c", "job", "--from", FIRST, "task=saq"]);
    for part in [
        "command line: task=saq: 'task=saq' sets keys in all parts of the config",
        "those of 'task=mcq'",
        "the overrides of the saved one: model.path=mine training.epochs=7 task=saq",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    let text = place.refused(&["train", "-c", "job", "--from", FIRST, "~model"]);
    assert!(text.contains("'~model' leaves nothing out"), "{text}");
    let text = place.refused(&["train", "-c", "job", "--from", FIRST, "model=gtp2"]);
    assert!(text.contains("did you mean 'gpt2'?"), "{text}");
}

#[test]
fn a_cell_of_a_sweep_keeps_its_number() {
    let place = Place::new();
    let cell = "outputs/multirun/2026-03-01/10-00-00/3";
    place.snapshot(cell, &["device=cpu"]);
    place.edit(
        &format!("{cell}/.hydra/config.yaml"),
        "seed: 42",
        "seed: ${hydra:job.num}",
    );
    place.edit(
        &format!("{cell}/.hydra/hydra.yaml"),
        "    num: ???\n",
        "    num: 3\n",
    );
    let text = place.ok(&["train", "--from", "10-00-00/3", "-c", "job", "-p", "seed"]);
    assert_eq!(text, "3\n");
}

#[test]
fn flags_that_contradict_each_other_are_a_usage_error() {
    let place = Place::new();
    for args in [
        &["train", "--from", FIRST, "--config-name", "mine"][..],
        &["train", "--from"],
        &["runs", "show"],
        &["runs", "diff", FIRST],
        &["runs", "fly"],
    ] {
        assert_eq!(place.run(args).code, Some(2), "{args:?}");
    }
    let text = place.ok(&["--help"]);
    assert!(
        text.contains("runs     List, show and compare past runs"),
        "{text}"
    );
    let missing = Path::new("outputs").join("none");
    let text = place.refused(&["train", "--from", &missing.display().to_string()]);
    assert!(text.contains("no such run"), "{text}");
}
