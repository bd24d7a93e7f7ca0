//! Keys of what scores answers besides the task's metrics.

use super::{Default, Key, Kind, Limit, Section};

pub(super) const SECTION: Section = Section {
    title: "Evaluation",
    about: "Scores that need a model of their own, in eval, in compare and in the closing table of train.",
    keys: &[Key {
        name: "evaluate.sas_model",
        kind: Kind::Str,
        nullable: true,
        default: Default::Null,
        help: "Sentence encoder for semantic answer similarity: a directory or a hub name",
        about: "Adds three figures to the task's metrics: `sas`, the mean cosine of the sentence embeddings of answer and best reference, `exact_match_ignore_case`, and their product `sas_x_em`. BERT encoders in the layout of sentence-transformers can be read, for example sentence-transformers/all-MiniLM-L6-v2. They compute on the CPU. Only for tasks with answers in words (`task.type=saq`).",
        limit: Limit::None,
    }],
};
