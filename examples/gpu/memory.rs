//! GPU memory as the driver counts it: what nvidia-smi would show, sampled through
//! NVML, which is opened at run time and may be missing.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(200);
const LIBRARIES: [&CStr; 2] = [
    c"libnvidia-ml.so.1",
    c"/usr/local/nvidia/lib64/libnvidia-ml.so.1",
];

/// nvmlMemory_t.
#[repr(C)]
#[derive(Default)]
struct MemoryInfo {
    total: u64,
    free: u64,
    used: u64,
}

/// nvmlProcessInfo_t, as version 3 of the call fills it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

type Handle = *mut c_void;
type GetMemory = unsafe extern "C" fn(Handle, *mut MemoryInfo) -> c_int;
type GetProcesses = unsafe extern "C" fn(Handle, *mut c_uint, *mut ProcessInfo) -> c_int;
type GetDevice = unsafe extern "C" fn(c_uint, *mut Handle) -> c_int;
type GetName = unsafe extern "C" fn(Handle, *mut c_char, c_uint) -> c_int;
type GetDriver = unsafe extern "C" fn(*mut c_char, c_uint) -> c_int;

/// The driver's view of GPU 0.
pub struct Nvml {
    handle: Handle,
    memory: GetMemory,
    processes: Option<GetProcesses>,
    /// Card and driver.
    pub name: String,
    pub driver: String,
}

// SAFETY: NVML may be called from any thread, and its handles are no pointers to
// anything of a thread's own.
unsafe impl Send for Nvml {}
// SAFETY: as above.
unsafe impl Sync for Nvml {}

impl Nvml {
    /// `None` where there is no NVIDIA driver.
    pub fn open() -> Option<Self> {
        // SAFETY: the symbols have the types that nvml.h gives them; the library is
        // never closed.
        unsafe {
            let library = LIBRARIES
                .iter()
                .map(|name| libc::dlopen(name.as_ptr(), libc::RTLD_NOW))
                .find(|library| !library.is_null())?;
            let symbol = |name: &CStr| {
                let at = libc::dlsym(library, name.as_ptr());
                (!at.is_null()).then_some(at)
            };
            let start: unsafe extern "C" fn() -> c_int =
                std::mem::transmute(symbol(c"nvmlInit_v2")?);
            let device: GetDevice = std::mem::transmute(symbol(c"nvmlDeviceGetHandleByIndex_v2")?);
            let memory: GetMemory = std::mem::transmute(symbol(c"nvmlDeviceGetMemoryInfo")?);
            let processes = symbol(c"nvmlDeviceGetComputeRunningProcesses_v3")
                .map(|at| std::mem::transmute::<*mut c_void, GetProcesses>(at));
            let mut handle = std::ptr::null_mut();
            if start() != 0 || device(0, &mut handle) != 0 {
                return None;
            }
            let name = symbol(c"nvmlDeviceGetName").map(|at| {
                let name: GetName = std::mem::transmute(at);
                text(|buffer, n| name(handle, buffer, n))
            });
            let driver = symbol(c"nvmlSystemGetDriverVersion").map(|at| {
                let driver: GetDriver = std::mem::transmute(at);
                text(|buffer, n| driver(buffer, n))
            });
            Some(Self {
                handle,
                memory,
                processes,
                name: name.unwrap_or_default(),
                driver: driver.unwrap_or_default(),
            })
        }
    }

    /// Bytes in use on the card, by all processes and the driver.
    pub fn used(&self) -> Option<u64> {
        let mut info = MemoryInfo::default();
        // SAFETY: the call fills the struct it is given.
        let failed = unsafe { (self.memory)(self.handle, &mut info) };
        (failed == 0).then_some(info.used)
    }

    /// Bytes in use above those of `before`.
    fn risen(&self, before: Option<u64>) -> Option<u64> {
        Some(self.used()?.saturating_sub(before?))
    }

    /// Bytes of this process; `None` where the driver does not say.
    fn used_here(&self) -> Option<u64> {
        let processes = self.processes?;
        let mut found = [ProcessInfo::default(); 64];
        let mut count = found.len() as c_uint;
        // SAFETY: `count` says how many structs there is room for.
        let failed = unsafe { processes(self.handle, &mut count, found.as_mut_ptr()) };
        if failed != 0 {
            return None;
        }
        let mut listed = found.iter().take(count as usize);
        let here = listed.find(|p| p.pid == std::process::id())?;
        // All bits set: not available.
        (here.used != u64::MAX).then_some(here.used)
    }
}

fn text(call: impl FnOnce(*mut c_char, c_uint) -> c_int) -> String {
    let mut buffer = [0 as c_char; 96];
    if call(buffer.as_mut_ptr(), buffer.len() as c_uint - 1) != 0 {
        return String::new();
    }
    // SAFETY: the last byte is 0 whatever the call wrote.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    text.to_string_lossy().into_owned()
}

/// The most memory seen while a [`Watch`] ran.
#[derive(Clone, Copy, Default)]
pub struct Peaks {
    /// Of the card above what was in use at the start: this process with its
    /// context, and what else came, such as processes that try kernels.
    pub risen: Option<u64>,
    /// Of this process, by the driver's list of processes.
    pub process: Option<u64>,
}

/// A thread that samples until it is told to stop.
pub struct Watch {
    nvml: Arc<Nvml>,
    before: Option<u64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Peaks>,
}

impl Watch {
    /// Call before the first use of the GPU.
    pub fn start(nvml: Arc<Nvml>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let before = nvml.used();
        let sampled = nvml.clone();
        let thread = std::thread::spawn(move || {
            let mut peaks = Peaks::default();
            loop {
                let last = stopped.load(Ordering::Relaxed);
                peaks.risen = peaks.risen.max(sampled.risen(before));
                peaks.process = peaks.process.max(sampled.used_here());
                if last {
                    return peaks;
                }
                std::thread::sleep(EVERY);
            }
        });
        Self {
            nvml,
            before,
            stop,
            thread,
        }
    }

    /// Bytes of this process now; where the driver does not list it, as in some
    /// containers, what the card has risen by.
    pub fn now(&self) -> Option<u64> {
        let here = self.nvml.used_here();
        here.or_else(|| self.nvml.risen(self.before))
    }

    /// Samples once more and ends.
    pub fn end(self) -> Peaks {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
