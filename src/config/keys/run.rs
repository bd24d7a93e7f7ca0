//! Keys of the run as a whole.

use super::{Default, Key, Kind, Limit, Range, Section};

pub(super) const SECTION: Section = Section {
    title: "Run",
    about: "What is done, on which device, and where results go.",
    keys: &[
        Key {
            name: "method",
            kind: Kind::Enum(&["lora", "full"]),
            nullable: false,
            default: Default::Str("lora"),
            help: "What training changes: lora (matrices beside the base), full (every weight)",
            about: "`lora` with `quantization=nf4` is QLoRA; with `quantization=none` it is plain LoRA. `full` trains every weight of a dense base and needs several times the memory: use it for small models or for pretraining.",
            limit: Limit::None,
        },
        Key {
            name: "mode",
            kind: Kind::Enum(&["train", "infer", "eval"]),
            nullable: true,
            default: Default::Null,
            help: "Command this config is meant for: train, infer, eval; null fits all",
            about: "A safeguard for config files: `mode: infer` makes `run train` stop with an error instead of training by mistake.",
            limit: Limit::None,
        },
        Key {
            name: "seed",
            kind: Kind::Int(Range::closed(0.0, 9007199254740991.0)),
            nullable: false,
            default: Default::Int(42),
            help: "Seed of everything random: split, order, dropout, start values, sampling",
            about: "The same seed, config and device give a byte-identical adapter. Train with two or three seeds before you believe a small difference between two settings.",
            limit: Limit::None,
        },
        Key {
            name: "device",
            kind: Kind::Device,
            nullable: false,
            default: Default::Str("auto"),
            help: "Where to compute: auto, cpu, cuda, or cuda:N for the N-th card",
            about: "`auto` takes the first usable GPU of a binary built with the feature `cuda`, else the CPU.",
            limit: Limit::None,
        },
        Key {
            name: "adapter",
            kind: Kind::Path,
            nullable: true,
            default: Default::Null,
            help: "Adapter directory that infer, eval, compare, chat and merge put on the base",
            about: "null means the adapter last published for the task, `outputs/adapters/adapter_TASK`. A directory written by PEFT works as well.",
            limit: Limit::None,
        },
        Key {
            name: "output",
            kind: Kind::Path,
            nullable: true,
            default: Default::Null,
            help: "Where a command that makes one thing puts it; null: the run directory",
            about: "A file for `infer` and `eval` (predictions), `compare` (evaluation.csv), `chat` (the conversation, JSONL), `report` (HTML) and `synth`, which needs it (pairs, JSONL); a new directory for `quantize` and `merge`, which need it (a file with `export.format=gguf`).",
            limit: Limit::None,
        },
    ],
};
