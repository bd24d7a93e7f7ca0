//! Models by name: found in the local Hugging Face cache, else downloaded into it.
//!
//! The cache has the layout of the Python library, so each finds what the other has
//! fetched. A model that is there is taken without asking the network; its commit
//! stays until another `model.revision` is named. Only the files that are needed
//! are fetched, one plain GET each: configuration, tokenizer, chat template,
//! safetensors.
//!
//! The wire part is thin and our own, over `ureq`, because what matters here is in
//! the details: where the token may go, what a broken file becomes, what each
//! refusal of the hub means.

mod cache;
mod download;
mod error;
mod http;
mod progress;
mod settings;
#[cfg(test)]
mod tests;

pub use error::HubError;
pub use settings::Settings;

use std::path::PathBuf;

use cache::{Repo, SINGLE};
use download::Downloader;

/// What a job needs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// config.json alone: to plan.
    Config,
    /// Configuration and tokenizer: to start afresh.
    NoWeights,
    /// All.
    Weights,
    /// All of a sentence encoder: how its vectors are pooled, too.
    Encoder,
}

impl Needs {
    fn weights(self) -> bool {
        matches!(self, Self::Weights | Self::Encoder)
    }
}

/// The directory of model `name` at `revision` (`None`: main), complete.
///
/// # Errors
/// The model is not in the cache and cannot be fetched; see [`HubError`].
pub fn model(
    settings: &Settings,
    name: &str,
    revision: Option<&str>,
    needs: Needs,
) -> Result<PathBuf, HubError> {
    let repo = Repo::new(&settings.cache, name)?;
    let revision = cache::check_revision(revision.unwrap_or("main"))?;
    let held = repo.commit(revision);
    let mut lacking = vec!["config.json".to_string()];
    if let Some(commit) = &held {
        lacking = repo.lacks(commit, needs)?;
        if lacking.is_empty() {
            return Ok(repo.snapshot(commit));
        }
    }
    // What the model cannot do without is there: the rest is fetched where that can be.
    let usable = held
        .as_ref()
        .filter(|_| !lacking.iter().any(|file| cache::is_required(file)));
    if settings.offline {
        return match usable {
            Some(commit) => Ok(repo.snapshot(commit)),
            None => Err(HubError::Offline {
                model: name.to_string(),
                files: lacking.join(", "),
                cache: settings.cache.clone(),
            }),
        };
    }
    let fetched = complete(
        settings,
        &repo,
        held.as_deref().unwrap_or(revision),
        revision,
        needs,
    );
    match (fetched, usable) {
        // The hub has the file and sent it badly: without it the model would be another.
        (Err(error @ (HubError::Broken { .. } | HubError::Damaged { .. })), _) => Err(error),
        (Err(_), Some(commit)) => Ok(repo.snapshot(commit)),
        (fetched, _) => fetched,
    }
}

/// Fetches what the cache lacks. `at` is the commit that is there in part, or the
/// revision.
fn complete(
    settings: &Settings,
    repo: &Repo,
    at: &str,
    revision: &str,
    needs: Needs,
) -> Result<PathBuf, HubError> {
    let downloader = Downloader::new(settings, repo)?;
    let first = downloader.fetch(at, "config.json")?;
    let commit = first.ok_or_else(|| HubError::NoConfig {
        model: repo.name.clone(),
    })?;
    repo.write_ref(revision, &commit)?;
    if needs == Needs::Config {
        return Ok(repo.snapshot(&commit));
    }
    for file in cache::small(needs) {
        if repo.may_have(&commit, file) && downloader.fetch(&commit, file)?.is_none() {
            repo.note_absent(&commit, file);
        }
    }
    if needs.weights()
        && repo
            .weights(&commit)?
            .is_none_or(|lacking| !lacking.is_empty())
    {
        let single = !repo.is_sharded(&commit) && downloader.fetch(&commit, SINGLE)?.is_some();
        if !single {
            downloader
                .fetch(&commit, cache::INDEX)?
                .ok_or_else(|| HubError::NoWeights {
                    model: repo.name.clone(),
                })?;
            for shard in repo.weights(&commit)?.unwrap_or_default() {
                downloader
                    .fetch(&commit, &shard)?
                    .ok_or_else(|| HubError::NoFile {
                        model: repo.name.clone(),
                        file: shard.clone(),
                    })?;
            }
        }
    }
    Ok(repo.snapshot(&commit))
}
