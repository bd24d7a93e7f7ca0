//! Why a model has no GGUF file.

use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum GgufError {
    #[error("{}: {problem}; GGUF files can be made of Llama, Mistral, Qwen2 and Qwen3 models with a byte-level BPE or a SentencePiece-like tokenizer. Write safetensors instead (export.format=safetensors)", file.display())]
    Unsupported { file: PathBuf, problem: String },
    #[error("{}: cannot read the tokenizer, which a GGUF file contains: {problem}", file.display())]
    Tokenizer { file: PathBuf, problem: String },
}
