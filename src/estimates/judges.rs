//! Estimates about judges: how far they can be trusted, what they fall for, whether they agree, and win rates corrected by labels.
//!
//! 1. On held-out labelled pairs, judge by judge: `judge_log_loss`, `judge_auc`, `judge_reliability`, `judge_ece`, `judge_kappa`, `judge_alpha`,
//!    `judge_length_bias`, and `judge_longer_preference` by how far the lengths are apart. Each pair counts in both directions, so no side
//!    is the positive one. `judge_truncated`, where anything was too long: of what it was asked of the policies' completions, else of its probes.
//! 2. On probes, judge by judge: `probe_null_win_rate`, `probe_empty_win_rate` (and `…_excess` over gold, where the truth is known),
//!    `probe_filler_gain`, `probe_markdown_gain`, `probe_injection_gain`, `probe_identical_bias`, `probe_identical_position`.
//! 3. On what the policies wrote, at each variant's last checkpoint over all seeds: a panel's `panel_alpha`, and every judge's
//!    `label_kappa` and `label_alpha` with gold, or with whoever labels.
//! 4. `win_rate_corrected` of every policy, where the suite has labels.
//! 5. At each variant's last checkpoint `win_rate_variance`: what prompts, seeds, samples and judges add to the spread of preferences.

use std::collections::{BTreeMap, BTreeSet};

use super::Estimate;
use super::summary::{Evidence, Policy, distinct, policies};
use super::variance;
use crate::digest::Digest;
use crate::judge::probes::Probe;
use crate::judge::{GOLD, JudgeProbe, JudgeTrial, Judgment, Outcome};
use crate::statistics::agreement::clustered::{self, Counts, alpha, kappa};
use crate::statistics::bias::{Longer, length_bias, position_effect_of};
use crate::statistics::bootstrap::Resampling;
use crate::statistics::calibration::{Binning, EXPECTED_ERROR, Forecast, Gaps, clustered_expected_error, reliability};
use crate::statistics::discrimination::{Scored, area};
use crate::statistics::interval::Interval;
use crate::statistics::krippendorff::{Metric, clustered_alpha};
use crate::statistics::mean::{Clustered, Measured, Range, mean, paired_difference, rate};
use crate::statistics::prediction_powered::{Predicted, Tuning, corrected_mean};

/// Of the calibration error.
const RESAMPLES: usize = 1000;
/// Bins of the reliability curve.
const BINS: usize = 10;
/// AlpacaEval's line between lengths that are about the same and lengths that aren't, in characters.
const CLOSE_LENGTHS: i64 = 30;

/// What a suite says about its judges.
#[derive(Debug, Clone, Default)]
pub struct Scheme<'a> {
    pub level: f64,
    pub seed: u64,
    /// Panels and their members.
    pub panels: Vec<(&'a str, &'a [String])>,
    /// Whose labels correct the others, and on what share of the prompts.
    pub labels: Option<(&'a str, f64)>,
}

impl Scheme<'_> {
    /// Judges whose opinions are their own, and opinions: neither panels nor whoever says the truth.
    fn alike<'e>(&self, evidence: &Evidence<'e>) -> Vec<&'e str> {
        let mut judges = distinct(evidence.judgments.iter().map(|j| j.judge.as_str()));
        let is_panel = |judge: &str| self.panels.iter().any(|(panel, _)| *panel == judge);
        judges.retain(|judge| *judge != GOLD && !is_panel(judge) && self.labels.is_none_or(|(labels, _)| labels != *judge));
        judges
    }
}

pub fn estimates(evidence: &Evidence, scheme: &Scheme) -> Vec<Estimate> {
    let mut table = Table { scheme, rows: Vec::new() };
    for judge in distinct(evidence.judge_trials.iter().map(|t| t.judge.as_str())) {
        table.trials(judge, &evidence.judge_trials.iter().filter(|t| t.judge == judge).collect::<Vec<_>>());
    }
    for judge in distinct(evidence.judge_probes.iter().map(|p| p.judge.as_str())) {
        table.probes(judge, evidence.judge_probes);
    }
    let judgments = evidence.judgments.iter().map(|j| j.judge.as_str());
    for judge in distinct(judgments.chain(evidence.judge_probes.iter().map(|p| p.judge.as_str()))) {
        table.truncated(judge, evidence);
    }
    let all = policies(evidence);
    let is_last =
        |policy: &&Policy| all.iter().all(|other| other.variant != policy.variant || other.checkpoint <= policy.checkpoint);
    let last: Vec<Policy> = all.iter().filter(|policy| policy.seed.is_none()).filter(is_last).copied().collect();
    last.iter().for_each(|policy| table.agreement(*policy, evidence));
    if let Some((labels, labelled)) = labelled(evidence, scheme) {
        for policy in all {
            table.corrected(policy, evidence, labels, &labelled);
        }
    }
    let mut rows = table.rows;
    let judges = scheme.alike(evidence);
    rows.extend(last.into_iter().flat_map(|policy| variance::estimates(policy, evidence, &judges, scheme.level)));
    rows
}

/// Who labels, and the prompts whose labels are used.
pub fn labelled<'a>(evidence: &Evidence<'a>, scheme: &Scheme<'a>) -> Option<(&'a str, BTreeSet<&'a str>)> {
    let (labels, share) = scheme.labels?;
    Some((labels, labelled_prompts(evidence.judgments, labels, share, scheme.seed)))
}

/// The prompts whose labels are used: a share of those that have any, drawn by hash, so that it is the same for all policies.
fn labelled_prompts<'a>(judgments: &'a [Judgment], labels: &str, share: f64, seed: u64) -> BTreeSet<&'a str> {
    let mut prompts = distinct(judgments.iter().filter(|j| j.judge == labels).map(|j| j.prompt_id.as_str()));
    let used = (share * prompts.len() as f64).round() as usize;
    prompts.sort_by_key(|prompt| Digest::of_value(&(seed, "labels", prompt)));
    prompts.into_iter().take(used).collect()
}

/// Trials of one prompt together: what is resampled.
fn by_prompt<'a>(trials: &[&'a JudgeTrial]) -> Vec<Vec<&'a JudgeTrial>> {
    let mut groups: BTreeMap<&str, Vec<&JudgeTrial>> = BTreeMap::new();
    trials.iter().for_each(|t| groups.entry(&t.prompt_id).or_default().push(t));
    groups.into_values().collect()
}

/// Both directions of a trial: the better side has won, the worse side has lost.
fn forecasts(trial: &JudgeTrial) -> [Forecast; 2] {
    let p = trial.preference;
    [Forecast { probability: p, outcome: 1.0 }, Forecast { probability: 1.0 - p, outcome: 0.0 }]
}

/// 2 for a win of the first, 1 for a tie, 0 for a loss.
fn side(preference: f64) -> usize {
    if preference == 0.5 { 1 } else { 2 * usize::from(preference > 0.5) }
}

fn place(outcome: Outcome) -> usize {
    (2.0 * outcome.points()) as usize
}

/// A prompt's share in the calibration error, each trial in both directions.
fn gaps(trials: &[&JudgeTrial]) -> Gaps {
    let mut gaps = Gaps::default();
    for bin in reliability(&trials.iter().flat_map(|t| forecasts(t)).collect::<Vec<_>>(), BINS, Binning::Uniform) {
        let n = bin.n as f64;
        gaps.sums[(bin.lower * BINS as f64).round() as usize] = n * (bin.frequency - bin.confidence);
        gaps.n += n;
    }
    gaps
}

/// What a judge and the labels say of trials, in both directions.
fn counted(trials: &[&JudgeTrial]) -> Counts {
    let mut counts = [0.0; 9];
    for t in trials {
        let said = side(t.preference);
        counts[3 * said + 2] += 1.0;
        counts[3 * (2 - said)] += 1.0;
    }
    counts
}

/// Whether the longer side is preferred, and whether it is the better one; none where neither is longer.
fn longer(trial: &JudgeTrial) -> Option<(f64, bool)> {
    let toward_better = side(trial.preference) as f64 / 2.0;
    match trial.length_difference {
        0 => None,
        1.. => Some((toward_better, true)),
        _ => Some((1.0 - toward_better, false)),
    }
}

/// Of one prompt's trials, where the longer side is the better one and where it is the worse.
fn longer_sums(trials: &[&JudgeTrial]) -> Longer {
    let mut sums = Longer::default();
    for (prefers, is_better) in trials.iter().filter_map(|t| longer(t)) {
        let [sum, n] = if is_better { &mut sums.better } else { &mut sums.worse };
        *sum += prefers;
        *n += 1.0;
    }
    sums
}

struct Table<'a> {
    scheme: &'a Scheme<'a>,
    rows: Vec<Estimate>,
}

impl Table<'_> {
    fn push(&mut self, metric: &str, policy: Option<Policy>, judge: &str, slice: Option<&str>, measured: Option<Measured>) {
        let Some(Measured { value, interval: Interval { lower, upper }, n, clusters, method }) = measured else { return };
        self.rows.push(Estimate {
            metric: metric.to_owned(),
            variant: policy.map_or_else(String::new, |p| p.variant.to_owned()),
            checkpoint: policy.map(|p| p.checkpoint),
            seed: policy.and_then(|p| p.seed),
            judge: Some(judge.to_owned()),
            slice: slice.map(str::to_owned),
            value,
            lower,
            upper,
            level: self.scheme.level,
            n,
            clusters,
            method: method.to_owned(),
        });
    }

    fn trials(&mut self, judge: &str, trials: &[&JudgeTrial]) {
        let level = self.scheme.level;
        let groups = by_prompt(trials);
        let of = |value: &dyn Fn(&JudgeTrial) -> Option<f64>| {
            Clustered::new(trials.iter().filter_map(|t| Some((t.prompt_id.as_str(), value(t)?))))
        };
        let loss = of(&|t| Some(forecasts(t)[0].log_loss()));
        self.push("judge_log_loss", None, judge, None, mean(&loss, Range::NON_NEGATIVE, level));
        let scored = |(cluster, group): (usize, &Vec<&JudgeTrial>)| {
            let both = |t: &&JudgeTrial| [(t.preference, true), (1.0 - t.preference, false)];
            group.iter().flat_map(both).map(|(score, positive)| Scored { score, positive, cluster }).collect::<Vec<_>>()
        };
        let scored: Vec<Scored> = groups.iter().enumerate().flat_map(scored).collect();
        // Each trial is scored from both sides.
        let auc = area(&scored).and_then(|area| area.measured(level)).map(|m| Measured { n: trials.len(), ..m });
        self.push("judge_auc", None, judge, None, auc);
        // Seen from the side that the judge favours: stated between ½ and 1, and right or not.
        for bin in BINS / 2..BINS {
            let (from, to) = (bin as f64 / BINS as f64, (bin + 1) as f64 / BINS as f64);
            let stated = of(&|t| {
                let p = t.preference.max(1.0 - t.preference);
                let within = p > from && p <= to || p == from && bin == BINS / 2;
                within.then_some(side(t.preference) as f64 / 2.0)
            });
            self.push("judge_reliability", None, judge, Some(&format!("stated {from:.1} to {to:.1}")), rate(&stated, level));
        }
        let resampling = Resampling { resamples: RESAMPLES, seed: self.scheme.seed, purpose: "judge-ece" };
        let gaps: Vec<Gaps> = groups.iter().map(|group| gaps(group)).collect();
        let ece = clustered_expected_error(&gaps, resampling).map(|found| Measured {
            value: found.value,
            interval: found.interval(level),
            n: trials.len(),
            clusters: groups.len(),
            method: EXPECTED_ERROR,
        });
        self.push("judge_ece", None, judge, None, ece);
        let counts: Vec<Counts> = groups.iter().map(|group| counted(group)).collect();
        self.beyond_chance("judge", None, judge, &counts, trials.len());
        let sums: Vec<Longer> = groups.iter().map(|group| longer_sums(group)).collect();
        self.push("judge_length_bias", None, judge, None, length_bias(&sums, level));
        for (slice, close) in [("lengths within 30 characters", true), ("lengths further apart", false)] {
            let prefers = of(&|t| longer(t).filter(|_| (t.length_difference.abs() <= CLOSE_LENGTHS) == close).map(|(x, _)| x));
            self.push("judge_longer_preference", None, judge, Some(slice), rate(&prefers, level));
        }
    }

    /// κ and α from the counts of each prompt; `n` items.
    fn beyond_chance(&mut self, what: &str, policy: Option<Policy>, judge: &str, prompts: &[Counts], n: usize) {
        for (name, of) in [("kappa", kappa as fn(&Counts) -> f64), ("alpha", alpha)] {
            let measured = clustered::measured(prompts, of, n, self.scheme.level);
            self.push(&format!("{what}_{name}"), policy, judge, None, measured);
        }
    }

    fn probes(&mut self, judge: &str, probes: &[JudgeProbe]) {
        let level = self.scheme.level;
        let rows = |judge: &str, probe| {
            let of = probes.iter().filter(move |p| p.judge == judge && p.probe == probe);
            of.map(|p| (p.prompt_id.as_str(), p.preference)).collect::<Vec<_>>()
        };
        for probe in Probe::ALL {
            let preferences = rows(judge, probe);
            let name = probe.name();
            let shifted = |by: &dyn Fn(f64) -> f64| Clustered::new(preferences.iter().map(|(prompt, p)| (*prompt, by(*p))));
            match probe {
                Probe::Null | Probe::Empty => {
                    let win_rate = mean(&shifted(&|p| p), Range::UNIT, level);
                    self.push(&format!("probe_{name}_win_rate"), None, judge, None, win_rate);
                    let truth = rows(GOLD, probe);
                    if judge != GOLD && !truth.is_empty() {
                        let excess = paired_difference(preferences, truth, Range::DIFFERENCE, level);
                        self.push(&format!("probe_{name}_excess"), None, judge, None, excess);
                    }
                }
                Probe::Filler | Probe::Markdown | Probe::Injection => {
                    let gain = mean(&shifted(&|p| p - 0.5), Range::HALVES, level);
                    self.push(&format!("probe_{name}_gain"), None, judge, None, gain);
                }
                Probe::Identical => {
                    let bias = mean(&shifted(&|p| (p - 0.5).abs()), Range { lower: 0.0, upper: 0.5 }, level);
                    self.push("probe_identical_bias", None, judge, None, bias);
                    let of = probes.iter().filter(|p| p.judge == judge && p.probe == probe);
                    let effect =
                        of.filter_map(|p| Some((p.prompt_id.as_str(), position_effect_of(p.preference, p.position_effect?))));
                    let effect = mean(&Clustered::new(effect), Range::HALVES, level);
                    self.push("probe_identical_position", None, judge, None, effect);
                }
            }
        }
    }

    /// The share of questions that the judge couldn't read whole; nothing where it read all of them.
    fn truncated(&mut self, judge: &str, evidence: &Evidence) {
        let share = |truncated: bool| if truncated { 1.0 } else { 0.0 };
        let asked = evidence.judgments.iter().filter(|j| j.judge == judge && j.asked);
        let mut items: Vec<(&str, f64)> = asked.map(|j| (j.prompt_id.as_str(), share(j.truncated))).collect();
        if items.is_empty() {
            let probes = evidence.judge_probes.iter().filter(|p| p.judge == judge);
            items = probes.map(|p| (p.prompt_id.as_str(), share(p.truncated))).collect();
        }
        if items.iter().any(|(_, truncated)| *truncated > 0.0) {
            self.push("judge_truncated", None, judge, None, rate(&Clustered::new(items), self.scheme.level));
        }
    }

    /// Who agrees with whom on one policy's items.
    fn agreement(&mut self, policy: Policy, evidence: &Evidence) {
        let of = |judge: &str| {
            let rows = policy.judgments(evidence, judge);
            rows.into_iter().map(|j| (item(j), j.outcome)).collect::<BTreeMap<_, _>>()
        };
        for (panel, members) in &self.scheme.panels {
            let said: Vec<_> = members.iter().map(|member| of(member)).collect();
            let Some((first, others)) = said.split_first() else { continue };
            let mut groups: BTreeMap<&str, Vec<Vec<f64>>> = BTreeMap::new();
            for (item, outcome) in first {
                let rest = others.iter().filter_map(|member| member.get(item));
                let ratings: Vec<f64> = std::iter::once(outcome).chain(rest).map(|o| o.points()).collect();
                groups.entry(item.0).or_default().push(ratings);
            }
            let groups: Vec<Vec<Vec<f64>>> = groups.into_values().collect();
            let together = clustered_alpha(&groups, Metric::Nominal, self.scheme.level);
            self.push("panel_alpha", Some(policy), panel, None, together);
        }
        let labels = self.scheme.labels.map_or(GOLD, |(judge, _)| judge);
        let truth = of(labels);
        for judge in distinct(evidence.judgments.iter().map(|j| j.judge.as_str())) {
            let (mut prompts, mut n): (BTreeMap<&str, Counts>, usize) = (BTreeMap::new(), 0);
            for (item, said) in of(judge).iter().filter(|_| judge != labels) {
                if let Some(truth) = truth.get(item) {
                    prompts.entry(item.0).or_default()[3 * place(*said) + place(*truth)] += 1.0;
                    n += 1;
                }
            }
            self.beyond_chance("label", Some(policy), judge, &prompts.into_values().collect::<Vec<_>>(), n);
        }
    }

    /// The win rate that the labels would give, estimated from all of a judge's preferences and the labels of a few prompts: PPI++
    /// (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453), clustered by prompt.
    fn corrected(&mut self, policy: Policy, evidence: &Evidence, labels: &str, labelled: &BTreeSet<&str>) {
        let known: BTreeMap<_, f64> = policy
            .judgments(evidence, labels)
            .into_iter()
            .filter(|j| labelled.contains(j.prompt_id.as_str()))
            .map(|j| (item(j), j.preference))
            .collect();
        for judge in distinct(evidence.judgments.iter().map(|j| j.judge.as_str())).into_iter().filter(|judge| *judge != labels) {
            let mut clusters: BTreeMap<&str, usize> = BTreeMap::new();
            let rows = policy.judgments(evidence, judge);
            let mut items = Vec::with_capacity(rows.len());
            for j in rows {
                let next = clusters.len();
                let cluster = *clusters.entry(&j.prompt_id).or_insert(next);
                items.push(Predicted { judge: j.preference, label: known.get(&item(j)).copied(), cluster });
            }
            let measured = corrected_mean(&items, Tuning::Best).and_then(|corrected| {
                let interval = corrected.interval_of_few(self.scheme.level)?.within(0.0, 1.0);
                let value = corrected.value.clamp(0.0, 1.0);
                Some((corrected, Measured { value, interval, n: items.len(), clusters: clusters.len(), method: "" }))
            });
            let Some((corrected, measured)) = measured else { continue };
            self.push("win_rate_corrected", Some(policy), judge, None, Some(measured));
            let row = self.rows.last_mut().expect("pushed above");
            row.method = format!(
                "PPI++, λ = {:.2}, {} labels of {} prompts by {labels} worth {:.0}",
                corrected.lambda,
                corrected.labels,
                corrected.labelled_clusters,
                if corrected.standard_error > 0.0 { corrected.effective_labels() } else { corrected.labels as f64 }
            );
        }
    }
}

/// Prompt, seed and sample.
fn item(j: &Judgment) -> (&str, Option<u64>, u32) {
    (&j.prompt_id, j.seed, j.sample)
}

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod tests;
