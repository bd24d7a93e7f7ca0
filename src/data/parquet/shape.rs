//! How the leaf columns of a file make up its rows: optional, repeated and grouped
//! values put together again from definition and repetition levels (Melnik et al.,
//! Dremel, 2010), with the layouts of lists and maps of Parquet's LogicalTypes.md.

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::column::Column;
use crate::data::error::RowProblem;

/// Deeper schemas are refused: reading them is recursive.
pub(super) const DEEPEST: usize = 32;

pub(super) enum Shape {
    /// The number of a column.
    Leaf(usize),
    Group(Vec<(String, Shape)>),
    /// There where the definition level is at least this.
    Optional(i16, Box<Shape>),
    /// Elements where the definition level is at least `defined`; another follows
    /// where the repetition level is `repeated`.
    List {
        defined: i16,
        repeated: i16,
        element: Box<Shape>,
    },
    /// A list of groups of key and value, as an object.
    Entries(Box<Shape>),
}

/// The columns of a file. `leaves` gets the numbers of the leaf columns in the order in
/// which [`Shape::Leaf`] counts them: those of binary data within groups (images and
/// their like) are no text and left out.
///
/// # Errors
/// What makes the schema unusable.
pub(super) fn of(
    schema: &SchemaDescriptor,
    leaves: &mut Vec<usize>,
) -> Result<Vec<(String, Shape)>, String> {
    let mut walk = Walk {
        next: 0,
        kept: leaves,
    };
    let mut columns = Vec::new();
    for field in schema.root_schema().get_fields() {
        if let Some(shape) = walk.field(field, 0, 0, 0)? {
            columns.push((field.name().to_string(), shape));
        }
    }
    match walk.next == schema.num_columns() {
        true => Ok(columns),
        false => Err("its schema contradicts itself".to_string()),
    }
}

struct Walk<'a> {
    /// The number of the next leaf of the file.
    next: usize,
    kept: &'a mut Vec<usize>,
}

impl Walk<'_> {
    /// The shape of a field within a group whose levels are given.
    fn field(
        &mut self,
        field: &Type,
        mut defined: i16,
        mut repeated: i16,
        depth: usize,
    ) -> Result<Option<Shape>, String> {
        if depth > DEEPEST {
            return Err(format!("its columns are nested deeper than {DEEPEST}"));
        }
        let info = field.get_basic_info();
        let repetition = match info.has_repetition() {
            true => info.repetition(),
            false => Repetition::REQUIRED,
        };
        defined += i16::from(repetition != Repetition::REQUIRED);
        repeated += i16::from(repetition == Repetition::REPEATED);
        let Some(inner) = self.inner(field, defined, repeated, depth)? else {
            return Ok(None);
        };
        Ok(Some(match repetition {
            Repetition::REQUIRED => inner,
            Repetition::OPTIONAL => Shape::Optional(defined, Box::new(inner)),
            Repetition::REPEATED => Shape::List {
                defined,
                repeated,
                element: Box::new(inner),
            },
        }))
    }

    /// The shape of a field that is there, for one of its elements.
    fn inner(
        &mut self,
        field: &Type,
        defined: i16,
        repeated: i16,
        depth: usize,
    ) -> Result<Option<Shape>, String> {
        let info = field.get_basic_info();
        let (logical, converted) = (info.logical_type_ref(), info.converted_type());
        if field.is_primitive() {
            let number = self.next;
            self.next += 1;
            if depth > 0 && is_binary(field) {
                return Ok(None);
            }
            self.kept.push(number);
            return Ok(Some(Shape::Leaf(self.kept.len() - 1)));
        }
        let fields = field.get_fields();
        let is_map = matches!(logical, Some(LogicalType::Map))
            || matches!(converted, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
        let is_list =
            matches!(logical, Some(LogicalType::List)) || converted == ConvertedType::LIST;
        if let ([only], true) = (fields, is_map || is_list) {
            let inside = only.get_basic_info();
            if inside.has_repetition() && inside.repetition() == Repetition::REPEATED {
                return self.repeated(field, only, (defined, repeated), depth, is_map);
            }
        }
        let mut members = Vec::with_capacity(fields.len());
        for member in fields {
            if let Some(shape) = self.field(member, defined, repeated, depth + 1)? {
                members.push((member.name().to_string(), shape));
            }
        }
        Ok((!members.is_empty()).then_some(Shape::Group(members)))
    }

    /// A list or a map: `middle` is its repeated field.
    fn repeated(
        &mut self,
        field: &Type,
        middle: &Type,
        (defined, repeated): (i16, i16),
        depth: usize,
        is_map: bool,
    ) -> Result<Option<Shape>, String> {
        // Older writers repeat the element itself.
        let wraps = !is_map
            && middle.is_group()
            && middle.get_fields().len() == 1
            && middle.name() != "array"
            && middle.name() != format!("{}_tuple", field.name());
        let (defined, repeated) = (defined + 1, repeated + 1);
        let element = match wraps {
            true => self.field(&middle.get_fields()[0], defined, repeated, depth + 2)?,
            false => self.inner(middle, defined, repeated, depth + 1)?,
        };
        let Some(element) = element else {
            return Ok(None);
        };
        let pair = matches!(&element, Shape::Group(members) if members.len() == 2);
        let list = Shape::List {
            defined,
            repeated,
            element: Box::new(element),
        };
        Ok(Some(match is_map && pair {
            true => Shape::Entries(Box::new(list)),
            false => list,
        }))
    }
}

/// Whether a leaf holds bytes that are not said to be text.
fn is_binary(leaf: &Type) -> bool {
    let info = leaf.get_basic_info();
    let named = match info.logical_type_ref() {
        None => !matches!(
            info.converted_type(),
            ConvertedType::NONE | ConvertedType::BSON
        ),
        Some(logical) => !matches!(logical, LogicalType::Bson),
    };
    leaf.get_physical_type() == parquet::basic::Type::BYTE_ARRAY && !named
}

impl Shape {
    /// The column whose levels speak for the whole.
    fn first(&self) -> usize {
        match self {
            Shape::Leaf(column) => *column,
            Shape::Group(members) => members.first().map_or(0, |(_, m)| m.first()),
            Shape::Optional(_, inner) | Shape::Entries(inner) => inner.first(),
            Shape::List { element, .. } => element.first(),
        }
    }

    /// Whether it is a column of bytes that are not said to be text.
    pub fn is_bare_bytes(&self, columns: &[Column]) -> bool {
        match self {
            Shape::Leaf(column) => is_binary(columns[*column].kind()),
            Shape::Optional(_, inner) => inner.is_bare_bytes(columns),
            _ => false,
        }
    }

    /// Leaves an entry that is not there.
    fn pass(&self, columns: &mut [Column]) {
        match self {
            Shape::Leaf(column) => columns[*column].pass(),
            Shape::Group(members) => members.iter().for_each(|(_, m)| m.pass(columns)),
            Shape::Optional(_, inner) | Shape::Entries(inner) => inner.pass(columns),
            Shape::List { element, .. } => element.pass(columns),
        }
    }

    /// The value of the row at hand. A text that is none becomes `problem` and null.
    ///
    /// # Errors
    /// The name of the column whose levels do not fit.
    pub fn read(
        &self,
        columns: &mut [Column],
        problem: &mut Option<RowProblem>,
    ) -> Result<Value, String> {
        let level = |columns: &[Column], shape: &Shape| {
            let column = &columns[shape.first()];
            column.definition().ok_or_else(|| column.name())
        };
        match self {
            Shape::Leaf(column) => {
                let value = columns[*column].take(problem);
                value.ok_or_else(|| columns[*column].name())
            }
            Shape::Group(members) => {
                let mut map = Map::with_capacity(members.len());
                for (name, member) in members {
                    map.insert(name.clone(), member.read(columns, problem)?);
                }
                Ok(Value::Object(map))
            }
            Shape::Optional(defined, inner) => match level(columns, inner)? >= *defined {
                true => inner.read(columns, problem),
                false => {
                    inner.pass(columns);
                    Ok(Value::Null)
                }
            },
            Shape::List {
                defined,
                repeated,
                element,
            } => {
                let mut items = Vec::new();
                if level(columns, element)? < *defined {
                    element.pass(columns);
                    return Ok(Value::Array(items));
                }
                loop {
                    items.push(element.read(columns, problem)?);
                    if columns[element.first()].repetition() != *repeated {
                        return Ok(Value::Array(items));
                    }
                }
            }
            Shape::Entries(list) => match list.read(columns, problem)? {
                Value::Array(pairs) => Ok(Value::Object(pairs.into_iter().map(entry).collect())),
                other => Ok(other),
            },
        }
    }
}

/// Key and value of a pair; a key that is no text as its JSON.
fn entry(pair: Value) -> (String, Value) {
    let mut members = match pair {
        Value::Object(map) => map.into_iter().map(|(_, value)| value),
        _ => return (String::new(), Value::Null),
    };
    let key = match members.next() {
        Some(Value::String(key)) => key,
        key => key.unwrap_or_default().to_string(),
    };
    (key, members.next().unwrap_or_default())
}
