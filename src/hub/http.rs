//! One GET to the hub. Redirects are followed here and not by the client, because the
//! headers that describe a file come with the redirect, and because the token must
//! not go to another host.

use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::error::HubError;
use super::settings::Settings;
use crate::net;
pub(super) use crate::net::header;

/// No answer for so long is taken for a broken connection.
const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 8;

/// What the hub says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub commit: Option<String>,
    pub etag: Option<String>,
    pub size: Option<u64>,
}

/// The end of a chain of redirects.
pub(super) struct Reply {
    pub response: Response<Body>,
    /// Where it came from.
    pub url: String,
    pub meta: Meta,
}

/// Why there is no reply.
pub(super) enum NoReply {
    /// Network trouble, which may pass.
    Network(String),
    Redirects(String),
}

pub(super) struct Client {
    agent: Agent,
    token: Option<String>,
    /// Scheme, host and port of the hub.
    home: String,
}

impl Client {
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, HubError> {
        let certificates = settings.certificates.as_deref();
        let agent = net::agent(certificates, SILENCE)
            .map_err(|e| HubError::io("read", certificates.unwrap_or(Path::new("")), e))?;
        Ok(Self {
            agent,
            token: settings.token.clone(),
            home: origin(&settings.endpoint).unwrap_or_default(),
        })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// GETs `url`, from byte `from` on.
    pub fn get(&self, url: &str, from: u64) -> Result<Reply, NoReply> {
        let mut url = url.to_string();
        let mut meta = Meta::default();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(&url);
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            if let Some(token) = &self.token
                && origin(&url).is_some_and(|origin| origin == self.home)
            {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request
                .call()
                .map_err(|e| NoReply::Network(e.to_string()))?;
            note(&mut meta, response.headers());
            let target = header(response.headers(), "location");
            match (response.status().is_redirection(), target) {
                (true, Some(target)) => {
                    url = absolute(&url, &target).ok_or(NoReply::Redirects(target))?;
                }
                _ => {
                    return Ok(Reply {
                        response,
                        url,
                        meta,
                    });
                }
            }
        }
        Err(NoReply::Redirects(url))
    }
}

/// Adds what these headers say; what came first stays, as it came from the hub and
/// not from a file store behind it.
fn note(meta: &mut Meta, headers: &HeaderMap) {
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
    let etag = etag.map(|e| e.trim_start_matches("W/").trim_matches('"').to_string());
    let size = header(headers, "x-linked-size").and_then(|size| size.parse().ok());
    meta.commit = meta
        .commit
        .take()
        .or_else(|| header(headers, "x-repo-commit"));
    meta.etag = meta.etag.take().or(etag);
    meta.size = meta.size.or(size);
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(match scheme.as_str() {
        "https" => 443,
        _ => 80,
    });
    Some(format!(
        "{scheme}://{}:{port}",
        uri.host()?.to_ascii_lowercase()
    ))
}

/// The target of a redirect from `url`. One from https to http is refused.
fn absolute(url: &str, target: &str) -> Option<String> {
    let from: Uri = url.parse().ok()?;
    let secure = from.scheme_str() == Some("https");
    if target.starts_with("http://") && secure {
        return None;
    }
    if target.starts_with("http://") || target.starts_with("https://") {
        return Some(target.to_string());
    }
    let root = format!("{}://{}", from.scheme_str()?, from.authority()?);
    match target.strip_prefix("//") {
        Some(rest) => Some(format!("{}://{rest}", from.scheme_str()?)),
        None if target.starts_with('/') => Some(format!("{root}{target}")),
        None => {
            let (folder, _) = from.path().rsplit_once('/')?;
            Some(format!("{root}{folder}/{target}"))
        }
    }
}
