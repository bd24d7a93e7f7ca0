//! From overrides to cells: the cartesian product of what each one stands for.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::compose::error::{Error, Problem};
use crate::compose::grammar::overrides::Override;
use crate::compose::grammar::sweeps::Sweep;
use crate::compose::grammar::values::Parsed;
use crate::compose::node::Origin;

/// A sweep with more cells than this is refused.
const MAX_CELLS: usize = 100_000;
/// The texts of all cells together may have this many bytes.
const MAX_BYTES: usize = 256 << 20;

/// One cell of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Its overrides, none of them swept.
    pub overrides: Vec<String>,
    /// The value of each swept key, as an override would write it.
    pub values: Vec<String>,
}

/// One way in which cells differ: a key with its values, or several keys that
/// advance together.
pub(super) struct Dimension {
    /// The keys with their prefix (`+`), as overrides of the same thing are recognised.
    pub keys: Vec<String>,
    /// Those of the keys that are swept, without their prefix.
    pub swept: Vec<String>,
    /// At each position the overrides and the swept values.
    pub positions: Vec<Cell>,
    /// Where the first key was written.
    pub origin: Origin,
    /// Where each key was written, if not on the command line.
    pub written: Vec<Option<Origin>>,
}

/// The options of a group; `None` where it is none.
type Options<'o> = dyn Fn(&str) -> Option<Vec<String>> + 'o;

/// Each override as a dimension, in order; of two with the same key the later
/// one counts, in the place of the first. Edits of a list count one after another.
pub(super) fn dimensions(
    overrides: &[Override],
    options: &Options,
) -> Result<Vec<Dimension>, Error> {
    let mut dimensions = IndexMap::new();
    // The keys with edits among the dimensions.
    let mut edited = HashSet::new();
    let mut problems = Vec::new();
    for (index, one) in overrides.iter().enumerate() {
        match positions(one, options) {
            Ok(positions) => {
                let is_swept = matches!(one.value, Parsed::Sweep(_));
                let dimension = Dimension {
                    keys: vec![one.key_element()],
                    swept: is_swept.then(|| one.bare_key()).into_iter().collect(),
                    positions,
                    origin: one.origin(),
                    written: vec![one.written.clone()],
                };
                let key = one.key_element();
                // No key has a space.
                let edits = format!("{key} ");
                if one.edits_list() {
                    edited.insert(key);
                    dimensions.insert(format!("{edits}{index}"), dimension);
                } else {
                    if edited.remove(&key) {
                        dimensions.retain(|slot: &String, _| !slot.starts_with(&edits));
                    }
                    dimensions.insert(key, dimension);
                }
            }
            Err(message) => problems.push(Problem::new(message).at(&one.origin())),
        }
    }
    if problems.is_empty() {
        Ok(dimensions.into_values().collect())
    } else {
        Err(Error::new(problems))
    }
}

/// What one override stands for.
fn positions(one: &Override, options: &Options) -> Result<Vec<Cell>, String> {
    let key = one.key_element();
    let fixed = |text: String| {
        let overrides = vec![text];
        Ok(vec![Cell {
            overrides,
            values: Vec::new(),
        }])
    };
    let sweep = match &one.value {
        // Hydra writes the value that is not there, in names of directories too.
        Parsed::Nothing => return fixed(format!("{key}=null")),
        Parsed::Element(element) => return fixed(format!("{key}={}", element.to_text())),
        Parsed::Sweep(sweep) => sweep,
    };
    let names = match sweep {
        Sweep::Glob { .. } => options(&one.key).ok_or_else(|| {
            format!(
                "glob() chooses options of a group, and '{}' is no group",
                one.key
            )
        })?,
        _ => Vec::new(),
    };
    let values = sweep.values(&names)?;
    if values.is_empty() {
        return Err(format!("the sweep of '{}' has no values", one.key));
    }
    Ok(values
        .iter()
        .map(|value| {
            let text = value.to_text();
            Cell {
                overrides: vec![format!("{key}={text}")],
                values: vec![text],
            }
        })
        .collect())
}

/// The product of the dimensions, the last one fastest.
pub(super) fn expand(dimensions: &[Dimension]) -> Result<Vec<Cell>, Error> {
    let count = dimensions
        .iter()
        .try_fold(1usize, |product, d| product.checked_mul(d.positions.len()))
        .filter(|count| *count <= MAX_CELLS);
    let Some(count) = count else {
        return Err(
            Problem::new(format!("the sweep has more than {MAX_CELLS} cells"))
                .help("sweep fewer keys or fewer values at once")
                .into(),
        );
    };
    refuse_large(dimensions.iter().map(bytes).sum(), count)?;
    let cell = |num: usize| {
        let mut cell = Cell::default();
        let mut block = count;
        for dimension in dimensions {
            block /= dimension.positions.len();
            let position = &dimension.positions[num / block % dimension.positions.len()];
            cell.overrides.extend(position.overrides.iter().cloned());
            cell.values.extend(position.values.iter().cloned());
        }
        cell
    };
    Ok((0..count).map(cell).collect())
}

/// What a text takes in memory.
pub(super) fn bytes_of(text: &str) -> usize {
    text.len() + size_of::<String>()
}

/// What a cell has from a dimension, in the mean: every position stands in as
/// many cells as every other.
fn bytes(dimension: &Dimension) -> usize {
    let of_cell = |cell: &Cell| -> usize {
        let texts = cell.overrides.iter().chain(&cell.values);
        texts.map(|text| bytes_of(text)).sum()
    };
    let total: usize = dimension.positions.iter().map(of_cell).sum();
    total.div_ceil(dimension.positions.len().max(1))
}

/// Refuses cells whose texts fill the memory.
pub(super) fn refuse_large(bytes_of_one: usize, count: usize) -> Result<(), Error> {
    if bytes_of_one.saturating_mul(count) <= MAX_BYTES {
        return Ok(());
    }
    Err(Problem::new(format!(
        "the {count} cells of the sweep take more than {} MiB of text",
        MAX_BYTES >> 20
    ))
    .help("put long values into a config file")
    .into())
}

/// A problem for each override of `hydra` that is swept.
pub(super) fn refuse_swept(overrides: &[Override]) -> Vec<Problem> {
    overrides
        .iter()
        .filter(|one| matches!(one.value, Parsed::Sweep(_)))
        .map(|one| {
            Problem::new(format!("'{}': the keys of hydra cannot be swept", one.key))
                .at(&one.origin())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::compose::expand_sweep;

    fn cells(texts: &[&str]) -> Result<Vec<String>, String> {
        let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
        expand_sweep(&texts)
            .map(|cells| cells.iter().map(|cell| cell.join(" ")).collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_last_override_varies_fastest() {
        assert_eq!(
            cells(&["model=tiny,base", "x=5", "+seed=range(2)"]).expect("valid"),
            [
                "model=tiny x=5 +seed=0",
                "model=tiny x=5 +seed=1",
                "model=base x=5 +seed=0",
                "model=base x=5 +seed=1",
            ]
        );
    }

    #[test]
    fn values_are_written_so_that_they_read_back() {
        assert_eq!(
            cells(&["a='b,c',d e"]).expect("valid"),
            ["a='b,c'", r"a=d\ e"]
        );
        assert_eq!(
            cells(&["a=[1,2],{x:y}"]).expect("valid"),
            ["a=[1,2]", "a={x:y}"]
        );
        assert_eq!(
            cells(&["a={x:1,1:b,x:2,True:{}},y"]).expect("valid"),
            ["a={x:2,1:{}}", "a=y"]
        );
        assert_eq!(
            cells(&["~a", "hydra.run.dir=x"]).expect("valid"),
            ["hydra.run.dir=x ~a=null"]
        );
        assert_eq!(cells(&[]).expect("valid"), [""]);
    }

    #[test]
    fn of_two_equal_keys_the_later_counts() {
        assert_eq!(
            cells(&["+x=a,b", "y=1", "+x=c"]).expect("valid"),
            ["+x=c y=1"]
        );
    }

    #[test]
    fn edits_of_a_list_are_cells_and_add_up() {
        assert_eq!(
            cells(&["l=append(a),append(b)", "l=remove(c)"]).expect("valid"),
            ["l=append(a) l=remove(c)", "l=append(b) l=remove(c)"]
        );
        assert_eq!(
            cells(&["l=choice(append(a,1),prepend('x y'))"]).expect("valid"),
            ["l=append(a,1)", "l=prepend(x\\ y)"]
        );
        assert_eq!(
            cells(&["l=append(a)", "l=[b]", "l=append(c)"]).expect("valid"),
            ["l=[b] l=append(c)"]
        );
    }

    #[test]
    fn texts_that_only_quotes_can_carry_read_back() {
        let written = cells(&["k=json_str({a:1}),json_str([x])"]).expect("valid");
        assert_eq!(written, [r#"k='{"a": 1}'"#, r#"k='["x"]'"#]);
        assert_eq!(
            cells(&["k=choice('a#b',c)"]).expect("valid"),
            ["k='a#b'", "k=c"]
        );
        // Nothing is no item.
        for (text, cell) in [
            ("k=append({},'')", "k=append({},'')"),
            ("k=append({}, '')", "k=append({},'')"),
            ("k=str(['',a])", "k=['',a]"),
            ("k=str({a:''})", "k={a:''}"),
        ] {
            let written = cells(&[text]).expect("valid");
            assert_eq!(written, [cell], "{text}");
            assert_eq!(cells(&[&written[0]]).expect("valid"), [cell], "{text}");
        }
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        for (text, part) in [
            ("hydra.job.name=a,b", "cannot be swept"),
            ("a=interval(0,1)", "no list of values"),
            ("a=glob(*)", "no group"),
            ("a=range(5,0)", "no values"),
        ] {
            assert!(cells(&[text]).expect_err(text).contains(part), "{text}");
        }
        let both = cells(&["hydra.job.name=a,b", "a=range(5,0)"]).expect_err("bad");
        assert!(both.starts_with("2 problems"), "{both}");
        let big = ["a=range(1000)", "b=range(1000)", "c=range(1000)"];
        assert!(cells(&big).expect_err("too many").contains("cells"));
    }

    #[test]
    fn a_thousand_cells_come_in_order() {
        let made = cells(&["a=range(10)", "b=range(10)", "c=range(10)", "d=1"]).expect("valid");
        assert_eq!(made.len(), 1000);
        assert_eq!(made[987], "a=9 b=8 c=7 d=1");
    }
}
