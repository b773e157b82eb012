//! Win rates with length, difficulty and style held equal: items to [`length_control`]'s rows, fits to numbers with intervals.

use std::collections::BTreeMap;
use std::path::Path;

use super::subjects::{Item, Subject};
use super::{Measure, WinRate};
use crate::error::{Error, Result};
use crate::judge::recorded::covariates::{Difficulty, Gamed};
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::interval::Interval;
use crate::statistics::length_control::{self, Controlled, Data, Recipe};
use crate::statistics::mean::{Clustered, Range, mean};
use crate::statistics::style::{Style, differences};

/// What is held equal beside length, and how intervals are made.
#[derive(Debug, Clone, Copy)]
pub struct Control<'a> {
    pub difficulty: Option<(&'a Path, &'a Difficulty)>,
    pub gamed: &'a [Gamed],
    pub join: Join,
    pub resamples: usize,
    pub seed: u64,
    pub level: f64,
}

/// How difficulty finds its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Instruction,
    /// By the row's position, as AlpacaEval does: wrong as soon as a row is missing.
    Position,
}

/// Items as the fit wants them. Prompts are numbered in alphabetical order, so that two policies on the same prompts are resampled alike.
#[derive(Debug, Clone)]
pub struct Prepared {
    items: Vec<length_control::Item>,
    gamed: Vec<Vec<length_control::Item>>,
    prompts: usize,
    /// Of the items: what they are without any control.
    raw: Clustered,
}

pub const RIDGE: Recipe = Recipe::Ridge { saturating: true };
const STYLE: Recipe = Recipe::Ridge { saturating: false };

impl Prepared {
    /// None where an item lacks its lengths.
    ///
    /// # Errors
    /// An instruction without difficulty.
    pub fn lengths(file: &str, subject: &Subject, control: &Control<'_>) -> Result<Option<Self>> {
        let length = |item: &Item| item.length.map(|l| vec![l.policy as f64 - l.baseline as f64]);
        Self::new(file, subject, control, length)
    }

    /// None where an item lacks its texts. Difficulty and gamed baselines have none, so they stay out.
    fn style(file: &str, subject: &Subject, control: &Control<'_>) -> Result<Option<Self>> {
        let plain = Control { difficulty: None, gamed: &[], ..*control };
        Self::new(file, subject, &plain, |item| {
            let text = item.text.as_ref()?;
            Some(differences(&Style::of(&text.policy), &Style::of(&text.baseline)).to_vec())
        })
    }

    fn new(
        file: &str,
        subject: &Subject,
        control: &Control<'_>,
        differences: impl Fn(&Item) -> Option<Vec<f64>>,
    ) -> Result<Option<Self>> {
        let keys = subject.items.iter().map(|item| item.prompt_id.as_str());
        let gamed_keys = control.gamed.iter().flat_map(|gamed| gamed.rows.iter().map(|row| row.key.as_str()));
        let mut numbers: BTreeMap<&str, usize> = keys.chain(gamed_keys).map(|key| (key, 0)).collect();
        numbers.values_mut().enumerate().for_each(|(number, place)| *place = number);
        let mut items = Vec::new();
        for item in &subject.items {
            let Some(differences) = differences(item) else { return Ok(None) };
            let difficulty = control.difficulty_of(file, item)?;
            let prompt = numbers[item.prompt_id.as_str()];
            items.push(length_control::Item { prompt, preference: item.preference, differences, difficulty });
        }
        let gamed = control.gamed.iter().map(|gamed| control.gamed_items(gamed, &numbers)).collect::<Result<_>>()?;
        let raw = subject.items.iter().filter_map(|item| Some((item.prompt_id.as_str(), item.preference?)));
        Ok(Some(Self { items, gamed, prompts: numbers.len(), raw: Clustered::new(raw) }))
    }

    pub fn data(&self) -> Data<'_> {
        Data { items: &self.items, gamed: &self.gamed, prompts: self.prompts }
    }

    /// The fit, and the bootstrap of the whole of it.
    pub fn fitted(&self, recipe: Recipe, control: &Control<'_>) -> Result<Fitted> {
        let data = self.data();
        let fit = data.fit(recipe).map_err(|_| unconverged())?;
        let resampling = Resampling { resamples: control.resamples, seed: control.seed, purpose: "winrate/length-control" };
        let draws = data.resampled(recipe, &fit.coefficients, resampling).map_err(|_| unconverged())?;
        let jackknife = data.left_out(recipe, &fit.coefficients).map_err(|_| unconverged())?;
        Ok(Fitted { fit, draws, jackknife })
    }
}

pub(super) fn unconverged() -> Error {
    Error::input("the length-controlled fit has no finite optimum: the penalty is too weak for these preferences")
        .help("choose a smaller --c")
}

impl Control<'_> {
    fn difficulty_of(&self, file: &str, item: &Item) -> Result<f64> {
        let Some((path, difficulty)) = self.difficulty else { return Ok(0.0) };
        let found = match self.join {
            Join::Position => difficulty.at(item.row),
            Join::Instruction => difficulty.of(&item.prompt_id),
        };
        found.ok_or_else(|| {
            let shown: String = item.prompt_id.chars().take(60).collect();
            let message = format!("row {}: {} has no difficulty of its instruction \"{shown}\"", item.row + 1, path.display());
            let help = match (self.join, difficulty.by_index) {
                (Join::Position, _) => "difficulty is joined by the row's position here: there are more rows than instructions",
                (_, true) => "its difficulties go by the index in the evaluation set: give the baseline's outputs, whose order that is, as --baseline-outputs",
                (_, false) => "difficulty is joined by the instruction's text",
            };
            Error::input(message).in_file(file).help(help)
        })
    }

    fn gamed_items(&self, gamed: &Gamed, numbers: &BTreeMap<&str, usize>) -> Result<Vec<length_control::Item>> {
        let item = |(position, row): (usize, &crate::judge::recorded::covariates::GamedRow)| {
            let of_file = || match (self.difficulty, self.join) {
                (None, _) => Some(0.0),
                (Some((_, difficulty)), Join::Position) => difficulty.at(position),
                (Some((_, difficulty)), Join::Instruction) => difficulty.of(&row.key),
            };
            let difficulty = row.difficulty.filter(|_| self.difficulty.is_some()).or_else(of_file).ok_or_else(|| {
                Error::input(format!("row {} of the gamed baseline `{}` has no difficulty", position + 1, gamed.name))
                    .help("--gamed and --difficulty go by the same instructions")
            })?;
            Ok(length_control::Item {
                prompt: numbers[row.key.as_str()],
                preference: row.preference,
                differences: vec![row.difference],
                difficulty,
            })
        };
        gamed.rows.iter().enumerate().map(item).collect()
    }
}

/// A fit with its bootstrap.
#[derive(Debug, Clone)]
pub struct Fitted {
    pub fit: Controlled,
    /// Win rates of the resamples, 0 to 1.
    pub draws: Vec<f64>,
    /// Win rates without one prompt each.
    pub jackknife: Vec<f64>,
}

impl Fitted {
    fn bootstrap(&self) -> Option<Bootstrap> {
        Bootstrap::new(self.fit.win_rate, self.draws.clone())
    }

    /// In percent.
    pub fn measure(&self, name: &'static str, what: &str, prepared: &Prepared, control: &Control<'_>) -> Measure {
        let value = 100.0 * self.fit.win_rate;
        if let Some((interval, kind)) = self.bootstrap().and_then(|b| interval(&b, &self.jackknife, control.level)) {
            let method = format!("{what}, {} resamples of prompts, {kind}", self.draws.len());
            return Measure { name, value, lower: 100.0 * interval.lower, upper: 100.0 * interval.upper, method };
        }
        // Where all prompts agree, resampling them shows no spread either: what is known without any control holds.
        match mean(&prepared.raw, Range::UNIT, control.level) {
            Some(raw) => Measure { value, ..Measure::scaled(name, &raw, 100.0) },
            None => Measure { name, value, lower: value, upper: value, method: what.to_owned() },
        }
    }

    /// Standard deviation of the resamples, in percent.
    pub fn standard_error(&self) -> Option<f64> {
        self.bootstrap().map(|b| 100.0 * b.standard_error())
    }
}

/// BCa, or percentile where the jackknife shows nothing; none without spread.
pub(super) fn interval(bootstrap: &Bootstrap, jackknife: &[f64], level: f64) -> Option<(Interval, &'static str)> {
    let percentile = bootstrap.percentile(level);
    if percentile.width() <= 1e-9 {
        return None;
    }
    Some(bootstrap.bca(jackknife, level).map_or((percentile, "percentile"), |bca| (bca, "BCa")))
}

/// Adds the length-controlled and, where texts are at hand, the style-controlled win rate by our recipe.
///
/// # Errors
/// An instruction without difficulty.
pub fn add(found: &mut WinRate, subject: &Subject, control: &Control<'_>) -> Result<()> {
    let Some(prepared) = Prepared::lengths(&found.file, subject, control)? else {
        if subject.items.iter().any(|item| item.length.is_some()) {
            found.notes.push("some items have no lengths, so there is no length-controlled win rate".to_owned());
        }
        return Ok(());
    };
    let fitted = prepared.fitted(RIDGE, control)?;
    found.measures.push(fitted.measure(
        "length_controlled_winrate",
        "ridge logistic, whole fit bootstrapped",
        &prepared,
        control,
    ));
    found.facts.extend(fitted.standard_error().map(|error| ("lc_standard_error", error)));
    found.facts.push(("length_coefficient", fitted.fit.coefficients[1]));
    if let Some(prepared) = Prepared::style(&found.file, subject, control)? {
        let fitted = prepared.fitted(STYLE, control)?;
        let what = "ridge logistic on length, headers, lists and bold, whole fit bootstrapped";
        found.measures.push(fitted.measure("style_controlled_winrate", what, &prepared, control));
    }
    Ok(())
}
