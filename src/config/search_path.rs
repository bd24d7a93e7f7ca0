//! Where configs are looked for.

use std::path::{Path, PathBuf};

use crate::compose::{Source, Tree};

use super::embedded::{CONFIGS, EXPERIMENTS};

/// The search path of a job: the main folder, the experiments mounted as the
/// group `experiment`, then the user's own folder. First match wins.
///
/// The main folder is `configs/` unless `config_path` names another one. Where
/// `configs/` or `experiments/` is absent, the copy inside the binary is used.
pub fn search_path(config_path: Option<&Path>, config_dir: Option<&Path>) -> Vec<Source> {
    let main = match config_path {
        Some(path) => Tree::Dir(path.to_path_buf()),
        None => dir_or("configs", CONFIGS),
    };
    let mut sources = vec![
        Source {
            provider: "main".to_string(),
            tree: main,
            mount: None,
            written: None,
        },
        Source {
            provider: "experiments".to_string(),
            tree: dir_or("experiments", EXPERIMENTS),
            mount: Some("experiment".to_string()),
            written: None,
        },
    ];
    if let Some(dir) = config_dir {
        sources.push(Source {
            provider: "command-line".to_string(),
            tree: Tree::Dir(dir.to_path_buf()),
            mount: None,
            written: None,
        });
    }
    sources
}

/// The search path of any tree: `dir` alone, where only that is named, or that of a job.
pub fn tree_search_path(path: Option<&Path>, dir: Option<&Path>) -> Vec<Source> {
    match (path, dir) {
        // A tree of its own: this project's configs are no part of it.
        (None, Some(dir)) => vec![Source {
            provider: "main".to_string(),
            tree: Tree::Dir(dir.to_path_buf()),
            mount: None,
            written: None,
        }],
        (path, dir) => search_path(path, dir),
    }
}

fn dir_or(name: &str, embedded: &'static [(&'static str, &'static str)]) -> Tree {
    let dir = PathBuf::from(name);
    if dir.is_dir() {
        Tree::Dir(dir)
    } else {
        Tree::Embedded(embedded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::groups;

    fn source(tree: Tree, mount: Option<&str>) -> Source {
        Source {
            provider: "test".to_string(),
            tree,
            mount: mount.map(str::to_string),
            written: None,
        }
    }

    #[test]
    fn the_embedded_copy_has_the_groups_of_the_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = groups(&[
            source(Tree::Dir(root.join("configs")), None),
            source(Tree::Dir(root.join("experiments")), Some("experiment")),
        ]);
        let embedded = groups(&[
            source(Tree::Embedded(CONFIGS), None),
            source(Tree::Embedded(EXPERIMENTS), Some("experiment")),
        ]);
        assert_eq!(folder, embedded);
        assert!(folder.iter().any(|(group, options)| {
            group == "experiment" && options.iter().any(|option| option == "low_memory")
        }));
    }

    #[test]
    fn the_users_folder_comes_last() {
        let sources = search_path(Some(Path::new("a")), Some(Path::new("b")));
        let dirs: Vec<Option<&Path>> = sources
            .iter()
            .map(|source| match &source.tree {
                Tree::Dir(dir) => Some(dir.as_path()),
                Tree::Embedded(_) => None,
            })
            .collect();
        assert_eq!(dirs.first(), Some(&Some(Path::new("a"))));
        assert_eq!(dirs.last(), Some(&Some(Path::new("b"))));
        assert_eq!(sources[1].mount.as_deref(), Some("experiment"));
    }
}
