//! `run chat` from outside, with its questions through a pipe.

use crate::common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::sandbox::{Finished, Sandbox};

/// Roles and turns, so that the history shows in the prompt.
const TEMPLATE: &str = "{{ bos_token }} {% for m in messages %}{{ m.role + ' Answer: ' + m.content + ' ' + eos_token + ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant Answer:' }}{% endif %}";

/// Long answers that hang on the prompt and on chance.
const CHAT: &str = "chat --base model.path=model quantization=none inference.max_new_tokens=6 \
                    inference.do_sample=true inference.temperature=1.5";

fn chat(sandbox: &Sandbox, args: &str, typed: &str) -> Finished {
    let mut child = Command::new(env!("CARGO_BIN_EXE_run"))
        .args(args.split_whitespace())
        .current_dir(sandbox.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that fails early does not read.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let output = child.wait_with_output().unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn answers(sandbox: &Sandbox, args: &str, typed: &str) -> Vec<String> {
    let finished = chat(sandbox, args, typed);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout.lines().map(str::to_string).collect()
}

fn with_template() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("model/chat_template.jinja", TEMPLATE);
    sandbox
}

fn without_template() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.path("model/chat_template.jinja")).unwrap();
    sandbox
}

const SKY: &str = "What color is the sky ?\n";
const SUN: &str = "What color is the sun ?\n";

#[test]
fn the_conversation_so_far_counts_until_reset() {
    let sandbox = with_template();
    let talk = |typed: &str| answers(&sandbox, CHAT, typed);
    let both = talk(&format!("{SKY}{SUN}"));
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.iter().all(|answer| !answer.is_empty()), "{both:?}");
    assert_eq!(talk(&format!("{SKY}\n{SUN}")), both, "the same again");
    assert_ne!(
        answers(&sandbox, &format!("{CHAT} seed=3"), &format!("{SKY}{SUN}")),
        both
    );
    // The second answer hangs on the first turn; after /reset it is a first one.
    let anew = talk(&format!("{SKY}/reset\n{SUN}"));
    assert_eq!(anew[0], both[0]);
    assert_eq!(anew[1], talk(SUN)[0]);
    assert_ne!(anew[1], both[1]);
    // What follows /exit is not read; the last line needs no end.
    assert_eq!(talk(&format!("{SKY}/exit\n{SUN}")), both[..1]);
    assert_eq!(talk(SKY.trim_end()), both[..1]);
    assert!(talk("").is_empty());
    assert!(sandbox.runs().is_empty(), "a chat leaves no run");
}

/// How many tokens the prompt of a message has: too many for this limit.
fn prompt_tokens(sandbox: &Sandbox, args: &str, typed: &str) -> String {
    let args = format!("{CHAT} training.max_seq_length=2 {args}");
    let finished = chat(sandbox, &args, typed);
    assert_eq!(
        (finished.code, &finished.stdout[..]),
        (Some(0), ""),
        "{finished:?}"
    );
    let said = finished.stderr.split("alone takes ").nth(1).unwrap();
    said.split(' ').next().unwrap().to_string()
}

#[test]
fn a_system_message_is_part_of_the_prompt() {
    let sandbox = with_template();
    // BOS, the role and the cue before the question, EOS, and the next role and cue.
    assert_eq!(prompt_tokens(&sandbox, "", SKY), "12");
    let set = format!("/system no color\n{SKY}");
    assert_eq!(prompt_tokens(&sandbox, "", &set), "17");
    assert_eq!(
        prompt_tokens(
            &sandbox,
            "prompt.chat_template=true prompt.system=blue",
            SKY
        ),
        "16"
    );
    assert_eq!(
        prompt_tokens(
            &sandbox,
            "prompt.chat_template=true prompt.system=blue",
            &set
        ),
        "17"
    );
    let unset = format!("/system\n{SKY}");
    assert_eq!(
        prompt_tokens(
            &sandbox,
            "prompt.chat_template=true prompt.system=blue",
            &unset
        ),
        "12"
    );
    let finished = chat(&sandbox, CHAT, &format!("/fly\n{SKY}"));
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
    assert!(
        finished.stderr.contains("/fly is no command"),
        "{finished:?}"
    );
}

#[test]
fn what_was_said_takes_room_until_reset() {
    let sandbox = with_template();
    // Room for one message of 12 tokens, and none for a turn before it.
    let args = format!("{CHAT} training.max_seq_length=12");
    let cuts = |typed: &str| {
        let finished = chat(&sandbox, &args, typed);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stderr.matches("no longer fit").count()
    };
    assert_eq!(cuts(SKY), 0);
    assert_eq!(cuts(&format!("{SKY}{SUN}")), 1);
    assert_eq!(cuts(&format!("{SKY}/reset\n{SUN}")), 0);
}

#[test]
fn the_oldest_turns_go_when_the_prompt_grows_too_long() {
    let sandbox = with_template();
    // One turn takes 13 tokens with its answer's head, so the third message has room
    // for no earlier one, or not for all.
    let tight = format!("{CHAT} training.max_seq_length=20 inference.max_new_tokens=3");
    let finished = chat(&sandbox, &tight, &format!("{SKY}{SUN}{SKY}"));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stderr.contains("no longer fit and are left out"),
        "{finished:?}"
    );
    assert_eq!(finished.stdout.lines().count(), 3);
    // As if the dropped turn had never been; greedy, since chance counts turns.
    let greedy = "chat --base model.path=model quantization=none training.max_seq_length=20 \
                  inference.max_new_tokens=3";
    let cut = answers(&sandbox, greedy, &format!("{SKY}{SUN}"));
    let alone = answers(&sandbox, greedy, SUN);
    assert_eq!(cut[1], alone[0]);

    let long = "sky ".repeat(30) + "\n";
    let finished = chat(&sandbox, &tight, &format!("{long}{SKY}"));
    assert!(
        finished.stderr.contains("training.max_seq_length is 20"),
        "{finished:?}"
    );
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
}

#[test]
fn without_a_template_the_tasks_prompt_asks_each_question_alone() {
    let sandbox = without_template();
    sandbox.ok(
        "train task=saq model.path=model data.path=saq.csv data.test_path=saq_test.csv \
         training.learning_rate=1e-2 training.max_steps=8 inference.max_new_tokens=4",
    );
    let args = "task=saq model.path=model data.test_path=saq_test.csv inference.max_new_tokens=4 \
                inference.validation.enabled=false";
    let questions = sandbox.read("saq_test.csv");
    let typed: String = questions
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap().to_string() + "\n")
        .collect();
    // With the adapter, and with the base: the answers of eval and infer.
    sandbox.ok(&format!("infer {args} hydra.run.dir=tuned"));
    let column = |run: &str| -> Vec<String> {
        let (_, rows) = common::sandbox::table(&sandbox.read(&format!("{run}/predictions.csv")));
        rows.into_iter().map(|row| row[2].clone()).collect()
    };
    let tuned = answers(&sandbox, &format!("chat {args}"), &typed);
    assert_eq!(tuned, column("tuned"));
    let named = "adapter=outputs/adapters/adapter_saq";
    assert_eq!(
        answers(&sandbox, &format!("chat {args} {named}"), &typed),
        tuned
    );
    let base = answers(&sandbox, &format!("chat --base {args}"), &typed);
    assert_ne!(base, tuned);
    let finished = chat(&sandbox, &format!("chat {args}"), "/system x\n");
    assert!(
        finished.stderr.contains("needs a chat template"),
        "{finished:?}"
    );
    let mcq = "chat --base model.path=model inference.max_new_tokens=2";
    let finished = chat(
        &sandbox,
        mcq,
        &format!("{SKY}What is blue ? | sky | snow\n"),
    );
    assert!(
        finished.stderr.contains("needs its options"),
        "{finished:?}"
    );
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
}

#[test]
fn the_conversations_are_kept_where_output_says() {
    let sandbox = with_template();
    let typed = format!("/system no\n{SKY}{SUN}/reset\n{SUN}");
    let said = answers(&sandbox, &format!("{CHAT} output=kept/chat.jsonl"), &typed);
    let rows: Vec<serde_json::Value> = sandbox
        .read("kept/chat.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    let messages = rows[0]["messages"].as_array().unwrap();
    let role = |i: usize| messages[i]["role"].as_str().unwrap();
    assert_eq!((role(0), role(1), role(2)), ("system", "user", "assistant"));
    assert_eq!(messages[2]["content"], said[0].as_str());
    assert_eq!(messages[4]["content"], said[1].as_str());
    assert_eq!(rows[1]["messages"][2]["content"], said[2].as_str());
    // It is training data.
    sandbox.ok("preview task=chat model.path=model data.path=kept/chat.jsonl training.val_ratio=0");
}

#[test]
fn what_is_kept_shows_each_answer_under_its_system_message() {
    let sandbox = with_template();
    let typed = format!("{SKY}/system no\n{SUN}/system no\n{SKY}/system\n/system yes\n{SUN}");
    let said = answers(&sandbox, &format!("{CHAT} output=chat.jsonl"), &typed);
    let kept = sandbox.read("chat.jsonl");
    let kept: Vec<Vec<(String, String)>> = kept
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |m: &serde_json::Value, key: &str| m[key].as_str().unwrap().to_string();
            let messages = row["messages"].as_array().unwrap().iter();
            messages
                .map(|m| (text(m, "role"), text(m, "content")))
                .collect()
        })
        .collect();
    let talk = |system: Option<&str>, turns: &[(&str, &String)]| -> Vec<(String, String)> {
        let system = system.iter().map(|text| ("system", text.to_string()));
        let turns = turns.iter().flat_map(|(question, answer)| {
            let question = question.trim_end().to_string();
            [("user", question), ("assistant", (*answer).clone())]
        });
        system
            .chain(turns)
            .map(|(role, text)| (role.to_string(), text))
            .collect()
    };
    assert_eq!(
        kept,
        [
            talk(None, &[(SKY, &said[0])]),
            talk(Some("no"), &[(SUN, &said[1]), (SKY, &said[2])]),
            talk(Some("yes"), &[(SUN, &said[3])]),
        ]
    );
}

#[test]
fn what_cannot_be_chatted_with_is_refused() {
    let sandbox = with_template();
    for (args, what) in [
        ("chat model.path=model", "--base"),
        (
            "chat --base model.path=model adapter=x",
            "leave one of them out",
        ),
        ("chat --base model.path=nowhere", "nowhere"),
        (
            "chat --base model.path=model output=model",
            "is a directory",
        ),
        (
            "chat --base model.path=model mode=train",
            "meant for `run train`",
        ),
    ] {
        let finished = chat(&sandbox, args, SKY);
        assert_eq!(finished.code, Some(1), "{args}: {finished:?}");
        assert!(finished.stderr.contains(what), "{args}: {finished:?}");
        assert_eq!(finished.stdout, "");
    }
    sandbox.write("model/chat_template.jinja", "{% broken");
    let finished = chat(&sandbox, CHAT, SKY);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("chat_template.jinja"),
        "{finished:?}"
    );
}
