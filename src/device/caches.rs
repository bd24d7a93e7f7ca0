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
    own_by(|name| env::var_os(name).map(PathBuf::from))
}

/// [`own`] by the variables of `get`. An empty or relative folder counts as none: it
/// would lie wherever the program was started.
fn own_by(get: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let given = |name: &str| get(name).filter(|path| path.is_absolute());
    let folder = given("XDG_CACHE_HOME")
        .unwrap_or_else(|| given("HOME").unwrap_or_else(env::temp_dir).join(".cache"));
    folder.join("kiln")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_empty_or_relative_are_none() {
        let temporary = env::temp_dir().join(".cache/kiln");
        let temporary = temporary.to_str().unwrap();
        for (caches, home, own) in [
            (Some("/c"), Some("/h"), "/c/kiln"),
            (Some("c"), Some("/h"), "/h/.cache/kiln"),
            (Some(""), Some("/h"), "/h/.cache/kiln"),
            (None, Some("/h"), "/h/.cache/kiln"),
            (None, Some(""), temporary),
            (Some("c"), Some("h"), temporary),
            (None, None, temporary),
        ] {
            let get = |name: &str| match name {
                "HOME" => home.map(PathBuf::from),
                _ => caches.map(PathBuf::from),
            };
            assert_eq!(own_by(get), PathBuf::from(own), "{caches:?} {home:?}");
        }
    }
}
