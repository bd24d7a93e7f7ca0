//! A small HTTP server on 127.0.0.1 that answers as a test says. Each connection has
//! one request and a thread of its own.
#![allow(dead_code)] // Each user of it uses some.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request that came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// An answer to give.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The connection is closed after so many bytes of the body.
    pub cut: Option<usize>,
}

pub struct Server {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` gets the request and how many of the same path came before it.
    pub fn start(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let request = read_request(&stream);
                    let before = {
                        let mut seen = seen.lock().unwrap();
                        let same = |a: &&Asked| a.path == request.path;
                        let before = seen.iter().filter(same).count();
                        seen.push(request.clone());
                        before
                    };
                    // A client that has enough closes first.
                    let _ = send(stream, &answer(&request, before));
                });
            }
        });
        Self { address, asked }
    }

    /// The paths asked for, without what stands before the file.
    pub fn files(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let name = |a: &Asked| a.path.rsplit('/').next().unwrap_or("").to_string();
        asked.iter().map(name).collect()
    }

    /// The requests for a file.
    pub fn of(&self, file: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|a| a.path.ends_with(file))
            .cloned()
            .collect()
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Answer {
    /// A status with a body and nothing else.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    /// A chat completion that says `content`.
    pub fn chat(content: &str) -> Self {
        let reply = serde_json::json!({
            "object": "chat.completion",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
            }],
        });
        Self::new(200, reply.to_string())
    }
}

impl Asked {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The content of the last message of a chat.
    pub fn last_message(&self) -> String {
        let messages = self.json()["messages"].clone();
        let last = messages.as_array().and_then(|m| m.last().cloned());
        last.unwrap()["content"].as_str().unwrap().to_string()
    }
}

fn read_request(stream: &TcpStream) -> Asked {
    let mut input = BufReader::new(stream);
    let mut lines = input.by_ref().lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or("").to_string();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_string()))
        })
        .collect();
    let length = headers.get("content-length").and_then(|n| n.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = input.read_exact(&mut body);
    Asked {
        path,
        headers,
        body,
    }
}

fn send(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes())?;
    let end = answer.cut.unwrap_or(answer.body.len());
    stream.write_all(&answer.body[..end])?;
    stream.flush()
}
