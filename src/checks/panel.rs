//! O13: do judges that had nothing to do with each other agree? (Gao et al. 2022: a proxy is over-optimised where another one trained on
//! other data disagrees; Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", arXiv 2310.02743.)
//!
//! The win rate in hard verdicts by the judge that decides minus that by each other one, paired by prompt; and Krippendorff's α of all
//! judges but gold. That a judge favours a place, and what panels agree on, stands with the judges.

use super::inspection::{Inspection, Measure, Reading, Seen, foremost};
use super::{Crossing, Severity, crossing, finding, number, percent};
use crate::estimates::summary::{Policy, points};
use crate::judge::{GOLD, Judgment};
use crate::statistics::krippendorff::{Metric, clustered_alpha};
use crate::statistics::mean::{Measured, Range, paired_difference};
use crate::suite::settings::JudgeSource;
use std::collections::BTreeMap;

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        check: "O13",
        id: "judge-gap",
        title: "Win rate by the judge that decides minus by another",
        by_seed: false,
        look: gap,
    },
    Measure { check: "O13", id: "judge-agreement", title: "Krippendorff's α of the judges", by_seed: false, look: agreement },
];

fn gap<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let deciding = this.deciding();
    let verdicts = |judge: &str| -> Vec<(&'a str, f64)> {
        policy.judgments(this.evidence, judge).into_iter().map(|j| (j.prompt_id.as_str(), points(j.outcome))).collect()
    };
    let own = verdicts(deciding);
    // A panel holds the judge that decides, or is it.
    let is_panel = |name: &str| this.suite.judges.iter().any(|j| j.name == name && matches!(j.source, JudgeSource::Panel(_)));
    let others = this.suite.judges.iter().map(|judge| judge.name.as_str()).chain([GOLD]);
    let others = others.filter(|name| *name != deciding && !is_panel(name));
    let limit = this.limits().more.judge_gap_fail;
    let against = |other: &str| {
        let gap = paired_difference(own.clone(), verdicts(other), Range::DIFFERENCE, this.level())?;
        let furthest = foremost(own.iter().copied(), verdicts(other));
        Some(compared(policy, this, (deciding, other), (&gap, &furthest), limit))
    };
    let all = others.filter_map(against).collect();
    Seen::gravest(all).unwrap_or_else(|| Seen::not("one judge judged: nothing independent of it did"))
}

fn compared<'a>(
    policy: Policy<'a>,
    this: &Inspection<'a>,
    (judge, other): (&str, &str),
    (gap, furthest): (&Measured, &str),
    limit: f64,
) -> Seen {
    let Some(Crossing { severity, threshold }) = crossing(gap.value, gap.interval.lower, limit, limit) else {
        return Reading::of(gap, limit).saying(format!("against `{other}`")).into();
    };
    let message = format!(
        "judge `{judge}` calls `{}` the better side {} more often than `{other}` does, beyond {:.1} %: the gain is in what this judge likes",
        policy.variant,
        percent(gap.value, gap.interval.lower, gap.interval.upper),
        100.0 * threshold
    );
    let evidence = format!("{} prompts at checkpoint {}, paired{furthest}", gap.clusters, this.last);
    let hint = "read samples where the two differ; claim what both say";
    finding("judge-gap", severity, Some(policy)).measurement(gap).words(threshold, message, evidence, hint).into()
}

fn agreement<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let single = this.suite.judges.iter().filter(|judge| !matches!(judge.source, JudgeSource::Panel(_)));
    let names: Vec<&str> = single.map(|judge| judge.name.as_str()).collect();
    let judged: Vec<Vec<&Judgment>> = names.iter().map(|name| policy.judgments(this.evidence, name)).collect();
    if judged.iter().filter(|rows| !rows.is_empty()).count() < 2 {
        return Seen::not("fewer than two judges judged");
    }
    let Some(alpha) = alpha(&judged, this.level()) else {
        return Seen::not("fewer than five of the judges' verdicts on common items aren't the commonest one");
    };
    let limit = this.limits().more.alpha_warn;
    if alpha.value >= limit {
        return Reading::of(&alpha, limit).into();
    }
    let message = format!(
        "the judges {} agree little on what `{}` wrote: Krippendorff's α is {}, below {limit}",
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        policy.variant,
        number(alpha.value, alpha.interval.lower, alpha.interval.upper)
    );
    let evidence = format!("{} items of {} prompts at checkpoint {}", alpha.n, alpha.clusters, this.last);
    let hint = "at most one of them can be right where they differ: measure each on labelled pairs like these";
    finding("judge-agreement", Severity::Warn, Some(policy)).measurement(&alpha).words(limit, message, evidence, hint).into()
}

/// By prompt, then by seed and sample: one value a judge.
type Items<'a> = BTreeMap<&'a str, BTreeMap<(Option<u64>, u32), Vec<Option<f64>>>>;

/// Nominal α of the outcomes.
fn alpha(judged: &[Vec<&Judgment>], level: f64) -> Option<Measured> {
    let mut items = Items::new();
    for (place, rows) in judged.iter().enumerate() {
        for j in rows {
            let item = items.entry(&j.prompt_id).or_default().entry((j.seed, j.sample)).or_default();
            item.resize(judged.len(), None);
            item[place] = Some(points(j.outcome));
        }
    }
    let of_prompt =
        |items: BTreeMap<_, Vec<Option<f64>>>| items.into_values().map(|values| values.into_iter().flatten().collect());
    let prompts: Vec<Vec<Vec<f64>>> = items.into_values().map(|items| of_prompt(items).collect()).collect();
    clustered_alpha(&prompts, Metric::Nominal, level)
}
