//! Usage errors that clap would answer with advice that does not help here.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::no_sweep;
use crate::config::keys;
use crate::config::keys::elsewhere::meant;

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
        let similar = error.get(ContextKind::SuggestedArg).is_some();
        match takes_overrides.then(|| override_of(flag, &words)).flatten() {
            Some((known, _)) if similar && !known => return error,
            Some((_, text)) => format!(
                "unexpected argument '{flag}' found\n\n  tip: overrides have no dashes: {text}"
            ),
            None => return error,
        }
    };
    error_of(command, name, ErrorKind::UnknownArgument, &text)
}

/// The override that was probably meant by a flag, and whether its key is one.
fn override_of(flag: &str, words: &[&str]) -> Option<(bool, String)> {
    // Of `-lora.r=8` clap names `-l`.
    let at = words.iter().position(|word| match flag.starts_with("--") {
        true => word.split('=').next() == Some(flag),
        false => word.starts_with(flag),
    })?;
    let word = words[at].trim_start_matches('-');
    let (typed, value) = match word.split_once('=') {
        Some((typed, value)) => (typed, value),
        None => {
            let next = words.get(at + 1);
            let value = next.filter(|next| !next.starts_with('-') && !next.contains('='));
            (word, value.copied().unwrap_or("VALUE"))
        }
    };
    let spelt = typed.replace('-', "_");
    let group = keys::is_branch(&spelt).then_some(spelt.as_str());
    let key = meant(&spelt).or(group);
    let shown = key.unwrap_or(typed);
    Some((key.is_some(), format!("{shown}={value}")))
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
            ("train --resume", "training.resume=VALUE"),
            ("infer --model tiny", "model=tiny"),
            ("plan --nonsense=1", "nonsense=1"),
            ("compose --a.b 2", "a.b=2"),
        ] {
            let text = told(line);
            let tip = format!("tip: overrides have no dashes: {tip}\n");
            assert!(text.contains(&tip), "{text}");
        }
        assert!(told("train --dry").contains("'--dry-run'"));
        assert!(!told("doctor --learning_rate 3").contains("override"));
    }
}
