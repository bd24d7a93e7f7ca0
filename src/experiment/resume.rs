//! Checkpoints of a training run: everything the rest of the run depends on.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::checkpoints::{self, Checkpoint, NamedTensor};
use super::error::Error;
use super::run_dir::RunPaths;
use crate::model::Params;
use crate::train::{Optimizer, Progress};

#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    updates: u64,
}

/// Saves parameters, moments and progress as `checkpoints/step-NNNNNN/`, then
/// removes the oldest over `limit`.
///
/// # Errors
/// The checkpoint cannot be written; what was there before stays.
pub fn save(
    paths: &RunPaths,
    params: &Params,
    optimizer: &Optimizer,
    progress: &Progress,
    limit: Option<usize>,
) -> Result<(), Error> {
    let mut tensors = Vec::with_capacity(3 * params.len());
    for (kind, values) in [
        ("value", params.values()),
        ("m", &optimizer.m),
        ("v", &optimizer.v),
    ] {
        for (name, value) in params.names().iter().zip(values) {
            tensors.push(NamedTensor {
                name: format!("{name}.{kind}"),
                shape: value.dims().to_vec(),
                data: value.clone().into_data().iter::<f32>().collect(),
            });
        }
    }
    let state = State {
        progress: progress.clone(),
        updates: optimizer.steps,
    };
    let state = serde_json::to_value(state).unwrap_or_default();
    let dir = paths.checkpoints();
    checkpoints::save(&dir, progress.step, &tensors, &state)?;
    if let Some(limit) = limit {
        checkpoints::prune(&dir, limit)?;
    }
    Ok(())
}

/// Puts a checkpoint's values into `params` and gives the optimiser and the
/// progress that go with them.
///
/// # Errors
/// The checkpoint is torn, or is of another adapter or model.
pub fn restore(
    checkpoint: &Checkpoint,
    params: &mut Params,
    device: &Device,
) -> Result<(Optimizer, Progress), Error> {
    let mismatch = |what: String| Error::CheckpointMismatch {
        path: checkpoint.path.clone(),
        what,
    };
    let (tensors, state) = checkpoints::load(&checkpoint.path)?;
    let state: State = serde_json::from_value(state).map_err(|e| mismatch(e.to_string()))?;
    let n = params.len();
    if tensors.len() != 3 * n {
        let what = format!("{} tensors in it, {} expected", tensors.len(), 3 * n);
        return Err(mismatch(what));
    }
    let mut loaded = Vec::with_capacity(3 * n);
    for (i, found) in tensors.into_iter().enumerate() {
        let kind = ["value", "m", "v"][i / n];
        let name = format!("{}.{kind}", params.names()[i % n]);
        let shape = params.values()[i % n].dims();
        if found.name != name || found.shape != shape {
            let what = format!(
                "{} {:?} in place of {name} {shape:?}",
                found.name, found.shape
            );
            return Err(mismatch(what));
        }
        loaded.push(Tensor::from_data(
            TensorData::new(found.data, shape),
            device,
        ));
    }
    let v = loaded.split_off(2 * n);
    let m = loaded.split_off(n);
    params.put(loaded);
    let optimizer = Optimizer {
        m,
        v,
        steps: state.updates,
    };
    Ok((optimizer, state.progress))
}
