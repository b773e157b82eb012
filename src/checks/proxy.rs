//! O1: does what is trained for go on rising while the truth falls? (Goodhart's law as Gao, Schulman & Hilton 2022, arXiv 2210.10760,
//! measure it; for direct alignment Rafailov et al. 2024, arXiv 2406.02900.)
//!
//! The truth is gold where it is known, else whoever corrects the judges, else the judge that decides, which training never saw. The proxy
//! is the implicit reward's margin on training pairs, the reward model that chooses the best of n, or the deciding judge where single
//! completions are learnt from. Found where,
//! from the checkpoint that the truth likes best to the last one, the proxy rose for sure and the win rate fell for sure.

use super::hump::{Drop, largest_drop};
use super::inspection::{Inspection, Measure, Reading, Seen, foremost};
use super::{Crossing, Severity, by_seed, crossing, finding, number, percent};
use crate::estimates::Estimate;
use crate::estimates::summary::{Policy, margin};
use crate::statistics::mean::{Measured, Range, paired_difference};

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        check: "O1",
        id: "proxy-gold-divergence",
        title: "Win rate by the truth, last minus best checkpoint",
        by_seed: true,
        look: divergence,
    },
    Measure {
        check: "O1",
        id: "judge-gold-disagreement",
        title: "Win rate by the truth where judges say otherwise",
        by_seed: false,
        look: disagreement,
    },
];

fn divergence<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let truth = this.truth().unwrap_or(this.deciding());
    let checkpoints = this.judged_checkpoints(truth);
    if checkpoints.len() < 2 {
        return Seen::not(format!("it takes two checkpoints at least: {}", this.more_checkpoints("set `save_steps`")));
    }
    let Some(drop) = largest_drop(this, policy, truth) else {
        return Seen::not(format!("judge `{truth}` has no verdicts on the same prompts at two checkpoints"));
    };
    let Some((proxy, rise)) = risen_proxy(this, policy, truth, drop.from) else {
        return Seen::not("nothing is known of the proxy at two checkpoints");
    };
    let limit = this.limits().more.drop_fail;
    let Drop { from, measured, .. } = &drop;
    let fell = Some(measured).filter(|drop| drop.interval.upper < 0.0 && rise.interval.lower > 0.0);
    let crossed = fell.and_then(|drop| crossing(-drop.value, -drop.interval.upper, 0.0, limit));
    let Some(Crossing { severity, .. }) = crossed else {
        return Reading::of(measured, -limit).saying(format!("against {}, by `{truth}`", this.place(*from))).into();
    };
    let aim = if this.chooser().is_some() { "chosen" } else { "trained" };
    let message = format!(
        "from {} to {} {proxy} of `{}`{} rose by {} while its win rate by `{truth}` fell by {}: it got better at what it is {aim} for and worse in truth",
        this.place(*from),
        this.place(this.last),
        policy.variant,
        by_seed(policy),
        number(rise.value, rise.interval.lower, rise.interval.upper),
        percent(-measured.value, -measured.interval.upper, -measured.interval.lower)
    );
    let before = this.preferences(Policy { checkpoint: *from, ..policy }, truth);
    let furthest = foremost(before, this.preferences(policy, truth));
    let evidence = format!("{} prompts at {} checkpoints, paired{furthest}", measured.clusters, checkpoints.len());
    let hint = this.back_to(*from);
    finding("proxy-gold-divergence", severity, Some(policy)).measurement(measured).words(-limit, message, evidence, &hint).into()
}

/// What is optimised, and by how much it rose from a checkpoint to the last one.
fn risen_proxy<'a>(this: &Inspection<'a>, policy: Policy<'a>, truth: &str, from: u64) -> Option<(&'static str, Measured)> {
    let earlier = Policy { checkpoint: from, ..policy };
    let level = this.level();
    for (words, scores) in [
        ("the implicit reward's margin on training pairs", this.evidence.train_scores),
        ("the implicit reward's margin on held-out pairs", this.evidence.pair_scores),
    ] {
        let margins = |policy: Policy<'a>| -> Vec<(&str, f64)> {
            policy.among(scores).into_iter().map(|p| (p.prompt_id.as_str(), margin(p))).collect()
        };
        if let Some(rise) = paired_difference(margins(policy), margins(earlier), Range::REAL, level) {
            return Some((words, rise));
        }
    }
    let (words, judge) = match this.chooser() {
        Some(chooser) => ("the win rate by the reward model that chooses", chooser),
        None => ("the win rate by the judge that decides", this.deciding()),
    };
    let judge = Some(judge).filter(|judge| *judge != truth)?;
    let rise = paired_difference(this.preferences(policy, judge), this.preferences(earlier, judge), Range::DIFFERENCE, level)?;
    Some((words, rise))
}

/// A judge that says better where the truth says worse, or the other way round.
fn disagreement<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(truth) = this.truth() else {
        return Seen::not("the truth isn't known: there is neither gold nor `labels` in [statistics]");
    };
    let Some(known) = this.win_rate(policy, truth) else {
        return Seen::not(format!("`{truth}` says nothing of the last checkpoint"));
    };
    let others = this.suite.judges.iter().filter(|judge| judge.name != truth);
    let all = others.filter_map(|judge| against(this, policy, this.win_rate(policy, &judge.name)?, known)).collect();
    Seen::gravest(all).unwrap_or_else(|| Seen::not(format!("there is no judge beside `{truth}`")))
}

fn against<'a>(this: &Inspection<'a>, policy: Policy<'a>, judged: &Estimate, known: &Estimate) -> Option<Seen> {
    let better = |e: &Estimate| e.lower > 0.5;
    let worse = |e: &Estimate| e.upper < 0.5;
    let severity = match () {
        () if better(judged) && worse(known) => Severity::Fail,
        () if worse(judged) && better(known) => Severity::Fail,
        () if better(judged) && known.value < 0.5 => Severity::Warn,
        () if worse(judged) && known.value > 0.5 => Severity::Warn,
        () => return Some(Reading::estimate(known, 0.5).into()),
    };
    let (judge, truth) = (judged.judge.as_deref()?, known.judge.as_deref()?);
    let message = format!(
        "judge `{judge}` gives `{}` a win rate of {}, {truth} gives {}: the judge's win rate doesn't speak for the truth",
        policy.variant,
        percent(judged.value, judged.lower, judged.upper),
        percent(known.value, known.lower, known.upper)
    );
    let evidence = format!("{} judgments on {} prompts at checkpoint {}", judged.n, judged.clusters, this.last);
    let hint = "read samples where the two differ; train the judge on pairs like these";
    let found = finding("judge-gold-disagreement", severity, Some(policy)).estimate(judged);
    Some(found.words(0.5, message, evidence, hint).into())
}
