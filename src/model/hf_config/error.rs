//! Why a `config.json` cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{}: cannot read the model's configuration: {source}. A Hugging Face model directory holds a config.json", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}:{line}: not valid JSON: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}: `{key}` {problem}", file.display())]
    Key {
        file: PathBuf,
        key: String,
        problem: String,
    },
    #[error("{}: {what} `{found}` is not supported; supported: {supported}", file.display())]
    Unsupported {
        file: PathBuf,
        what: &'static str,
        found: String,
        supported: String,
    },
}
