//! The resolvers of `${name:args}`: OmegaConf's `oc.*`, Hydra's `now` and
//! `hydra`, and arithmetic, which Hydra users otherwise write themselves.

use std::path::PathBuf;
use std::sync::Arc;

use super::arithmetic;
use super::found::{Fail, Located, Step, fail, made};
use super::nearest;
use super::node::{Key, Node, Origin, Value};
use super::python;
use super::scope::Scope;
use super::strftime::strftime;
use super::yaml_read;

/// What a resolver asks of the config that its interpolation stands in.
pub(crate) trait Config<'a> {
    /// What all resolving of this composition shares.
    fn scope(&self) -> &'a Scope;

    /// The node that a key names, seen from the node at `place`; `None` where there is none.
    ///
    /// # Errors
    /// A key that cannot be followed; with `mandatory` also a `???` on the way.
    fn select(
        &mut self,
        key: &str,
        place: Option<&[Step]>,
        mandatory: bool,
    ) -> Result<Option<Located<'a>>, Fail>;

    /// One typed value from text, as the grammar of interpolations reads it.
    ///
    /// # Errors
    /// Text that is no value.
    fn decode(&mut self, text: &str, place: Option<&[Step]>) -> Result<Located<'a>, Fail>;

    /// The value of `${hydra:path}`; null where there is none.
    ///
    /// # Errors
    /// While composing, when there is no `hydra` yet; what cannot be resolved.
    fn hydra(&mut self, path: &str) -> Result<Located<'a>, Fail>;
}

const NAMES: [&str; 10] = [
    "hydra",
    "now",
    "oc.create",
    "oc.decode",
    "oc.deprecated",
    "oc.dict.keys",
    "oc.dict.values",
    "oc.env",
    "oc.select",
    "python_version",
];

/// Calls a config. `place` is where its interpolation is written.
pub(crate) fn call<'a>(
    config: &mut impl Config<'a>,
    name: &str,
    args: Vec<Node>,
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    match name {
        "oc.env" => env(&args),
        "oc.select" => select(config, &args, place),
        "oc.decode" => decode(config, &args, place),
        "oc.create" => create(config, &args),
        "oc.deprecated" => deprecated(config, &args, place),
        "oc.dict.keys" | "oc.dict.values" => dictionary(config, name, &args, place),
        "now" => now(config, &args),
        "python_version" => python_version(&args),
        "hydra" => match strings(name, &args, 1..=1)?[..] {
            [path] => config.hydra(path),
            _ => fail("hydra takes one path"),
        },
        _ if arithmetic::NAMES.contains(&name) => arithmetic::call(name, &args).map(made),
        _ => {
            let mut known: Vec<&str> = NAMES.into_iter().chain(arithmetic::NAMES).collect();
            known.sort_unstable();
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("; did you mean '{near}'?"),
                None => format!("; known are {}", known.join(", ")),
            };
            fail(format!("unknown resolver '{name}'{hint}"))
        }
    }
}

fn count(name: &str, args: &[Node], range: std::ops::RangeInclusive<usize>) -> Result<(), Fail> {
    if range.contains(&args.len()) {
        return Ok(());
    }
    let wanted = if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{} to {}", range.start(), range.end())
    };
    fail(format!(
        "{name} takes {wanted} arguments, got {}",
        args.len()
    ))
}

fn strings<'n>(
    name: &str,
    args: &'n [Node],
    range: std::ops::RangeInclusive<usize>,
) -> Result<Vec<&'n str>, Fail> {
    count(name, args, range)?;
    args.iter()
        .map(|arg| {
            arg.as_str().ok_or_else(|| {
                Fail::Other(format!(
                    "{name} takes a string, not {}",
                    python::repr(&arg.value)
                ))
            })
        })
        .collect()
}

fn env<'a>(args: &[Node]) -> Result<Located<'a>, Fail> {
    count("oc.env", args, 1..=2)?;
    let Some(key) = args[0].as_str() else {
        return fail("oc.env takes the name of an environment variable");
    };
    // Names with '=' or a zero byte cannot exist, and asking for them panics on some systems.
    let value = if key.is_empty() || key.contains(['=', '\0']) {
        None
    } else {
        std::env::var_os(key).map(|v| v.to_string_lossy().into_owned())
    };
    match (value, args.get(1)) {
        (Some(value), _) => Ok(made(Value::Str(value))),
        (None, Some(default)) if default.is_null() => Ok(made(Value::Null)),
        // A default becomes a string, as the variable would have been one.
        (None, Some(default)) => Ok(made(Value::Str(python::to_str(&default.value)))),
        (None, None) => fail(format!(
            "environment variable '{key}' is not set; set it or give a default: ${{oc.env:{key},default}}"
        )),
    }
}

fn select<'a>(
    config: &mut impl Config<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    count("oc.select", args, 1..=2)?;
    let Some(key) = args[0].as_str() else {
        return fail("oc.select takes a key");
    };
    let found = match config.select(key, place, false) {
        Err(Fail::NotContainer(_)) => None,
        other => other?,
    };
    match found {
        Some(found) if !found.node.is_missing() => Ok(found),
        _ => Ok(made(args.get(1).map_or(Value::Null, |d| d.value.clone()))),
    }
}

fn decode<'a>(
    config: &mut impl Config<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    count("oc.decode", args, 1..=1)?;
    match &args[0].value {
        Value::Null => Ok(made(Value::Null)),
        Value::Str(text) => config.decode(text, place),
        other => fail(format!(
            "oc.decode takes a string or null, not {}",
            python::repr(other)
        )),
    }
}

fn create<'a>(config: &impl Config<'a>, args: &[Node]) -> Result<Located<'a>, Fail> {
    count("oc.create", args, 1..=1)?;
    // An item takes two bytes and more to write.
    config.scope().spend(args[0].as_str().map_or(0, str::len))?;
    match &args[0].value {
        value @ (Value::Map(_) | Value::List(_)) => Ok(made(value.clone())),
        Value::Null => Ok(made(Value::Null)),
        Value::Str(text) => {
            let name = Arc::new(PathBuf::from("oc.create"));
            match yaml_read::read_yaml(text, &name) {
                Ok(mut node) => {
                    node.set_origin(&Origin::BuiltIn);
                    Ok(made(node.value))
                }
                Err(problem) => fail(problem.to_string()),
            }
        }
        other => fail(format!(
            "oc.create takes a list, a dict or YAML text, not {}",
            python::repr(other)
        )),
    }
}

/// The value under the new key. The message about the old one is checked, not printed here.
fn deprecated<'a>(
    config: &mut impl Config<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    let args = strings("oc.deprecated", args, 1..=2)?;
    match config.select(args[0], place, false)? {
        Some(found) => Ok(found),
        None => fail(format!("oc.deprecated: there is no key '{}'", args[0])),
    }
}

fn dictionary<'a>(
    config: &mut impl Config<'a>,
    name: &str,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    let key = strings(name, args, 1..=1)?[0];
    let Some(found) = config.select(key, place, true)? else {
        return fail(format!("{name}: there is no key '{key}'"));
    };
    let Value::Map(map) = &found.node.value else {
        return fail(format!(
            "{name} takes the key of a dict, '{key}' is {}",
            found.node.type_name()
        ));
    };
    config.scope().spend(map.len())?;
    let item = |of: &Key| match of {
        // A reference stands one level deeper than the dots of the key count from.
        of if name == "oc.dict.values" => {
            let dot = if key.starts_with('.') { "." } else { "" };
            Value::Str(format!("${{{dot}{key}.{of}}}"))
        }
        Key::Str(s) => Value::Str(s.clone()),
        Key::Int(i) => Value::Int(*i),
        Key::BigInt(i) => Value::BigInt(i.clone()),
        Key::Bool(b) => Value::Bool(*b),
        Key::Float(bits) => Value::Float(f64::from_bits(*bits)),
    };
    // An item comes from the line of its entry.
    let items = map
        .iter()
        .map(|(of, entry)| Node::new(item(of), entry.origin.clone()))
        .collect();
    let mut list = made(Value::List(items));
    list.place = place.map(<[Step]>::to_vec);
    Ok(list)
}

/// The Python whose ways of reading and printing values the composer follows: no Python runs it.
fn python_version<'a>(args: &[Node]) -> Result<Located<'a>, Fail> {
    count("python_version", args, 0..=1)?;
    let version = match args.first().map(|level| &level.value) {
        None => "3.11",
        Some(Value::List(_) | Value::Map(_)) => {
            return fail("python_version takes major, minor or micro");
        }
        Some(level) => match python::to_str(level).as_str() {
            "major" => "3",
            "minor" => "3.11",
            "micro" => "3.11.7",
            _ => return Ok(made(Value::Null)),
        },
    };
    Ok(made(Value::Str(version.to_string())))
}

/// The time of composition in Python's `strftime` form, the same all over the config.
fn now<'a>(config: &impl Config<'a>, args: &[Node]) -> Result<Located<'a>, Fail> {
    let format = strings("now", args, 1..=1)?[0];
    match strftime(&config.scope().now, format) {
        Some(text) => Ok(made(Value::Str(text))),
        None => fail(format!("'{format}' is not a time format such as %Y-%m-%d")),
    }
}
