//! Chats through the binary: conversations, questions by the chat template, and what
//! the adapter carries.

use crate::common::sandbox::{Sandbox, table};

const TEMPLATE: &str = "{{ bos_token }} {% for m in messages %}{{ m.role + ' Answer: ' + m.content + ' ' + eos_token + ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant Answer:' }}{% endif %}";

const CHAT: &str = "train task=chat model.path=model quantization=none training.max_steps=2 \
                    training.batch_size=2 training.gradient_accumulation_steps=1";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("model/chat_template.jinja", TEMPLATE);
    let (mut rows, mut list) = (String::new(), Vec::new());
    for (thing, color) in [
        ("sky", "blue"),
        ("grass", "green"),
        ("snow", "white"),
        ("coal", "black"),
    ] {
        let question = format!("What color is the {thing} ?");
        let row = serde_json::json!({"messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": color},
            {"role": "user", "content": "is the sun yellow ?"}, {"role": "assistant", "content": "no"}]});
        rows += &format!("{row}\n");
        list.push(serde_json::json!({"conversations": [
            {"from": "human", "value": question}, {"from": "gpt", "value": color},
            {"from": "human", "value": "is the sun yellow ?"}, {"from": "gpt", "value": "no"}]}));
    }
    sandbox.write("chat.jsonl", &rows);
    sandbox.write("share.json", &serde_json::to_string_pretty(&list).unwrap());
    sandbox
}

fn fails(sandbox: &Sandbox, args: &str, parts: &[&str]) {
    let finished = sandbox.run(args);
    assert_eq!(finished.code, Some(1), "{args}\n{finished:?}");
    for part in parts {
        assert!(
            finished.stderr.contains(part),
            "{args}: {part}\n{}",
            finished.stderr
        );
    }
    assert!(sandbox.runs().is_empty(), "{args}");
}

#[test]
fn conversations_train_and_the_adapter_carries_the_template() {
    let sandbox = sandbox();
    sandbox.ok(&format!("{CHAT} data.path=chat.jsonl hydra.run.dir=a"));
    assert_eq!(sandbox.read("a/adapter/chat_template.jinja"), TEMPLATE);
    assert!(
        sandbox
            .path("outputs/adapters/adapter_chat/chat_template.jinja")
            .exists()
    );
    // Three rows train, one validates: two turns each, a word and EOS.
    let (header, rows) = table(&sandbox.read("a/metrics.csv"));
    let at = |name: &str| header.iter().position(|h| h == name).unwrap();
    let supervised = |rows: &[Vec<String>]| -> Vec<String> {
        rows.iter()
            .map(|row| row[at("supervised_tokens")].clone())
            .collect()
    };
    assert_eq!(supervised(&rows), ["12", "4"], "{rows:?}");
    // ShareGPT's form as one JSON list is the same data, also where it is guessed.
    for (i, format) in ["", "data.format=null"].iter().enumerate() {
        let dir = format!("b{i}");
        sandbox.ok(&format!(
            "{CHAT} data.path=share.json {format} hydra.run.dir={dir}"
        ));
        let (_, same) = table(&sandbox.read(&format!("{dir}/metrics.csv")));
        assert_eq!(supervised(&same), supervised(&rows));
        assert_eq!(
            sandbox.bytes(&format!("{dir}/adapter/adapter_model.safetensors")),
            sandbox.bytes("a/adapter/adapter_model.safetensors")
        );
    }
}

#[test]
fn a_template_of_ones_own_takes_the_models_place() {
    let sandbox = sandbox();
    std::fs::remove_file(sandbox.path("model/chat_template.jinja")).unwrap();
    let chat = format!("{CHAT} data.path=chat.jsonl");
    fails(
        &sandbox,
        &chat,
        &[
            "model: the model has no chat template",
            "prompt.chat_template_file=FILE.jinja",
        ],
    );
    sandbox.write("own.jinja", TEMPLATE);
    sandbox.ok(&format!(
        "{chat} prompt.chat_template_file=own.jinja hydra.run.dir=a"
    ));
    assert_eq!(sandbox.read("a/adapter/chat_template.jinja"), TEMPLATE);
}

#[test]
fn questions_by_the_template_train_and_answer() {
    let sandbox = sandbox();
    let saq = "task=saq model.path=model data.test_path=saq_test.csv quantization=none \
               inference.max_new_tokens=3 prompt.chat_template=true prompt.template='{question}'";
    sandbox.ok(&format!(
        "train {saq} data.path=saq.csv training.max_steps=3 prompt.system=sky hydra.run.dir=a"
    ));
    let summary = sandbox.json("a/summary.json");
    assert_eq!(summary["status"], "finished");
    sandbox.ok(&format!(
        "infer {saq} prompt.system=sky adapter=a/adapter output=o.csv"
    ));
    let (_, rows) = table(&sandbox.read("o.csv"));
    assert_eq!(rows.len(), 7);
    assert_eq!(
        table(&sandbox.read("a/predictions.csv")).1,
        rows,
        "the same prompt after training and in infer"
    );
    let mcq = "train task=mcq model.path=model data.path=mcq.csv data.test_path=mcq_test.csv \
               quantization=none training.max_steps=2 prompt.chat_template=true hydra.run.dir=m";
    sandbox.ok(mcq);
    assert!(sandbox.json("m/summary.json")["metrics"]["tuned"]["accuracy"].is_number());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let sandbox = sandbox();
    let saq = "train task=saq model.path=model data.path=saq.csv data.test_path=null";
    fails(
        &sandbox,
        &format!("{saq} prompt.system=x"),
        &["`prompt.system` is set, but `prompt.chat_template` is false"],
    );
    fails(
        &sandbox,
        &format!("{saq} data.path=chat.jsonl data.format=chat"),
        &[
            "conversations have no single question and answer",
            "task=chat",
        ],
    );
    sandbox.write(
        "model/chat_template.jinja",
        "{% for x in range(90000) %}{% for y in range(90000) %}{{ x }}{% endfor %}{% endfor %}",
    );
    fails(
        &sandbox,
        &format!("{CHAT} data.path=chat.jsonl"),
        &[
            "chat.jsonl:1: model/chat_template.jinja, line 1 of the template",
            "does not come to an end",
        ],
    );
    sandbox.write(
        "model/chat_template.jinja",
        "{{ raise_exception('only one turn, please') }}",
    );
    fails(
        &sandbox,
        &format!("{CHAT} data.path=chat.jsonl"),
        &["chat.jsonl:1: the chat template refuses these messages: only one turn, please"],
    );
    sandbox.write("model/chat_template.jinja", "{% for %}");
    fails(
        &sandbox,
        &format!("{CHAT} data.path=chat.jsonl"),
        &["is not valid Jinja"],
    );
    // Not asked for, a broken template is in nobody's way.
    sandbox.ok(&format!(
        "{saq} training.max_steps=1 quantization=none hydra.run.dir=a"
    ));
}
