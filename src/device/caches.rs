//! Where things are kept between runs: compiled kernels and tuning results of
//! cubecl, models of the Hugging Face hub.

use std::env;
use std::path::PathBuf;

use serde::Serialize;

/// A folder or file, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub path: PathBuf,
    /// Size of a file; for the hub's folder the number of models.
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

/// `kiln` in the user's cache folder.
pub fn own() -> PathBuf {
    user_cache(|name| env::var_os(name).map(PathBuf::from)).join("kiln")
}

/// `$XDG_CACHE_HOME`, else `~/.cache`.
fn user_cache(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let set = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    set.unwrap_or_else(|| {
        variable("HOME")
            .unwrap_or_else(env::temp_dir)
            .join(".cache")
    })
}

/// The hub's cache, as huggingface_hub finds it: `$HF_HUB_CACHE`, `$HF_HOME/hub`,
/// else `huggingface/hub` in the user's cache folder.
pub fn hub() -> Cache {
    let path = hub_folder(|name| env::var_os(name).map(PathBuf::from));
    let models = std::fs::read_dir(&path).ok().map(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("models--"))
            .count() as u64
    });
    Cache {
        path,
        holds: models,
    }
}

fn hub_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    if let Some(path) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return path;
    }
    let home = variable("HF_HOME");
    home.unwrap_or_else(|| user_cache(&variable).join("huggingface"))
        .join("hub")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_hub_follows_its_variables() {
        let with = |set: &[(&str, &str)]| {
            hub_folder(|name| {
                let found = set.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        let home = ("HOME", "/h");
        assert_eq!(with(&[home]), Path::new("/h/.cache/huggingface/hub"));
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(with(&[home, xdg]), Path::new("/x/huggingface/hub"));
        assert_eq!(with(&[home, xdg, ("HF_HOME", "/f")]), Path::new("/f/hub"));
        assert_eq!(
            with(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]),
            Path::new("/c")
        );
    }
}
