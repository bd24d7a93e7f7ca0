//! `run infer` and `run eval` from outside.

use crate::common::sandbox::{Sandbox, table};

const COLUMNS: &str = "id,question,prediction,reference,valid,attempts";

/// A sandbox with a published adapter for each of `tasks`.
fn trained(tasks: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for task in tasks {
        sandbox.ok(&format!(
            "train task={task} model.path=model data.path={task}.csv \
             data.test_path={task}_test.csv training.learning_rate=1e-2 training.max_steps=8 \
             inference.max_new_tokens=4 hydra.run.dir=run_{task}"
        ));
    }
    sandbox
}

fn infer(sandbox: &Sandbox, run: &str, args: &str) -> Vec<Vec<String>> {
    sandbox.ok(&format!(
        "infer model.path=model hydra.run.dir={run} {args}"
    ));
    let (header, rows) = table(&sandbox.read(&format!("{run}/predictions.csv")));
    assert_eq!(header.join(","), COLUMNS);
    rows
}

#[test]
fn a_fully_tuned_model_answers_alone() {
    let sandbox = Sandbox::new();
    sandbox.ok(
        "train task=saq model.path=model data.path=saq.csv data.test_path=null method=full \
         quantization=none training.max_steps=2 hydra.run.dir=full",
    );
    let ask = "infer task=saq model.path=full/model quantization=none data.test_path=saq_test.csv \
               inference.max_new_tokens=3";
    let refused = sandbox.run(ask);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("the base alone (--base)"),
        "{refused:?}"
    );
    let said = sandbox.ok(&format!("{ask} --base hydra.run.dir=out"));
    assert!(said.contains("the base alone, 7 questions"), "{said}");
    let (_, rows) = table(&sandbox.read("out/predictions.csv"));
    assert_eq!(rows.len(), 7);
    let adapter = &sandbox.json("out/summary.json")["answers"]["saq"]["adapter"];
    assert!(adapter.is_null(), "{adapter}");
    // An adapter of another base fits by its shapes, but not without a word.
    sandbox.ok(
        "train task=saq model.path=model data.path=saq.csv data.test_path=null \
         training.max_steps=2",
    );
    let note = "adapter outputs/adapters/adapter_saq was trained on model, and the model in use is \
                full/model";
    assert!(sandbox.ok(ask).contains(note));
    let own = sandbox.ok(&ask.replace("full/model", "./model"));
    assert!(!own.contains("was trained on"), "{own}");
    let both = sandbox.run(&format!("{ask} --base adapter=x"));
    assert!(both.stderr.contains("leave one of them out"), "{both:?}");
}

#[test]
fn predictions_have_a_row_a_question() {
    let sandbox = trained(&["saq"]);
    let args = "task=saq data.test_path=saq_test.csv inference.max_new_tokens=4";
    let rows = infer(&sandbox, "out", &format!("{args} output=deep/answers.csv"));
    let (_, questions) = table(&sandbox.read("saq_test.csv"));
    assert_eq!(rows.len(), questions.len());
    for (i, (row, question)) in rows.iter().zip(&questions).enumerate() {
        assert_eq!(row[0], (i + 1).to_string());
        assert_eq!((&row[1], &row[3]), (&question[0], &question[1]));
        assert_eq!(row[4] == "true", !row[2].is_empty());
        assert!(["1", "2", "3"].contains(&&row[5][..]));
    }
    let predictions = sandbox.bytes("out/predictions.csv");
    assert!(sandbox.bytes("deep/answers.csv") == predictions);
    let summary = sandbox.json("out/summary.json");
    assert_eq!(
        (&summary["status"], &summary["command"]),
        (&"finished".into(), &"infer".into())
    );
    assert_eq!(
        sandbox.files("out"),
        [
            ".hydra/config.yaml",
            ".hydra/hydra.yaml",
            ".hydra/overrides.yaml",
            "config.resolved.yaml",
            "predictions.csv",
            "run.log",
            "summary.json"
        ]
    );
    // The table at the end of training scored the same answers.
    assert!(sandbox.bytes("run_saq/predictions.csv") == predictions);

    // A file of questions alone: nothing to compare with, all the same answers.
    let alone: String = sandbox
        .read("saq_test.csv")
        .lines()
        .map(|line| line.split(',').next().unwrap().to_string() + "\n")
        .collect();
    sandbox.write("questions.csv", &alone);
    let asked = infer(&sandbox, "asked", &args.replace("saq_test", "questions"));
    for (row, other) in asked.iter().zip(&rows) {
        assert_eq!((&row[2], &row[3][..]), (&other[2], ""));
    }
}

#[test]
fn samples_follow_the_seed_and_not_the_batch() {
    let sandbox = trained(&["saq"]);
    let mut files = Vec::new();
    for (i, args) in [
        "inference.batch_size=1",
        "inference.batch_size=3",
        "inference.batch_size=64",
        "inference.batch_size=3 seed=2",
        "inference.batch_size=3 inference.do_sample=false",
    ]
    .iter()
    .enumerate()
    {
        let run = format!("out{i}");
        let sampling = "inference.do_sample=true inference.temperature=1.5 inference.top_p=0.95";
        infer(
            &sandbox,
            &run,
            &format!(
                "task=saq data.test_path=saq_test.csv inference.max_new_tokens=6 {sampling} {args}"
            ),
        );
        files.push(sandbox.bytes(&format!("{run}/predictions.csv")));
    }
    assert!(
        files[0] == files[1] && files[0] == files[2],
        "the batch size changed a sample"
    );
    assert!(files[0] != files[3], "the seed changed nothing");
    assert!(files[0] != files[4], "sampling is greedy");
}

#[test]
fn retries_are_counted() {
    let sandbox = trained(&["mcq"]);
    let args = "task=mcq data.test_path=mcq_test.csv inference.max_new_tokens=2";
    let rows = infer(
        &sandbox,
        "out",
        &format!("{args} inference.validation.max_retries=3"),
    );
    let attempts = |row: &Vec<String>| row[5].parse::<usize>().unwrap();
    for row in &rows {
        assert!((1..=4).contains(&attempts(row)));
        // It stops at the first valid answer, and only there.
        assert!(row[4] == "true" || attempts(row) == 4, "{row:?}");
    }
    let valid = rows.iter().filter(|row| row[4] == "true").count();
    let retried = rows.iter().filter(|row| attempts(row) > 1).count();
    let said = format!("{valid} of 7 answers valid, {retried} retried");
    assert!(sandbox.read("out/run.log").contains(&said), "{said}");

    let once = infer(
        &sandbox,
        "once",
        &format!("{args} inference.validation.enabled=false"),
    );
    assert!(once.iter().all(|row| attempts(row) == 1));
    // Some answer had to be asked for again, else the above says nothing.
    assert!(retried > 0);
    for (row, first) in rows.iter().zip(&once) {
        assert_eq!(attempts(row) == 1, first[4] == "true");
    }
}

#[test]
fn eval_scores_what_training_scored() {
    let sandbox = trained(&["mcq", "saq"]);
    for task in ["mcq", "saq"] {
        let args = format!(
            "eval task={task} model.path=model data.test_path={task}_test.csv \
             inference.max_new_tokens=4 hydra.run.dir=eval_{task}"
        );
        let stdout = sandbox.ok(&args);
        assert!(
            stdout.contains(&format!("adapter outputs/adapters/adapter_{task}")),
            "{stdout}"
        );
        let trained = sandbox.json(&format!("run_{task}/summary.json"));
        let scored = sandbox.json(&format!("eval_{task}/summary.json"));
        assert_eq!(scored["status"], "finished");
        assert!(!scored["metrics"]["tuned"].as_object().unwrap().is_empty());
        assert_eq!(scored["metrics"], trained["metrics"], "{task}");
        let predictions = |run: &str| sandbox.bytes(&format!("{run}_{task}/predictions.csv"));
        assert!(predictions("eval") == predictions("run"), "{task}");
    }
    // An adapter that is named wins over the published one of the task.
    let named = "eval task=saq model.path=model data.test_path=saq_test.csv \
                 inference.max_new_tokens=4 adapter=run_mcq/adapter hydra.run.dir=named";
    sandbox.ok(named);
    assert!(sandbox.bytes("named/predictions.csv") != sandbox.bytes("eval_saq/predictions.csv"));

    std::fs::remove_dir_all(sandbox.path("outputs/adapters")).unwrap();
    let base = "eval task=saq model.path=model data.test_path=saq_test.csv \
                inference.max_new_tokens=4 hydra.run.dir=base";
    assert!(sandbox.ok(base).contains("no adapter: the base alone"));
    let metrics = &sandbox.json("base/summary.json")["metrics"];
    assert_eq!(metrics["tuned"], serde_json::json!({}));
    assert_eq!(
        metrics["base"],
        sandbox.json("eval_saq/summary.json")["metrics"]["base"]
    );
}

#[test]
fn streamed_answers_are_those_of_the_file_in_its_order() {
    let sandbox = trained(&["saq"]);
    let args = "infer task=saq model.path=model data.test_path=saq_test.csv \
                inference.max_new_tokens=6 inference.validation.enabled=false \
                inference.do_sample=true inference.temperature=1.5";
    let plain = sandbox.ok(&format!("{args} hydra.run.dir=plain"));
    let streamed = sandbox.ok(&format!(
        "{args} inference.stream=true inference.batch_size=3 hydra.run.dir=streamed"
    ));
    assert!(sandbox.bytes("plain/predictions.csv") == sandbox.bytes("streamed/predictions.csv"));
    let (_, rows) = table(&sandbox.read("plain/predictions.csv"));
    let answers = rows.iter().enumerate();
    let lines: Vec<String> = answers
        .map(|(i, row)| format!("{}: {}", i + 1, row[2]))
        .collect();
    assert!(rows.iter().any(|row| !row[2].is_empty()));
    let together = lines.join("\n") + "\n";
    assert!(streamed.contains(&together), "{streamed}");
    assert!(!plain.contains(&lines[0]), "{plain}");
    assert!(sandbox.read("streamed/run.log").contains(&together));

    // An answer of the wrong form is shown again with its attempt.
    sandbox.ok(
        "train task=mcq model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
         training.max_steps=2 hydra.run.dir=run_mcq",
    );
    let again = sandbox.ok(
        "infer task=mcq model.path=model data.test_path=mcq_test.csv inference.max_new_tokens=2 \
         inference.stream=true inference.validation.max_retries=1 hydra.run.dir=again",
    );
    let (_, rows) = table(&sandbox.read("again/predictions.csv"));
    assert!(rows.iter().any(|row| row[5] == "2"));
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row[5] == "2") {
        let line = format!("{}, attempt 2: {}\n", i + 1, row[2]);
        assert!(again.contains(&line), "{line} in {again}");
    }
}

#[test]
fn a_beam_search_answers_alike_in_any_batch_and_not_greedily() {
    let sandbox = Sandbox::new();
    // Hardly trained, so that answers are long and vary.
    sandbox.ok(
        "train task=saq model.path=model data.path=saq.csv training.learning_rate=1e-6 \
         training.max_steps=1 data.test_path=null",
    );
    let args = "task=saq data.test_path=saq_test.csv inference.max_new_tokens=6 \
                inference.validation.enabled=false";
    infer(&sandbox, "greedy", args);
    let search = format!("{args} inference.num_beams=4 inference.early_stopping=never");
    infer(&sandbox, "one", &format!("{search} inference.batch_size=1"));
    infer(
        &sandbox,
        "all",
        &format!("{search} inference.length_penalty=1.0"),
    );
    let file = |run: &str| sandbox.bytes(&format!("{run}/predictions.csv"));
    assert!(file("one") == file("all"));
    assert!(
        file("one") != file("greedy"),
        "the search found what greedy did"
    );
    for (conflict, what) in [
        ("inference.do_sample=true", "draws: not both"),
        ("inference.stream=true", "cannot show a beam search"),
    ] {
        let refused = sandbox.run(&format!("infer model.path=model {search} {conflict}"));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains(what), "{refused:?}");
    }
}

#[test]
fn all_questions_are_answered_and_the_first_few_scored() {
    let sandbox = trained(&["saq"]);
    let args = "task=saq data.test_path=saq_test.csv inference.max_new_tokens=4 \
                task.max_test_examples=3";
    assert_eq!(infer(&sandbox, "all", args).len(), 7);
    for command in ["eval", "compare"] {
        let stdout = sandbox.ok(&format!(
            "{command} model.path=model hydra.run.dir={command} {args}"
        ));
        let what = "the first 3 of 7 questions (task.max_test_examples)";
        assert!(stdout.contains(what), "{command}: {stdout}");
        let (_, rows) = table(&sandbox.read(&format!("{command}/predictions.csv")));
        assert_eq!(rows.len(), 3);
    }
}

#[test]
fn answers_may_lie_in_the_run() {
    let sandbox = trained(&["saq"]);
    let args = "model.path=model task=saq data.test_path=saq_test.csv inference.max_new_tokens=4 \
                output=${hydra:runtime.output_dir}/answers.csv";
    for (command, same) in [
        ("infer", "predictions.csv"),
        ("eval", "predictions.csv"),
        ("compare", "evaluation.csv"),
    ] {
        sandbox.ok(&format!("{command} hydra.run.dir={command} {args}"));
        let answers = sandbox.bytes(&format!("{command}/answers.csv"));
        assert!(answers == sandbox.bytes(&format!("{command}/{same}")));
    }
    assert!(!sandbox.path("None").exists());
}

#[test]
fn rows_that_are_left_out_are_counted_by_every_command() {
    let sandbox = trained(&["saq"]);
    let test = sandbox.read("saq_test.csv");
    sandbox.write(
        "saq_test.csv",
        &format!("{test}one cell too many,a,b,c,d,e,f\n"),
    );
    for command in ["infer", "eval", "compare"] {
        sandbox.ok(&format!(
            "{command} model.path=model task=saq data.test_path=saq_test.csv data.on_error=skip \
             inference.max_new_tokens=4 hydra.run.dir={command}"
        ));
        let summary = sandbox.json(&format!("{command}/summary.json"));
        assert_eq!(summary["skipped_rows"], 1, "{command}");
    }
}
