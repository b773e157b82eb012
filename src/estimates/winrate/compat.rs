//! The numbers that AlpacaEval, Arena-Hard and MT-bench publish, with our intervals beside them.

use super::control::{Control, Join, Prepared};
use super::rates::{self, points};
use super::subjects::{Item, Subject};
use super::{Measure, WinRate};
use crate::error::Result;
use crate::judge::Outcome;
use crate::statistics::length_control::{Controlled, Recipe};
use crate::statistics::mean::{Clustered, Range, mean};

/// Whose definitions are followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compat {
    /// With liblinear's C, or chosen by cross-validation as AlpacaEval does.
    AlpacaEval { c: Option<f64> },
    /// Strong verdicts count three times, and every verdict alike, not every prompt.
    ArenaHard,
    /// Orders that don't agree are a tie; `win_rate` counts a tie as nothing, `win_rate_adjusted` as half.
    MtBench,
}

impl Compat {
    /// # Errors
    /// No verdict that can be read; an instruction without difficulty.
    pub fn win_rate(self, file: &str, subject: &Subject, control: &Control<'_>) -> Result<WinRate> {
        match self {
            Self::AlpacaEval { c } => alpaca_eval(file, subject, control, c),
            Self::ArenaHard => arena_hard(file, subject, control.level),
            Self::MtBench => mt_bench(file, subject, control.level),
        }
    }
}

/// √(Σ (x − x̄)² / (n − 1) / n): of values taken as independent.
fn naive_error(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

fn set_fact(found: &mut WinRate, name: &'static str, value: f64) {
    match found.facts.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => found.facts.push((name, value)),
    }
}

fn alpaca_eval(file: &str, subject: &Subject, control: &Control<'_>, c: Option<f64>) -> Result<WinRate> {
    let mut found = rates::win_rate(file, subject, control.level)?;
    let preferences: Vec<f64> = subject.items.iter().filter_map(|item| item.preference).collect();
    set_fact(&mut found, "standard_error", 100.0 * naive_error(&preferences));
    if control.difficulty.is_none() || control.gamed.is_empty() {
        found.notes.push("no length-controlled win rate: AlpacaEval's needs --difficulty and --gamed".to_owned());
        return Ok(found);
    }
    let as_published = Control { join: Join::Position, ..*control };
    let Some(prepared) = Prepared::lengths(file, subject, &as_published)? else {
        found.notes.push("no length-controlled win rate: some items have no lengths".to_owned());
        return Ok(found);
    };
    let c = match c {
        Some(c) => c,
        None => prepared.data().choose_c().map_err(|_| super::control::unconverged())?.0,
    };
    let recipe = Recipe::AlpacaEval { c };
    let fitted = prepared.fitted(recipe, &as_published)?;
    let what = "AlpacaEval's fit, whole fit bootstrapped";
    found.measures.push(fitted.measure("length_controlled_winrate", what, &prepared, &as_published));
    let Controlled { win_rate, coefficients, predicted } = &fitted.fit;
    found.facts.extend([
        ("lc_standard_error", 100.0 * naive_error(predicted)),
        ("lc_standard_error_bootstrap", fitted.standard_error().unwrap_or(0.0)),
        ("c", c),
        ("w_len", coefficients[0]),
        ("w_difficulty", coefficients[1]),
        ("w_bias", coefficients[2]),
    ]);
    found.notes.push(
        "lc_standard_error is AlpacaEval's, the spread of fitted values: the fit's own uncertainty is in lc_standard_error_bootstrap and the interval"
            .to_owned(),
    );
    by_instruction(&mut found, subject, control, recipe, 100.0 * win_rate)?;
    let (raw, controlled) = (found.measures[0].value, 100.0 * win_rate);
    if is_extreme(raw, controlled) {
        found.notes.push("length control moves the win rate far: AlpacaEval warns that its fit may have failed".to_owned());
    }
    Ok(found)
}

/// The same fit with each item's own difficulty, where upstream's join by position gives another.
fn by_instruction(found: &mut WinRate, subject: &Subject, control: &Control<'_>, recipe: Recipe, published: f64) -> Result<()> {
    let own = Control { join: Join::Instruction, ..*control };
    let prepared = match Prepared::lengths(&found.file, subject, &own) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(()),
        Err(error) => {
            found.notes.push(format!(
                "difficulty is joined by row position, as published; by instruction it can't be: {}",
                error.message
            ));
            return Ok(());
        }
    };
    let fitted = prepared.fitted(recipe, &own)?;
    let what = "AlpacaEval's fit with each instruction's own difficulty, whole fit bootstrapped";
    let measure = fitted.measure("length_controlled_winrate_by_instruction", what, &prepared, &own);
    let difference = published - measure.value;
    if difference.abs() > 1e-9 {
        found.notes.push(format!(
            "difficulty is joined by row position, as published; joined by instruction the length-controlled win rate is {:.2}, {:.2} points {}",
            measure.value,
            difference.abs(),
            if difference > 0.0 { "lower" } else { "higher" }
        ));
    }
    found.measures.push(measure);
    Ok(())
}

/// AlpacaEval's rule for a warning (`get_is_extreme_changes`).
fn is_extreme(raw: f64, controlled: f64) -> bool {
    controlled < (raw - raw / 4.0).min(raw - 10.0) || controlled > (raw + (100.0 - raw) / 4.0).max(raw + 10.0)
}

fn arena_hard(file: &str, subject: &Subject, level: f64) -> Result<WinRate> {
    let mut found = rates::win_rate(file, subject, level)?;
    let counted = |item: &Item| item.preference.is_some();
    let verdicts: Vec<(&str, f64)> = subject
        .items
        .iter()
        .filter(|item| counted(item))
        .flat_map(|item| {
            let each = item.verdicts.iter().filter_map(|(p, strength)| Some(vec![(*p)?; *strength as usize])).flatten();
            each.map(|preference| (item.prompt_id.as_str(), preference))
        })
        .collect();
    let clustered = Clustered::new(verdicts.iter().copied());
    if let Some(measured) = mean(&clustered, Range::UNIT, level) {
        found.measures[0] = Measure::scaled("win_rate", &measured, 100.0);
    }
    let values: Vec<f64> = verdicts.iter().map(|(_, p)| *p).collect();
    set_fact(&mut found, "standard_error", 100.0 * naive_error(&values));
    found.facts.push(("n_verdicts", values.len() as f64));
    found.notes.push(
        "win_rate counts strong verdicts three times and standard_error takes every verdict as independent, as Arena-Hard; the interval goes by prompt"
            .to_owned(),
    );
    Ok(found)
}

fn mt_bench(file: &str, subject: &Subject, level: f64) -> Result<WinRate> {
    let mut agreed = subject.clone();
    for item in &mut agreed.items {
        let Some(_) = item.preference else { continue };
        let outcomes: Vec<Outcome> = item.verdicts.iter().filter_map(|(p, _)| p.map(super::subjects::verdict)).collect();
        let same = outcomes.windows(2).all(|pair| pair[0] == pair[1]);
        let outcome = outcomes.first().copied().filter(|_| same).unwrap_or(Outcome::Tie);
        (item.outcome, item.preference) = (Some(outcome), Some(points(outcome)));
    }
    let mut found = rates::win_rate(file, &agreed, level)?;
    found.measures[0].name = "win_rate_adjusted";
    let wins = agreed.items.iter().filter_map(|item| {
        let win = item.preference? == 1.0;
        Some((item.prompt_id.as_str(), if win { 1.0 } else { 0.0 }))
    });
    let wins = Clustered::new(wins);
    if let Some(measured) = crate::statistics::mean::rate(&wins, level) {
        found.measures.insert(0, Measure::scaled("win_rate", &measured, 100.0));
        set_fact(&mut found, "standard_error", 100.0 * wins.standard_error().unwrap_or(f64::NAN));
    }
    found.facts.retain(|(_, value)| value.is_finite());
    Ok(found)
}
