//! No input makes composition panic: random overrides, YAML files and interpolations.

use std::fs;

use kiln::compose::{Request, Source, compose, expand_sweep, to_yaml};
use proptest::prelude::*;

/// Texts made of the pieces that the grammars give a meaning.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("${"),
        Just("}"),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("("),
        Just(")"),
        Just(","),
        Just(":"),
        Just(": "),
        Just("="),
        Just("\\"),
        Just("'"),
        Just("\""),
        Just(" "),
        Just("\n"),
        Just("\n  "),
        Just("- "),
        Just("a"),
        Just("b"),
        Just("a.b"),
        Just("1"),
        Just("-1e9"),
        Just("0x"),
        Just("1_0"),
        Just(":30"),
        Just("???"),
        Just("null"),
        Just("yes"),
        Just("&x "),
        Just("*x"),
        Just("<<: "),
        Just("!!int "),
        Just("? "),
        Just("| "),
        Just("# "),
        Just("choice("),
        Just("range("),
        Just("sort("),
        Just("int("),
        Just("oc.decode:"),
        Just("oc.create:"),
        Just("oc.select:"),
        Just("mul:"),
        Just("now:%"),
        Just("é"),
        Just("\t"),
        Just("~"),
        Just("+"),
        Just("@"),
        Just("/"),
        Just("defaults:"),
        Just("_self_"),
        Just("..")
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn run(dir: &std::path::Path, overrides: Vec<String>) {
    let _ = expand_sweep(&overrides);
    let request = Request {
        sources: vec![Source::dir("main", dir)],
        config_name: Some("config".to_string()),
        overrides,
        job_name: "app".to_string(),
        ..Request::default()
    };
    if let Ok(composed) = compose(&request) {
        let _ = to_yaml(&composed.job);
        let _ = composed.resolved_job();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overrides(texts in prop::collection::vec(soup(), 0..3), key in "[+~]{0,2}[a-c.@/]{0,4}=") {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("config.yaml"), "a: {b: 1}\nb: [1, {c: ${a.b}}]\n").expect("written");
        let mut overrides = texts.clone();
        overrides.extend(texts.iter().map(|text| format!("{key}{text}")));
        for one in &overrides {
            run(dir.path(), vec![one.clone()]);
        }
        run(dir.path(), overrides);
    }

    #[test]
    fn files(text in soup(), other in soup()) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("a")).expect("made");
        fs::write(dir.path().join("config.yaml"), &text).expect("written");
        fs::write(dir.path().join("a/b.yaml"), &other).expect("written");
        run(dir.path(), vec![]);
        run(dir.path(), vec!["+a=b".to_string()]);
    }

    #[test]
    fn what_is_printed_reads_back(text in "(?s).{0,60}") {
        let dir = tempfile::tempdir().expect("a directory");
        let quoted = serde_json::to_string(&text).expect("JSON");
        fs::write(dir.path().join("config.yaml"), format!("a: {quoted}\n")).expect("written");
        let request = |name: &str| Request {
            sources: vec![Source::dir("main", dir.path())],
            config_name: Some(name.to_string()),
            ..Request::default()
        };
        // A text with a malformed interpolation is refused, which is right.
        if let Ok(first) = compose(&request("config")) {
            let yaml = to_yaml(&first.job);
            fs::write(dir.path().join("again.yaml"), &yaml).expect("written");
            let second = compose(&request("again")).map_err(|e| TestCaseError::fail(format!("{e}\n{yaml}")))?;
            prop_assert_eq!(&first.job, &second.job, "{}", yaml);
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("config.yaml"), &bytes).expect("written");
        run(dir.path(), vec![String::from_utf8_lossy(&bytes).into_owned()]);
    }
}
