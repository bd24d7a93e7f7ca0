//! Which device a run uses, decided from the facts alone.

use super::headers::Headers;
use super::nvidia::{Cuda, Driver, Gpu, Nvrtc, Version};

/// The oldest CUDA whose driver has all functions that a run calls (`ops` knows of the one that
/// takes a kernel's time).
const OLDEST_DRIVER: Version = Version::new(12, 0);
/// Tensor cores, and what the kernels are written for.
const OLDEST_CARD: Version = Version::new(7, 0);
/// CUDA 13's compiler no longer knows Volta (7.0 and 7.2).
const OLDEST_CARD_OF_NVRTC_13: Version = Version::new(7, 5);
/// The first with bf16.
const OLDEST_BF16: Version = Version::new(8, 0);

/// Why a GPU cannot be used. The text says what is wrong; [`Problem::remedy`]
/// says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("this program was built without CUDA")]
    NotBuiltIn,
    #[error("no NVIDIA driver: libcuda is not found")]
    NoDriver {
        /// A card is on the bus, so a driver would help.
        card: bool,
    },
    #[error("the NVIDIA driver does not work: {library}: {problem}")]
    BrokenDriver { library: String, problem: String },
    #[error("the NVIDIA driver is too old: it runs CUDA {has}, and {needs} is needed")]
    OldDriver { has: Version, needs: Version },
    #[error("the driver finds no NVIDIA GPU{}", hidden(visible))]
    NoGpu {
        /// `CUDA_VISIBLE_DEVICES`, where set.
        visible: Option<String>,
    },
    #[error("there is no GPU {index}; {}", numbered(*found))]
    NoSuchGpu { index: usize, found: usize },
    #[error("NVRTC, CUDA's compiler for kernels, is missing: libnvrtc is not found")]
    NoNvrtc,
    #[error(
        "NVRTC {nvrtc} is newer than the driver, which runs CUDA {driver} and would refuse its kernels"
    )]
    NewNvrtc { nvrtc: Version, driver: Version },
    #[error("the CUDA headers are missing: no CUDA toolkit is found")]
    NoToolkit,
    #[error("CUDA headers are missing in {folder}: {missing}")]
    NoHeaders { folder: String, missing: String },
    #[error("{name} is too old: it has compute capability {has}, and {needs} is needed{because}")]
    OldCard {
        name: String,
        has: Version,
        needs: Version,
        because: &'static str,
    },
}

fn hidden(visible: &Option<String>) -> String {
    match visible {
        Some(value) => format!(" (CUDA_VISIBLE_DEVICES is \"{value}\")"),
        None => String::new(),
    }
}

fn numbered(found: usize) -> String {
    match found {
        1 => "the only one is cuda:0".to_string(),
        n => format!("they are cuda:0 to cuda:{}", n.saturating_sub(1)),
    }
}

impl Problem {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let toolkit =
            "install the CUDA toolkit (its packages cuda-nvrtc and cuda-cudart-dev are enough)";
        match self {
            Problem::NotBuiltIn => "build it with `cargo build --release --features cuda`".into(),
            Problem::NoDriver { card: true } => {
                "install NVIDIA's driver; in a container, start it with --gpus all".into()
            }
            Problem::NoDriver { card: false } => {
                "a machine with an NVIDIA GPU and its driver is needed; in a container, start it with --gpus all".into()
            }
            Problem::BrokenDriver { .. } => {
                "see whether nvidia-smi works; if it does not, install the driver again".into()
            }
            Problem::OldDriver { .. } => "update NVIDIA's driver".into(),
            Problem::NoGpu { visible: Some(_) } => {
                "unset CUDA_VISIBLE_DEVICES, or name a GPU in it".into()
            }
            Problem::NoGpu { visible: None } => {
                "see whether nvidia-smi lists one; in a container, start it with --gpus all".into()
            }
            Problem::NoSuchGpu { .. } => "count from 0, as nvidia-smi does".into(),
            Problem::NoNvrtc => {
                format!("{toolkit}, or put the folder of libnvrtc.so into LD_LIBRARY_PATH")
            }
            Problem::NewNvrtc { driver, .. } => {
                format!("update NVIDIA's driver, or put an NVRTC of CUDA {driver} first in LD_LIBRARY_PATH")
            }
            Problem::NoToolkit => {
                format!("{toolkit}, and set CUDA_PATH to its folder, the one that holds include/")
            }
            Problem::NoHeaders { .. } => {
                format!("{toolkit}, and set CUDA_PATH to the folder that holds include/")
            }
            Problem::OldCard { because: "", .. } => "use another card".into(),
            Problem::OldCard { .. } => {
                "put an NVRTC of CUDA 12 first in LD_LIBRARY_PATH, with CUDA_PATH at its headers".into()
            }
        }
    }
}

impl Cuda {
    /// GPU `index`, if a run can use it; else the first reason why not, from the
    /// program outwards.
    ///
    /// # Errors
    /// See [`Problem`].
    pub fn usable(&self, index: usize) -> Result<&Gpu, Problem> {
        if !self.built_in {
            return Err(Problem::NotBuiltIn);
        }
        let driver = match &self.driver {
            Driver::Missing => {
                return Err(Problem::NoDriver {
                    card: self.cards > 0,
                });
            }
            Driver::Broken { library, problem } => {
                return Err(Problem::BrokenDriver {
                    library: library.clone(),
                    problem: problem.clone(),
                });
            }
            Driver::Ready { cuda, .. } => *cuda,
        };
        if driver < OLDEST_DRIVER {
            return Err(Problem::OldDriver {
                has: driver,
                needs: OLDEST_DRIVER,
            });
        }
        if self.gpus.is_empty() {
            let visible = self.visible_devices.clone();
            return Err(Problem::NoGpu { visible });
        }
        let gpu = self.gpus.iter().find(|gpu| gpu.index == index);
        let gpu = gpu.ok_or(Problem::NoSuchGpu {
            index,
            found: self.gpus.len(),
        })?;
        let old = |needs, because| Problem::OldCard {
            name: gpu.name.clone(),
            has: gpu.capability,
            needs,
            because,
        };
        if gpu.capability < OLDEST_CARD {
            return Err(old(OLDEST_CARD, ""));
        }
        let nvrtc = self.nvrtc.as_ref().ok_or(Problem::NoNvrtc)?.version;
        if nvrtc > driver {
            return Err(Problem::NewNvrtc { nvrtc, driver });
        }
        if nvrtc.major >= 13 && gpu.capability < OLDEST_CARD_OF_NVRTC_13 {
            return Err(old(OLDEST_CARD_OF_NVRTC_13, " by CUDA 13"));
        }
        match &self.headers {
            Headers::Found { .. } => Ok(gpu),
            Headers::NoToolkit => Err(Problem::NoToolkit),
            Headers::Incomplete {
                folder, missing, ..
            } => Err(Problem::NoHeaders {
                folder: folder.display().to_string(),
                missing: missing.join(", "),
            }),
        }
    }

    /// What `device=auto` takes: the first usable GPU, or `None` for the CPU, and
    /// why a GPU that seems to be there is not used.
    pub fn auto(&self) -> (Option<&Gpu>, Option<Problem>) {
        let first = self.gpus.iter().find_map(|gpu| self.usable(gpu.index).ok());
        if first.is_some() {
            return (first, None);
        }
        let index = self.gpus.first().map_or(0, |gpu| gpu.index);
        (None, self.usable(index).err().filter(|_| self.has_card()))
    }
}

impl Cuda {
    /// Everything that stands between this machine and a run on its first GPU, not
    /// only the first of it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut facts = self.clone();
        let mut problems = Vec::new();
        if !facts.built_in {
            problems.push(Problem::NotBuiltIn);
            facts.built_in = true;
        }
        // As if what can be installed were there, so that only the card and its
        // driver are left.
        let driver = match facts.driver {
            Driver::Ready { cuda, .. } => cuda,
            Driver::Missing | Driver::Broken { .. } => OLDEST_DRIVER,
        };
        let compiler = facts.nvrtc.get_or_insert_with(|| Nvrtc {
            library: String::new(),
            version: driver,
        });
        let compiler = compiler.version;
        facts.headers = Headers::Found {
            folder: Default::default(),
        };
        let index = facts.gpus.first().map_or(0, |gpu| gpu.index);
        problems.extend(facts.usable(index).err());
        // And as if the card and its driver were in order.
        facts.driver = Driver::Ready {
            library: String::new(),
            cuda: compiler.max(OLDEST_DRIVER),
            release: None,
        };
        facts.gpus = vec![Gpu {
            index: 0,
            name: String::new(),
            capability: OLDEST_CARD_OF_NVRTC_13,
            memory_bytes: 0,
            free_bytes: None,
        }];
        let installed = [
            (
                self.nvrtc.clone(),
                Headers::Found {
                    folder: Default::default(),
                },
            ),
            (facts.nvrtc.clone(), self.headers.clone()),
        ];
        for (nvrtc, headers) in installed {
            (facts.nvrtc, facts.headers) = (nvrtc, headers);
            problems.extend(facts.usable(0).err());
        }
        problems
    }

    /// Whether this looks like a machine with an NVIDIA card.
    pub fn has_card(&self) -> bool {
        self.cards > 0 || !self.gpus.is_empty()
    }
}

impl Gpu {
    /// Whether it computes in bfloat16.
    pub fn has_bf16(&self) -> bool {
        self.capability >= OLDEST_BF16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with two cards on which everything is in order.
    fn good() -> Cuda {
        let gpu = |index, name: &str, major, minor| Gpu {
            index,
            name: name.to_string(),
            capability: Version::new(major, minor),
            memory_bytes: 80 << 30,
            free_bytes: None,
        };
        Cuda {
            built_in: true,
            cards: 2,
            visible_devices: None,
            driver: Driver::Ready {
                library: "libcuda.so.1".into(),
                cuda: Version::new(13, 0),
                release: None,
            },
            gpus: vec![gpu(0, "H100", 9, 0), gpu(1, "V100", 7, 0)],
            nvrtc: Some(Nvrtc {
                library: "libnvrtc.so.12".into(),
                version: Version::new(12, 9),
            }),
            headers: Headers::Found {
                folder: "/usr/local/cuda/include".into(),
            },
        }
    }

    /// The problem of GPU 0 after `change`.
    fn problem(change: impl FnOnce(&mut Cuda)) -> Problem {
        let mut facts = good();
        change(&mut facts);
        facts.usable(0).unwrap_err()
    }

    #[test]
    fn a_machine_in_order_can_be_used() {
        let facts = good();
        assert_eq!(facts.usable(0).unwrap().name, "H100");
        assert!(facts.usable(0).unwrap().has_bf16() && !facts.usable(1).unwrap().has_bf16());
        assert_eq!(facts.auto().0.unwrap().index, 0);
    }

    #[test]
    fn each_thing_that_is_missing_has_its_own_error() {
        let release = |cuda| {
            move |facts: &mut Cuda| {
                facts.driver = Driver::Ready {
                    library: String::new(),
                    cuda,
                    release: None,
                }
            }
        };
        let nvrtc = |version| {
            move |facts: &mut Cuda| {
                facts.nvrtc = Some(Nvrtc {
                    library: String::new(),
                    version,
                })
            }
        };
        let problems = [
            (
                problem(|f| f.built_in = false),
                "built without CUDA",
                "--features cuda",
            ),
            (
                problem(|f| f.driver = Driver::Missing),
                "libcuda is not found",
                "install NVIDIA's driver",
            ),
            (
                problem(|f| {
                    f.driver = Driver::Broken {
                        library: "libcuda.so.1".into(),
                        problem: "it is the stub".into(),
                    }
                }),
                "libcuda.so.1: it is the stub",
                "nvidia-smi",
            ),
            (
                problem(release(Version::new(11, 8))),
                "runs CUDA 11.8, and 12.0",
                "update",
            ),
            (
                problem(|f| f.gpus.clear()),
                "finds no NVIDIA GPU",
                "--gpus all",
            ),
            (
                problem(|f| {
                    f.gpus.clear();
                    f.visible_devices = Some("-1".into());
                }),
                "CUDA_VISIBLE_DEVICES is \"-1\"",
                "unset CUDA_VISIBLE_DEVICES",
            ),
            (
                problem(|f| f.nvrtc = None),
                "libnvrtc is not found",
                "LD_LIBRARY_PATH",
            ),
            (
                problem(nvrtc(Version::new(13, 1))),
                "NVRTC 13.1 is newer",
                "NVRTC of CUDA 13.0",
            ),
            (
                problem(|f| f.headers = Headers::NoToolkit),
                "no CUDA toolkit",
                "CUDA_PATH",
            ),
            (
                problem(|f| {
                    f.headers = Headers::Incomplete {
                        folder: "/opt/cuda/include".into(),
                        missing: vec!["mma.h".into()],
                        from_variable: true,
                    }
                }),
                "missing in /opt/cuda/include: mma.h",
                "CUDA_PATH",
            ),
            (
                problem(|f| f.gpus[0].capability = Version::new(6, 1)),
                "capability 6.1, and 7.0 is needed",
                "another card",
            ),
        ];
        for (problem, what, remedy) in &problems {
            assert!(problem.to_string().contains(what), "{problem}");
            assert!(problem.remedy().contains(remedy), "{}", problem.remedy());
        }
        let texts: std::collections::HashSet<String> =
            problems.iter().map(|(p, ..)| p.to_string()).collect();
        assert_eq!(texts.len(), problems.len());
    }

    #[test]
    fn a_card_is_too_old_for_the_compiler_or_does_not_exist() {
        let mut facts = good();
        facts.nvrtc.as_mut().unwrap().version = Version::new(13, 0);
        assert!(facts.usable(0).is_ok());
        let old = facts.usable(1).unwrap_err();
        assert!(
            old.to_string().ends_with("7.5 is needed by CUDA 13"),
            "{old}"
        );
        assert!(old.remedy().contains("CUDA 12"));
        let none = facts.usable(2).unwrap_err().to_string();
        assert_eq!(none, "there is no GPU 2; they are cuda:0 to cuda:1");
        facts.gpus.truncate(1);
        let none = facts.usable(2).unwrap_err().to_string();
        assert_eq!(none, "there is no GPU 2; the only one is cuda:0");
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let mut facts = good();
        assert_eq!(facts.problems(), []);
        facts.built_in = false;
        facts.driver = Driver::Missing;
        facts.gpus.clear();
        facts.nvrtc = None;
        facts.headers = Headers::NoToolkit;
        let all = facts.problems();
        let want = [
            Problem::NotBuiltIn,
            Problem::NoDriver { card: true },
            Problem::NoNvrtc,
            Problem::NoToolkit,
        ];
        assert_eq!(all, want);
        let mut facts = good();
        facts.nvrtc.as_mut().unwrap().version = Version::new(13, 2);
        facts.headers = Headers::NoToolkit;
        let all = facts.problems();
        assert!(matches!(all[0], Problem::NewNvrtc { .. }), "{all:?}");
        assert_eq!(all[1..], [Problem::NoToolkit]);
    }

    #[test]
    fn auto_passes_over_what_is_unusable_and_says_why_only_where_there_is_a_gpu() {
        let mut facts = good();
        facts.gpus[0].capability = Version::new(6, 1);
        assert_eq!(facts.auto().0.unwrap().index, 1);
        facts.nvrtc = None;
        let (gpu, why) = facts.auto();
        assert!(gpu.is_none());
        // That of the first card.
        assert!(matches!(why, Some(Problem::OldCard { .. })), "{why:?}");
        facts.gpus.clear();
        facts.driver = Driver::Missing;
        assert_eq!(facts.auto().1, Some(Problem::NoDriver { card: true }));
        facts.cards = 0;
        assert_eq!(facts.auto(), (None, None));
    }
}
