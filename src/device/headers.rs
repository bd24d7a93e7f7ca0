//! The CUDA headers that kernels are compiled with, where cubecl-cuda looks for
//! them.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Headers that the kernels of a run include.
const NEEDED: [&str; 4] = [
    "cuda_fp16.h",
    "cuda_bf16.h",
    "mma.h",
    "cooperative_groups.h",
];
/// In CUDA 13 these lie one folder deeper, in `cccl`.
const NEEDED_OF_CCCL: &str = "cuda/barrier";

/// What was found of the headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Headers {
    Found {
        folder: PathBuf,
    },
    /// `CUDA_PATH` is unset and no usual place holds a toolkit.
    NoToolkit,
    /// There is a toolkit, but not all of its headers.
    Incomplete {
        folder: PathBuf,
        missing: Vec<String>,
        /// `CUDA_PATH` chose the folder.
        from_variable: bool,
    },
}

/// Looks where `cubecl_cuda::install::cuda_path` does: `$CUDA_PATH`, else
/// /usr/local/cuda, /opt/cuda, and /usr beside /usr/bin/nvcc; in `include`.
pub fn find(cuda_path: Option<&Path>) -> Headers {
    find_below(Path::new("/"), cuda_path)
}

fn find_below(root: &Path, cuda_path: Option<&Path>) -> Headers {
    let usual = || {
        let places = [
            ("usr/local/cuda", "usr/local/cuda"),
            ("opt/cuda", "opt/cuda"),
            ("usr/bin/nvcc", "usr"),
        ];
        let found = places.iter().find(|(sign, _)| root.join(sign).exists());
        found.map(|(_, toolkit)| root.join(toolkit))
    };
    let Some(toolkit) = cuda_path.map(Path::to_path_buf).or_else(usual) else {
        return Headers::NoToolkit;
    };
    let folder = toolkit.join("include");
    let mut missing: Vec<String> = NEEDED
        .iter()
        .filter(|name| !folder.join(name).is_file())
        .map(ToString::to_string)
        .collect();
    let cccl = [
        folder.join(NEEDED_OF_CCCL),
        folder.join("cccl").join(NEEDED_OF_CCCL),
    ];
    if !cccl.iter().any(|path| path.is_file()) {
        missing.push(NEEDED_OF_CCCL.to_string());
    }
    match missing.is_empty() {
        true => Headers::Found { folder },
        false => Headers::Incomplete {
            folder,
            missing,
            from_variable: cuda_path.is_some(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn the_variable_wins_over_the_usual_places() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(find_below(root, None), Headers::NoToolkit);
        let distribution = root.join("usr/include");
        touch(&root.join("usr/bin/nvcc"));
        for name in NEEDED.iter().chain([&NEEDED_OF_CCCL]) {
            touch(&distribution.join(name));
        }
        let folder = distribution.clone();
        assert_eq!(find_below(root, None), Headers::Found { folder });

        let mine = root.join("mine");
        let found = find_below(root, Some(&mine));
        let Headers::Incomplete {
            folder,
            missing,
            from_variable,
        } = found
        else {
            panic!("{found:?}");
        };
        assert_eq!((folder, from_variable), (mine.join("include"), true));
        assert_eq!(missing.len(), NEEDED.len() + 1);

        for name in NEEDED {
            touch(&mine.join("include").join(name));
        }
        touch(&mine.join("include/cccl").join(NEEDED_OF_CCCL));
        let folder = mine.join("include");
        assert_eq!(find_below(root, Some(&mine)), Headers::Found { folder });
    }

    #[test]
    fn a_missing_header_is_named() {
        let root = tempfile::tempdir().unwrap();
        let include = root.path().join("usr/local/cuda/include");
        for name in &NEEDED[1..] {
            touch(&include.join(name));
        }
        touch(&include.join(NEEDED_OF_CCCL));
        let missing = vec!["cuda_fp16.h".to_string()];
        assert_eq!(
            find_below(root.path(), None),
            Headers::Incomplete {
                folder: include,
                missing,
                from_variable: false
            }
        );
    }
}
