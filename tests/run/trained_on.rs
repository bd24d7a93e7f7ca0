//! What an adapter brings from its training: how its base was stored, its prompt, its chat template.

use crate::common::sandbox::Sandbox;

const TEMPLATE: &str = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}\
                        {% if add_generation_prompt %}[assistant] {% endif %}";

#[test]
fn an_adapter_is_asked_as_it_was_trained_or_the_log_says_so() {
    let sandbox = Sandbox::new();
    sandbox.write("t.jinja", TEMPLATE);
    let train = "train task=saq model.path=model data.path=saq.csv data.test_path=null \
                 training.max_steps=2 training.batch_size=2 quantization=none \
                 prompt.chat_template=true prompt.chat_template_file=t.jinja";
    sandbox.ok(&format!("{train} hydra.run.dir=run"));

    // A run may be named for its adapter.
    let eval = "eval task=saq model.path=model adapter=run data.test_path=saq_test.csv \
                inference.max_new_tokens=2";
    let told = sandbox.ok(eval);
    for part in [
        "adapter run/adapter was trained with quantization.method=none, here nf4; ",
        "prompt.chat_template=true, here false",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    // The base has no template: it is the adapter's.
    let told = sandbox.ok(&format!(
        "{eval} quantization=none prompt.chat_template=true"
    ));
    assert!(!told.contains("was trained with"), "{told}");
    let infer = eval.replacen("eval", "infer", 1);
    let told = sandbox.ok(&format!(
        "{infer} quantization=none prompt.chat_template=true"
    ));
    assert!(!told.contains("was trained with"), "{told}");

    // Of the base alone nothing was trained.
    sandbox.ok("train task=saq model.path=model data.path=saq.csv data.test_path=null training.max_steps=1");
    let alone = eval.replacen("eval", "eval --base", 1);
    let told = sandbox.ok(&alone.replace("adapter=run ", ""));
    assert!(told.contains("no adapter: the base alone"), "{told}");
    let refused = sandbox.run(&alone);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("--base takes no adapter"),
        "{refused:?}"
    );

    let merge = "merge model.path=model adapter=run";
    let refused = sandbox.run(&format!("{merge} output=merged.gguf"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("export.format=gguf"), "{refused:?}");
    sandbox.ok(&format!("{merge} output=merged"));
    assert_eq!(sandbox.read("merged/chat_template.jinja"), TEMPLATE);

    let told = sandbox.ok(&format!("{train} training.resume=run training.max_steps=4"));
    for part in [
        "run is finished; nothing to do",
        "not done, since the run is finished: training.max_steps: 2 -> 4",
        "lora.init_from=run/adapter",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}
