//! Sweeps: the cartesian product of swept overrides, as Hydra's basic sweeper makes it.

use indexmap::IndexMap;

use super::composed::{Request, compose};
use super::error::{Error, Problem};
use super::grammar::overrides::{Override, Parsed};
use super::library::Library;
use super::node::{Key, Node, Value};

/// A sweep with more cells than this is refused.
const MAX_CELLS: usize = 100_000;
/// The texts of all cells together may have this many bytes.
const MAX_BYTES: usize = 256 << 20;

/// Every cell of a sweep as its own list of overrides. The last swept override
/// varies fastest; of two overrides with the same key the later one counts.
/// Overrides of `hydra.*` stand first in every cell, as typed.
///
/// # Errors
/// Bad overrides, a swept key of `hydra`, an interval or a glob (which needs
/// the options of a group, see [`sweep_cells`]), too many cells.
pub fn expand_sweep(overrides: &[String]) -> Result<Vec<Vec<String>>, Error> {
    expand(overrides, &|_| None)
}

/// The cells of a request with `hydra.sweeper.params` of its config before the
/// overrides, and with `glob(..)` over the options of groups.
///
/// # Errors
/// As [`expand_sweep`] and [`compose`].
pub fn sweep_cells(req: &Request) -> Result<Vec<Vec<String>>, Error> {
    let mut req = req.clone();
    req.multirun = true;
    let composed = compose(&req)?;
    let library = Library::new(composed.sources.get(1..).unwrap_or_default());
    let mut overrides = Vec::new();
    if let Some(params) = composed.resolve("hydra.sweeper.params")? {
        overrides = params_of(&params)?;
    }
    overrides.extend(req.overrides.iter().cloned());
    expand(&overrides, &|group| {
        library.has_group(group).then(|| library.options(group))
    })
}

/// `hydra.sweeper.params` as overrides: each key with its text.
fn params_of(params: &Node) -> Result<Vec<String>, Error> {
    let fault = |node: &Node| {
        Error::from(
            Problem::new("hydra.sweeper.params maps keys to swept values")
                .at(&node.origin)
                .help("write\n  params:\n    seed: 1,2,3"),
        )
    };
    match &params.value {
        Value::Null => Ok(Vec::new()),
        Value::Map(map) => map
            .iter()
            .map(|(key, node)| match (key, &node.value) {
                (Key::Str(_), Value::List(_) | Value::Map(_)) => Err(fault(node)),
                (Key::Str(key), Value::Null) => Ok(format!("{key}=null")),
                (Key::Str(key), value) => Ok(format!("{key}={}", super::python::to_str(value))),
                _ => Err(fault(node)),
            })
            .collect(),
        _ => Err(fault(params)),
    }
}

type Options<'o> = dyn Fn(&str) -> Option<Vec<String>> + 'o;

fn expand(texts: &[String], options: &Options) -> Result<Vec<Vec<String>>, Error> {
    let parsed = Override::parse_all(texts).map_err(Error::new)?;
    let mut fixed = Vec::new();
    let mut dimensions: IndexMap<String, Vec<String>> = IndexMap::new();
    let mut problems = Vec::new();
    for one in &parsed {
        let is_sweep = matches!(one.value, Parsed::Sweep(_));
        if one.is_hydra() && !is_sweep {
            fixed.push(one.input.clone());
            continue;
        }
        let result = if one.is_hydra() {
            Err(format!("'{}': the keys of hydra cannot be swept", one.key))
        } else {
            dimension(one, options)
        };
        match result {
            Ok(values) => {
                dimensions.insert(one.key_element(), values);
            }
            Err(message) => problems.push(Problem::new(message).at(&one.origin())),
        }
    }
    let cells = dimensions
        .values()
        .try_fold(1usize, |product, values| product.checked_mul(values.len()));
    match cells {
        Some(cells) if cells <= MAX_CELLS => {
            if bytes(cells, &fixed, &dimensions) > MAX_BYTES {
                problems.push(
                    Problem::new(format!(
                        "the {cells} cells of the sweep take more than {} MiB of text",
                        MAX_BYTES >> 20
                    ))
                    .help("put long values into a config file"),
                );
            }
        }
        _ => problems.push(
            Problem::new(format!("the sweep has more than {MAX_CELLS} cells"))
                .help("sweep fewer keys or fewer values at once"),
        ),
    }
    if !problems.is_empty() {
        return Err(Error::new(problems));
    }
    let mut cells = vec![fixed];
    for values in dimensions.values() {
        cells = cells
            .iter()
            .flat_map(|cell| {
                values.iter().map(|value| {
                    let mut cell = cell.clone();
                    cell.push(value.clone());
                    cell
                })
            })
            .collect();
    }
    Ok(cells)
}

/// What the overrides of all cells take, with what a string takes besides its text.
fn bytes(cells: usize, fixed: &[String], dimensions: &IndexMap<String, Vec<String>>) -> usize {
    let size = |text: &String| text.len() + size_of::<String>();
    let fixed: usize = fixed.iter().map(size).sum();
    // Every value of a dimension stands in as many cells as every other.
    let swept = dimensions.values().map(|values| {
        let total: usize = values.iter().map(size).sum();
        total.div_ceil(values.len().max(1))
    });
    swept
        .fold(fixed, usize::saturating_add)
        .saturating_mul(cells)
}

/// The overrides that one override stands for.
fn dimension(one: &Override, options: &Options) -> Result<Vec<String>, String> {
    let key = one.key_element();
    let sweep = match &one.value {
        Parsed::Nothing => return Ok(vec![one.input.clone()]),
        Parsed::Element(element) => return Ok(vec![format!("{key}={}", element.to_text())]),
        Parsed::Sweep(sweep) => sweep,
    };
    let names = match sweep {
        super::grammar::sweeps::Sweep::Glob { .. } => options(&one.key).ok_or_else(|| {
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
        .map(|value| format!("{key}={}", value.to_text()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            cells(&["~a", "hydra.run.dir=x"]).expect("valid"),
            ["hydra.run.dir=x ~a"]
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
    fn what_cannot_be_swept_is_refused() {
        for (text, part) in [
            ("hydra.job.name=a,b", "cannot be swept"),
            ("a=interval(0,1)", "no list of values"),
            ("a=glob(*)", "no group"),
            ("a=range(5,0)", "no values"),
        ] {
            assert!(cells(&[text]).expect_err(text).contains(part), "{text}");
        }
        let big = ["a=range(1000)", "b=range(1000)", "c=range(1000)"];
        assert!(cells(&big).expect_err("too many").contains("cells"));
    }
}
