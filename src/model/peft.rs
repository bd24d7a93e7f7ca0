//! LoRA adapters (Hu et al., 2021, arXiv:2106.09685) in PEFT's directory
//! layout: `adapter_config.json` with the fields of PEFT 0.21.2, and
//! `adapter_model.safetensors` with A of `[r, in]` and B of `[out, r]`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::export::{ExportError, StagedDir, WeightType, write_safetensors, write_text};
use super::hf_config::{ArchConfig, Linear, Parameter};
use super::init::initial_lora_a;
use super::peft_targets::{Named, Targets, last_part, matches, names_of};
use crate::config::types::{LoraInit, TargetModules};

#[path = "peft_config.rs"]
mod config;
#[path = "peft_open.rs"]
mod open;

pub use config::AdapterConfig;
use config::{Written, read_config};
use open::{named, open_both};

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// PEFT's name for every linear layer but the output projection.
const ALL_LINEAR: &str = "all-linear";
const KEY_PREFIX: &str = "base_model.model.";
const MAGNITUDE: &str = "lora_magnitude_vector";

#[derive(Debug, Error)]
pub enum PeftError {
    #[error("{}: cannot read the adapter: {source}. A PEFT adapter directory holds {CONFIG_FILE} and {WEIGHTS_FILE}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}:{line}: not valid JSON: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}: `{key}` {problem}", file.display())]
    Key {
        file: PathBuf,
        key: String,
        problem: String,
    },
    #[error("{}: {problem}", file.display())]
    Weights { file: PathBuf, problem: String },
    #[error("{}: the adapter does not fit the base model: `{module}` has {matrix} of shape {found:?}, the base asks for {expected:?}", file.display())]
    Shape {
        file: PathBuf,
        module: String,
        matrix: &'static str,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("{}: `{module}` has {matrix} of rank {found}; {CONFIG_FILE} beside it says {r} (r, or rank_pattern)", file.display())]
    OtherRank {
        file: PathBuf,
        module: String,
        matrix: &'static str,
        found: usize,
        r: usize,
    },
    #[error("{}: the adapter does not fit the base model: the base has no module `{module}`; its modules: {available}", file.display())]
    NoSuchModule {
        file: PathBuf,
        module: String,
        available: String,
    },
    #[error(
        "lora.target_modules: `{name}` matches no module of the model; there are: {available}, or all-linear"
    )]
    NoMatch { name: String, available: String },
    #[error(
        "lora.r: `{module}` has {side} singular values, fewer than the rank of {r}, from which \
         lora.init_lora_weights={init} begins; lower lora.r, or use lora.init_lora_weights=true"
    )]
    Rank {
        r: usize,
        init: String,
        module: String,
        side: usize,
    },
    #[error("lora.target_modules: the list is empty; name modules such as q_proj, or all-linear")]
    NoTargets,
    #[error(
        "lora.exclude_modules: `{name}` matches no module of the model; there are: {available}"
    )]
    NoneToExclude { name: String, available: String },
    #[error(
        "lora.layers_to_transform: the model has no layer {layer}; its {layers} layers are numbered from 0"
    )]
    NoLayer { layer: u64, layers: usize },
    #[error(
        "lora.target_modules: lora.exclude_modules and lora.layers_to_transform leave none of the \
         modules that it names; leave one of them out"
    )]
    NoneLeft,
    #[error(
        "{key}: `{pattern}` is no regular expression that can be read; write the end of a module's path, as q_proj"
    )]
    Pattern { key: &'static str, pattern: String },
    #[error("{key}: `{pattern}` matches no module that gets an adapter; those are: {available}")]
    NoneForPattern {
        key: &'static str,
        pattern: String,
        available: String,
    },
    #[error("{}: the directory holds something other than an adapter; choose another output or empty it", dir.display())]
    NotAnAdapter { dir: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The two matrices of one module, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraTensors {
    /// Module path in the base, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// `[r, in_features]`
    pub a: Vec<f32>,
    /// `[out_features, r]`
    pub b: Vec<f32>,
    /// DoRA's lengths, `[out_features]`; `None` in a fresh adapter, whose lengths
    /// are those of the base's rows.
    pub magnitude: Option<Vec<f32>>,
    pub r: usize,
    pub in_features: usize,
    pub out_features: usize,
}

impl LoraTensors {
    fn key(&self, matrix: &str) -> String {
        tensor_key(&self.module, matrix)
    }
}

/// An adapter: its configuration and its matrices in the order of
/// [`ArchConfig::linears`].
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub config: AdapterConfig,
    pub modules: Vec<LoraTensors>,
    /// Modules whose matrices the file holds though its configuration does not name
    /// them: they are left out, as PEFT does.
    pub left_out: Vec<String>,
}

impl Adapter {
    /// PEFT's start: A uniform within 1 / sqrt(in) or normal, B zero, so that the
    /// model begins as its base. `config.target_modules` names the modules.
    ///
    /// # Errors
    /// A target that matches no module.
    pub fn initial(config: AdapterConfig, arch: &ArchConfig, seed: u64) -> Result<Self, PeftError> {
        let targets = TargetModules::List(config.target_modules.clone());
        let gaussian = config.init_lora_weights == LoraInit::Gaussian;
        let modules = resolve_targets(&targets, arch)?
            .into_iter()
            .map(|linear| {
                let r = config.rank(&linear.module);
                LoraTensors {
                    a: initial_lora_a(&linear.module, r, linear.in_features, gaussian, seed),
                    b: vec![0.0; linear.out_features * r],
                    magnitude: None,
                    r,
                    in_features: linear.in_features,
                    out_features: linear.out_features,
                    module: linear.module,
                }
            })
            .collect();
        Ok(Self {
            config,
            modules,
            left_out: Vec::new(),
        })
    }

    /// A line for the log about matrices that the file holds in vain.
    pub fn note(&self) -> Option<String> {
        let (first, more) = (self.left_out.first()?, self.left_out.len() - 1);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more modules"),
        };
        Some(format!(
            "the adapter's matrices for `{first}`{more} are left out, as PEFT does: its \
             {CONFIG_FILE} does not name them as targets"
        ))
    }

    /// Number of weights that LoRA trains.
    pub fn num_parameters(&self) -> usize {
        let lengths = |m: &LoraTensors| match self.config.use_dora {
            true => m.out_features,
            false => 0,
        };
        let sizes = self
            .modules
            .iter()
            .map(|m| m.a.len() + m.b.len() + lengths(m));
        sizes.sum()
    }

    /// Reads an adapter directory and checks that every matrix fits `arch`.
    ///
    /// # Errors
    /// A missing or damaged file, a PEFT feature not supported, or a matrix
    /// that does not fit, with its module and both shapes.
    pub fn read(dir: &Path, arch: &ArchConfig) -> Result<Self, PeftError> {
        let file = dir.join(CONFIG_FILE);
        let (text, weights) = open_both(dir)?;
        let mut written = read_config(&text, &file)?;
        let linears = arch.linears();
        written.settle(linears.iter().map(|linear| linear.module.as_str()));
        let Written {
            mut config,
            targets,
            ..
        } = written;
        let file = dir.join(WEIGHTS_FILE);
        let mut modules = read_weights(&file, &weights?, &config, arch)?;
        let mut left_out = Vec::new();
        match targets {
            Targets::List(named) => {
                check_complete(&file, &named, &modules, arch)?;
                modules.retain(|m| {
                    let taken = named.takes(&m.module);
                    if !taken {
                        left_out.push(m.module.clone());
                    }
                    taken
                });
                if modules.is_empty() {
                    return Err(PeftError::Weights {
                        file,
                        problem: format!(
                            "holds no matrices of the modules that target_modules in {CONFIG_FILE} names"
                        ),
                    });
                }
                config.target_modules = match named.are_all() {
                    true => named.names,
                    false => names_of(&paths(&modules), arch),
                };
            }
            Targets::Pattern => {
                config.target_modules = names_of(&paths(&modules), arch);
            }
        }
        let kept = |module: &String| modules.iter().any(|m| m.module == *module);
        config.ranks.retain(|module, _| kept(module));
        config.alphas.retain(|module, _| kept(module));
        Ok(Self {
            config,
            modules,
            left_out,
        })
    }

    /// Writes both files into `dir`, which must exist (a [`StagedDir`]).
    pub fn write_into(&self, dir: &Path) -> Result<(), PeftError> {
        write_text(&dir.join(CONFIG_FILE), &self.config.to_json())?;
        let mut matrices = BTreeMap::new();
        let mut parameters = Vec::new();
        for module in &self.modules {
            for (name, values, shape) in [
                ("lora_A", &module.a, vec![module.r, module.in_features]),
                ("lora_B", &module.b, vec![module.out_features, module.r]),
            ] {
                let name = module.key(name);
                matrices.insert(name.clone(), values.as_slice());
                parameters.push(Parameter { name, shape });
            }
            if let Some(values) = &module.magnitude {
                let name = magnitude_key(&module.module);
                matrices.insert(name.clone(), values.as_slice());
                let shape = vec![values.len()];
                parameters.push(Parameter { name, shape });
            }
        }
        write_safetensors(
            &dir.join(WEIGHTS_FILE),
            parameters,
            WeightType::F32,
            |parameter| {
                let values = matrices.get(&parameter.name).copied();
                Ok::<_, ExportError>(Cow::Borrowed(values.unwrap_or_default()))
            },
        )?;
        Ok(())
    }

    /// Writes the adapter directory in one step. An adapter that stands there
    /// is replaced; anything else is left alone. The same adapter gives the
    /// same bytes.
    ///
    /// # Errors
    /// `dir` holds something that is no adapter, or cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), PeftError> {
        let staged = StagedDir::new(dir)?;
        self.write_into(staged.path())?;
        commit(staged, dir)
    }
}

/// Publishes a staged adapter at `dir`: in place of an older adapter, or of
/// nothing.
pub fn commit(staged: StagedDir, dir: &Path) -> Result<(), PeftError> {
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !dir.join(CONFIG_FILE).is_file() {
        return Err(PeftError::NotAnAdapter {
            dir: dir.to_path_buf(),
        });
    }
    Ok(staged.commit_replacing()?)
}

/// The modules that `targets` names, in the model's order: all linear layers
/// but the output projection (`all-linear`), or those whose path is a name of
/// the list or ends with a dot and that name.
///
/// # Errors
/// A name that matches nothing.
pub fn resolve_targets(
    targets: &TargetModules,
    arch: &ArchConfig,
) -> Result<Vec<Linear>, PeftError> {
    let linears = arch.linears();
    let names = targets.names();
    if names.is_empty() {
        return Err(PeftError::NoTargets);
    }
    // Alone or, as a command line gives it, in a list.
    if let [name] = names
        && name.eq_ignore_ascii_case(ALL_LINEAR)
    {
        return Ok(linears);
    }
    for name in names {
        if !linears.iter().any(|linear| matches(&linear.module, name)) {
            return Err(PeftError::NoMatch {
                name: name.clone(),
                available: available(&linears),
            });
        }
    }
    let chosen = linears
        .into_iter()
        .filter(|linear| names.iter().any(|name| matches(&linear.module, name)));
    Ok(chosen.collect())
}

/// The distinct last parts of the modules' paths, in the model's order.
pub(super) fn available(linears: &[Linear]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for linear in linears {
        let name = last_part(&linear.module);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

fn magnitude_key(module: &str) -> String {
    format!("{KEY_PREFIX}{module}.{MAGNITUDE}")
}

fn tensor_key(module: &str, matrix: &str) -> String {
    format!("{KEY_PREFIX}{module}.{matrix}.weight")
}

/// The matrices of the weights that are known as `file`.
fn read_weights(
    file: &Path,
    weights: &Checkpoint,
    config: &AdapterConfig,
    arch: &ArchConfig,
) -> Result<Vec<LoraTensors>, PeftError> {
    let problem = |problem: String| PeftError::Weights {
        file: file.to_path_buf(),
        problem,
    };
    let mut found = BTreeSet::new();
    for key in weights.names() {
        let ends = [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"];
        let ends = &ends[..if config.use_dora { 3 } else { 2 }];
        let module = ends
            .iter()
            .find_map(|end| key.strip_suffix(end)?.strip_prefix(KEY_PREFIX));
        let module = module.ok_or_else(|| problem(unknown(key, arch)))?;
        if module == arch.lm_head().module {
            return Err(problem(of_a_table(key, "output projection", module)));
        }
        found.insert(module.to_string());
    }
    if found.is_empty() {
        return Err(problem("holds no LoRA matrices".into()));
    }
    let mut modules = Vec::new();
    let linears = arch.linears();
    for linear in &linears {
        if !found.remove(&linear.module) {
            continue;
        }
        let read = |matrix: &'static str, expected: [usize; 2]| {
            let key = tensor_key(&linear.module, matrix);
            let shape = weights.shape(&key).ok_or_else(|| {
                problem(format!(
                    "`{}` has no {matrix}; the file is damaged",
                    linear.module
                ))
            })?;
            // Where the rank stands.
            let at = usize::from(matrix == "lora_B");
            let fits = shape.len() == 2 && shape[1 - at] == expected[1 - at];
            if fits && shape[at] != expected[at] {
                return Err(PeftError::OtherRank {
                    file: file.to_path_buf(),
                    module: linear.module.clone(),
                    matrix,
                    found: shape[at],
                    r: expected[at],
                });
            }
            if shape != expected {
                return Err(PeftError::Shape {
                    file: file.to_path_buf(),
                    module: linear.module.clone(),
                    matrix,
                    found: shape.to_vec(),
                    expected: expected.to_vec(),
                });
            }
            let values = weights.tensor_f32(&key, &expected);
            values.map_err(|error| named(error, file))
        };
        let r = config.rank(&linear.module);
        let magnitude = match config.use_dora {
            true => {
                let key = magnitude_key(&linear.module);
                let values = weights.tensor_f32(&key, &[linear.out_features]);
                Some(values.map_err(|error| named(error, file))?)
            }
            false => None,
        };
        modules.push(LoraTensors {
            magnitude,
            module: linear.module.clone(),
            a: read("lora_A", [r, linear.in_features])?,
            b: read("lora_B", [linear.out_features, r])?,
            r,
            in_features: linear.in_features,
            out_features: linear.out_features,
        });
    }
    match found.into_iter().next() {
        None => Ok(modules),
        Some(module) => Err(PeftError::NoSuchModule {
            file: file.to_path_buf(),
            module,
            available: format!("{} in {} layers", available(&linears), arch.num_layers),
        }),
    }
}

/// What a tensor is that is no matrix of a linear layer.
fn unknown(key: &str, arch: &ArchConfig) -> String {
    let embedding = arch.embedding().name;
    let table = embedding.trim_end_matches(".weight");
    let module = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    if [".lora_embedding_A", ".lora_embedding_B"]
        .iter()
        .any(|part| key.contains(part))
    {
        let name = module.split(".lora_embedding").next().unwrap_or(module);
        return of_a_table(key, "embedding", name);
    }
    let head = arch.lm_head().module;
    let (what, remedy) = if key.ends_with(&format!(".{MAGNITUDE}")) {
        ("a length of DoRA's", "set use_dora in its configuration")
    } else if key.ends_with(".lora_A.bias") || key.ends_with(".lora_B.bias") {
        ("a bias on a LoRA matrix", "train with lora_bias=False")
    } else if key.contains("modules_to_save") {
        ("a fully trained module", "train without modules_to_save")
    } else if module.starts_with(table) || module.starts_with(&head) {
        (
            "a whole matrix of the embedding or the output projection",
            "save it with save_embedding_layers=False, or train without modules_to_save",
        )
    } else if key.ends_with(".bias") {
        ("a trained bias", "train with bias=\"none\"")
    } else {
        return format!(
            "`{key}` is no LoRA matrix of a linear layer, which is all that can be read"
        );
    };
    format!(
        "`{key}` is {what}, which cannot be read: {remedy}, or merge the adapter into its base with PEFT"
    )
}

/// LoRA on the embedding or the head.
fn of_a_table(key: &str, what: &str, module: &str) -> String {
    let name = last_part(module);
    format!(
        "`{key}` is LoRA on the {what}, which cannot be read: train without `{name}` in \
         target_modules, or merge the adapter into its base with PEFT (merge_and_unload)"
    )
}

fn paths(modules: &[LoraTensors]) -> Vec<&str> {
    modules.iter().map(|m| m.module.as_str()).collect()
}

/// Every module that the configuration names must have its matrices.
fn check_complete(
    file: &Path,
    named: &Named,
    modules: &[LoraTensors],
    arch: &ArchConfig,
) -> Result<(), PeftError> {
    let held: BTreeSet<&str> = paths(modules).into_iter().collect();
    let linears = arch.linears();
    let mut missing = linears
        .iter()
        .filter(|linear| named.takes(&linear.module) && !held.contains(linear.module.as_str()));
    match missing.next() {
        None => Ok(()),
        Some(linear) => Err(PeftError::Weights {
            file: file.to_path_buf(),
            problem: format!(
                "holds no matrices for `{}`, which {CONFIG_FILE} names as a target",
                linear.module
            ),
        }),
    }
}

#[cfg(test)]
#[path = "peft_tests.rs"]
mod tests;
