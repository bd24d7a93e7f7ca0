//! Settings of the CUDA runtime. They must be made before its first use.

use std::path::PathBuf;

use cubecl::config::cache::CacheConfig;
use cubecl::config::streaming::StreamPolicy;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Compiled kernels and autotuning results are kept between runs, and all threads
/// share one stream: a step is one sequence of launches, whichever thread makes
/// them. Does nothing after the first call.
pub fn configure() {
    let mut config = CubeClRuntimeConfig::default();
    config.compilation.cache = true;
    config.environment.path = CacheConfig::Directory(kernel_cache());
    config.streaming.policy = StreamPolicy::Single;
    CubeClRuntimeConfig::try_set(config.override_from_env());
}

/// Where compiled kernels are kept: `$XDG_CACHE_HOME/kiln`, by default
/// `~/.cache/kiln`.
pub fn kernel_cache() -> PathBuf {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    given
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("kiln")
}
