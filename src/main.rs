//! The binary `run`: parse, call, report.

use std::process::ExitCode;

use kiln::cli;

fn main() -> ExitCode {
    if let Some(code) = kiln::ops::trial_process() {
        return code;
    }
    kiln::device::keep_freed_memory();
    kiln::device::compute_here();
    match cli::guard(|| cli::parse(std::env::args_os()).and_then(cli::call)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.code())
        }
    }
}
