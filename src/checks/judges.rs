//! Is the judge fit to decide? Measured on held-out labelled pairs before any win rate counts (METHODS: judge bias).
//!
//! The rule: a judge whose held-out accuracy is below its `min_accuracy` is unfit and its win rates are void; one whose
//! accuracy is above it, but whose interval reaches below, is used and warned of, as is one that nothing was measured of.

use super::{Finding, Severity, finding, percent};
use crate::estimates::{Estimate, find};
use crate::suite::Suite;
use crate::suite::settings::{JudgeSettings, PolicySource};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fitness {
    Fit,
    /// Above the minimum, but the interval reaches below it.
    Unproven,
    Unfit,
    /// No trials on labelled pairs.
    Unmeasured,
}

pub(super) fn accuracy<'a>(judge: &JudgeSettings, estimates: &'a [Estimate]) -> Option<&'a Estimate> {
    find(estimates, "judge_accuracy", "", None, None, Some(&judge.name))
}

pub(super) fn fitness(judge: &JudgeSettings, estimates: &[Estimate]) -> Fitness {
    match accuracy(judge, estimates) {
        None => Fitness::Unmeasured,
        Some(e) if e.value < judge.min_accuracy => Fitness::Unfit,
        Some(e) if e.lower < judge.min_accuracy => Fitness::Unproven,
        Some(_) => Fitness::Fit,
    }
}

pub(super) fn findings(suite: &Suite, judge: &JudgeSettings, estimates: &[Estimate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(about_accuracy(suite, judge, estimates));
    findings.extend(about_position(suite, judge, estimates));
    findings.extend(about_labels(suite, judge));
    findings
}

/// The variants whose later rounds learn from this judge's labels.
fn labelled_by<'a>(suite: &'a Suite, judge: &JudgeSettings) -> Vec<&'a str> {
    let labels = |policy: &PolicySource| match policy {
        PolicySource::Train(settings) => settings.rounds.as_ref().is_some_and(|rounds| rounds.judge == judge.name),
        PolicySource::Checkpoint { .. } => false,
    };
    suite.variants.iter().filter(|v| labels(&v.policy)).map(|v| v.name.as_str()).collect()
}

/// A policy that was trained to please a judge pleases it, whatever else it does (Gao, Schulman and Hilton 2023, arXiv 2210.10760).
fn about_labels(suite: &Suite, judge: &JudgeSettings) -> Option<Finding> {
    let variants = labelled_by(suite, judge);
    if variants.is_empty() || judge.name != suite.compare.judge {
        return None;
    }
    let message = format!(
        "judge `{}` decides and also labels the pairs of later rounds of {}: a win rate by the judge that was trained for says less than one by another",
        judge.name,
        variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    );
    let mut found = finding("judge-labels", Severity::Warn, None);
    found.message = message;
    found.evidence = "the suite: `round_judge` and `[compare] judge`".to_owned();
    found.hint = "let another judge decide (`[compare] judge`), or another one label (`round_judge`)".to_owned();
    Some(found)
}

fn about_accuracy(suite: &Suite, judge: &JudgeSettings, estimates: &[Estimate]) -> Option<Finding> {
    let decides = judge.name == suite.compare.judge;
    let (name, minimum) = (&judge.name, judge.min_accuracy);
    let least = format!("{:.1} %", 100.0 * minimum);
    let evidence = |e: &Estimate| format!("{} held-out pairs of {} prompts", e.n, e.clusters);
    let seen = |e: &Estimate| percent(e.value, e.lower, e.upper);
    let hint = "train the judge on more or clearer pairs, or let another judge decide (`[compare] judge`)";
    let found = match (fitness(judge, estimates), accuracy(judge, estimates)) {
        (Fitness::Unfit, Some(e)) => {
            let severity = if decides { Severity::Fail } else { Severity::Warn };
            let labels = if labelled_by(suite, judge).is_empty() { "" } else { ", and later rounds learn from its labels" };
            let message = format!(
                "judge `{name}` is right on {} of held-out pairs, below {least}: its win rates are void{labels}",
                seen(e)
            );
            finding("judge-unfit", severity, None).estimate(e).words(minimum, message, evidence(e), hint)
        }
        (Fitness::Unproven, Some(e)) => {
            let message = format!(
                "judge `{name}` is right on {} of held-out pairs, not surely above {least}: its win rates rest on a judge that isn't shown to be fit",
                seen(e)
            );
            finding("judge-accuracy", Severity::Warn, None).estimate(e).words(minimum, message, evidence(e), hint)
        }
        (Fitness::Unmeasured, _) => {
            let message =
                format!("judge `{name}` was never measured on labelled pairs: nothing says that its win rates mean anything");
            let hint = "give the suite held-out labelled pairs to measure the judge on";
            finding("judge-accuracy", Severity::Warn, None).words(minimum, message, "no held-out pairs".to_owned(), hint)
        }
        _ => return None,
    };
    Some(found)
}

fn about_position(suite: &Suite, judge: &JudgeSettings, estimates: &[Estimate]) -> Option<Finding> {
    let limit = suite.checks.position_warn;
    let effect = find(estimates, "judge_position_effect", "", None, None, Some(&judge.name))?;
    if effect.value.abs() <= limit {
        return None;
    }
    let (side, size) = if effect.value > 0.0 {
        ("first", percent(effect.value, effect.lower, effect.upper))
    } else {
        ("second", percent(-effect.value, -effect.upper, -effect.lower))
    };
    let message = format!(
        "judge `{}` favours the side shown {side} by {size} of probability, beyond {:.1} %: averaging both orders takes the bias out of its win rates, but a single order says little",
        judge.name,
        100.0 * limit
    );
    let evidence = format!("{} held-out pairs in both orders", effect.n);
    let hint = "train the judge on both orders of every pair";
    Some(finding("judge-position", Severity::Warn, None).estimate(effect).words(limit, message, evidence, hint))
}
