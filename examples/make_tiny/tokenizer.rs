//! The tiny model's tokenizer: a byte-level BPE trained until every word of
//! the world is one token. Any other text falls apart into bytes.

use anyhow::{Result, anyhow};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer, TokenizerBuilder,
};

pub const BOS: &str = "<|bos|>";
pub const EOS: &str = "<|eos|>";
pub const PAD: &str = "<|pad|>";
pub const BOS_ID: u32 = 0;
pub const EOS_ID: u32 = 1;
pub const PAD_ID: u32 = 2;
/// More than the merges need; training stops when nothing is left to merge.
const MOST_TOKENS: usize = 4096;

/// Trains on `texts`; ids 0, 1, 2 are BOS, EOS, PAD, and BOS opens every text.
pub fn train(texts: &[String]) -> Result<Tokenizer> {
    let byte_level = || ByteLevel::new(false, false, true);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(MOST_TOKENS)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens([BOS, EOS, PAD].map(|t| AddedToken::from(t, true)).to_vec())
        .build();
    let mut model: tokenizers::tokenizer::TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(byte_level())))
        .with_decoder(Some(DecoderWrapper::ByteLevel(byte_level())))
        .build()
        .map_err(|e| anyhow!("tokenizer: {e}"))?;
    model
        .train(&mut trainer, texts.iter())
        .map_err(|e| anyhow!("tokenizer: {e}"))?;
    let bos_first = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))
        .map_err(|e| anyhow!("tokenizer: {e}"))?
        .special_tokens(vec![(BOS, BOS_ID)])
        .build()?;
    model.with_post_processor(Some(PostProcessorWrapper::Template(bos_first)));
    let text = model
        .to_string(false)
        .map_err(|e| anyhow!("tokenizer: {e}"))?;
    text.parse().map_err(|e| anyhow!("tokenizer: {e}"))
}

/// The id of a piece that must be one token.
pub fn one_token(tokenizer: &Tokenizer, piece: &str) -> Result<u32> {
    let encoding = tokenizer
        .encode_fast(piece, false)
        .map_err(|e| anyhow!("{piece:?}: {e}"))?;
    match encoding.get_ids() {
        [id] => Ok(*id),
        ids => Err(anyhow!("{piece:?} is {} tokens, not one", ids.len())),
    }
}

/// `tokenizer_config.json` for transformers.
pub fn config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 512
    })
}
