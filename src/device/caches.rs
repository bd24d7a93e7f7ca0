//! Where compiled kernels and tuning results of cubecl are kept between runs.

use std::env;
use std::path::PathBuf;

use serde::Serialize;

/// A folder or file, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub path: PathBuf,
    /// Size of a file; of a folder of models their number.
    pub holds: Option<u64>,
}

/// The database in which compiled kernels and what autotune found are kept
/// between runs.
pub fn kernels() -> Cache {
    let path = own().join("default.db");
    Cache {
        holds: std::fs::metadata(&path).ok().map(|file| file.len()),
        path,
    }
}

/// `kiln` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`.
pub fn own() -> PathBuf {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let set = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let folder = set.unwrap_or_else(|| {
        variable("HOME")
            .unwrap_or_else(env::temp_dir)
            .join(".cache")
    });
    folder.join("kiln")
}
