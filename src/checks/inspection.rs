//! What every measure of a policy has at hand, and what it comes to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hump::HumpFit;
use super::{Crossing, Finding, Severity, crossing, finding, percent};
use crate::estimates::summary::{Evidence, Policy, reference};
use crate::estimates::{Estimate, find};
use crate::generate::Completion;
use crate::judge::GOLD;
use crate::statistics::mean::{Measured, Range, paired_difference};
use crate::suite::Suite;
use crate::suite::settings::{CheckSettings, PolicySource};

/// One measure of one of the checks O1 to O14 (METHODS, §5.2).
pub(super) struct Measure {
    /// `O3`.
    pub check: &'static str,
    /// Of its findings.
    pub id: &'static str,
    pub title: &'static str,
    /// Whether single seeds are looked at where nothing shows over all of them.
    pub by_seed: bool,
    pub look: for<'a> fn(&Inspection<'a>, Policy<'a>) -> Seen,
}

/// What a measure came to for one policy.
pub(super) enum Seen {
    /// It can't be made; goes on from "not checked, because ".
    Not(String),
    Within(Reading),
    Beyond(Box<Finding>),
}

/// A number that is within its limit, or has none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    pub n: usize,
    pub threshold: Option<f64>,
    /// What the number alone doesn't say; mostly empty.
    pub words: String,
}

impl Reading {
    pub fn of(m: &Measured, threshold: impl Into<Option<f64>>) -> Self {
        let (lower, upper) = (m.interval.lower, m.interval.upper);
        Self { value: m.value, lower, upper, n: m.n, threshold: threshold.into(), words: String::new() }
    }

    pub fn estimate(e: &Estimate, threshold: impl Into<Option<f64>>) -> Self {
        Self { value: e.value, lower: e.lower, upper: e.upper, n: e.n, threshold: threshold.into(), words: String::new() }
    }

    pub fn saying(self, words: String) -> Self {
        Self { words, ..self }
    }
}

impl From<Reading> for Seen {
    fn from(reading: Reading) -> Self {
        Self::Within(reading)
    }
}

impl From<Finding> for Seen {
    fn from(finding: Finding) -> Self {
        Self::Beyond(Box::new(finding))
    }
}

impl Seen {
    pub fn not(why: impl Into<String>) -> Self {
        Self::Not(why.into())
    }

    /// The gravest of several, the first among equals; nothing where there are none.
    pub fn gravest(all: Vec<Self>) -> Option<Self> {
        let rank = |seen: &Self| match seen {
            Self::Not(_) => 0,
            Self::Within(_) => 1,
            Self::Beyond(finding) => 2 + finding.severity as u8,
        };
        all.into_iter().rev().max_by_key(rank)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    Pass,
    Info,
    Warn,
    Fail,
    #[serde(rename = "not checked")]
    Unchecked,
}

/// What a measure of a check came to, whether it found something or not. The field order is the column order of `checks.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// `O1` to `O14`.
    pub check: String,
    /// As findings name it.
    pub id: String,
    pub title: String,
    /// Empty where it is about a judge.
    pub variant: String,
    pub checkpoint: Option<u64>,
    pub judge: Option<String>,
    pub outcome: CheckOutcome,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub threshold: Option<f64>,
    pub n: usize,
    /// Why it wasn't checked, or what else to know.
    pub message: String,
}

impl CheckRow {
    pub(super) fn new(check: &str, id: &str, title: &str) -> Self {
        Self {
            check: check.to_owned(),
            id: id.to_owned(),
            title: title.to_owned(),
            variant: String::new(),
            checkpoint: None,
            judge: None,
            outcome: CheckOutcome::Unchecked,
            value: None,
            lower: None,
            upper: None,
            threshold: None,
            n: 0,
            message: String::new(),
        }
    }

    pub(super) fn unchecked(self, why: &str) -> Self {
        Self { outcome: CheckOutcome::Unchecked, message: format!("not checked, because {why}"), ..self }
    }

    pub(super) fn within(self, r: Reading) -> Self {
        let (value, lower, upper) = (Some(r.value), Some(r.lower), Some(r.upper));
        Self { outcome: CheckOutcome::Pass, value, lower, upper, threshold: r.threshold, n: r.n, message: r.words, ..self }
    }

    pub(super) fn found(self, f: &Finding) -> Self {
        let outcome = match f.severity {
            Severity::Info => CheckOutcome::Info,
            Severity::Warn => CheckOutcome::Warn,
            Severity::Fail => CheckOutcome::Fail,
        };
        let message = f.seed.map_or_else(String::new, |seed| format!("seed {seed}"));
        let (value, lower, upper, threshold) = (f.value, f.lower, f.upper, f.threshold);
        Self { outcome, value, lower, upper, threshold, n: f.n, message, ..self }
    }
}

/// One variant at its last checkpoint.
pub(super) struct Inspection<'a> {
    pub suite: &'a Suite,
    pub evidence: &'a Evidence<'a>,
    pub estimates: &'a [Estimate],
    pub variant: &'a str,
    pub last: u64,
    /// Of this variant.
    pub humps: &'a [HumpFit],
    /// Why there is none.
    pub no_hump: Option<String>,
}

impl<'a> Inspection<'a> {
    pub fn limits(&self) -> &CheckSettings {
        &self.suite.checks
    }

    pub fn level(&self) -> f64 {
        self.suite.statistics.level
    }

    /// Who chooses, where the variant is the best of several completions.
    pub fn chooser(&self) -> Option<&'a str> {
        match &self.suite.variant(self.variant)?.policy {
            PolicySource::BestOfN(best) => Some(&best.reward_model),
            _ => None,
        }
    }

    /// What to do about a policy that went too far: `trained` as it was trained.
    pub fn milder(&self, trained: &'static str) -> &'static str {
        if self.chooser().is_some() { "choose from fewer completions (`best_of_n`)" } else { trained }
    }

    /// A checkpoint in words.
    pub fn place(&self, checkpoint: u64) -> String {
        if self.chooser().is_some() { format!("n = {checkpoint}") } else { format!("checkpoint {checkpoint}") }
    }

    pub fn last_in_words(&self) -> String {
        if self.chooser().is_some() { self.place(self.last) } else { "the last checkpoint".to_owned() }
    }

    /// What to do where an earlier checkpoint was better.
    pub fn back_to(&self, checkpoint: u64) -> String {
        match self.chooser() {
            Some(_) => format!("take the best of {checkpoint}, or train the reward model on more pairs"),
            None => format!("take checkpoint {checkpoint}, or raise beta"),
        }
    }

    /// How there would be more checkpoints. `trained`: of a policy that is trained.
    pub fn more_checkpoints(&self, trained: &str) -> String {
        if self.chooser().is_some() { "give `best_of_n` more numbers".to_owned() } else { trained.to_owned() }
    }

    pub fn deciding(&self) -> &'a str {
        &self.suite.compare.judge
    }

    /// Gold where the truth is known, else whoever corrects the judges.
    pub fn truth(&self) -> Option<&'a str> {
        let judged = |judge: &&str| self.evidence.judgments.iter().any(|j| j.judge == **judge);
        let labels = self.suite.statistics.labels.as_ref().map(|labels| labels.judge.as_str());
        Some(GOLD).filter(judged).or(labels.filter(judged))
    }

    pub fn estimate(&self, metric: &str, policy: Policy<'a>) -> Option<&'a Estimate> {
        find(self.estimates, metric, policy.variant, Some(policy.checkpoint), policy.seed, None)
    }

    pub fn win_rate(&self, policy: Policy<'a>, judge: &str) -> Option<&'a Estimate> {
        find(self.estimates, "win_rate", policy.variant, Some(policy.checkpoint), policy.seed, Some(judge))
    }

    /// Prompts and what the judge thinks of the policy's answers.
    pub fn preferences(&self, policy: Policy<'a>, judge: &str) -> Vec<(&'a str, f64)> {
        policy.judgments(self.evidence, judge).into_iter().map(|j| (j.prompt_id.as_str(), j.preference)).collect()
    }

    /// The checkpoints that a judge has judgments of, ascending.
    pub fn judged_checkpoints(&self, judge: &str) -> Vec<u64> {
        let own = self.evidence.judgments.iter().filter(|j| j.judge == judge && j.variant == self.variant);
        let mut checkpoints: Vec<u64> = own.map(|j| j.checkpoint).filter(|c| *c <= self.last).collect();
        checkpoints.sort_unstable();
        checkpoints.dedup();
        checkpoints
    }

    /// Prompts, and the first checkpoint at which the metric was beyond the threshold already.
    pub fn since(&self, e: &Estimate, beyond: impl Fn(f64) -> bool) -> String {
        let mut checkpoints: Vec<u64> = self
            .estimates
            .iter()
            .filter(|o| o.metric == e.metric && o.variant == e.variant && o.seed == e.seed && beyond(o.value))
            .filter_map(|o| o.checkpoint)
            .collect();
        checkpoints.sort_unstable();
        let first = checkpoints.first().copied().unwrap_or(self.last);
        format!("{} rows of {} prompts at checkpoint {}, beyond since checkpoint {first}", e.n, e.clusters, self.last)
    }

    /// The claim that a finding about the policy endangers.
    pub fn claim(&self, policy: Policy<'a>) -> String {
        let shown = |e: &Estimate| {
            let place = format!("of `{}` by judge `{}` at checkpoint {}", e.variant, self.deciding(), self.last);
            format!("the win rate {place}: {}", percent(e.value, e.lower, e.upper))
        };
        self.win_rate(policy, self.deciding()).map_or_else(String::new, shown)
    }

    /// Policy minus reference of a property of completions, paired by prompt.
    fn rise(&self, policy: Policy<'a>, value: impl Fn(&Completion) -> f64) -> Option<Measured> {
        let of = |rows: Vec<&'a Completion>| -> Vec<(&'a str, f64)> {
            rows.into_iter().map(|c| (c.prompt_id.as_str(), value(c))).collect()
        };
        let (new, old) = (of(policy.completions(self.evidence)), of(reference(self.evidence)));
        paired_difference(new, old, Range::DIFFERENCE, self.level())
    }

    /// The prompts on which a property of completions lies furthest above the reference's.
    pub fn foremost(&self, policy: Policy<'a>, value: impl Fn(&Completion) -> f64) -> String {
        let of = |rows: Vec<&'a Completion>| rows.into_iter().map(|c| (c.prompt_id.as_str(), value(c))).collect::<Vec<_>>();
        foremost(of(policy.completions(self.evidence)), of(reference(self.evidence)))
    }

    /// A rise of a share that is within the limit, or not. `what` goes on from "rose over the reference's by 3 %: ".
    pub fn risen(&self, policy: Policy<'a>, value: impl Fn(&Completion) -> f64, limit: f64, about: Rise) -> Seen {
        let Some(rise) = self.rise(policy, &value) else { return Seen::not("the reference's completions aren't among the rows") };
        let Some(Crossing { severity, threshold }) = crossing(rise.value, rise.interval.lower, limit, limit) else {
            return Reading::of(&rise, limit).into();
        };
        let size = percent(rise.value, rise.interval.lower, rise.interval.upper);
        let message = format!(
            "{} of `{}`{} {} rose over the reference's by {size}, beyond {:.1} %: {}",
            about.subject,
            policy.variant,
            super::by_seed(policy),
            about.what,
            100.0 * threshold,
            about.claim
        );
        let evidence = format!(
            "{} prompts at checkpoint {}, policy against reference{}",
            rise.clusters,
            self.last,
            self.foremost(policy, value)
        );
        finding(about.id, severity, Some(policy)).measurement(&rise).words(threshold, message, evidence, about.hint).into()
    }
}

/// Prompts that evidence names.
const NAMED: usize = 3;

/// Goes on after evidence: the prompts whose mean in `new` lies furthest above that in `old`, so that someone can read what happened there.
/// A prompt that `old` lacks is held against zero.
pub(super) fn foremost<'a>(
    new: impl IntoIterator<Item = (&'a str, f64)>,
    old: impl IntoIterator<Item = (&'a str, f64)>,
) -> String {
    let mut prompts: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    new.into_iter().for_each(|(prompt, value)| prompts.entry(prompt).or_default()[0].push(value));
    old.into_iter().for_each(|(prompt, value)| prompts.entry(prompt).or_default()[1].push(value));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let above = |(prompt, [new, old]): (&'a str, [Vec<f64>; 2])| (!new.is_empty()).then(|| (prompt, mean(&new) - mean(&old)));
    let mut found: Vec<(&str, f64)> = prompts.into_iter().filter_map(above).filter(|(_, above)| *above > 0.0).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let names: Vec<String> = found.iter().take(NAMED).map(|(prompt, _)| format!("`{prompt}`")).collect();
    if names.is_empty() { String::new() } else { format!("; furthest on {}", names.join(", ")) }
}

/// The words of a share that rose.
pub(super) struct Rise {
    pub id: &'static str,
    pub subject: &'static str,
    pub what: &'static str,
    pub claim: &'static str,
    pub hint: &'static str,
}
