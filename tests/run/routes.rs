//! One `run infer` over a file that mixes tasks.

use crate::common::sandbox::{Sandbox, table};

const SHORT: &str = "inference.max_new_tokens=3";

/// A sandbox with a published adapter for each task, trained briefly.
fn trained(tasks: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for task in tasks {
        sandbox.ok(&format!(
            "train task={task} model.path=model data.path={task}.csv data.test_path=null \
             training.learning_rate=1e-2 training.max_steps=8 hydra.run.dir=run_{task}"
        ));
    }
    sandbox
}

fn rows(sandbox: &Sandbox, name: &str) -> Vec<Vec<String>> {
    let (header, rows) = table(&sandbox.read(name));
    let fixed = "id,question,prediction,reference,valid,attempts";
    assert_eq!(header.join(","), fixed);
    rows
}

/// mixed.csv: the questions of both test files, a short answer after each multiple
/// choice. Returns for each row its task and its number within the task's file.
fn mix(sandbox: &Sandbox) -> Vec<(&'static str, usize)> {
    let (_, mcq) = table(&sandbox.read("mcq_test.csv"));
    let (_, saq) = table(&sandbox.read("saq_test.csv"));
    let mut text = "question,options,answer\n".to_string();
    let mut order = Vec::new();
    for (i, (mcq, saq)) in mcq.iter().zip(&saq).enumerate() {
        text += &format!("{}\n{},,{}\n", mcq.join(","), saq[0], saq[1]);
        order.extend([("mcq", i), ("saq", i)]);
    }
    sandbox.write("mixed.csv", &text);
    order
}

#[test]
fn each_question_of_a_mixed_file_is_answered_as_in_a_file_of_its_task() {
    let sandbox = trained(&["mcq", "saq"]);
    let order = mix(&sandbox);
    let infer = |run: &str, args: &str| {
        sandbox.ok(&format!(
            "infer model.path=model hydra.run.dir={run} {SHORT} {args}"
        ))
    };
    for task in ["mcq", "saq"] {
        infer(task, &format!("task={task} data.test_path={task}_test.csv"));
    }
    let alone = |task: &str| rows(&sandbox, &format!("{task}/predictions.csv"));
    let (mcq, saq) = (alone("mcq"), alone("saq"));
    let expected: Vec<&[String]> = order
        .iter()
        .map(|&(task, i)| {
            if task == "mcq" {
                &mcq[i][1..]
            } else {
                &saq[i][1..]
            }
        })
        .collect();
    // Whatever the config's own task is; streaming counts as the file does.
    for (run, args) in [
        ("default", "data.test_path=mixed.csv"),
        (
            "as_saq",
            "task=saq data.test_path=mixed.csv output=answers.csv",
        ),
        ("streamed", "data.test_path=mixed.csv inference.stream=true"),
    ] {
        let said = infer(run, args);
        let mixed = rows(&sandbox, &format!("{run}/predictions.csv"));
        for (place, (row, expected)) in mixed.iter().zip(&expected).enumerate() {
            assert_eq!(row[0], (place + 1).to_string());
            assert_eq!(&&row[1..], expected, "{run}, row {place}");
            if run == "streamed" && row[5] == "1" {
                let line = format!("{}: {}", place + 1, row[2]);
                assert!(said.contains(line.trim_end()), "{line} in {said}");
            }
        }
        assert_eq!(mixed.len(), 14);
        for task in ["mcq", "saq"] {
            let adapter = format!("adapter outputs/adapters/adapter_{task}, 7 questions");
            assert!(said.contains(&adapter), "{said}");
        }
        let answers = &sandbox.json(&format!("{run}/summary.json"))["answers"];
        for (task, alone) in [("mcq", &mcq), ("saq", &saq)] {
            let valid = alone.iter().filter(|row| row[4] == "true").count();
            let attempts = alone.iter().map(|row| row[5].parse::<usize>().unwrap());
            assert_eq!(answers[task]["questions"], 7);
            assert_eq!(answers[task]["valid_rate"], valid as f64 / 7.0);
            assert_eq!(answers[task]["retries"], attempts.sum::<usize>() - 7);
        }
    }
    assert!(sandbox.bytes("answers.csv") == sandbox.bytes("as_saq/predictions.csv"));

    // One adapter for all: each kind of question still has its own prompt.
    let said = infer("one", "data.test_path=mixed.csv adapter=run_mcq/adapter");
    assert_eq!(
        said.matches("adapter run_mcq/adapter, 7 questions").count(),
        2
    );
    let one = rows(&sandbox, "one/predictions.csv");
    for (row, &(task, i)) in one.iter().zip(&order) {
        if task == "mcq" {
            assert_eq!(row[1..], mcq[i][1..]);
        }
    }

    // Names of tasks ask for other adapters, and mean nothing then.
    let named = sandbox
        .read("mcq_test.csv")
        .replacen("question,", "task,question,", 1);
    let mut lines = named.lines();
    let header = lines.next().unwrap().to_string();
    let rest = lines.map(|line| format!("\ncommonsense,{line}"));
    sandbox.write("other.csv", &(header + &rest.collect::<String>()));
    let said = infer("other", "data.test_path=other.csv adapter=run_mcq/adapter");
    assert!(
        said.contains("adapter run_mcq/adapter, 7 questions"),
        "{said}"
    );

    // Both adapters matter: with either for all questions some answer differs.
    for task in ["mcq", "saq"] {
        let run = format!("named_{task}");
        infer(
            &run,
            &format!("task={task} adapter=run_{task}/adapter data.test_path=mcq_test.csv"),
        );
    }
    let named = |task: &str| rows(&sandbox, &format!("named_{task}/predictions.csv"));
    assert_eq!(named("mcq"), mcq);
    assert_ne!(named("saq"), mcq);

    // A column names the task of a row, also against its options.
    let (_, mcq_file) = table(&sandbox.read("mcq_test.csv"));
    let line = mcq_file[0].join(",");
    sandbox.write(
        "named.csv",
        &format!("question,options,answer,task\n{line},saq\n{line},MCQ\n"),
    );
    infer("by_column", "data.test_path=named.csv");
    let answers = &sandbox.json("by_column/summary.json")["answers"];
    assert_eq!(
        (&answers["mcq"]["questions"], &answers["saq"]["questions"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn a_column_names_any_task_that_answers_questions() {
    let sandbox = trained(&["saq"]);
    sandbox.copy(
        "outputs/adapters/adapter_saq",
        "outputs/adapters/adapter_squad",
    );
    let ask = |rows: &str| {
        sandbox.write(
            "named.csv",
            &format!("question,context,answer,task\n{rows}"),
        );
        sandbox.run(&format!(
            "infer task=saq task.name=saq model.path=model data.test_path=named.csv {SHORT}"
        ))
    };
    let said = ask("What is the sky ?,the sky is blue,blue,squad\nWhat is snow ?,,white,\n");
    for part in ["adapter_squad, 1 questions", "adapter_saq, 1 questions"] {
        assert!(said.stdout.contains(part), "{said:?}");
    }
    for (name, problem) in [("xyz", "no such task"), ("chat", "task.type is text")] {
        let refused = ask(&format!(
            "What is snow ?,,white,saq\nWhat is coal ?,,black,{name}\n"
        ));
        assert_eq!(refused.code, Some(1));
        let names = format!("named.csv:3: column 'task' names the task '{name}'");
        for part in [&names, problem, "mcq, squad, sst2"] {
            assert!(refused.stderr.contains(part), "{refused:?}");
        }
    }
}

#[test]
fn a_task_without_adapter_is_refused_with_the_way_out() {
    let sandbox = trained(&["mcq"]);
    mix(&sandbox);
    let refused = sandbox.run("infer model.path=model data.test_path=mixed.csv hydra.run.dir=out");
    assert_eq!(refused.code, Some(1));
    for part in [
        "outputs/adapters/adapter_saq does not exist",
        "run train task=saq",
        "adapter=DIR",
    ] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    assert!(!sandbox.path("out").exists());
}

#[test]
fn retries_lift_the_valid_rate_of_a_model_that_answers_badly() {
    let sandbox = Sandbox::new();
    // Taught to answer with the word "no", which is no option; the higher the
    // temperature, the more often something else comes.
    let (_, questions) = table(&sandbox.read("mcq.csv"));
    let mut text = "question,answer\n".to_string();
    for row in &questions {
        text += &format!("{},no\n", row[0]);
    }
    sandbox.write("bad.csv", &text);
    sandbox.ok(
        "train task=saq task.name=mcq model.path=model data.path=bad.csv data.test_path=null \
         training.learning_rate=1e-2 training.max_steps=12",
    );
    let rate = |run: &str, args: &str| {
        sandbox.ok(&format!(
            "infer model.path=model data.test_path=mcq_test.csv hydra.run.dir={run} \
             inference.max_new_tokens=2 inference.temperature=4.0 {args}"
        ));
        sandbox.json(&format!("{run}/summary.json"))["answers"]["mcq"].clone()
    };
    let once = rate("once", "inference.validation.enabled=false");
    let often = rate("often", "inference.validation.max_retries=12");
    assert_eq!(once["retries"], 0);
    assert_eq!(often["valid_rate_first"], once["valid_rate"]);
    assert!(often["retries"].as_u64() >= often["retried"].as_u64());
    let value = |of: &serde_json::Value| of["valid_rate"].as_f64().unwrap();
    assert!(value(&once) < 0.5, "{once}");
    assert!(value(&often) > value(&once) + 0.3, "{once} {often}");
}
