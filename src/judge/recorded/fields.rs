//! Values of a row under the names that a user gave its columns, with errors that name row and column.

use std::str::FromStr;

use crate::data::field::Field;
use crate::data::source::Record;
use crate::error::{Error, Result};

/// What a file calls its columns, where that isn't what they are called here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns(pub Vec<(String, String)>);

/// Names that may stand on the left of `--columns`.
pub const NAMES: [&str; 17] = [
    "prompt_id",
    "prompt",
    "sample",
    "policy",
    "baseline",
    "judge",
    "first",
    "preference",
    "winner",
    "left",
    "right",
    "model_a",
    "model_b",
    "policy_length",
    "baseline_length",
    "policy_output",
    "baseline_output",
];

impl Columns {
    pub fn of<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.iter().find(|(ours, _)| ours == name).map_or(name, |(_, theirs)| theirs)
    }
}

pub(super) struct Fields<'a> {
    pub record: &'a Record<'a>,
    pub columns: &'a Columns,
    pub lenient: bool,
}

/// How programs write that there is no value.
const MISSING: [&str; 8] = ["", "nan", "NaN", "NA", "N/A", "null", "None", "none"];

impl Fields<'_> {
    pub fn has(&self, name: &str) -> bool {
        self.record.fields.has(self.columns.of(name))
    }

    /// The value, unless the file says that there is none.
    pub fn present(&self, name: &str) -> Option<&Field> {
        let value = self.record.fields.present(self.columns.of(name))?;
        (!value.text().is_some_and(|text| MISSING.contains(&text.trim()))).then_some(value)
    }

    pub fn error(&self, name: &str, what: &str) -> Error {
        self.record.error(format!("\"{}\" {what}", self.columns.of(name)))
    }

    pub fn missing(&self, name: &str) -> Error {
        self.error(name, "is missing")
    }

    /// A name or an id: texts, numbers, and the first of a list (MT-bench's judge with its prompt's name).
    pub fn name(&self, name: &str) -> Result<Option<String>> {
        match self.present(name) {
            None => Ok(None),
            Some(value) => named(value)
                .map(Some)
                .ok_or_else(|| self.error(name, &format!("is {}, and a text or a number is expected", value.kind()))),
        }
    }

    /// The first of several columns that has a name.
    pub fn first_name(&self, names: &[&str]) -> Result<Option<String>> {
        for name in names {
            if let Some(found) = self.name(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.record.fields.present(self.columns.of(name)) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(name, &format!("is {}, and a text is expected", other.kind()))),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.present(name) else { return Ok(None) };
        let number = match value {
            Field::Number(number) => number.as_f64(),
            Field::Text(text) => f64::from_str(text.trim()).ok().filter(|number| number.is_finite()),
            _ => None,
        };
        let shown = value.text().map_or_else(|| value.kind().to_owned(), |text| format!("\"{text}\""));
        number.map(Some).ok_or_else(|| self.error(name, &format!("is {shown}, and a number is expected")))
    }

    pub fn count(&self, name: &str) -> Result<Option<u64>> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let whole = number >= 0.0 && number.fract() == 0.0 && number < 9e15;
        whole
            .then_some(Some(number as u64))
            .ok_or_else(|| self.error(name, &format!("is {number}, and a whole number of at least 0 is expected")))
    }

    /// A number between two bounds; outside them nothing when lenient, else an error with `help`.
    pub fn within(&self, name: &str, bounds: [f64; 2], help: &str) -> Result<Option<f64>> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        if bounds[0] <= number && number <= bounds[1] {
            return Ok(Some(number));
        }
        match self.lenient {
            true => Ok(None),
            false => Err(self.error(name, &format!("is {number}, outside {} to {}", bounds[0], bounds[1])).help(help)),
        }
    }
}

pub(super) fn named(value: &Field) -> Option<String> {
    match value {
        Field::Text(text) => Some(text.trim().to_owned()),
        Field::Number(number) => Some(number.to_string()),
        Field::List(items) => items.first().and_then(named),
        _ => None,
    }
}
