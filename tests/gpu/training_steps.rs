//! Twenty training steps on a GPU follow the CPU's, repeat bit for bit, and do not
//! depend on recomputation: what `examples/gpu` checks on a card.

use clap::Parser;

#[allow(dead_code)] // the example uses all of it
#[path = "../../examples/gpu/common.rs"]
mod common;
#[path = "../../examples/gpu/table.rs"]
mod table;
#[path = "../../examples/gpu/training.rs"]
mod training;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: training::Args,
}

#[test]
fn trains_as_the_cpu_does() {
    if kiln::device::for_checks().is_none() {
        println!("left out: no GPU");
        return;
    }
    let line = Line::parse_from(["gpu", "--longest", "24", "--hidden", "64", "--layers", "2"]);
    assert!(training::call(&line.args).unwrap());
}
