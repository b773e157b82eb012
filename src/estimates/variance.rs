//! Where the spread of a variant's preferences comes from, at its last checkpoint: prompts, training seeds, samples of a prompt, judges.

use std::collections::{BTreeMap, BTreeSet};

use super::Estimate;
use super::summary::{Evidence, Policy, distinct};
use crate::judge::Judgment;
use crate::statistics::components::{Observation, Source, spreads};
use crate::statistics::interval::Interval;
use crate::statistics::mean::Measured;

pub(super) const METRIC: &str = "win_rate_variance";

/// The largest variance of values between 0 and 1.
const MOST: f64 = 0.25;

/// Judge by judge what prompts, seeds and samples are worth, then what judges are. `judges`: those whose opinions are their own and that are
/// to be alike: neither panels nor whoever says the truth.
pub(super) fn estimates(policy: Policy, evidence: &Evidence, judges: &[&str], level: f64) -> Vec<Estimate> {
    let mut rows = Vec::new();
    let mut push = |judge: Option<&str>, found: Vec<(Source, Measured)>| {
        rows.extend(found.into_iter().map(|(source, measured)| estimate(policy, judge, source, measured, level)));
    };
    for judge in distinct(evidence.judgments.iter().map(|j| j.judge.as_str())) {
        push(Some(judge), spreads(&observations(&policy.judgments(evidence, judge), &[judge]), MOST, level));
    }
    if judges.len() > 1 {
        let all: Vec<&Judgment> = judges.iter().flat_map(|judge| policy.judgments(evidence, judge)).collect();
        let mut found = spreads(&observations(&all, judges), MOST, level);
        found.retain(|(source, _)| matches!(source, Source::Judge | Source::Rest));
        push(None, found);
    }
    rows
}

fn observations(rows: &[&Judgment], judges: &[&str]) -> Vec<Observation> {
    let numbered = |names: BTreeSet<&str>| -> BTreeMap<String, usize> {
        names.into_iter().enumerate().map(|(i, name)| (name.to_owned(), i)).collect()
    };
    let prompts = numbered(rows.iter().map(|j| j.prompt_id.as_str()).collect());
    let seeds: BTreeSet<Option<u64>> = rows.iter().map(|j| j.seed).collect();
    let seeds: BTreeMap<Option<u64>, usize> = seeds.into_iter().enumerate().map(|(i, seed)| (seed, i)).collect();
    let observation = |j: &&Judgment| Observation {
        prompt: prompts[&j.prompt_id],
        seed: seeds[&j.seed],
        sample: j.sample as usize,
        judge: judges.iter().position(|judge| *judge == j.judge).unwrap_or_default(),
        value: j.preference,
    };
    rows.iter().map(observation).collect()
}

fn estimate(policy: Policy, judge: Option<&str>, source: Source, measured: Measured, level: f64) -> Estimate {
    let Measured { value, interval: Interval { lower, upper }, n, clusters, method } = measured;
    Estimate {
        metric: METRIC.to_owned(),
        variant: policy.variant.to_owned(),
        checkpoint: Some(policy.checkpoint),
        seed: None,
        judge: judge.map(str::to_owned),
        slice: Some(source.name().to_owned()),
        value,
        lower,
        upper,
        level,
        n,
        clusters,
        method: method.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::fixture::judgment;
    use super::*;

    const LEVEL: f64 = 0.95;

    fn policy() -> Policy<'static> {
        Policy { variant: "dpo", checkpoint: 10, seed: None }
    }

    fn of(found: &[Estimate], judge: Option<&str>, source: &str) -> Option<f64> {
        found.iter().find(|e| e.judge.as_deref() == judge && e.slice.as_deref() == Some(source)).map(|e| e.value)
    }

    /// 12 prompts × 3 seeds, additive: prompts step by 0.02, seeds by 0.1; the strict judge takes 0.06 off everything.
    fn rows() -> Vec<Judgment> {
        let each = (0..12).flat_map(|p| (0..3).map(move |s| (p, s)));
        let value = |p: usize, s: u64| 0.3 + 0.02 * p as f64 + 0.1 * s as f64;
        each.flat_map(|(p, s)| {
            [judgment("mild", "dpo", s, 10, p, value(p, s)), judgment("strict", "dpo", s, 10, p, value(p, s) - 0.06)]
        })
        .collect()
    }

    #[test]
    fn what_steps_by_prompt_seed_and_judge_is_told_apart() {
        let rows = rows();
        let evidence = Evidence { judgments: &rows, ..Evidence::default() };
        let found = estimates(policy(), &evidence, &["mild", "strict"], LEVEL);
        // The variance of 0 … 11 is 13, of 0 … 2 it is 1, of two values d apart d² / 2.
        let near = |judge, source, expected: f64| {
            let value = of(&found, judge, source).unwrap();
            assert!((value - expected).abs() < 1e-12, "{source}: {value}, not {expected}");
        };
        for judge in ["mild", "strict"] {
            near(Some(judge), "prompt", 0.02 * 0.02 * 13.0);
            near(Some(judge), "seed", 0.1 * 0.1);
            assert_eq!(of(&found, Some(judge), "sample"), None, "nothing is left over, in any prompt");
        }
        near(None, "judge", 0.06 * 0.06 / 2.0);
        assert_eq!(of(&found, None, "judge by completion"), None);
        assert!(found.iter().all(|e| e.lower <= e.value && e.value <= e.upper && e.upper <= MOST), "{found:#?}");
    }

    #[test]
    fn one_judge_says_nothing_of_judges_and_one_seed_nothing_of_seeds() {
        let rows: Vec<Judgment> = rows().into_iter().filter(|j| j.judge == "mild" && j.seed == Some(1)).collect();
        let evidence = Evidence { judgments: &rows, ..Evidence::default() };
        assert!(estimates(policy(), &evidence, &["mild"], LEVEL).is_empty());
    }
}
