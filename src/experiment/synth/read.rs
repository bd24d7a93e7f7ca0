//! The abstracts of a file.

use std::path::Path;

use indexmap::IndexMap;
use sha2::{Digest, Sha256};

use crate::config::types::{DataConfig, DataFormat, TaskKind};
use crate::data::{Answers, DataError, Want, read_examples};
use crate::digest::hex;
use crate::experiment::error::SynthError;

/// One abstract.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Abstract {
    /// The file's own id, else its number from 1.
    pub id: String,
    pub row: usize,
    pub text: String,
    /// Tells it from others, wherever it stands.
    pub hash: String,
}

/// The abstracts at `path`, and what was wrong with rows that were left out.
///
/// # Errors
/// The file cannot be read as abstracts.
pub(super) fn read(
    path: &Path,
    data: &DataConfig,
) -> Result<(Vec<Abstract>, Vec<DataError>), SynthError> {
    let named = data.columns.get("text").cloned().flatten();
    let with = |column: Option<String>| {
        let data = DataConfig {
            // The task's other columns are not those of this file.
            columns: IndexMap::from([
                ("text".to_string(), column),
                ("id".to_string(), data.columns.get("id").cloned().flatten()),
            ]),
            ..data.clone()
        };
        read_examples(path, &data, Want::new(TaskKind::Text, Answers::Optional))
    };
    let read = match with(named.clone()) {
        Err(DataError::Column { field: "text", .. }) if named.is_none() => {
            with(Some("abstract".to_string())).map_err(|second| match second {
                DataError::Column { .. } => with(None).err().unwrap_or(second),
                other => other,
            })?
        }
        read => read?,
    };
    let mut abstracts = Vec::with_capacity(read.examples.len());
    for example in read.examples {
        let Some(text) = example.text.map(|text| text.trim().to_string()) else {
            let format = match data.format {
                Some(DataFormat::Tokens) | None => "tokens or chats",
                Some(_) => "chats",
            };
            let path = path.to_path_buf();
            return Err(SynthError::NoText { path, format });
        };
        let hash = hex(&Sha256::digest(text.as_bytes())[..16]);
        abstracts.push(Abstract {
            id: example.id,
            row: example.row,
            text,
            hash,
        });
    }
    Ok((abstracts, read.skipped))
}
