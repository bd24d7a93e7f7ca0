//! Seconds that the expansion of a sweep of 1,000 cells takes, for `benches/compose.py`.

use std::time::Instant;

use kiln::compose::{Error, expand_sweep};

fn main() -> Result<(), Error> {
    let texts = ["a=range(10)", "b=range(10)", "c=range(10)"].map(String::from);
    let start = Instant::now();
    let cells = expand_sweep(&texts)?;
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(cells.len(), 1000);
    println!("{seconds:.9}");
    Ok(())
}
