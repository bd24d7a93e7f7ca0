//! `hydra.sweeper.zip`: swept keys that advance together. Hydra's basic sweeper
//! knows only products; a list of lists parses in its grammar and in YAML, so
//! that is how `[[lora.r,lora.alpha]]` is written.

use crate::compose::error::{Error, Problem};
use crate::compose::nearest;
use crate::compose::node::{Node, Origin};

use super::expand::{Cell, Dimension};

/// Joins the dimensions that `groups` names. The joined one takes the place of
/// the first of them in the order of the overrides.
///
/// # Errors
/// A key that is not swept or stands twice, a list of one key, keys with
/// different numbers of values.
pub(super) fn zipped(
    mut dimensions: Vec<Dimension>,
    groups: &Node,
) -> Result<Vec<Dimension>, Error> {
    let mut problems = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for group in groups.as_list().unwrap_or_default() {
        let keys: Vec<&str> = (group.as_list().unwrap_or_default().iter())
            .filter_map(Node::as_str)
            .collect();
        if keys.len() < 2 {
            problems.push(
                Problem::new(format!(
                    "hydra.sweeper.zip: the list [{}] has fewer than two keys",
                    keys.join(",")
                ))
                .at(&group.origin)
                .help("keys that advance together stand in one list: [[a,b]]"),
            );
            continue;
        }
        let twice = keys
            .iter()
            .enumerate()
            .find(|(index, key)| seen.iter().any(|s| s == *key) || keys[..*index].contains(*key));
        if let Some((_, key)) = twice {
            problems.push(
                Problem::new(format!("hydra.sweeper.zip names '{key}' twice")).at(&group.origin),
            );
            continue;
        }
        seen.extend(keys.iter().map(|key| key.to_string()));
        match places(&dimensions, &keys, &group.origin) {
            Ok(places) => join(&mut dimensions, places),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(dimensions)
    } else {
        Err(Error::new(problems))
    }
}

/// Where the keys stand among the dimensions, in the order of the overrides.
fn places(dimensions: &[Dimension], keys: &[&str], origin: &Origin) -> Result<Vec<usize>, Problem> {
    let mut places = Vec::new();
    for key in keys {
        let found = dimensions.iter().position(|dimension| {
            let has = |names: &[String]| names.iter().any(|name| name == key);
            has(&dimension.keys) || has(&dimension.swept)
        });
        let place = found.ok_or_else(|| {
            let swept = || dimensions.iter().flat_map(|d| &d.swept).map(String::as_str);
            let help = match nearest(key, swept()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("give its values: {key}=a,b"),
            };
            Problem::new(format!(
                "hydra.sweeper.zip names '{key}', which is not swept"
            ))
            .at(origin)
            .help(help)
        })?;
        places.push(place);
    }
    let count = |place: usize| dimensions[place].positions.len();
    for (key, place) in keys.iter().zip(&places).skip(1) {
        if count(*place) != count(places[0]) {
            return Err(Problem::new(format!(
                "hydra.sweeper.zip: '{}' has {} ({}), but '{key}' has {} ({})",
                keys[0],
                values(count(places[0])),
                dimensions[places[0]].origin,
                values(count(*place)),
                dimensions[*place].origin,
            ))
            .at(origin)
            .help("keys that advance together need as many values each"));
        }
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn values(count: usize) -> String {
    match count {
        1 => "1 value".to_string(),
        n => format!("{n} values"),
    }
}

/// Moves the dimensions at `places` (ascending) into the first of them.
fn join(dimensions: &mut Vec<Dimension>, places: Vec<usize>) {
    let Some((first, others)) = places.split_first() else {
        return;
    };
    let mut moved: Vec<Dimension> = others
        .iter()
        .rev()
        .map(|place| dimensions.remove(*place))
        .collect();
    moved.reverse();
    let target = &mut dimensions[*first];
    for other in moved {
        target.keys.extend(other.keys);
        target.swept.extend(other.swept);
        target.written.extend(other.written);
        for (cell, more) in target.positions.iter_mut().zip(other.positions) {
            let Cell { overrides, values } = more;
            cell.overrides.extend(overrides);
            cell.values.extend(values);
        }
    }
}
