//! Checkpoints of a training run: everything the rest of the run depends on.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::checkpoints::{self, Checkpoint, NamedTensor, Numbers};
use super::error::Error;
use super::registry::Inputs;
use super::run_dir::RunPaths;
use crate::config::types::Optimizer as Kind;
use crate::model::Params;
use crate::ops::Moments8;
use crate::ops::moments8::Codes;
use crate::train::optimizer::Moments;
use crate::train::{Optimizer, Progress, paged};

#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    updates: u64,
    optimizer: Kind,
    #[serde(default)]
    data: Option<DataSize>,
    /// Compared before anything is loaded, by the registry.
    #[serde(default)]
    inputs: Option<Inputs>,
}

/// The samples that a run trains and validates on. Where they are other ones when it
/// is resumed, the steps to come see other examples than they would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSize {
    pub samples: usize,
    pub tokens: u64,
    /// Tokens whose loss counts.
    pub supervised: u64,
}

impl std::fmt::Display for DataSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            samples,
            tokens,
            supervised,
        } = self;
        write!(
            f,
            "{samples} samples of {tokens} tokens, {supervised} supervised"
        )
    }
}

/// What a checkpoint gives back besides the parameters.
pub struct Restored {
    pub optimizer: Optimizer,
    pub progress: Progress,
    /// What the run trained on; none in a checkpoint of an earlier version.
    pub data: Option<DataSize>,
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
    data: DataSize,
    limit: Option<usize>,
) -> Result<(), Error> {
    let mut tensors = Vec::with_capacity(3 * params.len());
    let parameters = params.names().iter().zip(params.values());
    for ((name, value), moments) in parameters.zip(&optimizer.moments) {
        let shape = value.dims().to_vec();
        let mut push = |kind: &str, shape: Vec<usize>, data: Numbers| {
            let name = format!("{name}.{kind}");
            tensors.push(NamedTensor { name, shape, data });
        };
        push("value", shape.clone(), numbers(value));
        match moments {
            Moments::Plain { m, v } => {
                push("m", shape.clone(), numbers(m));
                push("v", shape, numbers(v));
            }
            Moments::Paged(moments) => {
                push("m", shape.clone(), Numbers::F32(moments.m.clone()));
                push("v", shape, Numbers::F32(moments.v.clone()));
            }
            Moments::Blockwise(moments) => {
                let (m, v) = moments.codes();
                for (kind, Codes { codes, absmax }) in [("m", m), ("v", v)] {
                    let blocks = vec![absmax.len()];
                    push(&format!("{kind}.codes"), shape.clone(), Numbers::U8(codes));
                    push(&format!("{kind}.absmax"), blocks, Numbers::F32(absmax));
                }
            }
        }
    }
    let state = State {
        progress: progress.clone(),
        updates: optimizer.steps,
        optimizer: optimizer.kind,
        data: Some(data),
        inputs: Some(Inputs::of_run(paths)),
    };
    let state = serde_json::to_value(state).unwrap_or_default();
    let dir = paths.checkpoints();
    checkpoints::save(&dir, progress.step, &tensors, &state)?;
    if let Some(limit) = limit {
        checkpoints::prune(&dir, limit)?;
    }
    Ok(())
}

fn numbers(tensor: &Tensor<2>) -> Numbers {
    Numbers::F32(tensor.clone().into_data().iter::<f32>().collect())
}

/// Puts a checkpoint's values into `params` and gives the optimiser and the
/// progress that go with them. `adamw` and `paged_adamw` have the same moments, so
/// one goes on from the other's checkpoint.
///
/// # Errors
/// The checkpoint is torn, is of another adapter or model, or of another optimiser.
pub fn restore(
    checkpoint: &Checkpoint,
    params: &mut Params,
    kind: Kind,
) -> Result<Restored, Error> {
    let mismatch = |what: String| Error::CheckpointMismatch {
        path: checkpoint.path.clone(),
        what,
    };
    let (tensors, state) = checkpoints::load(&checkpoint.path)?;
    let state: State = serde_json::from_value(state).map_err(|e| mismatch(e.to_string()))?;
    if (state.optimizer == Kind::Adamw8bit) != (kind == Kind::Adamw8bit) {
        let (was, wanted) = (state.optimizer, kind);
        return Err(mismatch(format!(
            "it was made with training.optimizer={was}, whose moments {wanted} cannot use"
        )));
    }
    let count = tensors.len();
    let named = tensors.into_iter().map(|t| (t.name.clone(), t));
    let mut found = Found(named.collect());
    let mut optimizer = Optimizer::new(params, kind);
    optimizer.steps = state.updates;
    let mut values = Vec::with_capacity(params.len());
    for (i, old) in params.values().iter().enumerate() {
        let (name, shape, device) = (&params.names()[i], old.dims(), old.device());
        if matches!(optimizer.moments[i], Moments::Plain { .. })
            && found.0.contains_key(&format!("{name}.m.codes"))
        {
            return Err(mismatch(format!(
                "its moments of {name} have 8 bits, as an earlier version kept those of embeddings; \
                 begin anew without training.resume"
            )));
        }
        let mut floats = |kind: &str, shape: &[usize]| {
            let data = found.take(&format!("{name}.{kind}"), shape);
            data.and_then(Numbers::floats).map_err(mismatch)
        };
        let tensor = |data: Vec<f32>| Tensor::from_data(TensorData::new(data, shape), &device);
        values.push(tensor(floats("value", &shape)?));
        match &mut optimizer.moments[i] {
            Moments::Plain { m, v } => {
                *m = tensor(floats("m", &shape)?);
                *v = tensor(floats("v", &shape)?);
            }
            Moments::Paged(moments) => {
                let (m, v) = (floats("m", &shape)?, floats("v", &shape)?);
                *moments = paged::Moments { m, v };
            }
            Moments::Blockwise(moments) => {
                let blocks = [moments.codes().0.absmax.len()];
                let m_max = floats("m.absmax", &blocks)?;
                let v_max = floats("v.absmax", &blocks)?;
                let mut codes = |kind: &str, absmax: Vec<f32>| {
                    let data = found.take(&format!("{name}.{kind}.codes"), &shape);
                    let codes = data.and_then(Numbers::codes).map_err(mismatch)?;
                    Ok::<Codes, Error>(Codes { codes, absmax })
                };
                let (m, v) = (codes("m", m_max)?, codes("v", v_max)?);
                *moments = Moments8::from_codes(m, v, &device);
            }
        }
    }
    if let Some(name) = found.0.keys().min() {
        let (more, most) = (found.0.len(), count);
        return Err(mismatch(format!(
            "{more} of its {most} tensors have no place, the first is {name}"
        )));
    }
    params.put(values);
    Ok(Restored {
        optimizer,
        progress: state.progress,
        data: state.data,
    })
}

/// The tensors of a checkpoint that have not been put in their place.
struct Found(HashMap<String, NamedTensor>);

impl Found {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Numbers, String> {
        let tensor = self.0.remove(name);
        let tensor = tensor.ok_or_else(|| format!("it has no tensor {name}"))?;
        if tensor.shape != shape {
            return Err(format!("{name} is {:?}, not {shape:?}", tensor.shape));
        }
        Ok(tensor.data)
    }
}

impl Numbers {
    fn floats(self) -> Result<Vec<f32>, String> {
        match self {
            Self::F32(values) => Ok(values),
            Self::U8(_) => Err("it has codes where numbers belong".to_string()),
        }
    }

    fn codes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::U8(codes) => Ok(codes),
            Self::F32(_) => Err("it has numbers where codes belong".to_string()),
        }
    }
}
