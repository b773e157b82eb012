//! O10: has the implicit reward become a reward for length? (Park et al. 2024, arXiv 2403.19159, §4.2: length explains 30 to 46 % of the
//! implicit reward's variance on a policy's own samples, and almost none on the pairs it learnt from; Rafailov et al. 2024, arXiv
//! 2406.02900, §4.3.)
//!
//! R² of β (log π − log π_ref) on the number of tokens: on the policy's own completions minus on both sides of the held-out pairs. Prompts
//! of both are resampled.

use super::inspection::{Inspection, Measure, Reading, Seen};
use super::{Crossing, by_seed, crossing, finding, number};
use crate::estimates::summary::Policy;
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::mean::Measured;
use std::collections::BTreeMap;

const RESAMPLES: usize = 400;

pub(super) const MEASURES: &[Measure] = &[Measure {
    check: "O10",
    id: "length-coupling",
    title: "R² of implicit reward on length, own samples minus pairs",
    by_seed: true,
    look,
}];

/// Sums over one prompt's completions: n, x, y, x², y², xy.
type Sums = [f64; 6];

fn look<'a>(this: &Inspection<'a>, policy: Policy<'a>) -> Seen {
    let scores = policy.pair_scores(this.evidence);
    let Some(beta) = scores.first().map(|p| p.beta) else { return Seen::not("there are no held-out pairs to compare with") };
    let own = by_prompt(
        policy
            .completions(this.evidence)
            .into_iter()
            .filter_map(|c| Some((c.prompt_id.as_str(), f64::from(c.tokens), beta * (c.policy_logp? - c.reference_logp)))),
    );
    let pairs = by_prompt(scores.iter().flat_map(|p| {
        let chosen = (p.prompt_id.as_str(), f64::from(p.chosen_tokens), p.beta * (p.policy_chosen - p.reference_chosen));
        let rejected = (p.prompt_id.as_str(), f64::from(p.rejected_tokens), p.beta * (p.policy_rejected - p.reference_rejected));
        [chosen, rejected]
    }));
    let Some((measured, [on_own, on_pairs])) = difference(&own, &pairs, this.level()) else {
        return Seen::not("rewards or lengths don't vary");
    };
    let limits = &this.limits().more;
    let crossed = crossing(measured.value, measured.interval.lower, limits.length_coupling_warn, limits.length_coupling_fail);
    let Some(Crossing { severity, threshold }) = crossed else {
        return Reading::of(&measured, limits.length_coupling_warn).saying(format!("{on_own:.2} minus {on_pairs:.2}")).into();
    };
    let message = format!(
        "length explains {:.1} % of the variance of the implicit reward of `{}`{} on its own completions and {:.1} % on held-out pairs, {} more: away from its data it rewards length",
        100.0 * on_own,
        policy.variant,
        by_seed(policy),
        100.0 * on_pairs,
        number(measured.value, measured.interval.lower, measured.interval.upper)
    );
    let evidence = format!("{} completions and {} pairs at checkpoint {}", measured.n, scores.len(), this.last);
    let hint = "train with a length term (`rdpo_alpha`, `ld_alpha`) or a loss per token (`sigmoid_norm`)";
    finding("length-coupling", severity, Some(policy)).measurement(&measured).words(threshold, message, evidence, hint).into()
}

fn by_prompt<'a>(rows: impl Iterator<Item = (&'a str, f64, f64)>) -> Vec<Sums> {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for (prompt, x, y) in rows {
        let sum = sums.entry(prompt).or_default();
        for (sum, value) in sum.iter_mut().zip([1.0, x, y, x * x, y * y, x * y]) {
            *sum += value;
        }
    }
    sums.into_values().collect()
}

/// The squared correlation of x and y over the drawn prompts. None where one doesn't vary.
fn r_squared(prompts: &[Sums], drawn: impl Iterator<Item = usize>) -> Option<f64> {
    let mut all = [0.0; 6];
    drawn.for_each(|i| all.iter_mut().zip(prompts[i]).for_each(|(sum, value)| *sum += value));
    let [n, x, y, xx, yy, xy] = all;
    let (vx, vy, cov) = (xx - x * x / n, yy - y * y / n, xy - x * y / n);
    (vx > 1e-12 * xx && vy > 1e-12 * yy).then(|| (cov * cov / (vx * vy)).min(1.0))
}

fn difference(own: &[Sums], pairs: &[Sums], level: f64) -> Option<(Measured, [f64; 2])> {
    let (on_own, on_pairs) = (r_squared(own, 0..own.len())?, r_squared(pairs, 0..pairs.len())?);
    let draws = |purpose, prompts: &[Sums]| {
        let resampling = Resampling { resamples: RESAMPLES, seed: 0, purpose };
        resampling.replicates(prompts.len(), |drawn| r_squared(prompts, drawn.iter().map(|i| *i as usize)).unwrap_or(0.0))
    };
    let (a, b) = (draws("checks/coupling/own", own), draws("checks/coupling/pairs", pairs));
    let value = on_own - on_pairs;
    let interval = Bootstrap::new(value, a.iter().zip(&b).map(|(a, b)| a - b).collect())?.percentile(level);
    let n = own.iter().map(|sums| sums[0]).sum::<f64>() as usize;
    let measured = Measured { value, interval, n, clusters: own.len(), method: "difference of R², bootstrap of prompts" };
    Some((measured, [on_own, on_pairs]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::rank::pearson;

    #[test]
    fn r_squared_is_that_of_the_correlation() {
        let rows = [("a", 1.0, 2.0), ("a", 2.0, 2.5), ("b", 4.0, 3.0), ("c", 3.0, 5.0)];
        let found = r_squared(&by_prompt(rows.into_iter()), 0..3).unwrap();
        let r = pearson(&rows.map(|r| r.1), &rows.map(|r| r.2)).unwrap();
        assert!((found - r * r).abs() < 1e-12);
        assert_eq!(r_squared(&by_prompt([("a", 1.0, 2.0), ("b", 1.0, 3.0)].into_iter()), 0..2), None);
    }
}
