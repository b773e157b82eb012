//! Rows of files, one after the other: what is in memory is one row, however large the file.
//!
//! * JSON Lines: one object a line.
//! * JSON: one list of objects.
//! * CSV with a header (`.csv`), or with tabs (`.tsv`); every value is a text.
//! * Parquet, as Hugging Face's shards are.
//!
//! Around the first three there may be gzip or Zstandard. Parquet, gzip and Zstandard are known by their first bytes, a JSON list by its
//! bracket, CSV by its name.

mod delimited;
mod list;
mod parquet;
mod text;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::data::field::{Field, Object};
use crate::error::{Error, Place, Result};
use text::Text;

/// A longer row is no row of text but a damaged file.
pub(super) const LONGEST_ROW: u64 = 16 << 20;

/// One row, with its place for errors.
pub struct Record<'a> {
    pub path: &'a Path,
    pub place: Position,
    /// Whether every value is a text because the file knows no other type.
    pub untyped: bool,
    pub fields: Object,
}

/// Where a row stands; all count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    Line(usize),
    Row(usize),
    /// A row of a CSV file (the header isn't counted), and the line that it begins in.
    RowAtLine {
        row: usize,
        line: usize,
    },
}

impl Position {
    pub fn error(self, path: &Path, message: &str) -> Error {
        match self {
            Self::Line(line) => Error::input(message).at_line(path, line),
            Self::Row(row) => Error::input(format!("row {row}: {message}")).in_file(path),
            Self::RowAtLine { row, line } => Error::input(format!("row {row}: {message}")).at_line(path, line),
        }
    }

    /// As messages name it inside a file.
    pub fn shown(self) -> String {
        match self {
            Self::Line(line) => format!("line {line}"),
            Self::Row(row) | Self::RowAtLine { row, .. } => format!("row {row}"),
        }
    }

    /// Of line or row.
    pub fn number(self) -> u32 {
        let (Self::Line(number) | Self::Row(number) | Self::RowAtLine { row: number, .. }) = self;
        number as u32
    }

    /// Line or row `number` of the same file; a CSV file's without its line.
    pub fn at(self, number: u32) -> Self {
        match self {
            Self::Line(_) => Self::Line(number as usize),
            Self::Row(_) | Self::RowAtLine { .. } => Self::Row(number as usize),
        }
    }

    /// The name of a row that has none.
    pub fn id(self) -> String {
        match self {
            Self::Line(line) => format!("line-{line:06}"),
            Self::Row(row) | Self::RowAtLine { row, .. } => format!("row-{row:06}"),
        }
    }
}

impl Record<'_> {
    pub fn error(&self, message: impl AsRef<str>) -> Error {
        self.place.error(self.path, message.as_ref())
    }
}

/// Calls `row` with each row of a file until it says false.
pub fn for_each_row(path: &Path, mut row: impl FnMut(Record<'_>) -> Result<bool>) -> Result<()> {
    if parquet::is_at(path)? {
        return parquet::for_each(path, &mut row);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
        return Err(Error::input("no Parquet file, whatever its name says: it doesn't begin with \"PAR1\"")
            .in_file(path)
            .help("it is damaged, or text: a text file is named .jsonl, .json, .csv or .tsv"));
    }
    let mut text = Text::open(path)?;
    let bracket = text.starts_with_bracket();
    if let Some(delimiter) = delimited::delimiter(path) {
        delimited::for_each(path, text, delimiter, &mut row)
    } else if bracket {
        list::for_each(path, text, &mut row)
    } else {
        text.for_each_line(|number, line| {
            let fields = object(parse_line(path, number, line)?, path, Position::Line(number))?;
            row(Record { path, place: Position::Line(number), untyped: false, fields })
        })
    }
}

/// Calls `row` with each line of a JSONL file that isn't blank and its number, until it says false.
pub(super) fn for_each_line(path: &Path, row: impl FnMut(usize, &str) -> Result<bool>) -> Result<()> {
    let mut text = Text::open(path)?;
    text.starts_with_bracket();
    text.for_each_line(row)
}

pub(super) fn parse_line<T: DeserializeOwned>(path: &Path, number: usize, line: &str) -> Result<T> {
    serde_json::from_str(line).map_err(|e| {
        let reason = reason(&e);
        let mut error = if e.is_data() {
            Error::input(format!("the row isn't as expected: {reason}"))
        } else {
            Error::input(format!("the line is no JSON: {reason}")).help("JSONL holds one complete JSON value a line")
        };
        let column = (e.column() > 0).then_some(e.column());
        error.place = Some(Box::new(Place { file: path.to_owned(), line: Some(number), column, excerpt: None }));
        error
    })
}

/// What serde_json says, without the place.
fn reason(error: &serde_json::Error) -> String {
    let full = error.to_string();
    full.rsplit_once(" at line ").map_or(full.as_str(), |(reason, _)| reason).to_owned()
}

fn object(field: Field, path: &Path, place: Position) -> Result<Object> {
    match field {
        Field::Object(fields) => Ok(fields),
        other => {
            let (what, help) = match place {
                Position::Line(_) => ("the line is", "JSONL holds one {…} a line"),
                _ => ("it is", "a JSON file holds a list of objects, [{…}, {…}]"),
            };
            Err(place.error(path, &format!("{what} {}, and a JSON object is expected", other.kind())).help(help))
        }
    }
}

#[cfg(test)]
mod tests;
