//! Templates against transformers' renderings; what is supervised; hostile templates.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ChatError, ChatTemplate, Conversation, conversation, frame, pieces, tags};

const CHATML: &str = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

#[derive(Deserialize)]
struct Cases {
    templates: HashMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Value>,
    tools: Value,
    prompt: bool,
    text: Option<String>,
}

/// The cases of the fixture, and of the file in `KILN_CHAT_CASES`: see
/// tests/python/chat_templates.py.
#[test]
fn as_transformers_renders() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_templates.json");
    let more = std::env::var_os("KILN_CHAT_CASES").map(Into::into);
    for path in [Some(fixture), more].into_iter().flatten() {
        let cases: Cases = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let templates: HashMap<&str, ChatTemplate> = cases
            .templates
            .iter()
            .map(|(name, source)| (name.as_str(), ChatTemplate::of(source).unwrap()))
            .collect();
        let (mut refused, mut wrong) = (0, 0);
        for case in &cases.cases {
            let template = &templates[case.template.as_str()];
            let got = template.render(&case.messages, &case.tools, case.prompt);
            match (&case.text, &got) {
                (Some(want), Ok(got)) if got.text == *want => {}
                (None, Err(_)) => refused += 1,
                _ => {
                    wrong += 1;
                    if wrong <= 8 {
                        println!(
                            "{}: {}\n want {:?}\n got  {got:?}",
                            case.template,
                            json!(case.messages),
                            case.text
                        );
                    }
                }
            }
        }
        let n = cases.cases.len();
        println!("{}: {n} renderings, {refused} refused", path.display());
        assert_eq!(wrong, 0, "of {n}");
        assert!(n > 30 && refused > 0 && refused < n);
    }
}

/// The chat texts that transformers made for the small reference models.
#[test]
fn the_reference_models_chats_and_their_tokens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/tiny");
    if !root.is_dir() {
        println!("skipped: the reference folder ../shared/reference is not here");
        return;
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let dir = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(dir.join("reference_tokenizer.json")) else {
            continue;
        };
        let want: Value = serde_json::from_slice(&bytes).unwrap();
        let template = ChatTemplate::load(&dir, None).unwrap().unwrap();
        let messages = want["messages"].as_array().unwrap();
        let whole = template.render(messages, &Value::Null, false).unwrap();
        assert_eq!(whole.text, want["chat_text"], "{}", dir.display());
        let asked = template.render(&messages[..1], &Value::Null, true).unwrap();
        assert_eq!(asked.text, want["chat_text_gen"], "{}", dir.display());
        let tokenizer = crate::data::Tokenizer::load(&dir).unwrap();
        let ids = tokenizer.encode(&whole.text, false).unwrap();
        assert_eq!(json!(ids), want["chat_ids"], "{}", dir.display());
        assert_eq!(tokenizer.encode_located(&whole.text).unwrap().ids, ids);
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

fn put(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn where_a_template_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let load = || ChatTemplate::load(dir, None);
    assert!(load().unwrap().is_none());
    let config = |template: Value| {
        let config =
            json!({"eos_token": {"content": "<e>"}, "bos_token": null, "chat_template": template});
        put(dir, "tokenizer_config.json", &config.to_string());
    };
    let shown = |tools: Value| {
        let template = load().unwrap().unwrap();
        template.render(&[], &tools, false).unwrap().text
    };
    config(json!("A{{ eos_token }}{{ bos_token }}"));
    assert_eq!(shown(Value::Null), "A<e>");
    config(json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]));
    assert_eq!(shown(Value::Null), "D");
    assert_eq!(shown(json!([{"name": "f"}])), "T");
    config(json!([{"name": "rag", "template": "R"}]));
    let error = load().unwrap_err().to_string();
    assert!(error.contains("named 'default' (it has rag)"), "{error}");
    config(json!([{"name": "rag"}]));
    assert!(matches!(load(), Err(ChatError::Bad { .. })));
    config(json!("{% if %}"));
    let error = load().unwrap_err().to_string();
    assert!(
        error.contains(
            "tokenizer_config.json, line 1 of the template: the chat template is not valid Jinja"
        ),
        "{error}"
    );
    // The file of its own wins, and one that the config names wins over that.
    put(dir, "chat_template.jinja", "J{{ eos_token }}\n");
    assert_eq!(shown(Value::Null), "J<e>");
    put(dir, "own.jinja", "O");
    let own = ChatTemplate::load(dir, Some(&dir.join("own.jinja")));
    assert_eq!(own.unwrap().unwrap().source(), "O");
    let missing = ChatTemplate::load(dir, Some(&dir.join("none.jinja"))).unwrap_err();
    assert!(
        missing.to_string().contains("none.jinja: cannot read"),
        "{missing}"
    );
    put(dir, "chat_template.jinja", &"x".repeat(2 << 20));
    assert!(
        load()
            .unwrap_err()
            .to_string()
            .contains("too many for a chat template")
    );
}

#[test]
fn all_that_a_text_depends_on_is_in_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let config = |tool: &str, bos: &str| {
        let templates =
            json!([{"name": "default", "template": "a"}, {"name": "tool_use", "template": tool}]);
        let config = json!({"chat_template": templates, "bos_token": bos});
        put(dir.path(), "tokenizer_config.json", &config.to_string());
        let template = ChatTemplate::load(dir.path(), None).unwrap().unwrap();
        template.settings()
    };
    let one = config("b", "<s>");
    assert_eq!(one, config("b", "<s>"));
    assert_ne!(one, config("c", "<s>"));
    assert_ne!(one, config("b", "<S>"));
    let dated = config("{{ strftime_now('%d') }}", "<s>");
    let today = chrono::Local::now().date_naive().to_string();
    assert!(dated.contains(&today) && !one.contains(&today));
    // Jinja reads line ends as one character.
    put(dir.path(), "chat_template.jinja", "a\r\nb\rc");
    let template = ChatTemplate::load(dir.path(), None).unwrap().unwrap();
    let text = template.render(&[], &Value::Null, false).unwrap().text;
    assert_eq!(text, "a\nb\nc");
}

#[test]
fn a_refusal_says_what_the_template_says() {
    let template =
        ChatTemplate::of("\n{{ raise_exception('Roles must ' ~ 'alternate') }}").unwrap();
    let error = template.render(&[], &Value::Null, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template refuses these messages: Roles must alternate (t.jinja)"
    );
    let template = ChatTemplate::of("\n{{ messages[0].role.x }}").unwrap();
    let error = template.render(&[], &Value::Null, false).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("t.jinja, line 2 of the template: the chat template fails"),
        "{text}"
    );
    let template = ChatTemplate::of("{{ strftime_now('%Y %Q!') }}").unwrap();
    assert!(template.render(&[], &Value::Null, false).is_err());
    let template = ChatTemplate::of("{{ strftime_now('%Y')|int > 2000 }}").unwrap();
    assert_eq!(
        template.render(&[], &Value::Null, false).unwrap().text,
        "True"
    );
}

/// Each of these would run for ever or take all memory.
#[test]
fn hostile_templates_end_in_an_error() {
    let double = |grow: &str| {
        format!(
            "{{% set ns = namespace(x='aaaaaaaa') %}}{{% for i in range(90) %}}{{% set ns.x = {grow} %}}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    let lists = |end: &str| {
        format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(90) %}}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{end}"
        )
    };
    let mut sources = vec![
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}".to_string(),
        "{% for a in range(1000000000000) %}x{% endfor %}".to_string(),
        "{{ 'a' * 100000000000 }}".to_string(),
        "{{ ['a'] * 100000000000 }}".to_string(),
        "{{ range(100000000000) | list }}".to_string(),
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".to_string(),
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='ab') %}{% for i in range(90) %}{% set ns.x = m(ns.x) %}{% endfor %}".to_string(),
        "{{ '{:999999999999}'.format('a') }}".to_string(),
        "{{ '{:{}}'.format('a', 999999999999) }}".to_string(),
        "{{ '%999999999999s' | format('a') }}".to_string(),
        "{{ 'a' | indent(99999999999) }}".to_string(),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        "{% if 1 %}".repeat(20_000),
        format!("{{{{ {}x.y.z }}}}", "not ".repeat(5_000)),
        format!("{{{{ {}x.y.z }}}}", "-".repeat(15_000)),
        format!("{{{{ x.y{} }}}}", "+1".repeat(7_900)),
        format!("{{{{ x{} }}}}", ".y".repeat(7_900)),
        format!("{{{{ x.y{} }}}}", "|trim".repeat(3_000)),
        format!("{{% if 0 %}}{}{{% else %}}{{{{ x.y }}}}{{% endif %}}", "{% elif 0 %}".repeat(9_000)),
        format!("{{{{ x.y{} }}}}", "+1".repeat(400_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(90_000)),
    ];
    sources.extend(
        [
            "ns.x ~ ns.x",
            "ns.x + ns.x",
            "ns.x * 9",
            "ns.x.replace('a', 'aaaa')",
            "ns.x | replace('a', 'aaaa')",
            "ns.x.join([ns.x, ns.x])",
            "[ns.x, ns.x] | join",
            "'{0}{0}{0}'.format(ns.x)",
            "'%s%s' | format(ns.x, ns.x)",
        ]
        .map(double),
    );
    sources.extend(
        [
            "{{ ns.x }}",
            "{{ ns.x | tojson }}",
            "{{ ns.x | string }}",
            "{{ ns.x | pprint }}",
            "{{ ns.x | join('') }}",
            "{{ ''.join(ns.x) }}",
            "{{ '{}'.format(ns.x) }}",
        ]
        .map(lists),
    );
    // As deep as a worker thread's stack allows, not the main thread's.
    for source in sources {
        let name: String = source.chars().take(120).collect();
        println!("{name}");
        let began = Instant::now();
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let outcome = thread.spawn(move || {
            let template = ChatTemplate::of(&source)?;
            template.render(&[], &Value::Null, false)
        });
        let error = outcome.unwrap().join().unwrap().unwrap_err();
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{name}: {:?}",
            began.elapsed()
        );
        assert!(error.to_string().starts_with("t.jinja"), "{name}: {error}");
    }
}

#[test]
fn generation_tags_become_a_block_of_ours() {
    let (out, found) = tags::replace_generation(
        "{# {% generation %} #}{{ '{% generation %}' }}{% raw %}{% generation %}{{{% endraw %}{%- generation -%}x{%+ endgeneration %}{",
    )
    .unwrap();
    assert!(found);
    assert_eq!(
        out,
        "{# {% generation %} #}{{ '{% generation %}' }}{% raw %}{% generation %}{{{% endraw %}{%- filter kiln_assistant -%}x{%+ endfilter %}{"
    );
    assert_eq!(tags::replace_generation("{{ a").unwrap().0, "{{ a");
    // A raw block is read once, whatever its text looks like.
    let began = Instant::now();
    for end in ["", "}}", "{%-endraw +%}"] {
        let source = format!("{{% raw %}}{}{end}", "{{".repeat(100_000));
        assert!(tags::replace_generation(&source).unwrap().0 == source);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!tags::replace_generation("{% generations %}").unwrap().1);
    // Long texts are no code.
    let long = format!("{{{{ '{}' }}}}", "x".repeat(100_000));
    assert!(tags::replace_generation(&long).is_ok());
}

fn chat(turns: &[(&str, &str)]) -> Conversation {
    Conversation {
        messages: turns.iter().map(|(r, c)| super::message(r, c)).collect(),
        tools: Value::Null,
    }
}

/// The supervised texts of each piece.
fn learned(source: &str, turns: &[(&str, &str)]) -> Vec<Vec<String>> {
    let template = ChatTemplate::of(source).unwrap();
    let pieces = pieces(&template, &chat(turns)).unwrap();
    let spans = |p: &super::Piece| {
        p.spans
            .iter()
            .map(|s| p.text[s.clone()].to_string())
            .collect()
    };
    pieces.iter().map(spans).collect()
}

const TURNS: [(&str, &str); 6] = [
    ("system", "S"),
    ("user", "a"),
    ("assistant", "one"),
    ("user", "b"),
    ("assistant", "two"),
    ("user", "c"),
];

#[test]
fn every_assistant_turn_is_supervised_with_its_end() {
    assert_eq!(learned(CHATML, &TURNS), [["one</s>\n", "two</s>\n"]]);
    // A template without a generation prompt: the role is no part of the answer.
    let bare = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}";
    assert_eq!(learned(bare, &TURNS), [["one</s>", "two</s>"]]);
    // The blank before an answer belongs to the answer.
    let blank = "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + ' A:' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}";
    assert_eq!(learned(blank, &TURNS[1..]), [[" one</s>", " two</s>"]]);
    // An empty thought before every answer is the template's own.
    let thought = CHATML.replace(
        "m.content +",
        "('<think></think>' if m.role == 'assistant' else '') + m.content +",
    );
    assert_eq!(learned(&thought, &TURNS), [["one</s>\n", "two</s>\n"]]);
    // One with thoughts of its own learns their opening tag too.
    let own = CHATML.replace(
        "m.content +",
        "('<think>' + m.t|default('') + '</think>' if m.role == 'assistant' else '') + m.content +",
    );
    let template = ChatTemplate::of(&own).unwrap();
    let mut talk = chat(&TURNS[1..3]);
    talk.messages[1]["t"] = json!("hm");
    let piece = &pieces(&template, &talk).unwrap()[0];
    let learnt = &piece.text[piece.spans[0].clone()];
    assert_eq!(learnt, "<think>hm</think>one</s>\n");
    // A conversation that an assistant begins.
    assert_eq!(learned(CHATML, &TURNS[2..5]), [["one</s>\n", "two</s>\n"]]);
}

#[test]
fn a_history_shown_differently_makes_samples_of_its_own() {
    let source = "{% for m in messages %}{% set c = m.content if loop.last or m.role == 'user' else m.content.split('</t>')[-1] %}{{ '<|' + m.role + '|>' + c + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
    let turns = [
        ("user", "a"),
        ("assistant", "<t>x</t>one"),
        ("user", "b"),
        ("assistant", "two"),
    ];
    assert_eq!(learned(source, &turns), [["<t>x</t>one</s>"], ["two</s>"]]);
}

#[test]
fn generation_blocks_say_what_is_supervised() {
    let source = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    assert_eq!(learned(source, &TURNS), [["one</s>", "two</s>"]]);
}

#[test]
fn the_frame_of_an_answer() {
    let template = ChatTemplate::of(CHATML).unwrap();
    let got = frame(&template, &[super::message("user", "a")], &Value::Null).unwrap();
    let want = ["<|user|>a</s>\n<|assistant|>", "", "</s>\n"];
    assert_eq!([got.prompt.as_str(), &got.gap, &got.end], want);
    let refuses = ChatTemplate::of("{{ raise_exception('no') }}").unwrap();
    assert!(frame(&refuses, &[], &Value::Null).is_err());
}

fn row(value: Value) -> Result<Conversation, String> {
    let map: Map<String, Value> = serde_json::from_value(value).unwrap();
    conversation(&map).unwrap().map_err(|e| e.to_string())
}

#[test]
fn both_forms_of_rows_read_the_same() {
    let want = chat(&TURNS[..3]);
    assert_eq!(row(json!({"messages": want.messages})), Ok(want.clone()));
    let turns = json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "one"}]);
    assert_eq!(
        row(json!({"conversations": turns, "system": "S"})),
        Ok(want.clone())
    );
    assert_eq!(row(json!({"conversations": want.messages})), Ok(want));
    assert!(conversation(&Map::new()).is_none());
    // Parquet gives every message every key; thoughts go by three names.
    let filled = json!({"messages": [{"role": "system", "content": "S", "tool_calls": null},
        {"role": "user", "content": "a", "x": null},
        {"role": "assistant", "content": "one", "reasoning": "t", "thinking": null}]});
    let mut thought = chat(&TURNS[..3]);
    for key in ["reasoning", "thinking", "reasoning_content"] {
        thought.messages[2][key] = json!("t");
    }
    assert_eq!(row(filled), Ok(thought));
    let given = json!({"messages": chat(&TURNS).messages, "tools": "[]"});
    assert_eq!(row(given).unwrap().tools, Value::Null);
    let tools = json!([{"name": "f"}]);
    let given = json!({"messages": chat(&TURNS).messages, "tools": tools.to_string()});
    assert_eq!(row(given).unwrap().tools, tools);
}

#[test]
fn broken_rows_say_what_is_wrong() {
    let answer = json!({"role": "assistant", "content": "b"});
    for (messages, want) in [
        (
            json!([{"role": "user", "content": "a"}]),
            "no message of an assistant",
        ),
        (json!([]), "no message of an assistant"),
        (json!([1, answer]), "message 1: is not an object"),
        (json!([{"content": "a"}, answer]), "message 1: no role"),
        (json!([answer, {"role": "user"}]), "message 2: no content"),
        (
            json!([{"role": "user", "content": 3}, answer]),
            "neither text nor a list",
        ),
        (
            json!([{"role": "assistant", "content": " "}]),
            "content is empty",
        ),
    ] {
        let error = row(json!({"messages": messages})).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    let error = row(json!({"conversations": [{"from": "alien", "value": "x"}]})).unwrap_err();
    assert!(
        error.contains("from 'alien' is no known speaker"),
        "{error}"
    );
    let error = row(json!({"messages": [answer], "tools": "["})).unwrap_err();
    assert!(error.contains("tools is not JSON"), "{error}");
}
