//! A chat model from a local directory, run by the engine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::AskError;
use super::{Ask, Outcome};
use crate::data::Encoder;
use crate::data::tokenizer::Tokenizer;
use crate::generate::sampling::{Sampler, SamplingError};
use crate::generate::{GenerateOptions, Progress, Prompt, stream};
use crate::model::Decoder;

/// A model with what turns chats into tokens.
pub struct Local<'a> {
    pub model: Decoder,
    /// With the model's chat template; see [`Encoder::for_chat`].
    pub encoder: Encoder<'a>,
    pub tokenizer: &'a Tokenizer,
    pub dir: PathBuf,
    /// The section of the config that the settings come from, for errors.
    pub keys: &'static str,
    pub max_tokens: usize,
    pub sampler: Sampler,
    pub seed: u64,
    /// Chats that are worked on at once.
    pub slots: usize,
    /// Chats asked so far: each draws its own random numbers.
    pub asked: u64,
}

impl Local<'_> {
    /// The tokens of a chat.
    ///
    /// # Errors
    /// The template refuses it, it is longer than the model can take, or it has a token
    /// that the model does not have.
    fn prompt(&self, chat: &[Value]) -> Result<Vec<u32>, AskError> {
        let ids = self.encoder.conversation_ids(chat, Path::new("chat"))?;
        let (tokens, answer) = (ids.len(), self.max_tokens);
        let vocab = self.model.arch.vocab_size;
        if let Some(&id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(AskError::Vocabulary {
                keys: self.keys,
                path: self.dir.clone(),
                id,
                vocab,
            });
        }
        match self.model.arch.longest_sequence() {
            _ if ids.is_empty() => Err(AskError::NoText(": the chat has no tokens".to_string())),
            Some(most) if tokens + answer > most => Err(AskError::TooLong {
                keys: self.keys,
                tokens,
                answer,
                most,
            }),
            _ => Ok(ids),
        }
    }
}

impl Ask for Local<'_> {
    fn ask(&mut self, chats: &[Vec<Value>], done: &mut dyn FnMut(usize, Outcome)) {
        let mut prompts = Vec::new();
        for (at, chat) in chats.iter().enumerate() {
            let key = [self.asked, 0];
            self.asked += 1;
            match self.prompt(chat) {
                Ok(ids) => prompts.push((at, ids, key)),
                Err(error) => {
                    let one = error.is_of_one_chat();
                    done(at, Err(error));
                    if !one {
                        return;
                    }
                }
            }
        }
        let asked: Vec<Prompt<'_>> = prompts
            .iter()
            .map(|(_, ids, key)| Prompt { ids, key: *key })
            .collect();
        let options = GenerateOptions {
            max_new_tokens: self.max_tokens,
            sampler: self.sampler,
            beams: None,
            eos_ids: self.encoder.stop_ids(),
            seed: self.seed,
            adapter: false,
            slots: self.slots,
        };
        let mut ended = vec![false; prompts.len()];
        let (tokenizer, keys, limit) = (self.tokenizer, self.keys, self.max_tokens);
        let mut watch = |progress: Progress<'_>| {
            if progress.done {
                ended[progress.prompt] = true;
                done(
                    prompts[progress.prompt].0,
                    text(tokenizer, progress.tokens, keys, limit),
                );
            }
        };
        let end = stream(&mut self.model, &asked, &options, &|_| false, &mut watch);
        if let Err(error) = end
            && let Some(open) = ended.iter().position(|ended| !ended)
        {
            let keys = self.keys;
            done(
                prompts[open].0,
                Err(match error {
                    SamplingError::NoRoom(room) => AskError::NoRoom { keys, room },
                    other => other.into(),
                }),
            );
        }
    }

    fn at_once(&self) -> usize {
        self.slots
    }

    fn name(&self) -> String {
        self.dir.display().to_string()
    }
}

/// The text of an answer that is over.
fn text(tokenizer: &Tokenizer, ids: &[u32], keys: &'static str, limit: usize) -> Outcome {
    if ids.len() >= limit {
        return Err(AskError::Truncated { keys, limit });
    }
    let text = tokenizer.decode(ids)?;
    match text.trim() {
        "" => Err(AskError::NoText(String::new())),
        text => Ok(text.to_string()),
    }
}
