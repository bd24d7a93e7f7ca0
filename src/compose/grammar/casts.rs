//! The casts of the override grammar: `int float str bool`, which map over lists, dicts
//! and sweeps, and `json_str`, which takes a value whole.

use super::arguments::{Arg, Args, simple_choice};
use super::element::Element;
use super::sweeps::{Number, Sweep};
use crate::compose::big_int;
use crate::compose::node::Origin;
use crate::compose::{numbers, python};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cast {
    Int,
    Float,
    Str,
    Bool,
    /// The value as one string of JSON.
    Json,
}

/// `int(value)` and the others; several values are a sweep of casts.
pub(super) fn cast_call(args: &mut Args, cast: Cast) -> Result<Arg, String> {
    let value = match (args.named("value"), args.positional.len()) {
        (Some(_), 1..) => {
            return Err(format!(
                "{}() takes its value by position or by name, not both",
                args.function
            ));
        }
        // Python cannot tell this null from no argument.
        (Some(Arg::Element(Element::Null)), 0) if cast == Cast::Bool => {
            return Err("bool() needs a value".to_string());
        }
        (Some(value), 0) => value,
        (None, 0) => return Err(format!("{}() needs a value", args.function)),
        (None, 1) => args.positional.remove(0),
        (None, _) => simple_choice(args.elements()?),
    };
    match value {
        Arg::Element(element) => Ok(Arg::Element(cast_element(&element, cast)?)),
        Arg::Sweep(sweep) => Ok(Arg::Sweep(cast_sweep(sweep, cast)?)),
    }
}

fn cast_element(element: &Element, cast: Cast) -> Result<Element, String> {
    let fault = |name: &str| format!("cannot cast {} to {name}", element.to_text());
    match element {
        Element::Edit(edit) => Err(edit.misplaced("a cast")),

        Element::List(items) if cast != Cast::Json => Ok(Element::List(
            items
                .iter()
                .map(|item| cast_element(item, cast))
                .collect::<Result<_, _>>()?,
        )),
        Element::Dict(pairs) if cast != Cast::Json => Ok(Element::Dict(
            pairs
                .iter()
                .map(|(k, v)| Ok((k.clone(), cast_element(v, cast)?)))
                .collect::<Result<_, String>>()?,
        )),
        // As in Python, null is false, and neither a number nor a string.
        Element::Null if !matches!(cast, Cast::Json | Cast::Bool) => {
            Err("cannot cast null".to_string())
        }
        _ => match cast {
            Cast::Int => match element {
                Element::Float(f) => big_int::truncated(*f).map(Element::int),
                Element::Int(_) | Element::BigInt(_) => Some(element.clone()),
                Element::Bool(b) => Some(Element::Int(i64::from(*b))),
                Element::Str(text) | Element::Quoted { text, .. } => {
                    numbers::parse_int(text).map(Element::int)
                }
                _ => None,
            }
            .ok_or_else(|| fault("int")),
            Cast::Float => match element {
                Element::Float(f) => Ok(*f),
                Element::Int(i) => Ok(*i as f64),
                Element::BigInt(i) if i.to_f64().is_finite() => Ok(i.to_f64()),
                Element::Bool(b) => Ok(f64::from(u8::from(*b))),
                Element::Str(text) | Element::Quoted { text, .. } => {
                    numbers::parse_float(text).ok_or_else(|| fault("float"))
                }
                _ => Err(fault("float")),
            }
            .map(Element::Float),
            Cast::Str => Ok(Element::Str(match element {
                Element::Bool(b) => b.to_string(),
                Element::Str(text) | Element::Quoted { text, .. } => text.clone(),
                other => other.to_text(),
            })),
            Cast::Bool => match element {
                Element::Null => Ok(false),
                Element::Bool(b) => Ok(*b),
                Element::Int(i) => Ok(*i != 0),
                Element::BigInt(_) => Ok(true),
                Element::Float(f) => Ok(*f != 0.0),
                Element::Str(text) | Element::Quoted { text, .. } => {
                    match text.to_lowercase().as_str() {
                        "true" => Ok(true),
                        "false" => Ok(false),
                        _ => Err(fault("bool")),
                    }
                }
                _ => Err(fault("bool")),
            }
            .map(Element::Bool),
            // Lists, dicts and null come here whole.
            Cast::Json => Ok(Element::Quoted {
                text: python::json(&element.to_node(&Origin::BuiltIn)?.value),
                quote: '\'',
            }),
        },
    }
}

fn cast_sweep(sweep: Sweep, cast: Cast) -> Result<Sweep, String> {
    let number = |n: Number| match cast_element(&n.element(), cast)? {
        Element::Int(i) => Ok(Number::Int(i)),
        Element::Float(f) => Ok(Number::Float(f)),
        _ => Err("a range or interval can only be cast to int or float".to_string()),
    };
    match sweep {
        Sweep::Choice { values, simple, .. } => Ok(Sweep::Choice {
            values: values
                .iter()
                .map(|value| cast_element(value, cast))
                .collect::<Result<_, _>>()?,
            simple,
            shuffle: false,
        }),
        Sweep::Range {
            start, stop, step, ..
        } => Ok(Sweep::Range {
            start: number(start)?,
            stop: number(stop)?,
            step: number(step)?,
            shuffle: false,
        }),
        Sweep::Interval { start, end } => Ok(Sweep::Interval {
            start: number(start)?,
            end: number(end)?,
        }),
        Sweep::Glob { .. } => Err("a glob cannot be cast".to_string()),
    }
}
