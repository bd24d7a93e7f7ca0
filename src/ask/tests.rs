//! The endpoint against a small server, and the local model against the engine.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Ask, AskError, Endpoint, Outcome, Settings, first_json, without_thoughts};
use crate::config::types::AskConfig;
use crate::data::chat::message;
use crate::test_server::{Answer, Server};

const KEY: &str = "sk-very-secret";

fn config(url: &str) -> AskConfig {
    AskConfig {
        base_url: Some(url.to_string()),
        model: Some("writer".to_string()),
        path: None,
        api_key_env: Some("THE_KEY".to_string()),
        max_tokens: 50,
        temperature: Some(0.5),
        timeout_s: 5,
        max_retries: 3,
        concurrency: 3,
    }
}

fn settings(config: &AskConfig) -> Settings {
    let env = BTreeMap::from([("THE_KEY", KEY)]);
    let get = |name: &str| env.get(name).map(ToString::to_string);
    let mut settings = Settings::new("synth", config, get).unwrap();
    settings.pause = Duration::from_millis(5);
    settings
}

fn ask_all(server: &Server, chats: usize) -> Vec<(usize, Outcome)> {
    let url = format!("{}/v1/", server.address);
    ask_with(settings(&config(&url)), chats)
}

fn ask_with(settings: Settings, chats: usize) -> Vec<(usize, Outcome)> {
    let chats: Vec<Vec<Value>> = (0..chats)
        .map(|i| {
            vec![
                message("system", "Be brief."),
                message("user", &i.to_string()),
            ]
        })
        .collect();
    let mut told = Vec::new();
    let mut endpoint = Endpoint::new(settings).unwrap();
    endpoint.ask(&chats, &mut |at, outcome| told.push((at, outcome)));
    told.sort_by_key(|(at, _)| *at);
    told
}

fn ask(server: &Server) -> Outcome {
    ask_all(server, 1).remove(0).1
}

#[test]
fn chats_are_asked_side_by_side_as_the_api_wants_them() {
    let busy = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&busy);
    let server = Server::start(move |asked, _| {
        let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
        seen.1.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(40));
        seen.0.fetch_sub(1, Ordering::SeqCst);
        Answer::chat(&format!("said {}", asked.last_message()))
    });
    let told = ask_all(&server, 10);
    assert_eq!(told.len(), 10);
    for (i, (at, outcome)) in told.into_iter().enumerate() {
        assert_eq!((at, outcome.unwrap()), (i, format!("said {i}")));
    }
    let most = busy.1.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
    let asked = server.of("/v1/chat/completions");
    assert_eq!(asked.len(), 10);
    let first = asked.iter().find(|a| a.last_message() == "0").unwrap();
    assert_eq!(first.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(
        first.json(),
        json!({
            "model": "writer", "stream": false, "max_tokens": 50, "temperature": 0.5,
            "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "0"},
            ],
        })
    );
}

#[test]
fn what_passes_is_waited_for_as_long_as_the_server_says() {
    let begun = Instant::now();
    let server = Server::start(|_, before| match before {
        0 => Answer {
            headers: vec![("Retry-After", "1".to_string())],
            ..Answer::new(429, "")
        },
        1 => Answer::new(500, "<html>oops</html>"),
        2 => Answer::new(503, ""),
        _ => Answer::chat("at last"),
    });
    assert_eq!(ask(&server).unwrap(), "at last");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.count(), 4);
    // A date that has passed is no wait; one far away is not waited for.
    let server = Server::start(|_, before| Answer {
        headers: vec![(
            "Retry-After",
            match before {
                0 => "Wed, 21 Oct 2015 07:28:00 GMT",
                _ => "3600",
            }
            .to_string(),
        )],
        ..Answer::new(503, "")
    });
    let error = ask(&server).unwrap_err();
    assert!(
        matches!(error, AskError::WaitTooLong { seconds: 3600, .. }),
        "{error}"
    );
    assert_eq!(server.count(), 2);
}

#[test]
fn what_concerns_all_chats_ends_the_waiting_of_the_others() {
    let begun = Instant::now();
    let server = Server::start(|asked, _| match asked.last_message().as_str() {
        "0" => {
            // The other one waits by now.
            std::thread::sleep(Duration::from_millis(300));
            Answer::new(401, "")
        }
        _ => Answer {
            headers: vec![("Retry-After", "30".to_string())],
            ..Answer::new(429, "")
        },
    });
    let mut settings = settings(&config(&format!("{}/v1", server.address)));
    settings.concurrency = 2;
    let chats: Vec<Vec<Value>> = ["0", "1", "2"].map(|i| vec![message("user", i)]).into();
    let mut told = Vec::new();
    let mut endpoint = Endpoint::new(settings).unwrap();
    endpoint.ask(&chats, &mut |_, outcome| told.push(outcome.unwrap_err()));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(server.count(), 2, "the one that waited is not sent again");
    // The reason is told before those who gave up for it.
    assert!(
        matches!(told[0], AskError::KeyRefused { .. }),
        "{}",
        told[0]
    );
    assert!(matches!(told[1], AskError::Busy { .. }), "{}", told[1]);
    assert_eq!(told.len(), 2);
}

#[test]
fn trouble_that_stays_is_given_up_and_told() {
    let server =
        Server::start(|_, _| Answer::new(500, r#"{"error": {"message": "out of memory"}}"#));
    let error = ask(&server).unwrap_err().to_string();
    assert_eq!(server.count(), 4, "one try and three more");
    for part in ["after 4 tries (500, out of memory)", "synth.max_retries"] {
        assert!(error.contains(part), "{error}");
    }
    // An empty account is not waited for.
    let body = r#"{"error": {"message": "check your plan", "code": "insufficient_quota"}}"#;
    let server = Server::start(move |_, _| Answer::new(429, body));
    let error = ask(&server).unwrap_err().to_string();
    assert!(error.contains("429, check your plan"), "{error}");
    assert_eq!(server.count(), 1);
    // A port that nobody listens on.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let told = ask_with(settings(&config(&format!("http://{gone}/v1"))), 5);
    for (_, outcome) in &told {
        let error = outcome.as_ref().unwrap_err();
        assert!(matches!(error, AskError::Unreachable { .. }), "{error}");
    }
    assert!(told.len() <= 3, "the others are not tried: {}", told.len());
}

#[test]
fn a_silent_server_is_not_waited_for_without_end() {
    let server = Server::start(|_, before| {
        if before == 0 {
            std::thread::sleep(Duration::from_secs(4));
        }
        Answer::chat("late")
    });
    let mut config = config(&format!("{}/v1", server.address));
    config.timeout_s = 1;
    let begun = Instant::now();
    assert_eq!(ask_with(settings(&config), 1).remove(0).1.unwrap(), "late");
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(server.count(), 2);
}

#[test]
fn what_is_no_answer_is_an_error_that_names_the_way_out() {
    let cut = Answer {
        cut: Some(20),
        ..Answer::chat("this never arrives whole")
    };
    let reply = |value: Value| Answer::new(200, value.to_string());
    let choice = move |reason: &str, message: Value| {
        reply(json!({"choices": [{"finish_reason": reason, "message": message}]}))
    };
    let cases: Vec<(Answer, usize, &[&str])> = vec![
        (cut, 3, &["cannot be reached", "synth.base_url"]),
        (
            Answer::new(200, "<html>Welcome</html>"),
            3,
            &[
                "no chat completion",
                "begins with '<html>Welcome",
                "synth.base_url",
            ],
        ),
        (reply(json!({"answer": "42"})), 3, &["JSON without choices"]),
        (
            choice("length", json!({"content": "half a"})),
            1,
            &["cut off at synth.max_tokens=50", "raise it"],
        ),
        (
            choice("content_filter", json!({"content": null})),
            1,
            &["no text in the answer (finish_reason: content_filter)"],
        ),
        (
            choice("stop", json!({"content": null, "refusal": "I will not."})),
            1,
            &["no text in the answer (refusal: I will not.)"],
        ),
        (
            Answer::new(404, r#"{"error": {"message": "no model writer"}}"#),
            1,
            &[
                "404, no model writer",
                "synth.model=writer",
                "/chat/completions",
            ],
        ),
        (
            Answer::new(400, r#"{"detail": "max_tokens is too large"}"#),
            1,
            &["400, max_tokens is too large", "synth.max_tokens"],
        ),
    ];
    for (answer, count, parts) in cases {
        let server = Server::start(move |_, _| answer.clone());
        let error = ask(&server).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(server.count(), count, "{error}");
    }
    let parts =
        json!({"content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]});
    let server = Server::start(move |_, _| choice("stop", parts.clone()));
    assert_eq!(ask(&server).unwrap(), "in parts");
}

#[test]
fn the_key_stays_where_it_belongs() {
    let refused = format!(r#"{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}"#);
    let server = Server::start(move |_, _| Answer::new(401, refused.clone()));
    let told = ask_all(&server, 9);
    assert!(
        told.len() <= 3,
        "a refused key is not tried on: {}",
        told.len()
    );
    let error = told[0].1.as_ref().unwrap_err().to_string();
    assert!(
        error.contains("(401, Incorrect API key provided: ***)"),
        "{error}"
    );
    assert!(error.contains("THE_KEY"), "{error}");
    assert!(!error.contains(KEY));
    // Nor a part of it where a long message is cut.
    let long = format!("{}{KEY}", "x".repeat(295));
    let server = Server::start(move |_, _| Answer::new(401, long.clone()));
    let error = ask(&server).unwrap_err().to_string();
    assert!(!error.contains("sk-") && error.contains("***"), "{error}");
    // Without a key none is sent, and the error says so.
    let server = Server::start(|_, _| Answer::new(401, ""));
    let config_without = AskConfig {
        api_key_env: Some("NOT_SET".to_string()),
        ..config(&format!("{}/v1", server.address))
    };
    let error = ask_with(settings(&config_without), 1)
        .remove(0)
        .1
        .unwrap_err();
    assert!(error.to_string().contains("export NOT_SET=KEY"), "{error}");
    assert!(!server.of("")[0].headers.contains_key("authorization"));
    // Nor does it follow a redirect.
    let thief = Server::start(|_, _| Answer::chat("thanks"));
    let to = format!("{}/v1/chat/completions", thief.address);
    let server = Server::start(move |_, _| Answer {
        headers: vec![("Location", to.clone())],
        ..Answer::new(307, "")
    });
    let error = ask(&server).unwrap_err();
    assert!(matches!(error, AskError::Redirect { .. }), "{error}");
    assert_eq!(thief.count(), 0);
}

#[test]
fn a_model_that_calls_the_limit_otherwise_gets_it_so() {
    let server = Server::start(|asked, _| match asked.json().get("max_completion_tokens") {
        Some(limit) if *limit == 50 => Answer::chat("fine"),
        _ => Answer::new(
            400,
            r#"{"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}"#,
        ),
    });
    let mut settings = settings(&config(&format!("{}/v1", server.address)));
    settings.concurrency = 1;
    let told = ask_with(settings, 3);
    assert!(
        told.iter()
            .all(|(_, outcome)| outcome.as_deref().is_ok_and(|t| t == "fine"))
    );
    assert_eq!(server.count(), 4, "the other name is found out once");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let none = |_: &str| None;
    for url in ["", "here", "ftp://x/v1", "http://", "127.0.0.1:8000/v1"] {
        let error = Settings::new("judge", &config(url), none).err().unwrap();
        assert!(matches!(error, AskError::Address { .. }), "{url}: {error}");
        assert!(error.to_string().starts_with("judge.base_url="), "{error}");
    }
    let error = Settings::new("judge", &config("http://me:hush@h/v1"), none).err();
    let error = error.unwrap().to_string();
    assert!(
        error.contains("judge.api_key_env") && !error.contains("hush"),
        "{error}"
    );
    let nameless = AskConfig {
        model: None,
        ..config("http://h/v1")
    };
    let error = Settings::new("judge", &nameless, none).err().unwrap();
    assert!(error.to_string().contains("judge.model=NAME"), "{error}");
    let broken = |_: &str| Some("two\nlines".to_string());
    let error = Settings::new("judge", &config("http://h/v1"), broken)
        .err()
        .unwrap();
    assert!(error.to_string().contains("THE_KEY"), "{error}");
    assert!(!error.to_string().contains("lines"), "{error}");
}

#[test]
fn json_is_found_among_words() {
    let any = |text: &str| first_json(text, |_| true);
    assert_eq!(
        any("Sure!\n```json\n{\"a\": [1]}\n```\nDone."),
        Some(json!({"a": [1]}))
    );
    assert_eq!(any("{broken {\"a\": 1} "), Some(json!({"a": 1})));
    assert_eq!(any("nothing { here"), None);
    let object = |text: &str| first_json(text, Value::is_object);
    assert_eq!(object("see [1]: {\"a\": 2}"), Some(json!({"a": 2})));
    assert_eq!(any(&"[".repeat(100_000)), None);
    for (text, left) in [
        ("<think>[[A]] or {}?</think> B", "B"),
        ("hm</think>B", "B"),
        ("a <think>b</think> c <think>d", "a  c"),
        ("plain", "plain"),
    ] {
        assert_eq!(without_thoughts(text), left);
    }
}
