//! What a machine offers to CUDA, asked of the driver itself. Nothing here needs
//! the feature `cuda`, and nothing fails: what is missing is part of the answer.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::headers::{self, Headers};
use super::library::{Library, candidates};

/// A release of CUDA, e.g. 13.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One card.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// N of `cuda:N`.
    pub index: usize,
    pub name: String,
    /// Compute capability.
    pub capability: Version,
    pub memory_bytes: u64,
    /// What no process holds now; `None` where NVML does not say.
    pub free_bytes: Option<u64>,
}

/// The driver as a program sees it: libcuda.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Driver {
    /// No libcuda.
    Missing,
    /// It is there and refuses to work.
    Broken { library: String, problem: String },
    Ready {
        library: String,
        /// The newest CUDA that it runs.
        cuda: Version,
        /// The driver's own number, e.g. 580.65.06; `None` where NVML does not say.
        release: Option<String>,
    },
}

/// The compiler for kernels: libnvrtc.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nvrtc {
    pub library: String,
    pub version: Version,
}

/// All that decides whether a run can use a GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cuda {
    /// This program was built with the feature `cuda`.
    pub built_in: bool,
    /// NVIDIA graphics cards on the PCI bus, driver or not.
    pub cards: usize,
    /// The value of `CUDA_VISIBLE_DEVICES`, which hides cards.
    pub visible_devices: Option<String>,
    pub driver: Driver,
    pub gpus: Vec<Gpu>,
    /// `None`: libnvrtc is not found.
    pub nvrtc: Option<Nvrtc>,
    pub headers: Headers,
}

/// Which library names to try; a test names its own.
#[derive(Clone, Debug)]
pub struct Names {
    pub driver: Vec<String>,
    pub management: Vec<String>,
    pub nvrtc: Vec<String>,
}

impl Default for Names {
    /// Those that cudarc tries; NVML goes by one name only.
    fn default() -> Names {
        Names {
            driver: candidates("cuda"),
            management: vec!["libnvidia-ml.so.1".to_string()],
            nvrtc: candidates("nvrtc"),
        }
    }
}

impl Cuda {
    /// Asks this machine. Starting the driver can take a second or two where there
    /// are GPUs.
    pub fn probe() -> Cuda {
        Cuda::probe_with(&Names::default())
    }

    fn probe_with(names: &Names) -> Cuda {
        let (driver, gpus) = driver(names);
        let cuda_path = std::env::var_os("CUDA_PATH").map(PathBuf::from);
        Cuda {
            built_in: cfg!(feature = "cuda"),
            cards: cards_on_bus(Path::new("/sys/bus/pci/devices")),
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            driver,
            gpus,
            nvrtc: nvrtc(names),
            headers: headers::find(cuda_path.as_deref()),
        }
    }
}

/// NVIDIA's display controllers among the PCI devices.
pub(super) fn cards_on_bus(devices: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(devices) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            let read = |name: &str| {
                let text = std::fs::read_to_string(entry.path().join(name));
                text.unwrap_or_default().trim().to_string()
            };
            // Class 03: VGA and 3D controllers, not the sound or USB part of a card.
            read("vendor") == "0x10de" && read("class").starts_with("0x03")
        })
        .count()
}

/// 0 is success.
type Code = c_int;

/// The functions of libcuda that the probe calls; `CUdevice` is an int.
struct DriverApi {
    init: unsafe extern "C" fn(c_uint) -> Code,
    version: unsafe extern "C" fn(*mut c_int) -> Code,
    count: unsafe extern "C" fn(*mut c_int) -> Code,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> Code,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Code,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Code,
    memory: unsafe extern "C" fn(*mut usize, c_int) -> Code,
    bus_id: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Code,
}

impl DriverApi {
    fn of(library: &Library) -> Option<DriverApi> {
        // SAFETY: the signatures are those of cuda.h.
        unsafe {
            Some(DriverApi {
                init: library.function(c"cuInit")?,
                version: library.function(c"cuDriverGetVersion")?,
                count: library.function(c"cuDeviceGetCount")?,
                device: library.function(c"cuDeviceGet")?,
                name: library.function(c"cuDeviceGetName")?,
                attribute: library.function(c"cuDeviceGetAttribute")?,
                memory: library.function(c"cuDeviceTotalMem_v2")?,
                bus_id: library.function(c"cuDeviceGetPCIBusId")?,
            })
        }
    }
}

const CUDA_SUCCESS: c_int = 0;
const CUDA_ERROR_NO_DEVICE: c_int = 100;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// What cuInit says when it refuses.
fn refusal(code: c_int) -> String {
    let meaning = match code {
        34 => "it is the stub that the toolkit has for linking, not a driver",
        802 => "the GPUs are not set up yet (nvidia-fabricmanager)",
        803 => {
            "its version differs from the loaded kernel module's: reboot, or restart the container"
        }
        804 => "its compatibility package does not support this GPU",
        _ => "the driver cannot start",
    };
    format!("{meaning} (CUDA error {code})")
}

fn driver(names: &Names) -> (Driver, Vec<Gpu>) {
    let Some(library) = Library::open(&names.driver) else {
        return (Driver::Missing, Vec::new());
    };
    let broken = |problem: String| {
        let library = library.name.clone();
        (Driver::Broken { library, problem }, Vec::new())
    };
    let Some(api) = DriverApi::of(&library) else {
        return broken("it lacks functions of the CUDA driver".to_string());
    };
    let mut version = 0;
    // SAFETY: the functions are called as cuda.h documents.
    let started = unsafe {
        (api.version)(&mut version);
        (api.init)(0)
    };
    // No card is no fault of the driver.
    if started != CUDA_SUCCESS && started != CUDA_ERROR_NO_DEVICE {
        return broken(refusal(started));
    }
    let management = Management::open(names);
    let gpus = match started {
        CUDA_SUCCESS => gpus(&api, management.as_ref()),
        _ => Vec::new(),
    };
    let file = library.file(c"cuInit");
    let ready = Driver::Ready {
        library: file.map_or(library.name.clone(), |file| file.display().to_string()),
        cuda: decimal(version),
        release: management.and_then(|m| m.release()),
    };
    (ready, gpus)
}

/// 13010 is 13.1.
fn decimal(version: c_int) -> Version {
    let version = u32::try_from(version).unwrap_or(0);
    Version::new(version / 1000, version % 1000 / 10)
}

fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| *c as u8).collect();
    let name = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    name.unwrap_or_default().into_owned()
}

/// Every card that answers.
fn gpus(api: &DriverApi, management: Option<&Management>) -> Vec<Gpu> {
    let mut count = 0;
    // SAFETY: the driver is started; the pointers lead to values of the right type
    // and the lengths are those of the buffers.
    unsafe {
        if (api.count)(&mut count) != CUDA_SUCCESS {
            return Vec::new();
        }
        let of = |index: c_int| -> Option<Gpu> {
            let (mut device, mut major, mut minor, mut memory) = (0, 0, 0, 0usize);
            let mut name: [c_char; 128] = [0; 128];
            let mut bus_id: [c_char; 32] = [0; 32];
            let done = [
                (api.device)(&mut device, index),
                (api.name)(name.as_mut_ptr(), 127, device),
                (api.attribute)(&mut major, COMPUTE_CAPABILITY_MAJOR, device),
                (api.attribute)(&mut minor, COMPUTE_CAPABILITY_MINOR, device),
                (api.memory)(&mut memory, device),
            ];
            if done.iter().any(|code| *code != CUDA_SUCCESS) {
                return None;
            }
            let on_bus = (api.bus_id)(bus_id.as_mut_ptr(), 31, device) == CUDA_SUCCESS;
            let free = management.filter(|_| on_bus).and_then(|m| m.free(&bus_id));
            Some(Gpu {
                index: usize::try_from(index).ok()?,
                name: text(&name),
                capability: Version::new(major.try_into().ok()?, minor.try_into().ok()?),
                memory_bytes: memory as u64,
                free_bytes: free.map(|free| free.min(memory as u64)),
            })
        };
        (0..count).filter_map(of).collect()
    }
}

/// NVML, which comes with the driver: its release and free memory, without
/// taking any of it.
struct Management(Library);

#[repr(C)]
#[derive(Default)]
struct NvmlMemory {
    total: u64,
    free: u64,
    _used: u64,
}

impl Management {
    fn open(names: &Names) -> Option<Management> {
        let library = Library::open(&names.management)?;
        // SAFETY: the signature is that of nvml.h.
        let started = unsafe {
            let init: unsafe extern "C" fn() -> c_int = library.function(c"nvmlInit_v2")?;
            init()
        };
        (started == 0).then_some(Management(library))
    }

    fn release(&self) -> Option<String> {
        let mut buffer: [c_char; 96] = [0; 96];
        // SAFETY: the signature is that of nvml.h; the length is the buffer's.
        let code = unsafe {
            let version: unsafe extern "C" fn(*mut c_char, c_uint) -> c_int =
                self.0.function(c"nvmlSystemGetDriverVersion")?;
            version(buffer.as_mut_ptr(), 95)
        };
        (code == 0).then(|| text(&buffer))
    }

    /// Bytes of the card at a PCI address that nobody holds.
    fn free(&self, bus_id: &[c_char; 32]) -> Option<u64> {
        let mut memory = NvmlMemory::default();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the signatures are those of nvml.h; a handle is a pointer.
        let code = unsafe {
            let find: unsafe extern "C" fn(*const c_char, *mut *mut libc::c_void) -> c_int =
                self.0.function(c"nvmlDeviceGetHandleByPciBusId_v2")?;
            let read: unsafe extern "C" fn(*mut libc::c_void, *mut NvmlMemory) -> c_int =
                self.0.function(c"nvmlDeviceGetMemoryInfo")?;
            match find(bus_id.as_ptr(), &mut handle) {
                0 => read(handle, &mut memory),
                code => code,
            }
        };
        (code == 0 && memory.total > 0).then_some(memory.free)
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        // SAFETY: the signature is that of nvml.h, and it was started.
        unsafe {
            let shutdown = self
                .0
                .function::<unsafe extern "C" fn() -> c_int>(c"nvmlShutdown");
            if let Some(shutdown) = shutdown {
                shutdown();
            }
        }
    }
}

fn nvrtc(names: &Names) -> Option<Nvrtc> {
    let library = Library::open(&names.nvrtc)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the signature is that of nvrtc.h.
    unsafe {
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
            library.function(c"nvrtcVersion")?;
        if version(&mut major, &mut minor) != 0 {
            return None;
        }
    }
    let file = library.file(c"nvrtcVersion");
    Some(Nvrtc {
        library: file.map_or(library.name.clone(), |file| file.display().to_string()),
        version: Version::new(major.try_into().ok()?, minor.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that lead nowhere, but for the driver's.
    fn names(driver: &str) -> Names {
        Names {
            driver: vec![driver.to_string()],
            management: vec!["libnone-nvml.so.1".to_string()],
            nvrtc: vec!["libnone-nvrtc.so".to_string()],
        }
    }

    #[test]
    fn a_machine_without_a_driver_answers() {
        let cuda = Cuda::probe_with(&names("libnone-cuda.so.1"));
        assert_eq!(cuda.driver, Driver::Missing);
        assert_eq!((cuda.gpus.len(), cuda.nvrtc), (0, None));
        assert_eq!(cuda.built_in, cfg!(feature = "cuda"));
    }

    #[test]
    fn a_library_that_is_no_driver_is_broken_not_a_crash() {
        // Any library will do that has none of the functions.
        let cuda = Cuda::probe_with(&names("libc.so.6"));
        match cuda.driver {
            Driver::Broken { library, problem } => {
                assert_eq!(library, "libc.so.6");
                assert!(problem.contains("lacks functions"), "{problem}");
            }
            // Where the C library goes by another name.
            other => assert_eq!(other, Driver::Missing),
        }
    }

    #[test]
    fn the_real_probe_ends() {
        let cuda = Cuda::probe();
        assert!(cuda.gpus.iter().all(|gpu| gpu.memory_bytes > 0));
        if !matches!(cuda.driver, Driver::Ready { .. }) {
            assert!(cuda.gpus.is_empty());
        }
    }

    #[test]
    fn cards_are_counted_on_the_bus() {
        let bus = tempfile::tempdir().unwrap();
        let device = |name: &str, vendor: &str, class: &str| {
            let dir = bus.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(dir.join("class"), format!("{class}\n")).unwrap();
        };
        assert_eq!(cards_on_bus(bus.path()), 0);
        device("0000:01:00.0", "0x10de", "0x030200");
        device("0000:01:00.1", "0x10de", "0x040300");
        device("0000:02:00.0", "0x8086", "0x030000");
        assert_eq!(cards_on_bus(bus.path()), 1);
        assert_eq!(cards_on_bus(&bus.path().join("none")), 0);
    }

    #[test]
    fn numbers_are_read_as_the_driver_writes_them() {
        assert_eq!(decimal(13010), Version::new(13, 1));
        assert_eq!(decimal(12080), Version::new(12, 8));
        assert_eq!(decimal(-1), Version::new(0, 0));
        let name = b"NVIDIA H100\0rest".map(|c| c as c_char);
        assert_eq!(text(&name), "NVIDIA H100");
        assert!(refusal(34).contains("stub") && refusal(999).contains("999"));
    }
}
