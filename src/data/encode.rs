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
mod tests {
    use super::*;
    use crate::data::example::TokenRow;
    use crate::data::tokenizer::tests::write_words;

    const WORDS: [&str; 6] = ["q1", "q2", "q3", "q4", "a1", "a2"];

    /// `<s>` 0, `</s>` 1, q1..q4 3..6, a1 a2 7 8.
    fn tokenizer() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), true, &WORDS);
        std::fs::write(
            dir.path().join("tokenizer_config.json"),
            r#"{"eos_token": "</s>"}"#,
        )
        .unwrap();
        Tokenizer::load(dir.path()).unwrap()
    }

    fn config(template: &str, answer: &str) -> PromptConfig {
        PromptConfig {
            template: template.to_string(),
            answer: answer.to_string(),
            ..PromptConfig::default()
        }
    }

    fn question(question: &str, answer: &str) -> Example {
        Example {
            row: 2,
            question: Some(question.to_string()),
            answers: vec![answer.to_string()],
            ..Example::default()
        }
    }

    fn encode(e: Example, kind: TaskKind, max: usize) -> Result<Encoded, EncodeError> {
        let t = tokenizer();
        let config = match kind {
            TaskKind::Text => config("", "{text}"),
            _ => config("{question}", " {answer}"),
        };
        Encoder::new(&config, kind, Some(&t), max)
            .unwrap()
            .encode(&[e], Path::new("d.csv"))
    }

    #[test]
    fn the_prompt_is_masked_and_eos_supervised() {
        let got = encode(question("q1 q2", "a1"), TaskKind::Saq, 64).unwrap();
        let want = Sample {
            row: 2,
            input_ids: vec![0, 3, 4, 7, 1],
            labels: vec![-100, -100, -100, 7, 1],
            cut: 0,
        };
        assert_eq!(got.samples, [want]);
        let report = EncodeReport {
            samples: 1,
            tokens: 5,
            supervised_tokens: 2,
            truncated: 0,
            longest_whole: 5,
            longest: 5,
            largest_id: 7,
        };
        assert_eq!(got.report, report);
        let ended = encode(question("q1", "a1 </s>"), TaskKind::Saq, 64).unwrap();
        assert_eq!(ended.samples[0].input_ids, [0, 3, 7, 1]);
    }

    #[test]
    fn a_merge_across_the_boundary_joins_the_parts() {
        let t = tokenizer();
        // "q1" + "2" would be the one unknown word "q12".
        let parts = join(&t, "q2 q1".to_string(), "a1", true).unwrap();
        assert_eq!(parts, (vec![0, 4, 3], vec![7]));
    }

    #[test]
    fn a_part_that_is_joined_has_no_blank_of_its_own() {
        // As Llama's: a blank before each text, and a word of the vocabulary that goes over the
        // boundary between the parts.
        let dir = tempfile::tempdir().unwrap();
        let vocab = [
            "<unk>", "\n", "▁", "Q", ":", "B", "▁Q", "▁B", "o", "▁Bo", ":▁",
        ];
        let ids: serde_json::Map<String, serde_json::Value> = (0..)
            .zip(vocab)
            .map(|(id, word)| (word.to_string(), serde_json::Value::from(id)))
            .collect();
        let file = serde_json::json!({"version": "1.0", "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "unk_token": "<unk>", "vocab": ids,
                "merges": [[":", "▁"], ["▁", "Q"], ["▁", "B"], ["▁B", "o"]]}});
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        let t = Tokenizer::load(dir.path()).unwrap();
        let id = |word: &str| vocab.iter().position(|w| *w == word).unwrap() as u32;
        let whole = t.encode("Q: Bo", false).unwrap();
        assert_eq!(whole, ["▁Q", ":▁", "B", "o"].map(id));
        let parts = join(&t, "Q:".to_string(), " Bo", false).unwrap();
        assert_eq!(parts, (["▁Q", ":"].map(id).to_vec(), vec![id("▁Bo")]));
        assert_eq!(t.encode("Bo", false).unwrap(), [id("▁Bo")]);
        assert_eq!(t.encode_after("Bo").unwrap(), ["B", "o"].map(id));
    }

    #[test]
    fn truncation_cuts_the_prompt_before_the_answer() {
        let cut = |max| encode(question("q1 q2 q3 q4", "a1 a2"), TaskKind::Saq, max).unwrap();
        assert_eq!(cut(8).samples[0].cut, 0);
        let got = cut(6);
        assert_eq!(got.samples[0].input_ids, [0, 5, 6, 7, 8, 1]);
        assert_eq!(
            (
                got.samples[0].cut,
                got.report.truncated,
                got.report.longest_whole
            ),
            (2, 1, 8)
        );
        // Half the length stays with the prompt; the answer loses its end.
        assert_eq!(cut(4).samples[0].input_ids, [0, 6, 7, 8]);
        assert_eq!(cut(2).samples[0].labels, [-100, 7]);
    }

    #[test]
    fn a_sample_without_supervision_is_refused_with_the_length_that_fits() {
        let error = encode(question("q1 q2", "a1"), TaskKind::Saq, 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("d.csv:2: training.max_seq_length=1 leaves no supervised token in 1"),
            "{error}"
        );
        assert!(error.ends_with("set training.max_seq_length=5"), "{error}");
        let row = |labels: Vec<i64>| Example {
            row: 4,
            tokens: Some(TokenRow {
                input_ids: vec![3; labels.len()],
                labels,
            }),
            ..Example::default()
        };
        let error = encode(row(vec![-100, -100, 7]), TaskKind::Saq, 2)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("(rows 4)") && error.ends_with("max_seq_length=3"),
            "{error}"
        );
        let error = encode(row(vec![7, -100]), TaskKind::Saq, 8).unwrap_err();
        assert!(
            matches!(error, EncodeError::Unsupervised { ref rows, .. } if rows[..] == [4]),
            "{error}"
        );
        assert_eq!(
            encode(row(vec![7, 9, -100]), TaskKind::Text, 2)
                .unwrap()
                .samples[0]
                .labels,
            [7, 9]
        );
    }

    #[test]
    fn documents_split_so_that_each_token_is_a_target_once() {
        for max in 2..12 {
            let text = Some("q1 q2 q3 q4 a1 a2 q1 q2".to_string());
            let got = encode(
                Example {
                    row: 1,
                    text,
                    ..Example::default()
                },
                TaskKind::Text,
                max,
            )
            .unwrap();
            let targets: Vec<i64> = got
                .samples
                .iter()
                .flat_map(|s| s.labels[1..].to_vec())
                .collect();
            assert_eq!(targets, [3, 4, 5, 6, 7, 8, 3, 4, 1], "{max}");
            assert!(
                got.samples
                    .iter()
                    .all(|s| s.input_ids.len() <= max && s.cut == 0)
            );
            assert_eq!(got.report.supervised_tokens, 9);
        }
    }

    #[test]
    fn prompts_for_generation_are_the_training_prompts() {
        let t = tokenizer();
        let encoder = Encoder::new(
            &config("{question}", " {answer}"),
            TaskKind::Saq,
            Some(&t),
            64,
        )
        .unwrap();
        let e = question("q1 q2 q3", "a1");
        let path = Path::new("d.csv");
        assert_eq!(encoder.prompt_ids(&e, path, 64).unwrap(), [0, 3, 4, 5]);
        assert_eq!(encoder.prompt_ids(&e, path, 3).unwrap(), [0, 4, 5]);
        assert_eq!(encoder.prompt_ids(&e, path, 1).unwrap(), [5]);
        let none = Encoder::new(&config("{question}", ""), TaskKind::Saq, None, 64).unwrap();
        assert!(
            none.encode(&[e], path)
                .unwrap_err()
                .to_string()
                .contains("data.format=tokens")
        );
    }
}
