//! `run runs` from outside, over run directories that the tests write
//! themselves. Nothing here trains.

use std::fs;

use crate::common::place::{EARLY, FIRST, LATER, Place, SECOND, line};
use serde_json::json;

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
    assert!(text.contains("List, show and compare past runs"), "{text}");
    let text = place.refused(&["train", "--from", "outputs/none"]);
    assert!(text.contains("no such run"), "{text}");
}
