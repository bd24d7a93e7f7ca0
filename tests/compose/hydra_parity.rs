//! Random configs and command lines, composed as hydra-core 1.3.8 composes them.
//! `hydra_parity/cases.jsonl` holds Hydra's answers, so that no Python is needed;
//! `hydra_parity/check.py` makes new cases and asks Hydra itself.

use std::fs;
use std::path::Path;

use kiln::compose::{Error, Request, Source, compose, to_yaml};
use serde_json::Value;

/// Composes a case in a directory of its own.
fn composed(case: &Value) -> Result<String, Error> {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("conf")).expect("made");
    for (path, text) in case["files"].as_object().expect("files") {
        let full = dir.path().join(path);
        fs::create_dir_all(full.parent().expect("a parent")).expect("made");
        fs::write(full, text.as_str().expect("text")).expect("written");
    }
    let overrides = case["overrides"].as_array().expect("a list");
    let composed = compose(&Request {
        sources: vec![Source::dir("main", dir.path().join("conf"))],
        config_name: case["config"].as_str().map(str::to_string),
        overrides: overrides
            .iter()
            .filter_map(|one| one.as_str().map(str::to_string))
            .collect(),
        job_name: "run".to_string(),
        cwd: Some(dir.path().to_path_buf()),
        ..Request::default()
    })?;
    Ok(if case["resolve"] == true {
        to_yaml(&composed.resolved_job()?)
    } else {
        to_yaml(&composed.job)
    })
}

#[test]
fn every_frozen_case_agrees_with_hydra() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hydra_parity/cases.jsonl");
    let text = fs::read_to_string(path).expect("the cases are there");
    let mut failures = Vec::new();
    let (mut yamls, mut refusals) = (0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a case is JSON");
        let (case, hydra) = (&row["case"], &row["hydra"]);
        let failure = match (composed(case), hydra["yaml"].as_str()) {
            (Ok(yaml), Some(expected)) if yaml == expected => None,
            (Ok(yaml), Some(expected)) => Some(format!("gives\n{yaml}instead of\n{expected}")),
            (Ok(yaml), None) => Some(format!("Hydra refuses it ({})\n{yaml}", hydra["refused"])),
            (Err(error), Some(_)) => Some(format!("Hydra composes it:\n{error}")),
            (Err(_), None) => None,
        };
        match hydra["yaml"] {
            Value::Null => refusals += 1,
            _ => yamls += 1,
        }
        if let Some(failure) = failure {
            failures.push(format!(
                "{} {} {}: {failure}",
                case["id"], case["config"], case["overrides"]
            ));
        }
    }
    assert!(
        yamls >= 100 && refusals >= 50,
        "only {yamls} that compose and {refusals} that do not"
    );
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        yamls + refusals,
        failures.join("\n\n")
    );
}
