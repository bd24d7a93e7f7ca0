//! One leaf column of a row group: decoded a few rows at a time, handed out value by
//! value as JSON.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{AsBytes, ByteArray, DataType, FixedLenByteArray, Int96};
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::{ColumnDescPtr, Type};
use serde_json::{Number, Value};

use crate::data::error::RowProblem;

/// Days from the first of the year 1 to 1970-01-01.
const EPOCH: i32 = 719_163;

enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

pub(super) struct Column {
    reader: ColumnReader,
    about: ColumnDescPtr,
    values: Values,
    /// The levels of the decoded rows, as the format defines them; none where a
    /// column has one value in each row.
    definition: Vec<i16>,
    repetition: Vec<i16>,
    /// Entries (values and gaps) of the decoded rows, and those taken.
    entries: usize,
    entry: usize,
    value: usize,
    /// Bytes of text in the row at hand.
    bytes: usize,
}

impl Column {
    pub fn open(group: &dyn RowGroupReader, number: usize) -> Result<Self, ParquetError> {
        let reader = group.get_column_reader(number)?;
        let about = group.metadata().schema_descr().column(number);
        let values = match about.physical_type() {
            Physical::BOOLEAN => Values::Bool(Vec::new()),
            Physical::INT32 => Values::Int32(Vec::new()),
            Physical::INT64 => Values::Int64(Vec::new()),
            Physical::INT96 => Values::Int96(Vec::new()),
            Physical::FLOAT => Values::Float(Vec::new()),
            Physical::DOUBLE => Values::Double(Vec::new()),
            Physical::BYTE_ARRAY => Values::Bytes(Vec::new()),
            Physical::FIXED_LEN_BYTE_ARRAY => Values::Fixed(Vec::new()),
        };
        Ok(Self {
            reader,
            about,
            values,
            definition: Vec::new(),
            repetition: Vec::new(),
            entries: 0,
            entry: 0,
            value: 0,
            bytes: 0,
        })
    }

    /// `answers.text` and the like.
    pub fn name(&self) -> String {
        self.about.path().string()
    }

    /// The leaf of the schema.
    pub fn kind(&self) -> &Type {
        self.about.self_type()
    }

    /// Decodes the next `rows` rows in place of the last; the number there were.
    pub fn fill(&mut self, rows: usize) -> Result<usize, ParquetError> {
        self.definition.clear();
        self.repetition.clear();
        (self.entry, self.value) = (0, 0);
        let levels = (
            &mut self.definition,
            &mut self.repetition,
            self.about.max_def_level() > 0,
            self.about.max_rep_level() > 0,
        );
        let (read, entries) = match (&mut self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(r), Values::Bool(v)) => decode(r, v, rows, levels),
            (ColumnReader::Int32ColumnReader(r), Values::Int32(v)) => decode(r, v, rows, levels),
            (ColumnReader::Int64ColumnReader(r), Values::Int64(v)) => decode(r, v, rows, levels),
            (ColumnReader::Int96ColumnReader(r), Values::Int96(v)) => decode(r, v, rows, levels),
            (ColumnReader::FloatColumnReader(r), Values::Float(v)) => decode(r, v, rows, levels),
            (ColumnReader::DoubleColumnReader(r), Values::Double(v)) => decode(r, v, rows, levels),
            (ColumnReader::ByteArrayColumnReader(r), Values::Bytes(v)) => {
                decode(r, v, rows, levels)
            }
            (ColumnReader::FixedLenByteArrayColumnReader(r), Values::Fixed(v)) => {
                decode(r, v, rows, levels)
            }
            _ => Err(ParquetError::General("its type changes".to_string())),
        }?;
        self.entries = entries;
        Ok(read)
    }

    pub fn start_row(&mut self) {
        self.bytes = 0;
    }

    pub fn row_bytes(&self) -> usize {
        self.bytes
    }

    /// Up to which level the entry at hand is there; `None` where there is no entry.
    pub fn definition(&self) -> Option<i16> {
        match self.about.max_def_level() {
            0 => (self.entry < self.entries).then_some(0),
            _ => self.definition.get(self.entry).copied(),
        }
    }

    /// The level at which the entry at hand repeats; 0 begins a row.
    pub fn repetition(&self) -> i16 {
        self.repetition.get(self.entry).copied().unwrap_or(0)
    }

    /// Leaves the entry at hand.
    pub fn pass(&mut self) {
        if self.definition() == Some(self.about.max_def_level()) {
            self.value += 1;
        }
        self.entry += 1;
    }

    /// The value at hand, which is left; `None` where the levels promise one that is
    /// not there. A text that is none becomes `problem` and null.
    pub fn take(&mut self, problem: &mut Option<RowProblem>) -> Option<Value> {
        if self.definition()? != self.about.max_def_level() {
            return None;
        }
        let (i, about) = (self.value, &self.about);
        let value = match &self.values {
            Values::Bool(v) => Value::Bool(*v.get(i)?),
            Values::Int32(v) => integer(i64::from(*v.get(i)?), about),
            Values::Int64(v) => integer(*v.get(i)?, about),
            Values::Int96(v) => {
                let nanos = v.get(i)?.to_nanos();
                time(
                    nanos.div_euclid(1_000_000_000),
                    nanos.rem_euclid(1_000_000_000),
                )
            }
            // By its own shortest digits: 0.1 stays 0.1.
            Values::Float(v) => v.get(i)?.to_string().parse().map_or(Value::Null, float),
            Values::Double(v) => float(*v.get(i)?),
            Values::Bytes(v) => {
                let bytes = v.get(i)?;
                self.bytes += bytes.len();
                match (decimal_places(about), std::str::from_utf8(bytes.data())) {
                    (Some(places), _) => {
                        whole(bytes.data()).map_or(Value::Null, |n| scaled(n, places))
                    }
                    (None, Ok(text)) => Value::String(text.to_string()),
                    (None, Err(_)) => {
                        let column = about.path().string();
                        problem.get_or_insert(RowProblem::Utf8 { column });
                        Value::Null
                    }
                }
            }
            Values::Fixed(v) => fixed(v.get(i)?.as_bytes(), about),
        };
        self.pass();
        Some(value)
    }
}

/// Definition and repetition levels, and whether the column has them.
type Levels<'a> = (&'a mut Vec<i16>, &'a mut Vec<i16>, bool, bool);

fn decode<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    values: &mut Vec<T::T>,
    rows: usize,
    (definition, repetition, defines, repeats): Levels<'_>,
) -> Result<(usize, usize), ParquetError> {
    values.clear();
    let (read, _, entries) = reader.read_records(
        rows,
        defines.then_some(definition),
        repeats.then_some(repetition),
        values,
    )?;
    Ok((read, entries))
}

fn integer(value: i64, about: &ColumnDescPtr) -> Value {
    let (logical, converted) = (about.logical_type_ref(), about.converted_type());
    if let Some(places) = decimal_places(about) {
        return scaled(i128::from(value), places);
    }
    let unit = match (logical, converted) {
        (Some(LogicalType::Timestamp(stamp)), _) => match stamp.unit {
            TimeUnit::MILLIS => Some(1_000),
            TimeUnit::MICROS => Some(1_000_000),
            TimeUnit::NANOS => Some(1_000_000_000),
        },
        (_, ConvertedType::TIMESTAMP_MILLIS) => Some(1_000),
        (_, ConvertedType::TIMESTAMP_MICROS) => Some(1_000_000),
        _ => None,
    };
    if let Some(unit) = unit {
        let nanos = value.rem_euclid(unit) * (1_000_000_000 / unit);
        return time(value.div_euclid(unit), nanos);
    }
    match (logical, converted) {
        (Some(LogicalType::Date), _) | (_, ConvertedType::DATE) => i32::try_from(value)
            .ok()
            .and_then(|days| days.checked_add(EPOCH))
            .and_then(chrono::NaiveDate::from_num_days_from_ce_opt)
            .map_or(Value::Null, |day| Value::String(day.to_string())),
        (Some(LogicalType::Integer(int)), _) if !int.is_signed => unsigned(value, about),
        (None, ConvertedType::UINT_8 | ConvertedType::UINT_16) => unsigned(value, about),
        (None, ConvertedType::UINT_32 | ConvertedType::UINT_64) => unsigned(value, about),
        _ => Value::from(value),
    }
}

/// The bits of the physical type, read without sign.
fn unsigned(value: i64, about: &ColumnDescPtr) -> Value {
    match about.physical_type() {
        Physical::INT32 => Value::from(value as u32),
        _ => Value::from(value as u64),
    }
}

/// JSON has no infinities; they and NaN become text.
fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::String(value.to_string()),
    }
}

fn time(seconds: i64, nanos: i64) -> Value {
    let time = chrono::DateTime::from_timestamp(seconds, nanos as u32);
    time.map_or(Value::Null, |t| Value::String(t.naive_utc().to_string()))
}

fn decimal_places(about: &ColumnDescPtr) -> Option<usize> {
    let decimal = matches!(about.logical_type_ref(), Some(LogicalType::Decimal(_)))
        || about.converted_type() == ConvertedType::DECIMAL;
    // More places than a number of 16 bytes has digits would only be zeros.
    decimal.then(|| about.type_scale().clamp(0, 40) as usize)
}

/// A number in two's complement, the highest byte first; `None` beyond 16 bytes.
fn whole(bytes: &[u8]) -> Option<i128> {
    let sign = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if sign { 0xFF } else { 0 }; 16];
    let from = 16usize.checked_sub(bytes.len())?;
    all[from..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

/// `value` / 10^`places`, as text.
fn scaled(value: i128, places: usize) -> Value {
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let sign = if value < 0 { "-" } else { "" };
    Value::String(match part {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    })
}

fn fixed(bytes: &[u8], about: &ColumnDescPtr) -> Value {
    if let Some(places) = decimal_places(about) {
        return whole(bytes).map_or(Value::Null, |n| scaled(n, places));
    }
    match (about.logical_type_ref(), bytes) {
        (Some(LogicalType::Float16), &[low, high]) => {
            let half = half::f16::from_le_bytes([low, high]);
            half.to_string().parse().map_or(Value::Null, float)
        }
        (Some(LogicalType::Uuid), bytes) if bytes.len() == 16 => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let parts = [
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..],
            ];
            Value::String(parts.join("-"))
        }
        _ => Value::Null,
    }
}
