//! All of a run's rows to all of its estimates, in one fixed order.
//!
//! 1. Judges, in the order of their trials: `judge_accuracy`, `judge_brier`, `judge_longer_preference`,
//!    `judge_position_effect`. Right is the side that the trials call better: by gold where it is known, else by label.
//! 2. The reference: `gold_reward`, `no_eos_rate`, `repetition_rate`, at checkpoint 0.
//! 3. Variants in the order of the rows; within each its checkpoints ascending; within each its seeds ascending, then all seeds
//!    pooled (no seed). For each: per judge `win_rate`, `win_rate_across_seeds` and `win_rate_length_controlled` (both pooled only),
//!    `win_rate_hard`, `tie_rate`, `position_effect`, `order_consistency`;
//!    `implicit_reward_accuracy`, `implicit_reward_tie_rate` (where there are ties), `implicit_reward_margin` and its quantiles,
//!    `implicit_reward_auc`, `implicit_reward_brier`, `implicit_reward_log_loss`, `implicit_reward_ece`,
//!    `implicit_reward_temperature`, pooled over seeds also `implicit_reward_accuracy` by length and by confidence;
//!    `chosen_logp_change`, `rejected_logp_change`, `chosen_fell_rate`, `ranking_accuracy`, `chosen_logp_change_per_token`;
//!    `kl_per_sequence`, `kl_per_token`, `kl_k1_per_sequence`, `kl_k3_per_sequence`, `length_ratio`, `gold_reward`, `no_eos_rate`,
//!    `repetition_rate`, `entropy_per_token`.
//!
//! What has no rows gets no estimate. Every interval is clustered by prompt; pooled over seeds, all of a prompt's samples and
//! seeds are one cluster. Rates are fractions, log-probabilities nats.

use std::collections::{BTreeMap, BTreeSet};

use super::length::{Lengths, length_controlled};
use super::{Estimate, implicit};
use crate::generate::{Completion, REFERENCE};
use crate::judge::{JudgeProbe, JudgeTrial, Judgment, Outcome};
use crate::statistics::bias::{position_effect, position_effect_of, same_verdict};
use crate::statistics::components::{AcrossSeeds, Observation};
use crate::statistics::interval::Interval;
use crate::statistics::mean::{Clustered, Measured, Range, mean, rate, ratio};
use crate::statistics::text::repetition;
use crate::train::{PairScore, PairSimilarity};

/// The rows that estimates and findings rest on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    pub completions: &'a [Completion],
    pub judgments: &'a [Judgment],
    pub pair_scores: &'a [PairScore],
    /// Of some of the pairs that were learnt from.
    pub train_scores: &'a [PairScore],
    /// Of pairs whose rejected side means the opposite.
    pub opposite_scores: &'a [PairScore],
    pub similarities: &'a [PairSimilarity],
    pub judge_trials: &'a [JudgeTrial],
    pub judge_probes: &'a [JudgeProbe],
}

/// A policy at a checkpoint; `seed` none: all seeds together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub variant: &'a str,
    pub checkpoint: u64,
    pub seed: Option<u64>,
}

impl<'a> Policy<'a> {
    fn holds(&self, variant: &str, checkpoint: u64, seed: Option<u64>) -> bool {
        self.variant == variant && self.checkpoint == checkpoint && (self.seed.is_none() || self.seed == seed)
    }

    pub fn completions(self, evidence: &Evidence<'a>) -> Vec<&'a Completion> {
        evidence.completions.iter().filter(|c| self.holds(&c.variant, c.checkpoint, c.seed)).collect()
    }

    pub fn judgments(self, evidence: &Evidence<'a>, judge: &str) -> Vec<&'a Judgment> {
        evidence.judgments.iter().filter(|j| j.judge == judge && self.holds(&j.variant, j.checkpoint, j.seed)).collect()
    }

    pub fn pair_scores(self, evidence: &Evidence<'a>) -> Vec<&'a PairScore> {
        self.among(evidence.pair_scores)
    }

    /// Its own of these rows.
    pub fn among(self, scores: &'a [PairScore]) -> Vec<&'a PairScore> {
        scores.iter().filter(|p| self.holds(&p.variant, p.checkpoint, p.seed)).collect()
    }
}

/// The reference's own completions.
pub(crate) fn reference<'a>(evidence: &Evidence<'a>) -> Vec<&'a Completion> {
    Policy { variant: REFERENCE, checkpoint: 0, seed: None }.completions(evidence)
}

/// All policies that have rows, in the order of the estimates.
pub(super) fn policies<'a>(evidence: &Evidence<'a>) -> Vec<Policy<'a>> {
    let rows = || {
        let completions = evidence.completions.iter().map(|c| (c.variant.as_str(), c.checkpoint, c.seed));
        let judgments = evidence.judgments.iter().map(|j| (j.variant.as_str(), j.checkpoint, j.seed));
        let scores = evidence.pair_scores.iter().map(|p| (p.variant.as_str(), p.checkpoint, p.seed));
        completions.chain(judgments).chain(scores).filter(|(variant, ..)| *variant != REFERENCE)
    };
    let mut policies = Vec::new();
    for variant in distinct(rows().map(|(variant, ..)| variant)) {
        let of_variant = rows().filter(|(v, ..)| *v == variant);
        let mut groups: BTreeSet<(u64, bool, Option<u64>)> = BTreeSet::new();
        for (_, checkpoint, seed) in of_variant {
            groups.insert((checkpoint, false, seed));
            groups.insert((checkpoint, true, None));
        }
        groups.retain(|(_, pooled, seed)| *pooled || seed.is_some());
        policies.extend(groups.into_iter().map(|(checkpoint, _, seed)| Policy { variant, checkpoint, seed }));
    }
    policies
}

/// Each value once, in the order of first appearance.
pub(crate) fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    values.filter(|v| seen.insert(*v)).collect()
}

pub fn summarise(evidence: &Evidence, level: f64) -> Vec<Estimate> {
    let mut table = Table { level, rows: Vec::new() };
    for judge in distinct(evidence.judge_trials.iter().map(|t| t.judge.as_str())) {
        table.judge(judge, &evidence.judge_trials.iter().filter(|t| t.judge == judge).collect::<Vec<_>>());
    }
    let reference = reference(evidence);
    let policy = Policy { variant: REFERENCE, checkpoint: 0, seed: None };
    table.texts(policy, &reference);
    let lengths = Lengths::new(evidence.completions);
    let judges = distinct(evidence.judgments.iter().map(|j| j.judge.as_str()));
    for policy in policies(evidence) {
        for judge in &judges {
            table.judgments(policy, judge, &policy.judgments(evidence, judge), &lengths);
        }
        table.pair_scores(policy, &policy.pair_scores(evidence));
        table.completions(policy, &policy.completions(evidence), &reference);
    }
    table.rows
}

struct Table {
    level: f64,
    rows: Vec<Estimate>,
}

impl Table {
    fn push(&mut self, metric: &str, policy: Option<Policy>, judge: Option<&str>, measured: Option<Measured>) {
        let Some(Measured { value, interval: Interval { lower, upper }, n, clusters, method }) = measured else { return };
        self.rows.push(Estimate {
            metric: metric.to_owned(),
            variant: policy.map_or_else(String::new, |p| p.variant.to_owned()),
            checkpoint: policy.map(|p| p.checkpoint),
            seed: policy.and_then(|p| p.seed),
            judge: judge.map(str::to_owned),
            slice: None,
            value,
            lower,
            upper,
            level: self.level,
            n,
            clusters,
            method: method.to_owned(),
        });
    }

    fn judge(&mut self, judge: &str, trials: &[&JudgeTrial]) {
        let level = self.level;
        let of = |value: &dyn Fn(&JudgeTrial) -> Option<f64>| {
            Clustered::new(trials.iter().filter_map(|t| Some((t.prompt_id.as_str(), value(t)?))))
        };
        self.push("judge_accuracy", None, Some(judge), rate(&of(&|t| Some(right(t.preference))), level));
        self.push("judge_brier", None, Some(judge), mean(&of(&|t| Some((1.0 - t.preference).powi(2))), Range::UNIT, level));
        self.push("judge_longer_preference", None, Some(judge), rate(&of(&|t| prefers_longer(t)), level));
        let effects = of(&|t| Some(position_effect_of(t.preference, t.position_effect?)));
        self.push("judge_position_effect", None, Some(judge), mean(&effects, Range::HALVES, level));
    }

    fn judgments(&mut self, policy: Policy, judge: &str, rows: &[&Judgment], lengths: &Lengths) {
        let level = self.level;
        let of = |value: &dyn Fn(&Judgment) -> Option<f64>| {
            Clustered::new(rows.iter().filter_map(|j| Some((j.prompt_id.as_str(), value(j)?))))
        };
        let mut push = |metric, measured| self.push(metric, Some(policy), Some(judge), measured);
        push("win_rate", mean(&of(&|j| Some(j.preference)), Range::UNIT, level));
        push("win_rate_across_seeds", across_seeds(policy, rows, level));
        // A fit with a bootstrap for every seed too would cost more than it says: prompts are what varies.
        let pooled = policy.seed.is_none();
        push("win_rate_length_controlled", pooled.then(|| length_controlled(rows, lengths, level)).flatten());
        push("win_rate_hard", mean(&of(&|j| Some(points(j.outcome))), Range::UNIT, level));
        push("tie_rate", rate(&of(&|j| Some(yes(j.outcome == Outcome::Tie))), level));
        let both = |j: &Judgment| Some((j.logit_policy_first?, j.logit_reference_first?)).filter(|_| j.asked);
        let effects = of(&|j| both(j).map(|(policy_first, reference_first)| position_effect(policy_first, reference_first)));
        push("position_effect", mean(&effects, Range::HALVES, level));
        push("order_consistency", rate(&of(&|j| both(j).map(|(a, b)| yes(same_verdict(a, b)))), level));
    }

    fn pair_scores(&mut self, policy: Policy, rows: &[&PairScore]) {
        let level = self.level;
        for (metric, slice, measured) in implicit::estimates(rows, policy.seed.is_none(), level) {
            let before = self.rows.len();
            self.push(metric, Some(policy), None, measured);
            self.rows[before..].iter_mut().for_each(|row| row.slice.clone_from(&slice));
        }
        let of = |value: &dyn Fn(&PairScore) -> f64| Clustered::new(rows.iter().map(|p| (p.prompt_id.as_str(), value(p))));
        let chosen = |p: &PairScore| p.policy_chosen - p.reference_chosen;
        let rejected = |p: &PairScore| p.policy_rejected - p.reference_rejected;
        let mut push = |metric, measured| self.push(metric, Some(policy), None, measured);
        push("chosen_logp_change", mean(&of(&chosen), Range::REAL, level));
        push("rejected_logp_change", mean(&of(&rejected), Range::REAL, level));
        push("chosen_fell_rate", rate(&of(&|p| yes(chosen(p) < 0.0)), level));
        push("ranking_accuracy", rate(&of(&|p| above(p.policy_chosen, p.policy_rejected)), level));
        let per_token = of(&|p| chosen(p) / f64::from(p.chosen_tokens.max(1)));
        push("chosen_logp_change_per_token", mean(&per_token, Range::REAL, level));
    }

    fn completions(&mut self, policy: Policy, rows: &[&Completion], reference: &[&Completion]) {
        let level = self.level;
        let average = |values: Vec<(&str, f64)>, range| mean(&Clustered::new(values), range, level);
        if let Some(kl) = known(rows, |c| c.kl) {
            self.push("kl_per_sequence", Some(policy), None, average(kl.clone(), Range::NON_NEGATIVE));
            self.push("kl_per_token", Some(policy), None, ratio(kl, lengths(rows), level));
        }
        let k1 = known(rows, |c| Some(c.policy_logp? - c.reference_logp));
        self.push("kl_k1_per_sequence", Some(policy), None, k1.and_then(|k1| average(k1, Range::REAL)));
        let k3 = known(rows, |c| c.kl_k3);
        self.push("kl_k3_per_sequence", Some(policy), None, k3.and_then(|k3| average(k3, Range::NON_NEGATIVE)));
        self.push("length_ratio", Some(policy), None, ratio(lengths(rows), lengths(reference), level));
        self.texts(policy, rows);
    }

    /// What is measured on the reference's completions as well.
    fn texts(&mut self, policy: Policy, rows: &[&Completion]) {
        let level = self.level;
        let of = |value: &dyn Fn(&Completion) -> f64| Clustered::new(rows.iter().map(|c| (c.prompt_id.as_str(), value(c))));
        let gold = known(rows, |c| c.gold).and_then(|gold| mean(&Clustered::new(gold), Range::REAL, level));
        self.push("gold_reward", Some(policy), None, gold);
        self.push("no_eos_rate", Some(policy), None, rate(&of(&|c| yes(!c.finished)), level));
        self.push("repetition_rate", Some(policy), None, mean(&of(&|c| repetition(&c.text)), Range::UNIT, level));
        let entropy = known(rows, |c| c.entropy).and_then(|entropy| ratio(entropy, lengths(rows), level));
        self.push("entropy_per_token", Some(policy), None, entropy);
    }
}

/// The win rate of a policy over all seeds, as one of many trainings with other seeds would have it.
fn across_seeds(policy: Policy, rows: &[&Judgment], level: f64) -> Option<Measured> {
    if policy.seed.is_some() {
        return None;
    }
    let names: BTreeSet<&str> = rows.iter().map(|j| j.prompt_id.as_str()).collect();
    let prompts: BTreeMap<&str, usize> = names.into_iter().enumerate().map(|(i, name)| (name, i)).collect();
    let observation = |j: &&Judgment| {
        Some(Observation {
            prompt: prompts[j.prompt_id.as_str()],
            seed: usize::try_from(j.seed?).ok()?,
            sample: j.sample as usize,
            judge: 0,
            value: j.preference,
        })
    };
    let observations: Option<Vec<Observation>> = rows.iter().map(observation).collect();
    AcrossSeeds::new(&observations?)?.measured(Range::UNIT, level)
}

/// A property of each completion, with its prompt; none where it isn't known of all.
fn known<'a>(rows: &[&'a Completion], value: impl Fn(&Completion) -> Option<f64>) -> Option<Vec<(&'a str, f64)>> {
    rows.iter().map(|c| Some((c.prompt_id.as_str(), value(c)?))).collect()
}

/// Tokens of each completion, with its prompt.
fn lengths<'a>(rows: &[&'a Completion]) -> Vec<(&'a str, f64)> {
    rows.iter().map(|c| (c.prompt_id.as_str(), f64::from(c.tokens))).collect()
}

pub(crate) fn yes(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// 1 for a probability of the right side above ½, ½ at ½.
fn right(preference: f64) -> f64 {
    above(preference, 0.5)
}

/// β (log π / π_ref of chosen − log π / π_ref of rejected): the margin of the implicit rewards.
pub(crate) fn margin(p: &PairScore) -> f64 {
    p.beta * ((p.policy_chosen - p.reference_chosen) - (p.policy_rejected - p.reference_rejected))
}

/// 1 above the threshold, ½ on it, 0 below.
pub(crate) fn above(value: f64, threshold: f64) -> f64 {
    if value == threshold { 0.5 } else { yes(value > threshold) }
}

pub(crate) fn points(outcome: Outcome) -> f64 {
    match outcome {
        Outcome::Win => 1.0,
        Outcome::Tie => 0.5,
        Outcome::Loss => 0.0,
    }
}

/// Whether the judge prefers the longer side; none where neither is longer.
fn prefers_longer(trial: &JudgeTrial) -> Option<f64> {
    let toward_better = right(trial.preference);
    match trial.length_difference {
        0 => None,
        1.. => Some(toward_better),
        _ => Some(1.0 - toward_better),
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Rows of a made-up run, for the tests of this module and of those that use its estimates.

    use super::*;
    use crate::rng::Stream;

    pub fn completion(variant: &str, seed: Option<u64>, checkpoint: u64, prompt: usize, sample: u32) -> Completion {
        let mut stream = Stream::of(seed.unwrap_or(0), &format!("completion/{variant}/{checkpoint}/{prompt}"), sample.into());
        let kl = if variant == REFERENCE { 0.0 } else { 2.0 + stream.uniform() };
        Completion {
            variant: variant.to_owned(),
            seed,
            checkpoint,
            prompt_id: format!("p{prompt:03}"),
            sample,
            prompt: format!("prompt {prompt}"),
            text: "the room was clean and the staff were kind".to_owned(),
            tokens: 10 + stream.index(5) as u32,
            finished: true,
            policy_logp: Some(-20.0 + kl + 0.5 * stream.normal()),
            reference_logp: -20.0,
            kl: Some(kl),
            kl_k3: Some(kl + 0.3 * stream.normal()),
            entropy: Some(20.0 + stream.uniform()),
            gold: Some(stream.normal()),
        }
    }

    /// `preference`: what the judge thinks of the policy's side.
    pub fn judgment(judge: &str, variant: &str, seed: u64, checkpoint: u64, prompt: usize, preference: f64) -> Judgment {
        Judgment {
            judge: judge.to_owned(),
            variant: variant.to_owned(),
            seed: Some(seed),
            checkpoint,
            prompt_id: format!("p{prompt:03}"),
            sample: 0,
            logit_policy_first: None,
            logit_reference_first: None,
            score_policy: None,
            score_reference: None,
            preference,
            outcome: if preference > 0.5 { Outcome::Win } else { Outcome::Loss },
            position_effect: None,
            asked: true,
            truncated: false,
        }
    }

    pub fn pair_score(variant: &str, seed: u64, checkpoint: u64, prompt: usize, chosen: f64, rejected: f64) -> PairScore {
        PairScore {
            variant: variant.to_owned(),
            seed: Some(seed),
            checkpoint,
            pair_id: format!("p{prompt:03}-0"),
            prompt_id: format!("p{prompt:03}"),
            beta: 0.1,
            policy_chosen: -20.0 + chosen,
            policy_rejected: -21.0 + rejected,
            reference_chosen: -20.0,
            reference_rejected: -21.0,
            chosen_tokens: 10,
            rejected_tokens: 12,
        }
    }

    pub fn trial(judge: &str, prompt: usize, preference: f64) -> JudgeTrial {
        JudgeTrial {
            judge: judge.to_owned(),
            pair_id: format!("t{prompt:03}"),
            prompt_id: format!("t{prompt:03}"),
            preference,
            position_effect: Some(0.1),
            gold_better: Some(1.0),
            gold_worse: Some(0.0),
            length_difference: if prompt.is_multiple_of(2) { 7 } else { -7 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::fixture::*;
    use super::*;

    struct Rows {
        completions: Vec<Completion>,
        judgments: Vec<Judgment>,
        pair_scores: Vec<PairScore>,
        judge_trials: Vec<JudgeTrial>,
    }

    impl Rows {
        fn evidence(&self) -> Evidence<'_> {
            Evidence {
                completions: &self.completions,
                judgments: &self.judgments,
                pair_scores: &self.pair_scores,
                judge_trials: &self.judge_trials,
                ..Evidence::default()
            }
        }
    }

    fn rows() -> Rows {
        let mut rows = Rows { completions: vec![], judgments: vec![], pair_scores: vec![], judge_trials: vec![] };
        for prompt in 0..20 {
            rows.completions.push(completion(REFERENCE, None, 0, prompt, 0));
            rows.judge_trials.push(trial("pairwise", prompt, if prompt < 15 { 0.8 } else { 0.3 }));
            for seed in [1, 2] {
                for checkpoint in [10, 20] {
                    rows.completions.push(completion("dpo", Some(seed), checkpoint, prompt, 0));
                    let preference = 0.4 + 0.02 * prompt as f64 + 0.05 * seed as f64;
                    rows.judgments.push(judgment("pairwise", "dpo", seed, checkpoint, prompt, preference));
                    rows.pair_scores.push(pair_score("dpo", seed, checkpoint, prompt, 1.0, -1.0 + prompt as f64 / 5.0));
                }
            }
        }
        rows
    }

    #[test]
    fn estimates_come_in_the_documented_order() {
        let rows = rows();
        let estimates = summarise(&rows.evidence(), 0.95);
        let shown: Vec<String> = estimates
            .iter()
            .map(|e| format!("{} {} {:?} {:?} {:?}", e.metric, e.variant, e.checkpoint, e.seed, e.slice))
            .collect();
        assert_eq!(shown[0], "judge_accuracy  None None None");
        assert_eq!(shown[4], "gold_reward reference Some(0) None None");
        let win_rates: Vec<&String> = shown.iter().filter(|s| s.starts_with("win_rate ")).collect();
        let expected = [(10, "Some(1)"), (10, "Some(2)"), (10, "None"), (20, "Some(1)"), (20, "Some(2)"), (20, "None")];
        assert_eq!(win_rates.len(), expected.len());
        for (found, (checkpoint, seed)) in win_rates.iter().zip(expected) {
            assert_eq!(**found, format!("win_rate dpo Some({checkpoint}) {seed} None"));
        }
        assert_eq!(summarise(&rows.evidence(), 0.95), estimates);
    }

    #[test]
    fn both_seeds_of_a_prompt_are_one_cluster() {
        let rows = rows();
        let estimates = summarise(&rows.evidence(), 0.95);
        let of = |seed| find(&estimates, "win_rate", "dpo", Some(20), seed, Some("pairwise")).unwrap();
        let (one, two, pooled) = (of(Some(1)), of(Some(2)), of(None));
        assert_eq!((one.n, one.clusters, pooled.n, pooled.clusters), (20, 20, 40, 20));
        assert!((pooled.value - (one.value + two.value) / 2.0).abs() < 1e-12);
        // Here a seed moves all prompts alike, so the second seed tells nothing about other prompts.
        assert!((pooled.upper - pooled.lower - (one.upper - one.lower)).abs() < 2e-3);
    }

    #[test]
    fn another_seed_could_differ_as_these_three_do_and_of_two_nothing_is_said() {
        let mut rows = rows();
        let two = summarise(&rows.evidence(), 0.95);
        assert!(find(&two, "win_rate_across_seeds", "dpo", Some(20), None, Some("pairwise")).is_none());
        let third = |j: &Judgment| Judgment { seed: Some(3), preference: j.preference - 0.05, ..j.clone() };
        let third: Vec<Judgment> = rows.judgments.iter().filter(|j| j.seed == Some(1)).map(third).collect();
        rows.judgments.extend(third);
        let estimates = summarise(&rows.evidence(), 0.95);
        let of = |metric, seed| find(&estimates, metric, "dpo", Some(20), seed, Some("pairwise"));
        let (across, pooled) = (of("win_rate_across_seeds", None).unwrap(), of("win_rate", None).unwrap());
        assert_eq!((across.value, across.n, across.clusters), (pooled.value, 60, 3));
        assert!(across.lower < pooled.lower && across.upper > pooled.upper);
        assert!(of("win_rate_across_seeds", Some(1)).is_none());
    }

    #[test]
    fn implicit_ties_count_half_and_are_reported_apart() {
        let rows = rows();
        let estimates = summarise(&rows.evidence(), 0.95);
        let of = |metric| find(&estimates, metric, "dpo", Some(20), None, None);
        // chosen gains 1, rejected gains −1 + prompt / 5: more below prompt 10, as much at 10.
        assert_eq!(of("implicit_reward_accuracy").unwrap().value, 10.5 / 20.0);
        assert_eq!(of("implicit_reward_tie_rate").unwrap().value, 0.05);
        assert!((of("implicit_reward_margin").unwrap().value - 0.1 * (2.0 - 1.9)).abs() < 1e-9);
        assert!((of("chosen_logp_change_per_token").unwrap().value - 0.1).abs() < 1e-12);
        let none =
            Rows { pair_scores: vec![pair_score("dpo", 1, 10, 0, 1.0, 0.0), pair_score("dpo", 1, 10, 1, 0.0, 1.0)], ..rows };
        assert!(find(&summarise(&none.evidence(), 0.95), "implicit_reward_tie_rate", "dpo", Some(10), None, None).is_none());
    }

    #[test]
    fn judges_are_measured_on_their_trials() {
        let rows = rows();
        let estimates = summarise(&rows.evidence(), 0.95);
        let of = |metric| find(&estimates, metric, "", None, None, Some("pairwise")).unwrap();
        assert_eq!(of("judge_accuracy").value, 15.0 / 20.0);
        assert!((of("judge_brier").value - (15.0 * 0.04 + 5.0 * 0.49) / 20.0).abs() < 1e-12);
        // Even prompts: the better side is longer. 8 right of 10 there, 7 right of 10 where it is shorter.
        assert!((of("judge_longer_preference").value - (8.0 + 3.0) / 20.0).abs() < 1e-12);
    }

    #[test]
    fn swapping_the_sides_mirrors_the_win_rate() {
        let rows = rows();
        let swapped = Rows {
            judgments: rows.judgments.iter().map(|j| Judgment { preference: 1.0 - j.preference, ..j.clone() }).collect(),
            ..self::rows()
        };
        let of = |rows: &Rows| {
            let estimates = summarise(&rows.evidence(), 0.95);
            find(&estimates, "win_rate", "dpo", Some(20), None, Some("pairwise")).unwrap().clone()
        };
        let (here, there) = (of(&rows), of(&swapped));
        assert!((here.value + there.value - 1.0).abs() < 1e-12);
        assert!((here.lower + there.upper - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_policy_trained_elsewhere_is_pooled_only() {
        let judgments: Vec<Judgment> =
            (0..5).map(|p| Judgment { seed: None, ..judgment("pairwise", "mine", 0, 0, p, 0.1 * p as f64) }).collect();
        let estimates = summarise(&Evidence { judgments: &judgments, ..Evidence::default() }, 0.9);
        let win_rates: Vec<&Estimate> = estimates.iter().filter(|e| e.metric == "win_rate").collect();
        assert_eq!(win_rates.len(), 1);
        assert_eq!((win_rates[0].seed, win_rates[0].level), (None, 0.9));
    }
}
