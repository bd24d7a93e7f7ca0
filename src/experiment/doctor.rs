//! `run doctor`: what this machine offers, what is in the way, and what to do.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Serialize;

use super::fsx::{available_space, human_bytes};
use super::setup::OUTPUTS;
use super::summary::versions;
use crate::device::{Cache, Cuda, Driver, Gpu, Headers, Machine, Problem, memory_size};
use crate::hub;

/// Less free disk than this and a run of a small model may not fit.
const LITTLE_DISK: u64 = 2_000_000_000;
/// Less memory than this and only the small model trains.
const LITTLE_MEMORY: u64 = 2 << 30;

/// What `run doctor` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Of this program and what it is made of.
    pub versions: IndexMap<String, String>,
    /// Cargo features that this program was built with.
    pub features: Vec<&'static str>,
    #[serde(flatten)]
    pub machine: Machine,
    /// Where models of the Hugging Face hub are kept.
    pub hub_cache: Cache,
    pub disk: Disk,
    /// What `device=auto` uses: `cpu` or `cuda:N`.
    pub auto_device: String,
    /// What is wrong, and what to do. Empty on a machine without an NVIDIA card
    /// that can train on its CPU.
    pub problems: Vec<Advice>,
}

/// Where runs are written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disk {
    pub path: PathBuf,
    /// `None` where the system does not say.
    pub available_bytes: Option<u64>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    pub problem: String,
    pub remedy: String,
}

impl Report {
    /// Looks at this machine.
    pub fn new() -> Report {
        let path = PathBuf::from(OUTPUTS);
        let available_bytes = available_space(&path);
        Report::of(
            Machine::probe(),
            hub_cache(hub::Settings::from_env().cache),
            Disk {
                path,
                available_bytes,
            },
        )
    }

    /// The report on these facts.
    pub fn of(machine: Machine, hub_cache: Cache, disk: Disk) -> Report {
        let auto = machine.cuda.auto().0;
        let auto_device = auto.map_or("cpu".to_string(), |gpu| format!("cuda:{}", gpu.index));
        let mut features = Vec::new();
        if machine.cuda.built_in {
            features.push("cuda");
        }
        Report {
            versions: versions(),
            features,
            auto_device,
            problems: problems(&machine, &disk),
            machine,
            hub_cache,
            disk,
        }
    }

    /// As it is printed; the last line says what `device=auto` uses.
    pub fn text(&self) -> String {
        let machine = &self.machine;
        let mut lines = Lines::default();
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        let built = match machine.cuda.built_in {
            true => "with CUDA",
            false => "without CUDA",
        };
        lines.add("program", format!("{}, built {built}", versions.join(", ")));
        lines.add("CPU", cpu(machine));
        lines.add("memory", memory(machine));
        lines.add("disk", self.disk.text());
        gpu_lines(&machine.cuda, &mut lines);
        let cache = &machine.kernel_cache;
        let holds = cache.holds.map_or("empty so far".to_string(), human_bytes);
        lines.add(
            "kernel cache",
            format!("{} ({holds})", cache.path.display()),
        );
        let hub = &self.hub_cache;
        let holds = match hub.holds {
            None => "not there".to_string(),
            Some(1) => "1 model".to_string(),
            Some(n) => format!("{n} models"),
        };
        lines.add("model cache", format!("{} ({holds})", hub.path.display()));
        let mut text = lines.0;
        if !self.problems.is_empty() {
            text.push_str("\nWhat to do:\n");
        }
        for advice in &self.problems {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "- {}:\n  {}", advice.problem, advice.remedy);
        }
        text.push('\n');
        text.push_str(&self.verdict());
        text.push('\n');
        text
    }

    /// What `device=auto` uses, and why where that may surprise.
    fn verdict(&self) -> String {
        let cuda = &self.machine.cuda;
        match cuda.auto() {
            (Some(gpu), _) => format!("device=auto uses {} ({})", self.auto_device, gpu.name),
            (None, Some(_)) => "device=auto uses the CPU; see above what the GPU needs".to_string(),
            (None, None) => "device=auto uses the CPU; there is no NVIDIA GPU here".to_string(),
        }
    }
}

/// The folder and how many models lie in it.
fn hub_cache(path: PathBuf) -> Cache {
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

impl Default for Report {
    fn default() -> Report {
        Report::new()
    }
}

impl Disk {
    fn text(&self) -> String {
        let path = self.path.display();
        match self.available_bytes {
            Some(bytes) => format!("{} free for {path}/", human_bytes(bytes)),
            None => format!("unknown free space for {path}/"),
        }
    }
}

/// `name   text` lines.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: impl AsRef<str>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name:<13} {}", text.as_ref());
    }
}

fn cpu(machine: &Machine) -> String {
    let cpu = &machine.cpu;
    let name = cpu.model.as_deref().unwrap_or("of unknown make");
    let cores = match cpu.cores {
        1 => "1 core".to_string(),
        n => format!("{n} cores"),
    };
    match cpu.vectors.is_empty() {
        true => format!("{name}, {cores}"),
        false => format!("{name}, {cores}, {}", cpu.vectors.join(", ")),
    }
}

fn memory(machine: &Machine) -> String {
    match machine.memory {
        None => "unknown".to_string(),
        Some(memory) => format!(
            "{}{}, {} available",
            memory_size(memory.total_bytes),
            if memory.limited {
                " (a container's limit)"
            } else {
                ""
            },
            memory_size(memory.available_bytes)
        ),
    }
}

fn gpu_lines(cuda: &Cuda, lines: &mut Lines) {
    if cuda.gpus.is_empty() {
        let text = match cuda.cards {
            0 => "no NVIDIA card found".to_string(),
            1 => "1 NVIDIA card, which the driver does not offer".to_string(),
            n => format!("{n} NVIDIA cards, which the driver does not offer"),
        };
        lines.add("GPU", text);
    }
    for gpu in &cuda.gpus {
        lines.add(&format!("GPU cuda:{}", gpu.index), gpu_text(gpu));
    }
    lines.add(
        "driver",
        match &cuda.driver {
            Driver::Missing => "not found (libcuda)".to_string(),
            Driver::Broken { library, problem } => format!("{library} does not work: {problem}"),
            Driver::Ready {
                library,
                cuda,
                release,
            } => {
                let release = release.as_deref().unwrap_or("of unknown release");
                format!("{release}, runs CUDA {cuda} ({library})")
            }
        },
    );
    lines.add(
        "NVRTC",
        match &cuda.nvrtc {
            None => "not found (libnvrtc)".to_string(),
            Some(nvrtc) => format!("{} ({})", nvrtc.version, nvrtc.library),
        },
    );
    lines.add(
        "CUDA headers",
        match &cuda.headers {
            Headers::Found { folder } => folder.display().to_string(),
            Headers::NoToolkit => "not found (CUDA_PATH is not set)".to_string(),
            Headers::Incomplete {
                folder,
                missing,
                from_variable,
            } => {
                let by = if *from_variable {
                    ", where CUDA_PATH points,"
                } else {
                    ""
                };
                format!("{}{by} lacks {}", folder.display(), missing.join(", "))
            }
        },
    );
}

fn gpu_text(gpu: &Gpu) -> String {
    let free = gpu
        .free_bytes
        .map(|free| format!(", {} free", memory_size(free)))
        .unwrap_or_default();
    let bf16 = if gpu.has_bf16() {
        ", bf16"
    } else {
        ", no bf16"
    };
    format!(
        "{}, {}{free}, compute capability {}{bf16}",
        gpu.name,
        memory_size(gpu.memory_bytes),
        gpu.capability
    )
}

fn problems(machine: &Machine, disk: &Disk) -> Vec<Advice> {
    let mut all = Vec::new();
    let cuda = &machine.cuda;
    // Who has no card and no CUDA in the program wants none.
    if cuda.auto().0.is_none() && (cuda.has_card() || cuda.built_in) {
        all.extend(cuda.problems().iter().map(advice));
    }
    let mut add = |problem: String, remedy: &str| {
        all.push(Advice {
            problem,
            remedy: remedy.to_string(),
        });
    };
    if cfg!(target_arch = "x86_64") && !machine.cpu.vectors.contains(&"AVX2") {
        add(
            "the CPU has no AVX2".to_string(),
            "training works, but slowly; use a newer machine or a GPU",
        );
    }
    if let Some(memory) = machine.memory.filter(|m| m.available_bytes < LITTLE_MEMORY) {
        add(
            format!(
                "only {} of memory is available",
                memory_size(memory.available_bytes)
            ),
            "close other programs; `run plan` says what a run needs",
        );
    }
    if let Some(bytes) = disk.available_bytes.filter(|bytes| *bytes < LITTLE_DISK) {
        add(
            format!(
                "only {} of disk is free for {}/",
                human_bytes(bytes),
                disk.path.display()
            ),
            "remove old runs, or write elsewhere with hydra.run.dir=DIR",
        );
    }
    if !is_writable(&disk.path) {
        add(
            format!("{}/ cannot be written", disk.path.display()),
            "work in a folder of yours, or write elsewhere with hydra.run.dir=DIR",
        );
    }
    all
}

fn advice(problem: &Problem) -> Advice {
    Advice {
        problem: problem.to_string(),
        remedy: problem.remedy(),
    }
}

/// Whether files can be made in `path`, or it in its parent where it is not there.
fn is_writable(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let existing = match path.exists() {
        true => path,
        false => super::fsx::parent_of(path),
    };
    let Ok(name) = std::ffi::CString::new(existing.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the name ends with a zero byte.
    unsafe { libc::access(name.as_ptr(), libc::W_OK) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Cache, Cpu, Memory, Nvrtc, Version};

    /// A machine with one card on which everything is in order.
    fn machine() -> Machine {
        Machine {
            cpu: Cpu {
                model: Some("EPYC".into()),
                cores: 16,
                vectors: vec!["AVX2", "AVX-512F"],
            },
            memory: Some(Memory {
                total_bytes: 128 << 30,
                available_bytes: 100 << 30,
                limited: true,
            }),
            cuda: Cuda {
                built_in: true,
                cards: 1,
                visible_devices: None,
                driver: Driver::Ready {
                    library: "libcuda.so.1".into(),
                    cuda: Version::new(13, 0),
                    release: Some("580.65".into()),
                },
                gpus: vec![Gpu {
                    index: 0,
                    name: "NVIDIA H100".into(),
                    capability: Version::new(9, 0),
                    memory_bytes: 80 << 30,
                    free_bytes: Some(79 << 30),
                }],
                nvrtc: Some(Nvrtc {
                    library: "libnvrtc.so.13".into(),
                    version: Version::new(13, 0),
                }),
                headers: Headers::Found {
                    folder: "/usr/local/cuda/include".into(),
                },
            },
            kernel_cache: Cache {
                path: "cache/default.db".into(),
                holds: None,
            },
        }
    }

    fn report_on(machine: Machine, disk: Disk) -> Report {
        let models = Cache {
            path: "hub".into(),
            holds: Some(2),
        };
        Report::of(machine, models, disk)
    }

    fn disk(available: u64) -> Disk {
        Disk {
            path: std::env::temp_dir(),
            available_bytes: Some(available),
        }
    }

    #[test]
    fn a_machine_in_order_needs_nothing() {
        let report = report_on(machine(), disk(1 << 40));
        assert_eq!(report.problems, []);
        let text = report.text();
        for part in [
            "with CUDA",
            "EPYC, 16 cores, AVX2, AVX-512F",
            "128.0 GiB (a container's limit), 100.0 GiB available",
            "GPU cuda:0    NVIDIA H100, 80.0 GiB, 79.0 GiB free, compute capability 9.0, bf16",
            "580.65, runs CUDA 13.0",
            "2 models",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(
            text.ends_with("\ndevice=auto uses cuda:0 (NVIDIA H100)\n"),
            "{text}"
        );
        assert!(!text.contains("What to do"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["auto_device"], "cuda:0");
        assert_eq!(json["features"][0], "cuda");
        assert_eq!(json["cuda"]["gpus"][0]["capability"], "9.0");
    }

    #[test]
    fn every_problem_comes_with_a_remedy_and_the_verdict_last() {
        let mut machine = machine();
        machine.cuda.nvrtc = None;
        machine.cuda.headers = Headers::NoToolkit;
        machine.memory.as_mut().unwrap().available_bytes = 1 << 30;
        let report = report_on(machine, disk(1_000_000));
        let problems: Vec<&str> = report.problems.iter().map(|p| p.problem.as_str()).collect();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems[0].contains("NVRTC") && problems[1].contains("headers"));
        assert!(
            problems[2].contains("1.0 GiB of memory") && problems[3].contains("1.0 MB of disk")
        );
        let text = report.text();
        assert!(text.contains("What to do:\n- NVRTC"), "{text}");
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "device=auto uses the CPU; see above what the GPU needs"
        );
    }

    #[test]
    fn without_a_card_nothing_is_asked_of_the_user() {
        let mut machine = machine();
        machine.cuda.built_in = false;
        machine.cuda.cards = 0;
        machine.cuda.gpus.clear();
        machine.cuda.driver = Driver::Missing;
        machine.cuda.nvrtc = None;
        let report = report_on(machine.clone(), disk(1 << 40));
        assert_eq!(report.problems, []);
        assert!(
            report
                .text()
                .ends_with("uses the CPU; there is no NVIDIA GPU here\n")
        );
        // With a card it is.
        machine.cuda.cards = 1;
        let report = report_on(machine, disk(1 << 40));
        assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
        assert!(
            report
                .text()
                .contains("1 NVIDIA card, which the driver does not offer")
        );
    }
}
