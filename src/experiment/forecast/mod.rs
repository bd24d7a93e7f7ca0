//! What a run will need, for `run plan` and for the run itself: the plan of
//! [`crate::plan`] for this config, these data and this machine.

mod sizes;
mod text;

use std::panic;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use serde::Serialize;

use super::crash;
use super::error::Error;
use super::metrics::memory_bytes;
use super::ready::Ready;
use super::scorer::SasModel;
use super::setup::{ModelUse, Setup};
use crate::config::Job;
use crate::config::types::{Config, QuantMethod};
use crate::data::EncodeError;
use crate::device::{Asked, Memory as HostMemory, give_back_freed_memory, out_of_memory};
use crate::ops::{Precision, for_device};
use crate::plan::{
    Change, Memory, Place, Precision as Numbers, Recipe, Work, Workload, fit, layer_product,
};

use sizes::Sizes;

/// Multiply-adds of the product that is timed: a few hundredths of a second.
const TIMED_PRODUCT: usize = 1 << 29;
/// How long products are timed at most.
const TIMING: Duration = Duration::from_millis(300);

/// A planned run.
#[derive(Clone, Debug)]
pub struct Forecast {
    pub memory: Memory,
    pub work: Work,
    pub workload: Workload,
    pub recipe: Recipe,
    /// `cpu`, `cuda:N`, or a GPU that is only thought of.
    pub device: String,
    /// What the device has; `None` where the system does not say.
    pub capacity: Option<Capacity>,
    /// Why batches are assumed and not counted, where they are.
    pub assumed: Option<String>,
    config: Config,
    sizes: Sizes,
    place: Place,
}

/// Memory of a device in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    pub total_bytes: u64,
    /// What this run can have of it.
    pub available_bytes: u64,
}

/// Operations a second of matrix products, measured here and now.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Speed {
    pub flops_per_s: f64,
    /// The steps at that speed. Other work comes on top.
    pub seconds: f64,
}

/// What `run plan` is asked besides the config.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    pub json: bool,
    /// Plan for a GPU with so much memory instead of the config's device.
    pub gpu_bytes: Option<u64>,
}

/// Plans the run of a job and prints what it will need.
///
/// # Errors
/// An input that cannot be used; too little memory is no failure.
pub fn forecast(job: &Job, ask: Ask) -> Result<String, Error> {
    let forecast = Forecast::of_config(&job.config, ask.gpu_bytes)?;
    let change = match forecast.fits() {
        Some(false) => forecast.change(forecast.available()),
        _ => None,
    };
    let speed = forecast.speed();
    Ok(match ask.json {
        true => forecast.json(change.as_ref(), speed.as_ref()),
        false => forecast.text(change.as_ref(), speed.as_ref()),
    })
}

impl Forecast {
    /// Plans a run whose inputs are read, from what the process holds now.
    ///
    /// # Errors
    /// The adapter does not fit the model, or a test question cannot be encoded.
    pub fn of_run(ready: &Ready, config: &Config) -> Result<Forecast, Error> {
        let sizes = Sizes::of(ready, config)?;
        Forecast::new(&ready.setup, config, sizes, None, None)
    }

    /// Reads the inputs of a config and plans its run. Without data, or without the
    /// tokenizer that they need, the longest possible batches are assumed.
    ///
    /// # Errors
    /// An input that cannot be used.
    fn of_config(config: &Config, gpu: Option<u64>) -> Result<Forecast, Error> {
        let mut config = config.clone();
        if gpu.is_some() {
            // The device that is only thought of cannot be asked.
            config.device = "cpu".to_string();
            config.training.bf16 = config.training.bf16.filter(|on| !on);
            config.training.fp16 = None;
        }
        let assumed = match &config.data.path {
            None => "data.path is not set",
            Some(_) => match Ready::new(&config, ModelUse::Plan) {
                Ok(ready) => {
                    let sizes = Sizes::of(&ready, &config)?;
                    return Forecast::new(&ready.setup, &config, sizes, gpu, None);
                }
                Err(Error::Encode(EncodeError::NoTokenizer { .. })) => {
                    "the model directory has no tokenizer"
                }
                Err(error) => return Err(error),
            },
        };
        let setup = Setup::new(&config, ModelUse::Plan)?;
        let sas = SasModel::find(&config, ModelUse::Plan)?;
        let sizes = Sizes::assumed(&config, sas.map(|sas| sas.size));
        Forecast::new(&setup, &config, sizes, gpu, Some(assumed.to_string()))
    }

    fn new(
        setup: &Setup,
        config: &Config,
        sizes: Sizes,
        gpu: Option<u64>,
        assumed: Option<String>,
    ) -> Result<Forecast, Error> {
        let config = &Config {
            quantization: setup.quantization.clone(),
            ..config.clone()
        };
        let mut recipe = Recipe::new(&setup.arch, config)?;
        let bf16 = match gpu {
            // A card that is not here is taken for a recent one.
            Some(_) => config.training.bf16 != Some(false),
            None => setup.precision == Precision::Bf16,
        };
        if bf16 {
            recipe.precision = match gpu.is_some() || setup.chosen.gpu.is_some() {
                true => Numbers::BF16,
                false => Numbers::CPU_BF16,
            };
        }
        let workload = sizes.workload(config)?;
        let chosen = &setup.chosen;
        // What was freed is there for the model.
        give_back_freed_memory();
        let program_bytes = memory_bytes().unwrap_or(0);
        let (place, device, capacity) = match (gpu, &chosen.gpu) {
            (Some(bytes), _) => {
                let capacity = Capacity {
                    total_bytes: bytes,
                    available_bytes: bytes,
                };
                (Place::Gpu, "a GPU".to_string(), Some(capacity))
            }
            (None, Some(gpu)) => {
                let capacity = Capacity {
                    total_bytes: gpu.memory_bytes,
                    available_bytes: gpu.free_bytes.unwrap_or(gpu.memory_bytes),
                };
                (Place::Gpu, chosen.name.clone(), Some(capacity))
            }
            (None, None) => {
                let place = Place::Cpu {
                    program_bytes,
                    threads: rayon::current_num_threads(),
                };
                let capacity = HostMemory::probe().map(|memory| Capacity {
                    total_bytes: memory.total_bytes,
                    // What this process holds is part of the plan.
                    available_bytes: memory.available_bytes + program_bytes,
                });
                (place, chosen.name.clone(), capacity)
            }
        };
        Ok(Forecast {
            memory: recipe.memory(&workload, place),
            work: recipe.work(&workload),
            workload,
            recipe,
            device,
            capacity,
            assumed,
            config: config.clone(),
            sizes,
            place,
        })
    }

    fn available(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |c| c.available_bytes)
    }

    /// Whether the plan is within what the device has; `None` where that is unknown.
    pub fn fits(&self) -> Option<bool> {
        self.capacity
            .map(|capacity| self.memory.total <= capacity.available_bytes)
    }

    /// The cheapest overrides with which the plan is at most `limit` bytes.
    pub fn change(&self, limit: u64) -> Option<Change> {
        let mut given = self.config.clone();
        // The ranks of an adapter that was read are known by now.
        let read = given.lora.init_from.take().map(|_| &self.recipe.ranks);
        let plan = |config: &Config| -> Option<u64> {
            let mut recipe = Recipe::new(&self.recipe.arch, config).ok()?;
            recipe.precision = self.recipe.precision;
            if let (Some(ranks), false) = (read, recipe.full) {
                recipe.ranks.clone_from(ranks);
            }
            let workload = self.sizes.workload(config).ok()?;
            Some(recipe.memory(&workload, self.place).total)
        };
        // Its rank is not for the config to change.
        if read.is_some() {
            given.lora.r = 1;
        }
        fit(&given, limit, &plan)
    }

    /// The speed of matrix products on this CPU and what it makes of the run; `None`
    /// on a GPU and where the batches are assumed.
    fn speed(&self) -> Option<Speed> {
        let (Place::Cpu { .. }, None) = (self.place, &self.assumed) else {
            return None;
        };
        let (rows, out, inn) = layer_product(&self.recipe, &self.workload, TIMED_PRODUCT);
        let device = Device::flex();
        let ops = for_device(&device, Precision::F32);
        let (x, w) = (
            Tensor::<2>::ones([rows, inn], &device),
            Tensor::<2>::ones([out, inn], &device),
        );
        let began = Instant::now();
        let mut best = f64::INFINITY;
        // The first one starts the threads.
        for round in 0.. {
            let since = Instant::now();
            let product = ops.gemm(&x, false, &w, true, 1.0);
            let seconds = since.elapsed().as_secs_f64();
            drop(product);
            if round > 0 {
                best = best.min(seconds);
            }
            if round >= 3 && began.elapsed() > TIMING {
                break;
            }
        }
        let flops_per_s = 2.0 * (rows * out * inn) as f64 / best.max(1e-9);
        Some(Speed {
            flops_per_s,
            seconds: self.work.total / flops_per_s,
        })
    }

    /// [`watch`] of a training run: the error says what was planned and what would
    /// fit.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::OutOfMemory`].
    pub fn watch<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        watch(|asked| self.exhausted(asked), work)
    }

    /// The sentence for a device without memory.
    fn exhausted(&self, asked: Asked) -> String {
        // Where the plan fits, less than planned is what must be aimed for.
        let limit = self.available().min(self.memory.total / 5 * 4);
        let less = || {
            self.change(self.memory.total - 1)
                .filter(|_| self.fits() != Some(false))
        };
        text::exhausted(self, asked, self.change(limit).or_else(less).as_ref())
    }
}

/// Runs `work`, which uses the device. That the device has no memory left shows as
/// a panic deep in burn; here it becomes an error, with the sentence that `explain`
/// makes. Any other panic goes on.
///
/// # Errors
/// Those of `work`, and [`Error::OutOfMemory`].
pub fn watch<T>(
    explain: impl FnOnce(Asked) -> String,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    crash::catch(work).unwrap_or_else(|what| match out_of_memory(&what) {
        Some(asked) => Err(Error::OutOfMemory(explain(asked))),
        None => panic::resume_unwind(Box::new(what)),
    })
}

/// [`watch`] for work that nothing is planned for; `remedy` is what makes room for it,
/// besides a smaller model.
///
/// # Errors
/// As [`watch`].
pub fn watch_unplanned<T>(
    device: &str,
    remedy: Option<&str>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    watch(|asked| text::no_room(device, asked, remedy), work)
}

/// [`watch_unplanned`] for answering the questions of a file.
///
/// # Errors
/// As [`watch`].
pub fn watch_answers<T>(
    device: &str,
    config: &Config,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let remedy = halved(
        "answer fewer questions at once",
        "inference.batch_size",
        config.inference.batch_size,
    );
    watch_unplanned(device, remedy.as_deref(), work)
}

/// [`watch_unplanned`] for loading a model to answer with.
///
/// # Errors
/// As [`watch`].
pub fn watch_loading<T>(
    device: &str,
    config: &Config,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let remedy = match config.quantization.method {
        QuantMethod::None => Some("load its weights in 4 bits: quantization=nf4"),
        QuantMethod::Nf4 => None,
    };
    watch_unplanned(device, remedy, work)
}

/// `WHAT: KEY=N/2`; nothing where `key` cannot be halved.
pub fn halved(what: &str, key: &str, n: usize) -> Option<String> {
    (n > 1).then(|| format!("{what}: {key}={}", n / 2))
}

#[cfg(test)]
mod tests;
