//! The functions of the override grammar: sweeps, `sort`, `shuffle`, `tag`.
//! Casts are in [`super::casts`], edits of lists in [`super::edits`].

use std::cmp::Ordering;

use super::arguments::{Arg, Args, simple_choice};
use super::casts::{Cast, cast_call};
use super::edits;
use super::element::Element;
use super::sweeps::{Number, Sweep, shuffle_in_place};
use crate::compose::nearest;

const NAMES: [&str; 12] = [
    "bool", "choice", "float", "glob", "int", "interval", "json_str", "range", "shuffle", "sort",
    "str", "tag",
];

/// Calls `name(args, key=value)`.
///
/// # Errors
/// An unknown function or argument, a wrong number or type of arguments.
pub(crate) fn call(name: &str, args: Vec<Arg>, named: Vec<(String, Arg)>) -> Result<Arg, String> {
    let mut args = Args {
        function: name,
        positional: args.into_iter().map(unquote).collect(),
        named: named.into_iter().map(|(k, v)| (k, unquote(v))).collect(),
    };
    if name != "choice" {
        args.refuse_edits()?;
    }
    let result = match name {
        "int" => cast_call(&mut args, Cast::Int),
        "float" => cast_call(&mut args, Cast::Float),
        "str" => cast_call(&mut args, Cast::Str),
        "bool" => cast_call(&mut args, Cast::Bool),
        "json_str" => cast_call(&mut args, Cast::Json),
        "choice" => choice(&mut args),
        "range" => range(&mut args),
        "interval" => interval(&mut args),
        "glob" => glob(&mut args),
        "sort" => sort(&mut args),
        "shuffle" => shuffle(&mut args),
        "tag" => tag(&mut args),
        _ if !edits::names().any(|known| known == name) => return Err(unknown(name)),
        _ => edits::edit(name, &args.elements()?).map(|edit| Arg::Element(Element::Edit(edit))),
    }?;
    if let Some((extra, _)) = args.named.first() {
        let hint = match nearest(extra, argument_names(name).iter().copied()) {
            Some(near) => format!("; did you mean '{near}'?"),
            None => String::new(),
        };
        return Err(format!("{name}() has no argument '{extra}'{hint}"));
    }
    Ok(result)
}

fn unknown(name: &str) -> String {
    let mut names: Vec<&str> = NAMES.into_iter().chain(edits::names()).collect();
    names.sort_unstable();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}()? "),
        None => String::new(),
    };
    format!(
        "unknown function '{name}'; {hint}functions are {}",
        names.join(", ")
    )
}

/// The arguments that a function takes by name.
fn argument_names(function: &str) -> &'static [&'static str] {
    match function {
        "bool" | "float" | "int" | "json_str" | "str" => &["value"],
        "range" => &["start", "stop", "step"],
        "interval" => &["start", "end"],
        "glob" => &["include", "exclude"],
        "sort" => &["list", "sweep", "reverse"],
        "shuffle" => &["list", "sweep"],
        "tag" => &["sweep"],
        _ => &[],
    }
}

fn unquote(arg: Arg) -> Arg {
    match arg {
        Arg::Element(Element::Quoted { text, .. }) => Arg::Element(Element::Str(text)),
        other => other,
    }
}

fn choice(args: &mut Args) -> Result<Arg, String> {
    if let [Arg::Sweep(sweep)] = args.positional.as_slice() {
        return match sweep {
            Sweep::Choice {
                values,
                simple: true,
                shuffle,
            } => Ok(Arg::Sweep(Sweep::Choice {
                values: values.clone(),
                simple: false,
                shuffle: *shuffle,
            })),
            _ => Err("choice() cannot hold another sweep".to_string()),
        };
    }
    let values = args.elements()?;
    if values.is_empty() {
        return Err("choice() needs at least one value".to_string());
    }
    if values.contains(&Element::Null) {
        return Err("choice() cannot hold null".to_string());
    }
    Ok(Arg::Sweep(Sweep::Choice {
        values,
        simple: false,
        shuffle: false,
    }))
}

fn number(function: &str, arg: &Arg) -> Result<Number, String> {
    match arg {
        Arg::Element(Element::Int(i)) => Ok(Number::Int(*i)),
        Arg::Element(Element::Float(f)) => Ok(Number::Float(*f)),
        Arg::Element(Element::Bool(b)) => Ok(Number::Int(i64::from(*b))),
        Arg::Element(other) => Err(format!(
            "{function}() takes numbers, got {} '{}'",
            other.type_name(),
            other.to_text()
        )),
        Arg::Sweep(_) => Err(format!("{function}() takes numbers, got a sweep")),
    }
}

fn range(args: &mut Args) -> Result<Arg, String> {
    args.at_most(3)?;
    let start = args
        .get(0, "start")?
        .ok_or("range() needs a start or a stop")?;
    let start = number("range", &start)?;
    let stop = match args.get(1, "stop")? {
        // `stop=null` is the same as leaving it out.
        Some(Arg::Element(Element::Null)) | None => None,
        Some(stop) => Some(number("range", &stop)?),
    };
    let step = match args.get(2, "step")? {
        Some(step) => number("range", &step)?,
        None => Number::Int(1),
    };
    let (start, stop) = match stop {
        Some(stop) => (start, stop),
        None => (Number::Int(0), start),
    };
    Ok(Arg::Sweep(Sweep::Range {
        start,
        stop,
        step,
        shuffle: false,
    }))
}

fn interval(args: &mut Args) -> Result<Arg, String> {
    args.at_most(2)?;
    let start = args.get(0, "start")?.ok_or("interval() needs a start")?;
    let end = args.get(1, "end")?.ok_or("interval() needs an end")?;
    Ok(Arg::Sweep(Sweep::Interval {
        start: Number::Float(number("interval", &start)?.as_f64()),
        end: Number::Float(number("interval", &end)?.as_f64()),
    }))
}

fn glob(args: &mut Args) -> Result<Arg, String> {
    args.at_most(2)?;
    let include = args.get(0, "include")?.ok_or("glob() needs a pattern")?;
    let exclude = args.get(1, "exclude")?;
    let patterns = |arg: Arg| match arg {
        Arg::Element(Element::Str(text)) => Ok(vec![text]),
        Arg::Element(Element::List(items)) => items
            .into_iter()
            .map(|item| match item {
                Element::Str(text) | Element::Quoted { text, .. } => Ok(text),
                other => Err(format!("glob() takes strings, got {}", other.type_name())),
            })
            .collect(),
        _ => Err("glob() takes a string or a list of strings".to_string()),
    };
    Ok(Arg::Sweep(Sweep::Glob {
        include: patterns(include)?,
        exclude: match exclude {
            None | Some(Arg::Element(Element::Null)) => Vec::new(),
            Some(exclude) => patterns(exclude)?,
        },
    }))
}

/// The single thing that `sort` and `shuffle` work on, by position or by name.
fn subject(args: &mut Args) -> Result<Arg, String> {
    let by_name = args.named("list").or_else(|| args.named("sweep"));
    match (by_name, args.positional.len()) {
        (Some(arg), _) => Ok(arg),
        (None, 0) => Err(format!("{}() needs values", args.function)),
        (None, 1) => Ok(args.positional.remove(0)),
        (None, _) => {
            let values = args.elements()?;
            Ok(simple_choice(values))
        }
    }
}

fn sort(args: &mut Args) -> Result<Arg, String> {
    let reverse = match args.named("reverse") {
        None => false,
        Some(Arg::Element(Element::Bool(b))) => b,
        Some(_) => return Err("sort(): reverse is true or false".to_string()),
    };
    match subject(args)? {
        Arg::Element(Element::List(items)) => {
            Ok(Arg::Element(Element::List(sorted(items, reverse)?)))
        }
        Arg::Element(other) => Ok(Arg::Element(other)),
        Arg::Sweep(Sweep::Choice {
            values,
            simple,
            shuffle,
        }) => Ok(Arg::Sweep(Sweep::Choice {
            values: sorted(values, reverse)?,
            simple,
            shuffle,
        })),
        Arg::Sweep(Sweep::Range {
            start,
            stop,
            step,
            shuffle,
        }) => {
            let (start, stop, step) = sorted_range(start, stop, step, reverse)?;
            Ok(Arg::Sweep(Sweep::Range {
                start,
                stop,
                step,
                shuffle,
            }))
        }
        Arg::Sweep(_) => Err("sort() takes values, a list, a choice or a range".to_string()),
    }
}

/// The same values in the other direction, where they run against the one asked for.
fn sorted_range(
    start: Number,
    stop: Number,
    step: Number,
    reverse: bool,
) -> Result<(Number, Number, Number), String> {
    let against = if reverse {
        start.as_f64() < stop.as_f64()
    } else {
        start.as_f64() > stop.as_f64()
    };
    if !against {
        return Ok((start, stop, step));
    }
    let fault = || "the range leaves 64 bits".to_string();
    let shift = |n: Number| match (n, step) {
        (Number::Int(n), Number::Int(step)) => {
            let size = step.checked_abs().ok_or_else(fault)?;
            let size = if reverse { -size } else { size };
            n.checked_add(size).map(Number::Int).ok_or_else(fault)
        }
        _ => {
            let size = step.as_f64().abs();
            let size = if reverse { -size } else { size };
            Ok(Number::Float(n.as_f64() + size))
        }
    };
    let step_back = match step {
        Number::Int(step) => Number::Int(step.checked_neg().ok_or_else(fault)?),
        Number::Float(step) => Number::Float(-step),
    };
    Ok((shift(stop)?, shift(start)?, step_back))
}

fn sorted(mut items: Vec<Element>, reverse: bool) -> Result<Vec<Element>, String> {
    let number = |e: &Element| match e {
        Element::Int(i) => Some(*i as f64),
        Element::BigInt(i) => Some(i.to_f64()),
        Element::Float(f) => Some(*f),
        Element::Bool(b) => Some(f64::from(u8::from(*b))),
        _ => None,
    };
    let text = |e: &Element| match e {
        Element::Str(text) | Element::Quoted { text, .. } => Some(text.clone()),
        _ => None,
    };
    let numbers = items.iter().all(|e| number(e).is_some());
    if !numbers && !items.iter().all(|e| text(e).is_some()) {
        return Err("sort() takes values that compare: all numbers or all strings".to_string());
    }
    items.sort_by(|a, b| {
        let order = if numbers {
            number(a).partial_cmp(&number(b)).unwrap_or(Ordering::Equal)
        } else {
            text(a).cmp(&text(b))
        };
        if reverse { order.reverse() } else { order }
    });
    Ok(items)
}

fn shuffle(args: &mut Args) -> Result<Arg, String> {
    match subject(args)? {
        Arg::Element(Element::List(mut items)) => {
            shuffle_in_place(&mut items);
            Ok(Arg::Element(Element::List(items)))
        }
        Arg::Element(other) => Ok(Arg::Element(Element::List(vec![other]))),
        Arg::Sweep(Sweep::Choice { values, simple, .. }) => Ok(Arg::Sweep(Sweep::Choice {
            values,
            simple,
            shuffle: true,
        })),
        Arg::Sweep(Sweep::Range {
            start, stop, step, ..
        }) => Ok(Arg::Sweep(Sweep::Range {
            start,
            stop,
            step,
            shuffle: true,
        })),
        Arg::Sweep(_) => Err("shuffle() takes values, a list, a choice or a range".to_string()),
    }
}

/// Tags are for sweepers that use them; the product sweep does not, so they are only checked.
fn tag(args: &mut Args) -> Result<Arg, String> {
    let sweep = match args.named("sweep") {
        Some(sweep) => Some(sweep),
        None => args.positional.pop(),
    };
    let Some(Arg::Sweep(sweep)) = sweep else {
        return Err("the last argument of tag() is a choice(), range() or interval()".to_string());
    };
    for tag in &args.positional {
        if !matches!(tag, Arg::Element(Element::Str(_))) {
            return Err("the tags of tag() are strings".to_string());
        }
    }
    Ok(Arg::Sweep(sweep))
}

#[cfg(test)]
mod tests {
    use crate::compose::grammar::overrides::Override;
    use crate::compose::grammar::values::Parsed;

    fn values(text: &str) -> Result<Vec<String>, String> {
        let parsed = Override::parse(&format!("k={text}")).map_err(|f| f.message)?;
        match parsed.value {
            Parsed::Element(element) => Ok(vec![format!("={}", element.to_text())]),
            Parsed::Sweep(sweep) => {
                let names = ["a1".to_string(), "b2".to_string()];
                Ok(sweep.values(&names)?.iter().map(|e| e.to_text()).collect())
            }
            Parsed::Nothing => Ok(vec![]),
        }
    }

    #[test]
    fn casts_map_over_what_they_get() {
        for (text, expected) in [
            ("int(3.9)", vec!["=3"]),
            ("int('3')", vec!["=3"]),
            ("int([1.5,true])", vec!["=[1,1]"]),
            ("float(1,2)", vec!["1.0", "2.0"]),
            ("str({a:1})", vec!["={a:1}"]),
            ("bool('true')", vec!["=True"]),
            ("bool(null)", vec!["=False"]),
            ("bool([null,1])", vec!["=[False,True]"]),
            ("bool(null,1)", vec!["False", "True"]),
            ("int(range(0.0,3.0))", vec!["0", "1", "2"]),
            ("int(value=2.5)", vec!["=2"]),
        ] {
            assert_eq!(
                values(text),
                Ok(expected.iter().map(|s| s.to_string()).collect()),
                "{text}"
            );
        }
        for text in [
            "int(abc)",
            "bool(yes)",
            "bool(value=null)",
            "str(null)",
            "int()",
            "str(interval(0,1))",
            "int(null)",
        ] {
            assert!(values(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sweeps_sort_and_select() {
        for (text, expected) in [
            ("sort(3,1,2)", vec!["1", "2", "3"]),
            ("sort([3,1,2])", vec!["=[1,2,3]"]),
            ("sort(3,1,2,reverse=true)", vec!["3", "2", "1"]),
            ("sort(choice(c,a))", vec!["a", "c"]),
            ("sort(range(3),reverse=true)", vec!["2", "1", "0"]),
            ("choice([a,b])", vec!["[a,b]"]),
            ("tag(x,choice(1,2))", vec!["1", "2"]),
            ("glob(*)", vec!["a1", "b2"]),
            ("glob([a*,b*],exclude=b*)", vec!["a1"]),
            ("range(start=1,stop=5,step=2)", vec!["1", "3"]),
        ] {
            assert_eq!(
                values(text),
                Ok(expected.iter().map(|s| s.to_string()).collect()),
                "{text}"
            );
        }
        for text in [
            "choice()",
            "choice(null)",
            "choice(choice(a,b))",
            "interval(0,1)",
            "range(a)",
            "range(1,2,3,4)",
            "range(1,start=2)",
            "sort(a,1)",
            "tag(a)",
            "foo(1)",
            "choice(a,b=2)",
        ] {
            assert!(values(text).is_err(), "{text}");
        }
        let message = values("chioce(a)").expect_err("unknown");
        assert!(message.contains("did you mean choice()"), "{message}");
    }
}
