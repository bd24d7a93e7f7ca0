//! A device that has no memory left, recognised by what cubecl says.

/// What could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `None` where the message does not say.
    pub bytes: Option<u64>,
    /// It was pinned memory of the host, not memory of the device.
    pub host: bool,
}

/// Texts of cubecl 0.11 (`IoError`, `LaunchError`, and the CUDA storages) that
/// mean an allocation failed; the number of bytes follows some of them. burn passes
/// them on in the reason of its `ExecutionError`, which a failed read panics with.
const SIGNS: [(&str, bool); 7] = [
    ("out of device memory allocating ", true),
    ("can't allocate buffer of size: ", true),
    ("couldn't map storage for a deferred allocation of ", true),
    ("Can't allocate ", true),
    ("An out-of-memory error happened during launch", false),
    ("cuMemAllocHost_v2 failed", false),
    ("CUDA_ERROR_OUT_OF_MEMORY", false),
];

/// Whether an error or a panic of the device means that it ran out of memory.
pub fn out_of_memory(message: &str) -> Option<Asked> {
    let host = message.contains("cuMemAllocHost");
    let found = SIGNS.iter().find_map(|(sign, counts)| {
        let (_, rest) = message.split_once(sign)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let bytes = rest[..digits.unwrap_or(rest.len())].parse().ok();
        // A sentence that goes on without a number is about something else.
        (!counts || bytes.is_some()).then_some(bytes.filter(|_| *counts))
    });
    found.map(|bytes| Asked { bytes, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cubecl 0.11.3 and burn 0.22.1 put the texts together.
    #[test]
    fn what_cubecl_says_is_understood() {
        let device = |bytes| Some(Asked { bytes, host: false });
        let read = "Error while reading data: use `try_into_data` instead to catch the error at \
                    runtime: An error happened during execution\nCaused by:\n  An IO error happened\n\
                    Caused by:\n  out of device memory allocating 1073741824 bytes\nNo backtrace available";
        assert_eq!(out_of_memory(read), device(Some(1 << 30)));
        // As one line, which is how a remembered panic has it.
        let line = read.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(out_of_memory(&line), device(Some(1 << 30)));
        for (text, bytes) in [
            ("can't allocate buffer of size: 4096\nbacktrace", Some(4096)),
            (
                "couldn't map storage for a deferred allocation of 77 bytes\nCaused by:\n  x",
                Some(77),
            ),
            (
                "Can't allocate 512 bytes: every page size the memory tracks still holds live allocations",
                Some(512),
            ),
            (
                "An out-of-memory error happened during launch\nCaused by:\n  pool 3",
                None,
            ),
            (
                "Unknown error happened during execution: CUDA allocation error: \
                 DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                None,
            ),
        ] {
            assert_eq!(out_of_memory(text), device(bytes), "{text}");
        }
        let pinned = "cuMemAllocHost_v2 failed with error code: CUDA_ERROR_OUT_OF_MEMORY";
        let host = Asked {
            bytes: None,
            host: true,
        };
        assert_eq!(out_of_memory(pinned), Some(host));
    }

    #[test]
    fn other_failures_are_not_taken_for_it() {
        for text in [
            "index out of bounds: the len is 3 but the index is 7",
            "The device is poisoned\nCaused by:\n  an illegal memory access",
            "Can't allocate a shape of rank 9",
            "[Compilation Error] out of registers",
            "",
        ] {
            assert_eq!(out_of_memory(text), None, "{text}");
        }
    }
}
