//! What can stand at the cursor: commands and flags as clap knows them, overrides
//! as the config does, files from the disk. Nothing here fails: a line that makes
//! no sense has no completion.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};

use crate::compose::{Request, options};
use crate::config::{Known, search_path, suggest, suggest_keys, tree_search_path};
use crate::experiment::OUTPUTS;
use crate::experiment::registry::run_dirs;

use super::Shell;
use super::line::{escaped, split};
use crate::cli::spelling::spell_out;

/// One candidate: the whole word.
struct Candidate {
    text: String,
    about: String,
    open: bool,
}

impl Candidate {
    fn new(text: impl Into<String>, about: impl Into<String>) -> Candidate {
        Candidate {
            text: text.into(),
            about: about.into(),
            open: false,
        }
    }
}

/// The answer to the shell, a candidate a line. bash gets what replaces the end of
/// its word; zsh and fish get whole words with what they are after a tab. A space
/// at the end (not for fish, which knows) says that the word is complete.
pub(super) fn answer(shell: Shell) -> String {
    let var = |name: &str| {
        std::env::var_os(name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let line = var("COMP_LINE");
    let line: String = match var("COMP_POINT").parse() {
        Ok(point) => line.chars().take(point).collect(),
        Err(_) => line,
    };
    let breaks = match shell {
        Shell::Bash => var("COMP_WORDBREAKS"),
        Shell::Zsh | Shell::Fish => String::new(),
    };
    let line = split(&line, &breaks);
    let found = candidates(&line.before, &line.word.text);
    let sole = found.len() == 1;
    let mut out = String::new();
    for candidate in found {
        match shell {
            Shell::Bash => {
                let Some(rest) = candidate.text.get(line.word.kept..) else {
                    continue;
                };
                if line.word.quote.is_none() {
                    out.push_str(&escaped(rest));
                    out.push_str(if candidate.open { "" } else { " " });
                } else if sole && candidate.open {
                    // readline closes the quote behind the only candidate there is.
                    out.push_str(&format!("{rest}\n{rest},"));
                } else {
                    out.push_str(rest);
                }
            }
            Shell::Zsh | Shell::Fish => {
                out.push_str(&candidate.text);
                if shell == Shell::Zsh && !candidate.open {
                    out.push(' ');
                }
                if !candidate.about.is_empty() {
                    out.push('\t');
                    out.push_str(&candidate.about);
                }
            }
        }
        out.push('\n');
    }
    out
}

fn candidates(before: &[String], word: &str) -> Vec<Candidate> {
    let mut cli = super::super::Cli::command();
    cli.build();
    let words = spell_out(before.iter().skip(1).map(OsString::from));
    let mut words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    // The value of `--info` may be what stands at the cursor.
    if matches!(before.last().map(String::as_str), Some("-i" | "--info"))
        && let Some(last) = words.last_mut()
    {
        "--info".clone_into(last);
    }
    let mut command = &cli;
    let mut rest = words.as_slice();
    while let Some((first, more)) = rest.split_first()
        && let Some(sub) = command.find_subcommand(first)
    {
        command = sub;
        rest = more;
    }
    let mut found = Reader::new(command, rest).complete(word);
    found.retain(|candidate| !candidate.text.contains(['\n', '\t']));
    found
}

/// The words after the command, read with the command's flags.
struct Reader<'c> {
    command: &'c Command,
    /// A flag that waits for its value at the cursor.
    waiting: Option<&'c Arg>,
    /// Whether `--` has ended the flags.
    ended: bool,
    config_dir: Option<PathBuf>,
    config_path: Option<PathBuf>,
    config_name: String,
    /// Where runs lie.
    outputs: PathBuf,
    plain: Vec<String>,
}

impl<'c> Reader<'c> {
    fn new(command: &'c Command, words: &[String]) -> Reader<'c> {
        let mut reader = Reader {
            command,
            waiting: None,
            ended: false,
            config_dir: None,
            config_path: None,
            config_name: "config".to_string(),
            outputs: PathBuf::from(OUTPUTS),
            plain: Vec::new(),
        };
        for word in words {
            reader.read(word);
        }
        reader
    }

    fn read(&mut self, word: &str) {
        if let Some(flag) = self.waiting.take() {
            self.set(flag, word);
        } else if self.ended || !word.starts_with('-') {
            self.plain.push(word.to_string());
        } else if word == "--" {
            self.ended = true;
        } else if let Some((name, value)) = word.split_once('=') {
            if let Some(flag) = self.flag(name) {
                self.set(flag, value);
            }
        } else {
            self.waiting = self.flag(word).filter(|flag| takes_value(flag));
        }
    }

    fn set(&mut self, flag: &Arg, value: &str) {
        match flag.get_id().as_str() {
            "config_dir" => self.config_dir = Some(PathBuf::from(value)),
            "config_path" => self.config_path = Some(PathBuf::from(value)),
            "config_name" => self.config_name = value.to_string(),
            "dir" => self.outputs = PathBuf::from(value),
            _ => {}
        }
    }

    fn flag(&self, word: &str) -> Option<&'c Arg> {
        let mut args = self.command.get_arguments();
        match word.strip_prefix("--") {
            Some(long) => args.find(|arg| arg.get_long() == Some(long)),
            None => {
                let short = word.strip_prefix('-')?.chars().next_back()?;
                args.find(|arg| arg.get_short() == Some(short))
            }
        }
    }

    fn complete(&self, word: &str) -> Vec<Candidate> {
        if let Some(flag) = self.waiting {
            return self.value_of(flag, "", word);
        }
        if !self.ended
            && word.starts_with("--")
            && let Some((name, value)) = word.split_once('=')
        {
            let flag = self.flag(name);
            return flag.map_or_else(Vec::new, |flag| {
                self.value_of(flag, &format!("{name}="), value)
            });
        }
        if !self.ended && word.starts_with('-') {
            return self.flags(word);
        }
        let mut found: Vec<Candidate> = self
            .command
            .get_subcommands()
            .filter(|sub| self.plain.is_empty() && !sub.is_hide_set())
            .filter(|sub| sub.get_name().starts_with(word))
            .map(|sub| Candidate::new(sub.get_name(), first_line(sub.get_about())))
            .collect();
        let positional = self.command.get_positionals().last();
        match positional.map(|arg| arg.get_id().as_str()) {
            Some("overrides") => found.extend(self.overrides(word)),
            // Overrides may stand among the keys.
            Some("keys") if word.contains('=') => found.extend(self.overrides(word)),
            Some(_) => {
                found.extend(positional.map_or_else(Vec::new, |arg| self.value_of(arg, "", word)))
            }
            None => {}
        }
        found
    }

    fn flags(&self, word: &str) -> Vec<Candidate> {
        self.command
            .get_arguments()
            .filter(|arg| !arg.is_hide_set())
            .filter_map(|arg| {
                let text = format!("--{}", arg.get_long()?);
                text.starts_with(word)
                    .then(|| Candidate::new(text, first_line(arg.get_help())))
            })
            .collect()
    }

    /// Values of a flag or of a positional argument that is no override.
    fn value_of(&self, arg: &Arg, before: &str, word: &str) -> Vec<Candidate> {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            return possible
                .iter()
                .filter(|value| value.get_name().starts_with(word))
                .map(|value| {
                    let text = format!("{before}{}", value.get_name());
                    Candidate::new(text, first_line(value.get_help()))
                })
                .collect();
        }
        match arg.get_id().as_str() {
            "config_dir" | "config_path" | "dir" => files(before, word, true),
            "run" | "a" | "b" | "from" => runs(&self.outputs, before, word),
            // Of `run report`: a run, and output=FILE.
            "words" => match word.split_once('=') {
                Some(("output", path)) => files("output=", path, false),
                _ => runs(&self.outputs, before, word),
            },
            "config_name" => options(&self.request().sources, "")
                .into_iter()
                .filter(|name| name.starts_with(word))
                .map(|name| Candidate::new(format!("{before}{name}"), ""))
                .collect(),
            "why" | "package" | "keys" => suggest_keys(word, &self.request(), self.known())
                .into_iter()
                .map(|one| Candidate {
                    text: format!("{before}{}", one.text),
                    about: one.about,
                    open: one.open,
                })
                .collect(),
            _ => files(before, word, false),
        }
    }

    fn overrides(&self, word: &str) -> Vec<Candidate> {
        let found = suggest(word, &self.request(), self.known());
        let mut list: Vec<Candidate> = found
            .list
            .into_iter()
            .map(|one| Candidate {
                text: one.text,
                about: one.about,
                open: one.open,
            })
            .collect();
        if let Some(path) = found.path {
            list.extend(quoted_files(&path.before, &path.typed));
        }
        list
    }

    fn known(&self) -> Known {
        match self.command.get_name() {
            "compose" => Known::Composed,
            _ => Known::Table,
        }
    }

    fn request(&self) -> Request {
        let (path, dir) = (self.config_path.as_deref(), self.config_dir.as_deref());
        Request {
            sources: match self.known() {
                Known::Composed => tree_search_path(path, dir),
                Known::Table => search_path(path, dir),
            },
            config_name: Some(self.config_name.clone()),
            overrides: self.plain.clone(),
            job_name: "run".to_string(),
            ..Request::default()
        }
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|range| range.takes_values())
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_string()
}

/// Runs by the shortest end of their path below `outputs` that begins as typed and no
/// other run has, and folders as they are typed.
fn runs(outputs: &Path, before: &str, typed: &str) -> Vec<Candidate> {
    let dirs = run_dirs(outputs);
    let ends: Vec<Vec<String>> = dirs.iter().map(|dir| ends(dir, outputs)).collect();
    let mut times: HashMap<&String, usize> = HashMap::new();
    for end in ends.iter().flatten() {
        *times.entry(end).or_default() += 1;
    }
    let of_run = |ends: &Vec<String>| {
        let mut fitting = ends.iter().filter(|end| end.starts_with(typed));
        let end = fitting.find(|end| times.get(end) == Some(&1))?;
        Some(Candidate::new(format!("{before}{end}"), ""))
    };
    let mut found: Vec<Candidate> = ends.iter().filter_map(of_run).collect();
    if !typed.is_empty() || found.is_empty() {
        found.extend(files(before, typed, true));
    }
    found
}

/// The ends of a run's path below `outputs`, the shortest first.
fn ends(run: &Path, outputs: &Path) -> Vec<String> {
    let below = run.strip_prefix(outputs).unwrap_or(run);
    let names: Option<Vec<&str>> = below.iter().map(|name| name.to_str()).collect();
    // A name that is no UTF-8 cannot be offered.
    let names = names.unwrap_or_default();
    (0..names.len())
        .rev()
        .map(|from| names[from..].join("/"))
        .collect()
}

/// Files whose path begins as typed; folders end in `/` and go on.
fn files(before: &str, typed: &str, only_folders: bool) -> Vec<Candidate> {
    let (folder, start) = match typed.rfind('/') {
        Some(at) => typed.split_at(at + 1),
        None => ("", typed),
    };
    let place = if folder.is_empty() { "." } else { folder };
    let Ok(entries) = std::fs::read_dir(Path::new(place)) else {
        return Vec::new();
    };
    let mut found: Vec<Candidate> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_folder = entry.path().is_dir();
            let is_hidden = name.starts_with('.') && !start.starts_with('.');
            if !name.starts_with(start) || is_hidden || only_folders && !is_folder {
                return None;
            }
            let end = if is_folder { "/" } else { "" };
            Some(Candidate {
                text: format!("{before}{folder}{name}{end}"),
                about: String::new(),
                open: is_folder,
            })
        })
        .collect();
    found.sort_by(|a, b| a.text.cmp(&b.text));
    found
}

/// Files as values of an override, in quotes where its grammar needs them.
fn quoted_files(before: &str, typed: &str) -> Vec<Candidate> {
    let (quote, path) = match typed.strip_prefix(['\'', '"']) {
        Some(path) => (typed.chars().next(), path),
        None => (None, typed),
    };
    let mut found = files("", path, false);
    for one in &mut found {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-/+.%*@?| ".contains(c);
        let quote = quote.or_else(|| (!one.text.chars().all(is_plain)).then_some('\''));
        one.text = match quote {
            None => format!("{before}{}", one.text),
            Some(quote) => {
                let end = if one.open { None } else { Some(quote) };
                let inner = one.text.replace(quote, &format!("\\{quote}"));
                let end = end.map(String::from).unwrap_or_default();
                format!("{before}{quote}{inner}{end}")
            }
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn runs_are_offered_by_the_end_that_only_they_have() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = dir.path().join("outputs");
        for run in [
            "2026-03-01/10-00-00",
            "2026-03-01/10-30-00",
            "2026-03-02/10-30-00",
            "multirun/2026-03-02/11-00-00/0",
        ] {
            fs::create_dir_all(outputs.join(run).join(".hydra")).unwrap();
        }
        let offered = |words: &[&str], word: &str| -> Vec<String> {
            let place = outputs.display().to_string();
            let line = [&["run"][..], words, &["--dir", &place]].concat();
            let before: Vec<String> = line.iter().map(ToString::to_string).collect();
            let found = candidates(&before, word);
            found.into_iter().map(|one| one.text).collect()
        };
        let all = [
            "10-00-00",
            "2026-03-01/10-30-00",
            "2026-03-02/10-30-00",
            "0",
        ];
        for words in [&["runs", "show"][..], &["runs", "diff", "x"], &["report"]] {
            assert_eq!(offered(words, ""), all, "{words:?}");
            assert_eq!(offered(words, "10-"), ["10-00-00"], "{words:?}");
            assert_eq!(
                offered(words, "2026-03-02/1"),
                [all[2], "2026-03-02/11-00-00/0"]
            );
        }
        let typed = format!("{}/2026-03-0", outputs.display());
        let days = ["1/", "2/"].map(|end| format!("{typed}{end}"));
        assert_eq!(offered(&["runs", "show"], &typed), days);
        let texts = runs(&outputs, "--from=", "10-")
            .into_iter()
            .map(|one| one.text);
        assert_eq!(texts.collect::<Vec<_>>(), ["--from=10-00-00"]);
    }
}
