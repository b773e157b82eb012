//! Does the proxy rise while the truth falls (METHODS: overoptimization, checks O1, O2; Gao et al. 2022, Rafailov et al. 2024)?

use super::{Crossing, Finding, Severity, crossing, finding, percent};
use crate::estimates::summary::{Evidence, Policy};
use crate::estimates::{Estimate, find};
use crate::judge::{GOLD, Judgment};
use crate::statistics::mean::{Measured, Range, paired_difference};
use crate::suite::Suite;

/// A drop of win rate below an earlier checkpoint that fails rather than warns.
const DROP_FAIL: f64 = 0.02;

pub(super) fn findings(suite: &Suite, variant: &str, last: u64, evidence: &Evidence, estimates: &[Estimate]) -> Vec<Finding> {
    let policy = Policy { variant, checkpoint: last, seed: None };
    let deciding = suite.compare.judge.as_str();
    let mut judges = vec![deciding];
    if deciding != GOLD {
        judges.push(GOLD);
    }
    let level = suite.statistics.level;
    let mut findings: Vec<Finding> = judges.into_iter().filter_map(|judge| hump(policy, judge, evidence, level)).collect();
    findings.extend(suite.judges.iter().filter_map(|judge| disagreement(policy, &judge.name, estimates)));
    findings
}

/// The win rate at the last checkpoint against the checkpoint before it from which it fell most, paired by prompt.
///
/// The best of k earlier checkpoints is partly the luckiest, so each difference has level 1 − (1 − level) / k (Bonferroni).
fn hump(policy: Policy, judge: &str, evidence: &Evidence, level: f64) -> Option<Finding> {
    let mut earlier: Vec<u64> = evidence
        .judgments
        .iter()
        .filter(|j| j.judge == judge && j.variant == policy.variant && j.checkpoint < policy.checkpoint)
        .map(|j| j.checkpoint)
        .collect();
    earlier.sort_unstable();
    earlier.dedup();
    let corrected = 1.0 - (1.0 - level) / earlier.len().max(1) as f64;
    let preferences = |checkpoint| -> Vec<(&str, f64)> {
        let rows: Vec<&Judgment> = Policy { checkpoint, ..policy }.judgments(evidence, judge);
        rows.into_iter().map(|j| (j.prompt_id.as_str(), j.preference)).collect()
    };
    let last = preferences(policy.checkpoint);
    let drops: Vec<(u64, Measured)> = earlier
        .iter()
        .filter_map(|c| Some((*c, paired_difference(last.clone(), preferences(*c), Range::DIFFERENCE, corrected)?)))
        .collect();
    let (best, drop) = drops.iter().min_by(|a, b| a.1.value.total_cmp(&b.1.value))?;
    if drop.interval.upper >= 0.0 {
        return None;
    }
    let Crossing { severity, threshold } = crossing(-drop.value, -drop.interval.upper, 0.0, DROP_FAIL)?;
    let message = format!(
        "the win rate of `{}` by judge `{judge}` fell by {} from checkpoint {best} to checkpoint {}: the last checkpoint is over-optimised",
        policy.variant,
        percent(-drop.value, -drop.interval.upper, -drop.interval.lower),
        policy.checkpoint
    );
    let evidence = format!("{} prompts at {} checkpoints, paired", drop.clusters, earlier.len() + 1);
    let hint = "take the earlier checkpoint, or raise beta";
    let found = finding("win-rate-hump", severity, Some(policy)).measurement(drop);
    Some(found.words(0.0 - threshold, message, evidence, hint))
}

/// A judge that says better where gold says worse, or the other way round.
fn disagreement(policy: Policy, judge: &str, estimates: &[Estimate]) -> Option<Finding> {
    if judge == GOLD {
        return None;
    }
    let of = |judge| find(estimates, "win_rate", policy.variant, Some(policy.checkpoint), None, Some(judge));
    let (judged, gold) = (of(judge)?, of(GOLD)?);
    let better = |e: &Estimate| e.lower > 0.5;
    let worse = |e: &Estimate| e.upper < 0.5;
    let severity = match () {
        () if better(judged) && worse(gold) => Severity::Fail,
        () if worse(judged) && better(gold) => Severity::Fail,
        () if better(judged) && gold.value < 0.5 => Severity::Warn,
        () if worse(judged) && gold.value > 0.5 => Severity::Warn,
        () => return None,
    };
    let message = format!(
        "judge `{judge}` gives `{}` a win rate of {}, gold gives {}: the judge's win rate doesn't speak for the truth",
        policy.variant,
        percent(judged.value, judged.lower, judged.upper),
        percent(gold.value, gold.lower, gold.upper)
    );
    let evidence = format!("{} judgments on {} prompts at checkpoint {}", judged.n, judged.clusters, policy.checkpoint);
    let hint = "read samples where the two differ; train the judge on pairs like these";
    let found = finding("judge-gold-disagreement", severity, Some(policy)).estimate(judged);
    Some(found.words(0.5, message, evidence, hint))
}
