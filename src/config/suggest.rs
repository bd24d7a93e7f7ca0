//! What can stand next in a half-typed override: groups, options, keys, values.
//! Keys and values of jobs come from the table, those of other trees from the
//! composed config.

use crate::compose::{
    Composed, Node, Request, Source, Value, compose, full_search_path, groups, one_line,
};

use super::keys::{self, Default, Key, Kind, Limit};
use super::types::LoraInit;

/// Where the keys of a config come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A job: the table of keys.
    Table,
    /// A tree without a schema: what it composes to.
    Composed,
}

/// One way to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The whole override, as far as it goes.
    pub text: String,
    /// What it is; may be empty.
    pub about: String,
    /// More must follow: `lora.`, `seed=`.
    pub open: bool,
}

/// A path to be completed from the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPart {
    /// The override up to the path: `data.path=`.
    pub before: String,
    /// The path as far as it is typed.
    pub typed: String,
}

/// All ways to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggested {
    pub list: Vec<Suggestion>,
    pub path: Option<PathPart>,
}

/// Ways to complete an override. `request` has the search path, the primary
/// config and the other overrides; one that does not compose only makes the
/// answer poorer.
pub fn suggest(word: &str, request: &Request, known: Known) -> Suggested {
    let (prefix, rest) = split_prefix(word);
    let tree = Tree::new(request, known);
    match rest.split_once('=') {
        Some((key, value)) => tree.values(prefix, key, value),
        None => Suggested {
            list: tree.names(prefix, rest),
            path: None,
        },
    }
}

/// Ways to complete a key, for flags that take one.
pub fn suggest_keys(typed: &str, request: &Request, known: Known) -> Vec<Suggestion> {
    let tree = Tree::new(request, known);
    let mut found = Found::new("", typed);
    for (name, about) in tree.keys(typed) {
        found.add(&name, ".", "", about);
    }
    found.list
}

/// The sign before the key: nothing, `+`, `++` or `~`.
fn split_prefix(word: &str) -> (&str, &str) {
    let length = match word.as_bytes() {
        [b'+', b'+', ..] => 2,
        [b'+' | b'~', ..] => 1,
        _ => 0,
    };
    word.split_at(length)
}

struct Tree<'r> {
    request: &'r Request,
    known: Known,
    sources: Vec<Source>,
}

/// Candidates in order, each once.
struct Found<'t> {
    prefix: &'t str,
    typed: &'t str,
    list: Vec<Suggestion>,
}

impl<'t> Found<'t> {
    fn new(prefix: &'t str, typed: &'t str) -> Found<'t> {
        Found {
            prefix,
            typed,
            list: Vec::new(),
        }
    }

    /// Adds a name up to its next separator, or the whole with its end.
    fn add(&mut self, name: &str, separator: &str, end: &str, about: &str) {
        if !name.starts_with(self.typed) {
            return;
        }
        let tail = &name[self.typed.len()..];
        let (text, about, open) = match tail.find(separator) {
            Some(at) => (&name[..self.typed.len() + at + 1], "", true),
            None => (name, about, !end.is_empty()),
        };
        let end = if text.len() == name.len() { end } else { "" };
        let text = format!("{}{text}{end}", self.prefix);
        if !self.list.iter().any(|one| one.text == text) {
            self.list.push(Suggestion {
                text,
                about: about.to_string(),
                open,
            });
        }
    }
}

impl Tree<'_> {
    fn new(request: &Request, known: Known) -> Tree<'_> {
        Tree {
            request,
            known,
            sources: full_search_path(request).unwrap_or_else(|_| request.sources.clone()),
        }
    }

    /// The config, with the other overrides where they fit.
    fn composed(&self) -> Option<Composed> {
        compose(self.request)
            .or_else(|_| {
                compose(&Request {
                    overrides: Vec::new(),
                    ..self.request.clone()
                })
            })
            .ok()
    }

    /// Keys with what they are. Hydra's own only where they are asked for.
    fn keys(&self, typed: &str) -> Vec<(String, &'static str)> {
        let is_hydra = typed.starts_with("hydra");
        if self.known == Known::Table && !is_hydra {
            return keys::all()
                .map(|key| (key.name.to_string(), key.help))
                .collect();
        }
        let Some(composed) = self.composed() else {
            return Vec::new();
        };
        let mut paths = Vec::new();
        let tree = composed.all();
        let shown = tree.as_map().into_iter().flatten();
        for (key, node) in shown.filter(|(key, _)| (key.to_string() == "hydra") == is_hydra) {
            leaf_paths(node, key.to_string(), &mut paths);
        }
        paths.into_iter().map(|path| (path, "")).collect()
    }

    fn names(&self, prefix: &str, typed: &str) -> Vec<Suggestion> {
        let mut found = Found::new(prefix, typed);
        let end = if prefix == "~" { "" } else { "=" };
        // `++` is for values only.
        if prefix != "++" {
            for (group, options) in groups(&self.sources) {
                let is_hydra = group == "hydra" || group.starts_with("hydra/");
                let hidden = group == "hydra" || (is_hydra && typed.is_empty());
                if !hidden && !options.is_empty() {
                    found.add(&group, "/", end, "config group");
                }
            }
        }
        for (name, about) in self.keys(typed) {
            if prefix == "+" {
                // A key that is there cannot be added, only one beside it.
                if let Some((branch, _)) = name.rsplit_once('.') {
                    found.add(&format!("{branch}."), ".", "", "");
                }
            } else {
                found.add(&name, ".", end, about);
            }
        }
        found.list
    }

    fn values(&self, prefix: &str, key: &str, value: &str) -> Suggested {
        // Within a list, a choice or a call, the last item is the one being typed.
        let head = if value.starts_with(['\'', '"']) {
            0
        } else {
            value.rfind(['[', ',', '(']).map_or(0, |at| at + 1)
        };
        let (head, typed) = value.split_at(head);
        let chosen: Vec<&str> = head.split(['[', ',', '(']).map(str::trim).collect();
        let typed = typed.trim_start();
        let before = format!("{prefix}{key}={head}");
        let open = head.contains(['[', '(']);
        let mut suggested = Suggested::default();
        let mut offer = |word: &str, about: &str, open: bool| {
            if word.starts_with(typed) && !chosen.contains(&word) {
                suggested.list.push(Suggestion {
                    text: format!("{before}{word}"),
                    about: about.to_string(),
                    open,
                });
            }
        };
        let group = key.split('@').next().unwrap_or(key);
        let options = groups(&self.sources)
            .into_iter()
            .find_map(|(name, options)| (name == group).then_some(options));
        if let Some(options) = options {
            for option in &options {
                offer(option, "", open);
            }
            return suggested;
        }
        let Some(entry) = keys::find(key).filter(|_| self.known == Known::Table) else {
            for word in self.current(key) {
                offer(&word, "", false);
            }
            return suggested;
        };
        if matches!(entry.kind, Kind::Path) {
            suggested.path = Some(PathPart {
                before,
                typed: typed.to_string(),
            });
        } else if entry.limit == Limit::OnlyDefault {
            offer(&entry.default.to_string(), "default", false);
            return suggested;
        } else {
            for word in words(entry, open) {
                let about = if word == compact(&entry.default) {
                    "default"
                } else {
                    ""
                };
                offer(&word, about, open);
            }
            // A number or a text: what it is now shows the form.
            if matches!(entry.kind, Kind::Int(_) | Kind::Float(_) | Kind::Str) {
                let mut now = self.current(key);
                now.retain(|word| word != "null");
                match now.first() {
                    Some(word) => offer(word, "its value now", false),
                    None => offer(&compact(&entry.default), "default", false),
                }
            }
        }
        if entry.nullable && entry.default != Default::Null && head.is_empty() {
            suggested.null(&format!("{prefix}{key}="), typed);
        }
        suggested
    }

    /// What a key holds now, as it would be typed.
    fn current(&self, key: &str) -> Vec<String> {
        let Some(composed) = self.composed() else {
            return Vec::new();
        };
        let tree = composed.all();
        match tree.select(key).map(|node| &node.value) {
            None | Some(Value::Map(_)) => Vec::new(),
            Some(Value::Bool(now)) => vec![now.to_string(), (!now).to_string()],
            Some(value) => {
                let node = Node::built_in(value.clone());
                match node.as_str() {
                    // Interpolations and long texts are no help.
                    Some(text) if text.contains(['$', '\n', '?', '\'', '"', '=']) => Vec::new(),
                    Some(text) => vec![text.to_string()],
                    None => vec![one_line(&node).replace(", ", ",")],
                }
            }
        }
    }
}

impl Suggested {
    fn null(&mut self, before: &str, typed: &str) {
        if "null".starts_with(typed) {
            self.list.push(Suggestion {
                text: format!("{before}null"),
                about: "none".to_string(),
                open: false,
            });
        }
    }
}

/// The words that a key takes. Inside a list, its items.
fn words(key: &Key, in_list: bool) -> Vec<String> {
    let own = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    match (&key.kind, &key.default) {
        (Kind::Bool, _) => own(&["true", "false"]),
        (Kind::BoolOr(word), _) => own(&["true", "false", word]),
        (Kind::LoraInit, _) => {
            let mut words = own(&LoraInit::WORDS);
            words.insert(3, format!("{}16", LoraInit::STEPS));
            words
        }
        (Kind::Enum(words), _) => own(words),
        (Kind::Device, _) => own(&["auto", "cpu", "cuda", "cuda:0"]),
        (Kind::Words(words), _) if in_list => own(words),
        (Kind::Words(words), _) => words.iter().map(|word| format!("[{word}]")).collect(),
        (Kind::StringsOr(_) | Kind::Strings, Default::List(items)) if in_list => own(items),
        (Kind::StringsOr(word), default) => vec![word.to_string(), compact(default)],
        (Kind::Strings, default) => vec![compact(default)],
        _ => Vec::new(),
    }
}

/// A default as it is typed without quotes in a shell.
fn compact(default: &Default) -> String {
    default.to_string().replace(", ", ",")
}

/// The dotted paths of all values; a list is one value.
fn leaf_paths(node: &Node, path: String, out: &mut Vec<String>) {
    match node.as_map() {
        Some(map) if !map.is_empty() => {
            for (key, child) in map {
                leaf_paths(child, format!("{path}.{key}"), out);
            }
        }
        _ => out.push(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::search_path;

    fn texts(word: &str) -> Vec<String> {
        let request = Request {
            sources: search_path(None, None),
            config_name: Some("config".to_string()),
            ..Request::default()
        };
        let found = suggest(word, &request, Known::Table);
        found.list.into_iter().map(|one| one.text).collect()
    }

    #[test]
    fn groups_and_keys_are_completed_a_step_at_a_time() {
        assert_eq!(texts("mod"), ["model=", "mode=", "model."]);
        assert_eq!(texts("lora.dr"), ["lora.dropout="]);
        assert_eq!(texts("inference.v"), ["inference.validation."]);
        assert_eq!(texts("+experi"), ["+experiment="]);
        assert_eq!(texts("~lora.dr"), ["~lora.dropout"]);
        assert_eq!(texts("~quant"), ["~quantization", "~quantization."]);
        assert_eq!(texts("++see"), ["++seed="]);
        assert_eq!(texts("hydra/job_l"), ["hydra/job_logging="]);
        assert_eq!(texts("hydra.sw"), ["hydra.sweep.", "hydra.sweeper."]);
        let all = texts("");
        assert!(all.iter().any(|text| text == "training."), "{all:?}");
        assert!(!all.iter().any(|text| text.starts_with("hydra")), "{all:?}");
        assert_eq!(texts("nothing_like_it"), [""; 0]);
    }

    #[test]
    fn options_and_values_are_completed() {
        assert_eq!(texts("model=ti"), ["model=tiny"]);
        assert_eq!(texts("+model@teacher=gp"), ["+model@teacher=gpt2"]);
        assert_eq!(texts("experiment=[mcq,sa"), ["experiment=[mcq,saq"]);
        assert_eq!(
            texts("quantization=nf4,"),
            ["quantization=nf4,none"],
            "what is chosen is not offered again"
        );
        assert_eq!(
            texts("training.scheduler=lin"),
            ["training.scheduler=linear"]
        );
        assert_eq!(
            texts("training.shuffle="),
            ["training.shuffle=true", "training.shuffle=false"]
        );
        assert_eq!(texts("data.format=p"), ["data.format=parquet"]);
        assert_eq!(texts("lora.r="), ["lora.r=16"]);
        assert_eq!(
            texts("lora.target_modules=[q_proj,k"),
            ["lora.target_modules=[q_proj,k_proj"]
        );
        assert_eq!(
            texts("hydra.output_subdir="),
            ["hydra.output_subdir=.hydra"]
        );
    }

    #[test]
    fn a_path_is_left_to_the_file_system() {
        let request = Request {
            sources: search_path(None, None),
            config_name: Some("config".to_string()),
            ..Request::default()
        };
        let found = suggest("data.path=da", &request, Known::Table);
        assert_eq!(
            found.path,
            Some(PathPart {
                before: "data.path=".to_string(),
                typed: "da".to_string(),
            })
        );
    }
}
