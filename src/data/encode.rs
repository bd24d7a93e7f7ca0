//! Examples into token ids and labels: the prompt is masked from the loss, the
//! answer and the EOS after it are supervised.
//!
//! **Boundary.** Generation continues the tokens of the prompt alone, so training
//! must see just those. The prompt and prompt + answer are both tokenised; where
//! the second begins with the first, its rest is the answer. Where the tokeniser
//! merges across the boundary (a prompt that ends in a blank, say), the tokens of
//! the two parts are joined instead.
//!
//! **Chat.** Conversations, and questions with `prompt.chat_template`, are written by
//! the model's chat template; see [`super::encode_chat`].
//!
//! **Truncation** to `training.max_seq_length`. A prompt is cut on the left, after
//! its BOS, so that the question next to the answer stays; it keeps at least half
//! of the length. Only what an answer needs beyond that is cut from the answer's
//! end, EOS included. Of options that are ranked nothing is cut. A document with nothing
//! but BOS before it is not cut but split, each chunk beginning with the last token of the
//! one before, so that every token is a target once; behind a prompt
//! (`prompt.template`) it is cut as an answer is. Rows of ready tokens and conversations
//! are cut on the right. No sample may lose its last supervised token: that is an error, as
//! is a row that has none to begin with.

use std::path::Path;

use rayon::prelude::*;

use super::chat::ChatTemplate;
pub use super::encode_error::EncodeError;
use super::encode_error::{prompt_error, tokenizer_error};
use super::encode_report::EncodeReport;
use super::example::Example;
use super::prompt::Prompter;
use super::sample::{Brief, IGNORED, Sample};
use super::tokenizer::{Tokenizer, TokenizerError};
use super::truncate::{chunks, keep_right};
use crate::config::types::{PromptConfig, TaskKind};

/// Samples in the order of their examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub samples: Vec<Sample>,
    pub report: EncodeReport,
}

/// Turns examples of one task into samples.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    pub(super) prompter: Prompter,
    pub(super) tokenizer: Option<&'a Tokenizer>,
    kind: TaskKind,
    pub(super) max_length: usize,
    /// Whether questions are written by the chat template.
    pub(super) asks_by_chat: bool,
    pub(super) system: Option<String>,
    /// The template, or why there is none.
    pub(super) chat: Result<&'a ChatTemplate, String>,
}

/// Tokens before truncation.
pub(super) struct Parts {
    pub prompt: Vec<u32>,
    pub answer: Vec<u32>,
    /// Tokens that truncation leaves at the beginning of the prompt.
    pub head: usize,
}

impl<'a> Encoder<'a> {
    /// `tokenizer` may be absent where every example is a row of ready tokens.
    pub fn new(
        prompt: &PromptConfig,
        kind: TaskKind,
        tokenizer: Option<&'a Tokenizer>,
        max_length: usize,
    ) -> Result<Self, EncodeError> {
        let prompter = Prompter::new(prompt).map_err(EncodeError::Template)?;
        Ok(Self {
            prompter,
            tokenizer,
            kind,
            max_length,
            asks_by_chat: prompt.chat_template,
            system: prompt.system.clone(),
            chat: Err("no chat template was given".to_string()),
        })
    }

    /// With the model's chat template, or the reason why it has none, which is an
    /// error only where a template is needed.
    pub fn with_chat(mut self, chat: Result<&'a ChatTemplate, String>) -> Self {
        self.chat = chat;
        self
    }

    /// The same for a conversation: answers end where the chat template ends a turn.
    pub fn for_chat(&self) -> Self {
        Self {
            asks_by_chat: true,
            ..self.clone()
        }
    }

    /// The same with another length that samples are cut to.
    pub fn with_length(&self, max_length: usize) -> Self {
        Self {
            max_length,
            ..self.clone()
        }
    }

    pub fn prompter(&self) -> &Prompter {
        &self.prompter
    }

    /// Encodes `examples`, read from `path`, for training.
    ///
    /// # Errors
    /// The first row that cannot be encoded, or all rows without a supervised token.
    pub fn encode(&self, examples: &[Example], path: &Path) -> Result<Encoded, EncodeError> {
        let encoded = self.encode_all(examples, path)?;
        self.refuse_unsupervised(encoded.samples.iter().map(Brief::of), path)?;
        Ok(encoded)
    }

    /// [`Encoder::encode`] that lets samples without a supervised token pass: to show
    /// them.
    ///
    /// # Errors
    /// The first row that cannot be encoded.
    pub fn encode_all(&self, examples: &[Example], path: &Path) -> Result<Encoded, EncodeError> {
        let rows: Vec<_> = examples.par_iter().map(|e| self.samples(e, path)).collect();
        let mut samples = Vec::with_capacity(examples.len());
        for row in rows {
            samples.extend(row?);
        }
        let mut report = EncodeReport::default();
        samples.iter().for_each(|sample| report.add(sample));
        Ok(Encoded { samples, report })
    }

    /// # Errors
    /// All rows without a supervised token.
    pub fn refuse_unsupervised(
        &self,
        samples: impl Iterator<Item = Brief>,
        path: &Path,
    ) -> Result<(), EncodeError> {
        let (mut lost, mut never, mut fits) = (Vec::new(), Vec::new(), 0);
        for sample in samples.filter(|sample| sample.supervised == 0) {
            if sample.cut > 0 {
                lost.push(sample.row);
                fits = fits.max(sample.tokens + sample.cut);
            } else {
                never.push(sample.row);
            }
        }
        if !lost.is_empty() {
            let path = path.to_path_buf();
            return Err(EncodeError::Truncation {
                path,
                rows: lost,
                max_length: self.max_length,
                fits,
            });
        }
        if !never.is_empty() {
            return Err(EncodeError::Unsupervised {
                path: path.to_path_buf(),
                rows: never,
            });
        }
        Ok(())
    }

    /// The prompt's tokens for generation, cut on the left after BOS to `limit`.
    pub fn prompt_ids(
        &self,
        example: &Example,
        path: &Path,
        limit: usize,
    ) -> Result<Vec<u32>, EncodeError> {
        let tokenizer = self.tokenizer(example, path)?;
        if self.asks_by_chat {
            let (ids, head) = self.chat_prompt(example, tokenizer, path, limit)?;
            return Ok(keep_right(&ids, head, limit));
        }
        let text = self
            .prompter
            .prompt(example)
            .map_err(|e| prompt_error(e, example, path))?;
        let ids = tokenizer
            .encode(&text, true)
            .map_err(|e| tokenizer_error(e, example, path))?;
        Ok(keep_right(&ids, head(&ids, tokenizer), limit))
    }

    /// The tokens of a question's prompt and of each option as its answer, as training
    /// writes them but without the token that ends an answer. Only the prompt is cut, by
    /// what the longest option asks for: all options follow the same tokens, whole.
    ///
    /// # Errors
    /// The question cannot be encoded, or an option leaves no room for a prompt.
    pub fn option_ids(
        &self,
        example: &Example,
        path: &Path,
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>), EncodeError> {
        let tokenizer = self.tokenizer(example, path)?;
        let ends = self.stop_ids();
        let (mut prompt, mut head, mut longest) = (Vec::new(), 0, 0);
        let mut options = Vec::with_capacity(example.options.len());
        for (i, option) in example.options.iter().enumerate() {
            let variant = Example {
                answer_index: Some(i),
                answers: vec![option.clone()],
                ..example.clone()
            };
            let mut parts = self.question_parts(&variant, tokenizer, path)?;
            if parts.answer.len() > longest {
                // With the token at the end, so that the prompt is cut as in training.
                longest = parts.answer.len();
                (prompt, head) = (parts.prompt, parts.head);
            }
            if parts.answer.last().is_some_and(|id| ends.contains(id)) {
                parts.answer.pop();
            }
            options.push(parts.answer);
        }
        if longest >= self.max_length {
            return Err(EncodeError::LongOption {
                path: path.to_path_buf(),
                row: example.row,
                max_length: self.max_length,
                answer: longest,
                fits: prompt.len() + longest,
            });
        }
        let prompt = keep_right(&prompt, head, self.max_length - longest);
        Ok((prompt, options))
    }

    pub(super) fn tokenizer(
        &self,
        example: &Example,
        path: &Path,
    ) -> Result<&'a Tokenizer, EncodeError> {
        self.tokenizer.ok_or_else(|| EncodeError::NoTokenizer {
            path: path.to_path_buf(),
            row: example.row,
        })
    }

    /// The samples of one example.
    pub(super) fn samples(
        &self,
        example: &Example,
        path: &Path,
    ) -> Result<Vec<Sample>, EncodeError> {
        let row = example.row;
        if let Some(tokens) = &example.tokens {
            let kept = tokens.input_ids.len().min(self.max_length);
            let (input_ids, labels) = (
                tokens.input_ids[..kept].to_vec(),
                tokens.labels[..kept].to_vec(),
            );
            return Ok(vec![Sample {
                row,
                input_ids,
                labels,
                cut: tokens.input_ids.len() - kept,
            }]);
        }
        let tokenizer = self.tokenizer(example, path)?;
        if let Some(conversation) = &example.conversation {
            return self.conversation(conversation, example, tokenizer, path);
        }
        if self.kind == TaskKind::Text {
            let set = [
                ("prompt.chat_template", self.asks_by_chat),
                ("prompt.system", self.system.is_some()),
            ];
            if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
                let (path, row) = (path.to_path_buf(), example.row);
                return Err(EncodeError::NotChat { path, row, key });
            }
        }
        let parts = self.question_parts(example, tokenizer, path)?;
        if self.kind == TaskKind::Text
            && parts.prompt.len() <= tokenizer.prefix().len()
            && self.max_length > 1
        {
            let prompt = parts.prompt.len();
            return Ok(chunks(
                row,
                &[parts.prompt, parts.answer].concat(),
                prompt,
                self.max_length,
            ));
        }
        let (prompt, answer) = (parts.prompt.len(), parts.answer.len());
        let budget = self.max_length;
        let prompt_kept = prompt.min(budget.saturating_sub(answer).max(budget / 2));
        let answer_kept = answer.min(budget - prompt_kept);
        let mut input_ids = keep_right(&parts.prompt, parts.head, prompt_kept);
        let mut labels = vec![IGNORED; prompt_kept];
        input_ids.extend(&parts.answer[..answer_kept]);
        labels.extend(parts.answer[..answer_kept].iter().map(|id| i64::from(*id)));
        Ok(vec![Sample {
            row,
            input_ids,
            labels,
            cut: prompt + answer - prompt_kept - answer_kept,
        }])
    }

    /// Prompt and answer, by the chat template or by the task's own.
    fn question_parts(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        path: &Path,
    ) -> Result<Parts, EncodeError> {
        match self.asks_by_chat {
            true => self.chat_parts(example, tokenizer, path),
            false => self.parts(example, tokenizer, path),
        }
    }

    fn parts(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        path: &Path,
    ) -> Result<Parts, EncodeError> {
        let prompt_text = self
            .prompter
            .prompt(example)
            .map_err(|e| prompt_error(e, example, path))?;
        let answer_text = self
            .prompter
            .answer(example)
            .map_err(|e| prompt_error(e, example, path))?;
        let (prompt, mut answer) = join(tokenizer, prompt_text, &answer_text, true)
            .map_err(|e| tokenizer_error(e, example, path))?;
        let eos = tokenizer
            .eos_id()
            .map_err(|e| tokenizer_error(e, example, path))?;
        if answer.last() != Some(&eos) {
            answer.push(eos);
        }
        let head = head(&prompt, tokenizer);
        Ok(Parts {
            prompt,
            answer,
            head,
        })
    }
}

/// Tokens of the two parts with the boundary described above; `special`: with BOS
/// before them.
pub(super) fn join(
    tokenizer: &Tokenizer,
    prompt_text: String,
    answer_text: &str,
    special: bool,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let prompt = tokenizer.encode(&prompt_text, special)?;
    let mut whole = tokenizer.encode(&(prompt_text + answer_text), special)?;
    let answer = match whole.starts_with(&prompt) {
        true => whole.split_off(prompt.len()),
        false => tokenizer.encode_after(answer_text)?,
    };
    Ok((prompt, answer))
}

/// The tokens at the beginning that truncation leaves: BOS.
pub(super) fn head(ids: &[u32], tokenizer: &Tokenizer) -> usize {
    match ids.starts_with(tokenizer.prefix()) {
        true => tokenizer.prefix().len(),
        false => 0,
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
