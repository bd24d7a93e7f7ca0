//! Keys of the task and of its prompt.

use super::{Default, Key, Kind, Limit, Range, Section};

pub(super) const TASK: Section = Section {
    title: "Task",
    about: "What the model learns to do. A file of the group `task` sets these together with the data, the prompt and the training defaults: `task=saq`.",
    keys: &[
        Key {
            name: "task.name",
            kind: Kind::Str,
            nullable: false,
            default: Default::Str("mcq"),
            help: "Name of the task; the adapter is published as adapter_NAME",
            about: "",
            limit: Limit::None,
        },
        Key {
            name: "task.type",
            kind: Kind::Enum(&["mcq", "saq", "text"]),
            nullable: false,
            default: Default::Str("mcq"),
            help: "mcq (multiple choice), saq (short answer), text (no question)",
            about: "`mcq` expects options and a letter, `saq` a free answer that is compared with the reference after normalisation. `text` is language modelling: there is no question to score, so only the loss is reported.",
            limit: Limit::None,
        },
        Key {
            name: "task.metrics",
            kind: Kind::Words(&["accuracy", "exact_match", "f1"]),
            nullable: false,
            default: Default::List(&["accuracy"]),
            help: "Figures of the closing table: accuracy, exact_match, f1",
            about: "`accuracy` counts right letters. `exact_match` and `f1` compare answers as the SQuAD script does: lower case, without articles and punctuation; f1 is the overlap of words.",
            limit: Limit::None,
        },
        Key {
            name: "task.max_test_examples",
            kind: Kind::Int(Range::at_least(1.0)),
            nullable: true,
            default: Default::Null,
            help: "Test questions scored after training; null scores them all",
            about: "The closing table answers every test question twice, with the base and with the adapter. Set a bound where that takes longer than you want to wait.",
            limit: Limit::None,
        },
    ],
};

pub(super) const PROMPT: Section = Section {
    title: "Prompt",
    about: "How an example becomes text. `{name}` stands for a field of the example (`question`, `options`, `context`, `answer`, `letter`, `text`); write `{{` and `}}` for braces. Training and inference use the same text.",
    keys: &[
        Key {
            name: "prompt.template",
            kind: Kind::Str,
            nullable: false,
            default: Default::Str("{question}\n{options}\nAnswer:"),
            help: "The part before the answer; it is masked from the loss",
            about: "Without a blank at the end: most tokenizers put the blank at the start of the next word, so it belongs to the answer.",
            limit: Limit::None,
        },
        Key {
            name: "prompt.answer",
            kind: Kind::Str,
            nullable: false,
            default: Default::Str(" {letter}"),
            help: "The supervised part; the end-of-text token follows it",
            about: "",
            limit: Limit::None,
        },
        Key {
            name: "prompt.option",
            kind: Kind::Str,
            nullable: false,
            default: Default::Str("{letter}) {text}"),
            help: "One option of a multiple-choice question",
            about: "",
            limit: Limit::None,
        },
        Key {
            name: "prompt.option_separator",
            kind: Kind::Str,
            nullable: false,
            default: Default::Str("\n"),
            help: "What stands between two options",
            about: "",
            limit: Limit::None,
        },
    ],
};
