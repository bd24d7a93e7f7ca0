//! How flags may be written that clap would read otherwise.

use std::ffi::OsString;

/// Hydra has flags of one dash and two letters, which getopt-like parsers read as
/// two flags. They become their long forms here. `--info` does not take an
/// override for its value.
pub(super) fn spell_out(argv: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let mut argv = argv.into_iter().peekable();
    let mut spelt = Vec::new();
    while let Some(arg) = argv.next() {
        flags &= arg != "--";
        let text = arg.to_str().filter(|_| flags);
        if let Some(long) = text.and_then(long_form) {
            spelt.push(long.into());
            continue;
        }
        spelt.push(match text {
            Some("-i" | "--info") => {
                let next = argv.peek().map(|next| next.to_string_lossy());
                let has_value = next
                    .is_some_and(|next| !next.contains('=') && !next.starts_with(['-', '~', '+']));
                if has_value { "--info" } else { "--info=all" }.into()
            }
            _ => arg,
        });
    }
    spelt
}

/// `run help train` is `run train --help`.
pub(super) fn help_last(mut argv: Vec<OsString>) -> Vec<OsString> {
    if argv.get(1).is_some_and(|word| word == "help") {
        while argv.get(1).is_some_and(|word| word == "help") {
            argv.remove(1);
        }
        let end = argv.iter().position(|word| word == "--");
        argv.insert(end.unwrap_or(argv.len()), "--help".into());
    }
    argv
}

/// The long form of a flag of two letters, with the value that stands behind a `=`.
fn long_form(arg: &str) -> Option<String> {
    let (flag, value) = match arg.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (arg, None),
    };
    let long = match flag {
        "-cn" => "--config-name",
        "-cd" => "--config-dir",
        "-cp" => "--config-path",
        "-sc" => "--shell-completion",
        _ => return None,
    };
    Some(match value {
        Some(value) => format!("{long}={value}"),
        None => long.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_two_letters_become_long_ones() {
        let spelt = |words: &[&str]| -> Vec<String> {
            let words = spell_out(words.iter().map(OsString::from));
            let words = words.into_iter().map(|word| word.into_string());
            words.map(|word| word.expect("UTF-8")).collect()
        };
        assert_eq!(
            spelt(&[
                "-cn",
                "a",
                "-cd=b",
                "-cp=c=d",
                "-cn=",
                "-sc=install=bash",
                "-c=job"
            ]),
            [
                "--config-name",
                "a",
                "--config-dir=b",
                "--config-path=c=d",
                "--config-name=",
                "--shell-completion=install=bash",
                "-c=job",
            ]
        );
        assert_eq!(spelt(&["-cnx=1", "--", "-cn=a"]), ["-cnx=1", "--", "-cn=a"]);
    }
}
