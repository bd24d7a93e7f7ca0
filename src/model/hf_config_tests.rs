//! Configurations of both styles, defaults, and files that must be refused.

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
    assert_eq!(arch.rms_norm_eps, 1e-6);
    assert_eq!(arch.rope.theta, 10_000.0);
    assert_eq!(arch.rope.scaling, RopeScaling::None);
    assert_eq!(arch.bos_token_id, Some(1));
    assert_eq!(arch.eos_token_ids, [2]);
    assert_eq!(arch.pad_token_id, None);
    assert!(!arch.tie_word_embeddings && !arch.attention_bias && !arch.mlp_bias);
    let null = edited(json!({"eos_token_id": null, "bos_token_id": null, "pad_token_id": -1}));
    let null = null.unwrap();
    assert_eq!((null.bos_token_id, null.pad_token_id), (None, None));
    assert!(null.eos_token_ids.is_empty());
}

#[test]
fn both_styles_of_rope_give_the_same_architecture() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let v4 = edited(json!({"rope_theta": 5e5, "rope_scaling": scaling, "torch_dtype": "float32"}));
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(5e5);
    let v5 = edited(json!({"rope_parameters": parameters, "dtype": "float32"})).unwrap();
    assert_eq!(v4.unwrap(), v5);
    assert_eq!(
        v5.rope.scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 64
        }
    );
    let old = edited(json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert_eq!(old.rope.scaling, RopeScaling::Linear { factor: 2.0 });
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
