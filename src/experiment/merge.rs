//! `run merge`: base and adapter in, one dense model out.

use std::io::ErrorKind;
use std::path::Path;

use super::adapter::adapter_dir;
use super::error::Error;
use super::forecast::watch_unplanned;
use super::fsx::{self, FsError, human_bytes};
use super::log::Console;
use super::quantize::{copy_side_file, copy_side_files, shard_bytes, size_line};
use super::setup::{ModelUse, Setup, TEMPLATE_FILE, model_dir};
use super::trained_on;
use crate::config::Job;
use crate::config::types::{
    Config, ExportFormat, ExportType, Method, ModelInit, QuantMethod, QuantizationConfig,
};
use crate::device::Memory;
use crate::model::export::StagedDir;
use crate::model::gguf::{self, GgufType};
use crate::model::peft::Adapter;
use crate::model::rewrite::{Base, Merged, RewriteError, StoredType};
use crate::model::{Adaptation, Decoder, LoadOptions, Ragged, load};
use crate::ops::cpu::argmax;
use crate::ops::{Indices, Precision};
use crate::staging::{Staged, sweep_beside};

/// What both models are asked.
const PROMPTS: [&str; 4] = [
    "The capital of France is",
    "Question: What is 7 + 5? Answer:",
    "Once upon a time there was a small house by the sea, and in it",
    "def add(a, b):\n    return",
];
/// Longest prompt in tokens.
const LONGEST: usize = 64;

/// Merges the adapter into the model of `model.path` and writes the result to
/// `output`, which appears only once it is whole. Where the user leaves `quantization`
/// out, it is that of the adapter's run, or none. With `quantization=nf4`, or where the
/// base is quantised already, the adapter is merged onto the dequantised base: onto what
/// training saw.
///
/// # Errors
/// See [`Error`].
pub fn merge(mut job: Job) -> Result<(), Error> {
    let console = Console::stdio();
    let output = job.config.output.clone();
    let output = &output.ok_or(Error::Missing("output", "models/merged"))?;
    let gguf = job.config.export.format == ExportFormat::Gguf;
    if !gguf && output.extension().is_some_and(|end| end == "gguf") {
        return Err(Error::GgufFormat(output.clone()));
    }
    let base = Base::open(&model_dir(&job.config, ModelUse::Run)?)?;
    let adapter_dir = adapter_dir(&job.config)?;
    let adapter = Adapter::read(&adapter_dir, &base.arch).map_err(RewriteError::from)?;
    let taken = match &base.quantised {
        // It is what it is, whatever the adapter was trained on.
        Some(_) => None,
        None => trained_on::settle(&mut job, &adapter_dir)?,
    };
    let mut config = job.config;
    // What is written is dense whatever the base is.
    config.method = Method::Lora;
    // Nor is there any data whose length the model would have to take.
    (
        config.training.max_seq_length,
        config.inference.max_new_tokens,
    ) = (1, 1);
    if base.quantised.is_some() {
        config.quantization.method = QuantMethod::Nf4;
    }
    let config = &config;
    let setup = Setup::new(config, ModelUse::Run)?;
    let quantization = setup.quantization.clone();
    let target = Target::new(config, output)?;
    let merged = Merged {
        base: &base,
        adapter,
        quantization: (quantization.method == QuantMethod::Nf4).then_some(&quantization),
    };
    let onto = match (&base.quantised, merged.quantization) {
        (Some(found), _) => format!(
            "its NF4 weights (blocks of {}), dequantised",
            found.block_size
        ),
        (None, Some(q)) => format!(
            "it as NF4 (blocks of {}), dequantised; quantization=none merges onto the dense weights",
            q.block_size
        ),
        (None, None) => "its dense weights".to_string(),
    };
    console.line(&format!(
        "merging    {} into {}: onto {onto}",
        adapter_dir.display(),
        base.dir.display()
    ));
    if let Some(taken) = &taken {
        console.line(taken);
    }
    if let Some(note) = merged.adapter.note() {
        console.line(&note);
    }
    if let Some(note) = &setup.chosen.note {
        console.line(note);
    }
    let bytes = match target {
        Target::File(staged) => {
            let written = write_gguf(&merged, config.export.dtype, staged, output)?;
            if config.export.check {
                console.line("logits     not compared: a GGUF file cannot be read here");
            }
            written
        }
        Target::Dir(staged) => {
            let stored = config.export.dtype.and_then(stored_type);
            let written = merged.write(staged.path(), stored, shard_bytes(config))?;
            copy_side_files(&base.dir, staged.path())?;
            copy_side_file(&adapter_dir, staged.path(), TEMPLATE_FILE)?;
            if config.export.check {
                let pair = Pair {
                    setup: &setup,
                    config,
                    quantization: &quantization,
                    adapter: &adapter_dir,
                    merged: staged.path(),
                };
                console.line(&pair.compare()?);
            }
            staged.commit_new()?;
            written.bytes
        }
    };
    console.line(&size_line(base.bytes(), bytes));
    console.line(&format!("model      {}", output.display()));
    Ok(())
}

/// `None` for a type that only GGUF files have, which the config has ruled out.
fn stored_type(named: ExportType) -> Option<StoredType> {
    match named {
        ExportType::F32 => Some(StoredType::F32),
        ExportType::Bf16 => Some(StoredType::Bf16),
        ExportType::F16 => Some(StoredType::F16),
        ExportType::Q8_0 => None,
    }
}

/// The output under a temporary name. That it can be had is found before the work.
enum Target {
    Dir(StagedDir),
    File(Staged),
}

impl Target {
    fn new(config: &Config, output: &Path) -> Result<Self, Error> {
        if config.export.format == ExportFormat::Safetensors {
            return Ok(Self::Dir(StagedDir::new_free(output)?));
        }
        if output.is_dir() {
            return Err(Error::GgufIsDirectory(output.to_path_buf()));
        }
        if output.exists() {
            return Err(Error::OutputExists(output.to_path_buf()));
        }
        let parent = fsx::parent_of(output);
        fsx::create_dir_all(parent)?;
        sweep_beside(output);
        let staged = Staged::file(output).map_err(|e| FsError::new("write", output, e))?;
        Ok(Self::File(staged))
    }
}

/// Writes one GGUF file and gives it its name.
fn write_gguf(
    merged: &Merged<'_>,
    named: Option<ExportType>,
    staged: Staged,
    output: &Path,
) -> Result<u64, Error> {
    let stored = match named {
        Some(ExportType::F32) => GgufType::F32,
        Some(ExportType::Q8_0) => GgufType::Q8_0,
        Some(ExportType::F16 | ExportType::Bf16) | None => GgufType::F16,
    };
    let bytes = gguf::write(merged, staged.path(), stored)?;
    match staged.put_new() {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(Error::OutputExists(output.to_path_buf()))
        }
        Err(e) => Err(FsError::new("write", output, e).into()),
        Ok(()) => Ok(bytes),
    }
}

/// The model before and after: base + adapter, and what was written.
struct Pair<'a> {
    setup: &'a Setup,
    config: &'a Config,
    quantization: &'a QuantizationConfig,
    adapter: &'a Path,
    merged: &'a Path,
}

impl Pair<'_> {
    /// Asks both models the same prompts; one line about how far apart they are.
    ///
    /// # Errors
    /// A model that cannot be loaded, or prompts that cannot be encoded.
    fn compare(&self) -> Result<String, Error> {
        let width = match self.setup.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        let needed = width * self.setup.arch.num_parameters() as u64;
        let available = match &self.setup.chosen.gpu {
            Some(gpu) => gpu.free_bytes,
            None => Memory::probe().map(|memory| memory.available_bytes),
        };
        if available.is_some_and(|bytes| bytes < needed + needed / 10) {
            return Ok(format!(
                "logits     not compared: the merged model takes {}, more memory than is free",
                human_bytes(needed)
            ));
        }
        let batch = self.batch()?;
        let before = self.logits(self.setup.model_dir.as_path(), Some(self.adapter), &batch)?;
        let after = self.logits(self.merged, None, &batch)?;
        let difference = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
        let largest = difference.fold(0.0f32, f32::max);
        let vocab = self.setup.arch.vocab_size;
        let rows = before.chunks(vocab).zip(after.chunks(vocab));
        let equal = rows.filter(|(a, b)| argmax(a) == argmax(b)).count();
        Ok(format!(
            "logits     merged against base + adapter: largest difference {largest:.2e}, the same \
             likeliest token at {equal} of {} positions of {} prompts",
            batch.len(),
            batch.spans.len()
        ))
    }

    fn batch(&self) -> Result<Ragged, Error> {
        let arch = &self.setup.arch;
        let longest = LONGEST.min(arch.max_position_embeddings);
        let vocab = arch.vocab_size as u32;
        let mut batch = Ragged::default();
        for (n, prompt) in PROMPTS.into_iter().enumerate() {
            let ids = match &self.setup.tokenizer {
                Some(tokenizer) => tokenizer.encode(prompt, true)?,
                // Any tokens will do.
                None => (0..longest as u32)
                    .map(|i| (17 * i + 31 * n as u32) % vocab)
                    .collect(),
            };
            let ids: Vec<u32> = ids
                .into_iter()
                .filter(|id| *id < vocab)
                .take(longest)
                .collect();
            if !ids.is_empty() {
                batch.push(&ids);
            }
        }
        Ok(batch)
    }

    /// The logits at every position.
    fn logits(
        &self,
        dir: &Path,
        adapter: Option<&Path>,
        batch: &Ragged,
    ) -> Result<Vec<f32>, Error> {
        let dense = QuantizationConfig {
            method: QuantMethod::None,
            ..self.quantization.clone()
        };
        let (quantization, adaptation) = match adapter {
            Some(adapter) => (self.quantization, Adaptation::Adapter(adapter)),
            None => (&dense, Adaptation::None),
        };
        let remedy = Some("leave out the comparison of logits: export.check=false");
        watch_unplanned(&self.setup.chosen.name, remedy, || {
            let mut model: Decoder = load(&LoadOptions {
                dir,
                init: ModelInit::Pretrained,
                quantization,
                adaptation,
                seed: self.config.seed,
                device: &self.setup.chosen.device,
                precision: self.setup.precision,
            })?;
            model.reserve_positions(LONGEST.min(self.setup.arch.max_position_embeddings));
            let rows: Indices = (0..batch.len() as u32).collect::<Vec<_>>().into();
            Ok(model.logits(batch, &rows, true, None))
        })
    }
}
