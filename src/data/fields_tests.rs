use std::path::Path;

use super::*;

fn spec(kind: TaskKind, columns: &[(&str, &str)]) -> Spec {
    Spec {
        path: Path::new("data.csv").into(),
        kind,
        by_row: false,
        tasks: None,
        answers: Answers::Required,
        columns: columns
            .iter()
            .map(|(k, v)| (k.to_string(), Some(v.to_string())))
            .collect(),
    }
}

fn names(line: &str) -> Vec<String> {
    line.split(',').map(str::to_string).collect()
}

fn example(spec: &Spec, header: &str, row: &[&str]) -> Result<Example, RowProblem> {
    let cells = row.iter().map(|c| Cell::Text(c.to_string())).collect();
    Layout::new(spec, names(header), 1)
        .unwrap()
        .example(spec, 2, cells)
}

#[test]
fn option_families_are_found_in_order() {
    for header in [
        "question,choice0,choice1,choice2,answer",
        "Question,A,B,C,Answer",
        "question,option_a,option_b,option_c,answer",
        "question,Option 1,Option 2,Option 3,answer",
        "question,opa,opb,opc,answer",
    ] {
        let e = example(
            &spec(TaskKind::Mcq, &[]),
            header,
            &["q?", "x", "y", "z", "B"],
        );
        let e = e.unwrap_or_else(|e| panic!("{header}: {e}"));
        assert_eq!(e.options, ["x", "y", "z"], "{header}");
        assert_eq!(
            (e.answer_index, e.letter(), e.answers),
            (Some(1), Some('B'), vec!["y".to_string()])
        );
    }
    let s = spec(TaskKind::Mcq, &[("options", "option1, option2")]);
    let e = example(
        &s,
        "question,option1,option2,answer",
        &["q?", "x", "y", "1"],
    );
    assert_eq!(e.unwrap().answer_index, Some(0));
    for (header, answer, want) in [
        ("question,option1,option2,answer", "1", 0),
        ("question,option_1,option_2,answer", "2", 1),
        ("question,choice0,choice1,answer", "1", 1),
        ("question,option_a,option_b,answer", "1", 1),
    ] {
        let e = example(&spec(TaskKind::Mcq, &[]), header, &["q?", "x", "y", answer]);
        assert_eq!(e.unwrap().answer_index, Some(want), "{header}");
    }
    let s = spec(
        TaskKind::Mcq,
        &[("options", "right, wrong"), ("answer", "key")],
    );
    let e = example(&s, "question,wrong,right,key", &["q?", "x", "y", "A"]).unwrap();
    assert_eq!(
        (e.options, e.answer_index),
        (vec!["y".to_string(), "x".to_string()], Some(0))
    );
}

#[test]
fn a_row_may_have_fewer_options_but_no_gap() {
    let header = "question,A,B,C,answer";
    let s = spec(TaskKind::Mcq, &[]);
    assert_eq!(
        example(&s, header, &["q?", "x", "y", "", "B"])
            .unwrap()
            .options,
        ["x", "y"]
    );
    assert_eq!(
        example(&s, header, &["q?", "x", "", "z", "A"]),
        Err(RowProblem::EmptyOption { letter: 'B' })
    );
    assert_eq!(
        example(&s, header, &["q?", "x", "", "", "A"]),
        Err(RowProblem::OptionCount(1))
    );
}

#[test]
fn a_missing_column_is_named_with_those_there_are() {
    let error = Layout::new(&spec(TaskKind::Saq, &[]), names("id,questoin,answer"), 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("data.csv:1: no column 'question' for question"),
        "{error}"
    );
    assert!(
        error.contains("id, questoin, answer") && error.contains("data.columns.question="),
        "{error}"
    );
    let s = spec(TaskKind::Saq, &[("question", "text"), ("answer", "text")]);
    let error = Layout::new(&s, names("text,answer"), 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("column 'text' is read as question and as answer"),
        "{error}"
    );
    let s = spec(TaskKind::Saq, &[("question", "sentnce")]);
    let error = Layout::new(&s, names("sentence,answer"), 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no column 'sentnce' for question"),
        "{error}"
    );
    assert!(
        Layout::new(
            &spec(TaskKind::Saq, &[]),
            names("question,answer,answer"),
            1
        )
        .is_err()
    );
}

#[test]
fn mapped_and_extra_columns_reach_the_example() {
    let s = spec(
        TaskKind::Saq,
        &[("question", "sentence"), ("answer", "label")],
    );
    let e = example(
        &s,
        "sentence,label,topic,note",
        &[" a film ", "1", "art", "n"],
    )
    .unwrap();
    assert_eq!(
        (e.question.as_deref(), &e.answers[..]),
        (Some("a film"), &["1".to_string()][..])
    );
    assert_eq!(
        e.fields,
        [
            ("topic".into(), "art".to_string()),
            ("note".into(), "n".to_string())
        ]
    );
}

#[test]
fn answers_are_needed_only_where_asked_for() {
    let mut s = spec(TaskKind::Saq, &[]);
    assert_eq!(
        example(&s, "question,answer", &["q?", " "]),
        Err(RowProblem::EmptyField { field: "answer" })
    );
    s.answers = Answers::Optional;
    assert!(
        example(&s, "question,answer", &["q?", " "])
            .unwrap()
            .answers
            .is_empty()
    );
    assert!(example(&s, "question", &["q?"]).unwrap().answers.is_empty());
    assert_eq!(
        example(&s, "question", &[" "]),
        Err(RowProblem::EmptyField { field: "question" })
    );
    s.answers = Answers::Required;
    let e = example(&s, "question,answers", &["q?", "['a b', 'c']"]).unwrap();
    assert_eq!(e.answers, ["a b", "c"]);
    let dict = "{'text': ['a'], 'answer_start': [1]}";
    let error = example(&s, "question,answers", &["q?", dict]).unwrap_err();
    assert!(error.to_string().contains("a dict"), "{error}");
}

#[test]
fn a_row_of_a_mixed_file_says_its_task() {
    let mut s = spec(TaskKind::Saq, &[]);
    (s.by_row, s.answers) = (true, Answers::Optional);
    s.tasks = Some(Arc::new(Tasks::from([
        ("mcq".into(), Ok(TaskKind::Mcq)),
        ("saq".into(), Ok(TaskKind::Saq)),
        ("squad".into(), Ok(TaskKind::Saq)),
        ("chat".into(), Err("it has no questions".to_string())),
    ])));
    let kind = |header: &str, row: &[&str]| example(&s, header, row).map(|e| e.kind);
    let (mcq, saq) = (Ok(Some(TaskKind::Mcq)), Ok(Some(TaskKind::Saq)));
    assert_eq!(kind("question,options", &["q?", "x | y"]), mcq);
    assert_eq!(kind("question,options", &["q?", " "]), saq);
    assert_eq!(kind("question,A,B", &["q?", "x", "y"]), mcq);
    assert_eq!(kind("question", &["q?"]), saq);
    assert_eq!(kind("question,options,Task", &["q?", "x | y", "SAQ"]), saq);
    assert_eq!(
        kind("question,options,type", &["q?", "x | y", "bridge"]),
        mcq
    );
    assert_eq!(
        kind("question,options,task", &["q?", "", "mcq"]),
        Err(RowProblem::EmptyField { field: "options" })
    );
    let task = |name: &str| example(&s, "question,task", &["q?", name]).map(|e| e.task);
    assert_eq!(task(" SQuAD"), Ok(Some("squad".into())));
    assert_eq!(task(""), Ok(None));
    for (name, problem) in [
        ("xyz", "there is no such task"),
        ("chat", "it has no questions"),
    ] {
        let message = task(name).unwrap_err().to_string();
        assert!(message.contains(&format!("'{name}'")), "{message}");
        assert!(message.contains(problem), "{message}");
        assert!(message.contains("mcq, saq, squad"), "{message}");
    }
    s.columns
        .insert("options".to_string(), Some("opts".to_string()));
    assert!(Layout::new(&s, names("question,options"), 1).is_err());
}
