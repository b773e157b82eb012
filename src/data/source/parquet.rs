//! Rows of a Parquet file, page by page.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field as Column;
use serde_json::Number;

use super::{Position, Record};
use crate::data::field::{Field, Object};
use crate::error::{Error, Result};

/// Whether a file begins as Parquet does.
pub(super) fn is_at(path: &Path) -> Result<bool> {
    let mut start = [0; 4];
    let mut file = File::open(path).map_err(|e| Error::io("read", path, &e))?;
    Ok(file.read_exact(&mut start).is_ok() && &start == b"PAR1")
}

pub(super) fn for_each(path: &Path, row: &mut impl FnMut(Record<'_>) -> Result<bool>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io("read", path, &e))?;
    let damaged = |e: &ParquetError| {
        let help = "fetch the file again; compressions that are read: Snappy, Zstandard, gzip";
        (format!("the Parquet file is truncated or damaged: {}", words(e)), help)
    };
    let whole = |e: ParquetError| {
        let (message, help) = damaged(&e);
        Error::input(message).in_file(path).help(help)
    };
    let reader = quietly("the footer", || SerializedFileReader::new(file)).map_err(whole)?;
    let mut rows = quietly("the schema", || reader.get_row_iter(None)).map_err(whole)?;
    for number in 1.. {
        let place = Position::Row(number);
        let next = quietly("a page", || rows.next().transpose());
        let Some(columns) = next.map_err(|e| {
            let (message, help) = damaged(&e);
            place.error(path, &message).help(help)
        })?
        else {
            break;
        };
        let fields = Object(columns.into_columns().into_iter().map(|(name, column)| (name, field(&column))).collect());
        if !row(Record { path, place, untyped: false, fields })? {
            break;
        }
    }
    Ok(())
}

/// What the crate says, whose decoders panic on some damage: such a panic becomes an error and prints nothing.
fn quietly<T>(what: &str, read: impl FnOnce() -> parquet::errors::Result<T>) -> parquet::errors::Result<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    // One hook for good, which asks the panicking thread: to set one and take it back at each call would drop what other threads' panics
    // say meanwhile.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    QUIET.set(before);
    outcome.unwrap_or_else(|_| Err(ParquetError::General(format!("{what} can't be decoded"))))
}

/// The crate's sentence without its class.
fn words(error: &ParquetError) -> String {
    let full = error.to_string();
    full.split_once(": ").map_or(full.as_str(), |(_, words)| words).to_owned()
}

/// A value under JSON's types; dates and times as the numbers that stand in the file.
fn field(column: &Column) -> Field {
    let float = |value: f64| Number::from_f64(value).map_or(Field::Null, Field::Number);
    match column {
        Column::Null => Field::Null,
        Column::Bool(value) => Field::Bool(*value),
        Column::Byte(value) => Field::Number((*value).into()),
        Column::Short(value) => Field::Number((*value).into()),
        Column::Int(value) | Column::Date(value) | Column::TimeMillis(value) => Field::Number((*value).into()),
        Column::Long(value) | Column::TimeMicros(value) | Column::TimestampMillis(value) | Column::TimestampMicros(value) => {
            Field::Number((*value).into())
        }
        Column::UByte(value) => Field::Number((*value).into()),
        Column::UShort(value) => Field::Number((*value).into()),
        Column::UInt(value) => Field::Number((*value).into()),
        Column::ULong(value) => Field::Number((*value).into()),
        Column::Float16(value) => float(value.to_f64()),
        Column::Float(value) => float(f64::from(*value)),
        Column::Double(value) => float(*value),
        Column::Str(text) => Field::Text(text.clone()),
        // Older writers don't mark their texts as such.
        Column::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Field::Text(text.to_owned()),
            Err(_) => Field::Other("bytes that are no UTF-8 text"),
        },
        Column::Decimal(_) => Field::Other("a decimal"),
        Column::Group(row) => {
            Field::Object(Object(row.get_column_iter().map(|(name, column)| (name.clone(), field(column))).collect()))
        }
        Column::ListInternal(list) => Field::List(list.elements().iter().map(field).collect()),
        Column::MapInternal(map) => {
            let entry = |(key, value): &(Column, Column)| match key {
                Column::Str(key) => Some((key.clone(), field(value))),
                _ => None,
            };
            match map.entries().iter().map(entry).collect() {
                Some(entries) => Field::Object(Object(entries)),
                None => Field::Other("a map whose keys are no texts"),
            }
        }
    }
}
