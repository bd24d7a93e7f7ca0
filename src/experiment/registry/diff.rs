//! Two runs side by side: where their configs and figures differ.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config_diff::{Difference, Leaves, shown};
use super::error::RegistryError;
use super::record::Record;
use super::text::table;
use crate::compose::{Request, Saved, compose};
use crate::experiment::run_dir::RunPaths;

/// What two runs differ in.
#[derive(Clone, Debug)]
pub struct RunDiff {
    pub a: PathBuf,
    pub b: PathBuf,
    /// Keys of the config, sorted. Where a run lies and how it was resumed does not count.
    pub config: Vec<Difference>,
    /// Figures of summary.json, in its order.
    pub summary: Vec<Difference>,
}

impl RunDiff {
    /// Compares two run directories.
    ///
    /// # Errors
    /// A file that is missing or damaged; it is named.
    pub fn read(a: &Path, b: &Path) -> Result<RunDiff, RegistryError> {
        let mut config = config(a)?.differences(&config(b)?);
        config.sort_by(|a, b| a.key.cmp(&b.key));
        let summary = figures(a)?.differences(&figures(b)?);
        Ok(RunDiff {
            a: a.to_path_buf(),
            b: b.to_path_buf(),
            config,
            summary,
        })
    }

    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.config.is_empty() && self.summary.is_empty()
    }

    /// For programs: `config` and `summary` map each differing key to its values.
    pub fn json(&self) -> Value {
        let object = |differences: &[Difference]| -> Value {
            let pairs = differences.iter().map(|one| (one.key.clone(), json!(one)));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        json!({
            "a": self.a.display().to_string(),
            "b": self.b.display().to_string(),
            "equal": self.is_equal(),
            "config": object(&self.config),
            "summary": object(&self.summary),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("A  {}\nB  {}\n\n", self.a.display(), self.b.display());
        if self.is_equal() {
            text.push_str("the runs are equal: the same config, the same figures\n");
            return text;
        }
        text.push_str(&part("config", "the configs are equal", &self.config));
        text.push('\n');
        text.push_str(&part("summary", "the figures are equal", &self.summary));
        text
    }
}

fn part(head: &str, equal: &str, differences: &[Difference]) -> String {
    if differences.is_empty() {
        return format!("{equal}\n");
    }
    let cell = |value: &Option<Value>| value.as_ref().map_or("(absent)".to_string(), shown);
    let mut rows = vec![[head, "A", "B"].map(String::from).to_vec()];
    let line = |one: &Difference| vec![one.key.clone(), cell(&one.a), cell(&one.b)];
    rows.extend(differences.iter().map(line));
    table(&rows)
}

/// The config of a run as leaves: config.resolved.yaml, or where the run ended
/// before it was written, `.hydra/` resolved as far as that can be done now.
fn config(run: &Path) -> Result<Leaves, RegistryError> {
    let paths = RunPaths::new(run);
    if paths.resolved_config().exists() || !paths.hydra().exists() {
        return Ok(Leaves::read(&paths.resolved_config())?);
    }
    let composed = compose(&Request {
        base: Some(Saved::read(&paths.hydra())?),
        ..Request::default()
    })?;
    let mut leaves = Leaves::of_config(&composed.job.to_json());
    for (key, value) in leaves.iter_mut() {
        // The time of that run is past.
        let is_time = value.as_str().is_some_and(|text| text.contains("${now"));
        if let (false, Ok(Some(node))) = (is_time, composed.resolve(key)) {
            *value = node.to_json();
        }
    }
    Ok(leaves)
}

/// The figures of summary.json as leaves; only the status where there is none.
fn figures(run: &Path) -> Result<Leaves, RegistryError> {
    let record = Record::read(run)?;
    let mut figures = match &record.summary {
        Some(summary) => json!(summary),
        None => json!({}),
    };
    if let Some(map) = figures.as_object_mut() {
        // Two runs never begin at once; what else is null is not known.
        map.shift_remove("started");
        map.retain(|_, value| !value.is_null());
        map.insert("status".to_string(), json!(record.state));
    }
    Ok(Leaves::of(&figures).without_empty())
}
