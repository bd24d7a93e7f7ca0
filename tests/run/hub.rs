//! A model by its name through the binary: from a small server, and from the cache.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::sandbox::Sandbox;

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// Serves the files of `dir` as the hub does; gives its address and what was asked.
fn serve(dir: PathBuf) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let file = first
                .split(' ')
                .nth(1)
                .unwrap_or("")
                .rsplit('/')
                .next()
                .unwrap_or("");
            seen.lock().unwrap().push(file.to_string());
            let (status, code, body) = match std::fs::read(dir.join(file)) {
                Ok(body) => (200, "None", body),
                Err(_) => (404, "EntryNotFound", Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\nETag: \"{}\"\r\n\
                 X-Repo-Commit: {COMMIT}\r\nX-Error-Code: {code}\r\n\r\n",
                body.len(),
                file.replace('.', "-"),
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    (address, asked)
}

fn run(sandbox: &Sandbox, address: &str, offline: bool, args: &str) -> Output {
    command(sandbox, address, offline, args).output().unwrap()
}

fn command(sandbox: &Sandbox, address: &str, offline: bool, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_run"));
    command
        .args(args.split_whitespace())
        .current_dir(sandbox.path(""))
        .env("HF_HOME", sandbox.path("hf"))
        .env("HF_ENDPOINT", address)
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_TOKEN")
        .stdin(Stdio::null());
    command
}

const ASKED: &str = "model.path=null model.name=org/small task=saq data.path=saq.csv \
                     data.test_path=saq_test.csv quantization=none training.max_steps=2 \
                     inference.max_new_tokens=2";

#[test]
fn a_named_model_is_planned_fetched_trained_and_found_again() {
    let sandbox = Sandbox::new();
    let (address, asked) = serve(sandbox.path("model"));
    let ok = |offline: bool, args: &str| {
        let output = run(&sandbox, &address, offline, args);
        let texts = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(0), "{args}\n{texts:?}");
        texts.0.into_owned()
    };
    ok(false, &format!("plan {ASKED}"));
    assert_eq!(
        *asked.lock().unwrap(),
        ["config.json"],
        "a plan takes nothing else"
    );
    ok(false, &format!("train {ASKED} hydra.run.dir=a"));
    assert!(
        asked
            .lock()
            .unwrap()
            .contains(&"model.safetensors".to_string())
    );
    let config = sandbox.json("a/adapter/adapter_config.json");
    assert_eq!(config["base_model_name_or_path"], "org/small");
    assert!(sandbox.path("a/adapter/chat_template.jinja").exists());
    // From here on the network is not needed.
    let before = asked.lock().unwrap().len();
    for (offline, args) in [
        (true, format!("train {ASKED} hydra.run.dir=b")),
        (true, format!("eval {ASKED} adapter=a/adapter")),
        (
            false,
            format!("infer {ASKED} adapter=a/adapter model.revision={COMMIT}"),
        ),
    ] {
        ok(offline, &args);
    }
    assert_eq!(asked.lock().unwrap().len(), before);
    let weights = "adapter/adapter_model.safetensors";
    assert_eq!(
        sandbox.bytes(&format!("a/{weights}")),
        sandbox.bytes(&format!("b/{weights}"))
    );
}

#[test]
fn a_reader_that_went_away_does_not_stop_a_download() {
    let sandbox = Sandbox::new();
    let (address, _) = serve(sandbox.path("model"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&sandbox, &address, false, &format!("plan {ASKED}"))
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_model_that_cannot_be_had_leaves_no_run() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    let (address, _) = serve(sandbox.path("empty"));
    for (offline, parts) in [
        (
            true,
            [
                "model.name=org/small: config.json not in the cache",
                "HF_HUB_OFFLINE",
                "model.path=DIR",
            ],
        ),
        (
            false,
            [
                "model.name=org/small: has no config.json",
                "not a transformers model",
                "model.path=DIR",
            ],
        ),
    ] {
        let output = run(&sandbox, &address, offline, &format!("train {ASKED}"));
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(sandbox.runs().is_empty());
    }
}
