//! `key=append(..)`, `key=prepend(..)`, `key=remove(..)`: changes to the list a key holds.

use super::error::Problem;
use super::found::{Step, at, at_mut, dotted};
use super::grammar::element::{How, ListEdit};
use super::interpolate::Resolver;
use super::nearest;
use super::node::{Key, MAX_LEVELS, Node, Origin, Value, list_index};
use super::python;
use super::scope::Scope;

/// The place of the list that a key names. `None` if there is no such key.
///
/// # Errors
/// The key is no list, or stands for one by an interpolation.
pub(crate) fn find(
    root: &Node,
    steps: &[String],
    edit: &ListEdit,
    scope: &Scope,
) -> Result<Option<Vec<Step>>, Problem> {
    let mut place: Vec<Step> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        place.push(match at(root, &place).map(|node| &node.value) {
            Some(Value::Map(_)) => Step::Key(Key::from(step.as_str())),
            Some(Value::List(items)) => match list_index(step, items.len()) {
                Some(index) => Step::Index(index),
                None => return Ok(None),
            },
            _ => return Ok(None),
        });
        let Some(node) = at(root, &place) else {
            return Ok(None);
        };
        if node.is_interpolation() {
            return Err(interpolated(
                root,
                &place,
                &steps[index + 1..],
                node,
                edit,
                scope,
            ));
        }
    }
    let key = dotted(&place);
    match at(root, &place) {
        Some(node) if matches!(node.value, Value::List(_)) => Ok(Some(place)),
        Some(node) => {
            let found = match &node.value {
                Value::Null => "null".to_string(),
                Value::Map(_) => "a dict".to_string(),
                value => format!("{} {}", node.type_name(), python::repr(value)),
            };
            Err(Problem::new(format!(
                "{}() edits a list, and '{key}' is {found}",
                edit.function
            ))
            .help(format!("give the whole list: {key}=[..]")))
        }
        None => Ok(None),
    }
}

/// An interpolation stands where the list, or something on the way to it, should be.
fn interpolated(
    root: &Node,
    place: &[Step],
    rest: &[String],
    node: &Node,
    edit: &ListEdit,
    scope: &Scope,
) -> Problem {
    let path = dotted(place);
    let key = [std::slice::from_ref(&path), rest].concat().join(".");
    let text = node.as_str().unwrap_or_default();
    let target = Resolver::new(root, None, scope)
        .text(text, Some(place))
        .ok()
        .and_then(|found| found.place)
        .map(|target| [&[dotted(&target)], rest].concat().join("."));
    let there = match target {
        Some(target) => format!("edit '{target}', which it stands for, or "),
        None => String::new(),
    };
    Problem::new(format!(
        "{}() edits a list where it is written, and '{path}' is the interpolation {text}",
        edit.function
    ))
    .help(format!("{there}give the whole list: {key}=[..]"))
}

/// Carries the edit out on the list at `place`.
///
/// # Errors
/// A value to remove that the list does not have.
pub(crate) fn carry_out(
    root: &mut Node,
    place: &[Step],
    edit: &ListEdit,
    origin: &Origin,
) -> Result<(), Problem> {
    let new = edit
        .items
        .iter()
        .map(|item| item.to_node(origin))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Problem::new)?;
    let levels = new.iter().map(Node::levels).max().unwrap_or(0);
    if place.len() + 1 + levels > MAX_LEVELS {
        return Err(Problem::new(format!(
            "'{}' would have more than {MAX_LEVELS} levels",
            dotted(place)
        )));
    }
    let Some(Value::List(items)) = at_mut(root, place).map(|node| &mut node.value) else {
        return Ok(());
    };
    match edit.how {
        How::Append => items.extend(new),
        How::Prepend => drop(items.splice(0..0, new)),
        How::Remove => {
            let absent: Vec<&Node> = new
                .iter()
                .filter(|one| {
                    !items
                        .iter()
                        .any(|item| python::equal(&item.value, &one.value))
                })
                .collect();
            if !absent.is_empty() {
                return Err(not_there(&dotted(place), items, &absent));
            }
            items.retain(|item| !new.iter().any(|one| python::equal(&item.value, &one.value)));
        }
    }
    Ok(())
}

fn not_there(key: &str, items: &[Node], absent: &[&Node]) -> Problem {
    let list = |texts: Vec<String>| texts.join(", ");
    let text = |node: &Node| python::repr(&node.value);
    let strings: Vec<&str> = items.iter().filter_map(Node::as_str).collect();
    let near: String = absent
        .iter()
        .filter_map(|one| nearest(one.as_str()?, strings.iter().copied()))
        .map(|near| format!("did you mean '{near}'?\n"))
        .collect();
    let holds = if items.is_empty() {
        "it is empty".to_string()
    } else {
        format!("it holds {}", list(items.iter().map(text).collect()))
    };
    Problem::new(format!(
        "cannot remove {} from '{key}': not in the list",
        list(absent.iter().map(|one| text(one)).collect())
    ))
    .help(format!("{near}{holds}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::grammar::element::Element;
    use crate::compose::grammar::overrides::Override;
    use crate::compose::grammar::values::Parsed;
    use crate::compose::yaml_read::read_yaml;

    fn edited(text: &str) -> Result<String, String> {
        let config = "l: [a, b, a]\nd: {n: [1, 2.0]}\nw: all\nz: null\nr: ${l}\ns: ${d}\ne: []\n";
        let path = std::sync::Arc::new(std::path::PathBuf::from("l.yaml"));
        let mut root = read_yaml(config, &path).map_err(|p| p.to_string())?;
        let one = Override::parse(text).map_err(|f| f.message)?;
        let Parsed::Element(Element::Edit(edit)) = &one.value else {
            return Err("no edit".to_string());
        };
        let steps: Vec<String> = one.key.split('.').map(str::to_string).collect();
        let place = find(&root, &steps, edit, &Scope::new(chrono::Local::now()))
            .map_err(|p| p.to_string())?
            .ok_or("no such key")?;
        carry_out(&mut root, &place, edit, &one.origin()).map_err(|p| p.to_string())?;
        let node = at(&root, &place).map(Node::to_json);
        Ok(node.map(|json| json.to_string()).unwrap_or_default())
    }

    #[test]
    fn lists_grow_and_shrink() {
        for (text, expected) in [
            ("l=append(c)", r#"["a","b","a","c"]"#),
            ("l=extend_list(c,[d])", r#"["a","b","a","c",["d"]]"#),
            ("l=prepend(x, y)", r#"["x","y","a","b","a"]"#),
            ("l=remove(a)", r#"["b"]"#),
            ("d.n=remove(2)", "[1]"),
            ("d.n=append({k:1},null)", r#"[1,2.0,{"k":1},null]"#),
            ("e=append('q')", r#"["q"]"#),
        ] {
            assert_eq!(edited(text), Ok(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, part) in [
            ("l=remove(c)", "cannot remove 'c' from 'l': not in the list"),
            (
                "l=remove(a,q,bb)",
                "did you mean 'b'?\n  it holds 'a', 'b', 'a'",
            ),
            ("e=remove(a)", "it is empty"),
            ("w=append(a)", "append() edits a list, and 'w' is str 'all'"),
            ("z=prepend(a)", "'z' is null\n  give the whole list: z=[..]"),
            ("d=append(a)", "'d' is a dict"),
            (
                "r=append(a)",
                "'r' is the interpolation ${l}\n  edit 'l', which",
            ),
            (
                "s.n=append(a)",
                "edit 'd.n', which it stands for, or give the whole list: s.n=[..]",
            ),
            ("q=append(a)", "no such key"),
            ("l.9.x=append(a)", "no such key"),
            ("l=append()", "needs at least one value"),
            ("l=append(choice(a,b))", "cannot hold a sweep"),
            ("l=[append(a)]", "cannot stand in a list"),
            ("l={k:append(a)}", "cannot stand in a dict"),
            ("l=append(remove(a))", "cannot stand in append()"),
            ("l=int(append(a))", "cannot stand in int()"),
            ("l=apend(a)", "did you mean append()?"),
        ] {
            let message = edited(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
