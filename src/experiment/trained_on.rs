//! What an adapter was trained on, as far as that can be found out: what it is merged onto where the
//! user does not say, and what is told where it answers on something else.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::error::Error;
use super::registry::{Leaves, RegistryError, run_dirs, shown_value};
use super::run_dir::RunPaths;
use super::setup::Setup;
use super::start_from::is_of_user;
use crate::compose::{Origin, Value};
use crate::config::Job;
use crate::config::types::{Method, QuantMethod};
use crate::model::peft::WEIGHTS_FILE;

const GROUP: &str = "quantization";
const METHOD: &str = "quantization.method";
const DOUBLE_QUANT: &str = "quantization.double_quant";
const BLOCK_SIZE: &str = "quantization.block_size";

/// How a base was stored, and the keys with what they said of it.
type Said = (QuantMethod, Vec<(&'static str, Value)>);

/// Writes the quantisation that the adapter was trained with into the job's config; none
/// where nothing says it, as for an adapter of PEFT's. Returns a line for the log about
/// which was taken and why; `None` where the user has chosen.
///
/// # Errors
/// The config of the adapter's run cannot be read, or does not go with the job's.
pub fn settle(job: &mut Job, adapter: &Path) -> Result<Option<String>, Error> {
    if job.config.method == Method::Full || is_asked(job) {
        return Ok(None);
    }
    let found = match run_of(adapter) {
        Some(run) => quantization_of(&run)?.map(|said| (run, said)),
        None => None,
    };
    let (values, line) = match found {
        Some((run, (method, values))) => {
            let file = RunPaths::new(run).resolved_config();
            let file = file.display();
            let line = match method {
                QuantMethod::Nf4 => {
                    format!("base       as NF4: the adapter was trained so ({file})")
                }
                QuantMethod::None => format!(
                    "base       dense weights: the adapter was trained on them ({file}); \
                     quantization=nf4 merges onto the quantised base"
                ),
            };
            (values, line)
        }
        None => (
            vec![(METHOD, Value::Str("none".to_string()))],
            "base       dense weights: the adapter does not say what it was trained on; \
             quantization=nf4 merges onto the quantised base"
                .to_string(),
        ),
    };
    job.settle(values)?;
    Ok(Some(line))
}

/// Keys by which an answer depends on more than the adapter's weights.
const SEEN: [&str; 5] = [
    METHOD,
    "prompt.template",
    "prompt.answer",
    "prompt.chat_template",
    "prompt.system",
];

/// A line about what the adapter saw in its training and does not see with the config `resolved`
/// now; none where nothing that can be read says how it was trained.
pub fn otherwise(adapter: Option<&Path>, setup: &Setup, resolved: &str) -> Option<String> {
    let adapter = adapter?;
    let file = RunPaths::new(run_of(adapter)?).resolved_config();
    let then = Leaves::read(&file).ok()?;
    let now = Leaves::parse(resolved).ok()?;
    let differs = |key: &&str| {
        // A checkpoint that is quantised already is what it is.
        let fixed = *key == METHOD && setup.quantised_note.is_some();
        let then = leaf(&then, key).filter(|_| !fixed)?;
        let now = leaf(&now, key).filter(|now| *now != then)?;
        Some(format!(
            "{key}={}, here {}",
            shown_value(then),
            shown_value(now)
        ))
    };
    let differs: Vec<String> = SEEN.iter().filter_map(differs).collect();
    (!differs.is_empty()).then(|| {
        format!(
            "adapter {} was trained with {} ({})",
            adapter.display(),
            differs.join("; "),
            file.display()
        )
    })
}

/// Whether the user has chosen the quantisation himself.
fn is_asked(job: &Job) -> bool {
    // The values of an option are those of the main configs, whoever chose it.
    let typed = job.composed.task_overrides.iter().any(|text| {
        let mut parts = text.trim_start_matches(['+', '~']).split(['=', '@', '.']);
        parts.next().map(str::trim) == Some(GROUP)
    });
    // As an experiment does it; a run that is done again brings its own choice.
    let option = job.composed.choices.get(GROUP);
    let again = job.resolved.select(METHOD).is_some_and(|node| {
        matches!(&node.origin, Origin::File { path, .. } if path.ends_with(".hydra/config.yaml"))
    });
    let other = !again && option.is_some_and(|option| option.as_deref() != Some("nf4"));
    let mut values = [METHOD, DOUBLE_QUANT, BLOCK_SIZE]
        .into_iter()
        .filter_map(|key| job.resolved.select(key));
    typed || other || values.any(|node| is_of_user(job, &node.origin))
}

/// The run that made the adapter: that in which it lies or, where it was published, that
/// whose adapter has the same weights.
fn run_of(adapter: &Path) -> Option<PathBuf> {
    let adapter = adapter.canonicalize().ok()?;
    let around = adapter.ancestors().skip(1).take(3).find(|dir| {
        let run = RunPaths::new(*dir);
        let inside = adapter == run.adapter() || adapter.starts_with(run.checkpoints());
        inside && run.resolved_config().is_file()
    });
    if let Some(run) = around {
        return Some(run.to_path_buf());
    }
    let published = adapter.parent()?;
    if published.file_name()? != "adapters" {
        return None;
    }
    let weights = adapter.join(WEIGHTS_FILE);
    run_dirs(published.parent()?).into_iter().find(|dir| {
        let run = RunPaths::new(dir.as_path());
        // A run without an adapter is none of them.
        let same = same_bytes(&weights, &run.adapter().join(WEIGHTS_FILE)).unwrap_or(false);
        same && run.resolved_config().is_file()
    })
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] {
            return Ok(false);
        }
        if both == 0 {
            return Ok(left.len() == right.len());
        }
        a.consume(both);
        b.consume(both);
    }
}

/// How a run stored its base; `None` where its config does not say.
fn quantization_of(run: &Path) -> Result<Option<Said>, Error> {
    let file = RunPaths::new(run).resolved_config();
    let leaves = Leaves::read(&file).map_err(RegistryError::from)?;
    let (method, name) = match leaf(&leaves, METHOD).and_then(Json::as_str) {
        Some("nf4") => (QuantMethod::Nf4, "nf4"),
        Some("none") => (QuantMethod::None, "none"),
        _ => return Ok(None),
    };
    let mut values = vec![(METHOD, Value::Str(name.to_string()))];
    if let Some(double) = leaf(&leaves, DOUBLE_QUANT).and_then(Json::as_bool) {
        values.push((DOUBLE_QUANT, Value::Bool(double)));
    }
    if let Some(size) = leaf(&leaves, BLOCK_SIZE).and_then(Json::as_i64) {
        values.push((BLOCK_SIZE, Value::Int(size)));
    }
    Ok(Some((method, values)))
}

fn leaf<'a>(leaves: &'a Leaves, key: &str) -> Option<&'a Json> {
    let mut all = leaves.iter();
    all.find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_run_is_around_the_adapter_or_has_the_same_weights() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let [a, b] = ["outputs/day/a", "outputs/day/b"].map(|run| root.join(run));
        for (run, weights) in [(&a, "aaaa"), (&b, "bbbb")] {
            write(&run.join("config.resolved.yaml"), "");
            write(&run.join("adapter").join(WEIGHTS_FILE), weights);
        }
        // Around all of them there is a run too.
        write(&root.join("config.resolved.yaml"), "");
        write(&a.join("checkpoints/step-000002/state.json"), "");
        let published = root.join("outputs/adapters");
        for (place, weights) in [
            (published.join("adapter_copied"), "bbbb"),
            (published.join("adapter_other"), "bbbc"),
            (published.join("adapter_longer"), "bbbbb"),
            (root.join("elsewhere/adapter"), "bbbb"),
        ] {
            write(&place.join(WEIGHTS_FILE), weights);
        }
        for (adapter, run) in [
            (a.join("adapter"), Some(&a)),
            (b.join("adapter/../adapter"), Some(&b)),
            (a.join("checkpoints/step-000002"), Some(&a)),
            (published.join("adapter_copied"), Some(&b)),
            (published.join("adapter_other"), None),
            (published.join("adapter_longer"), None),
            (root.join("elsewhere/adapter"), None),
            (root.join("absent"), None),
        ] {
            assert_eq!(run_of(&adapter).as_ref(), run, "{}", adapter.display());
        }
    }

    #[test]
    fn a_run_says_how_its_base_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.resolved.yaml");
        let of = |text: &str| {
            write(&file, text);
            quantization_of(dir.path())
        };
        let text = "quantization: {method: nf4, double_quant: false, block_size: 128}\n";
        let values = vec![
            (METHOD, Value::Str("nf4".to_string())),
            (DOUBLE_QUANT, Value::Bool(false)),
            (BLOCK_SIZE, Value::Int(128)),
        ];
        assert_eq!(of(text).unwrap(), Some((QuantMethod::Nf4, values)));
        let values = vec![(METHOD, Value::Str("none".to_string()))];
        let text = "quantization: {method: none}\n";
        assert_eq!(of(text).unwrap(), Some((QuantMethod::None, values)));
        for text in ["seed: 1\n", "quantization: {method: int8}\n"] {
            assert_eq!(of(text).unwrap(), None, "{text}");
        }
        let problem = of("quantization: [").unwrap_err().to_string();
        assert!(
            problem.contains("config.resolved.yaml: cannot be read"),
            "{problem}"
        );
    }
}
