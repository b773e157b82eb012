//! O6: are the training pairs learnt by heart? (Azar et al. 2023, "A General Theoretical Paradigm", arXiv 2310.12036: DPO's margins grow
//! without bound on pairs that are labelled without doubt; Rafailov et al. 2024, arXiv 2406.02900.)
//!
//! The implicit-reward accuracy on training pairs minus that on held-out pairs, and the share of training pairs whose implicit preference
//! σ(margin) is above 0.99.

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Crossing, Severity, by_seed, crossing, finding, percent};
use crate::estimates::summary::{Policy, above, margin, yes};
use crate::statistics::interval::Interval;
use crate::statistics::logistic::logistic;
use crate::statistics::mean::{Clustered, Measured, rate};
use crate::train::PairScore;

/// An implicit preference that leaves no doubt.
const CERTAIN: f64 = 0.99;
const NO_TRAIN: &str = "no training pairs were scored";

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        check: "O6",
        id: "accuracy-gap",
        title: "Implicit-reward accuracy, training minus held-out",
        by_seed: true,
        look: gap,
    },
    Measure {
        check: "O6",
        id: "margin-saturation",
        title: "Share of training pairs preferred above 0.99",
        by_seed: true,
        look: saturation,
    },
];

fn share(rows: &[&PairScore], value: impl Fn(&PairScore) -> f64, level: f64) -> Option<Measured> {
    rate(&Clustered::new(rows.iter().map(|p| (p.prompt_id.as_str(), value(p)))), level)
}

fn gap<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let accuracy = |rows: &[&PairScore]| share(rows, |p| above(margin(p), 0.0), this.level());
    let Some(train) = accuracy(&policy.among(this.evidence.train_scores)) else { return Seen::not(NO_TRAIN) };
    let Some(heldout) = accuracy(&policy.pair_scores(this.evidence)) else { return Seen::not("there are no held-out pairs") };
    let gap = difference(&train, &heldout);
    let limits = &this.limits().more;
    // Of few pairs a gap is easily chance: it warns where there surely is one.
    let sure = Some(&gap).filter(|gap| gap.interval.lower > 0.0);
    let crossed =
        sure.and_then(|gap| crossing(gap.value, gap.interval.lower, limits.accuracy_gap_warn, limits.accuracy_gap_fail));
    let Some(Crossing { severity, threshold }) = crossed else { return Reading::of(&gap, limits.accuracy_gap_warn).into() };
    let message = format!(
        "`{}`{} ranks {} of training pairs as they are labelled and {} of held-out pairs, {} more: it learnt its pairs by heart, not what makes one text better",
        policy.variant,
        by_seed(policy),
        percent(train.value, train.interval.lower, train.interval.upper),
        percent(heldout.value, heldout.interval.lower, heldout.interval.upper),
        percent(gap.value, gap.interval.lower, gap.interval.upper)
    );
    let evidence = format!("{} training and {} held-out pairs at checkpoint {}", train.n, heldout.n, this.last);
    let hint = "train for fewer epochs or on more pairs, raise beta, and look for wrong labels";
    finding("accuracy-gap", severity, Some(policy)).measurement(&gap).words(threshold, message, evidence, hint).into()
}

/// Of two independent shares, from their own intervals (Newcombe 1998, method 10; Donner & Zou 2012 for clusters).
fn difference(a: &Measured, b: &Measured) -> Measured {
    let value = a.value - b.value;
    let root = |x: f64, y: f64| (x * x + y * y).sqrt();
    let interval = Interval {
        lower: value - root(a.value - a.interval.lower, b.interval.upper - b.value),
        upper: value + root(a.interval.upper - a.value, b.value - b.interval.lower),
    };
    let (n, clusters) = (a.n + b.n, a.clusters + b.clusters);
    Measured { value, interval, n, clusters, method: "difference of shares, Newcombe" }
}

fn saturation<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let rows = policy.among(this.evidence.train_scores);
    let Some(certain) = share(&rows, |p| yes(logistic(margin(p)) > CERTAIN), this.level()) else { return Seen::not(NO_TRAIN) };
    let limit = this.limits().more.saturation_warn;
    if certain.value <= limit {
        return Reading::of(&certain, limit).into();
    }
    let message = format!(
        "`{}`{} prefers the chosen side of {} of training pairs with more than {CERTAIN}, beyond {:.1} %: their loss has nothing left to teach, and margins grow by moving away from the reference",
        policy.variant,
        by_seed(policy),
        percent(certain.value, certain.interval.lower, certain.interval.upper),
        100.0 * limit
    );
    let evidence = format!("{} training pairs of {} prompts at checkpoint {}", certain.n, certain.clusters, this.last);
    let hint = "stop earlier, or use a loss whose margins are bounded (`ipo`, `label_smoothing`)";
    let found = finding("margin-saturation", Severity::Warn, Some(policy)).measurement(&certain);
    found.words(limit, message, evidence, hint).into()
}
