//! O2: has the win rate passed its peak over the distance from the reference, d = √KL?
//!
//! Two views. The plain one: the win rate at the last checkpoint against the earlier one from which it fell most, paired by prompt. The
//! fitted one: R(d) = d (α − β log d) for the win rate above one half (Gao et al. 2022, arXiv 2210.10760; Rafailov et al. 2024, arXiv
//! 2406.02900, §4, fit it to judged win rates of DPO, IPO and SLiC) with its peak d* = exp(α / β − 1), prompts and checkpoints
//! resampled together, and from it the checkpoint to stop at. A quadratic in d is fitted beside it. Of the best of n completions the form is
//! Gao's other one, d (α − β d), with its peak at α / 2β.

use serde::{Deserialize, Serialize};

use super::inspection::{Inspection, Measure, Reading, Seen, foremost};
use super::{Crossing, Severity, by_seed, crossing, finding, number, percent};
use crate::estimates::summary::{Evidence, Policy};
use crate::judge::GOLD;
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::interval::Interval;
use crate::statistics::mean::{Measured, Range, in_common, paired_difference};
use crate::statistics::overoptimisation::{Checkpoint, Form, Hump, Quadratic, hump};
use crate::suite::Suite;
use crate::suite::settings::{PolicySource, Variant};

/// Checkpoints below which two parameters and a peak say little.
const FEWEST: usize = 5;
const RESAMPLES: usize = 1000;
/// Points of the drawn curve.
const DRAWN: usize = 40;

/// Of distances over the peak's: of one at the reference itself nothing more is to be said.
const FARTHEST: f64 = 10.0;

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O2", id: "win-rate-hump", title: "Win rate, last minus best checkpoint", by_seed: true, look: drop },
    Measure {
        check: "O2",
        id: "win-rate-peak",
        title: "Distance of the last checkpoint over the fitted peak's, ten at most",
        by_seed: false,
        look: peak,
    },
];

/// A value with its interval; none of it where it can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ranged {
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Ranged {
    pub(super) fn of(value: f64, bootstrap: Option<&Bootstrap>, level: f64) -> Self {
        let around = bootstrap.map_or(Interval { lower: value, upper: value }, |b| b.percentile(level));
        Self { value, lower: around.lower, upper: around.upper }
    }
}

/// The win rate over the distance from the reference as it was fitted, for the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HumpFit {
    pub variant: String,
    pub judge: String,
    /// Whether win rate − ½ = d (α − β d), as of the best of n; else it is d (α − β log d).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best_of_n: bool,
    pub alpha: f64,
    pub beta: f64,
    /// Root of the KL at the last checkpoint.
    pub last_distance: f64,
    /// Of the peak: distance and win rate; none for a curve that only rises. Their intervals are those of the resamples that have one
    /// before the last checkpoint.
    pub peak_distance: Option<Ranged>,
    pub peak_win_rate: Option<Ranged>,
    /// By how much the fit at the last checkpoint lies below the peak.
    pub drop: Option<Ranged>,
    /// Share of resamples whose peak lies before the last checkpoint.
    pub falls: f64,
    /// Where a quadratic in d is highest.
    pub quadratic_peak: Option<f64>,
    /// The step of the checkpoint (or n) whose fitted win rate is highest.
    pub recommended_stop: u64,
    pub checkpoints: usize,
    pub prompts: usize,
    /// Distance, fitted win rate, and the limits of its band.
    pub curve: Vec<[f64; 4]>,
}

/// The last checkpoint against the earlier one from which the win rate fell most.
pub(super) struct Drop {
    pub from: u64,
    pub measured: Measured,
    pub checkpoints: usize,
}

/// The best of k earlier checkpoints is partly the luckiest, so each difference has level 1 − (1 − level) / k (Bonferroni).
pub(super) fn largest_drop<'a>(this: &Inspection<'a>, policy: Policy<'a>, judge: &str) -> Option<Drop> {
    let mut earlier = this.judged_checkpoints(judge);
    earlier.retain(|c| *c < policy.checkpoint);
    let corrected = 1.0 - (1.0 - this.level()) / earlier.len().max(1) as f64;
    let last = this.preferences(policy, judge);
    let drop = |from: &u64| {
        let before = this.preferences(Policy { checkpoint: *from, ..policy }, judge);
        let measured = paired_difference(last.clone(), before, Range::DIFFERENCE, corrected)?;
        Some(Drop { from: *from, measured, checkpoints: earlier.len() + 1 })
    };
    earlier.iter().filter_map(drop).min_by(|a, b| a.measured.value.total_cmp(&b.measured.value))
}

/// By whom the hump is looked at: the judge that decides, and gold.
fn judges(suite: &Suite) -> Vec<&str> {
    let deciding = suite.compare.judge.as_str();
    [Some(deciding), (deciding != GOLD).then_some(GOLD)].into_iter().flatten().collect()
}

fn drop<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let limit = this.limits().more.drop_fail;
    let by = |judge: &str| -> Option<Seen> {
        let found = largest_drop(this, policy, judge)?;
        let Drop { from, measured, checkpoints } = &found;
        let fell = Some(measured).filter(|m| m.interval.upper < 0.0);
        let Some(Crossing { severity, .. }) = fell.and_then(|m| crossing(-m.value, -m.interval.upper, 0.0, limit)) else {
            return Some(Reading::of(measured, -limit).saying(format!("against {}, by `{judge}`", this.place(*from))).into());
        };
        let message = format!(
            "the win rate of `{}`{} by judge `{judge}` fell by {} from {} to {}: the last checkpoint is over-optimised",
            policy.variant,
            by_seed(policy),
            percent(-measured.value, -measured.interval.upper, -measured.interval.lower),
            this.place(*from),
            this.place(policy.checkpoint)
        );
        let before = this.preferences(Policy { checkpoint: *from, ..policy }, judge);
        let furthest = foremost(before, this.preferences(policy, judge));
        let evidence = format!("{} prompts at {checkpoints} checkpoints, paired{furthest}", measured.clusters);
        let hint = this.back_to(*from);
        let found = finding("win-rate-hump", severity, Some(policy)).measurement(measured);
        Some(found.words(-limit, message, evidence, &hint).into())
    };
    let all = judges(this.suite).into_iter().filter_map(by).collect();
    let more = this.more_checkpoints("set `save_steps`");
    Seen::gravest(all).unwrap_or_else(|| Seen::not(format!("there is one checkpoint with judgments: {more}")))
}

/// The fits of a variant over all seeds, or why there is none.
pub(super) fn fits(suite: &Suite, evidence: &Evidence, variant: &Variant, last: u64) -> (Vec<HumpFit>, Option<String>) {
    let mut found = Vec::new();
    let mut why = None;
    for judge in judges(suite) {
        match fit(suite, evidence, variant, last, judge) {
            Ok(fit) => found.push(fit),
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    (found, why)
}

fn fit(suite: &Suite, evidence: &Evidence, of: &Variant, last: u64, judge: &str) -> Result<HumpFit, String> {
    let variant = of.name.as_str();
    let (form, more) = match of.policy {
        PolicySource::BestOfN(_) => (Form::BestOfN, "give `best_of_n` more numbers"),
        _ => (Form::Learning, "lower `save_steps`"),
    };
    let own = evidence.judgments.iter().filter(|j| j.judge == judge && j.variant == variant && j.checkpoint <= last);
    let mut steps: Vec<u64> = own.map(|j| j.checkpoint).collect();
    steps.sort_unstable();
    steps.dedup();
    if steps.len() < FEWEST {
        return Err(format!("a peak takes {FEWEST} checkpoints at least, and there are {}: {more}", steps.len()));
    }
    let checkpoints: Vec<Checkpoint> = steps.iter().map(|step| at(evidence, variant, *step, judge)).collect();
    let prompts = checkpoints[0].kl.len();
    if prompts < 2 || checkpoints.iter().any(|c| c.kl.len() != prompts) {
        return Err("checkpoints weren't judged on the same prompts".to_owned());
    }
    let resampling = Resampling { resamples: RESAMPLES, seed: suite.seed, purpose: "checks/hump" };
    let Some(found) = hump(&checkpoints, form, resampling) else {
        return Err("the checkpoints are too alike in their distance to fit two parameters".to_owned());
    };
    Ok(described(suite, variant, judge, &steps, &checkpoints, &found))
}

/// KL and preference above one half, prompt by prompt.
fn at(evidence: &Evidence, variant: &str, checkpoint: u64, judge: &str) -> Checkpoint {
    let policy = Policy { variant, checkpoint, seed: None };
    let kl: Vec<(&str, f64)> =
        policy.completions(evidence).into_iter().filter_map(|c| Some((c.prompt_id.as_str(), c.kl?))).collect();
    let judged: Vec<(&str, f64)> =
        policy.judgments(evidence, judge).into_iter().map(|j| (j.prompt_id.as_str(), j.preference - 0.5)).collect();
    let both = in_common(&kl, &judged);
    Checkpoint { kl: both.iter().map(|pair| pair[0]).collect(), reward: both.iter().map(|pair| pair[1]).collect() }
}

fn described(suite: &Suite, variant: &str, judge: &str, steps: &[u64], checkpoints: &[Checkpoint], found: &Hump) -> HumpFit {
    let level = suite.statistics.level;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let points: Vec<(f64, f64)> = checkpoints.iter().map(|c| (mean(&c.kl).max(0.0).sqrt(), mean(&c.reward))).collect();
    let distances: Vec<f64> = points.iter().map(|(d, _)| *d).collect();
    let furthest = distances.iter().copied().fold(0.0, f64::max);
    let last_distance = *distances.last().expect("a checkpoint");
    let best = (0..steps.len()).max_by(|a, b| found.fit.at(distances[*a]).total_cmp(&found.fit.at(distances[*b])));
    let peak = found.peak;
    let drawn = |i: usize| {
        let d = furthest * (i + 1) as f64 / DRAWN as f64;
        found.band(d, level).map(|(value, band)| [d, 0.5 + value, 0.5 + band.lower, 0.5 + band.upper])
    };
    let above_half = |r: Ranged| Ranged { value: 0.5 + r.value, lower: 0.5 + r.lower, upper: 0.5 + r.upper };
    HumpFit {
        variant: variant.to_owned(),
        judge: judge.to_owned(),
        best_of_n: found.fit.form == Form::BestOfN,
        alpha: found.fit.alpha,
        beta: found.fit.beta,
        last_distance,
        peak_distance: peak.map(|p| Ranged::of(p.d, found.distance.as_ref(), level)).filter(|r| r.value.is_finite()),
        peak_win_rate: peak.map(|p| above_half(Ranged::of(p.reward, found.reward.as_ref(), level))),
        drop: peak.map(|p| Ranged::of(p.reward - found.fit.at(last_distance), found.drop.as_ref(), level)),
        falls: found.falls,
        quadratic_peak: Quadratic::new(&points).and_then(|fit| fit.vertex()),
        recommended_stop: steps[best.expect("a checkpoint")],
        checkpoints: steps.len(),
        prompts: checkpoints[0].kl.len(),
        curve: (0..DRAWN).filter_map(drawn).collect(),
    }
}

fn peak<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let all = this.humps.iter().map(|fit| passed(this, policy, fit)).collect();
    Seen::gravest(all).unwrap_or_else(|| Seen::not(this.no_hump.clone().unwrap_or_else(|| "nothing was judged".to_owned())))
}

/// The last checkpoint's distance over the peak's: above 1 the run went too far.
fn passed<'a>(this: &Inspection<'a>, policy: Policy<'a>, fit: &HumpFit) -> Seen {
    let limits = &this.limits().more;
    let HumpFit { judge, last_distance: last, recommended_stop: stop, .. } = fit;
    let (Some(distance), Some(drop), Some(rate)) = (fit.peak_distance, fit.drop, fit.peak_win_rate) else {
        let rising = Reading {
            value: 0.0,
            lower: 0.0,
            upper: 0.0,
            n: fit.prompts,
            threshold: Some(limits.peak_warn),
            words: String::new(),
        };
        return rising.saying(format!("by `{judge}` the fit has no peak: the win rate still rises")).into();
    };
    let ratio = |d: f64| if FARTHEST * d > *last { last / d } else { FARTHEST };
    let value = ratio(distance.value);
    // Resamples without a peak before the last checkpoint are none that lies below it: the interval holds 1 unless nearly all have one.
    let sure = fit.falls >= this.level();
    let (lower, upper) = (if sure { ratio(distance.upper) } else { value.min(1.0) }, ratio(distance.lower).max(value));
    let reading = Reading { value, lower, upper, n: fit.prompts, threshold: Some(limits.peak_warn), words: String::new() };
    let fell = value > 1.0 && sure && drop.lower > 0.0 && drop.value > limits.drop_fail;
    let severity = if fell { Severity::Fail } else { Severity::Warn };
    if value <= limits.peak_warn {
        return reading.saying(format!("by `{judge}`")).into();
    }
    let place = if value > 1.0 {
        let by = percent(drop.value, drop.lower, drop.upper);
        let sure = format!("{:.0} % of resamples agree", 100.0 * fit.falls);
        format!("and {} lies beyond it at {last:.2}, where the fit is lower by {by} ({sure})", this.last_in_words())
    } else {
        format!("and {} is near it at {last:.2}", this.last_in_words())
    };
    let message = format!(
        "the win rate of `{}` by judge `{judge}` peaks at √KL {} with {}, {place}",
        policy.variant,
        number(distance.value, distance.lower, distance.upper),
        percent(rate.value, rate.lower, rate.upper)
    );
    let evidence = format!("{} checkpoints, {} prompts, resampled together", fit.checkpoints, fit.prompts);
    let hint = match fit.best_of_n {
        true => format!("recommended stop: the best of {stop}; choosing from more costs more than it brings"),
        false => format!("recommended stop: checkpoint {stop}; further training costs more than it brings"),
    };
    let found = finding("win-rate-peak", severity, Some(policy)).measured(value, lower, upper, fit.prompts);
    found.words(limits.peak_warn, message, evidence, &hint).into()
}
