//! O9: is the win rate explained by length? (Dubois et al. 2024, "Length-Controlled AlpacaEval", arXiv 2404.04475; Singhal et al. 2023, "A
//! Long Way to Go", arXiv 2310.03716; Park et al. 2024, arXiv 2403.19159.)
//!
//! The win rate by the judge that decides beside what it would be at equal length, by a logistic regression on the difference in
//! characters (`win_rate_length_controlled`), and on the items whose two answers are about equally long.

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Severity, finding, percent};
use crate::estimates::find;
use crate::estimates::summary::{Policy, reference};
use crate::statistics::mean::{Clustered, Measured, Range, mean};
use std::collections::BTreeMap;

/// Lengths that differ by less than this share of the longer one are about equal (METHODS, O9).
const MATCHED: f64 = 0.1;
/// Matched items below which nothing is said.
const FEWEST: usize = 20;

pub(super) const MEASURES: &[Measure] = &[
    Measure { check: "O9", id: "length-gain", title: "Win rate minus that at equal length", by_seed: false, look: gain },
    Measure {
        check: "O9",
        id: "length-matched",
        title: "Win rate on items of about equal length",
        by_seed: false,
        look: matched,
    },
];

const NOT_JUDGED: &str = "the judge that decides gave no verdicts on the last checkpoint";

fn gain<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let judge = this.deciding();
    let Some(raw) = this.win_rate(policy, judge) else { return Seen::not(NOT_JUDGED) };
    let checkpoint = Some(policy.checkpoint);
    let Some(controlled) = find(this.estimates, "win_rate_length_controlled", policy.variant, checkpoint, None, Some(judge))
    else {
        return Seen::not("both answers are always equally long, or the lengths tell the verdicts apart completely");
    };
    let limit = this.limits().more.length_gain_warn;
    let value = raw.value - controlled.value;
    // Both are of the same items, so their difference is surer than either: the wider of the two intervals bounds it.
    let (lower, upper) = (value - (controlled.upper - controlled.value), value + (controlled.value - controlled.lower));
    let lost = raw.lower > 0.5 && controlled.lower <= 0.5;
    if value <= limit {
        let beside = percent(controlled.value, controlled.lower, controlled.upper);
        let words = format!("at equal length {beside}");
        return Reading { value, lower, upper, n: raw.n, threshold: Some(limit), words }.into();
    }
    let severity = if lost { Severity::Fail } else { Severity::Warn };
    let words = if lost { "is not explained by quality" } else { "is in part one of length" };
    let message = format!(
        "the win rate of `{}` of {} by judge `{judge}` {words}: at equal length it is {}",
        policy.variant,
        percent(raw.value, raw.lower, raw.upper),
        percent(controlled.value, controlled.lower, controlled.upper)
    );
    let evidence = format!("{} judgments on {} prompts at checkpoint {}", raw.n, raw.clusters, this.last);
    let found = finding("length-gain", severity, Some(policy)).measured(value, lower, upper, raw.n);
    found.words(limit, message, evidence, HINT).into()
}

const HINT: &str = "claim the win rate at equal length; train with a length term (`rdpo_alpha`, `ld_alpha`), or let a judge decide that doesn't like length";

fn matched<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let judge = this.deciding();
    let Some(raw) = this.win_rate(policy, judge) else { return Seen::not(NOT_JUDGED) };
    let Some(rate) = matched_rate(this, policy, judge) else {
        return Seen::not(format!("fewer than {FEWEST} items have two answers of about equal length"));
    };
    let limit = this.limits().more.length_gain_warn;
    let lost = raw.lower > 0.5 && rate.interval.lower <= 0.5;
    if raw.value - rate.value <= limit || !lost {
        return Reading::of(&rate, None).into();
    }
    let message = format!(
        "the win rate of `{}` of {} by judge `{judge}` is not explained by quality: length-matched it is {}",
        policy.variant,
        percent(raw.value, raw.lower, raw.upper),
        percent(rate.value, rate.interval.lower, rate.interval.upper)
    );
    let evidence = format!("{} judgments whose two answers differ by less than a tenth in length, of {}", rate.n, raw.n);
    // Few items may be matched, and not the same kind of items.
    let surely = rate.interval.upper < raw.lower;
    let severity = if surely { Severity::Fail } else { Severity::Warn };
    finding("length-matched", severity, Some(policy)).measurement(&rate).words(0.5, message, evidence, HINT).into()
}

fn matched_rate<'a>(this: &Inspection<'a>, policy: Policy<'a>, judge: &str) -> Option<Measured> {
    let length = |text: &str| text.chars().count() as f64;
    let old: BTreeMap<(&str, u32), f64> =
        reference(this.evidence).into_iter().map(|c| ((c.prompt_id.as_str(), c.sample), length(&c.text))).collect();
    let new: BTreeMap<(Option<u64>, &str, u32), f64> = policy
        .completions(this.evidence)
        .into_iter()
        .map(|c| ((c.seed, c.prompt_id.as_str(), c.sample), length(&c.text)))
        .collect();
    let rows = policy.judgments(this.evidence, judge);
    let about_equal = rows.into_iter().filter(|j| {
        let own = new.get(&(j.seed, j.prompt_id.as_str(), j.sample));
        let other = old.get(&(j.prompt_id.as_str(), j.sample));
        own.zip(other).is_some_and(|(a, b)| (a - b).abs() <= MATCHED * a.max(*b))
    });
    let items = Clustered::new(about_equal.map(|j| (j.prompt_id.as_str(), j.preference)));
    mean(&items, Range::UNIT, this.level()).filter(|rate| rate.n >= FEWEST)
}
