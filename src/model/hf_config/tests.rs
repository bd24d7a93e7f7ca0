//! Configurations of both styles, defaults, and files that must be refused.

use serde_json::{Value, json};

use super::*;

const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 1000, "hidden_size": 64,
    "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}"#;

fn edited(edit: Value) -> Result<ArchConfig, ConfigError> {
    let mut base: Value = serde_json::from_str(LLAMA).unwrap();
    for (key, value) in edit.as_object().unwrap() {
        base[key] = value.clone();
    }
    ArchConfig::from_json(&base.to_string(), Path::new("m/config.json"))
}

fn message(edit: Value) -> String {
    edited(edit).unwrap_err().to_string()
}

#[test]
fn missing_keys_take_the_defaults_of_transformers() {
    let arch = edited(json!({})).unwrap();
    assert_eq!((arch.num_kv_heads, arch.head_dim), (4, 16));
    assert_eq!(arch.norm_eps, 1e-6);
    assert_eq!(arch.rope().unwrap().theta, 10_000.0);
    assert_eq!(arch.rope().unwrap().scaling, RopeScaling::None);
    assert_eq!(arch.bos_token_id, Some(1));
    assert_eq!(arch.eos_token_ids, [2]);
    assert_eq!(arch.pad_token_id, None);
    assert!(!arch.tie_word_embeddings && !arch.qkv_bias && !arch.out_bias && !arch.mlp_bias);
    let null = edited(json!({"eos_token_id": null, "bos_token_id": null, "pad_token_id": -1}));
    let null = null.unwrap();
    assert_eq!((null.bos_token_id, null.pad_token_id), (None, None));
    assert!(null.eos_token_ids.is_empty());
}

#[test]
fn both_styles_of_rope_give_the_same_architecture() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let v4 = json!({"rope_theta": 5e5, "rope_scaling": scaling, "torch_dtype": "float32"});
    let v4 = edited(v4);
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(5e5);
    let v5 = edited(json!({"rope_parameters": parameters, "dtype": "float32"})).unwrap();
    assert_eq!(v4.unwrap(), v5);
    assert_eq!(
        v5.rope().unwrap().scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 64
        }
    );
    // The number beside the section counts before the one in it.
    let beside = json!({"rope_scaling": scaling, "original_max_position_embeddings": 40});
    let beside = edited(beside).unwrap();
    let RopeScaling::Llama3 {
        original_max_position,
        ..
    } = beside.rope().unwrap().scaling
    else {
        panic!("{beside:?}");
    };
    assert_eq!(original_max_position, 40);
    // Of both the older one counts, with the theta beside it.
    let both = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7e3},
        "rope_scaling": {"rope_type": "linear", "factor": 3.0}, "rope_theta": 300.0});
    let both = edited(both).unwrap();
    let wanted = Rope {
        theta: 300.0,
        scaling: RopeScaling::Linear { factor: 3.0 },
    };
    assert_eq!(both.rope(), Some(&wanted));
    let empty = edited(json!({"rope_parameters": {"rope_theta": 7e3}, "rope_scaling": {}}));
    assert_eq!(empty.unwrap().rope().unwrap().theta, 7e3);
    let old = edited(json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!(
        old.rope().unwrap().scaling,
        RopeScaling::Linear { factor: 2.0 }
    );
}

#[test]
fn frequencies_follow_the_scaling() {
    let plain = edited(json!({"rope_theta": 10000.0})).unwrap().inv_freq();
    assert_eq!(plain.len(), 8);
    assert_eq!(plain[0], 1.0);
    assert_eq!(plain[4], 0.01);
    let linear = edited(json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}));
    assert_eq!(linear.unwrap().inv_freq()[4], 0.0025);
    // Values printed by transformers 5.23 for these settings.
    let llama3 = edited(
        json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5,
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
    );
    let llama3 = llama3.unwrap().inv_freq();
    assert_eq!(llama3, LLAMA3_FREQUENCIES);
}

const LLAMA3_FREQUENCIES: [f32; 8] = [
    1.0,
    0.079_403_01,
    0.004_700_754,
    0.000_911_583_13,
    0.000_176_776_68,
    3.428_102_4e-5,
    6.647_869_7e-6,
    1.289_173_2e-6,
];

#[test]
fn modules_and_parameters_have_their_shapes() {
    let arch = edited(json!({"num_key_value_heads": 2, "attention_bias": true})).unwrap();
    let linears = arch.linears();
    assert_eq!(linears.len(), 21);
    assert_eq!(linears[8].module, "model.layers.1.self_attn.k_proj");
    assert_eq!((linears[8].out_features, linears[8].in_features), (32, 64));
    assert_eq!(linears[6].module, "model.layers.0.mlp.down_proj");
    assert_eq!((linears[6].out_features, linears[6].in_features), (64, 160));
    assert!(linears[0].bias && !linears[4].bias);
    let parameters = arch.parameters();
    let shape = |name: &str| &parameters.iter().find(|p| p.name == name).unwrap().shape;
    assert_eq!(shape("model.layers.2.self_attn.v_proj.bias"), &[32]);
    assert_eq!(shape("lm_head.weight"), &[1000, 64]);
    let tied = edited(json!({"tie_word_embeddings": true})).unwrap();
    assert!(tied.parameters().iter().all(|p| p.name != "lm_head.weight"));
    assert_eq!(arch.lm_head().out_features, 1000);
    // 2 embeddings, 3 layers of (2 * 64*64 + 2 * 32*64 + 3 * 64*160 + 2 * 64), final norm.
    let dense = edited(json!({"num_key_value_heads": 2})).unwrap();
    assert_eq!(dense.num_parameters(), 257_472);
}

#[test]
fn what_is_written_reads_back() {
    for edit in [
        json!({"dtype": "bfloat16", "pad_token_id": 0, "eos_token_id": [3, 4]}),
        json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}, "tie_word_embeddings": true,
            "eos_token_id": null, "bos_token_id": null}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.5}, "rms_norm_eps": 1e-5}),
    ] {
        let arch = edited(edit).unwrap();
        let again = ArchConfig::from_json(&arch.to_json(), Path::new("config.json")).unwrap();
        assert_eq!(arch, again);
    }
}

#[test]
fn bad_files_name_key_and_remedy() {
    let text = message(json!({"model_type": "mamba"}));
    assert!(
        text.contains("`mamba` is not supported; supported: llama"),
        "{text}"
    );
    assert!(message(json!({"hidden_act": "gelu"})).contains("supported: silu"));
    let text = message(json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}));
    assert!(
        text.contains("RoPE type `yarn`") && text.contains("llama3"),
        "{text}"
    );
    for (edit, part) in [
        (json!({"hidden_size": 0}), "`hidden_size` is 0"),
        (json!({"hidden_size": "64"}), "`hidden_size` is \"64\""),
        (json!({"num_hidden_layers": 1_000_000}), "from 1 to 4096"),
        (json!({"vocab_size": null}), "`vocab_size` is missing"),
        (json!({"vocab_size": -5}), "`vocab_size` is -5"),
        (
            json!({"num_attention_heads": 5}),
            "does not divide hidden_size 64",
        ),
        (
            json!({"num_key_value_heads": 3}),
            "does not divide num_attention_heads 4",
        ),
        (json!({"head_dim": 15}), "even number"),
        (json!({"rms_norm_eps": 0}), "above 0"),
        (json!({"rope_theta": -1}), "above 0"),
        (json!({"initializer_range": -0.02}), "above 0"),
        (
            json!({"initializer_range": 1e308}),
            "`initializer_range` is 1e308; it must be at most 1000",
        ),
        (json!({"tie_word_embeddings": "yes"}), "true or false"),
        (json!({"eos_token_id": [1, "x"]}), "token id"),
        (
            json!({"rope_scaling": {"rope_type": "linear"}}),
            "rope_scaling.factor",
        ),
        (json!({"rope_scaling": 4}), "an object"),
        (json!({"partial_rotary_factor": 0.5}), "whole heads"),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
                "low_freq_factor": 4.0, "high_freq_factor": 4.0}}),
            "greater than low_freq_factor",
        ),
    ] {
        let text = message(edit);
        assert!(
            text.starts_with("m/config.json: ") && text.contains(part),
            "{text}"
        );
    }
    let text = ArchConfig::from_json("{\n \"a\": }", Path::new("config.json"));
    assert!(
        text.unwrap_err()
            .to_string()
            .starts_with("config.json:2: not valid JSON")
    );
    assert!(ArchConfig::from_json("[]", Path::new("config.json")).is_err());
    let absent = ArchConfig::from_dir(Path::new("no/such/directory")).unwrap_err();
    assert!(absent.to_string().contains("config.json"), "{absent}");
}

#[test]
fn generation_config_names_the_end_tokens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), LLAMA).unwrap();
    assert_eq!(ArchConfig::from_dir(dir.path()).unwrap().eos_token_ids, [2]);
    let file = dir.path().join("generation_config.json");
    std::fs::write(&file, r#"{"eos_token_id": [7, 9]}"#).unwrap();
    let arch = ArchConfig::from_dir(dir.path()).unwrap();
    assert_eq!(arch.eos_token_ids, [7, 9]);
    std::fs::write(&file, arch.generation_json()).unwrap();
    assert_eq!(ArchConfig::from_dir(dir.path()).unwrap(), arch);
    std::fs::write(&file, "{").unwrap();
    assert!(ArchConfig::from_dir(dir.path()).is_err());
}

fn family(text: Value) -> ArchConfig {
    ArchConfig::from_json(&text.to_string(), Path::new("config.json")).unwrap()
}

/// The sizes that Mistral and the Qwens must name.
fn sized(model_type: &str, edit: Value) -> ArchConfig {
    let mut base: Value = serde_json::from_str(LLAMA).unwrap();
    base["model_type"] = json!(model_type);
    base["num_attention_heads"] = json!(32);
    for (key, value) in edit.as_object().unwrap() {
        base[key] = value.clone();
    }
    family(base)
}

#[test]
fn families_have_their_own_defaults() {
    let mistral = sized("mistral", json!({}));
    assert_eq!((mistral.num_kv_heads, mistral.head_dim), (8, 2));
    assert_eq!(mistral.sliding_window, Some(4096));
    assert_eq!(mistral.window(2), Some(4096));
    let v2 = sized("mistral", json!({"sliding_window": null}));
    assert_eq!((v2.sliding_window, v2.window(0)), (None, None));
    let qwen2 = sized("qwen2", json!({"sliding_window": 4096}));
    assert!(qwen2.qkv_bias && !qwen2.out_bias && !qwen2.qk_norm);
    assert_eq!((qwen2.sliding_window, qwen2.bos_token_id), (None, None));
    let qwen3 = sized("qwen3", json!({}));
    assert!(qwen3.qk_norm && !qwen3.qkv_bias);
    assert_eq!(qwen3.head_dim, 128);
    let gpt2 = family(json!({"model_type": "gpt2"}));
    assert_eq!((gpt2.hidden_size, gpt2.intermediate_size), (768, 3072));
    assert_eq!(gpt2.num_parameters(), 124_439_808);
    assert_eq!(gpt2.longest_sequence(), Some(1024));
    assert_eq!(gpt2.eos_token_ids, [50_256]);
    assert!(gpt2.tie_word_embeddings && gpt2.inv_freq().is_empty());
}

#[test]
fn windows_go_by_layer() {
    let on = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1});
    let by_number = sized("qwen2", on.clone());
    assert_eq!(by_number.window_layers, [false, true, true]);
    assert_eq!((by_number.window(0), by_number.window(1)), (None, Some(8)));
    let mut typed = on;
    typed["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention"]);
    assert_eq!(
        sized("qwen2", typed.clone()).window_layers,
        [true, false, false]
    );
    // Mistral has no switch.
    assert_eq!(sized("mistral", typed).window_layers, [true, false, false]);
    let full = json!({"sliding_window": 8, "layer_types": ["full_attention", "full_attention", "full_attention"]});
    assert_eq!(sized("mistral", full).window(1), None);
}

/// Training leaves it out, but what is written has what was read, or GPT-2's default.
#[test]
fn the_dropout_of_the_base_is_kept() {
    let written = |arch: &ArchConfig| serde_json::from_str::<Value>(&arch.to_json()).unwrap();
    let gpt2 = family(json!({"model_type": "gpt2", "embd_pdrop": 0, "resid_pdrop": 0.25}));
    let file = written(&gpt2);
    let held = |key: &str| file[key].as_f64().unwrap();
    assert_eq!(
        ["attn_pdrop", "embd_pdrop", "resid_pdrop"].map(held),
        [0.1, 0.0, 0.25]
    );
    let note = gpt2.dropout_note().unwrap();
    assert!(
        note.contains("(attn_pdrop 0.1, resid_pdrop 0.25)"),
        "{note}"
    );
    let llama = edited(json!({"attention_dropout": 0.5})).unwrap();
    assert_eq!(written(&llama)["attention_dropout"], json!(0.5));
    assert!(llama.dropout_note().is_some());
    let none = edited(json!({})).unwrap();
    assert_eq!(written(&none)["attention_dropout"], json!(0.0));
    assert_eq!(none.dropout_note(), None);
    let wrong = message(json!({"attention_dropout": 2}));
    assert!(wrong.contains("`attention_dropout` is 2"), "{wrong}");
}

#[test]
fn every_family_is_written_as_it_was_read() {
    let window = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1});
    for arch in [
        sized("mistral", json!({"sliding_window": 16})),
        sized("mistral", json!({"sliding_window": null})),
        sized("mistral", {
            let kinds = ["sliding_attention", "full_attention", "sliding_attention"];
            json!({"sliding_window": 8, "layer_types": kinds})
        }),
        sized("qwen2", json!({"attention_dropout": 0.1})),
        sized("qwen2", window.clone()),
        sized("qwen3", json!({"attention_bias": true})),
        sized("qwen3", window),
        edited(json!({"attention_bias": true, "mlp_bias": true})).unwrap(),
        family(json!({"model_type": "gpt2", "n_inner": 100, "n_positions": 64})),
    ] {
        let again = ArchConfig::from_json(&arch.to_json(), Path::new("config.json")).unwrap();
        assert_eq!(arch, again);
    }
}

#[test]
fn gpt2_has_conv1d_weights_and_one_matrix_for_attention() {
    let arch = family(json!({"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2}));
    let mapped = family(
        json!({"model_type": "gpt2", "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "n_embd": 16}),
    );
    assert_eq!(arch, mapped);
    let linears = arch.linears();
    let modules: Vec<&str> = linears.iter().map(|l| l.module.as_str()).collect();
    assert_eq!(modules[4], "transformer.h.1.attn.c_attn");
    assert!(linears.iter().all(|l| l.transposed && l.bias));
    assert_eq!((linears[0].out_features, linears[0].in_features), (24, 8));
    assert_eq!(linears[0].weight().shape, [8, 24]);
    let names: Vec<String> = arch.parameters().into_iter().map(|p| p.name).collect();
    for name in [
        "wpe.weight",
        "h.1.ln_2.bias",
        "h.0.mlp.c_proj.bias",
        "ln_f.weight",
    ] {
        assert!(names.contains(&format!("transformer.{name}")), "{name}");
    }
}
