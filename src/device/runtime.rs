//! Settings of the CUDA runtime. They must be made before its first use.

use cubecl::config::cache::CacheConfig;
use cubecl::config::streaming::StreamPolicy;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Compiled kernels and autotuning results are kept between runs, and all threads
/// share one stream: a step is one sequence of launches, whichever thread makes
/// them. Does nothing after the first call.
pub fn configure() {
    let mut config = CubeClRuntimeConfig::default();
    config.compilation.cache = true;
    config.environment.path = CacheConfig::Directory(super::caches::own());
    config.streaming.policy = StreamPolicy::Single;
    CubeClRuntimeConfig::try_set(config.override_from_env());
}
