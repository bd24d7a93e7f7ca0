//! Catches what a case may do besides returning: a panic, a hang, a full
//! memory, a full stack. Whatever happens, the way to repeat the case is told.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Bytes in use that no case may need.
const MEMORY: usize = 1 << 30;
/// Wall time after which a case counts as hung, on however busy a machine.
const HANG: Duration = Duration::from_secs(60);

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
static CASE: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        if now > PEAK.load(Relaxed) {
            PEAK.store(now, Relaxed);
            if now > MEMORY {
                last_words("more than 1 GiB of memory in use");
            }
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most memory that was in use at a time.
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// How to run one case alone.
pub fn repeat(seed: u64, case: u64) -> String {
    format!(
        "repeat: KILN_FUZZ_SEED={seed} KILN_FUZZ_FIRST={case} KILN_FUZZ_CASES=1 cargo test --test compose_fuzz"
    )
}

/// Ends the process from a place where nothing may be allocated.
fn last_words(what: &str) -> ! {
    let mut text = [0u8; 256];
    let mut rest = &mut text[..];
    let _ = writeln!(
        rest,
        "\n{what}\nrepeat: KILN_FUZZ_SEED={} KILN_FUZZ_FIRST={} KILN_FUZZ_CASES=1 cargo test --test compose_fuzz",
        SEED.load(Relaxed),
        CASE.load(Relaxed)
    );
    let left = rest.len();
    let length = text.len() - left;
    // SAFETY: the buffer holds `length` bytes, and both calls may be made in a signal handler.
    unsafe {
        libc::write(2, text.as_ptr().cast(), length);
        libc::_exit(101)
    }
}

extern "C" fn on_abort(_: libc::c_int) {
    last_words("aborted (a full stack, or no memory)");
}

/// Watches the cases of one run.
pub struct Watch;

/// What a case gave and how long it took on its thread.
pub struct Run<T> {
    pub result: Result<T, String>,
    pub took: Duration,
}

impl Watch {
    /// `show` writes a case down, for one that hangs.
    pub fn start(seed: u64, show: fn(u64, u64) -> String) -> Watch {
        SEED.store(seed, Relaxed);
        let handler: extern "C" fn(libc::c_int) = on_abort;
        // SAFETY: the handler only writes and exits.
        unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
        std::thread::spawn(move || {
            let mut before = u64::MAX;
            loop {
                std::thread::sleep(HANG);
                let case = CASE.load(Relaxed);
                if case == before {
                    let _ = writeln!(std::io::stderr(), "{}", show(seed, case));
                    last_words("the case hangs");
                }
                before = case;
            }
        });
        Watch
    }

    /// Runs one case.
    pub fn case<T>(&self, case: u64, work: impl FnOnce() -> T) -> Run<T> {
        CASE.store(case, Relaxed);
        let start = processor_time();
        let result = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("without a message").to_string()
        });
        Run {
            result,
            took: processor_time() - start,
        }
    }
}

/// Of this thread: a busy machine makes no case slow.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
