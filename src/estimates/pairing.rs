//! Two policies on the same prompts: new minus old, paired by prompt.
//!
//! Each side is averaged within a prompt first (its samples, seeds and held-out pairs), so every prompt counts once, and the
//! interval is that of the mean of the prompts' differences (Miller 2024, §4.2: of scores that go together the paired standard
//! error is the smaller one).

use std::collections::BTreeSet;

use super::summary::{Evidence, Policy, above, margin, points, yes};
use crate::generate::Completion;
use crate::judge::Judgment;
use crate::statistics::mean::{Measured, Range, in_common, paired_difference};
use crate::statistics::text::repetition;
use crate::train::PairScore;

/// A policy at a checkpoint of a run, all seeds together.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub evidence: Evidence<'a>,
    pub variant: &'a str,
    pub checkpoint: u64,
}

impl<'a> Side<'a> {
    fn policy(&self) -> Policy<'a> {
        Policy { variant: self.variant, checkpoint: self.checkpoint, seed: None }
    }
}

/// One metric of both sides over the prompts that both have.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub metric: &'static str,
    pub judge: Option<String>,
    pub old: f64,
    pub new: f64,
    /// Whether every prompt has the same value on both sides.
    pub equal: bool,
    /// New minus old; `n` and `clusters` count prompts.
    pub measured: Measured,
}

/// What may be compared.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// Prompts of completions with the same text on both sides.
    pub prompts: &'a BTreeSet<&'a str>,
    pub judges: &'a [&'a str],
    /// Whether the held-out pairs are the same ones.
    pub pairs: bool,
}

/// All metrics that both sides have, in the order of the estimates.
pub fn differences(old: Side, new: Side, common: Common, level: f64) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |metric, judge: Option<&str>, sides: [Vec<(&str, f64)>; 2], range| {
        let [old, new] = sides;
        let Some(measured) = paired_difference(new.iter().copied(), old.iter().copied(), range, level) else { return };
        let pairs = in_common(&old, &new);
        let [old, new] = [0, 1].map(|side| pairs.iter().map(|pair| pair[side]).sum::<f64>() / pairs.len() as f64);
        let equal = pairs.iter().all(|[old, new]| old == new);
        found.push(Difference { metric, judge: judge.map(str::to_owned), old, new, equal, measured });
    };
    for judge in common.judges {
        let rows = [old, new].map(|side| {
            let mut rows = side.policy().judgments(&side.evidence, judge);
            rows.retain(|j| common.prompts.contains(j.prompt_id.as_str()));
            rows
        });
        let of = |value: fn(&Judgment) -> f64| rows.each_ref().map(|rows| values(rows, |j| (&j.prompt_id, value(j))));
        add("win_rate", Some(judge), of(|j| j.preference), Range::DIFFERENCE);
        add("win_rate_hard", Some(judge), of(|j| points(j.outcome)), Range::DIFFERENCE);
    }
    if common.pairs {
        let rows = [old, new].map(|side| side.policy().pair_scores(&side.evidence));
        let of = |value: fn(&PairScore) -> f64| rows.each_ref().map(|rows| values(rows, |p| (&p.prompt_id, value(p))));
        add("implicit_reward_accuracy", None, of(|p| above(margin(p), 0.0)), Range::DIFFERENCE);
        add("implicit_reward_margin", None, of(margin), Range::REAL);
        add("chosen_logp_change", None, of(|p| p.policy_chosen - p.reference_chosen), Range::REAL);
        add("rejected_logp_change", None, of(|p| p.policy_rejected - p.reference_rejected), Range::REAL);
    }
    let rows = [old, new].map(|side| {
        let mut rows = side.policy().completions(&side.evidence);
        rows.retain(|c| common.prompts.contains(c.prompt_id.as_str()));
        rows
    });
    let of = |value: fn(&Completion) -> f64| rows.each_ref().map(|rows| values(rows, |c| (&c.prompt_id, value(c))));
    if rows.iter().flatten().all(|c| c.kl.is_some()) {
        add("kl_per_sequence", None, of(|c| c.kl.unwrap_or_default()), Range::REAL);
    }
    add("tokens_per_completion", None, of(|c| f64::from(c.tokens)), Range::REAL);
    if rows.iter().flatten().all(|c| c.gold.is_some()) {
        add("gold_reward", None, of(|c| c.gold.unwrap_or_default()), Range::REAL);
    }
    add("no_eos_rate", None, of(|c| yes(!c.finished)), Range::DIFFERENCE);
    add("repetition_rate", None, of(|c| repetition(&c.text)), Range::DIFFERENCE);
    found
}

fn values<'a, T>(rows: &[&'a T], value: impl Fn(&'a T) -> (&'a String, f64)) -> Vec<(&'a str, f64)> {
    rows.iter().map(|row| value(row)).map(|(prompt, value)| (prompt.as_str(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summary::fixture::{completion, judgment, pair_score};
    use super::*;

    const PROMPTS: usize = 30;

    struct Rows(Vec<Completion>, Vec<Judgment>, Vec<PairScore>);

    /// `shift`: by how much the judge likes it more.
    fn rows(variant: &str, seeds: &[u64], shift: f64) -> Rows {
        let each = || seeds.iter().flat_map(|seed| (0..PROMPTS).map(move |prompt| (*seed, prompt)));
        let liked = |prompt: usize| 0.3 + 0.4 * (prompt % 5) as f64 / 5.0 + shift * (0.9 + 0.2 * (prompt % 2) as f64);
        Rows(
            each().map(|(seed, prompt)| completion(variant, Some(seed), 9, prompt, 0)).collect(),
            each().map(|(seed, prompt)| judgment("j", variant, seed, 9, prompt, liked(prompt))).collect(),
            each().map(|(seed, prompt)| pair_score(variant, seed, 9, prompt, shift, -shift)).collect(),
        )
    }

    fn side<'a>(rows: &'a Rows, variant: &'a str) -> Side<'a> {
        let evidence = Evidence { completions: &rows.0, judgments: &rows.1, pair_scores: &rows.2, ..Evidence::default() };
        Side { evidence, variant, checkpoint: 9 }
    }

    fn compare(old: Side, new: Side, prompts: usize) -> Vec<Difference> {
        let ids: Vec<String> = (0..prompts).map(|p| format!("p{p:03}")).collect();
        let prompts: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        differences(old, new, Common { prompts: &prompts, judges: &["j"], pairs: true }, 0.95)
    }

    #[test]
    fn turning_the_sides_around_turns_every_difference_around() {
        let (a, b) = (rows("a", &[1, 2], 0.0), rows("b", &[1], 0.1));
        let straight = compare(side(&a, "a"), side(&b, "b"), PROMPTS);
        let turned = compare(side(&b, "b"), side(&a, "a"), PROMPTS);
        assert_eq!(straight.len(), 11);
        for (s, t) in straight.iter().zip(&turned) {
            assert_eq!((s.metric, &s.judge, s.old, s.new), (t.metric, &t.judge, t.new, t.old));
            assert!((s.measured.value + t.measured.value).abs() < 1e-12, "{}", s.metric);
            assert!((s.measured.interval.lower + t.measured.interval.upper).abs() < 1e-12, "{}", s.metric);
            assert!((s.new - s.old - s.measured.value).abs() < 1e-12, "{}", s.metric);
        }
    }

    #[test]
    fn a_policy_differs_from_itself_by_nothing() {
        let a = rows("a", &[1, 2], 0.0);
        for difference in compare(side(&a, "a"), side(&a, "a"), PROMPTS) {
            assert!(difference.equal && difference.measured.value == 0.0, "{}", difference.metric);
        }
    }

    #[test]
    fn what_prompts_have_in_common_cancels_and_only_common_prompts_count() {
        let (a, b) = (rows("a", &[1, 2], 0.0), rows("b", &[1, 2, 3], 0.1));
        let found = compare(side(&a, "a"), side(&b, "b"), 20);
        let win_rate = &found[0];
        assert_eq!((win_rate.metric, win_rate.measured.clusters, win_rate.equal), ("win_rate", 20, false));
        // Preferences differ by about 0.1 on every prompt, while prompts differ by up to 0.32 among themselves.
        assert!((win_rate.measured.value - 0.1).abs() < 1e-12);
        assert!(win_rate.measured.interval.lower > 0.0, "{win_rate:?}");
    }
}
