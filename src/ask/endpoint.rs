//! A model behind an OpenAI-compatible endpoint: `POST BASE/chat/completions`, as
//! OpenAI, vLLM, llama.cpp's server, Ollama and others answer it.
//!
//! Trouble that passes (429, 5xx, a broken connection) is waited for, as long as
//! `Retry-After` says or twice as long each time. The key goes to the address that was
//! named and nowhere else, and appears in no message.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::Uri;

use super::error::AskError;
use super::{Ask, Outcome};
use crate::config::types::AskConfig;
use crate::net::{self, header};
use crate::rng::Stream;

/// A longer body is no chat completion.
const MAX_BODY: u64 = 16 << 20;
/// The longest pause that a server may ask for.
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// The longest pause of our own choice.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// While it waits, a request looks this often whether all is over.
const SLICE: Duration = Duration::from_millis(50);
/// Further tries of an address that has never answered: most likely it is wrong.
const RETRIES_AT_FIRST: usize = 2;
/// Characters of a server's own words that are repeated in an error.
const EXCERPT: usize = 300;
/// The least length of a key that is worth hiding.
const SECRET: usize = 8;
/// Names the lengths of pauses among the random streams.
const PAUSES: u64 = 0x9A05;

/// Where and how to ask.
#[derive(Clone)]
pub struct Settings {
    /// The section of the config that these come from, for errors.
    pub keys: &'static str,
    /// Address up to `/v1`, without a slash at the end.
    pub base_url: String,
    pub model: String,
    /// The environment variable that a key was looked for in, and the key.
    pub key: (Option<String>, Option<String>),
    pub max_tokens: usize,
    pub temperature: Option<f64>,
    pub timeout: Duration,
    pub max_retries: usize,
    /// Requests on the way at once.
    pub concurrency: usize,
    /// Root certificates in PEM, in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// The first pause before a request is tried again.
    pub pause: Duration,
}

impl Settings {
    /// Those of a config section, with the environment that `get` reads.
    ///
    /// # Errors
    /// No address, no model, or a key that cannot be sent.
    pub fn new(
        keys: &'static str,
        config: &AskConfig,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, AskError> {
        let url = config.base_url.as_deref().unwrap_or_default().trim();
        let base_url = url.trim_end_matches('/').to_string();
        let address = || AskError::Address {
            keys,
            url: url.to_string(),
        };
        let uri: Uri = base_url.parse().map_err(|_| address())?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(address());
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(AskError::Secret { keys });
        }
        let model = config.model.clone().filter(|m| !m.trim().is_empty());
        let variable = config.api_key_env.clone().filter(|v| !v.is_empty());
        let key = variable.as_deref().and_then(&get);
        let key = key.map(|k| k.trim().to_string()).filter(|k| !k.is_empty());
        if let (Some(key), Some(variable)) = (&key, &variable)
            && !key.bytes().all(|b| b.is_ascii_graphic())
        {
            let variable = variable.clone();
            return Err(AskError::BadKey { keys, variable });
        }
        Ok(Self {
            keys,
            model: model.ok_or(AskError::NoModel {
                keys,
                url: base_url.clone(),
            })?,
            base_url,
            key: (variable, key),
            max_tokens: config.max_tokens,
            temperature: config.temperature,
            timeout: Duration::from_secs(config.timeout_s as u64),
            max_retries: config.max_retries,
            concurrency: config.concurrency,
            certificates: net::certificates(get),
            pause: Duration::from_secs(1),
        })
    }
}

/// A model behind an endpoint.
pub struct Endpoint {
    settings: Settings,
    agent: Agent,
    /// Whether the address has answered a request as an API does.
    known: AtomicBool,
    /// Newer models of OpenAI's take the limit under another name, and say so.
    renamed_limit: AtomicBool,
    /// Numbers the pauses.
    pauses: AtomicUsize,
}

/// Why a try brought no answer.
enum Stop {
    /// It may go better next time, at the earliest after so long.
    Passing(Passing, Option<Duration>),
    /// To be asked again at once, in another way.
    Again,
    Final(AskError),
}

enum Passing {
    /// Nothing came, or not all.
    Network(String),
    Status(String),
    /// Something that is no answer of an API.
    NotAnApi(String),
}

impl Endpoint {
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(settings: Settings) -> Result<Self, AskError> {
        let agent = net::agent(settings.certificates.as_deref(), settings.timeout);
        let agent = agent.map_err(|cause| AskError::Certificates {
            path: settings.certificates.clone().unwrap_or_default(),
            cause,
        })?;
        Ok(Self {
            settings,
            agent,
            known: AtomicBool::new(false),
            renamed_limit: AtomicBool::new(false),
            pauses: AtomicUsize::new(0),
        })
    }

    /// One chat, with as many tries as it takes; `stop` ends the waiting.
    fn complete(&self, messages: &[Value], stop: &AtomicBool) -> Outcome {
        let mut pause = self.settings.pause;
        let mut tries = 0;
        loop {
            tries += 1;
            let (passing, wanted) = match self.attempt(messages) {
                Ok(text) => return Ok(text),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Again) => {
                    tries -= 1;
                    continue;
                }
                Err(Stop::Passing(passing, wanted)) => (passing, wanted),
            };
            let most = match (&passing, self.known.load(Ordering::Relaxed)) {
                (Passing::Status(_), _) | (_, true) => self.settings.max_retries,
                _ => self.settings.max_retries.min(RETRIES_AT_FIRST),
            };
            if tries > most || stop.load(Ordering::Acquire) {
                return Err(self.given_up(passing, tries));
            }
            match wanted {
                Some(wanted) if wanted > MOST_PATIENCE => {
                    return Err(AskError::WaitTooLong {
                        url: self.settings.base_url.clone(),
                        seconds: wanted.as_secs(),
                        most: MOST_PATIENCE.as_secs(),
                    });
                }
                Some(wanted) => wait(wanted, stop),
                None => {
                    wait(pause.mul_f32(self.jitter()), stop);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if stop.load(Ordering::Acquire) {
                return Err(self.given_up(passing, tries));
            }
        }
    }

    /// Between 1 and 1.5, so that requests refused together do not come again together.
    fn jitter(&self) -> f32 {
        let number = self.pauses.fetch_add(1, Ordering::Relaxed);
        1.0 + Stream::new(u64::from(std::process::id()), &[PAUSES]).uniform(number as u64) / 2.0
    }

    fn attempt(&self, messages: &[Value]) -> Result<String, Stop> {
        let settings = &self.settings;
        let url = format!("{}/chat/completions", settings.base_url);
        let renamed = self.renamed_limit.load(Ordering::Relaxed);
        let limit = match renamed {
            true => "max_completion_tokens",
            false => "max_tokens",
        };
        let mut body = json!({
            "model": settings.model,
            "messages": messages,
            "stream": false,
            limit: settings.max_tokens,
        });
        if let Some(temperature) = settings.temperature {
            body["temperature"] = temperature.into();
        }
        let mut request = self
            .agent
            .post(&url)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json");
        if let Some(key) = &settings.key.1 {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let network = |e: &dyn std::fmt::Display| {
            Stop::Passing(Passing::Network(self.scrubbed(&e.to_string())), None)
        };
        let reply = request.send(body.to_string()).map_err(|e| network(&e))?;
        let status = reply.status().as_u16();
        let wanted = header(reply.headers(), "retry-after").and_then(|text| patience(&text));
        let to = header(reply.headers(), "location");
        let reader = reply.into_body().into_with_config().limit(MAX_BODY);
        let bytes = match reader.read_to_vec() {
            Ok(bytes) => bytes,
            // What an error says is of use, but the status decides.
            Err(_) if status != 200 => Vec::new(),
            Err(e) => return Err(network(&e)),
        };
        let said = || self.said(&bytes);
        let (keys, url) = (settings.keys, settings.base_url.clone());
        let error = match status {
            200 => return self.read(&bytes),
            408 | 409 | 425 | 429 | 500..=599 => {
                let words = format!("{status}{}", said());
                return Err(match out_of_credit(status, &bytes) {
                    // Waiting does not fill an account.
                    true => Stop::Final(AskError::Refused {
                        keys,
                        url,
                        status,
                        message: said(),
                    }),
                    false => Stop::Passing(Passing::Status(words), wanted),
                });
            }
            300..=399 => AskError::Redirect {
                keys,
                url,
                to: to.unwrap_or_else(|| "nowhere".to_string()),
            },
            401 | 403 => AskError::KeyRefused {
                url,
                status,
                message: said(),
                remedy: self.about_the_key(),
            },
            404 => AskError::NotFound {
                keys,
                url,
                model: settings.model.clone(),
                message: said(),
            },
            400 if !renamed && said().contains("max_completion_tokens") => {
                self.renamed_limit.store(true, Ordering::Relaxed);
                return Err(Stop::Again);
            }
            _ => AskError::Refused {
                keys,
                url,
                status,
                message: said(),
            },
        };
        Err(Stop::Final(error))
    }

    /// The text of a chat completion.
    fn read(&self, bytes: &[u8]) -> Result<String, Stop> {
        let no_api = |what: String| Stop::Passing(Passing::NotAnApi(what), None);
        let reply: Value = serde_json::from_slice(bytes).map_err(|e| {
            let begins = self.excerpt(&String::from_utf8_lossy(bytes), 60);
            no_api(format!("no JSON: {e}; it begins with '{begins}'"))
        })?;
        let Some(choice) = reply.pointer("/choices/0").and_then(Value::as_object) else {
            return Err(no_api("JSON without choices".to_string()));
        };
        self.known.store(true, Ordering::Relaxed);
        if choice.get("finish_reason").and_then(Value::as_str) == Some("length") {
            return Err(Stop::Final(AskError::Truncated {
                keys: self.settings.keys,
                limit: self.settings.max_tokens,
            }));
        }
        let message = choice.get("message").and_then(Value::as_object);
        let text = message.and_then(content).unwrap_or_default();
        if text.trim().is_empty() {
            let word = |at: &Map<String, Value>, key: &str| {
                let word = at.get(key).and_then(Value::as_str)?;
                Some(format!(" ({key}: {})", self.excerpt(word, EXCERPT)))
            };
            let why = message.and_then(|m| word(m, "refusal"));
            let why = why.or_else(|| word(choice, "finish_reason"));
            return Err(Stop::Final(AskError::NoText(why.unwrap_or_default())));
        }
        Ok(text)
    }

    fn given_up(&self, passing: Passing, tries: usize) -> AskError {
        let (keys, url) = (self.settings.keys, self.settings.base_url.clone());
        match passing {
            Passing::Network(cause) => AskError::Unreachable { keys, url, cause },
            Passing::NotAnApi(what) => AskError::NotAnApi { keys, url, what },
            Passing::Status(last) => AskError::Busy {
                keys,
                url,
                tries,
                last,
            },
        }
    }

    fn about_the_key(&self) -> String {
        let keys = self.settings.keys;
        match &self.settings.key {
            (Some(variable), Some(_)) => format!(
                "put the key of this endpoint into the environment variable {variable}, or name \
                 another variable with {keys}.api_key_env"
            ),
            (Some(variable), None) => format!(
                "no key was sent, since {variable} is not set: export {variable}=KEY, or name \
                 another variable with {keys}.api_key_env"
            ),
            (None, _) => {
                format!("no key was sent: export NAME=KEY and set {keys}.api_key_env=NAME")
            }
        }
    }

    /// What a server says of an error, for ours; without the key, which some repeat.
    fn said(&self, bytes: &[u8]) -> String {
        let text = match serde_json::from_slice::<Value>(bytes) {
            Ok(json) => ["/error/message", "/message", "/detail", "/error"]
                .into_iter()
                .find_map(|at| json.pointer(at)?.as_str().map(str::to_string))
                .unwrap_or_default(),
            // A page for browsers says nothing that helps.
            Err(_) if bytes.trim_ascii_start().starts_with(b"<") => String::new(),
            Err(_) => String::from_utf8_lossy(bytes).into_owned(),
        };
        match self.excerpt(&text, EXCERPT) {
            text if text.is_empty() => text,
            text => format!(", {text}"),
        }
    }

    /// The beginning of what a server says, on one line and without the key.
    fn excerpt(&self, text: &str, most: usize) -> String {
        let text = self.scrubbed(text);
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.retain(|c| !c.is_control());
        match line.char_indices().nth(most) {
            Some((at, _)) => format!("{}...", &line[..at]),
            None => line,
        }
    }

    fn scrubbed(&self, text: &str) -> String {
        match &self.settings.key.1 {
            // A word like `none`, for servers that want no key, is no secret.
            Some(key) if key.len() >= SECRET => text.replace(key.as_str(), "***"),
            _ => text.to_string(),
        }
    }
}

impl Ask for Endpoint {
    fn ask(&mut self, chats: &[Vec<Value>], done: &mut dyn FnMut(usize, Outcome)) {
        let this = &*self;
        let next = Mutex::new(0..chats.len());
        let stop = AtomicBool::new(false);
        let workers = this.settings.concurrency.clamp(1, chats.len().max(1));
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            for _ in 0..workers {
                let (tell, next, stop) = (tell.clone(), &next, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Acquire) {
                        // A worker that panicked held no half-done range.
                        let at = next.lock().unwrap_or_else(|e| e.into_inner()).next();
                        let Some(at) = at else { break };
                        let outcome = this.complete(&chats[at], stop);
                        let ends = matches!(&outcome, Err(error) if !error.is_of_one_chat());
                        let _ = tell.send((at, outcome));
                        // Told first: it is the reason that the others give up.
                        if ends {
                            stop.store(true, Ordering::Release);
                        }
                    }
                });
            }
            drop(tell);
            for (at, outcome) in told {
                done(at, outcome);
            }
        });
    }

    fn at_once(&self) -> usize {
        self.settings.concurrency
    }

    fn name(&self) -> String {
        format!("{} at {}", self.settings.model, self.settings.base_url)
    }
}

/// Sleeps so long, or until `stop`.
fn wait(length: Duration, stop: &AtomicBool) {
    let begun = Instant::now();
    while !stop.load(Ordering::Acquire) {
        match length.checked_sub(begun.elapsed()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(SLICE)),
            _ => return,
        }
    }
}

/// The text of a message: a string, or a list of parts of which some are text.
fn content(message: &Map<String, Value>) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            Some(texts.collect())
        }
        _ => None,
    }
}

/// `Retry-After`: seconds, or the date until which to wait (RFC 9110, 10.2.3).
fn patience(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let left = until.signed_duration_since(chrono::Utc::now());
    Some(left.to_std().unwrap_or_default())
}

/// Whether a 429 means an empty account and not haste.
fn out_of_credit(status: u16, bytes: &[u8]) -> bool {
    let reply = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let code = reply.pointer("/error/code").and_then(Value::as_str);
    status == 429 && code == Some("insufficient_quota")
}
