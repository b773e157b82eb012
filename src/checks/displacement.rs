//! O4: do chosen completions become less likely while margins grow? (Razin et al. 2024, "Unintentional Unalignment", arXiv 2410.08847;
//! Pal et al. 2024, arXiv 2402.13228.)
//!
//! D = mean of (log π(y+) − log π_ref(y+)) / |y+| on held-out pairs, and the share of pairs with a drop. That chosen log-probabilities fall
//! somewhat after fine-tuning on chosen texts is expected, so sizes count, not signs. What predicts it before training is the CHES
//! score of the training pairs (`train::similarity`), shown here with its rank correlation with what became of them.

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Crossing, Severity, by_seed, crossing, finding, number, percent};
use crate::estimates::summary::Policy;
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::mean::{Clustered, Measured, Range, mean};
use crate::statistics::rank::spearman;
use crate::train::{PairScore, PairSimilarity};

const NO_PAIRS: &str = "there are no held-out pairs";
const RESAMPLES: usize = 400;
/// Pairs that a hint names.
const NAMED: usize = 3;

pub(super) const MEASURES: &[Measure] = &[
    Measure {
        check: "O4",
        id: "chosen-displacement",
        title: "Change of chosen log-probability, nats a token",
        by_seed: true,
        look: displacement,
    },
    Measure { check: "O4", id: "chosen-fell", title: "Share of chosen completions that fell", by_seed: true, look: fell },
    Measure { check: "O4", id: "similarity", title: "CHES of training pairs, before training", by_seed: false, look: similarity },
    Measure {
        check: "O4",
        id: "similarity-predicts",
        title: "Rank correlation of CHES and change of chosen",
        by_seed: false,
        look: predicts,
    },
];

fn displacement<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(e) = this.estimate("chosen_logp_change_per_token", policy) else { return Seen::not(NO_PAIRS) };
    let limits = this.limits();
    let crossed = crossing(-e.value, -e.upper, limits.displacement_warn, limits.displacement_fail);
    let Some(Crossing { severity, threshold }) = crossed else {
        return Reading::estimate(e, -limits.displacement_warn).into();
    };
    let message = format!(
        "`{}`{} finds chosen completions less likely than the reference does, by {} nats a token, beyond {threshold}: its margins grow by pushing rejected texts down, not by learning chosen ones",
        policy.variant,
        by_seed(policy),
        number(-e.value, -e.upper, -e.lower)
    );
    let named = most_alike(this.evidence.similarities);
    let drop = if named.is_empty() {
        String::new()
    } else {
        format!(" (or leave out the training pairs whose sides look most alike: {named} and on)")
    };
    let hint = format!("lower the learning rate, raise beta, or add an SFT term on chosen completions{drop}");
    let evidence = this.since(e, |value| -value > threshold);
    finding("chosen-displacement", severity, Some(policy)).estimate(e).words(-threshold, message, evidence, &hint).into()
}

/// The ids of the training pairs with the highest normalised CHES.
fn most_alike(rows: &[PairSimilarity]) -> String {
    let mut sorted: Vec<&PairSimilarity> = rows.iter().collect();
    sorted.sort_by(|a, b| b.ches_normalised.total_cmp(&a.ches_normalised));
    sorted.iter().take(NAMED).map(|row| format!("`{}`", row.pair_id)).collect::<Vec<_>>().join(", ")
}

fn fell<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let Some(e) = this.estimate("chosen_fell_rate", policy) else { return Seen::not(NO_PAIRS) };
    let limit = this.limits().more.chosen_fell_warn;
    if e.value <= limit {
        return Reading::estimate(e, limit).into();
    }
    let message = format!(
        "{} of chosen completions are less likely under `{}`{} than under the reference, beyond {:.1} %: nothing that was chosen is learnt",
        percent(e.value, e.lower, e.upper),
        policy.variant,
        by_seed(policy),
        100.0 * limit
    );
    let hint = "see `chosen-displacement` for by how much; small falls everywhere are usual after fine-tuning on chosen texts";
    let evidence = this.since(e, |value| value > limit);
    finding("chosen-fell", Severity::Warn, Some(policy)).estimate(e).words(limit, message, evidence, hint).into()
}

fn similarity<'a>(this: &Inspection<'a>, _: Policy<'a>) -> Seen {
    let rows = this.evidence.similarities;
    let values = Clustered::new(rows.iter().map(|row| (row.prompt_id.as_str(), row.ches_normalised)));
    match mean(&values, Range::REAL, this.level()) {
        Some(m) => Reading::of(&m, None).saying(format!("normalised; highest: {}", most_alike(rows))).into(),
        None => Seen::not("hidden states of training pairs weren't compared: there are no pairs"),
    }
}

/// Spearman's ρ over training pairs; below 0 where alike sides were displaced more. Resampled by prompt.
fn predicts<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let scores = policy.among(this.evidence.train_scores);
    let change = |p: &PairScore| (p.policy_chosen - p.reference_chosen) / f64::from(p.chosen_tokens.max(1));
    let joined = this.evidence.similarities.iter().filter_map(|row| {
        let own: Vec<f64> = scores.iter().filter(|p| p.pair_id == row.pair_id).map(|p| change(p)).collect();
        (!own.is_empty()).then(|| (row.prompt_id.as_str(), row.ches_normalised, own.iter().sum::<f64>() / own.len() as f64))
    });
    let joined: Vec<(&str, f64, f64)> = joined.collect();
    match correlation(&joined, this.level()) {
        Some(m) => Reading::of(&m, None).into(),
        None => Seen::not("too few training pairs were scored and compared"),
    }
}

fn correlation(rows: &[(&str, f64, f64)], level: f64) -> Option<Measured> {
    let prompts = Clustered::new(rows.iter().map(|row| (row.0, 0.0)));
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); prompts.clusters()];
    prompts.cluster().iter().enumerate().for_each(|(i, cluster)| groups[*cluster].push(i));
    let of = |drawn: &[u32]| {
        let all = || drawn.iter().flat_map(|g| &groups[*g as usize]);
        spearman(&all().map(|i| rows[*i].1).collect::<Vec<_>>(), &all().map(|i| rows[*i].2).collect::<Vec<_>>())
    };
    let value = of(&(0..groups.len() as u32).collect::<Vec<_>>()).filter(|_| groups.len() > 9)?;
    let resampling = Resampling { resamples: RESAMPLES, seed: 0, purpose: "checks/similarity" };
    let draws = resampling.replicates(groups.len(), |drawn| of(drawn).unwrap_or(0.0));
    let interval = Bootstrap::new(value, draws)?.percentile(level);
    Some(Measured { value, interval, n: rows.len(), clusters: groups.len(), method: "Spearman, bootstrap of prompts" })
}
