//! `gpu ops`: every operation against the CPU's.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use kiln::experiment::crash;
use kiln::ops::Precision;
use kiln::ops::check::{self, Check};

use super::{common, table};

#[derive(clap::Args)]
pub struct Args {
    /// Of the random inputs; a new one each time unless given
    #[arg(long)]
    seed: Option<u64>,
}

/// True where all agree.
pub fn call(args: &Args) -> Result<bool> {
    let device = common::card()?;
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |d| d.as_nanos() as u64)
    };
    let seed = args.seed.unwrap_or_else(now);
    println!("device {device:?}, seed {seed}");
    let mut passed = true;
    for precision in [Precision::F32, Precision::Bf16] {
        let name = common::name(precision);
        if precision == Precision::Bf16 && !common::has_bf16(&device) {
            println!("\n{name}: left out, this device does not compute in it");
            continue;
        }
        let began = Instant::now();
        let (mut checks, mut failed) = (Vec::new(), 0);
        for section in &check::SECTIONS {
            // Told at once: a kernel that hangs or faults ends this program without a word.
            eprintln!("{name}: {}", section.name);
            match crash::catch(|| section.run(&device, precision, seed)) {
                Ok(done) => {
                    for c in done.iter().filter(|c| !c.passed()) {
                        println!(
                            "FAILED {name} {}, {}: {:.3e} above {:.1e}",
                            c.op, c.case, c.error, c.bound
                        );
                        failed += 1;
                    }
                    checks.extend(done);
                }
                Err(why) => {
                    println!("FAILED {name} {}: {why}", section.name);
                    failed += 1;
                }
            }
        }
        println!(
            "\n{name}: {} comparisons, {failed} failed, {:.1} s",
            checks.len(),
            began.elapsed().as_secs_f64()
        );
        table::print(&["op", "cases", "worst error", "bound", ""], &rows(&checks));
        passed &= failed == 0;
    }
    Ok(passed)
}

/// A row an operation: its case that comes nearest to its bound.
fn rows(checks: &[Check]) -> Vec<Vec<String>> {
    let mut worst: Vec<(&Check, usize)> = Vec::new();
    for check in checks {
        match worst.iter_mut().find(|(w, _)| w.op == check.op) {
            Some((w, cases)) => {
                *cases += 1;
                if strain(check) > strain(w) {
                    *w = check;
                }
            }
            None => worst.push((check, 1)),
        }
    }
    let row = |(c, cases): &(&Check, usize)| {
        vec![
            c.op.to_string(),
            cases.to_string(),
            format!("{:.2e}", c.error),
            format!("{:.0e}", c.bound),
            if c.passed() { "ok" } else { "FAILED" }.to_string(),
        ]
    };
    worst.iter().map(row).collect()
}

/// The share of its bound that an error takes; a NaN takes more than all.
fn strain(check: &Check) -> f64 {
    match check.passed() {
        true if check.bound > 0.0 => check.error / check.bound,
        true => 0.0,
        false if check.error.is_finite() && check.bound > 0.0 => check.error / check.bound,
        false => f64::INFINITY,
    }
}
