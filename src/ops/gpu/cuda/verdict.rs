//! Which kernels a card has shown that it runs. Kernels that fault take their
//! process's device with them, and one that hangs its process; so they are tried in
//! processes of their own, and what came out is kept for later runs.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use serde::{Deserialize, Serialize};

use super::kernel::File;
use super::{Family, process, trial};
use crate::device::{Cuda, Driver, out_of_memory, own_cache};
use crate::ops::warning::warn;

/// What a file keeps: for each family nothing, or why it failed.
#[derive(Serialize, Deserialize)]
struct Kept {
    card: String,
    driver: String,
    #[serde(flatten)]
    outcomes: Outcomes,
}

type Outcomes = BTreeMap<String, Option<String>>;

/// Which of `families` pass on the device of `like`, or those for the work of one that
/// does not; a line on stderr for each that does not.
pub fn passing(like: &CubeTensor, families: &[Family]) -> Vec<Family> {
    let (card, driver) = identity(&like.device);
    let file = own_cache().join(format!("cuda-kernels-{:016x}.json", key(&card, &driver)));
    let mut outcomes = read(&file).map_or_else(Outcomes::new, |kept| kept.outcomes);
    let (mut news, mut lasting) = (false, true);
    loop {
        let missing = missing(&outcomes, families);
        if missing.is_empty() {
            break;
        }
        let (more, also) = tried(like, &missing);
        outcomes.extend(more);
        news = true;
        lasting &= also;
    }
    let kept = Kept {
        card,
        driver,
        outcomes,
    };
    if news && lasting {
        // Without the file the next run tries again.
        let _ = write(&file, &kept);
    }
    let mut passing = Vec::new();
    let instead = families.iter().filter_map(|family| family.instead());
    for family in families.iter().copied().chain(instead) {
        match kept.outcomes.get(family.name()) {
            Some(None) => passing.push(family),
            Some(Some(why)) => {
                // cubecl's errors go on for lines; the file has all of it.
                let why: String = why.chars().take(200).collect();
                warn(&format!(
                    "the CUDA kernels for {} failed their check and stay out, training is slower: {why} (delete {} to have them checked again)",
                    family.name(),
                    file.display()
                ));
            }
            None => {}
        }
    }
    passing
}

/// Those of `families`, and those for the work of one that failed, of which there is no
/// outcome.
fn missing(outcomes: &Outcomes, families: &[Family]) -> Vec<Family> {
    let failed = |family: &&Family| matches!(outcomes.get(family.name()), Some(Some(_)));
    let instead = families.iter().filter(failed).filter_map(|f| f.instead());
    let mut missing: Vec<_> = families.iter().copied().chain(instead).collect();
    missing.retain(|family| !outcomes.contains_key(family.name()));
    missing
}

/// Tries the families; the flag says whether the outcome is worth keeping.
fn tried(like: &CubeTensor, families: &[Family]) -> (Outcomes, bool) {
    let here = |family| trial::run(like, family, &mut |_| ()).err();
    let mut isolated = true;
    let tried = process::try_all(families, device_index(&like.device));
    let outcomes = families.iter().zip(tried).map(|(&family, outcome)| {
        let why = match outcome {
            process::Outcome::Passed => None,
            process::Outcome::Failed(why) => Some(why),
            process::Outcome::NotTried => {
                isolated = false;
                here(family)
            }
        };
        (family.name().to_string(), why)
    });
    let outcomes: Outcomes = outcomes.collect();
    // What others had left of the memory says nothing of the kernels.
    let starved =
        |why: &Option<String>| why.as_ref().is_some_and(|why| out_of_memory(why).is_some());
    let lasting = isolated && !outcomes.values().any(starved);
    (outcomes, lasting)
}

/// N of `cuda:N`.
fn device_index(device: &CubeDevice) -> usize {
    match device {
        CubeDevice::Cuda(cuda) => cuda.index,
        _ => 0,
    }
}

/// The names of the card and of its driver.
fn identity(device: &CubeDevice) -> (String, String) {
    let cuda = Cuda::probe();
    let index = device_index(device);
    let card = cuda.gpus.iter().find(|gpu| gpu.index == index);
    let card = card.map_or_else(String::new, |gpu| gpu.name.clone());
    let driver = match cuda.driver {
        Driver::Ready {
            cuda,
            release: Some(release),
            ..
        } => format!("{release}, CUDA {cuda}"),
        Driver::Ready { cuda, .. } => format!("CUDA {cuda}"),
        _ => String::new(),
    };
    (card, driver)
}

/// Anything that could change the outcome has part in it.
fn key(card: &str, driver: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), card, driver).hash(&mut hasher);
    File::ALL.map(File::fingerprint).hash(&mut hasher);
    for source in [
        include_str!("attention.rs"),
        include_str!("dynamic.rs"),
        include_str!("few_rows.rs"),
        include_str!("gemm.rs"),
        include_str!("kernel.rs"),
        include_str!("launch.rs"),
        include_str!("trial.rs"),
    ] {
        source.hash(&mut hasher);
    }
    hasher.finish()
}

fn read(file: &Path) -> Option<Kept> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Whole or not at all: several runs may begin at once.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    part.write_all(&serde_json::to_vec_pretty(kept)?)?;
    part.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Units::*;
    use super::*;

    #[test]
    fn another_family_is_tried_where_one_failed() {
        let families = [
            Family::Nf4Products(Wgmma),
            Family::Products(Wgmma),
            Family::Attention,
        ];
        let mut outcomes = Outcomes::new();
        assert_eq!(missing(&outcomes, &families), families);
        for (family, why) in families.iter().zip([Some("wrong"), None, Some("hangs")]) {
            outcomes.insert(family.name().into(), why.map(String::from));
        }
        assert_eq!(missing(&outcomes, &families), [Family::Nf4Products(Mma)]);
        outcomes.insert(Family::Nf4Products(Mma).name().into(), Some("too".into()));
        assert!(missing(&outcomes, &families).is_empty());
    }
}
