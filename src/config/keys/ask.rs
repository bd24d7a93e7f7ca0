//! Keys of the commands that ask another model: `run synth`, and the judge of `run eval`
//! and `run compare`.

use super::{Default, Key, Kind, Limit, MOST_TOKENS, Range, Section};

/// Keys that say whom to ask, the same in both sections; then those of the section.
macro_rules! asked {
    ($section:literal, $who:literal, $max_tokens:literal, $temperature:literal, [$($more:expr),* $(,)?]) => {
        &[
            Key {
                name: concat!($section, ".base_url"),
                kind: Kind::Str,
                nullable: true,
                default: Default::Null,
                help: concat!("Address of the OpenAI-compatible API of ", $who, ", up to /v1"),
                about: concat!(
                    "For example http://127.0.0.1:8000/v1. Requests go to BASE_URL/chat/completions; redirects are not followed. null asks the local model at `",
                    $section, ".path`."
                ),
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".model"),
                kind: Kind::Str,
                nullable: true,
                default: Default::Null,
                help: concat!("Name of the model at ", $section, ".base_url"),
                about: "As the server lists it.",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".path"),
                kind: Kind::Path,
                nullable: true,
                default: Default::Null,
                help: "Directory of a local chat model to ask in place of an endpoint",
                about: "A Hugging Face directory with a chat template, loaded as `quantization` and `device` say.",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".api_key_env"),
                kind: Kind::Str,
                nullable: true,
                default: Default::Str("OPENAI_API_KEY"),
                help: "Environment variable that holds the endpoint's key; null sends none",
                about: concat!(
                    "The name, never the key itself: configs are written into run directories. Where the variable is not set, no key is sent. The key goes to `",
                    $section, ".base_url` and nowhere else."
                ),
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".max_tokens"),
                kind: Kind::Int(Range::closed(1.0, MOST_TOKENS)),
                nullable: false,
                default: Default::Int($max_tokens),
                help: "Longest reply in tokens; one that reaches it counts as cut off",
                about: "Models that think before they answer need several thousand.",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".temperature"),
                kind: Kind::Float(Range::at_least(0.0)),
                nullable: true,
                default: Default::Float($temperature),
                help: "Randomness of the replies; 0 is greedy, null leaves it to the server",
                about: "Some hosted models refuse any temperature but their own: set null. For a local model null means 1.",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".timeout_s"),
                kind: Kind::Int(Range::closed(1.0, 86400.0)),
                nullable: false,
                default: Default::Int(120),
                help: "Seconds without a sign of the server until a request counts as broken",
                about: "",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".max_retries"),
                kind: Kind::Int(Range::closed(0.0, 100.0)),
                nullable: false,
                default: Default::Int(6),
                help: "How often a request is sent again after 429, 5xx or a broken connection",
                about: "The pause is what Retry-After says, else 1 s, doubled each time up to 60 s. An address that has never answered is tried three times only.",
                limit: Limit::None,
            },
            Key {
                name: concat!($section, ".concurrency"),
                kind: Kind::Int(Range::closed(1.0, 1024.0)),
                nullable: false,
                default: Default::Int(4),
                help: "Chats asked at once: requests on the way, or slots of a local model",
                about: "Raise it as far as the server's limits allow.",
                limit: Limit::None,
            },
            $($more),*
        ]
    };
}

pub(super) const SYNTH: Section = Section {
    title: "Synthetic data",
    about: "How `run synth` turns abstracts into questions and answers: who writes them, how many of each kind, and what is kept.",
    keys: asked!(
        "synth",
        "the writer",
        2048,
        0.7,
        [
            Key {
                name: "synth.abstracts",
                kind: Kind::Path,
                nullable: true,
                default: Default::Null,
                help: "File of abstracts: JSONL or CSV with a column text or abstract, or text",
                about: "In a text file abstracts are paragraphs, or lines where there are no blank ones. Another column: `data.columns.text=NAME`. Bad rows are treated as `data.on_error` says.",
                limit: Limit::None,
            },
            Key {
                name: "synth.answers",
                kind: Kind::Int(Range::closed(0.0, 50.0)),
                nullable: false,
                default: Default::Int(3),
                help: "Pairs an abstract whose question the abstract answers",
                about: "",
                limit: Limit::None,
            },
            Key {
                name: "synth.refusals",
                kind: Kind::Int(Range::closed(0.0, 50.0)),
                nullable: false,
                default: Default::Int(1),
                help: "Pairs an abstract whose question it does not answer, and which say so",
                about: "They teach the model not to make up what a text does not say. A tenth to a quarter of the set is usual; more makes it refuse too often.",
                limit: Limit::None,
            },
            Key {
                name: "synth.corrections",
                kind: Kind::Int(Range::closed(0.0, 50.0)),
                nullable: false,
                default: Default::Int(1),
                help: "Pairs an abstract whose question supposes something false, and correct it",
                about: "",
                limit: Limit::None,
            },
            Key {
                name: "synth.max_attempts",
                kind: Kind::Int(Range::closed(1.0, 100.0)),
                nullable: false,
                default: Default::Int(3),
                help: "How often an abstract is asked about until the reply has the right form",
                about: "After the last attempt the best reply counts, though it has too few pairs; an abstract without any is left out and named in the report. The same command with more attempts or a larger `synth.max_tokens` asks about those again.",
                limit: Limit::None,
            },
            Key {
                name: "synth.review",
                kind: Kind::Bool,
                nullable: false,
                default: Default::Bool(true),
                help: "Have the model read its pairs against the abstract again and reject wrong ones",
                about: "One more request an abstract. What it rejects stands in the report with its reason.",
                limit: Limit::None,
            },
            Key {
                name: "synth.min_grounded",
                kind: Kind::Float(Range::closed(0.0, 1.0)),
                nullable: false,
                default: Default::Float(0.6),
                help: "Least share of an answer's content words that the abstract must have",
                about: "Words are compared without their endings. Numbers must be in the abstract, all of them, whatever this says, unless it is 0, which turns both checks off. In corrections the question's words count as well; refusals are checked for numbers and for saying no.",
                limit: Limit::None,
            },
            Key {
                name: "synth.max_overlap",
                kind: Kind::Float(Range::left_open(0.0, 1.0)),
                nullable: false,
                default: Default::Float(0.7),
                help: "Questions that share more of their word pairs are near-duplicates",
                about: "Shared word pairs over all word pairs of both (Jaccard), after the normalisation of exact match; the later question goes. 1.0 drops only questions that are equal.",
                limit: Limit::None,
            },
            Key {
                name: "synth.context",
                kind: Kind::Bool,
                nullable: false,
                default: Default::Bool(true),
                help: "Put the abstract before the question in the user's turn",
                about: "The model then learns to answer from a text it is given. Without it, it learns the answers themselves, and refusals lose their sense.",
                limit: Limit::None,
            },
            Key {
                name: "synth.system",
                kind: Kind::Str,
                nullable: true,
                default: Default::Str("Answer from the text, and say so where it has no answer."),
                help: "System turn of every row that is written; null: none",
                about: "",
                limit: Limit::None,
            },
        ]
    ),
};

pub(super) const JUDGE: Section = Section {
    title: "Judge",
    about: "Who judges answers beside their references in `run eval` and `run compare`, where `task.metrics` has `win_rate`. Each pair is judged in both orders; the rate is not corrected for length.",
    keys: asked!(
        "judge",
        "the judge",
        1024,
        0.0,
        [Key {
            name: "judge.cache",
            kind: Kind::Path,
            nullable: true,
            default: Default::Str("outputs/judged.jsonl"),
            help: "File that keeps verdicts, so that none is asked for twice; null: none",
            about: "A verdict is found again by judge, question, answer and reference, in any run. Remove the file to have all judged anew.",
            limit: Limit::None,
        },]
    ),
};
