//! Answers of a model to questions: by ranking options, or by generation.

use std::path::{Path, PathBuf};

use crate::clean::{CleanError, Cleaner};
use crate::config::types::{InferenceConfig, TaskKind};
use crate::data::example::Example;
use crate::data::tokenizer::{Tokenizer, TokenizerError};
use crate::data::{EncodeError, Encoder};
use crate::generate::sampling::{Sampler, SamplingError};
use crate::generate::validate::is_valid;
use crate::generate::{Beams, GenerateOptions, Prompt, stream};
use crate::model::{Decoder, Ragged};

/// Why questions cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error("inference.clean: {0}")]
    Clean(#[from] CleanError),
    #[error(
        "{}:{row}: token id {id} is outside the model's vocabulary of {vocab}: tokenizer.json \
         belongs to another model; copy it again from the model's page", path.display()
    )]
    Vocabulary {
        path: PathBuf,
        row: usize,
        id: u32,
        vocab: usize,
    },
    #[error("{}:{row}: the prompt has no tokens: put {{question}} into prompt.template", path.display())]
    EmptyPrompt { path: PathBuf, row: usize },
}

/// Questions and what turns them into tokens.
pub struct Questions<'a> {
    pub examples: &'a [Example],
    /// The file they come from, for errors.
    pub path: &'a Path,
    pub kind: TaskKind,
    pub encoder: &'a Encoder<'a>,
    pub tokenizer: &'a Tokenizer,
    /// Prompts longer than this are cut on the left.
    pub max_prompt: usize,
}

/// What a reader sees while answers are generated.
pub trait Reader {
    /// An attempt at these questions begins, counting from 0.
    fn attempt(&mut self, questions: &[usize], attempt: usize);
    /// The answer to a question so far, as it will stand; `done` if it is whole.
    fn answer(&mut self, question: usize, text: &str, done: bool);
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    /// Has the form the task asks for.
    pub valid: bool,
    /// Generations it took; 1 unless a retry was needed.
    pub attempts: usize,
}

impl Questions<'_> {
    /// Encodes every prompt, and every option where options are `ranked`, and
    /// looks for tokens that a model with `vocab` of them does not have.
    ///
    /// # Errors
    /// The first question that cannot be asked.
    pub fn check(&self, vocab: usize, ranked: bool) -> Result<(), AnswerError> {
        for example in self.examples {
            let ids = self.prompt_ids(example)?;
            let options = match ranked {
                true => self.option_sequences(example)?,
                false => Vec::new(),
            };
            let all = ids.iter().chain(options.iter().flat_map(|o| &o.ids));
            if let Some(&id) = all.max().filter(|id| **id as usize >= vocab) {
                return Err(AnswerError::Vocabulary {
                    path: self.path.to_path_buf(),
                    row: example.row,
                    id,
                    vocab,
                });
            }
        }
        Ok(())
    }

    /// Tokens of each question's prompt.
    ///
    /// # Errors
    /// The first question that cannot be asked.
    pub fn prompt_lengths(&self) -> Result<Vec<usize>, AnswerError> {
        let prompts = self.examples.iter().map(|example| self.prompt_ids(example));
        prompts.map(|ids| Ok(ids?.len())).collect()
    }

    fn prompt_ids(&self, example: &Example) -> Result<Vec<u32>, AnswerError> {
        let ids = self
            .encoder
            .prompt_ids(example, self.path, self.max_prompt)?;
        if ids.is_empty() {
            return Err(self.empty_prompt(example));
        }
        Ok(ids)
    }

    /// The option the model finds most likely as the answer, by the sum of its
    /// tokens' log-probabilities after the prompt, the rule of MMLU (Hendrycks et
    /// al., 2021). Ties go to the first.
    ///
    /// # Errors
    /// A question that cannot be encoded, or logits that are not finite.
    pub fn rank_options(
        &self,
        model: &mut Decoder,
        adapter: bool,
        batch_size: usize,
    ) -> Result<Vec<usize>, AnswerError> {
        let mut chosen = Vec::with_capacity(self.examples.len());
        for examples in self.examples.chunks(batch_size.max(1)) {
            let mut options = Vec::new();
            for example in examples {
                options.push(self.option_sequences(example)?);
            }
            let longest = options.iter().flatten().map(|o| o.ids.len()).max();
            model.reserve_positions(longest.unwrap_or(1));
            let single = options.iter().flatten().all(|o| o.labels.len() == 1);
            if single {
                chosen.extend(rank_by_next_token(model, &options, adapter)?);
            } else {
                for options in &options {
                    chosen.push(rank_by_sequence(model, options, adapter)?);
                }
            }
        }
        Ok(chosen)
    }

    /// The prompt with each option behind it, without the token that ends an answer.
    fn option_sequences(&self, example: &Example) -> Result<Vec<OptionTokens>, AnswerError> {
        let (prompt, options) = self.encoder.option_ids(example, self.path)?;
        if prompt.is_empty() && !options.is_empty() {
            return Err(self.empty_prompt(example));
        }
        let sequence = |labels: Vec<u32>| OptionTokens {
            ids: [&prompt[..], &labels].concat(),
            labels,
        };
        Ok(options.into_iter().map(sequence).collect())
    }

    fn empty_prompt(&self, example: &Example) -> AnswerError {
        AnswerError::EmptyPrompt {
            path: self.path.to_path_buf(),
            row: example.row,
        }
    }

    /// Generated answers, cleaned by the rules of `inference.clean`. Where validation
    /// is on, an answer without the form of the task is generated again, sampling, up
    /// to `max_retries` times; the last attempt stands.
    ///
    /// # Errors
    /// A question that cannot be encoded, or logits that are not finite.
    pub fn generate(
        &self,
        model: &mut Decoder,
        inference: &InferenceConfig,
        seed: u64,
        adapter: bool,
        mut reader: Option<&mut dyn Reader>,
    ) -> Result<Vec<Answer>, AnswerError> {
        let mut prompts = Vec::with_capacity(self.examples.len());
        for example in self.examples {
            prompts.push(self.prompt_ids(example)?);
        }
        let none = Answer {
            text: String::new(),
            valid: false,
            attempts: 0,
        };
        let mut answers = vec![none; prompts.len()];
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        let retries = match inference.validation.enabled {
            true => inference.validation.max_retries,
            false => 0,
        };
        let greedy = Sampler::new(inference)?;
        let cleaner = Cleaner::new(&inference.clean)?;
        for attempt in 0..=retries {
            let sampler = if attempt == 0 {
                greedy
            } else {
                greedy.sampling()
            };
            let options = GenerateOptions {
                max_new_tokens: inference.max_new_tokens,
                sampler,
                beams: Beams::new(inference).filter(|_| attempt == 0),
                eos_ids: self.encoder.stop_ids(),
                seed,
                adapter,
                slots: inference.batch_size,
            };
            let asked: Vec<Prompt<'_>> = open
                .iter()
                .map(|&i| Prompt {
                    ids: &prompts[i],
                    key: [i as u64, attempt as u64],
                })
                .collect();
            let stop = |ids: &[u32]| self.stops(ids, inference);
            if let Some(reader) = reader.as_deref_mut().filter(|_| !open.is_empty()) {
                reader.attempt(&open, attempt);
            }
            let outputs = stream(model, &asked, &options, &stop, &mut |progress| {
                let Some(reader) = reader.as_deref_mut() else {
                    return;
                };
                // An answer that cannot be decoded is an error below.
                let text = self.finish(progress.tokens, inference).unwrap_or_default();
                let (question, done) = (open[progress.prompt], progress.done);
                match done {
                    true => reader.answer(question, &cleaner.clean(&text), done),
                    // Rules may take away what stands there now.
                    false if !cleaner.is_empty() => {}
                    false => reader.answer(question, certain(&text, inference), done),
                }
            })?;
            for (&i, ids) in open.iter().zip(outputs) {
                let text = cleaner.clean(&self.finish(&ids, inference)?);
                answers[i] = Answer {
                    valid: is_valid(self.kind, &text, &self.examples[i].options),
                    text,
                    attempts: attempt + 1,
                };
            }
            open.retain(|&i| !answers[i].valid);
        }
        Ok(answers)
    }

    /// Whether the answer so far holds a stop string.
    pub fn stops(&self, ids: &[u32], inference: &InferenceConfig) -> bool {
        inference.use_stop_tokens
            && self.tokenizer.decode(ids).is_ok_and(|text| {
                inference
                    .stop
                    .iter()
                    .any(|s| !s.is_empty() && text.contains(s.as_str()))
            })
    }

    /// Decodes, cuts at the first stop string, trims.
    ///
    /// # Errors
    /// Tokens that cannot be decoded.
    pub fn finish(&self, ids: &[u32], inference: &InferenceConfig) -> Result<String, AnswerError> {
        let mut text = self.tokenizer.decode(ids)?;
        if inference.use_stop_tokens {
            let stops = inference.stop.iter().filter(|s| !s.is_empty());
            if let Some(at) = stops.filter_map(|s| text.find(s.as_str())).min() {
                text.truncate(at);
            }
        }
        Ok(text.trim().to_string())
    }
}

/// The part of an unfinished answer that the next tokens cannot change: without the
/// beginning of a stop string, and without the first bytes of a character.
pub fn certain<'a>(text: &'a str, inference: &InferenceConfig) -> &'a str {
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let stops = match inference.use_stop_tokens {
        true => &inference.stop[..],
        false => &[],
    };
    let begun = |stop: &String| {
        let mut ends = stop.char_indices().map(|(at, _)| at).rev();
        ends.find(|&at| text.ends_with(&stop[..at]))
    };
    let hidden = stops.iter().filter_map(begun).max().unwrap_or(0);
    text[..text.len() - hidden].trim_end()
}

/// One option of a question in tokens.
struct OptionTokens {
    /// Prompt and option.
    ids: Vec<u32>,
    /// The option's tokens, the end of `ids`.
    labels: Vec<u32>,
}

/// One forward pass a question: the options differ in the next token only.
fn rank_by_next_token(
    model: &Decoder,
    questions: &[Vec<OptionTokens>],
    adapter: bool,
) -> Result<Vec<usize>, SamplingError> {
    let mut batch = Ragged::default();
    let asked: Vec<&Vec<OptionTokens>> = questions.iter().filter(|q| !q.is_empty()).collect();
    for options in &asked {
        let ids = &options[0].ids;
        batch.push(&ids[..ids.len() - 1]);
    }
    if batch.is_empty() {
        return Ok(vec![0; questions.len()]);
    }
    let rows = batch.last_rows();
    let logits = model.logits(&batch, &rows, adapter, None);
    let mut scored = logits.chunks_exact(model.arch.vocab_size);
    questions
        .iter()
        .map(|options| match options.is_empty() {
            true => Ok(0),
            false => scored.next().map_or(Ok(0), |row| {
                best(options.iter().map(|o| f64::from(row[o.labels[0] as usize])))
            }),
        })
        .collect()
}

fn rank_by_sequence(
    model: &Decoder,
    options: &[OptionTokens],
    adapter: bool,
) -> Result<usize, SamplingError> {
    if options.is_empty() {
        return Ok(0);
    }
    best(options.iter().map(|option| {
        let mut labels = vec![-100; option.ids.len()];
        let from = option.ids.len() - option.labels.len();
        for (label, &id) in labels[from..].iter_mut().zip(&option.labels) {
            *label = i64::from(id);
        }
        let mut batch = Ragged::default();
        batch.push_labelled(&option.ids, &labels);
        -model.loss(&batch, adapter).value()
    }))
}

/// Index of the first largest score. An option may be impossible, at minus infinity.
///
/// # Errors
/// A score is NaN, or none is finite: the order of the options would decide.
fn best(scores: impl Iterator<Item = f64>) -> Result<usize, SamplingError> {
    let mut best = (0, f64::NEG_INFINITY);
    let mut finite = false;
    for (i, score) in scores.enumerate() {
        if score.is_nan() {
            return Err(SamplingError::NoFinite);
        }
        finite |= score.is_finite();
        if score > best.1 {
            best = (i, score);
        }
    }
    match finite {
        true => Ok(best.0),
        false => Err(SamplingError::NoFinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::PromptConfig;
    use crate::data::tokenizer::tests::write_words;

    const WORDS: [&str; 6] = ["q1", "q2", "q3", "q4", "a1", "a2"];

    /// The sequences of a question with these options, cut to `max` tokens. `<s>` 0,
    /// `</s>` 1, q1..q4 3..6, a1 a2 7 8.
    fn sequences(options: &[&str], max: usize) -> Result<Vec<Vec<u32>>, AnswerError> {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), true, &WORDS);
        let config = r#"{"eos_token": "</s>"}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let prompt = PromptConfig {
            template: "{question}".into(),
            answer: " {answer}".into(),
            ..PromptConfig::default()
        };
        let encoder = Encoder::new(&prompt, TaskKind::Mcq, Some(&tokenizer), max).unwrap();
        let example = Example {
            row: 5,
            question: Some("q1 q2 q3 q4".into()),
            options: options.iter().map(|o| o.to_string()).collect(),
            ..Example::default()
        };
        let questions = Questions {
            examples: &[],
            path: Path::new("d.csv"),
            kind: TaskKind::Mcq,
            encoder: &encoder,
            tokenizer: &tokenizer,
            max_prompt: max,
        };
        let sequences = questions.option_sequences(&example)?;
        for option in &sequences {
            assert!(option.ids.ends_with(&option.labels));
        }
        Ok(sequences.into_iter().map(|option| option.ids).collect())
    }

    #[test]
    fn options_are_whole_behind_one_prompt() {
        let options = ["a1 a1 a1", "a1 a1 a2", "a2"];
        assert_eq!(
            sequences(&options, 9).unwrap(),
            [
                vec![0, 3, 4, 5, 6, 7, 7, 7],
                vec![0, 3, 4, 5, 6, 7, 7, 8],
                vec![0, 3, 4, 5, 6, 8]
            ]
        );
        // Less than half of the length is left to the prompt, and the same for all.
        assert_eq!(
            sequences(&options, 6).unwrap(),
            [vec![0, 6, 7, 7, 7], vec![0, 6, 7, 7, 8], vec![0, 6, 8]]
        );
        let error = sequences(&options, 4).unwrap_err().to_string();
        assert!(
            error.starts_with("d.csv:5: training.max_seq_length=4 ")
                && error.contains("set training.max_seq_length=9"),
            "{error}"
        );
        assert!(sequences(&[], 4).unwrap().is_empty());
    }

    #[test]
    fn scores_that_say_nothing_choose_nothing() {
        let (nan, never) = (f64::NAN, f64::NEG_INFINITY);
        let best = |scores: &[f64]| best(scores.iter().copied());
        assert_eq!(best(&[-3.0, -1.0, -1.0]), Ok(1));
        assert_eq!(best(&[never, -1e30]), Ok(1));
        for scores in [[nan, nan], [nan, -1.0], [-1.0, nan], [never, never]] {
            assert_eq!(best(&scores), Err(SamplingError::NoFinite), "{scores:?}");
        }
    }
}
