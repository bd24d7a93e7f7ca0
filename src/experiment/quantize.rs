//! `run quantize`: a dense checkpoint in, the same in bitsandbytes' NF4 layout out.

use std::path::Path;

use super::error::Error;
use super::fsx::{self, FsError, human_bytes};
use super::log::Console;
use super::setup::{ModelUse, model_dir};
use crate::config::types::{ComputeType, Config};
use crate::data::tokenizer::TOKENIZER_FILES;
use crate::model::export::StagedDir;
use crate::model::rewrite::{Base, StoredType};

/// Quantises the model of `model.path` into the directory `output`, which appears
/// only once it is whole.
///
/// # Errors
/// See [`Error`].
pub fn quantize(config: &Config) -> Result<(), Error> {
    let console = Console::stdio();
    let output = config.output.as_ref();
    let output = output.ok_or(Error::Missing("output", "models/quantised"))?;
    let base = Base::open(&model_dir(config, ModelUse::Run)?)?;
    let staged = StagedDir::new_free(output)?;
    let compute = match config.export.compute_dtype {
        None => base.stored_type()?,
        Some(ComputeType::F32) => StoredType::F32,
        Some(ComputeType::Bf16) => StoredType::Bf16,
        Some(ComputeType::F16) => StoredType::F16,
    };
    let q = &config.quantization;
    let written = base.write_quantised(staged.path(), q, compute, shard_bytes(config))?;
    copy_side_files(&base.dir, staged.path())?;
    staged.commit_new()?;
    let double = match q.double_quant {
        true => ", double quantisation",
        false => "",
    };
    console.line(&format!(
        "quantised  {}: NF4, blocks of {}{double}; transformers computes in {}",
        base.dir.display(),
        q.block_size,
        compute.torch()
    ));
    console.line(&size_line(base.bytes(), written.bytes));
    console.line(&format!("model      {}", output.display()));
    Ok(())
}

/// What the weights took and take.
pub(super) fn size_line(before: u64, after: u64) -> String {
    let share = 100.0 * after as f64 / before.max(1) as f64;
    let (before, after) = (human_bytes(before), human_bytes(after));
    format!("size       {before} before, {after} after ({share:.1} %)")
}

/// Most bytes of one weight file.
pub(super) fn shard_bytes(config: &Config) -> u64 {
    (config.export.max_shard_gb * 1e9) as u64
}

/// Copies what belongs to a model besides config.json and weights: tokenizer, chat
/// template, generation settings.
///
/// # Errors
/// A file that cannot be read or written.
pub(super) fn copy_side_files(from: &Path, to: &Path) -> Result<(), Error> {
    for name in TOKENIZER_FILES
        .into_iter()
        .chain(["generation_config.json"])
    {
        copy_side_file(from, to, name)?;
    }
    Ok(())
}

/// The same of one file, where it is there.
pub(super) fn copy_side_file(from: &Path, to: &Path, name: &str) -> Result<(), Error> {
    let file = from.join(name);
    if file.is_file() {
        // Not `fs::copy`, which would carry over a read-only mode.
        let bytes = std::fs::read(&file).map_err(|e| FsError::new("read", &file, e))?;
        fsx::write(&to.join(name), &bytes)?;
    }
    Ok(())
}
