//! Keys of the commands that write models: `run quantize` and `run merge`.

use super::{Default, Key, Kind, Limit, Range, Section};

pub(super) const SECTION: Section = Section {
    title: "Export",
    about: "How `run quantize` and `run merge` write a model.",
    keys: &[
        Key {
            name: "export.format",
            kind: Kind::Enum(&["safetensors", "gguf"]),
            nullable: false,
            default: Default::Str("safetensors"),
            help: "Merged model as safetensors (a directory) or gguf (a file for llama.cpp)",
            about: "A GGUF file contains the tokenizer. Llama, Mistral, Qwen2 and Qwen3 models with a byte-level BPE or a SentencePiece-like tokenizer can be written.",
            limit: Limit::None,
        },
        Key {
            name: "export.dtype",
            kind: Kind::Enum(&["f32", "bf16", "f16", "q8_0"]),
            nullable: true,
            default: Default::Null,
            help: "Type of a merged model's weights; null: the base's own, f16 in GGUF",
            about: "`q8_0` (8 bits a weight) is for GGUF only, `bf16` for safetensors only. The merge itself is computed in f32.",
            limit: Limit::None,
        },
        Key {
            name: "export.compute_dtype",
            kind: Kind::Enum(&["f32", "bf16", "f16"]),
            nullable: true,
            default: Default::Null,
            help: "What transformers computes in, quantised model; null: the base's own type",
            about: "`run quantize` writes it into config.json as `bnb_4bit_compute_dtype`. Kiln itself does not read it.",
            limit: Limit::None,
        },
        Key {
            name: "export.max_shard_gb",
            kind: Kind::Float(Range::above(0.0)),
            nullable: false,
            default: Default::Int(5),
            help: "Largest weight file, in gigabytes; a larger model becomes several",
            about: "A tensor that is larger by itself has a file of its own. GGUF is always one file.",
            limit: Limit::None,
        },
        Key {
            name: "export.check",
            kind: Kind::Bool,
            nullable: false,
            default: Default::Bool(true),
            help: "After a merge: compare its logits with those of base + adapter",
            about: "Holds first the base with its adapter and then the merged model in memory, the latter in f32. A model for which memory is short, and a GGUF file, is written unchecked, and that is said.",
            limit: Limit::None,
        },
    ],
};
