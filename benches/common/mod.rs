//! What the benches share: their options and this process's CPU time.
#![allow(dead_code)] // each bench uses some of it

use std::collections::HashMap;

/// User and system time of the process so far.
pub fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The built-in defaults of every key.
pub fn defaults() -> kiln::config::Config {
    let empty = kiln::compose::Node {
        value: kiln::compose::Value::Map(kiln::compose::Map::new()),
        origin: kiln::compose::Origin::BuiltIn,
    };
    kiln::config::from_tree(&empty).expect("the defaults are valid")
}

/// The command line's pairs `--name value`.
pub fn options() -> HashMap<String, String> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    args.chunks_exact(2)
        .map(|p| (p[0].trim_start_matches("--").to_string(), p[1].clone()))
        .collect()
}

/// bf16 products where `--bf16 true` was given.
pub fn precision(options: &HashMap<String, String>) -> kiln::ops::Precision {
    match options.get("bf16").map(String::as_str) {
        Some("true") => kiln::ops::Precision::Bf16,
        _ => kiln::ops::Precision::F32,
    }
}
