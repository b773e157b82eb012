//! O7: does ranking pairs better still mean winning more? (Chen et al. 2024, "Preference Learning Algorithms Do Not Learn Preference
//! Rankings", arXiv 2405.19534: ranking accuracy goes with the win rate near the reference and against it far away.)
//!
//! Spearman's ρ over checkpoints of the win rate and the implicit-reward accuracy, or the ranking accuracy without a reference; prompts of
//! both are resampled, checkpoints are what they are. Warns where ρ is negative for sure enough and the KL rises.

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Severity, finding, number};
use crate::estimates::summary::{Policy, above, margin};
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::mean::{Clustered, Measured};
use crate::statistics::rank::spearman;
use crate::train::PairScore;

/// Checkpoints below which an order says nothing.
const FEWEST: usize = 4;
const RESAMPLES: usize = 400;

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        check: "O7",
        id: "accuracy-decoupled",
        title: "Rank correlation of implicit accuracy and win rate",
        by_seed: false,
        look: implicit,
    },
    Measure {
        check: "O7",
        id: "ranking-decoupled",
        title: "Rank correlation of ranking accuracy and win rate",
        by_seed: false,
        look: ranking,
    },
];

fn implicit<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    look(this, policy, ("accuracy-decoupled", "implicit-reward accuracy"), |p| above(margin(p), 0.0))
}

fn ranking<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    look(this, policy, ("ranking-decoupled", "ranking accuracy"), |p| above(p.policy_chosen, p.policy_rejected))
}

fn look<'a>(this: &Inspection<'a>, policy: Policy<'a>, (id, what): (&str, &str), right: fn(&PairScore) -> f64) -> Seen {
    let judge = this.truth().unwrap_or(this.deciding());
    let checkpoints = this.judged_checkpoints(judge);
    if checkpoints.len() < FEWEST {
        return Seen::not(format!(
            "an order takes {FEWEST} checkpoints at least, and there are {}: lower `save_steps`",
            checkpoints.len()
        ));
    }
    let at = |checkpoint: &u64| Policy { checkpoint: *checkpoint, ..policy };
    let accuracies = |c: &u64| means(at(c).pair_scores(this.evidence).into_iter().map(|p| (p.prompt_id.as_str(), right(p))));
    let rates = |c: &u64| means(this.preferences(at(c), judge));
    let (accuracies, rates): (Vec<_>, Vec<_>) =
        (checkpoints.iter().map(accuracies).collect(), checkpoints.iter().map(rates).collect());
    if accuracies.iter().any(Vec::is_empty) {
        return Seen::not("there are no held-out pairs");
    }
    let Some(rho) = correlation(&accuracies, &rates, this.level()) else {
        return Seen::not(format!("{what} or win rate is the same at all checkpoints"));
    };
    let kl = |c: &u64| this.estimate("kl_per_sequence", at(c)).map(|e| e.value);
    let rises = kl(&checkpoints[0]).zip(kl(&this.last)).is_some_and(|(first, last)| last > first);
    let limit = this.limits().more.decoupling_warn;
    if rho.value >= 0.0 || rho.interval.upper >= limit || !rises {
        return Reading::of(&rho, limit).saying(format!("by `{judge}`")).into();
    }
    let message = format!(
        "over the checkpoints of `{}` {what} and win rate by `{judge}` go against each other (Spearman {}) while it moves away from the reference: {what} no longer says anything about quality",
        policy.variant,
        number(rho.value, rho.interval.lower, rho.interval.upper)
    );
    let evidence = format!("{} checkpoints, {} prompts judged", checkpoints.len(), rates[0].len());
    let hint = "don't choose checkpoints by accuracy or loss here; take the one with the best win rate";
    finding(id, Severity::Warn, Some(policy)).measurement(&rho).words(limit, message, evidence, hint).into()
}

/// The mean of each prompt, in one order.
fn means<'a>(items: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<f64> {
    let mut items: Vec<(&str, f64)> = items.into_iter().collect();
    items.sort_by(|a, b| a.0.cmp(b.0));
    Clustered::new(items).sums().into_iter().map(|[sum, n]| sum / n).collect()
}

/// `accuracies`, `rates`: (checkpoints, prompts).
fn correlation(accuracies: &[Vec<f64>], rates: &[Vec<f64>], level: f64) -> Option<Measured> {
    let of = |table: &[Vec<f64>], drawn: &[u32]| -> Vec<f64> {
        let mean = |row: &Vec<f64>| drawn.iter().map(|i| row[*i as usize % row.len()]).sum::<f64>() / drawn.len() as f64;
        table.iter().map(mean).collect()
    };
    let whole = |table: &[Vec<f64>]| (0..table[0].len() as u32).collect::<Vec<_>>();
    let value = spearman(&of(accuracies, &whole(accuracies)), &of(rates, &whole(rates)))?;
    let draw = |purpose, table: &[Vec<f64>]| {
        Resampling { resamples: RESAMPLES, seed: 0, purpose }.replicates(table[0].len(), |drawn| of(table, drawn))
    };
    let (a, b) = (draw("checks/decoupling/pairs", accuracies), draw("checks/decoupling/prompts", rates));
    let draws = a.iter().zip(&b).map(|(a, b)| spearman(a, b).unwrap_or(0.0)).collect();
    let interval = Bootstrap::new(value, draws)?.percentile(level);
    Some(Measured { value, interval, n: rates.len(), clusters: rates[0].len(), method: "Spearman, bootstrap of prompts" })
}
