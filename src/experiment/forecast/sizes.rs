//! How long the sequences of a run are, and the batches that a config makes of
//! them.

use super::super::error::Error;
use super::super::ready::Ready;
use super::super::setup::QuestionFile;
use crate::config::types::{Config, TaskKind};
use crate::data::batch::Schedule;
use crate::data::pack::packs;
use crate::data::{Brief, Samples};
use crate::embed::EncoderSize;
use crate::evaluate::references;
use crate::plan::{Batch, Lengths, Similarity, Test, Workload};

/// The sequences of a run.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    train: Vec<Lengths>,
    val: Vec<Lengths>,
    /// Prompts of the test set.
    test: Option<Vec<Lengths>>,
    /// Prompts that are answered at every validation.
    sampled: Option<Vec<Lengths>>,
    /// What compares the answers with the references.
    encoder: Option<EncoderSize>,
    /// At most so many of its tokens the references of a file are together.
    references: u64,
    kind: TaskKind,
}

/// An upper bound of the tokens of all references of a file: a piece of a word is at
/// least a byte, and two mark the ends.
fn reference_tokens(file: &QuestionFile, encoder: EncoderSize) -> u64 {
    let texts = file.examples.iter().flat_map(references);
    let longest = encoder.max_tokens;
    texts.map(|text| (text.len() + 2).min(longest) as u64).sum()
}

fn of_sample(sample: Brief) -> Lengths {
    Lengths {
        tokens: sample.tokens as u64,
        supervised: sample.supervised as u64,
    }
}

impl Sizes {
    /// Those of the data, as read.
    ///
    /// # Errors
    /// A test question that cannot be encoded.
    pub(super) fn of(ready: &Ready, config: &Config) -> Result<Sizes, Error> {
        let prompt = |tokens: usize| Lengths {
            tokens: tokens as u64,
            supervised: 0,
        };
        let prompts = |lengths: Option<Vec<usize>>| -> Option<Vec<Lengths>> {
            lengths.map(|lengths| lengths.into_iter().map(prompt).collect())
        };
        let test = ready.prompt_lengths(ready.test.as_ref(), config)?;
        let sampled = ready.prompt_lengths(ready.sampled.as_ref(), config)?;
        let encoder = ready.sas.as_ref().map(|sas| sas.size);
        let files = [&ready.test, &ready.sampled].into_iter().flatten();
        let references =
            encoder.and_then(|encoder| files.map(|file| reference_tokens(file, encoder)).max());
        Ok(Sizes {
            encoder,
            references: references.unwrap_or_default(),
            train: ready.train.briefs().map(of_sample).collect(),
            val: ready.val.briefs().map(of_sample).collect(),
            test: prompts(test),
            sampled: prompts(sampled),
            kind: config.task.kind,
        })
    }

    /// Without data: one step of sequences as long as the config allows, every token
    /// supervised.
    pub(super) fn assumed(config: &Config, encoder: Option<EncoderSize>) -> Sizes {
        let training = &config.training;
        let longest = Lengths {
            tokens: training.max_seq_length as u64,
            supervised: training.max_seq_length as u64,
        };
        let step = training.batch_size * training.gradient_accumulation_steps;
        let has_test = config.task.kind != TaskKind::Text;
        Sizes {
            encoder,
            references: 0,
            train: vec![longest; step],
            val: match training.val_ratio > 0.0 {
                true => vec![longest; training.batch_size],
                false => Vec::new(),
            },
            test: has_test.then(|| vec![longest; config.inference.batch_size]),
            sampled: (training.eval_examples > 0)
                .then(|| vec![longest; config.inference.batch_size.min(training.eval_examples)]),
            kind: config.task.kind,
        }
    }

    /// Tokens of all answers to a file as the encoder sees them, if its pieces of words
    /// are those of the model.
    fn answers(&self, encoder: EncoderSize, config: &Config) -> u64 {
        let files = [&self.test, &self.sampled].into_iter().flatten();
        let questions = files.map(Vec::len).max().unwrap_or_default();
        let longest = (config.inference.max_new_tokens + 2).min(encoder.max_tokens);
        (questions * longest) as u64
    }

    pub(super) fn examples(&self) -> (usize, usize) {
        (self.train.len(), self.val.len())
    }

    /// The batches of `config`, which may ask for smaller or shorter ones than the
    /// config that the sequences were read with.
    ///
    /// # Errors
    /// A config that makes no schedule.
    pub(super) fn workload(&self, config: &Config) -> Result<Workload, Error> {
        let training = &config.training;
        let cut = |all: &[Lengths]| -> Vec<Lengths> {
            let one = |l: &Lengths| l.within(training.max_seq_length);
            all.iter().map(one).collect()
        };
        let train = cut(&self.train);
        let tokens: Vec<usize> = train.iter().map(|l| l.tokens as usize).collect();
        let packs = packs(&tokens, training, config.seed);
        let schedule = Schedule::new(
            packs.len(),
            training.batch_size,
            training.gradient_accumulation_steps,
            training.epochs,
            training.max_steps,
        )?;
        let (seed, shuffle) = (config.seed, training.shuffle);
        let mut workload = Workload::training(&train, &packs, schedule, seed, shuffle);
        workload.checkpoints = training.save_steps > 0 && training.save_steps < workload.steps;
        workload.keeps_best = training.load_best_model_at_end;
        workload.validation =
            (!self.val.is_empty()).then(|| Batch::largest(&cut(&self.val), training.batch_size));
        let answered = |prompts: &Vec<Lengths>| {
            let (prompts, inference) = (cut(prompts), &config.inference);
            match self.kind {
                TaskKind::Mcq => Test::Ranked(Batch::largest(&prompts, inference.batch_size)),
                TaskKind::Saq | TaskKind::Text => {
                    let mut prompts = Batch::of_any(&prompts, inference.batch_size);
                    prompts.sequences *= inference.num_beams as u64;
                    Test::Generated {
                        prompts,
                        capacity: prompts.longest + inference.max_new_tokens as u64,
                    }
                }
            }
        };
        workload.test = self.test.as_ref().map(answered);
        workload.sampled = self.sampled.as_ref().map(answered);
        workload.similarity = self.encoder.map(|encoder| Similarity {
            weights: encoder.weights,
            working: encoder.working(self.references.max(self.answers(encoder, config))),
        });
        Ok(workload)
    }
}
