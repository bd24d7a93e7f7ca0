//! The measuring side of the GPU path, one program to carry to a card:
//!
//! `gpu ops`        every operation against the CPU's on fresh random inputs
//! `gpu shapes`     products and attention at the 8B shape against f32 on the card
//! `gpu training`   20 training steps against the CPU's losses
//! `gpu bench`      throughput, memory and start-up of QLoRA at a model's shape
//! `gpu generate`   batched decoding at a model's shape
//! `gpu kernels`    the time of each operation beside its computed floor
//! `gpu run ...`    the normal command line
//!
//! scripts/pack-gpu.sh builds and packs it, scripts/gpu.sh runs it all on a bare
//! machine. With the feature `wgpu` it runs on software Vulkan, where its figures
//! say nothing about a card.

mod bench;
mod common;
mod generation;
mod kernels;
mod kernels_linear;
mod kernels_rows;
mod kernels_step;
mod memory;
mod ops;
mod shapes;
mod table;
mod timing;
mod training;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use kiln::cli;

/// Checks and measures Kiln's operations and training on a GPU.
#[derive(Parser)]
#[command(name = "gpu", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare every operation with the CPU's on fresh random inputs
    Ops(ops::Args),
    /// Compare products and attention at the Llama-3-8B shape with f32 on the card
    Shapes(shapes::Args),
    /// Compare 20 training steps of a small random model with the CPU's
    Training(training::Args),
    /// Measure QLoRA training steps at a model's shape; prints one JSON line
    Bench(bench::Args),
    /// Measure batched decoding at a model's shape; prints one JSON line
    Generate(generation::Args),
    /// Time each operation at the Llama-3-8B shape beside its computed floor
    Kernels(kernels::Args),
    /// The normal command line: everything after `run`
    #[command(disable_help_flag = true)]
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let began = Instant::now();
    if let Some(code) = kiln::ops::trial_process() {
        return code;
    }
    kiln::device::keep_freed_memory();
    let command = Cli::parse().command;
    let mut passed = true;
    let outcome = cli::guard(|| {
        kiln::device::compute_here()?;
        passed = match command {
            Command::Ops(args) => ops::call(&args)?,
            Command::Shapes(args) => shapes::call(&args)?,
            Command::Training(args) => training::call(&args)?,
            Command::Bench(args) => bench::call(&args, began)?,
            Command::Generate(args) => generation::call(&args)?,
            Command::Kernels(args) => kernels::call(&args)?,
            Command::Run { args } => {
                let argv = std::iter::once(OsString::from("run")).chain(args);
                cli::parse(argv).and_then(cli::call)?;
                true
            }
        };
        Ok(())
    });
    match outcome {
        Ok(()) if passed => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            error.report();
            ExitCode::from(error.code())
        }
    }
}
