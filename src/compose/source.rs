//! The search path: where configs and groups are looked for.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::Problem;

/// A larger file is no config: it is read whole and kept.
const MAX_BYTES: u64 = 64 << 20;

/// One entry of the search path.
#[derive(Clone, Debug)]
pub struct Source {
    /// Who put it there: `main`, `command-line`, `hydra.searchpath in main`, ...
    pub provider: String,
    pub tree: Tree,
    /// The group under which the tree appears: with `Some("experiment")` its
    /// file `a.yaml` is the option `a` of the group `experiment`.
    pub mount: Option<String>,
    /// The directory as a config names it, where that is another than `tree` says.
    pub written: Option<String>,
}

/// The files of a source.
#[derive(Clone, Debug)]
pub enum Tree {
    Dir(PathBuf),
    /// Sorted pairs of relative path (with `.yaml`) and text.
    Embedded(&'static [(&'static str, &'static str)]),
}

/// A file found in a source.
pub(crate) struct FoundFile {
    pub text: String,
    /// For origins: the path on disk, or the provider and the path in its tree.
    pub path: PathBuf,
}

impl Source {
    /// A directory.
    pub fn dir(provider: impl Into<String>, path: impl Into<PathBuf>) -> Source {
        Source {
            provider: provider.into(),
            tree: Tree::Dir(path.into()),
            mount: None,
            written: None,
        }
    }

    /// Whether the directory exists. Embedded trees always do.
    pub fn available(&self) -> bool {
        match &self.tree {
            Tree::Dir(path) => path.is_dir(),
            Tree::Embedded(_) => true,
        }
    }

    /// `(scheme, path)` as `--info searchpath` and `hydra.runtime.config_sources` show it.
    pub fn location(&self) -> (&'static str, String) {
        match &self.tree {
            Tree::Dir(_) => match &self.written {
                Some(written) => ("file", written.clone()),
                None => self.place(),
            },
            Tree::Embedded(_) => self.place(),
        }
    }

    /// The same with whole paths, for messages.
    pub(crate) fn place(&self) -> (&'static str, String) {
        match &self.tree {
            Tree::Dir(path) => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                ("file", absolute.display().to_string())
            }
            Tree::Embedded(_) => ("pkg", format!("{}.conf", self.provider)),
        }
    }

    /// Whether the config file at `path`, as origins name it, is one of this tree.
    pub fn holds(&self, path: &Path) -> bool {
        match &self.tree {
            Tree::Dir(dir) => path.starts_with(dir),
            Tree::Embedded(_) => path.starts_with(format!("{}:", self.provider)),
        }
    }

    /// The path inside the tree, when the mount is at or above it.
    fn inside<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.mount.as_deref() {
            None => Some(path),
            Some(mount) => {
                let rest = path.strip_prefix(mount)?;
                if rest.is_empty() {
                    Some(rest)
                } else {
                    rest.strip_prefix('/')
                }
            }
        }
    }

    /// Whether a config file exists; `path` has its `.yaml`.
    pub(crate) fn has_file(&self, path: &str) -> bool {
        let Some(inside) = self.inside(path) else {
            return false;
        };
        match &self.tree {
            Tree::Dir(dir) => dir.join(inside).is_file(),
            Tree::Embedded(files) => embedded(files, inside).is_some(),
        }
    }

    /// Reads a config file; `path` has its `.yaml`.
    pub(crate) fn read(&self, path: &str) -> Result<FoundFile, Problem> {
        let inside = self.inside(path).unwrap_or(path);
        match &self.tree {
            Tree::Dir(dir) => {
                let full = dir.join(inside);
                let text = read_text(&full)?;
                Ok(FoundFile { text, path: full })
            }
            Tree::Embedded(files) => Ok(FoundFile {
                text: embedded(files, inside).unwrap_or_default().to_string(),
                path: PathBuf::from(format!("{}://{inside}", self.provider)),
            }),
        }
    }

    /// Whether a directory of that name exists; the empty path is the root.
    pub(crate) fn has_group(&self, path: &str) -> bool {
        // The directories above a mount exist because the mount does.
        if let Some(mount) = &self.mount
            && (path.is_empty() || mount.strip_prefix(path).is_some_and(|r| r.starts_with('/')))
        {
            return self.available();
        }
        let Some(inside) = self.inside(path) else {
            return false;
        };
        match &self.tree {
            Tree::Dir(dir) => dir.join(inside).is_dir(),
            Tree::Embedded(files) => {
                inside.is_empty()
                    || files.iter().any(|(file, _)| {
                        file.strip_prefix(inside)
                            .is_some_and(|r| r.starts_with('/'))
                    })
            }
        }
    }

    /// The names directly under a group: `(options, subgroups)`, each sorted.
    pub(crate) fn list(&self, group: &str) -> (Vec<String>, Vec<String>) {
        let (mut options, mut groups) = (Vec::new(), Vec::new());
        if let Some(mount) = &self.mount
            && group != mount
            && !group.starts_with(&format!("{mount}/"))
        {
            let below = match group {
                "" => Some(mount.as_str()),
                _ => mount.strip_prefix(group).and_then(|r| r.strip_prefix('/')),
            };
            if let Some(name) = below.and_then(|b| b.split('/').next())
                && self.available()
            {
                groups.push(name.to_string());
            }
            return (options, groups);
        }
        let Some(inside) = self.inside(group) else {
            return (options, groups);
        };
        match &self.tree {
            Tree::Dir(dir) => list_dir(&dir.join(inside), &mut options, &mut groups),
            Tree::Embedded(files) => {
                for (file, _) in *files {
                    let rest = match inside {
                        "" => Some(*file),
                        _ => file.strip_prefix(inside).and_then(|r| r.strip_prefix('/')),
                    };
                    let Some(rest) = rest else { continue };
                    match rest.split_once('/') {
                        Some((name, _)) => groups.push(name.to_string()),
                        None => options.extend(rest.strip_suffix(".yaml").map(str::to_string)),
                    }
                }
            }
        }
        options.sort_unstable();
        groups.sort_unstable();
        groups.dedup();
        (options, groups)
    }
}

/// Reads a file as UTF-8.
///
/// # Errors
/// It cannot be read, with the path, or is not UTF-8, with the line.
pub(crate) fn read_text(full: &Path) -> Result<String, Problem> {
    let bytes = read_bounded(full).map_err(|e| {
        let help = match e.kind() {
            ErrorKind::NotFound => "check the path",
            ErrorKind::FileTooLarge => "configs are small; check the path",
            _ => "check the file's permissions",
        };
        Problem::new(format!("cannot read {}: {e}", full.display())).help(help)
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        Problem::new(format!("{}:{line}: the file is not UTF-8", full.display()))
            .help("save the file as UTF-8")
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Not by the size it claims: files of /proc claim none.
    let read = fs::File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

fn list_dir(dir: &Path, options: &mut Vec<String>, groups: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_string) else {
            continue;
        };
        // Links are followed. What is no file, such as a pipe, is no option.
        let Ok(kind) = fs::metadata(entry.path()) else {
            continue;
        };
        if kind.is_dir() {
            if name != "__pycache__" {
                groups.push(name);
            }
        } else if kind.is_file()
            && let Some(option) = name.strip_suffix(".yaml")
        {
            options.push(option.to_string());
        }
    }
}

fn embedded<'f>(files: &[(&'f str, &'f str)], path: &str) -> Option<&'f str> {
    files
        .binary_search_by(|(name, _)| (*name).cmp(path))
        .ok()
        .map(|index| files[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[("a.yaml", "x: 1"), ("g/b.yaml", ""), ("g/sub/c.yaml", "")];

    #[test]
    fn an_embedded_tree_has_groups_and_files() {
        let source = Source {
            provider: "p".into(),
            tree: Tree::Embedded(FILES),
            mount: None,
            written: None,
        };
        assert!(source.has_file("g/b.yaml") && !source.has_file("g/c.yaml"));
        assert!(source.has_group("g/sub") && source.has_group("") && !source.has_group("g/b"));
        assert_eq!(source.list("g"), (vec!["b".into()], vec!["sub".into()]));
        assert_eq!(
            source.read("a.yaml").map(|f| f.text).ok(),
            Some("x: 1".into())
        );
    }

    #[test]
    fn a_mounted_tree_is_a_group() {
        let source = Source {
            provider: "p".into(),
            tree: Tree::Embedded(FILES),
            mount: Some("m/n".into()),
            written: None,
        };
        assert!(source.has_file("m/n/a.yaml") && !source.has_file("a.yaml"));
        assert!(source.has_group("m") && source.has_group("m/n") && source.has_group("m/n/g"));
        assert!(!source.has_group("g") && !source.has_group("m/nx"));
        assert_eq!(source.list("m"), (vec![], vec!["n".into()]));
        assert_eq!(source.list("m/n"), (vec!["a".into()], vec!["g".into()]));
        assert_eq!(source.list("m/n/g").1, ["sub"]);
    }
}
