//! Rows and estimates in, findings out; and what was measured though nothing was found, or why it wasn't.
//!
//! | file | check | findings |
//! |---|---|---|
//! | `audit` | | what the data audit counted: overlap of splits, duplicates, truncation |
//! | `proxy` | O1 | `proxy-gold-divergence`, `judge-gold-disagreement` |
//! | `hump` | O2 | `win-rate-hump`, `win-rate-peak` |
//! | `kl` | O3 | `kl-budget`, `kl-per-token`, `kl-disagreement` |
//! | `displacement` | O4 | `chosen-displacement`, `chosen-fell`; CHES |
//! | `opposites` | O5 | `opposite-rise`, `refusal-drop` |
//! | `saturation` | O6 | `accuracy-gap`, `margin-saturation` |
//! | `decoupling` | O7 | `accuracy-decoupled`, `ranking-decoupled` |
//! | `lengths` | O8 | `length-drift`, `length-beyond-chosen`, `no-eos` |
//! | `length_gain` | O9 | `length-gain`, `length-matched` |
//! | `length_coupling` | O10 | `length-coupling` |
//! | `diversity` | O11 | `entropy-collapse`, `distinct-collapse`, `self-bleu` |
//! | `degeneration` | O12 | `repetition`, `loops`, `empty`, `special-tokens`, `other-script` |
//! | `panel` | O13 | `judge-gap`, `judge-agreement` |
//! | `judges` | O13, O14 | `judge-unfit`, `judge-accuracy`, `judge-null`, `judge-empty`, `judge-filler`, `judge-markdown`, `judge-injection`, `judge-identical`, `judge-length`, `judge-truncated`, `judge-unprobed`, `judge-missing`, `judge-position`, `judge-labels`, `judge-rewards`, `labels-few`, `panel-disagreement` |
//! | `sequential` | | `stopped-early` |
//! | `study` | | methods compared over all their runs, and the suite's claims decided |
//! | `unasked` | | what can't be asked of policies that are decoded differently rather than trained |
//! | `conclusion` | | better, worse, undecided or void: one answer a variant |
//!
//! One rule of severity throughout: a point estimate beyond its threshold warns; a failure needs the whole interval beyond.
//! A policy is inspected at its last checkpoint, over all seeds together and, where nothing shows, seed by seed.

mod audit;
mod conclusion;
mod decoupling;
mod degeneration;
mod displacement;
mod diversity;
mod hump;
mod inspection;
mod judges;
mod kl;
mod length_coupling;
mod length_gain;
mod lengths;
mod opposites;
mod panel;
mod proxy;
mod saturation;
mod sequential;
mod study;
mod unasked;

use serde::{Deserialize, Serialize};

use crate::data::AuditItem;
use crate::estimates::Estimate;
use crate::estimates::summary::{Evidence, Policy};
use crate::statistics::mean::Measured;
use crate::suite::Suite;
use crate::suite::settings::JudgeSettings;

pub use conclusion::conclude;
pub use hump::{HumpFit, Ranged};
pub use inspection::{CheckOutcome, CheckRow};
pub use sequential::stopped;
pub use study::{ClaimResult, Decision, Fitted, MethodFit, Study, StudyPoint, study};

use inspection::{Inspection, Measure, Seen};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warn,
    Fail,
}

/// Something a reader must know before trusting a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identifier, `kl-budget` say.
    pub id: String,
    /// Of the checks O1 to O14; empty where it is of none.
    #[serde(default)]
    pub check: String,
    pub severity: Severity,
    pub variant: String,
    pub checkpoint: Option<u64>,
    pub seed: Option<u64>,
    /// One sentence: what was seen, with its numbers.
    pub message: String,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub threshold: Option<f64>,
    pub n: usize,
    /// What it rests on: prompts, checkpoints.
    pub evidence: String,
    /// What to do.
    pub hint: String,
    /// The claim that it endangers; empty where there is none.
    #[serde(default)]
    pub claim: String,
}

/// Is this variant better than the reference, by the deciding judge, at its last checkpoint?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    pub variant: String,
    pub answer: Answer,
    pub win_rate: Estimate,
    /// The same by gold, where the truth is known.
    pub gold_win_rate: Option<Estimate>,
    /// One sentence for people.
    pub sentence: String,
    /// When undecided: about how many prompts would decide it.
    pub prompts_needed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Better,
    Worse,
    Undecided,
    /// The judge is unfit: its win rate says nothing.
    Void,
}

/// The measures of policies, in the order of the checks.
const MEASURES: [&[Measure]; 13] = [
    proxy::MEASURES,
    hump::MEASURES,
    kl::MEASURES,
    displacement::MEASURES,
    opposites::MEASURES,
    saturation::MEASURES,
    decoupling::MEASURES,
    lengths::MEASURES,
    length_gain::MEASURES,
    length_coupling::MEASURES,
    diversity::MEASURES,
    degeneration::MEASURES,
    panel::MEASURES,
];

/// What an inspection gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inspected {
    /// First what the audit found, then the judges, then the variants, each in suite order.
    pub findings: Vec<Finding>,
    /// Every measure of every variant, then of every judge.
    pub checks: Vec<CheckRow>,
    pub humps: Vec<HumpFit>,
}

/// Everything that a reader must know before trusting the estimates.
pub fn inspect(suite: &Suite, evidence: &Evidence, estimates: &[Estimate], audit: &[AuditItem]) -> Inspected {
    let mut all = Inspected { findings: audit::findings(audit, suite.dataset.audit_limits()), ..Inspected::default() };
    let mut about_judges = Vec::new();
    for judge in &suite.judges {
        all.findings.extend(judges::findings(suite, judge, evidence, estimates));
        about_judges.extend(judges::rows(suite, judge, estimates));
    }
    all.findings.extend(judges::too_few_labels(suite, evidence));
    for variant in &suite.variants {
        let Some(last) = last_checkpoint(estimates, &variant.name) else { continue };
        let (humps, no_hump) = hump::fits(suite, evidence, variant, last);
        let this = Inspection { suite, evidence, estimates, variant: &variant.name, last, humps: &humps, no_hump };
        for measure in MEASURES.into_iter().flatten() {
            let (row, findings) = match unasked::why(variant, measure) {
                Some(why) => (row_of(&this, measure).unchecked(&why), Vec::new()),
                None => looked(&this, measure),
            };
            all.checks.push(row);
            all.findings.extend(findings);
        }
        all.humps.extend(humps);
    }
    all.checks.extend(about_judges);
    all
}

fn row_of(this: &Inspection, measure: &Measure) -> CheckRow {
    CheckRow {
        variant: this.variant.to_owned(),
        checkpoint: Some(this.last),
        ..CheckRow::new(measure.check, measure.id, measure.title)
    }
}

/// What shows over all seeds together; where nothing does, what shows in single seeds.
fn looked<'a>(this: &Inspection<'a>, measure: &Measure) -> (CheckRow, Vec<Finding>) {
    let policy = |seed| Policy { variant: this.variant, checkpoint: this.last, seed };
    let row = row_of(this, measure);
    let named = |found: Finding, policy| Finding { check: measure.check.to_owned(), claim: this.claim(policy), ..found };
    let reading = match (measure.look)(this, policy(None)) {
        Seen::Not(why) => return (row.unchecked(&why), Vec::new()),
        Seen::Beyond(found) => return (row.found(&found), vec![named(*found, policy(None))]),
        Seen::Within(reading) => reading,
    };
    let mut findings = Vec::new();
    for &seed in this.suite.seeds.iter().filter(|_| measure.by_seed && this.suite.seeds.len() > 1) {
        if let Seen::Beyond(found) = (measure.look)(this, policy(Some(seed))) {
            findings.push(named(*found, policy(Some(seed))));
        }
    }
    let row = match findings.iter().max_by_key(|found| found.severity) {
        Some(found) => row.found(found),
        None => row.within(reading),
    };
    (row, findings)
}

/// What trials and probes say of one judge by itself: why its win rates would be void, if they would, and everything else to know.
pub fn judge_fitness(judge: &JudgeSettings, position_warn: f64, estimates: &[Estimate]) -> (Option<String>, Vec<Finding>) {
    let role = judges::Role { judge, decides: true, corrects: false, position_warn };
    (judges::voided_by(judge, estimates), judges::about_itself(role, false, estimates))
}

/// The last checkpoint of which anything is known.
fn last_checkpoint(estimates: &[Estimate], variant: &str) -> Option<u64> {
    estimates.iter().filter(|e| e.variant == variant).filter_map(|e| e.checkpoint).max()
}

/// A value that is too much, with the threshold that it crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Crossing {
    severity: Severity,
    threshold: f64,
}

/// Whether `value` (with the lower limit of its interval) is above `fail` for sure, or above `warn` at all.
fn crossing(value: f64, lower: f64, warn: f64, fail: f64) -> Option<Crossing> {
    if lower > fail {
        Some(Crossing { severity: Severity::Fail, threshold: fail })
    } else if value > warn {
        Some(Crossing { severity: Severity::Warn, threshold: warn })
    } else {
        None
    }
}

/// The same for a value that is too little: `value` and the upper limit of its interval below `fail`, or `warn`.
fn falling(value: f64, upper: f64, warn: f64, fail: f64) -> Option<Crossing> {
    crossing(-value, -upper, -warn, -fail).map(|c| Crossing { threshold: -c.threshold, ..c })
}

/// A finding without its words.
fn finding(id: &str, severity: Severity, policy: Option<Policy>) -> Finding {
    Finding {
        id: id.to_owned(),
        check: String::new(),
        severity,
        variant: policy.map_or_else(String::new, |p| p.variant.to_owned()),
        checkpoint: policy.map(|p| p.checkpoint),
        seed: policy.and_then(|p| p.seed),
        message: String::new(),
        value: None,
        lower: None,
        upper: None,
        threshold: None,
        n: 0,
        evidence: String::new(),
        hint: String::new(),
        claim: String::new(),
    }
}

impl Finding {
    fn measured(mut self, value: f64, lower: f64, upper: f64, n: usize) -> Self {
        (self.value, self.lower, self.upper, self.n) = (Some(value), Some(lower), Some(upper), n);
        self
    }

    fn estimate(self, e: &Estimate) -> Self {
        self.measured(e.value, e.lower, e.upper, e.n)
    }

    fn measurement(self, m: &Measured) -> Self {
        self.measured(m.value, m.interval.lower, m.interval.upper, m.n)
    }

    fn words(mut self, threshold: f64, message: String, evidence: String, hint: &str) -> Self {
        self.threshold = Some(threshold);
        (self.message, self.evidence, self.hint) = (message, evidence, hint.to_owned());
        self
    }
}

/// A fraction and its interval in percent: `71.3 % [65.2, 77.0]`.
pub(crate) fn percent(value: f64, lower: f64, upper: f64) -> String {
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * value, 100.0 * lower, 100.0 * upper)
}

/// The same for a number as it is.
fn number(value: f64, lower: f64, upper: f64) -> String {
    format!("{value:.2} [{lower:.2}, {upper:.2}]")
}

fn by_seed(policy: Policy) -> String {
    policy.seed.map_or_else(String::new, |seed| format!(" (seed {seed})"))
}

#[cfg(test)]
mod tests;
