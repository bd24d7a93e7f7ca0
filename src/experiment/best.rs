//! The parameters of the best validation, kept beside the checkpoints as
//! `checkpoints/best/step-NNNNNN/` (`training.load_best_model_at_end`).

use burn::tensor::{Tensor, TensorData};

use super::checkpoints::{self, CheckpointError, NamedTensor, Numbers};
use super::error::Error;
use super::fsx;
use super::run_dir::RunPaths;
use crate::model::Params;

/// Saves the parameters after `step`. Those of earlier steps stay until
/// [`keep_only`]: a run that is killed goes on from a checkpoint before them.
///
/// # Errors
/// They cannot be written.
pub fn save(paths: &RunPaths, params: &Params, step: usize) -> Result<(), Error> {
    let named = params.names().iter().zip(params.values());
    let tensors: Vec<NamedTensor> = named
        .map(|(name, value)| NamedTensor {
            name: name.clone(),
            shape: value.dims().to_vec(),
            data: Numbers::F32(value.clone().into_data().iter::<f32>().collect()),
        })
        .collect();
    let dir = paths.best();
    checkpoints::save(&dir, step, &tensors, &serde_json::Value::Null)?;
    Ok(())
}

/// Whether the parameters after `step` were kept.
///
/// # Errors
/// The directory cannot be read.
pub fn is_kept(paths: &RunPaths, step: usize) -> Result<bool, Error> {
    let kept = checkpoints::list(&paths.best())?;
    Ok(kept.iter().any(|checkpoint| checkpoint.step == step))
}

/// Removes the parameters of all steps but `step`, and what earlier removals left.
///
/// # Errors
/// They cannot be removed.
pub fn keep_only(paths: &RunPaths, step: usize) -> Result<(), Error> {
    let dir = paths.best();
    for other in checkpoints::list(&dir)? {
        if other.step != step {
            fsx::remove_dir(&other.path).map_err(CheckpointError::from)?;
        }
    }
    fsx::sweep(&dir);
    Ok(())
}

/// Puts the parameters after `step` into `params`.
///
/// # Errors
/// They are not there whole, or are of another adapter or model.
pub fn load(paths: &RunPaths, params: &mut Params, step: usize) -> Result<(), Error> {
    let path = paths.best().join(checkpoints::directory_name(step));
    let (tensors, _) = checkpoints::load(&path)?;
    let mismatch = |what: String| Error::CheckpointMismatch {
        path: path.clone(),
        what,
    };
    let mut values = Vec::with_capacity(params.len());
    let places = params.names().iter().zip(params.values());
    let mut found = tensors.into_iter();
    for (name, old) in places {
        let shape = old.dims();
        let next = found.next().filter(|t| t.name == *name && t.shape == shape);
        let Some(Numbers::F32(data)) = next.map(|t| t.data) else {
            return Err(mismatch(format!("it has no {name} of shape {shape:?}")));
        };
        values.push(Tensor::from_data(
            TensorData::new(data, shape),
            &old.device(),
        ));
    }
    params.put(values);
    Ok(())
}
