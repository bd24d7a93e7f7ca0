//! Which column of a table holds which field.

use super::error::DataError;
use super::example::option_letter;
use super::options::{Labels, MAX_OPTIONS};
use super::spec::Spec;

/// The column names tried for a field, in order, without regard to case.
fn usual_names(field: &str) -> &'static [&'static str] {
    match field {
        "id" => &["id"],
        "question" => &["question"],
        "context" => &["context"],
        "text" => &["text"],
        "answer" => &[
            "answer",
            "answers",
            "correct_answer",
            "answerKey",
            "answer_key",
        ],
        _ => &["options", "choices"],
    }
}

/// # Errors
/// Two columns have one name.
pub(super) fn refuse_doubles(spec: &Spec, names: &[String]) -> Result<(), DataError> {
    for (i, name) in names.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
        if let Some(first) = names[..i].iter().position(|n| n == name) {
            return Err(DataError::Format {
                path: spec.path.to_path_buf(),
                what: format!(
                    "columns {} and {} are both named '{name}'",
                    first + 1,
                    i + 1
                ),
                remedy: "rename one of them".to_string(),
            });
        }
    }
    Ok(())
}

/// # Errors
/// The config names one column for two fields; each is an index with the field's name.
pub(super) fn refuse_shared(
    spec: &Spec,
    names: &[String],
    fields: impl Iterator<Item = (usize, &'static str)>,
) -> Result<(), DataError> {
    let mut seen: Vec<(usize, &str)> = Vec::new();
    for (at, field) in fields {
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == at) {
            return Err(DataError::Format {
                path: spec.path.to_path_buf(),
                what: format!("column '{}' is read as {first} and as {field}", names[at]),
                remedy: format!("name another one: data.columns.{field}=COLUMN"),
            });
        }
        seen.push((at, field));
    }
    Ok(())
}

/// The column of `field`: the one that the config names, else one with a usual name.
///
/// # Errors
/// It is not there, though it is needed or the config names it.
pub(super) fn column(
    spec: &Spec,
    names: &[String],
    line: usize,
    field: &'static str,
    needed: bool,
) -> Result<Option<usize>, DataError> {
    let missing = |wanted: &str| DataError::column(&spec.path, line, field, wanted, names);
    if let Some(Some(wanted)) = spec.columns.get(field) {
        return find(names, wanted).map(Some).ok_or_else(|| missing(wanted));
    }
    let found = usual_names(field)
        .iter()
        .find_map(|usual| find(names, usual));
    if found.is_none() && needed {
        return Err(missing(field));
    }
    Ok(found)
}

/// The column named `wanted`: exactly, else in another case or with blanks around.
pub(super) fn find(names: &[String], wanted: &str) -> Option<usize> {
    names.iter().position(|n| n == wanted).or_else(|| {
        names
            .iter()
            .position(|n| n.trim().eq_ignore_ascii_case(wanted.trim()))
    })
}

/// Whether names end in 1, 2, .. behind the same letters.
fn count_from_one<'n>(names: impl Iterator<Item = &'n str>) -> bool {
    let mut stems = Vec::new();
    for (i, name) in names.enumerate() {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if stem.is_empty() || name[stem.len()..] != (i + 1).to_string() {
            return false;
        }
        stems.push(stem);
    }
    stems.len() > 1 && stems.iter().all(|stem| stem.eq_ignore_ascii_case(stems[0]))
}

/// The columns of the options: what `data.columns.options` names (one column, or
/// several with commas between), else `options` or `choices`, else a family such
/// as `choice0..3`, `A..D`, `option_a..`. With them how the columns name the options.
///
/// # Errors
/// There are none.
pub(super) fn option_columns(
    spec: &Spec,
    names: &[String],
    line: usize,
) -> Result<(Vec<usize>, Labels), DataError> {
    if let Some(Some(wanted)) = spec.columns.get("options") {
        if let Some(index) = find(names, wanted) {
            return Ok((vec![index], Labels::None));
        }
        let columns: Result<Vec<usize>, DataError> = wanted
            .split(',')
            .map(|w| {
                find(names, w.trim())
                    .ok_or_else(|| DataError::column(&spec.path, line, "options", w.trim(), names))
            })
            .collect();
        let columns: Vec<usize> = columns?;
        let labels = match count_from_one(columns.iter().map(|at| names[*at].trim())) {
            true => Labels::FromOne,
            false => Labels::None,
        };
        return Ok((columns, labels));
    }
    if let Some(index) = usual_names("options")
        .iter()
        .find_map(|usual| find(names, usual))
    {
        return Ok((vec![index], Labels::None));
    }
    for prefix in ["option", "choice", "opt", "op", ""] {
        let members: Vec<(usize, &str)> = names
            .iter()
            .enumerate()
            .filter_map(|(i, n)| {
                let n = n.trim();
                let head = n
                    .get(..prefix.len())
                    .filter(|h| h.eq_ignore_ascii_case(prefix))?;
                Some((i, n[head.len()..].trim_start_matches(['_', '-', ' ', '.'])))
            })
            .collect();
        let at = |label: String| {
            members
                .iter()
                .find(|(_, s)| s.eq_ignore_ascii_case(&label))
                .map(|(i, _)| *i)
        };
        let run = |label: &dyn Fn(usize) -> String| -> Vec<usize> {
            (0..MAX_OPTIONS).map_while(|k| at(label(k))).collect()
        };
        let letters = run(&|k| option_letter(k).to_string());
        let mut families = vec![(letters, Labels::None)];
        if !prefix.is_empty() {
            families.push((run(&|k| k.to_string()), Labels::None));
            families.push((run(&|k| (k + 1).to_string()), Labels::FromOne));
        }
        if let Some(family) = families.into_iter().find(|(f, _)| f.len() > 1) {
            return Ok(family);
        }
    }
    Err(DataError::column(
        &spec.path, line, "options", "options", names,
    ))
}
