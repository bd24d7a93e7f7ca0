//! The files of an adapter directory, opened so that they belong to one adapter also where
//! another takes its place meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{CONFIG_FILE, PeftError, WEIGHTS_FILE};
use crate::model::checkpoint::{Checkpoint, CheckpointError};

/// How PEFT saved weights before safetensors.
const PICKLE: &str = "adapter_model.bin";

/// A directory that stays the same one whatever is put in its place.
struct Opened {
    handle: Option<File>,
    /// Where its files are found.
    path: PathBuf,
}

impl Opened {
    /// Where there is no `/proc`, or the directory can only be passed through, its own path
    /// has to do.
    fn new(dir: &Path) -> Self {
        let handle = match dir.is_dir() {
            true => File::open(dir).ok(),
            false => None,
        };
        let path = handle
            .as_ref()
            .map(|handle| PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd())))
            .filter(|path| path.is_dir())
            .unwrap_or_else(|| dir.to_path_buf());
        Self { handle, path }
    }

    /// Whether another directory, or none, has its name now.
    fn is_replaced(&self, dir: &Path) -> bool {
        let Some(Ok(own)) = self.handle.as_ref().map(File::metadata) else {
            return false;
        };
        !fs::metadata(dir).is_ok_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino()))
    }
}

/// The text of the configuration and the weights beside it, both of one adapter also where
/// it is replaced meanwhile. The configuration is to be looked at first, so that the weights
/// come with their own error.
pub(super) fn open_both(dir: &Path) -> Result<(String, Result<Checkpoint, PeftError>), PeftError> {
    const TRIES: usize = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        let opened = Opened::new(dir);
        let text = fs::read_to_string(opened.path.join(CONFIG_FILE));
        let weights = open_weights(&opened.path, dir);
        // What was replaced is removed, perhaps before both were open.
        let failed = text.is_err() || weights.is_err();
        if failed && tries < TRIES && opened.is_replaced(dir) {
            continue;
        }
        let text = text.map_err(|source| PeftError::Read {
            file: dir.join(CONFIG_FILE),
            source,
        })?;
        return Ok((text, weights));
    }
}

/// The weights of the adapter at `dir`, found at `place`.
fn open_weights(place: &Path, dir: &Path) -> Result<Checkpoint, PeftError> {
    let file = dir.join(WEIGHTS_FILE);
    if !place.join(WEIGHTS_FILE).is_file() {
        if place.join(PICKLE).is_file() {
            return Err(PeftError::Weights {
                file: dir.join(PICKLE),
                problem: format!(
                    "is a pickle, which is not read: load the adapter with PEFT and save it again \
                     (save_pretrained), which writes {WEIGHTS_FILE}"
                ),
            });
        }
        return Err(PeftError::Read {
            file,
            source: io::ErrorKind::NotFound.into(),
        });
    }
    Checkpoint::open_single(&place.join(WEIGHTS_FILE)).map_err(|error| named(error, &file))
}

/// The error with the name that the user knows the file by.
pub(super) fn named(mut error: CheckpointError, file: &Path) -> PeftError {
    match &mut error {
        CheckpointError::NoWeights { dir: place, .. }
        | CheckpointError::Missing { dir: place, .. }
        | CheckpointError::Io { file: place, .. }
        | CheckpointError::Damaged { file: place, .. }
        | CheckpointError::Index { file: place, .. }
        | CheckpointError::Shape { file: place, .. }
        | CheckpointError::Dtype { file: place, .. }
        | CheckpointError::NotFinite { file: place, .. } => *place = file.to_path_buf(),
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, config: &str) {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join(CONFIG_FILE), config).unwrap();
        fs::write(dir.join(WEIGHTS_FILE), "torn").unwrap();
    }

    #[test]
    fn an_opened_adapter_stays_the_one_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, aside) = (temp.path().join("adapter"), temp.path().join("aside"));
        put(&dir, "old");
        let opened = Opened::new(&dir);
        assert!(!opened.is_replaced(&dir));
        fs::rename(&dir, &aside).unwrap();
        put(&dir, "new");
        assert!(opened.is_replaced(&dir));
        if Path::new("/proc/self/fd").is_dir() {
            let text = fs::read_to_string(opened.path.join(CONFIG_FILE)).unwrap();
            assert_eq!(text, "old");
        }
    }

    #[test]
    fn errors_name_the_path_of_the_user() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("adapter");
        put(&dir, "{}");
        let (text, weights) = open_both(&dir).unwrap();
        assert_eq!(text, "{}");
        let starts = |error: PeftError, file: &str| {
            let text = error.to_string();
            let path = dir.join(file).display().to_string();
            assert!(text.starts_with(&format!("{path}: ")), "{text}");
        };
        starts(weights.unwrap_err(), WEIGHTS_FILE);
        fs::rename(dir.join(WEIGHTS_FILE), dir.join(PICKLE)).unwrap();
        starts(open_both(&dir).unwrap().1.unwrap_err(), PICKLE);
        fs::remove_file(dir.join(CONFIG_FILE)).unwrap();
        starts(open_both(&dir).unwrap_err(), CONFIG_FILE);
    }
}
