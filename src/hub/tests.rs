//! The hub against a small server of our own that answers as the hub does.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{HubError, Needs, Settings, model};
use crate::test_server::{Answer, Asked, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A file of the hub, from byte 0 or from where the request says.
fn file(asked: &Asked, body: &[u8], etag: &str) -> Answer {
    let mut headers = vec![
        ("ETag", format!("\"{etag}\"")),
        ("X-Repo-Commit", COMMIT.to_string()),
    ];
    let from = asked.headers.get("range").and_then(|range| {
        let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        from.parse::<usize>().ok()
    });
    if let Some(from) = from {
        let (last, size) = (body.len() - 1, body.len());
        headers.push(("Content-Range", format!("bytes {from}-{last}/{size}")));
    }
    Answer {
        status: if from.is_some() { 206 } else { 200 },
        headers,
        body: body[from.unwrap_or(0)..].to_vec(),
        cut: None,
    }
}

fn refusal(status: u16, code: &'static str) -> Answer {
    Answer {
        status,
        headers: vec![("X-Error-Code", code.to_string())],
        ..Answer::default()
    }
}

fn weights() -> Vec<u8> {
    (0..200_000u32)
        .flat_map(|i| (i * 7919).to_le_bytes())
        .collect()
}

/// A whole model: two small files and weights in one file.
fn usual(asked: &Asked) -> Answer {
    match asked.path.rsplit('/').next().unwrap_or("") {
        "config.json" => file(asked, b"{}", "c0"),
        "tokenizer.json" => file(asked, b"{\"t\": 1}", "70"),
        "model.safetensors" => file(asked, &weights(), &sha256(&weights())),
        _ => refusal(404, "EntryNotFound"),
    }
}

fn settings(server: &Server, cache: &Path) -> Settings {
    Settings {
        endpoint: server.address.clone(),
        cache: cache.to_path_buf(),
        token: Some("hf_secret".to_string()),
        offline: false,
        certificates: None,
        pause: Duration::from_millis(1),
    }
}

fn fetch(server: &Server, cache: &Path) -> Result<PathBuf, HubError> {
    model(&settings(server, cache), "org/m", None, Needs::Weights)
}

/// Names of the files below `dir` that have no final name.
fn unfinished(dir: &Path) -> Vec<String> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".incomplete") || name.ends_with(".tmp"))
        .collect()
}

#[test]
fn a_model_is_fetched_once_and_laid_out_as_the_python_library_does() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, _| usual(asked));
    let dir = fetch(&server, cache.path()).unwrap();
    let repo = cache.path().join("models--org--m");
    assert_eq!(dir, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        fs::read_link(dir.join("config.json")).unwrap(),
        Path::new("../../blobs/c0")
    );
    assert!(!dir.join("chat_template.jinja").exists());
    assert!(unfinished(cache.path()).is_empty());
    let asked = server.of("config.json");
    assert_eq!(asked[0].path, "/org/m/resolve/main/config.json");
    assert_eq!(asked[0].headers["authorization"], "Bearer hf_secret");
    // The second time nothing is asked, online or offline, by branch or by commit.
    let before = server.files().len();
    assert_eq!(fetch(&server, cache.path()).unwrap(), dir);
    let mut offline = settings(&server, cache.path());
    offline.offline = true;
    for revision in [None, Some("main"), Some(COMMIT)] {
        assert_eq!(
            model(&offline, "org/m", revision, Needs::Weights).unwrap(),
            dir
        );
    }
    assert_eq!(server.files().len(), before);
}

#[test]
fn a_plan_takes_no_weights_and_a_run_takes_the_rest_later() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, _| usual(asked));
    let settings = settings(&server, cache.path());
    model(&settings, "org/m", None, Needs::Config).unwrap();
    assert_eq!(server.files(), ["config.json"]);
    let dir = model(&settings, "org/m", None, Needs::NoWeights).unwrap();
    assert!(dir.join("tokenizer.json").exists());
    assert!(!server.files().contains(&"model.safetensors".to_string()));
    let dir = model(&settings, "org/m", None, Needs::Weights).unwrap();
    assert!(dir.join("model.safetensors").exists());
}

#[test]
fn sharded_weights_come_by_their_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let serve = move |index: &'static [u8]| {
        Server::start(
            move |asked, _| match asked.path.rsplit('/').next().unwrap_or("") {
                "model.safetensors" => refusal(404, "EntryNotFound"),
                "model.safetensors.index.json" => file(asked, index, "1d"),
                "model-1.safetensors" => file(asked, b"one", &sha256(b"one")),
                "model-2.safetensors" => file(asked, b"two", &sha256(b"two")),
                _ => usual(asked),
            },
        )
    };
    let cache = tempfile::tempdir().unwrap();
    let dir = fetch(&serve(index), cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model-2.safetensors")).unwrap(), b"two");
    // A shard that is gone is fetched again, alone.
    fs::remove_file(dir.join("model-1.safetensors")).unwrap();
    let server = serve(index);
    fetch(&server, cache.path()).unwrap();
    assert!(dir.join("model-1.safetensors").exists());
    assert!(!server.files().contains(&"model-2.safetensors".to_string()));
    for bad in [
        &br#"{"weight_map": {"a": "../../../evil.safetensors"}}"#[..],
        br#"{"weight_map": {"a": "/etc/passwd"}}"#,
        br#"{"weight_map": {}}"#,
        br#"{"weight_map": 3}"#,
        b"[",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&serve(bad), cache.path()).unwrap_err();
        assert!(matches!(error, HubError::BadIndex { .. }), "{error}");
    }
}

#[test]
fn a_cut_connection_is_gone_on_from() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, before| {
        let mut answer = usual(asked);
        if asked.path.ends_with("model.safetensors") && before == 0 {
            answer.cut = Some(300_000);
        }
        answer
    });
    let dir = fetch(&server, cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = server.of("model.safetensors");
    let range = ranges.iter().find_map(|a| a.headers.get("range")).unwrap();
    let from: usize = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap();
    assert!(from > 0 && from <= 300_000, "{range}");
    assert!(unfinished(cache.path()).is_empty());
}

#[test]
fn a_download_that_broke_off_is_kept_and_a_later_run_goes_on() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Server::start(|asked, _| {
        let mut answer = usual(asked);
        if asked.path.ends_with("model.safetensors") {
            // Not a byte more than the first time.
            match asked.headers.contains_key("range") {
                true => answer.cut = Some(0),
                false => answer.cut = Some(500_000),
            }
        }
        answer
    });
    let error = fetch(&broken, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Broken { .. }), "{error}");
    assert!(
        error.to_string().contains("run the same command again"),
        "{error}"
    );
    assert_eq!(unfinished(cache.path()).len(), 1);
    let snapshot = cache.path().join("models--org--m/snapshots").join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
    let server = Server::start(|asked, _| usual(asked));
    let dir = fetch(&server, cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    assert!(
        server
            .of("model.safetensors")
            .iter()
            .any(|a| a.headers.contains_key("range"))
    );
    // What was there is not fetched again.
    assert!(!server.files().contains(&"tokenizer.json".to_string()));
}

#[test]
fn what_is_damaged_is_removed() {
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--org--m/blobs");
    // The beginning of something else.
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", sha256(&weights())));
    fs::write(&partial, b"something else").unwrap();
    let server = Server::start(|asked, _| usual(asked));
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("model.safetensors arrived damaged"),
        "{error}"
    );
    assert!(unfinished(cache.path()).is_empty());
    let dir = fetch(&server, cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_server_without_ranges_sends_the_whole_file() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, before| {
        let mut plain = asked.clone();
        plain.headers.remove("range");
        let mut answer = usual(&plain);
        if asked.path.ends_with("model.safetensors") && before == 0 {
            answer.cut = Some(300_000);
        }
        answer
    });
    let dir = fetch(&server, cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_file_store_behind_a_redirect_does_not_get_the_token() {
    let store = Server::start(|asked, before| {
        let mut answer = file(asked, &weights(), "an-etag-of-the-store");
        answer.headers.retain(|(name, _)| *name != "X-Repo-Commit");
        if before == 0 {
            answer.cut = Some(300_000);
        }
        answer
    });
    let target = format!("{}/cdn/weights?sig=1", store.address);
    let server = Server::start(move |asked, _| match &asked.path {
        path if path.ends_with("model.safetensors") => Answer {
            status: 302,
            headers: vec![
                ("Location", target.clone()),
                ("X-Repo-Commit", COMMIT.to_string()),
                ("X-Linked-ETag", format!("\"{}\"", sha256(&weights()))),
                ("X-Linked-Size", weights().len().to_string()),
            ],
            ..Answer::default()
        },
        // A model that was renamed.
        path if path.starts_with("/org/m/") => Answer {
            status: 307,
            headers: vec![("Location", path.replace("/org/m/", "/new/m/"))],
            ..Answer::default()
        },
        _ => usual(asked),
    });
    let cache = tempfile::tempdir().unwrap();
    let dir = fetch(&server, cache.path()).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    let store = store.of("sig=1");
    assert!(store.len() >= 2 && store.iter().any(|a| a.headers.contains_key("range")));
    assert!(
        store
            .iter()
            .all(|a| !a.headers.contains_key("authorization"))
    );
    let renamed = server.of("/new/m/resolve/main/config.json");
    assert_eq!(renamed[0].headers["authorization"], "Bearer hf_secret");
}

#[test]
fn each_refusal_says_what_to_do() {
    let cases: [(Answer, &[&str]); 7] = [
        (
            refusal(404, "RepoNotFound"),
            &[
                "does not exist, or is private",
                "HF_TOKEN=",
                "model.path=DIR",
            ],
        ),
        (
            refusal(401, "RepoNotFound"),
            &["does not exist, or is private", "HF_TOKEN="],
        ),
        (
            refusal(401, "GatedRepo"),
            &[
                "is a gated model",
                "accept its licence on",
                "/org/m",
                "HF_TOKEN=",
            ],
        ),
        (
            refusal(403, "GatedRepo"),
            &["is a gated model", "HF_TOKEN="],
        ),
        (
            refusal(404, "RevisionNotFound"),
            &["has no revision 'main'", "model.revision"],
        ),
        (refusal(404, "EntryNotFound"), &["has no config.json"]),
        (
            refusal(403, "Other"),
            &["refused the request (403", "HF_TOKEN"],
        ),
    ];
    for (answer, words) in cases {
        let server = Server::start(move |_, _| answer.clone());
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&server, cache.path()).unwrap_err().to_string();
        assert!(error.starts_with("model.name=org/m: "), "{error}");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    // Weights of another kind only.
    let server = Server::start(|asked, _| match asked.path.ends_with("config.json") {
        true => file(asked, b"{}", "c0"),
        false => refusal(404, "EntryNotFound"),
    });
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&server, cache.path()).unwrap_err();
    assert!(
        error.to_string().contains("no safetensors weights"),
        "{error}"
    );
    // Something that is no hub.
    let server = Server::start(|_, _| Answer {
        status: 200,
        body: b"<html>".to_vec(),
        ..Answer::default()
    });
    let error = fetch(&server, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(error.to_string().contains("check HF_ENDPOINT"), "{error}");
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let server = Server::start(|asked, before| match before {
        0 => refusal(503, ""),
        1 => refusal(429, ""),
        _ => usual(asked),
    });
    let cache = tempfile::tempdir().unwrap();
    fetch(&server, cache.path()).unwrap();
}

#[test]
fn without_a_network_the_cache_must_do() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, _| usual(asked));
    // A port that nobody listens on.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut settings = settings(&server, cache.path());
    settings.endpoint = format!("http://{gone}");
    let error = model(&settings, "org/m", None, Needs::Weights).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    settings.offline = true;
    let error = model(&settings, "org/m", None, Needs::Weights)
        .unwrap_err()
        .to_string();
    assert!(error.contains("HF_HUB_OFFLINE=1"), "{error}");
    // What another tool fetched: no notes of what the model lacks.
    let dir = fetch(&server, cache.path()).unwrap();
    fs::remove_dir_all(cache.path().join("models--org--m/.no_exist")).unwrap();
    for offline in [true, false] {
        settings.offline = offline;
        assert_eq!(
            model(&settings, "org/m", None, Needs::Weights).unwrap(),
            dir
        );
    }
}

#[test]
fn a_model_in_the_cache_does_without_a_hub_that_refuses() {
    let server = Server::start(|asked, _| usual(asked));
    let cache = tempfile::tempdir().unwrap();
    let dir = fetch(&server, cache.path()).unwrap();
    let notes = cache.path().join("models--org--m/.no_exist");
    for answer in [
        refusal(401, "GatedRepo"),
        refusal(404, "RepoNotFound"),
        refusal(403, "Other"),
        refusal(503, ""),
    ] {
        // As another tool leaves it: it is not known that the model has no chat template.
        let _ = fs::remove_dir_all(&notes);
        let refusing = Server::start(move |_, _| answer.clone());
        assert_eq!(fetch(&refusing, cache.path()).unwrap(), dir);
        assert!(refusing.count() > 0);
    }
    // A cache that takes no notes: its folder for them is a file.
    fs::write(&notes, "").unwrap();
    assert_eq!(fetch(&server, cache.path()).unwrap(), dir);
    fs::remove_file(&notes).unwrap();
    // One that takes nothing: no lock can be had, nor any blob.
    let locks = cache.path().join(".locks");
    let _ = fs::remove_dir_all(&locks);
    fs::write(&locks, "").unwrap();
    assert_eq!(fetch(&server, cache.path()).unwrap(), dir);
    // A file that the hub has and sent in part is not done without.
    fs::remove_file(&locks).unwrap();
    let cut = Server::start(|asked, _| {
        let mut answer = usual(asked);
        if asked.path.ends_with("chat_template.jinja") {
            answer = file(asked, b"{{ messages }}", "7e");
            answer.cut = Some(asked.headers.get("range").map_or(4, |_| 0));
        }
        answer
    });
    let error = fetch(&cut, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Broken { .. }), "{error}");
}

#[test]
fn names_stay_inside_the_cache() {
    let server = Server::start(|asked, _| usual(asked));
    let cache = tempfile::tempdir().unwrap();
    let settings = settings(&server, cache.path());
    for name in [
        "", "../x", "a/b/c", "a/..", "/etc", "a b", "a/b?x", "a--b/c", "./a",
    ] {
        let error = model(&settings, name, None, Needs::Config).unwrap_err();
        assert!(matches!(error, HubError::Name(_)), "{name}: {error}");
    }
    for revision in ["", "../x", "a//b", "a b", "x?y"] {
        let error = model(&settings, "org/m", Some(revision), Needs::Config).unwrap_err();
        assert!(
            matches!(error, HubError::Revision(_)),
            "{revision}: {error}"
        );
    }
    assert!(server.files().is_empty());
    model(&settings, "org/m", Some("refs/pr/1"), Needs::Config).unwrap();
    assert_eq!(
        server.of("")[0].path,
        "/org/m/resolve/refs%2Fpr%2F1/config.json"
    );
}

#[test]
fn the_environment_of_the_hugging_face_tools_is_read() {
    let home = tempfile::tempdir().unwrap();
    let read = |pairs: &[(&str, &str)]| {
        let home = home.path().display().to_string();
        let mut map: BTreeMap<String, String> = BTreeMap::from([("HOME".to_string(), home)]);
        map.extend(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        Settings::read(move |name| map.get(name).cloned())
    };
    let plain = read(&[]);
    assert_eq!(plain.cache, home.path().join(".cache/huggingface/hub"));
    assert!(plain.token.is_none() && !plain.offline);
    assert!(plain.endpoint.starts_with("https://"));
    assert_eq!(
        read(&[("XDG_CACHE_HOME", "/x")]).cache,
        Path::new("/x/huggingface/hub")
    );
    assert_eq!(read(&[("HF_HOME", "~/h")]).cache, home.path().join("h/hub"));
    assert_eq!(
        read(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache,
        Path::new("/c")
    );
    let folder = home.path().join("h");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("token"), "from-file\n").unwrap();
    assert_eq!(
        read(&[("HF_HOME", "~/h")]).token.as_deref(),
        Some("from-file")
    );
    let both = read(&[("HF_HOME", "~/h"), ("HF_TOKEN", "given")]);
    assert_eq!(both.token.as_deref(), Some("given"));
    assert!(read(&[("HF_HUB_OFFLINE", "1")]).offline);
    assert!(!read(&[("HF_HUB_OFFLINE", "0")]).offline);
    assert_eq!(read(&[("HF_ENDPOINT", "http://h/")]).endpoint, "http://h");
}

#[test]
fn an_encoder_comes_with_the_files_of_its_pooling() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|asked, _| match &*asked.path {
        path if path.ends_with("/1_Pooling/config.json") => file(asked, b"{\"p\": 1}", "b1"),
        path if path.ends_with("/modules.json") => file(asked, b"[]", "b2"),
        _ => usual(asked),
    });
    let plain = fetch(&server, cache.path()).unwrap();
    assert!(!plain.join("modules.json").exists());
    let settings = settings(&server, cache.path());
    let dir = model(&settings, "org/m", None, Needs::Encoder).unwrap();
    assert_eq!(dir, plain);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("1_Pooling/config.json"), "{\"p\": 1}");
    assert_eq!(
        (read("modules.json"), read("config.json")),
        ("[]".into(), "{}".into())
    );
    assert_eq!(
        fs::read_link(dir.join("1_Pooling/config.json")).unwrap(),
        Path::new("../../../blobs/b1")
    );
    // What it has not is not asked for again.
    let before = server.files().len();
    model(&settings, "org/m", None, Needs::Encoder).unwrap();
    assert_eq!(server.files().len(), before);
    let key = HubError::Name("a b".to_string()).of_key("evaluate.sas_model");
    assert!(
        key.starts_with("evaluate.sas_model=a b: is not a name"),
        "{key}"
    );
    assert!(key.ends_with("with evaluate.sas_model=DIR"), "{key}");
}
