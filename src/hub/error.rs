//! Why a model cannot be had by its name, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A failure of the cache or of the hub. Each names the model and the way out.
#[derive(Debug, Error)]
pub enum HubError {
    #[error(
        "model.name={0}: is not a name on the hub: write ORGANISATION/MODEL, or give a local directory with model.path=DIR"
    )]
    Name(String),
    #[error(
        "model.revision={0}: is not a revision: name a branch, a tag or a commit, or leave it null for main"
    )]
    Revision(String),
    #[error(
        "model.name={model}: {files} not in the cache ({cache}), and HF_HUB_OFFLINE=1 forbids asking the hub: unset HF_HUB_OFFLINE, or give a local directory with model.path=DIR",
        cache = cache.display()
    )]
    Offline {
        model: String,
        files: String,
        cache: PathBuf,
    },
    #[error(
        "model.name={model}: {page} does not exist, or is private{}: check the name, set HF_TOKEN=... of an account that may see it, or give a local directory with model.path=DIR",
        if *token { " and closed to your token" } else { "" }
    )]
    NotFound {
        model: String,
        page: String,
        token: bool,
    },
    #[error(
        "model.name={model}: is a gated model{}: accept its licence on {page}, then set HF_TOKEN=... to a token of that account, or give a local directory with model.path=DIR",
        if *token { ", and the account of your token has no access" } else { "" }
    )]
    Gated {
        model: String,
        page: String,
        token: bool,
    },
    #[error(
        "model.name={model}: the hub refused the request ({status}{message}): check HF_TOKEN, or give a local directory with model.path=DIR"
    )]
    Refused {
        model: String,
        status: u16,
        message: String,
    },
    #[error(
        "model.name={model}: has no revision '{revision}': set model.revision to a branch, tag or commit of {page}, or to null"
    )]
    NoRevision {
        model: String,
        revision: String,
        page: String,
    },
    #[error(
        "model.name={model}: has no config.json, so it is not a transformers model: choose one that is, or give a local directory with model.path=DIR"
    )]
    NoConfig { model: String },
    #[error(
        "model.name={model}: has no safetensors weights: choose a model that has, or convert it and give its directory with model.path=DIR"
    )]
    NoWeights { model: String },
    #[error(
        "model.name={model}: model.safetensors.index.json names {file}, which the model does not have: choose another model.revision, or give a local directory with model.path=DIR"
    )]
    NoFile { model: String, file: String },
    #[error(
        "model.name={model}: not in the cache, and {host} cannot be reached: {cause}; check the network (HTTPS_PROXY, HF_ENDPOINT), or give a local directory with model.path=DIR"
    )]
    Unreachable {
        model: String,
        host: String,
        cause: String,
    },
    #[error(
        "model.name={model}: the download of {file} broke off ({cause}): run the same command again, it goes on where it stopped"
    )]
    Broken {
        model: String,
        file: String,
        cause: String,
    },
    #[error(
        "model.name={model}: {file} arrived damaged ({what}) and was removed: run the same command again; if it happens again, set HF_ENDPOINT to another mirror"
    )]
    Damaged {
        model: String,
        file: String,
        what: String,
    },
    #[error(
        "model.name={model}: {endpoint} does not answer like a Hugging Face hub ({what}): check HF_ENDPOINT"
    )]
    NotAHub {
        model: String,
        endpoint: String,
        what: String,
    },
    #[error(
        "{path}: {what}: remove the file, and it is fetched again",
        path = path.display()
    )]
    BadIndex { path: PathBuf, what: String },
    #[error(
        "{path}: cannot {action}: {error}: check its permissions and the free space, or move the cache with HF_HOME=DIR",
        path = path.display()
    )]
    Io {
        path: PathBuf,
        action: &'static str,
        error: io::Error,
    },
}

impl HubError {
    /// The message where `key`, which takes a name and a directory alike, names the
    /// model.
    pub fn of_key(&self, key: &str) -> String {
        self.to_string()
            .replace("model.name=", &format!("{key}="))
            .replace("model.path=DIR", &format!("{key}=DIR"))
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            error,
        }
    }
}
