//! The model that a job asks: an endpoint, or a local one that is loaded.

use super::error::Error;
use super::forecast::{halved, watch_unplanned};
use super::setup::{ModelUse, Setup};
use crate::ask::{Ask, AskError, Endpoint, Local, Settings};
use crate::config::types::{AskConfig, Config};
use crate::generate::sampling::Sampler;
use crate::model::Adaptation;

fn settings(keys: &'static str, asked: &AskConfig) -> Result<Settings, AskError> {
    Settings::new(keys, asked, |name| std::env::var(name).ok())
}

/// Whether the keys of the section `keys` name one model to ask.
///
/// # Errors
/// Nobody, two, or an endpoint that cannot be asked.
pub(super) fn check(keys: &'static str, asked: &AskConfig) -> Result<(), AskError> {
    match (&asked.base_url, &asked.path) {
        (None, None) => Err(AskError::Nobody { keys }),
        (Some(_), Some(_)) => Err(AskError::Both { keys }),
        (Some(_), None) => settings(keys, asked).map(|_| ()),
        (None, Some(_)) => Ok(()),
    }
}

/// Who is asked, in words.
pub(super) fn name(asked: &AskConfig) -> String {
    match (&asked.base_url, &asked.path) {
        (Some(url), _) => {
            let model = asked.model.as_deref().unwrap_or_default();
            format!("{model} at {}", url.trim().trim_end_matches('/'))
        }
        (None, Some(path)) => path.display().to_string(),
        (None, None) => String::new(),
    }
}

/// Opens the model and lets `work` ask it. A local model is gone when this returns.
///
/// # Errors
/// Those of [`check`] and of `work`; a local model that cannot be loaded.
pub(super) fn with_asker<T>(
    keys: &'static str,
    asked: &AskConfig,
    config: &Config,
    work: impl FnOnce(&mut dyn Ask) -> Result<T, Error>,
) -> Result<T, Error> {
    check(keys, asked)?;
    let Some(path) = &asked.path else {
        return work(&mut Endpoint::new(settings(keys, asked)?)?);
    };
    let mut config = config.clone();
    config.model.path = Some(path.clone());
    config.model.init = crate::config::types::ModelInit::Pretrained;
    config.inference.do_sample = true;
    config.inference.num_beams = 1;
    config.inference.temperature = asked.temperature.unwrap_or(1.0);
    config.inference.batch_size = asked.concurrency;
    let setup = Setup::new(&config, ModelUse::Run)?;
    if !setup.has_chat()? {
        return Err(AskError::NoChat {
            keys,
            path: path.clone(),
            error: "no chat template".to_string(),
        }
        .into());
    }
    let tokenizer = setup.tokenizer()?;
    let encoder = setup.encoder(&config)?.for_chat();
    let sampler = Sampler::new(&config.inference).map_err(AskError::from)?;
    setup
        .has_room(1, asked.max_tokens)
        .map_err(|room| AskError::NoRoom { keys, room })?;
    let device = setup.chosen.name.as_str();
    let key = format!("{keys}.concurrency");
    let fewer = halved("ask less at once", &key, asked.concurrency);
    watch_unplanned(device, fewer.as_deref(), || {
        let mut local = Local {
            model: setup.load(&config, Adaptation::None)?,
            encoder,
            tokenizer,
            dir: path.clone(),
            keys,
            max_tokens: asked.max_tokens,
            sampler,
            seed: config.seed,
            slots: asked.concurrency,
            asked: 0,
        };
        work(&mut local)
    })
}
