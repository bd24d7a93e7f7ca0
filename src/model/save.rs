//! From a trained [`Decoder`] back to files.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Tensor;

use super::decoder::Decoder;
use super::export::{ExportError, StagedDir, WeightType, write_model};
use super::hf_config::Parameter;
use super::peft::{Adapter, LoraTensors};
use crate::config::types::LoraInit;

fn host(value: &Tensor<2>) -> Vec<f32> {
    value.clone().into_data().iter::<f32>().collect()
}

impl Decoder {
    /// The matrices of the adapter that computes, as PEFT stores them; `None` where
    /// there is none. One that took its start out of the base (PiSSA) becomes one of
    /// twice the rank on the base as it was, as PEFT's `save_pretrained` with
    /// `path_initial_model_for_weight_conversion` makes it.
    pub fn adapter(&self, base: &Path) -> Option<Adapter> {
        let mut config = self.adapter_configs.get(self.active)?.clone();
        config.base_model_name_or_path = Some(base.display().to_string());
        if config.init_lora_weights.is_pissa() {
            config.init_lora_weights = LoraInit::True;
            config.widen();
        }
        let modules = self
            .layers
            .iter()
            .flat_map(|layer| layer.linears())
            .filter_map(|linear| {
                let lora = linear.lora(self.active)?;
                let (a, b) = (self.params.get(lora.a), self.params.get(lora.b));
                let ([r, in_features], [out_features, _]) = (a.dims(), b.dims());
                let tensors = LoraTensors {
                    module: linear.module.clone(),
                    a: host(a),
                    b: host(b),
                    magnitude: lora
                        .dora
                        .as_ref()
                        .map(|d| host(self.params.get(d.magnitude))),
                    r,
                    in_features,
                    out_features,
                };
                Some(match &lora.start {
                    Some(start) => tensors.relative_to(start),
                    None => tensors,
                })
            })
            .collect();
        Some(Adapter {
            config,
            modules,
            left_out: Vec::new(),
        })
    }

    /// Writes a fully trained model as an HF checkpoint; `extra` adds files (the
    /// tokenizer's) before the directory gets its name.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write_checkpoint<E: From<ExportError>>(
        &self,
        dir: &Path,
        weight_type: WeightType,
        extra: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let staged = StagedDir::new(dir)?;
        let linears = self.arch.linears().into_iter().filter(|l| l.transposed);
        let transposed: BTreeSet<String> = linears.map(|l| l.weight().name).collect();
        write_model(staged.path(), &self.arch, weight_type, |parameter| {
            let value = self.value_of(parameter);
            let missing = || ExportError::Elements {
                file: dir.to_path_buf(),
                tensor: parameter.name.clone(),
                found: 0,
                expected: parameter.numel(),
            };
            let value = value.ok_or_else(missing)?;
            // Conv1D keeps its weights the other way round.
            Ok::<_, ExportError>(Cow::Owned(match transposed.contains(&parameter.name) {
                true => host(&value.clone().transpose()),
                false => host(value),
            }))
        })?;
        extra(staged.path())?;
        staged.commit_replacing()?;
        Ok(())
    }

    /// The value of a checkpoint's tensor; in full training all are parameters.
    fn value_of(&self, parameter: &Parameter) -> Option<&Tensor<2>> {
        let names = self.params.names();
        let at = names.iter().position(|n| *n == parameter.name)?;
        self.params.values().get(at)
    }
}
