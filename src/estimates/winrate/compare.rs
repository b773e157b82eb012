//! Two policies on the same prompts: what prompts have in common cancels, and only prompts that both have count.

use std::collections::{BTreeMap, BTreeSet};

use super::Measure;
use super::control::{Control, Prepared, interval};
use super::rates::points;
use super::subjects::{Item, Subject};
use crate::error::Result;
use crate::statistics::bootstrap::Bootstrap;
use crate::statistics::interval::Interval;
use crate::statistics::length_control::Recipe;
use crate::statistics::mean::{Range, paired_difference};

/// The first minus the second.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedDifference {
    pub first: String,
    pub second: String,
    pub judge: Option<String>,
    pub prompts: usize,
    pub measures: Vec<Measure>,
}

/// None where the two have no judged prompt in common. `files`: where they come from. `recipes`: of their length-controlled win rates, if there
/// are any.
///
/// # Errors
/// An instruction without difficulty.
pub fn difference(
    files: [&str; 2],
    subjects: [&Subject; 2],
    recipes: Option<[Recipe; 2]>,
    control: &Control<'_>,
) -> Result<Option<PairedDifference>> {
    let prompts = subjects
        .map(|s| s.items.iter().filter(|i| i.preference.is_some()).map(|i| i.prompt_id.as_str()).collect::<BTreeSet<_>>());
    let common: BTreeSet<&str> = prompts[0].intersection(&prompts[1]).copied().collect();
    let numbers: BTreeMap<&str, usize> = common.iter().enumerate().map(|(number, key)| (*key, number)).collect();
    let paired = |value: fn(&Item) -> Option<f64>| {
        let of = |subject: &Subject| -> Vec<(usize, f64)> {
            let keyed = |item: &Item| Some((*numbers.get(item.prompt_id.as_str())?, value(item)?));
            subject.items.iter().filter_map(keyed).collect()
        };
        paired_difference(of(subjects[0]), of(subjects[1]), Range::DIFFERENCE, control.level)
    };
    let Some(win_rate) = paired(|item| item.preference) else { return Ok(None) };
    let mut measures = vec![Measure::scaled("win_rate", &win_rate, 100.0)];
    measures.extend(paired(|item| item.outcome.map(points)).map(|m| Measure::scaled("discrete_win_rate", &m, 100.0)));
    if let Some(recipes) = recipes {
        measures.extend(length_controlled(files, subjects, &common, recipes, control)?);
    }
    let [first, second] = subjects.map(|subject| subject.policy.clone());
    Ok(Some(PairedDifference { first, second, judge: subjects[0].judge.clone(), prompts: common.len(), measures }))
}

/// Both fits over the same resamples of the common prompts.
fn length_controlled(
    files: [&str; 2],
    subjects: [&Subject; 2],
    common: &BTreeSet<&str>,
    recipes: [Recipe; 2],
    control: &Control<'_>,
) -> Result<Option<Measure>> {
    let mut fits = Vec::new();
    for ((file, subject), recipe) in files.into_iter().zip(subjects).zip(recipes) {
        let mut restricted = subject.clone();
        restricted.items.retain(|item| common.contains(item.prompt_id.as_str()));
        let Some(prepared) = Prepared::lengths(file, &restricted, control)? else { return Ok(None) };
        fits.push(prepared.fitted(recipe, control)?);
    }
    let [first, second] = [&fits[0], &fits[1]];
    let value = 100.0 * (first.fit.win_rate - second.fit.win_rate);
    let of = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| 100.0 * (a - b)).collect() };
    let Some(bootstrap) = Bootstrap::new(value, of(&first.draws, &second.draws)) else { return Ok(None) };
    // Equal in every resample: a policy and itself.
    let same = (Interval { lower: value, upper: value }, "equal in all of them");
    let (interval, kind) = interval(&bootstrap, &of(&first.jackknife, &second.jackknife), control.level).unwrap_or(same);
    Ok(Some(Measure {
        name: "length_controlled_winrate",
        value,
        lower: interval.lower,
        upper: interval.upper,
        method: format!("both fits bootstrapped together, {} resamples of prompts, {kind}", control.resamples),
    }))
}
