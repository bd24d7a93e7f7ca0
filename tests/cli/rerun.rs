//! `run train --from` from outside, by what it composes. Nothing here trains.

use std::fs;

use crate::common::place::{EARLY, FIRST, LATER, Place, SECOND, line};

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
    let json = |run: &str| place.json(&["runs", "show", run, "--json"]);
    assert_eq!(json(SECOND)["rerun_of"], FIRST);
    assert!(json(FIRST)["rerun_of"].is_null());
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
    let text = cfg(&["model=mistral_7b"]);
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
        part(
            &place.ok(&["train", "-c", "job", "model=mistral_7b"]),
            "model"
        )
    );
    assert_eq!(
        text.replace(&part(&text, "model"), ""),
        before.replace(&part(&before, "model"), "")
    );
    // Overrides of values come on top of the new choice.
    let text = cfg(&["model.revision=main", "model=mistral_7b", "-p", "model"]);
    assert!(text.contains("revision: main"), "{text}");
    // An experiment is laid over a run without one.
    let text = cfg(&["experiment=low_memory"]);
    assert!(
        text.contains("  r: 8\n") && text.contains("epochs: 7\n"),
        "{text}"
    );
    let hydra = place.ok(&["train", "-c", "hydra", "--from", FIRST, "model=mistral_7b"]);
    assert!(hydra.contains("      model: mistral_7b\n"), "{hydra}");
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
