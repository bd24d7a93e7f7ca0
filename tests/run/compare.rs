//! `run compare` from outside.

use crate::common::xml;

use crate::common::sandbox::{Sandbox, table};

fn trained(task: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!(
        "train task={task} model.path=model data.path={task}.csv data.test_path={task}_test.csv \
         training.learning_rate=1e-2 training.max_steps=8 inference.max_new_tokens=4 \
         hydra.run.dir=run_{task}"
    ));
    sandbox
}

fn compare(sandbox: &Sandbox, task: &str, args: &str) -> String {
    sandbox.ok(&format!(
        "compare task={task} model.path=model data.test_path={task}_test.csv \
         inference.max_new_tokens=4 {args}"
    ))
}

#[test]
fn answers_stand_side_by_side_and_score_as_eval_scores_them() {
    for task in ["saq", "mcq"] {
        let sandbox = trained(task);
        let stdout = compare(&sandbox, task, "hydra.run.dir=out output=deep/copy.csv");
        let (header, rows) = table(&sandbox.read("out/evaluation.csv"));
        assert_eq!(header, ["question", "base", "tuned", "reference"]);
        let (_, tuned) = table(&sandbox.read("out/predictions.csv"));
        assert_eq!(rows.len(), 7);
        for (row, tuned) in rows.iter().zip(&tuned) {
            assert_eq!(
                (&row[0], &row[2], &row[3]),
                (&tuned[1], &tuned[2], &tuned[3])
            );
        }
        assert!(
            rows.iter().any(|row| row[1] != row[2]),
            "the adapter changes nothing"
        );
        assert!(sandbox.bytes("deep/copy.csv") == sandbox.bytes("out/evaluation.csv"));
        // The base's column is what the model says without any adapter.
        let base: Vec<&String> = rows.iter().map(|row| &row[1]).collect();
        std::fs::remove_dir_all(sandbox.path("outputs/adapters")).unwrap();
        sandbox.ok(&format!(
            "eval task={task} model.path=model data.test_path={task}_test.csv \
             inference.max_new_tokens=4 hydra.run.dir=base"
        ));
        let (_, alone) = table(&sandbox.read("base/predictions.csv"));
        assert_eq!(base, alone.iter().map(|row| &row[2]).collect::<Vec<_>>());

        let summary = sandbox.json("out/summary.json");
        assert_eq!(summary["command"], "compare");
        assert_eq!(summary["status"], "finished");
        let training = sandbox.json(&format!("run_{task}/summary.json"));
        assert_eq!(summary["metrics"], training["metrics"]);

        let right = |column: usize| rows.iter().filter(|row| row[column] == row[3]).count();
        let better = rows.iter().filter(|r| r[2] == r[3] && r[1] != r[3]).count();
        let worse = rows.iter().filter(|r| r[1] == r[3] && r[2] != r[3]).count();
        let said = format!(
            "tuned is better on {better} questions, worse on {worse}, equal on {}\n",
            7 - better - worse
        );
        assert!(stdout.contains(&said), "{said}: {stdout}");
        let name = if task == "mcq" {
            "accuracy"
        } else {
            "exact_match"
        };
        for (which, column) in [("base", 1), ("tuned", 2)] {
            let share = summary["metrics"][which][name].as_f64().unwrap();
            assert!((share - right(column) as f64 / 7.0).abs() < 1e-9, "{which}");
        }
    }
}

#[test]
fn the_marking_sheet_hides_whose_answer_is_whose() {
    let sandbox = trained("saq");
    compare(&sandbox, "saq", "hydra.run.dir=a");
    compare(&sandbox, "saq", "hydra.run.dir=same");
    compare(&sandbox, "saq", "hydra.run.dir=other seed=7");
    let (header, sheet) = table(&sandbox.read("a/evaluation_for_marking.csv"));
    assert_eq!(header, ["id", "question", "reference", "A", "B", "winner"]);
    let (header, key) = table(&sandbox.read("a/marking_key.csv"));
    assert_eq!(header, ["id", "A", "B"]);
    let (_, all) = table(&sandbox.read("a/evaluation.csv"));
    assert_eq!((sheet.len(), key.len()), (7, 7));
    let mut firsts = Vec::new();
    for ((row, key), both) in sheet.iter().zip(&key).zip(&all) {
        assert_eq!((&row[0], &row[1], &row[2]), (&key[0], &both[0], &both[3]));
        assert_eq!(row[5], "");
        let (base, tuned) = (&both[1], &both[2]);
        match key[1].as_str() {
            "base" => assert_eq!((&row[3], &row[4], &key[2][..]), (base, tuned, "tuned")),
            "tuned" => assert_eq!((&row[3], &row[4], &key[2][..]), (tuned, base, "base")),
            other => panic!("{other}"),
        }
        firsts.push(key[1].clone());
    }
    firsts.sort();
    firsts.dedup();
    assert_eq!(firsts, ["base", "tuned"], "one side is always the same");
    let text = sandbox.read("a/evaluation_for_marking.csv");
    assert!(!text.contains("base") && !text.contains("tuned"), "{text}");
    let file = |run: &str, name: &str| sandbox.bytes(&format!("{run}/{name}"));
    assert!(file("a", "marking_key.csv") == file("same", "marking_key.csv"));
    assert!(file("a", "marking_key.csv") != file("other", "marking_key.csv"));
}

#[test]
fn the_chart_has_a_bar_for_each_metric_of_each_model() {
    let sandbox = trained("saq");
    compare(&sandbox, "saq", "hydra.run.dir=out");
    let svg = sandbox.read("out/comparison.svg");
    for part in [
        "saq_test.csv, 7 questions",
        ">SAQ exact match<",
        ">SAQ F1<",
        ">base<",
        ">tuned<",
        ">score<",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    let metrics = &sandbox.json("out/summary.json")["metrics"];
    for which in ["base", "tuned"] {
        for (name, value) in metrics[which].as_object().unwrap() {
            let shown = format!(">{:.1} %<", 100.0 * value.as_f64().unwrap());
            assert!(svg.contains(&shown), "{name}: {shown}");
        }
    }
    xml::well_formed(&svg);
}

#[test]
fn without_an_adapter_or_questions_there_is_nothing_to_compare() {
    let sandbox = Sandbox::new();
    for (args, what) in [
        ("task=saq data.test_path=saq_test.csv", "run train task=saq"),
        ("task=saq data.test_path=null", "data.test_path is not set"),
        ("task=text data.test_path=saq.csv", "no questions to answer"),
        ("mode=train", "meant for `run train`"),
    ] {
        let run = sandbox.run(&format!("compare model.path=model {args}"));
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains(what), "{what}: {run:?}");
    }
    assert!(sandbox.runs().is_empty());
}
