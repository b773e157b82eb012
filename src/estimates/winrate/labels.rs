//! A judge's win rate corrected by trusted labels of a part of its items (PPI++).

use std::collections::BTreeMap;
use std::path::Path;

use super::subjects::{Item, Subject};
use super::{Measure, WinRate};
use crate::error::{Error, Kind, Result};
use crate::statistics::mean::{Clustered, Range, mean};
use crate::statistics::prediction_powered::{FEWEST, Predicted, Tuning, corrected_mean};

/// The labels that belong to a subject: those on the policy of the same name, or the only ones.
///
/// # Errors
/// Labels on several policies, none of them this one.
pub fn of<'a>(path: &Path, labels: &'a [Subject], subject: &Subject) -> Result<&'a Subject> {
    let named = labels.iter().find(|labels| labels.policy == subject.policy);
    named.or(labels.first().filter(|_| labels.len() == 1)).ok_or_else(|| {
        let names: Vec<&str> = labels.iter().map(|l| l.policy.as_str()).collect();
        Error::new(Kind::NothingSelected, format!("there are no labels on `{}`", subject.policy))
            .in_file(path)
            .help(format!("they are on {}", names.join(", ")))
    })
}

/// Adds the corrected win rate and that of the labels alone.
///
/// # Errors
/// A label on a prompt that the judge didn't see, or that doesn't say which of the prompt's items it is on.
pub fn add(found: &mut WinRate, subject: &Subject, labels: &Subject, path: &Path, level: f64) -> Result<()> {
    let labelled = joined(subject, labels, path)?;
    let mut clusters = BTreeMap::new();
    let items: Vec<(&Item, f64)> = subject.items.iter().filter_map(|item| Some((item, item.preference?))).collect();
    let predicted: Vec<Predicted> = items
        .iter()
        .map(|(item, judge)| {
            let next = clusters.len();
            let cluster = *clusters.entry(item.prompt_id.as_str()).or_insert(next);
            Predicted { judge: *judge, label: labelled.get(&(item.prompt_id.as_str(), item.sample.as_str())).copied(), cluster }
        })
        .collect();
    let known = items.iter().zip(&predicted).filter_map(|((item, _), p)| Some((item.prompt_id.as_str(), p.label?)));
    if let Some(alone) = mean(&Clustered::new(known), Range::UNIT, level) {
        found.measures.push(Measure::scaled("win_rate_labels", &alone, 100.0));
        found.facts.push(("labels", alone.n as f64));
    }
    let Some(corrected) = corrected_mean(&predicted, Tuning::Best) else {
        found
            .notes
            .push("every item is labelled, so that the labels alone are the win rate and the judge corrects nothing".to_owned());
        return Ok(());
    };
    let Some(interval) = corrected.interval_of_few(level) else {
        found.notes.push(format!(
            "the labels correct nothing: no interval from labels of fewer than {FEWEST} prompts holds its level, and there are {}",
            corrected.labelled_clusters
        ));
        return Ok(());
    };
    let interval = interval.within(0.0, 1.0);
    found.measures.push(Measure {
        name: "win_rate_corrected",
        value: (100.0 * corrected.value).clamp(0.0, 100.0),
        lower: 100.0 * interval.lower,
        upper: 100.0 * interval.upper,
        method: format!("PPI++, λ = {:.3}, clustered t over labelled prompts", corrected.lambda),
    });
    found.facts.extend([("ppi_lambda", corrected.lambda), ("effective_labels", corrected.effective_labels())]);
    found.facts.retain(|(_, value)| value.is_finite());
    Ok(())
}

/// Each label by prompt and sample; the mean of several raters.
fn joined<'a>(subject: &'a Subject, labels: &'a Subject, path: &Path) -> Result<BTreeMap<(&'a str, &'a str), f64>> {
    let mut samples: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for item in &subject.items {
        samples.entry(&item.prompt_id).or_default().push(&item.sample);
    }
    let mut joined = BTreeMap::new();
    for label in &labels.items {
        let Some(value) = label.preference else { continue };
        let error = |what: &str| {
            let prompt: String = label.prompt_id.chars().take(60).collect();
            Error::input(format!("row {}: the judge's file has {what} \"{prompt}\"", label.row + 1)).in_file(path)
        };
        let known = samples.get(label.prompt_id.as_str());
        let known = known.ok_or_else(|| {
            error("no verdict on the prompt").help("labels are joined by prompt_id, or by the instruction's text")
        })?;
        let sample = match known.as_slice() {
            [only] if label.sample.is_empty() => *only,
            several => *several.iter().find(|sample| **sample == label.sample).ok_or_else(|| {
                error("several items of the prompt").help("name the one that the label is on in a column \"sample\"")
            })?,
        };
        joined.insert((label.prompt_id.as_str(), sample), value);
    }
    Ok(joined)
}
