//! Why a `config.json` cannot be used.

use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{}: cannot read the model's configuration: {source}. A Hugging Face model directory holds a config.json{}", file.display(), of_hub(file))]
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

/// What to do where the directory may be meant as a name on the hub.
fn of_hub(file: &Path) -> String {
    let name = file.parent().unwrap_or(file);
    let parts: Vec<Component<'_>> = name.components().collect();
    match parts[..] {
        [Component::Normal(_), Component::Normal(_)] if !name.exists() => format!(
            "; a model of the Hugging Face hub is model.path=null model.name={}",
            name.display()
        ),
        _ => String::new(),
    }
}
