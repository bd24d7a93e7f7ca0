//! Passes recorded as graphs of the device (CUDA graphs), and run again at the cost of
//! one launch.

use std::sync::Mutex;

use burn::tensor::{Bytes, Device, Int, Tensor};
use cubecl::client::Graph;

use super::tensors::{buffer, integers};
use crate::ops::warning::warn;
use crate::ops::{HotOps, Indices, Recorded, Recording};

/// `0` keeps recording off, `1` does without the trial.
const SWITCH: &str = "KILN_GRAPHS";

struct Replayed(Graph);

impl Recorded for Replayed {
    fn run(&self) -> Result<(), String> {
        // SAFETY: the holder keeps all that the pass read and wrote, as `Recorded` asks;
        // everything happens on this thread's stream, in order.
        unsafe { self.0.replay() }.map_err(|error| error.to_string())
    }
}

/// As [`HotOps::record`]. Runs before fill the device's pools with what the recorded one
/// will ask for: nothing can be allocated while it is recorded.
pub fn record(pass: &mut dyn FnMut() -> Tensor<2>, device: &Device) -> Recording {
    let client = buffer(&Tensor::<1>::empty([1], device)).client;
    if client.graph_prepare().is_err() {
        return Recording::of_one(pass());
    }
    let first = pass();
    // Once more beside what the first one gave, which is kept while the last is recorded.
    drop(pass());
    if client.start_capture().is_err() {
        // The only way out of what was prepared; there is no graph to be had.
        let _ = client.stop_capture();
        return Recording::of_one(first);
    }
    let result = pass();
    match client.stop_capture() {
        Ok(graph) => Recording {
            first,
            again: Some((Box::new(Replayed(graph)), result)),
            spoilt: None,
        },
        Err(error) => Recording {
            first,
            again: None,
            spoilt: Some(error.to_string()),
        },
    }
}

/// As [`HotOps::overwrite`].
pub fn overwrite(to: &Tensor<1, Int>, values: &[u32]) {
    let to = integers(to);
    assert_eq!(to.meta.num_elements(), values.len(), "other numbers");
    let bytes = Bytes::from_elems(values.to_vec());
    to.client.write(&to.handle, bytes);
}

/// Whether the device does recorded work again as it should, tried once.
pub fn works(ops: &dyn HotOps, device: &Device) -> bool {
    static TRIED: Mutex<Vec<(Device, bool)>> = Mutex::new(Vec::new());
    let mut tried = TRIED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, works)) = tried.iter().find(|(known, _)| known == device) {
        return *works;
    }
    let switch = std::env::var(SWITCH);
    let works = match switch.as_deref() {
        Ok("0") => false,
        Ok("1") => true,
        _ => trial(ops, device),
    };
    if !works && switch.as_deref() != Ok("0") {
        warn(
            "the device does not repeat recorded work as it should; decoding launches all of it at \
             each token",
        );
    }
    tried.push((device.clone(), works));
    works
}

/// Rows are picked, then others by the same recorded work.
fn trial(ops: &dyn HotOps, device: &Device) -> bool {
    let numbers: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let table = ops.frozen(numbers, [8, 4], device);
    let picked = |rows: &Tensor<2>, ids: &[u32]| {
        let Ok(data) = rows.clone().try_into_data() else {
            return false;
        };
        let want = ids.iter().flat_map(|id| (0..4).map(move |i| 4 * id + i));
        data.iter::<f32>().eq(want.map(|n| n as f32))
    };
    let ids = Indices::from(vec![3, 0, 7]);
    // Twice, so that memory is made and given back in between.
    let all = Indices::from(vec![0, 1, 2]);
    let mut pass = || ops.gather_rows(&ops.gather_rows(&table, &ids), &all);
    let recording = record(&mut pass, device);
    let Some((recorded, rows)) = recording.again else {
        return false;
    };
    let Some(copy) = ids.copy() else {
        return false;
    };
    [[5, 5, 1], [2, 6, 4]].iter().all(|others| {
        overwrite(copy, others);
        recorded.run().is_ok() && picked(&rows, others)
    }) && picked(&recording.first, &[3, 0, 7])
}
