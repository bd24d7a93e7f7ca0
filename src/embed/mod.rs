//! Sentence embeddings by an encoder of the BERT family (Devlin et al., 2019), pooled
//! as sentence-transformers does it (Reimers and Gurevych, 2019), from a directory in
//! its layout. Encoders are small, so they compute on the CPU in f32, whatever the
//! device of the run.

mod bert;
mod config;
mod error;
mod pooling;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::EmbedError;

use crate::data::tokenizer::Tokenizer;
use crate::model::checkpoint::Checkpoint;
use bert::Bert;
use config::{BertConfig, Layout};
use pooling::Pooling;

/// Tokens of the texts that go through the encoder together.
const BATCH_TOKENS: usize = 4096;

/// A sentence encoder: text to vector.
pub struct SentenceEncoder {
    /// Where the tokenizer lies, for errors.
    dir: PathBuf,
    tokenizer: Tokenizer,
    bert: Bert,
    pooling: Pooling,
    max_tokens: usize,
    lower_case: bool,
}

/// What an encoder takes, from its config.json alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSize {
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes that a token of the texts at work takes.
    pub per_token: u64,
    /// Tokens of the longest text that is read whole.
    pub max_tokens: usize,
}

impl EncoderSize {
    /// # Errors
    /// Names the file of `dir` and what is wrong with it.
    pub fn of(dir: &Path) -> Result<Self, EmbedError> {
        let layout = Layout::read(dir)?;
        let config = BertConfig::read(&layout.transformer)?;
        let number = std::mem::size_of::<f32>() as u64;
        let (hidden, inner) = (config.hidden as u64, config.intermediate as u64);
        let tables = (config.vocab + config.positions) as u64;
        // Four projections and the feed-forward part with their biases, two norms.
        let layer = 4 * (hidden + 1) * hidden + 2 * hidden * inner + inner + 5 * hidden;
        let weights = (tables + 2) * hidden + config.layers as u64 * layer;
        // A layer's attention, or its feed-forward part, whichever keeps more.
        let width = (6 * hidden).max(2 * hidden + 2 * inner);
        Ok(Self {
            weights: number * weights,
            per_token: number * width,
            max_tokens: layout.max_tokens(&config),
        })
    }

    /// Bytes at work on texts of `tokens` tokens together, which go through the
    /// encoder in batches.
    pub fn working(&self, tokens: u64) -> u64 {
        let batch = BATCH_TOKENS.max(self.max_tokens) as u64;
        self.per_token * tokens.min(batch)
    }
}

/// What [`SentenceEncoder::load`] reads before the weights.
struct Parts {
    layout: Layout,
    config: BertConfig,
    tokenizer: Tokenizer,
    weights: Checkpoint,
}

impl Parts {
    fn open(dir: &Path) -> Result<Self, EmbedError> {
        let layout = Layout::read(dir)?;
        let config = BertConfig::read(&layout.transformer)?;
        let file = layout.transformer.join("tokenizer.json");
        if !file.is_file() {
            return Err(EmbedError::NoTokenizer(file));
        }
        let tokenizer = Tokenizer::load(&layout.transformer)?;
        if tokenizer.prefix().is_empty() || tokenizer.suffix().is_empty() {
            return Err(EmbedError::NoSpecialTokens(file));
        }
        let special = tokenizer.prefix().len() + tokenizer.suffix().len();
        layout.check_room(&config, special)?;
        let weights = Checkpoint::open(&layout.transformer)?;
        bert::check(&weights, &config)?;
        Ok(Self {
            layout,
            config,
            tokenizer,
            weights,
        })
    }
}

impl SentenceEncoder {
    /// Checks that the directory holds an encoder that [`SentenceEncoder::load`] can
    /// read, without reading its weights.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn check(dir: &Path) -> Result<(), EmbedError> {
        Parts::open(dir).map(drop)
    }

    /// Reads config.json, model.safetensors and tokenizer.json, and, where they are,
    /// modules.json, the pooling's config.json and sentence_bert_config.json. Without
    /// them vectors are means over the tokens, as sentence-transformers has it.
    ///
    /// # Errors
    /// As [`SentenceEncoder::check`], and weights that cannot be read.
    pub fn load(dir: &Path) -> Result<Self, EmbedError> {
        let parts = Parts::open(dir)?;
        let bert = Bert::load(&parts.weights, &parts.config)?;
        Ok(Self {
            max_tokens: parts.layout.max_tokens(&parts.config),
            dir: parts.layout.transformer,
            tokenizer: parts.tokenizer,
            bert,
            pooling: parts.layout.pooling,
            lower_case: parts.layout.lower_case,
        })
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.pooling.width(self.bert.hidden)
    }

    /// The vector of each text. Texts longer than the model reads are cut on the right.
    ///
    /// # Errors
    /// A text that the tokenizer cannot read, or that has a token the model lacks.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut vectors = Vec::with_capacity(texts.len());
        let mut batch: Vec<Vec<u32>> = Vec::new();
        let mut tokens = 0;
        for text in texts {
            let ids = self.tokens(text.as_ref())?;
            if tokens + ids.len() > BATCH_TOKENS && !batch.is_empty() {
                vectors.extend(self.pooled(&batch));
                (batch, tokens) = (Vec::new(), 0);
            }
            tokens += ids.len();
            batch.push(ids);
        }
        vectors.extend(self.pooled(&batch));
        Ok(vectors)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        let ids = match self.lower_case {
            true => self
                .tokenizer
                .encode_between(&text.to_lowercase(), self.max_tokens),
            false => self.tokenizer.encode_between(text, self.max_tokens),
        }?;
        match ids.iter().find(|id| **id as usize >= self.bert.vocab) {
            Some(&id) => Err(EmbedError::Vocabulary {
                file: self.dir.join("tokenizer.json"),
                id,
                vocab: self.bert.vocab,
            }),
            None => Ok(ids),
        }
    }

    fn pooled(&self, batch: &[Vec<u32>]) -> Vec<Vec<f32>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let hidden = self.bert.forward(batch);
        let mut rows = hidden.chunks_exact(self.bert.hidden);
        batch
            .iter()
            .map(|ids| {
                let rows: Vec<&[f32]> = rows.by_ref().take(ids.len()).collect();
                self.pooling.pool(&rows)
            })
            .collect()
    }
}

/// The cosine of the angle between two vectors, from -1 to 1; 0 where one is 0.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    match norms > 0.0 {
        true => (dot(a, b) / norms).clamp(-1.0, 1.0),
        false => 0.0,
    }
}
