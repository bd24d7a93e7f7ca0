//! The binary `run`: parse, call, report.

use std::process::ExitCode;

use kiln::cli;

fn main() -> ExitCode {
    if let Some(code) = kiln::ops::trial_process() {
        return code;
    }
    // The standard library adds a backtrace to what it says of memory that cannot be had.
    // SAFETY: there is no other thread yet.
    unsafe { std::env::remove_var("RUST_BACKTRACE") };
    kiln::device::keep_freed_memory();
    let run = || {
        kiln::device::compute_here()?;
        cli::call(cli::parse(std::env::args_os())?)
    };
    match cli::guard(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.code())
        }
    }
}
