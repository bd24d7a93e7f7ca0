//! Keys of the data files.

use super::{Default, Key, Kind, Limit, Section};

const fn column(name: &'static str, help: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Str,
        nullable: true,
        default: Default::Null,
        help,
        about: "",
        limit: Limit::None,
    }
}

pub(super) const SECTION: Section = Section {
    title: "Data",
    about: "Which files are read. `task=...` sets the paths of the sets that come with the project.",
    keys: &[
        Key {
            name: "data.path",
            kind: Kind::Path,
            nullable: true,
            default: Default::Null,
            help: "Training file; the validation part is split off from it",
            about: "",
            limit: Limit::None,
        },
        Key {
            name: "data.test_path",
            kind: Kind::Path,
            nullable: true,
            default: Default::Null,
            help: "Test file: scored after training, and what infer and eval read",
            about: "Keep it apart from the training file. Without one, training ends without a closing table.",
            limit: Limit::None,
        },
        Key {
            name: "data.format",
            kind: Kind::Enum(&[
                "csv", "tsv", "jsonl", "squad", "text", "chat", "tokens", "parquet",
            ]),
            nullable: true,
            default: Default::Null,
            help: "csv, tsv, jsonl, squad, text, chat, tokens or parquet; null guesses it",
            about: "`csv` and `tsv` have a header; `text` is plain text, a paragraph a document; `jsonl` is one object a line, or one JSON list of objects. `squad` is the official SQuAD JSON. `chat` is JSONL or a JSON list of conversations, `messages` with `role` and `content` or ShareGPT's `conversations` with `from` and `value`: the model's chat template writes them, and only what an assistant says is supervised. `tokens` is JSONL with `input_ids` and `labels` (-100: not supervised), taken as it is, without tokenizer and prompt. A `parquet` file is read as JSONL with the same columns would be: questions, documents, conversations (lists of structs) or tokens.",
            limit: Limit::None,
        },
        Key {
            name: "data.on_error",
            kind: Kind::Enum(&["fail", "skip"]),
            nullable: false,
            default: Default::Str("fail"),
            help: "A row that cannot be used ends the command (fail) or is left out (skip)",
            about: "Rows with too few fields, wrong quotes, invalid UTF-8, an id that was used before, an empty answer, an answer that is none of the options, or a megabyte of text; of the training file also a conversation that the chat template refuses, or a row without a field that the prompt names. With `skip`, run.log names each with its reason and summary.json has their number (`skipped_rows`). A quote that is never closed is an error all the same: it takes the rest of the file with it.",
            limit: Limit::None,
        },
        Key {
            name: "data.cache",
            kind: Kind::Path,
            nullable: false,
            default: Default::Str("auto"),
            help: "Where tokens of the training file are kept: auto, off, or a directory",
            about: "The next run with the same content, tokenizer, prompt and length does not tokenise again, and tokens are read from the file as training needs them, so a set larger than memory can be trained on. `auto` keeps those of files from 4 MiB in `kiln/tokens` of the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`); `off` keeps them in memory, 4 bytes a token. Files there may be deleted at any time.",
            limit: Limit::None,
        },
        column(
            "data.columns.id",
            "Column of the example's id; null: `id`, else the row number",
        ),
        column(
            "data.columns.question",
            "Column of the question; null: `question`",
        ),
        column(
            "data.columns.options",
            "Column of the options; null: `options`, or one column each",
        ),
        column(
            "data.columns.answer",
            "Column of the answer; null: `answer`",
        ),
        column(
            "data.columns.context",
            "Column of the context; null: `context`",
        ),
        column("data.columns.text", "Column of plain text; null: `text`"),
    ],
};
