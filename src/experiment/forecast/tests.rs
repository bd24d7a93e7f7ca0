use std::path::Path;

use super::*;
use crate::model::hf_config::ArchConfig;

fn forecast(available: Option<u64>) -> Forecast {
    let json = r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4}"#;
    let arch = ArchConfig::from_json(json, Path::new("config.json")).unwrap();
    let empty = crate::compose::Node {
        value: crate::compose::Value::Map(crate::compose::Map::new()),
        origin: crate::compose::Origin::BuiltIn,
    };
    let mut config = crate::config::from_tree(&empty).unwrap();
    // So that training, not answering, decides.
    config.inference.batch_size = 1;
    let sizes = Sizes::assumed(&config, None);
    let recipe = Recipe::new(&arch, &config).unwrap();
    let workload = sizes.workload(&config).unwrap();
    let place = Place::Gpu;
    Forecast {
        memory: recipe.memory(&workload, place),
        work: recipe.work(&workload),
        workload,
        recipe,
        device: "cuda:0".into(),
        capacity: available.map(|available_bytes| Capacity {
            total_bytes: 8 << 30,
            available_bytes,
        }),
        assumed: Some("data.path is not set".into()),
        config,
        sizes,
        place,
    }
}

#[test]
fn a_device_without_memory_is_an_error_with_a_way_out() {
    let plenty = forecast(Some(4 << 30));
    let panicked = || -> Result<(), Error> {
        panic!(
            "Error while reading data: An IO error happened\nCaused by:\n  \
             out of device memory allocating 1073741824 bytes\nbacktrace"
        )
    };
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let error = plenty.watch(panicked).unwrap_err();
    panic::set_hook(hook);
    let text = error.to_string();
    for part in [
        "out of memory on cuda:0: 1.0 GiB more were asked for",
        "planned were",
        "of 4.0 GiB available (8.0 GiB in all)",
        "other programs may hold memory",
        "run it with training.batch_size=",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn work_without_room_names_what_makes_room_for_it() {
    let asked = |bytes, host| Asked { bytes, host };
    let fewer = halved("answer fewer questions at once", "inference.batch_size", 8);
    let text = text::no_room("cuda:1", asked(Some(2048), false), fewer.as_deref());
    assert_eq!(
        text,
        "out of memory on cuda:1: 2.0 KiB more were asked for; answer fewer questions at once: \
         inference.batch_size=4, or take a smaller model or a larger device"
    );
    assert_eq!(halved("ask less at once", "judge.concurrency", 1), None);
    let text = text::no_room("cuda:1", asked(None, true), None);
    assert!(
        text.starts_with("out of main memory")
            && text.ends_with("; take a smaller model or a larger device"),
        "{text}"
    );
    let full = || -> Result<(), Error> { panic!("out of device memory allocating 64 bytes") };
    let told = |config: &Config| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let loading = watch_loading("cuda:0", config, full).unwrap_err();
        let answering = watch_answers("cuda:0", config, full).unwrap_err();
        panic::set_hook(hook);
        (loading.to_string(), answering.to_string())
    };
    let mut config = forecast(None).config;
    config.inference.batch_size = 6;
    config.quantization.method = QuantMethod::None;
    let (loading, answering) = told(&config);
    assert!(answering.contains("inference.batch_size=3"), "{answering}");
    assert!(loading.contains("quantization=nf4"), "{loading}");
    config.quantization.method = QuantMethod::Nf4;
    let (loading, _) = told(&config);
    assert!(
        loading.ends_with("asked for; take a smaller model or a larger device"),
        "{loading}"
    );
}

#[test]
fn other_panics_and_errors_go_on_as_they_are() {
    let plenty = forecast(None);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let caught = crash::catch(|| plenty.watch(|| -> Result<(), Error> { panic!("index 7") }));
    panic::set_hook(hook);
    assert_eq!(caught.unwrap_err(), "index 7");
    let failed = plenty.watch(|| -> Result<(), Error> { Err(Error::NoQuestions) });
    assert!(matches!(failed, Err(Error::NoQuestions)));
    assert_eq!(plenty.watch(|| Ok(3)).unwrap(), 3);
}

#[test]
fn the_log_warns_of_what_does_not_fit() {
    let plenty = forecast(Some(4 << 30)).lines_of_run();
    assert_eq!(plenty.len(), 1, "{plenty:?}");
    let mut tight = forecast(None);
    let bytes = tight.memory.total - 1;
    tight.capacity = Some(Capacity {
        total_bytes: bytes,
        available_bytes: bytes,
    });
    let lines = tight.lines_of_run();
    assert!(
        lines[1].contains("would fit with training.batch_size=2"),
        "{lines:?}"
    );
    let nothing = forecast(Some(1)).lines_of_run();
    assert!(nothing[1].contains("smaller model"), "{nothing:?}");
}

#[test]
fn the_text_ends_in_a_verdict_and_the_json_has_the_names() {
    let plenty = forecast(Some(4 << 30));
    let text = plenty.text(None, None);
    for part in [
        "QLoRA, NF4 base",
        "assumed, as long as training.max_seq_length allows: data.path is not set",
        "4 sequences with 2,048 tokens in all",
        "\nfits: ",
        "has not been compared with a measured run",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&plenty.json(None, None)).unwrap();
    assert_eq!(json["planned_memory_bytes"], plenty.memory.total);
    let parts = json["memory"].as_object().unwrap();
    let sum: u64 = parts.values().map(|v| v.as_u64().unwrap()).sum();
    assert_eq!(sum, plenty.memory.total);
    assert_eq!(
        (&json["fits"], &json["steps"]),
        (&true.into(), &serde_json::Value::Null)
    );

    let mut small = plenty;
    let limit = small.memory.total / 2;
    small.capacity = Some(Capacity {
        total_bytes: limit,
        available_bytes: limit,
    });
    let change = small.change(limit);
    assert_eq!(small.fits(), Some(false));
    if let Some(change) = &change {
        assert!(change.bytes <= limit);
    }
    let text = small.text(change.as_ref(), None);
    assert!(text.contains("does not fit: "), "{text}");
}
