//! Paged moments on a GPU.

use crate::common::paged::pages_change_nothing;

#[test]
fn paged_adamw_is_adamw() {
    match kiln::device::for_checks() {
        Some(device) => pages_change_nothing(&device),
        None => println!("left out: no GPU"),
    }
}
