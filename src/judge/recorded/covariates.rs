//! What AlpacaEval's length control knows beside the verdicts: how difficult each instruction is, and what its judge said of two baselines
//! whose answers were made longer or shorter on purpose.

use std::collections::BTreeMap;
use std::path::Path;

use super::Columns;
use super::fields::Fields;
use super::outputs::Outputs;
use crate::data::source::{Record, for_each_row};
use crate::error::{Error, Result};

/// `instruction_difficulty.csv`: one number an instruction, in the order of the evaluation set.
#[derive(Debug, Clone, PartialEq)]
pub struct Difficulty {
    /// Index or text of the instruction, and its difficulty.
    rows: Vec<(String, f64)>,
    by_key: BTreeMap<String, f64>,
    /// Whether the keys are indices into the evaluation set.
    pub by_index: bool,
}

/// Columns that may hold the index: pandas leaves the name of its index empty.
const INDEX: [&str; 3] = ["instruction_index", "index", ""];

impl Difficulty {
    /// # Errors
    /// A file that can't be read, lacks a column, or names an instruction twice.
    pub fn read(path: &Path) -> Result<Self> {
        let (mut rows, mut by_key, mut by_index) = (Vec::new(), BTreeMap::new(), true);
        for_each(path, |fields| {
            by_index = !fields.has("instruction");
            let key = match by_index {
                true => fields.first_name(&INDEX)?.ok_or_else(|| fields.missing("index"))?,
                false => fields.text("instruction")?.ok_or_else(|| fields.missing("instruction"))?.to_owned(),
            };
            let value = fields.number("instruction_difficulty")?.ok_or_else(|| fields.missing("instruction_difficulty"))?;
            if by_key.insert(key.clone(), value).is_some() {
                return Err(fields.record.error("a second difficulty of the same instruction").help("leave one of them out"));
            }
            rows.push((key, value));
            Ok(())
        })?;
        Ok(Self { rows, by_key, by_index })
    }

    /// Of the n-th instruction of the evaluation set.
    pub fn at(&self, position: usize) -> Option<f64> {
        self.rows.get(position).map(|(_, value)| *value)
    }

    pub fn of(&self, key: &str) -> Option<f64> {
        self.by_key.get(key).copied()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// With the instructions' texts for their indices, which are those of the baseline's outputs.
    pub fn named(self, outputs: &Outputs) -> Self {
        let rows: Vec<(String, f64)> = self.rows.into_iter().map(|(key, value)| (name(key, outputs), value)).collect();
        Self { by_key: rows.iter().cloned().collect(), rows, by_index: false }
    }
}

/// The text of the instruction with this index.
fn name(key: String, outputs: &Outputs) -> String {
    let text = key.parse().ok().and_then(|index: usize| outputs.rows.get(index)).map(|(instruction, _)| instruction.clone());
    text.unwrap_or(key)
}

/// The verdicts on one gamed baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Gamed {
    pub name: String,
    pub rows: Vec<GamedRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GamedRow {
    /// Index or text of the instruction.
    pub key: String,
    /// Probability that the gamed answer is better.
    pub preference: Option<f64>,
    /// Length of the gamed answer minus the baseline's, in any unit.
    pub difference: f64,
    /// Where the file states it.
    pub difficulty: Option<f64>,
}

impl Gamed {
    /// Reads a file of gamed baselines: lengths of both sides, or AlpacaEval's own `df_gamed.csv` (`model`, `index`, `std_delta_len`,
    /// `preference` from 0 to 1, `instruction_difficulty`).
    ///
    /// # Errors
    /// A file that can't be read or lacks a column.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let mut found: Vec<Self> = Vec::new();
        for_each(path, |fields| {
            let name = fields.first_name(&["gamed_model", "model"])?.ok_or_else(|| fields.missing("gamed_model"))?;
            let key = fields.first_name(&["instruction"])?.map_or_else(|| fields.first_name(&INDEX), |key| Ok(Some(key)))?;
            let key = key.ok_or_else(|| fields.missing("instruction_index"))?;
            let help = "preferences of gamed baselines are probabilities, 0 to 1";
            let column = if fields.has("pseudo_preference01") { "pseudo_preference01" } else { "preference" };
            if !fields.has(column) {
                return Err(fields.missing(column));
            }
            let preference = fields.within(column, [0.0, 1.0], help)?;
            let difference = match fields.number("std_delta_len")? {
                Some(standardised) => -standardised,
                None => {
                    let of = |name: &str| fields.number(name)?.ok_or_else(|| fields.missing(name));
                    of("len_output_2")? - of("len_output_1")?
                }
            };
            let difficulty = fields.number("instruction_difficulty")?;
            let place = found.iter().position(|gamed| gamed.name == name).unwrap_or_else(|| {
                found.push(Self { name: name.clone(), rows: Vec::new() });
                found.len() - 1
            });
            found[place].rows.push(GamedRow { key, preference, difference, difficulty });
            Ok(())
        })?;
        Ok(found)
    }

    pub fn named(mut self, outputs: &Outputs) -> Self {
        self.rows.iter_mut().for_each(|row| row.key = name(std::mem::take(&mut row.key), outputs));
        self
    }
}

fn for_each(path: &Path, mut row: impl FnMut(Fields<'_>) -> Result<()>) -> Result<()> {
    let mut rows = 0;
    for_each_row(path, |record: Record<'_>| {
        rows += 1;
        row(Fields { record: &record, columns: &Columns::default(), lenient: false }).map(|()| true)
    })?;
    if rows == 0 { Err(Error::input("there are no rows in it").in_file(path)) } else { Ok(()) }
}
