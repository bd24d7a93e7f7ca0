//! Which devices there are and which of them a run computes on.
//!
//! [`Machine::probe`] gathers facts and cannot fail; [`choose`] decides from them.
//! The libraries of CUDA are looked for under the names and in the places that
//! burn-cuda will use, so that a run is refused here, with a reason, rather than
//! there with a panic.

#[cfg(target_arch = "x86_64")]
mod amx;
mod caches;
mod decide;
mod headers;
mod host;
mod library;
mod nvidia;
mod oom;
mod units;

use std::path::Path;

#[cfg(feature = "gpu")]
mod for_checks;
#[cfg(feature = "cuda")]
pub mod runtime;

use burn::tensor::Device;
#[cfg(feature = "gpu")]
pub use for_checks::for_checks;
use serde::Serialize;

#[cfg(target_arch = "x86_64")]
pub use amx::amx_bf16;
pub use caches::{Cache, own as own_cache};
pub use decide::Problem;
pub use headers::Headers;
pub use host::{Cpu, Memory};
pub use nvidia::{Cuda, Driver, Gpu, Nvrtc, Version};
pub use oom::{Asked, out_of_memory};
pub use units::{memory_size, parse_memory_size};

/// All facts about this machine that matter to a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub cpu: Cpu,
    /// `None` where the system does not say.
    pub memory: Option<Memory>,
    pub cuda: Cuda,
    /// Where cubecl keeps compiled kernels and tuning results.
    pub kernel_cache: Cache,
}

impl Machine {
    /// Asks the system, and the NVIDIA driver where there is one.
    pub fn probe() -> Machine {
        Machine {
            cpu: Cpu::probe(),
            memory: Memory::probe(),
            cuda: Cuda::probe(),
            kernel_cache: caches::kernels(),
        }
    }
}

/// A chosen device and its name in summaries.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub device: Device,
    /// `cpu` or `cuda:N`.
    pub name: String,
    /// The card; `None` on the CPU.
    pub gpu: Option<Gpu>,
    /// One line for the log: why `auto` does not use a GPU that seems to be there.
    pub note: Option<String>,
}

impl Chosen {
    fn cpu(note: Option<String>) -> Chosen {
        Chosen {
            device: Device::flex(),
            name: "cpu".to_string(),
            gpu: None,
            note,
        }
    }

    /// Main memory is the device's memory.
    pub fn is_cpu(&self) -> bool {
        self.gpu.is_none()
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DeviceError {
    #[error("device={0}: not a device; use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    #[error(
        "device={name}: {problem}; {remedy}; or use device=cpu (`run doctor` shows what this machine offers)",
        remedy = .problem.remedy()
    )]
    Unusable { name: String, problem: Problem },
}

/// Finds the device that `device=` names. `auto` takes the first GPU that this
/// build and machine can use, else the CPU.
///
/// # Errors
/// The name is unknown, or the GPU cannot be used.
pub fn choose(name: &str) -> Result<Chosen, DeviceError> {
    let index = match name {
        "cpu" => return Ok(Chosen::cpu(None)),
        "auto" => return Ok(auto()),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    let index = index.ok_or_else(|| DeviceError::Unknown(name.into()))?;
    let unusable = |problem| DeviceError::Unusable {
        name: name.to_string(),
        problem,
    };
    if !cfg!(feature = "cuda") {
        return Err(unusable(Problem::NotBuiltIn));
    }
    let cuda = Cuda::probe();
    let gpu = cuda.usable(index).map_err(unusable)?;
    Ok(on_gpu(gpu))
}

fn auto() -> Chosen {
    // Without CUDA in the program there is no need to start the driver.
    if !cfg!(feature = "cuda") {
        let cards = nvidia::cards_on_bus(Path::new("/sys/bus/pci/devices"));
        return Chosen::cpu((cards > 0).then(|| passed_over(&Problem::NotBuiltIn)));
    }
    let cuda = Cuda::probe();
    match cuda.auto() {
        (Some(gpu), _) => on_gpu(gpu),
        (None, problem) => Chosen::cpu(problem.as_ref().map(passed_over)),
    }
}

/// Why the GPU is passed over, as a line of the log.
fn passed_over(problem: &Problem) -> String {
    format!(
        "an NVIDIA GPU is here, but not used: {problem}; {}",
        problem.remedy()
    )
}

#[cfg(feature = "cuda")]
fn on_gpu(gpu: &Gpu) -> Chosen {
    runtime::configure();
    Chosen {
        device: Device::cuda(gpu.index),
        name: format!("cuda:{}", gpu.index),
        gpu: Some(gpu.clone()),
        note: None,
    }
}

/// Without the feature no GPU is usable, so this is not reached.
#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &Gpu) -> Chosen {
    Chosen::cpu(None)
}

/// Bytes of a GPU that the allocator has taken: weights, and pools that grow and
/// do not shrink. `None` on the CPU, whose allocator is the system's.
pub fn reserved(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved)
}

/// Tells glibc to keep large freed blocks instead of giving them back and
/// faulting them in again at every step. Call once, before the first threads.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Threads a core that `RAYON_NUM_THREADS` may ask for: more only wait for one another.
const THREADS_PER_CORE: usize = 16;

/// Makes the calling thread one of those that compute on the CPU, which spares each of
/// its operations the way to another thread and back. Call once, in `main`, before the
/// first of them. `RAYON_NUM_THREADS` says how many there are, else all cores are used.
///
/// # Errors
/// The system does not give so many threads.
pub fn compute_here() -> Result<(), ThreadsError> {
    let given = std::env::var("RAYON_NUM_THREADS").ok();
    let given = given.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let most = cores * THREADS_PER_CORE;
    let threads: usize = given.unwrap_or(cores);
    if threads > most {
        return Err(ThreadsError::TooMany { threads, most });
    }
    // A single one would not get to work of other threads while it waits for them.
    if threads > 1 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.use_current_thread().build_global();
        return pool.map_err(|error| ThreadsError::Refused { threads, error });
    }
    Ok(())
}

/// Threads that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    #[error(
        "RAYON_NUM_THREADS={threads}: more threads than are of use here; set it to at most {most}, or unset it"
    )]
    TooMany { threads: usize, most: usize },
    #[error(
        "cannot start {threads} threads ({error}): raise the limit on processes (ulimit -u, or the container's), or set RAYON_NUM_THREADS=1"
    )]
    Refused {
        threads: usize,
        error: rayon::ThreadPoolBuildError,
    },
}

/// Gives back what [`keep_freed_memory`] kept. Between runs in one process: the
/// next one is not charged for the memory of the one before.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim only returns free pages of the allocator to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(choose("cpu").unwrap().name, "cpu");
        assert!(choose("auto").is_ok());
        for bad in ["gpu", "cuda:x", "cpu:1", ""] {
            assert_eq!(choose(bad).unwrap_err(), DeviceError::Unknown(bad.into()));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_needs_the_feature() {
        let text = choose("cuda:1").unwrap_err().to_string();
        assert!(
            text.starts_with("device=cuda:1: this program was built without CUDA; build it with"),
            "{text}"
        );
        assert!(text.contains("device=cpu") && text.contains("run doctor"));
    }

    #[test]
    fn a_gpu_that_is_passed_over_is_told_in_one_line() {
        let line = passed_over(&Problem::NoNvrtc);
        assert!(line.contains("NVRTC") && line.contains("LD_LIBRARY_PATH") && !line.contains('\n'));
    }

    #[test]
    fn the_probe_of_this_machine_is_json() {
        let machine = serde_json::to_value(Machine::probe()).unwrap();
        assert!(machine["cpu"]["cores"].as_u64().unwrap() >= 1);
        assert!(machine["cuda"]["driver"]["status"].is_string());
    }
}
