//! Preferences that somebody else recorded: human labels, a large judge's verdicts, this program's own judgments.
//!
//! | layout | told by | preference |
//! |---|---|---|
//! | AlpacaEval `annotations.json` | `preference` and `output_2` or `generator_2` | 1 the baseline's, 2 the model's, 1.5 and 0 a tie |
//! | AlpacaEval as numbers | `preference` and `instruction_index` | the same |
//! | `judgments.csv` of a report | `variant` and `outcome` | `preference`, both orders already in it |
//! | Arena-Hard | `games` | verdict tokens of two games, the first with the baseline as A |
//! | MT-bench pairs | `g1_winner`, `g2_winner` | winners of two games, the first with `model_1` as A |
//! | comparisons | `winner` and `left`, `right` or `model_a`, `model_b` | the winner's side |
//! | labels | `prompt_id` and `preference` or `winner` | the policy's chance, or the side |
//!
//! Any of [`crate::data::source`]'s files will do. Orders, judges, samples and seeds stay apart here: each is a row, and who counts them
//! decides what an item is.

mod alpaca;
pub mod covariates;
mod fields;
mod labels;
pub mod outputs;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::data::source::{Position, Record, for_each_row};
use crate::error::{Error, Result};
use crate::judge::Outcome;
pub use fields::{Columns, NAMES};

/// One verdict on two completions of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedPreference {
    pub place: Position,
    /// Which row of the file it comes from, from 0; two orders recorded in one row share it.
    pub row: usize,
    /// Rows of one prompt share it: intervals go by prompt. The instruction's text where the file has no id.
    pub prompt_id: String,
    /// Which of a prompt's completions, turns or conversations; empty where there is one.
    pub sample: String,
    /// What the file calls the policy that is judged, and what it is compared with.
    pub policy: Option<String>,
    pub baseline: Option<String>,
    /// Optimizer step, of this program's own judgments.
    pub checkpoint: Option<u64>,
    pub judge: Option<String>,
    /// Which side the judge read first: none where both orders are in the preference already, or nothing is known.
    pub first: Option<Side>,
    /// Probability that the policy's side is better, 0 to 1. None: the judge gave no verdict that could be read.
    pub preference: Option<f64>,
    /// The verdict where the file states it beside the preference (a judge's tie width is in it).
    pub outcome: Option<Outcome>,
    /// How often the verdict counts within its prompt: 3 for Arena-Hard's `A>>B`.
    pub strength: u32,
    pub length: Option<Sides<u64>>,
    pub text: Option<Texts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Policy,
    Baseline,
}

/// Something of either side. Lengths are in Unicode code points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides<T> {
    pub policy: T,
    pub baseline: T,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    pub prompt: Option<String>,
    pub policy: String,
    pub baseline: String,
}

impl RecordedPreference {
    /// A verdict of which nothing but its place and prompt is known yet.
    fn new(place: Position, row: usize, prompt_id: String) -> Self {
        Self {
            place,
            row,
            prompt_id,
            sample: String::new(),
            policy: None,
            baseline: None,
            checkpoint: None,
            judge: None,
            first: None,
            preference: None,
            outcome: None,
            strength: 1,
            length: None,
            text: None,
        }
    }

    /// Keeps both texts, and their lengths.
    fn set_text(&mut self, prompt: Option<&str>, policy: &str, baseline: &str) {
        let length = |text: &str| text.chars().count() as u64;
        self.length = Some(Sides { policy: length(policy), baseline: length(baseline) });
        self.text = Some(Texts { prompt: prompt.map(str::to_owned), policy: policy.to_owned(), baseline: baseline.to_owned() });
    }

    /// The same verdict, seen from the other side.
    pub fn turned(mut self) -> Self {
        std::mem::swap(&mut self.policy, &mut self.baseline);
        self.first = self.first.map(|side| if side == Side::Policy { Side::Baseline } else { Side::Policy });
        self.preference = self.preference.map(|p| 1.0 - p);
        self.outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Win => Outcome::Loss,
            Outcome::Tie => Outcome::Tie,
            Outcome::Loss => Outcome::Win,
        });
        self.length = self.length.map(|l| Sides { policy: l.baseline, baseline: l.policy });
        self.text = self.text.map(|t| Texts { prompt: t.prompt, policy: t.baseline, baseline: t.policy });
        self
    }

    /// What no two rows may have in common.
    fn key(&self) -> [&str; 5] {
        [
            &self.prompt_id,
            &self.sample,
            self.policy.as_deref().unwrap_or(""),
            self.baseline.as_deref().unwrap_or(""),
            self.judge.as_deref().unwrap_or(""),
        ]
    }
}

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// AlpacaEval: `annotations.json`, or its numbers with `instruction_index` and lengths
    AlpacaEval,
    /// Arena-Hard's judgments: verdict tokens of two games
    ArenaHard,
    /// MT-bench's pairs: `g1_winner`, `g2_winner`
    MtBench,
    /// judgments.csv of a report
    Judgments,
    /// `winner` of `left` and `right`, or of `model_a` and `model_b`
    Comparisons,
    /// `prompt_id` and `preference` (0 to 1) or `winner`
    Labels,
}

/// How a file is read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// None: told by the columns of the first row.
    pub layout: Option<Layout>,
    pub columns: Columns,
    /// Preferences outside their range become missing, and the same verdict may stand twice, as AlpacaEval has it; else both are errors.
    pub lenient: bool,
}

/// All verdicts of a file, in its order.
///
/// # Errors
/// A file that can't be read, a row that lacks what its layout needs, a preference outside its range, the same verdict twice.
pub fn read(path: &Path, reading: &Reading) -> Result<Vec<RecordedPreference>> {
    let mut layout = reading.layout;
    let mut found = Vec::new();
    let mut row = 0;
    for_each_row(path, |record| {
        let layout = match layout {
            Some(layout) => layout,
            None => *layout.insert(told_by(&record, reading)?),
        };
        let fields = fields::Fields { record: &record, columns: &reading.columns, lenient: reading.lenient };
        match layout {
            Layout::AlpacaEval => found.push(alpaca::read(&fields, row)?),
            Layout::ArenaHard => found.extend(verdicts::arena_hard(&fields, row)?),
            Layout::MtBench => found.extend(verdicts::mt_bench(&fields, row)?),
            Layout::Judgments => found.push(labels::judgment(&fields, row)?),
            Layout::Comparisons => found.push(labels::comparison(&fields, row)?),
            Layout::Labels => found.push(labels::label(&fields, row)?),
        }
        row += 1;
        Ok(true)
    })?;
    if found.is_empty() {
        return Err(Error::input("there are no verdicts in it").in_file(path));
    }
    if !reading.lenient {
        refuse_duplicates(path, &found)?;
    }
    Ok(found)
}

/// The layout of a row with these columns.
fn told_by(record: &Record<'_>, reading: &Reading) -> Result<Layout> {
    let fields = fields::Fields { record, columns: &reading.columns, lenient: reading.lenient };
    let has = |name: &str| fields.has(name);
    if has("games") {
        Ok(Layout::ArenaHard)
    } else if has("g1_winner") {
        Ok(Layout::MtBench)
    } else if has("variant") && has("outcome") && has("preference") {
        Ok(Layout::Judgments)
    } else if has("preference") && (has("instruction_index") || has("output_2") || has("generator_2")) {
        Ok(Layout::AlpacaEval)
    } else if has("winner") && ((has("left") && has("right")) || (has("model_a") && has("model_b"))) {
        Ok(Layout::Comparisons)
    } else if has("preference") || has("winner") {
        Ok(Layout::Labels)
    } else {
        let columns: Vec<String> = record.fields.keys().map(|key| format!("\"{key}\"")).collect();
        Err(record.error(format!("no verdict can be told from the columns {}", columns.join(", "))).help(
            "a verdict is a \"preference\" or a \"winner\" of a \"prompt_id\"; name other columns, say --columns preference=label",
        ))
    }
}

/// Several raters, samples or orders of a prompt are welcome when they can be told apart.
fn refuse_duplicates(path: &Path, rows: &[RecordedPreference]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for row in rows {
        let key = (row.key(), row.checkpoint, row.first);
        if let Some(earlier) = seen.insert(key, row.place) {
            let prompt: String = row.prompt_id.chars().take(60).collect();
            let message = format!("a second verdict on prompt \"{prompt}\", the first is in {}", earlier.shown());
            return Err(row.place.error(path, &message).help(
                "leave one of them out; of several raters, completions or orders, name which in \"judge\", \"sample\" or \"first\"",
            ));
        }
    }
    Ok(())
}

/// The different names in a column of the rows, in alphabetical order.
pub fn names<'a>(rows: &'a [RecordedPreference], of: impl Fn(&'a RecordedPreference) -> Option<&'a str>) -> BTreeSet<&'a str> {
    rows.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests;
