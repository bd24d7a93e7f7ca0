//! Adapters: round trips, PEFT's own files, and everything that must be refused.

use std::fs;

use serde_json::{Value, json};

use super::*;

fn arch() -> ArchConfig {
    let text = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1}"#;
    ArchConfig::from_json(text, Path::new("config.json")).unwrap()
}

fn config(targets: &[&str]) -> AdapterConfig {
    AdapterConfig {
        base_model_name_or_path: Some("data/models/tiny".into()),
        r: 4,
        lora_alpha: 8.0,
        ranks: Default::default(),
        alphas: Default::default(),
        lora_dropout: 0.05,
        target_modules: targets.iter().map(|name| name.to_string()).collect(),
        use_rslora: false,
        use_dora: false,
        fan_in_fan_out: false,
        init_lora_weights: Default::default(),
    }
}

fn adapter(targets: &[&str]) -> Adapter {
    let mut adapter = Adapter::initial(config(targets), &arch(), 1).unwrap();
    for (i, module) in adapter.modules.iter_mut().enumerate() {
        module.b.fill(0.5 + i as f32);
    }
    adapter
}

/// Reads an adapter whose configuration was edited.
fn read_edited(edit: Value) -> Result<Adapter, PeftError> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("a");
    adapter(&["q_proj"]).write(&target).unwrap();
    let file = target.join(CONFIG_FILE);
    let mut object: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for (key, value) in edit.as_object().unwrap() {
        object[key] = value.clone();
    }
    fs::write(&file, object.to_string()).unwrap();
    Adapter::read(&target, &arch())
}

fn reference(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

#[test]
fn the_start_leaves_the_base_as_it_is() {
    let adapter = Adapter::initial(config(&["q_proj", "down_proj"]), &arch(), 1).unwrap();
    let names: Vec<&str> = adapter.modules.iter().map(|m| m.module.as_str()).collect();
    assert_eq!(
        names,
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.mlp.down_proj",
        ]
    );
    let down = &adapter.modules[1];
    assert_eq!((down.in_features, down.out_features), (12, 8));
    assert_eq!((down.a.len(), down.b.len()), (48, 32));
    for module in &adapter.modules {
        assert!(module.b.iter().all(|v| *v == 0.0));
        let bound = 1.0 / (module.in_features as f32).sqrt();
        assert!(module.a.iter().any(|v| *v != 0.0));
        assert!(module.a.iter().all(|v| v.abs() <= bound));
    }
    assert_eq!(adapter.num_parameters(), 2 * (32 + 32 + 48 + 32));
}

#[test]
fn scaling_follows_rslora() {
    let mut config = config(&["q_proj"]);
    assert_eq!(config.scaling("x"), 2.0);
    config.use_rslora = true;
    assert_eq!(config.scaling("x"), 4.0);
    config.ranks.insert("y".into(), 16);
    config.alphas.insert("y".into(), 2.0);
    assert_eq!((config.scaling("x"), config.scaling("y")), (4.0, 0.5));
}

#[test]
fn modules_may_have_ranks_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let mut adapter = adapter(&["v_proj", "up_proj"]);
    let own = [
        ("model.layers.1.mlp.up_proj", 3),
        ("model.layers.0.self_attn.v_proj", 7),
    ];
    for (name, r) in own {
        let module = adapter
            .modules
            .iter_mut()
            .find(|m| m.module == name)
            .unwrap();
        module.r = r;
        module.a = (0..r * module.in_features).map(|i| i as f32).collect();
        module.b = (0..r * module.out_features).map(|i| -(i as f32)).collect();
        adapter.config.ranks.insert(name.into(), r);
    }
    adapter.config.alphas.insert(own[0].0.into(), 2.5);
    adapter.write(&one).unwrap();
    assert_eq!(Adapter::read(&one, &arch()).unwrap(), adapter);

    // As PEFT's users write it: patterns, of which the first that matches counts.
    let file = one.join(CONFIG_FILE);
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        edit(&mut value);
        fs::write(&file, value.to_string()).unwrap();
        Adapter::read(&one, &arch())
    };
    let read = edited(&|value| {
        value["rank_pattern"] = json!({"layers.1.mlp.up_proj": 3, "0.self_attn.(q|v)_proj": 7,
            ".*v_proj": 4});
        value["alpha_pattern"] = json!({"1.mlp.up_proj": 2.5, "v_proj": 8});
    });
    assert_eq!(read.unwrap(), adapter);
    adapter.write(&two).unwrap();
    assert_eq!(Adapter::read(&two, &arch()).unwrap(), adapter);
    let read = edited(&|value| value["rank_pattern"] = json!({"up_proj": 3}));
    let text = read.unwrap_err().to_string();
    assert!(
        text.contains("`model.layers.0.self_attn.v_proj` has lora_A of rank 7; adapter_config.json beside it says 4"),
        "{text}"
    );
}

#[test]
fn some_layers_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut adapter = adapter(&["q_proj"]);
    adapter.modules.retain(|m| m.module.contains("layers.1"));
    adapter.write(dir.path()).unwrap();
    let file = dir.path().join(CONFIG_FILE);
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    value["layers_to_transform"] = json!([1]);
    fs::write(&file, value.to_string()).unwrap();
    let read = Adapter::read(dir.path(), &arch()).unwrap();
    assert_eq!(read.modules, adapter.modules);
    // Written with names that need no list of layers.
    assert_eq!(
        read.config.target_modules,
        ["model.layers.1.self_attn.q_proj"]
    );
    // Matrices of other layers are in vain, and of those there must be some.
    let mut rewritten = |layers: Value| {
        let dir = tempfile::tempdir().unwrap();
        self::adapter(&["q_proj"]).write(dir.path()).unwrap();
        value["layers_to_transform"] = layers;
        fs::write(dir.path().join(CONFIG_FILE), value.to_string()).unwrap();
        Adapter::read(dir.path(), &arch())
    };
    let read = rewritten(json!(1)).unwrap();
    assert_eq!(read.modules, adapter.modules);
    assert!(
        read.note()
            .unwrap()
            .contains("model.layers.0.self_attn.q_proj")
    );
    let text = rewritten(json!([7])).unwrap_err().to_string();
    assert!(text.contains("holds no matrices of the modules"), "{text}");
}

#[test]
fn written_adapters_read_back_with_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let adapter = adapter(&["v_proj", "up_proj"]);
    adapter.write(&one).unwrap();
    let read = Adapter::read(&one, &arch()).unwrap();
    assert_eq!(read, adapter);
    read.write(&two).unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        let bytes = |dir: &Path| fs::read(dir.join(file)).unwrap();
        assert_eq!(bytes(&one), bytes(&two), "{file}");
    }
}

#[test]
fn an_older_adapter_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("adapter");
    adapter(&["q_proj"]).write(&target).unwrap();
    adapter(&["k_proj"]).write(&target).unwrap();
    let read = Adapter::read(&target, &arch()).unwrap();
    assert_eq!(read.config.target_modules, ["k_proj"]);
    let mine = dir.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.txt"), "x").unwrap();
    let text = adapter(&["q_proj"]).write(&mine).unwrap_err().to_string();
    assert!(text.contains("other than an adapter"), "{text}");
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!((left, fs::read_dir(&mine).unwrap().count()), (2, 1));
}

#[test]
fn targets_resolve_as_in_peft() {
    let resolve = |targets: TargetModules| resolve_targets(&targets, &arch());
    let list = |names: &[&str]| TargetModules::List(names.iter().map(|n| n.to_string()).collect());
    assert_eq!(
        resolve(TargetModules::Named("all-linear".into()))
            .unwrap()
            .len(),
        14
    );
    assert_eq!(resolve(list(&["all-linear"])).unwrap().len(), 14);
    assert_eq!(
        resolve(TargetModules::Named("q_proj".into()))
            .unwrap()
            .len(),
        2
    );
    assert_eq!(resolve(list(&["mlp.up_proj", "o_proj"])).unwrap().len(), 4);
    let whole = resolve(list(&["model.layers.1.self_attn.k_proj"])).unwrap();
    assert_eq!((whole.len(), whole[0].out_features), (1, 4));
    let text = resolve(list(&["q_proj", "proj"])).unwrap_err().to_string();
    assert!(
        text.contains("`proj` matches no module") && text.contains("q_proj, k_proj, v_proj"),
        "{text}"
    );
    assert!(resolve(list(&["lm_head"])).is_err());
    assert!(resolve(list(&[""])).is_err());
    assert!(matches!(resolve(list(&[])), Err(PeftError::NoTargets)));
}

#[test]
fn what_is_not_supported_is_named() {
    assert!(read_edited(json!({"some_new_field": {"x": 1}})).is_ok());
    for (edit, part) in [
        (json!({"peft_type": "IA3"}), "`peft_type` is IA3"),
        (json!({"peft_type": null}), "`peft_type` is missing"),
        (
            json!({"use_dora": true}),
            "lora_magnitude_vector` is missing",
        ),
        (json!({"bias": "all"}), "`bias` is `all`"),
        (json!({"modules_to_save": ["lm_head"]}), "`modules_to_save`"),
        (
            json!({"rank_pattern": [2]}),
            "`rank_pattern` must be an object",
        ),
        (
            json!({"rank_pattern": {"q_proj": 0}}),
            "gives `q_proj` 0, which must be a whole",
        ),
        (
            json!({"alpha_pattern": {"q(": 2}}),
            "has `q(`, which is no regular",
        ),
        (
            json!({"init_lora_weights": "pissa"}),
            "changes the base weights",
        ),
        (json!({"r": 0}), "`r` must be"),
        (json!({"lora_alpha": "x"}), "`lora_alpha` is \"x\""),
        (json!({"target_modules": 3}), "`target_modules` is 3"),
        (
            json!({"target_modules": ["q_proj", "v_proj"]}),
            "no matrices for `model.layers.0.self_attn.v_proj`",
        ),
    ] {
        let text = read_edited(edit).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

/// Writes the tensors of an adapter anew: its own, and ones of these names.
fn with_tensors(dir: &Path, names: &[&str]) {
    adapter(&["q_proj"]).write(dir).unwrap();
    let file = dir.join(WEIGHTS_FILE);
    let own = Checkpoint::open_single(&file).unwrap();
    let held: Vec<Parameter> = own
        .names()
        .map(|name| Parameter {
            name: name.into(),
            shape: own.shape(name).unwrap().to_vec(),
        })
        .collect();
    let more = names.iter().map(|name| Parameter {
        name: format!("{KEY_PREFIX}{name}"),
        shape: vec![4, 8],
    });
    let all: Vec<Parameter> = held.into_iter().chain(more).collect();
    drop(own);
    write_safetensors(&file, all, WeightType::F32, |p| {
        Ok::<_, ExportError>(vec![0.5; p.numel()].into())
    })
    .unwrap();
}

#[test]
fn other_tensors_are_called_what_they_are() {
    for (name, part) in [
        (
            "lm_head.lora_A.weight",
            "is LoRA on the output projection, which cannot be read: train without `lm_head`",
        ),
        (
            "model.embed_tokens.lora_embedding_A",
            "is LoRA on the embedding, which cannot be read: train without `embed_tokens`",
        ),
        (
            "model.embed_tokens.weight",
            "is a whole matrix of the embedding or the output projection",
        ),
        (
            "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
            "is a length of DoRA's",
        ),
        (
            "model.layers.0.self_attn.q_proj.lora_B.bias",
            "is a bias on a LoRA matrix",
        ),
        ("model.norm.weight", "is no LoRA matrix"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        with_tensors(dir.path(), &[name]);
        let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(part), "{text}");
    }
}

#[test]
fn matrices_that_are_no_targets_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let module = "model.layers.1.self_attn.o_proj";
    let names = ["A", "B"].map(|m| format!("{module}.lora_{m}.weight"));
    with_tensors(dir.path(), &[&names[0]]);
    // Whole or not, as for any module.
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(text.contains("o_proj` has no lora_B"), "{text}");
    adapter(&["q_proj", "o_proj"]).write(dir.path()).unwrap();
    let file = dir.path().join(CONFIG_FILE);
    let text = fs::read_to_string(&file).unwrap();
    let mut object: Value = serde_json::from_str(&text).unwrap();
    object["target_modules"] = json!(["q_proj"]);
    fs::write(&file, object.to_string()).unwrap();
    let read = Adapter::read(dir.path(), &arch()).unwrap();
    assert_eq!(read.modules.len(), 2);
    assert_eq!(read.left_out, ["model.layers.0.self_attn.o_proj", module]);
    let note = read.note().unwrap();
    assert!(
        note.contains("layers.0.self_attn.o_proj` and 1 more"),
        "{note}"
    );
    object["target_modules"] = json!(["lm_head"]);
    fs::write(&file, object.to_string()).unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(text.contains("no matrices of the modules"), "{text}");
}

#[test]
fn a_missing_rank_is_that_of_peft() {
    let text = read_edited(json!({"r": null})).unwrap_err().to_string();
    assert!(
        text.contains("lora_A of rank 4; adapter_config.json beside it says 8"),
        "{text}"
    );
}

#[test]
fn a_pattern_of_targets_becomes_names() {
    let read = read_edited(json!({"target_modules": ".*q_proj"})).unwrap();
    assert_eq!(read.config.target_modules, ["q_proj"]);
    let dir = tempfile::tempdir().unwrap();
    let path = "model.layers.1.self_attn.q_proj";
    adapter(&[path]).write(dir.path()).unwrap();
    let file = dir.path().join(CONFIG_FILE);
    let text = fs::read_to_string(&file).unwrap();
    let start = text.find("\"target_modules\"").unwrap();
    let end = start + text[start..].find(']').unwrap() + 1;
    let edited = format!(
        "{}\"target_modules\": \"x\"{}",
        &text[..start],
        &text[end..]
    );
    fs::write(&file, edited).unwrap();
    let read = Adapter::read(dir.path(), &arch()).unwrap();
    assert_eq!(read.config.target_modules, [path]);
}

#[test]
fn an_adapter_that_does_not_fit_is_named_with_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    adapter(&["q_proj", "down_proj"]).write(dir.path()).unwrap();
    let mut wide = arch();
    wide.intermediate_size = 16;
    let text = Adapter::read(dir.path(), &wide).unwrap_err().to_string();
    assert!(
        text.contains("`model.layers.0.mlp.down_proj` has lora_A of shape [4, 12]")
            && text.contains("[4, 16]"),
        "{text}"
    );
    let mut shallow = arch();
    shallow.num_layers = 1;
    let text = Adapter::read(dir.path(), &shallow).unwrap_err().to_string();
    assert!(
        text.contains("no module `model.layers.1.mlp.down_proj`"),
        "{text}"
    );
    let text = read_edited(json!({"r": 2})).unwrap_err().to_string();
    assert!(
        text.contains("lora_A of rank 4; adapter_config.json beside it says 2"),
        "{text}"
    );
}

#[test]
fn incomplete_directories_say_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(
        text.contains(CONFIG_FILE) && text.contains("PEFT adapter directory"),
        "{text}"
    );
    adapter(&["q_proj"]).write(dir.path()).unwrap();
    let weights = dir.path().join(WEIGHTS_FILE);
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 4]).unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(text.contains("not a whole safetensors file"), "{text}");
    fs::remove_file(&weights).unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(text.contains(WEIGHTS_FILE), "{text}");
    fs::write(dir.path().join("adapter_model.bin"), "").unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(text.contains("adapter_model.bin: is a pickle"), "{text}");
    fs::write(dir.path().join(CONFIG_FILE), "{\n").unwrap();
    let text = Adapter::read(dir.path(), &arch()).unwrap_err().to_string();
    assert!(
        text.contains("adapter_config.json:2: not valid JSON"),
        "{text}"
    );
}

#[test]
fn adapters_of_peft_round_trip_byte_for_byte() {
    let Some(base) = reference("tiny/llama_untied") else {
        return;
    };
    let arch = ArchConfig::from_dir(&base).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for run in ["lora", "lora_rslora", "lora_dora", "qlora"] {
        for stage in ["adapter", "init_adapter"] {
            let Some(theirs) = reference(&format!("runs/{run}/{stage}")) else {
                return;
            };
            let adapter = Adapter::read(&theirs, &arch).unwrap();
            assert_eq!(adapter.config.use_rslora, run == "lora_rslora");
            let ours = dir.path().join(run).join(stage);
            adapter.write(&ours).unwrap();
            for file in [CONFIG_FILE, WEIGHTS_FILE] {
                let (a, b) = (theirs.join(file), ours.join(file));
                assert_eq!(
                    fs::read(a).unwrap(),
                    fs::read(b).unwrap(),
                    "{run}/{stage}/{file}"
                );
            }
        }
    }
    let gpt2 = reference("tiny/gpt2").map(|dir| ArchConfig::from_dir(&dir).unwrap());
    let theirs = reference("runs/lora_gpt2/adapter");
    let (Some(arch), Some(theirs)) = (gpt2, theirs) else {
        return;
    };
    let ours = dir.path().join("gpt2");
    let adapter = Adapter::read(&theirs, &arch).unwrap();
    assert!(adapter.config.fan_in_fan_out);
    adapter.write(&ours).unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        let (a, b) = (theirs.join(file), ours.join(file));
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap(), "gpt2/{file}");
    }
}
