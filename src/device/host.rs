//! The CPU and its memory.

use std::fs::read_to_string;
use std::path::Path;

use serde::Serialize;

/// The processor a run would use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// As the system names it; `None` where it does not.
    pub model: Option<String>,
    /// Threads this process may run at once, container limits counted.
    pub cores: usize,
    /// Vector extensions that make a difference here and are there.
    pub vectors: Vec<&'static str>,
}

/// Main memory in bytes. A container's limit counts as all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total_bytes: u64,
    /// What can still be taken without swapping.
    pub available_bytes: u64,
    /// Whether a container, a service manager or `ulimit -v` set `total_bytes`.
    pub limited: bool,
}

impl Cpu {
    pub fn probe() -> Cpu {
        Cpu {
            model: read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| model_name(&text)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            vectors: vectors(),
        }
    }
}

/// x86 names it `model name`; ARM boards `Model` or not at all.
fn model_name(cpuinfo: &str) -> Option<String> {
    let field = |wanted: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            (name.trim() == wanted && !value.is_empty()).then(|| value.to_string())
        })
    };
    field("model name").or_else(|| field("Model"))
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> Vec<&'static str> {
    let found = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512F", is_x86_feature_detected!("avx512f")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
        ("AMX BF16", super::amx_bf16()),
    ];
    let there = found.iter().filter(|(_, there)| *there);
    there.map(|(name, _)| *name).collect()
}

#[cfg(target_arch = "aarch64")]
fn vectors() -> Vec<&'static str> {
    let found = [
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
        ("SVE", std::arch::is_aarch64_feature_detected!("sve")),
        ("BF16", std::arch::is_aarch64_feature_detected!("bf16")),
    ];
    let there = found.iter().filter(|(_, there)| *there);
    there.map(|(name, _)| *name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn vectors() -> Vec<&'static str> {
    Vec::new()
}

impl Memory {
    /// `None` where the system does not say (it is asked through /proc).
    pub fn probe() -> Option<Memory> {
        let system = meminfo(&read_to_string("/proc/meminfo").ok()?)?;
        let system = system.within(cgroup_limit(Path::new("/sys/fs/cgroup")));
        Some(system.within(address_limit()))
    }

    /// Under a limit of (bytes allowed, bytes taken).
    fn within(self, limit: Option<(u64, u64)>) -> Memory {
        match limit {
            Some((allowed, taken)) if allowed < self.total_bytes => Memory {
                total_bytes: allowed,
                available_bytes: self.available_bytes.min(allowed.saturating_sub(taken)),
                limited: true,
            },
            _ => self,
        }
    }
}

fn meminfo(text: &str) -> Option<Memory> {
    let field = |wanted: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(wanted))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Memory {
        total_bytes: field("MemTotal:")?,
        available_bytes: field("MemAvailable:")?,
        limited: false,
    })
}

/// The limit on this process's addresses (`ulimit -v`), and how many it has.
#[cfg(target_os = "linux")]
fn address_limit() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call fills in the struct.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    let status = read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmSize:"))?;
    let taken: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some((limit.rlim_cur, taken << 10))
}

#[cfg(not(target_os = "linux"))]
fn address_limit() -> Option<(u64, u64)> {
    None
}

/// The limit that control groups set on this process, and what its group holds
/// besides caches of files; both versions of the interface as a container sees it.
fn cgroup_limit(root: &Path) -> Option<(u64, u64)> {
    let versions = [
        ("memory.max", "memory.current", "memory.stat"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        ),
    ];
    versions.iter().find_map(|(limit, taken, stat)| {
        let number = |name: &str| -> Option<u64> {
            read_to_string(root.join(name)).ok()?.trim().parse().ok()
        };
        let allowed = number(limit)?;
        let stat = read_to_string(root.join(stat)).unwrap_or_default();
        let reclaimable = stat
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file "))
            .and_then(|bytes| bytes.trim().parse().ok())
            .unwrap_or(0);
        Some((allowed, number(taken)?.saturating_sub(reclaimable)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let cpu = Cpu::probe();
        assert!(cpu.cores >= 1);
        let memory = Memory::probe().unwrap();
        assert!(memory.available_bytes <= memory.total_bytes && memory.total_bytes > 1 << 20);
    }

    #[test]
    fn names_and_sizes_are_read_as_the_kernel_writes_them() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 9V74\n\nmodel name\t: other\n";
        assert_eq!(model_name(text).as_deref(), Some("AMD EPYC 9V74"));
        assert_eq!(model_name("processor : 0\nmodel name :\n"), None);
        let text = "MemTotal:       24 kB\nMemFree: 1 kB\nMemAvailable:   20 kB\n";
        let memory = meminfo(text).unwrap();
        assert_eq!(
            (memory.total_bytes, memory.available_bytes),
            (24 * 1024, 20 * 1024)
        );
        assert_eq!(meminfo("MemTotal: 24 kB\n"), None);
    }

    #[test]
    fn a_container_limit_is_all_there_is() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(cgroup_limit(root.path()), None);
        write("memory.max", "max\n");
        assert_eq!(cgroup_limit(root.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\ninactive_file 300\n");
        assert_eq!(cgroup_limit(root.path()), Some((1000, 400)));
        let system = Memory {
            total_bytes: 5000,
            available_bytes: 4000,
            limited: false,
        };
        let limited = system.within(Some((1000, 400)));
        assert_eq!((limited.total_bytes, limited.available_bytes), (1000, 600));
        assert!(limited.limited);
        // What version 1 writes for "no limit".
        assert_eq!(system.within(Some((u64::MAX >> 1, 400))), system);
    }
}
