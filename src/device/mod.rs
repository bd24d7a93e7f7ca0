//! Which device a run computes on.

#[cfg(feature = "gpu")]
mod for_checks;
#[cfg(feature = "cuda")]
pub mod runtime;

use burn::tensor::Device;
#[cfg(feature = "gpu")]
pub use for_checks::for_checks;

/// A chosen device and its name in summaries.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub device: Device,
    /// `cpu` or `cuda:N`.
    pub name: String,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DeviceError {
    #[error("device={0}: not a device; use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    #[error(
        "device={0}: this program was built without CUDA; build it with `cargo build --release --features cuda`, or use device=cpu"
    )]
    NoCuda(String),
    #[error(
        "device={0}: no such NVIDIA GPU ({1} found); check the driver with nvidia-smi, or use device=cpu"
    )]
    NoGpu(String, usize),
}

/// Finds the device that `device=` names. `auto` takes the first GPU where this
/// build and machine have one, else the CPU.
///
/// # Errors
/// The name is unknown, or there is no such GPU.
pub fn choose(name: &str) -> Result<Chosen, DeviceError> {
    let cpu = || Chosen {
        device: Device::flex(),
        name: "cpu".into(),
    };
    match name {
        "cpu" => Ok(cpu()),
        "auto" => Ok(cuda(0).unwrap_or_else(|_| cpu())),
        "cuda" => cuda(0).map_err(|found| missing(name, found)),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            let index = index.ok_or_else(|| DeviceError::Unknown(other.into()))?;
            cuda(index).map_err(|found| missing(other, found))
        }
    }
}

fn missing(name: &str, found: Option<usize>) -> DeviceError {
    match found {
        Some(found) => DeviceError::NoGpu(name.into(), found),
        None => DeviceError::NoCuda(name.into()),
    }
}

/// GPU `index`, or how many there are (`None`: built without CUDA).
#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Chosen, Option<usize>> {
    runtime::configure();
    // Listing is the one probe that is safe without a driver.
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    let count = found.len();
    let device = found.into_iter().nth(index).ok_or(Some(count))?;
    Ok(Chosen {
        device,
        name: format!("cuda:{index}"),
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Chosen, Option<usize>> {
    Err(None)
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
        assert_eq!(
            choose("cuda:1").unwrap_err(),
            DeviceError::NoCuda("cuda:1".into())
        );
    }
}
