//! Usage errors that clap would answer with advice that does not help here.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::no_sweep;
use crate::compose::groups;
use crate::config::keys::elsewhere::meant;
use crate::config::keys::{self, Key, Kind};
use crate::config::{accepts, search_path};

/// `--multirun` where a command has no such flag, and keys that are written as flags: clap would
/// advise to pass both on as overrides, dashes and all.
pub(super) fn advised(
    command: &mut clap::Command,
    argv: &[OsString],
    error: clap::Error,
) -> clap::Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag,
        _ => return error,
    };
    let words: Vec<&str> = argv
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .collect();
    let named = words
        .iter()
        .find(|word| command.find_subcommand(word).is_some());
    let Some(name) = named.copied() else {
        return error;
    };
    let text = if matches!(flag.as_str(), "-m" | "--multirun") {
        no_sweep(name)
    } else {
        let sub = command.find_subcommand(name);
        let takes_overrides = sub.is_some_and(|sub| {
            let mut places = sub.get_positionals();
            places.any(|place| place.get_id() == "overrides")
        });
        let Some((typed, text)) = takes_overrides
            .then(|| override_of(name, flag, &words))
            .flatten()
        else {
            return error;
        };
        // clap's own advice is for flags that are misspelt.
        if typed && is_similar(sub, &error) {
            return error;
        }
        format!("unexpected argument '{flag}' found\n\n  tip: overrides have no dashes: {text}")
    };
    error_of(command, name, ErrorKind::UnknownArgument, &text)
}

/// Whether clap names a flag that help shows.
fn is_similar(sub: Option<&clap::Command>, error: &clap::Error) -> bool {
    let Some(ContextValue::String(similar)) = error.get(ContextKind::SuggestedArg) else {
        return false;
    };
    let name = similar.trim_start_matches('-');
    sub.is_some_and(|sub| sub.get_arguments().any(|arg| arg.get_long() == Some(name)))
}

/// Where the keys of a command are looked for first.
fn sections(command: &str) -> &'static [&'static str] {
    match command {
        "infer" | "eval" | "compare" | "chat" => &["inference", "prompt"],
        "synth" => &["synth"],
        "merge" | "quantize" => &["export"],
        _ => &["training", "lora", "data", "prompt"],
    }
}

/// The override that was probably meant by a flag, and whether it is only as it was typed.
fn override_of(command: &str, flag: &str, words: &[&str]) -> Option<(bool, String)> {
    // Of `-lora.r=8` clap names `-l`.
    let at = words.iter().position(|word| match flag.starts_with("--") {
        true => word.split('=').next() == Some(flag),
        false => word.starts_with(flag),
    })?;
    let word = words[at].trim_start_matches('-');
    let (typed, values) = match word.split_once('=') {
        Some((typed, value)) => (typed, vec![value]),
        None => {
            let value = |word: &&&str| {
                let number = word.parse::<f64>().is_ok();
                number || !word.starts_with(['-', '+', '~']) && !word.contains('=')
            };
            (
                word,
                words[at + 1..].iter().take_while(value).copied().collect(),
            )
        }
    };
    let spelt = typed.replace('-', "_");
    // A foreign tree has keys of its own.
    if command != "compose" {
        if let Some(key) = meant(&spelt, sections(command)) {
            let key = keys::find(key).or_else(|| keys::hydra::find(key))?;
            return Some((false, setting(key, &values)));
        }
        let groups = groups(&search_path(None, None));
        if let (Some((group, _)), [option]) =
            (groups.iter().find(|(n, _)| *n == spelt), &values[..])
        {
            return Some((false, format!("{group}={option}")));
        }
    }
    let value = match values[..] {
        [value] => value,
        _ => "VALUE",
    };
    Some((true, format!("{typed}={value}")))
}

/// `key=value` with the value that was typed where the key takes it, else what it takes.
fn setting(key: &Key, values: &[&str]) -> String {
    let name = key.name;
    let list = format!("[{}]", values.join(","));
    let fits = |text: &&str| accepts(key, text) && !text.contains([' ', '$']);
    let typed = match values {
        [] if matches!(key.kind, Kind::Bool | Kind::BoolOr(_)) => Some("true"),
        [] => None,
        [one] if fits(one) => Some(*one),
        _ => Some(list.as_str()).filter(fits),
    };
    match typed {
        Some(value) => format!("{name}={value}"),
        None => format!("{name}=VALUE, {}", key.type_text()),
    }
}

/// A usage error of one command, with that command's usage.
pub(super) fn error_of(
    command: &mut clap::Command,
    name: &str,
    kind: ErrorKind,
    text: &str,
) -> clap::Error {
    command.build();
    match command.find_subcommand_mut(name) {
        Some(command) => command.error(kind, text),
        None => command.error(kind, text),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::cli::parse;

    fn told(line: &str) -> String {
        let argv = std::iter::once("run").chain(line.split(' '));
        match parse(argv.map(OsString::from)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{line}"),
        }
    }

    #[test]
    fn a_command_without_sweeps_says_which_have_them() {
        for line in ["plan -m", "plan lora.r=4,8 --multirun", "plan a=1 -m b=2"] {
            let text = told(line);
            assert!(
                text.contains("run plan takes one config; run train"),
                "{text}"
            );
            assert!(!text.contains("-- -m"), "{text}");
        }
        assert!(told("compose -m").contains("run compose takes one config"));
        assert!(parse(["run", "train", "-m"].map(OsString::from)).is_ok());
    }

    #[test]
    fn keys_written_as_flags_are_told_without_dashes() {
        for (line, tip) in [
            ("train --lora.r=8", "lora.r=8"),
            (
                "train seed=1 --learning_rate 5e-5",
                "training.learning_rate=5e-5",
            ),
            (
                "train --per-device-train-batch-size=2",
                "training.batch_size=2",
            ),
            ("train -lora.r=8", "lora.r=8"),
            ("train --packing lora.r=8", "training.packing=true"),
            (
                "train --target_modules q_proj v_proj",
                "lora.target_modules=[q_proj,v_proj]",
            ),
            (
                "train --optim adamw_torch",
                "training.optimizer=VALUE, one of",
            ),
            ("train --output_dir out", "hydra.run.dir=out"),
            ("infer --model tiny", "model=tiny"),
            ("infer --temperature 0.7", "inference.temperature=0.7"),
            ("infer --batch_size 4", "inference.batch_size=4"),
            (
                "eval --length_penalty -1.0",
                "inference.length_penalty=-1.0",
            ),
            ("plan --nonsense=1", "nonsense=1"),
            ("compose --lr 2", "lr=2"),
        ] {
            let text = told(line);
            let tip = format!("tip: overrides have no dashes: {tip}");
            assert!(text.contains(&tip), "{text}");
        }
        assert!(told("train --dry").contains("'--dry-run'"));
        assert!(!told("doctor --learning_rate 3").contains("override"));
    }
}
