//! `run explain` from outside, in a directory without any file.

use crate::common::place::{Place, line};

#[test]
fn a_key_is_explained_without_any_file() {
    let place = Place::new();
    let text = place.ok(&["explain", "lora.r"]);
    assert!(text.starts_with("lora.r: Rank: the inner width"), "{text}");
    assert_eq!(
        line(&text, "takes"),
        "  takes   a whole number of at least 1 and at most 65536"
    );
    assert_eq!(line(&text, "  default"), "  default 16");
    assert_eq!(line(&text, "set it"), "  set it  run train lora.r=32");
    assert!(text.contains("Loss stays high"), "{text}");
    assert!(
        line(&text, "strength of the adapter").contains("lora.alpha"),
        "{text}"
    );
    assert!(!text.contains("  value"), "{text}");
    // What it says to type is accepted.
    place.ok(&["train", "lora.r=32", "--cfg", "job"]);
}

#[test]
fn overrides_show_the_value_and_who_set_it() {
    let place = Place::new();
    let text = place.ok(&["explain", "lora.r", "lora.r=8"]);
    let value = line(&text, "  value");
    assert!(
        value.starts_with("  value   8, command line; was "),
        "{value}"
    );
    // The key of an override alone is what is asked about.
    assert_eq!(place.ok(&["explain", "lora.r=8"]), text);
    let text = place.ok(&["explain", "learning_rate", "task=saq"]);
    assert!(
        line(&text, "  value").contains("training/saq.yaml"),
        "{text}"
    );
    let text = place.ok(&["explain", "lora", "lora.r=8"]);
    assert!(
        line(&text, "  lora.r ").contains("[16] now 8, command line"),
        "{text}"
    );
    let text = place.refused(&["explain", "lora.r", "lora.r=x"]);
    assert!(text.contains("`lora.r` must be"), "{text}");
}

#[test]
fn a_group_lists_its_keys_and_options() {
    let place = Place::new();
    let text = place.ok(&["explain", "lora"]);
    for name in ["lora.r ", "lora.alpha", "lora.init_from"] {
        assert!(text.contains(&format!("\n  {name}")), "{name}: {text}");
    }
    assert!(line(&text, "lora=NAME").contains("default, gpt2"), "{text}");
    let text = place.ok(&["explain", "inference.validation"]);
    assert!(text.contains("inference.validation.max_retries"), "{text}");
    assert!(!text.contains("inference.top_p"), "{text}");
    let text = place.ok(&["explain", "batch_size"]);
    assert!(text.contains("training.batch_size: ") && text.contains("inference.batch_size: "));
}

#[test]
fn an_unknown_key_fails_with_the_nearest_names() {
    let place = Place::new();
    let text = place.refused(&["explain", "training.learnign_rate"]);
    assert!(
        text.contains("did you mean training.learning_rate"),
        "{text}"
    );
    let text = place.refused(&["explain", "lora.r", "xyzzy"]);
    assert!(text.contains("xyzzy: there is no such key"), "{text}");
    assert_eq!(place.run(&["explain"]).code, Some(2));
}
