//! The environment that the Hugging Face tools read: where the cache is, where the
//! hub is, who asks.

use std::path::PathBuf;
use std::time::Duration;

use crate::net;

/// How to reach the hub, and where its cache lies.
#[derive(Clone)]
pub struct Settings {
    /// Address without a slash at the end.
    pub endpoint: String,
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Never ask the network.
    pub offline: bool,
    /// Root certificates in PEM, in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// The first pause before a request is tried again; it doubles each time.
    pub pause: Duration,
}

impl Settings {
    /// Those of this process.
    pub fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Those that the variables of `get` say.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let on = |name: &str| {
            given(name).is_some_and(|v| {
                matches!(
                    v.trim().to_ascii_lowercase().as_str(),
                    "1" | "true" | "yes" | "on"
                )
            })
        };
        // A relative folder would lie wherever the program was started.
        let user = given("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute())
            .unwrap_or_else(std::env::temp_dir);
        let path = |text: String| match text.strip_prefix("~/") {
            Some(rest) => user.join(rest),
            None => PathBuf::from(text),
        };
        let home = given("HF_HOME").map(path).unwrap_or_else(|| {
            let caches = given("XDG_CACHE_HOME").map(path);
            caches
                .filter(|folder| folder.is_absolute())
                .unwrap_or_else(|| user.join(".cache"))
                .join("huggingface")
        });
        let cache = given("HF_HUB_CACHE")
            .or_else(|| given("HUGGINGFACE_HUB_CACHE"))
            .map_or_else(|| home.join("hub"), path);
        let token_file = given("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
        let token = given("HF_TOKEN")
            .or_else(|| given("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_string())
            .filter(|token| !token.is_empty());
        let endpoint = given("HF_ENDPOINT");
        let endpoint = endpoint.as_deref().unwrap_or("https://huggingface.co");
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            cache,
            token,
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            certificates: net::certificates(given).map(|file| path(file.display().to_string())),
            pause: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_empty_or_relative_are_none() {
        let temporary = std::env::temp_dir().join(".cache/huggingface/hub");
        let temporary = temporary.to_str().unwrap();
        for (caches, home, cache) in [
            ("/c", "/h", "/c/huggingface/hub"),
            ("~/c", "/h", "/h/c/huggingface/hub"),
            ("c", "/h", "/h/.cache/huggingface/hub"),
            ("", "", temporary),
            ("c", "h", temporary),
        ] {
            let settings = Settings::read(|name| match name {
                "HOME" => Some(home.to_string()),
                "XDG_CACHE_HOME" => Some(caches.to_string()),
                _ => None,
            });
            assert_eq!(settings.cache, PathBuf::from(cache), "{caches} {home}");
        }
    }
}
