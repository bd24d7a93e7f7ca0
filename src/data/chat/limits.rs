//! What a template may use up. Templates come with models from elsewhere, so one
//! that loops for ever or multiplies text must end in an error.
//!
//! minijinja's fuel pays for instructions, items and bytes alike. It does not see
//! inside lists, where ten names can stand for a billion elements; those are
//! measured here before they are printed, joined, or given to a filter. (What is out
//! of reach is a list of lists beside `~`; no template does that.)

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Fuel of one rendering; one unit is an instruction or 64 bytes. The largest real
/// templates use a few thousand on a long conversation.
pub(super) const FUEL: u64 = 2_000_000;

/// Fuel for each byte of the conversation on top, for long ones.
pub(super) const FUEL_PER_BYTE: u64 = 4;

/// Macros inside macros. A stack of 2 MiB, which threads have, holds more.
pub(super) const RECURSION: usize = 100;

/// Bytes of a template file. The longest real ones have 30 KB.
pub(super) const TEMPLATE_BYTES: u64 = 1 << 20;

/// Tags of a template, and bytes of one outside of strings. The parser goes down a
/// level for each `elif` and each operator; real templates have some hundreds.
pub(super) const TAGS: usize = 10_000;
pub(super) const TAG_BYTES: usize = 16_000;

/// The stack that so many levels need, with room to spare.
pub(super) const PARSER_STACK: usize = 128 << 20;

/// Pays for turning `value` into text, before it is done.
pub(super) fn pay(state: &State, value: &Value) -> Result<(), Error> {
    if value.as_str().is_some() {
        return Ok(());
    }
    let (_, left) = state.fuel_levels().unwrap_or((0, u64::MAX));
    let mut room = left.saturating_mul(64);
    measure(value, &mut room, 0)?;
    state.consume_fuel((left.saturating_mul(64) - room) / 64)
}

/// Takes what `value` costs as text from `room`: a step an item, and its bytes.
fn measure(value: &Value, room: &mut u64, depth: usize) -> Result<(), Error> {
    let cost = 64 + value.as_str().map_or(0, |text| text.len() as u64);
    *room = room
        .checked_sub(cost)
        .ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
    if depth > 200 {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                measure(&value.get_item(&key)?, room, depth + 1)?;
                measure(&key, room, depth + 1)?;
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                measure(&item, room, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}
