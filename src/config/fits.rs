//! What a command asks of its config beyond the schema. A value that the command would
//! not read is refused where the user may have hoped for something of it.

use crate::compose::{self, Composed, Node, Origin, Value};

use super::check::{origin_below, same};
use super::error::ConfigError;
use super::keys;
use super::types::{Command, Config, ExportFormat, Method, SWEEPING, TaskKind};

/// What keeps `command` from running with this config. `tree` is asked where values
/// were written.
pub(super) fn fits_command(command: Command, config: &Config, tree: &Node) -> Vec<ConfigError> {
    let mut found = Found {
        tree,
        errors: Vec::new(),
    };
    found.mode(command, config);
    found.adapter(command, config);
    found.output(command, config);
    found.export(command, config);
    found.prompt(command, config);
    let training = matches!(command, Command::Train | Command::Plan | Command::Preview);
    if training && config.method == Method::Full && config.lora.init_from.is_some() {
        found.conflict(
            "lora.init_from",
            "`lora.init_from` names an adapter, but `method=full` trains every weight of the base and no adapter",
            "add method=lora, or merge the adapter first (run merge) and train that model; else lora.init_from=null",
        );
    }
    if matches!(command, Command::Train | Command::Preview) && config.data.path.is_none() {
        found.conflict(
            "data.path",
            "`data.path` is null, so there is nothing to train on",
            "name the training file: data.path=FILE",
        );
    }
    found.errors
}

struct Found<'a> {
    tree: &'a Node,
    errors: Vec<ConfigError>,
}

impl Found<'_> {
    fn mode(&mut self, command: Command, config: &Config) {
        let meant = match command {
            Command::Plan | Command::Preview => Command::Train,
            Command::Compare => Command::Eval,
            Command::Chat => Command::Infer,
            // They only read a base, or nothing of what a mode is about.
            Command::Quantize | Command::Merge | Command::Synth => return,
            other => other,
        };
        if let Some(mode) = config.mode
            && mode != meant
        {
            self.conflict(
                "mode",
                &format!("this config is meant for `run {mode}`, not for `run {command}`"),
                &format!("call run {mode}, or set mode=null"),
            );
        }
    }

    fn adapter(&mut self, command: Command, config: &Config) {
        let Some(dir) = &config.adapter else { return };
        let hint = match command {
            Command::Infer | Command::Eval | Command::Compare | Command::Chat | Command::Merge => {
                return;
            }
            Command::Train | Command::Plan => format!(
                "to go on training from an adapter: lora.init_from={}; else adapter=null",
                dir.display()
            ),
            Command::Quantize => "merge it first (run merge) and quantise the result; \
                 else adapter=null"
                .to_string(),
            Command::Preview | Command::Synth => "adapter=null".to_string(),
        };
        self.conflict(
            "adapter",
            &format!(
                "`adapter` is read by infer, eval, compare, chat and merge, not by `run {command}`"
            ),
            &hint,
        );
    }

    fn output(&mut self, command: Command, config: &Config) {
        if config.output.is_none() {
            return;
        }
        let hint = match command {
            Command::Infer
            | Command::Eval
            | Command::Compare
            | Command::Chat
            | Command::Quantize
            | Command::Merge
            | Command::Synth => return,
            Command::Train => {
                "its files are in the run directory, which hydra.run.dir=DIR chooses; output=null"
            }
            Command::Plan | Command::Preview => "it only prints; output=null",
        };
        self.conflict(
            "output",
            &format!(
                "`output` is where infer, eval, compare, chat, quantize, merge and synth write, not \
                 `run {command}`"
            ),
            hint,
        );
    }

    fn export(&mut self, command: Command, config: &Config) {
        let gguf = config.export.format == ExportFormat::Gguf;
        let (unread, why): (&[&str], _) = match (command, gguf) {
            (Command::Quantize, _) => (
                &["export.format", "export.dtype"],
                "is for `run merge`; `run quantize` writes NF4 safetensors",
            ),
            (Command::Merge, true) => (
                &["export.compute_dtype", "export.max_shard_gb"],
                "does nothing for a GGUF file, which is one file for llama.cpp",
            ),
            (Command::Merge, false) => (
                &["export.compute_dtype"],
                "is for `run quantize`; a merged model is written in the type `export.dtype`",
            ),
            _ => return,
        };
        for key in unread {
            if self.differs(key) {
                self.conflict(key, &format!("`{key}` {why}"), &format!("leave {key} out"));
            }
        }
        // True is the default, which a merge without a check mentions itself.
        let asked = config.export.check && self.is_typed("export.check");
        if asked && (command == Command::Quantize || gguf) {
            self.conflict(
                "export.check",
                "`export.check` compares a merged model in safetensors, and none is written",
                "leave export.check out",
            );
        }
    }

    fn prompt(&mut self, command: Command, config: &Config) {
        let prompt = &config.prompt;
        // A chat and conversations are always written by the template.
        let chat = command == Command::Chat || config.task.kind == TaskKind::Text;
        if chat || prompt.chat_template {
            return;
        }
        for (key, set) in [
            ("prompt.system", prompt.system.is_some()),
            (
                "prompt.chat_template_file",
                prompt.chat_template_file.is_some(),
            ),
        ] {
            if set {
                self.conflict(
                    key,
                    &format!(
                        "`{key}` is set, but `prompt.chat_template` is false, so no chat is written"
                    ),
                    "add prompt.chat_template=true, or unset it",
                );
            }
        }
    }

    /// Whether the key has another value than its default.
    fn differs(&self, name: &str) -> bool {
        let node = self.tree.select(name);
        let key = keys::find(name);
        node.zip(key)
            .is_some_and(|(node, key)| !same(&key.default, node))
    }

    fn is_typed(&self, name: &str) -> bool {
        let node = self.tree.select(name);
        node.is_some_and(|node| matches!(node.origin, Origin::CommandLine { .. }))
    }

    fn conflict(&mut self, key: &str, message: &str, hint: &str) {
        let node = self.tree.select(key);
        self.errors.push(ConfigError::Conflict {
            origin: node.map_or(Origin::BuiltIn, |node| node.origin.clone()),
            message: message.to_string(),
            hint: hint.to_string(),
        });
    }
}

/// The keys of `hydra` that a job of Hydra heeds and one of this program does not, each
/// with why. Only values that change nothing are let through.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("output_subdir", "a run keeps its config in `.hydra`"),
    ("job.chdir", "a run stays in the working directory"),
    (
        "job.env_copy",
        "a run is one process that sets no environment variables",
    ),
    (
        "job.env_set",
        "a run is one process that sets no environment variables",
    ),
    ("callbacks", "callbacks are Python"),
    (
        "launcher._target_",
        "cells run one after another in this process",
    ),
    (
        "sweeper._target_",
        "the sweeper is built in, and sweeps as Hydra's basic one",
    ),
    ("verbose", "there is no Python logging to be made verbose"),
];

fn vain(key: &str, origin: &Origin, why: &str) -> ConfigError {
    ConfigError::Conflict {
        origin: origin.clone(),
        message: format!("`hydra.{key}` has no effect on a run here: {why}"),
        hint: "leave it out".to_string(),
    }
}

/// What keys of `hydra` ask for in vain.
///
/// # Errors
/// One of them cannot be resolved.
pub(super) fn without_effect(
    command: Command,
    composed: &Composed,
) -> Result<Vec<ConfigError>, compose::Error> {
    let mut errors: Vec<ConfigError> = Vec::new();
    let copied = composed.hydra.select("job.env_copy");
    let copies = copied
        .and_then(Node::as_list)
        .is_some_and(|names| !names.is_empty());
    for (key, why) in WITHOUT_EFFECT {
        let Some(written) = composed.hydra.select(key) else {
            // An option of one's own may be anything, also without a `_target_`.
            let whole = key.strip_suffix("._target_");
            let node = whole.and_then(|whole| composed.hydra.select(whole));
            if let Some(node) = node.filter(|node| !node.is_missing()) {
                errors.push(vain(whole.unwrap_or(key), &node.origin, why));
            }
            continue;
        };
        // What is copied is put among what is set, and told already.
        if copies && *key == "job.env_set" {
            continue;
        }
        let Some(value) = composed.resolve(&format!("hydra.{key}"))? else {
            continue;
        };
        let harmless = match &value.value {
            Value::Null | Value::Bool(false) => *key != "output_subdir",
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Str(text) => match *key {
                "output_subdir" => text == ".hydra",
                "launcher._target_" => text.ends_with("basic_launcher.BasicLauncher"),
                "sweeper._target_" => text.ends_with("basic_sweeper.BasicSweeper"),
                _ => false,
            },
            _ => false,
        };
        if !harmless {
            errors.push(vain(key, &origin_below(written), why));
        }
    }
    let mode = composed.hydra.select("mode");
    if let Some(mode) = mode.filter(|mode| mode.as_str() == Some("MULTIRUN") && !command.sweeps()) {
        errors.push(ConfigError::Conflict {
            origin: mode.origin.clone(),
            message: format!(
                "`run {command}` takes one config, so `hydra.mode` cannot be MULTIRUN"
            ),
            hint: format!("leave it out; {SWEEPING} sweep"),
        });
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Map;
    use crate::config::layers::{complete, from_tree, insert};

    /// A tree with these strings and truth values as an override would set them.
    fn tree(set: &[(&str, Value)], origin: &Origin) -> Node {
        let mut tree = Node::built_in(Value::Map(Map::new()));
        for (key, value) in set {
            insert(&mut tree, key, Node::new(value.clone(), origin.clone()));
        }
        complete(&tree)
    }

    fn typed() -> Origin {
        Origin::CommandLine {
            text: "typed".into(),
        }
    }

    fn found(command: Command, tree: &Node) -> String {
        let config = from_tree(tree).unwrap_or_else(|e| panic!("{e}"));
        let errors = fits_command(command, &config, tree);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        errors.join("\n")
    }

    fn text(text: &str) -> Value {
        Value::Str(text.to_string())
    }

    #[test]
    fn what_a_command_does_not_read_is_refused() {
        use Command::*;
        let data = ("data.path", text("a.csv"));
        let full = [
            ("method", text("full")),
            ("quantization.method", text("none")),
            ("lora.init_from", text("a")),
        ];
        let adapter = [("adapter", text("a"))];
        let output = [("output", text("o"))];
        let compute = [("export.compute_dtype", text("f16"))];
        let system = [("prompt.system", text("Be brief."))];
        let gguf = |key, value| [("export.format", text("gguf")), (key, value)];
        let shards = gguf("export.max_shard_gb", Value::Float(0.5));
        let check = gguf("export.check", Value::Bool(true));
        for (set, refused, part) in [
            (
                &adapter[..],
                &[Train, Plan][..],
                "lora.init_from=a; else adapter=null",
            ),
            (&adapter, &[Quantize], "merge it first"),
            (&adapter, &[Preview, Synth], "adapter=null"),
            (&output, &[Train], "hydra.run.dir=DIR"),
            (&output, &[Plan, Preview], "only prints"),
            (&full, &[Train, Plan, Preview], "trains every weight"),
            (&compute, &[Merge], "for `run quantize`"),
            (&shards, &[Merge], "`export.max_shard_gb` does nothing"),
            (&check, &[Merge], "`export.check` compares"),
            (&check, &[Quantize], "`export.check` compares"),
            (&system, &[Train, Infer, Eval], "no chat is written"),
        ] {
            let mut set = set.to_vec();
            set.push(data.clone());
            let tree = tree(&set, &typed());
            for command in refused {
                let text = found(*command, &tree);
                assert!(text.contains(part), "{command}: {part}: {text}");
                assert!(text.starts_with("command line: typed: "), "{text}");
            }
        }
        for (set, read) in [
            (&adapter[..], &[Infer, Eval, Compare, Chat, Merge][..]),
            (
                &output,
                &[Infer, Eval, Compare, Chat, Quantize, Merge, Synth],
            ),
            (&full, &[Infer, Eval]),
            (&compute, &[Quantize, Train]),
            (&system, &[Chat]),
            (&shards, &[Train]),
        ] {
            let mut set = set.to_vec();
            set.push(data.clone());
            let tree = tree(&set, &typed());
            for command in read {
                assert_eq!(found(*command, &tree), "", "{command}");
            }
        }
    }

    /// A config.resolved.yaml names every key.
    #[test]
    fn defaults_fit_every_command_that_names_them() {
        use Command::*;
        let file = Origin::File {
            path: std::sync::Arc::new("config.resolved.yaml".into()),
            line: 1,
        };
        let gguf = [
            ("export.format", text("gguf")),
            ("export.check", Value::Bool(true)),
            ("export.max_shard_gb", Value::Float(5.0)),
            ("export.compute_dtype", Value::Null),
            ("adapter", Value::Null),
            ("output", Value::Null),
            ("lora.init_from", Value::Null),
            ("data.path", text("a.csv")),
        ];
        assert_eq!(found(Merge, &tree(&gguf, &file)), "");
        for command in [
            Train, Infer, Eval, Plan, Quantize, Merge, Compare, Preview, Chat, Synth,
        ] {
            assert_eq!(found(command, &tree(&gguf[1..], &file)), "", "{command}");
        }
    }
}
