//! The resolvers of `${name:args}`: OmegaConf's `oc.*`, Hydra's `now` and
//! `hydra`, and arithmetic, which Hydra users otherwise write themselves.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::arithmetic;
use super::found::{Fail, Located, Step, fail, made};
use super::interpolate::Resolver;
use super::nearest;
use super::node::{Key, Node, Origin, Value};
use super::python;
use super::yaml_read;

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

/// Calls a resolver. `place` is where its interpolation is written.
pub(crate) fn call<'a>(
    resolver: &mut Resolver<'a>,
    name: &str,
    args: Vec<Node>,
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    match name {
        "oc.env" => env(&args),
        "oc.select" => select(resolver, &args, place),
        "oc.decode" => decode(resolver, &args, place),
        "oc.create" => create(resolver, &args),
        "oc.deprecated" => deprecated(resolver, &args, place),
        "oc.dict.keys" | "oc.dict.values" => dictionary(resolver, name, &args, place),
        "now" => now(resolver, &args),
        "python_version" => python_version(&args),
        "hydra" => match strings(name, &args, 1..=1)?[..] {
            [path] => resolver.hydra(path),
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
    resolver: &mut Resolver<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    count("oc.select", args, 1..=2)?;
    let Some(key) = args[0].as_str() else {
        return fail("oc.select takes a key");
    };
    let found = match resolver.select(key, place, false) {
        Err(Fail::NotContainer(_)) => None,
        other => other?,
    };
    match found {
        Some(found) if !found.node.is_missing() => Ok(found),
        _ => Ok(made(args.get(1).map_or(Value::Null, |d| d.value.clone()))),
    }
}

fn decode<'a>(
    resolver: &mut Resolver<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    count("oc.decode", args, 1..=1)?;
    match &args[0].value {
        Value::Null => Ok(made(Value::Null)),
        Value::Str(text) => resolver.decode(text, place),
        other => fail(format!(
            "oc.decode takes a string or null, not {}",
            python::repr(other)
        )),
    }
}

fn create<'a>(resolver: &Resolver<'a>, args: &[Node]) -> Result<Located<'a>, Fail> {
    count("oc.create", args, 1..=1)?;
    // An item takes two bytes and more to write.
    resolver.scope.spend(args[0].as_str().map_or(0, str::len))?;
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
    resolver: &mut Resolver<'a>,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    let args = strings("oc.deprecated", args, 1..=2)?;
    match resolver.select(args[0], place, false)? {
        Some(found) => Ok(found),
        None => fail(format!("oc.deprecated: there is no key '{}'", args[0])),
    }
}

fn dictionary<'a>(
    resolver: &mut Resolver<'a>,
    name: &str,
    args: &[Node],
    place: Option<&[Step]>,
) -> Result<Located<'a>, Fail> {
    let key = strings(name, args, 1..=1)?[0];
    let Some(found) = resolver.select(key, place, true)? else {
        return fail(format!("{name}: there is no key '{key}'"));
    };
    let Value::Map(map) = &found.node.value else {
        return fail(format!(
            "{name} takes the key of a dict, '{key}' is {}",
            found.node.type_name()
        ));
    };
    resolver.scope.spend(map.len())?;
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
fn now<'a>(resolver: &Resolver<'a>, args: &[Node]) -> Result<Located<'a>, Fail> {
    let format = strings("now", args, 1..=1)?[0];
    // Python's %f is microseconds.
    let mut pattern = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        pattern.push(c);
        if c == '%' {
            match chars.next() {
                Some('f') => pattern.push_str("6f"),
                Some(next) => pattern.push(next),
                None => {}
            }
        }
    }
    let mut text = String::new();
    match write!(text, "{}", resolver.scope.now.format(&pattern)) {
        Ok(()) => Ok(made(Value::Str(text))),
        Err(_) => fail(format!("'{format}' is not a time format such as %Y-%m-%d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::scope::Scope;

    const CONFIG: &str = "a: {b: 5, s: str, l: [10, 20, {k: v}], n: null, f: 1.5, t: true, miss: '???'}\n\
        key: b\nidx: 1\ntop: 9\nx: {sib: 8, q: {w: 1}, y: {sib: 7, z: PLACE}}\n";

    /// What `text` gives at `x.y.z`, as JSON.
    fn resolved(text: &str) -> Result<String, String> {
        let path = Arc::new(PathBuf::from("r.yaml"));
        let quoted = format!("'{}'", text.replace('\'', "''"));
        let yaml = CONFIG.replace("PLACE", &quoted);
        let root = yaml_read::read_yaml(&yaml, &path).map_err(|p| p.to_string())?;
        let scope = Scope::new(chrono::Local::now());
        let mut resolver = Resolver::new(&root, None, &scope);
        let join = |problems: Vec<crate::compose::Problem>| {
            let lines: Vec<String> = problems.iter().map(|p| p.to_string()).collect();
            lines.join("; ")
        };
        let node = resolver.resolve_all().map_err(join)?;
        let value = node.select("x.y.z").map(|n| n.to_json().to_string());
        Ok(value.unwrap_or_default())
    }

    #[test]
    fn what_a_resolver_makes_comes_from_lines_of_the_config() {
        let yaml = "d:\n  a: 1\n  b: ${n}\n  c: [x]\nn: 2\n\
            values: ${oc.dict.values:d}\n\
            keys: ${oc.dict.keys:d}\n\
            made: ${oc.create:[1,${d.c}]}\n\
            read: \"${oc.create:'p: [1]'}\"\n\
            decoded: \"${oc.decode:'{q: [1]}'}\"\n";
        let path = Arc::new(PathBuf::from("r.yaml"));
        let root = yaml_read::read_yaml(yaml, &path).expect("valid");
        let scope = Scope::new(chrono::Local::now());
        let resolved = Resolver::new(&root, None, &scope).resolve_all();
        let resolved = resolved.expect("resolves");
        for (key, line) in [
            ("values", 6),
            ("values.0", 2),
            ("values.1", 3),
            ("values.2", 4),
            ("values.2.0", 4),
            ("keys", 7),
            ("keys.2", 4),
            ("made", 8),
            ("made.0", 8),
            ("made.1", 4),
            ("read", 9),
            ("read.p.0", 9),
            ("decoded.q.0", 10),
        ] {
            let origin = &resolved.select(key).expect(key).origin;
            assert_eq!(origin.to_string(), format!("r.yaml:{line}"), "{key}");
        }
    }

    /// Appendix F of the measured OmegaConf behaviour.
    #[test]
    fn interpolations_give_what_omegaconf_gives() {
        for (text, expected) in [
            ("${a.b}", "5"),
            ("pre_${a.b}_post", r#""pre_5_post""#),
            ("${.sib}", "7"),
            ("${..sib}", "8"),
            ("${...top}", "9"),
            ("${a.l[0]}", "10"),
            ("${a[l][2][k]}", r#""v""#),
            ("${a.${key}}", "5"),
            ("n=${a.n}", r#""n=None""#),
            ("v${a.t}", r#""vTrue""#),
            ("v${a.l}", r#""v[10, 20, {'k': 'v'}]""#),
            (r"\${a.b}", r#""${a.b}""#),
            (r"\\${a.b}", r#""\\5""#),
            ("${ a.b }", "5"),
            ("${a.miss}", r#""???""#),
            ("x${a.miss}", r#""???""#),
            ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE,3}", r#""3""#),
            ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE,null}", "null"),
            ("${oc.decode:null}", "null"),
            ("${oc.decode:'{a:1,b:[x]}'}", r#"{"a":1,"b":["x"]}"#),
            ("${oc.select:a.zz}", "null"),
            ("${oc.select:a.b.c,def}", r#""def""#),
            ("${oc.select:a.miss,def}", r#""def""#),
            ("${oc.select:..sib}", "8"),
            ("${oc.create:[1,${a.b}]}", "[1,5]"),
            ("${oc.dict.keys:x.q}", r#"["w"]"#),
            ("${oc.dict.values:x.q}", "[1]"),
            ("${oc.deprecated:a.b}", "5"),
            ("${mul:3,${a.b}}", "15"),
            ("${python_version:}", r#""3.11""#),
            ("${python_version:micro}", r#""3.11.7""#),
            ("${python_version:nano}", "null"),
            (
                "${oc.create:[99999999999999999999]}",
                r#"["99999999999999999999"]"#,
            ),
            ("${min:2,1.5}", "1.5"),
            ("${round:2.345,2}", "2.35"),
        ] {
            assert_eq!(resolved(text), Ok(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn failures_say_what_and_where() {
        for (text, part) in [
            ("${nope}", "'nope' not found"),
            ("${topp}", "did you mean 'top'?"),
            ("${a.b.c}", "leads nowhere"),
            ("${......a}", "above the top"),
            ("${x.y.z}", "leads back to itself"),
            ("${x}", "holds the interpolation itself"),
            ("${a.l[${idx}]}", "must give a string"),
            ("${a.l.k}", "only numbers"),
            ("${oc.env:KILN_TEST_NO_SUCH_VARIABLE}", "is not set"),
            ("${oc.decode:'[1'}", "cannot be decoded"),
            ("${oc.dict.values:a.l}", "is list"),
            ("${oc.evn:A}", "did you mean 'oc.env'?"),
            ("${hydra:job.name}", "once the config is composed"),
            ("${now:}", "takes 1 arguments"),
            ("${div:1,0}", "division of 1 by zero"),
            ("${mul:3,a}", "takes numbers"),
        ] {
            let message = resolved(text).expect_err(text);
            assert!(
                message.contains(part) && message.starts_with("r.yaml:"),
                "{text}: {message}"
            );
        }
    }
}
