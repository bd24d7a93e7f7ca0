//! `run preview` from outside.

use crate::common::sandbox::Sandbox;

const SAQ: &str = "preview task=saq model.path=model data.path=saq.csv data.test_path=null";

#[test]
fn what_is_supervised_is_marked_and_counted() {
    let sandbox = Sandbox::new();
    // Neither weights nor the device of the run are needed.
    std::fs::remove_file(sandbox.path("model/model.safetensors")).unwrap();
    sandbox.write("one.csv", "question,answer\nWhat color is the sky ?,blue\n");
    let text = sandbox.ok(
        "preview task=saq model.path=model data.path=one.csv device=cuda:9 training.bf16=true \
         training.val_ratio=0 data.test_path=null",
    );
    let expected = "\
[[supervised]], the rest is masked; <<N tokens cut>>

example 1 (one.csv:2, training): 10 tokens, 2 supervised
  | What color is the sky ? Answer:[[ blue]]
  0:<s> 4:What 5:color 6:is 7:the 18:sky 8:? 3:Answer: [[26:blue]] [[1:</s>]]

examples    1 in one.csv
samples     1: 1 for training, 0 for validation
tokens      10: min 10, median 10, mean 10.0, max 10 a sample
supervised  2 tokens (20.0 %)
truncated   0 samples, 0 tokens, by training.max_seq_length=512 (longest: 10)
dropped     0 examples
";
    assert_eq!(text, expected);
    assert!(sandbox.runs().is_empty(), "a preview leaves no run");
}

#[test]
fn as_many_examples_as_asked_for_and_counts_as_training_has_them() {
    let sandbox = Sandbox::new();
    let shown = |args: &str| sandbox.ok(&format!("{SAQ} {args}"));
    let examples = |text: &str| text.lines().filter(|l| l.starts_with("example ")).count();
    assert_eq!(examples(&shown("")), 3);
    assert_eq!(examples(&shown("--examples 5")), 5);
    assert_eq!(examples(&shown("--examples 0")), 0);
    assert_eq!(examples(&shown("--examples 500")), 24);
    let text = shown("training.packing=true training.max_seq_length=40");
    assert!(
        text.contains("samples     24: 20 for training, 4 for validation"),
        "{text}"
    );
    assert!(
        text.contains("tokens      240: min 10, median 10,"),
        "{text}"
    );
    assert!(text.contains("supervised  48 tokens (20.0 %)"), "{text}");
    assert!(
        text.contains("packed      5 sequences of at most 40 tokens"),
        "{text}"
    );
    let run = sandbox.run(&format!("{SAQ} --examples x"));
    assert_eq!(run.code, Some(2));
}

#[test]
fn a_cut_is_shown_where_it_was_made() {
    let sandbox = Sandbox::new();
    sandbox.write("one.csv", "question,answer\nWhat color is the sky ?,blue\n");
    let text = sandbox.ok(
        "preview task=saq model.path=model data.path=one.csv training.max_seq_length=6 \
         data.test_path=null",
    );
    // BOS stays, and what stands next to the answer.
    let line = "  0:<s> <<4 tokens cut>> 18:sky 8:? 3:Answer: [[26:blue]] [[1:</s>]]\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("6 tokens, 2 supervised, 4 cut"), "{text}");
    assert!(text.contains("truncated   1 samples, 4 tokens,"), "{text}");
}

#[test]
fn a_set_without_supervised_tokens_is_shown_and_refused() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "masked.jsonl",
        "{\"input_ids\": [1, 2, 3], \"labels\": [1, -100, -100]}\n",
    );
    let run = sandbox.run("preview task=tokens model.path=model data.path=masked.jsonl");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("3 tokens, 0 supervised"), "{run:?}");
    assert!(run.stdout.contains("supervised  0 tokens"), "{run:?}");
    assert!(
        run.stderr
            .starts_with("error: masked.jsonl:1: no supervised token"),
        "{run:?}"
    );
    // The vocabulary is the model's, so a stray token is found before training.
    sandbox.write(
        "far.jsonl",
        "{\"input_ids\": [1, 999], \"labels\": [1, 999]}\n",
    );
    let run = sandbox.run("preview task=tokens model.path=model data.path=far.jsonl");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("999"), "{run:?}");
    let run = sandbox.run("preview model.path=model data.path=null");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("data.path=FILE"), "{run:?}");
}

#[test]
fn what_training_refuses_beside_the_set_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.csv", "question,answer\nWhat color is the sky ?,\n");
    let args = "task=saq model.path=model data.path=saq.csv";
    for (more, part) in [
        ("data.test_path=bad.csv", "bad.csv:2: "),
        (
            "data.test_path=null lora.target_modules=[q_prj]",
            "lora.target_modules: `q_prj` matches no module",
        ),
    ] {
        let run = sandbox.run(&format!("preview {args} {more}"));
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stdout.contains("examples    24 in saq.csv"), "{run:?}");
        assert!(run.stderr.contains(part), "{run:?}");
        let run = sandbox.run(&format!("train {args} {more} device=cpu"));
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains(part), "{run:?}");
    }
    sandbox.ok(&format!("preview {args} data.test_path=saq_test.csv"));
    // A set is looked at before there are questions for afterwards.
    let text = sandbox.ok(&format!("preview {args} data.test_path=none.csv"));
    assert!(
        text.contains("test        none.csv is not there: "),
        "{text}"
    );
    // Without an adapter its modules do not matter.
    let full = "method=full quantization=none lora.target_modules=[q_prj]";
    sandbox.ok(&format!("preview {args} data.test_path=null {full}"));
}

#[test]
fn the_pieces_of_a_document_are_held_out_together() {
    let sandbox = Sandbox::new();
    let words = ["What color is the sky ?", "blue"].concat();
    let text: Vec<String> = (1..=8).map(|n| vec![words.as_str(); n].join(" ")).collect();
    sandbox.write("docs.txt", &text.join("\n"));
    let args = "task=text model.path=model data.path=docs.txt training.max_seq_length=4 \
                training.val_ratio=0.3";
    let text = sandbox.ok(&format!("preview {args} --examples 8"));
    // (line of the file, side) of each sample.
    let sides = text.lines().filter_map(|line| {
        let (_, at) = line.strip_prefix("example ")?.split_once("docs.txt:")?;
        at.split_once("):")?.0.split_once(", ")
    });
    let sides: Vec<(&str, &str)> = sides.collect();
    assert!(sides.len() > 16, "{text}");
    let mut distinct = sides.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 8, "{text}");
    let held_out = |sides: &[(&str, &str)]| sides.iter().filter(|s| s.1 == "validation").count();
    assert_eq!(held_out(&distinct), 2, "{text}");
    let said = format!(
        "{} training and {} validation examples",
        sides.len() - held_out(&sides),
        held_out(&sides)
    );
    let run = sandbox.run(&format!(
        "train {args} model=tiny training.max_steps=1 device=cpu"
    ));
    assert!(
        run.stdout.contains(&said) || run.stderr.contains(&said),
        "{said}\n{}\n{}",
        run.stdout,
        run.stderr
    );
}
