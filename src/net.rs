//! What every request over the network shares: limits of time, certificates, and that
//! the client follows no redirect by itself, so that a key or token never travels to
//! another host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::http::HeaderMap;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

const CONNECT: Duration = Duration::from_secs(15);

/// A client that gives up a connection on which nothing comes for `silence`. A status
/// that is no success is a reply like any other.
///
/// # Errors
/// The file of root certificates (PEM) cannot be read.
pub fn agent(certificates: Option<&Path>, silence: Duration) -> io::Result<Agent> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = certificates {
        let pem = fs::read(path)?;
        let certificates: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        tls = tls.root_certs(RootCerts::from(certificates));
    }
    Ok(Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build()
        .new_agent())
}

/// The file of root certificates that the environment names, as the Python tools read it.
pub fn certificates(get: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]
        .into_iter()
        .filter_map(get)
        .find(|path| !path.trim().is_empty())
        .map(PathBuf::from)
}

/// A header as text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_string)
}
