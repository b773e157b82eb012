//! What being shown first is worth to a judge (METHODS: judge bias; Zheng et al. 2023, Wang et al. 2023).

use super::interval::Interval;
use super::jackknife::between;
use super::logistic::logistic;
use super::mean::{Measured, Range};

/// Position effect in probability, b = (P(first wins | a first) + P(first wins | b first) − 1) / 2, from the two logits.
/// 0: none; ½: always the first.
pub fn position_effect(logit_a_first: f64, logit_b_first: f64) -> f64 {
    (logistic(logit_a_first) + logistic(logit_b_first) - 1.0) / 2.0
}

/// The same from the debiased probability and the effect in logits, (l_a + l_b) / 2.
pub fn position_effect_of(preference: f64, effect_in_logits: f64) -> f64 {
    let debiased = libm::log(preference / (1.0 - preference));
    position_effect(effect_in_logits + debiased, effect_in_logits - debiased)
}

/// Whether both orders name the same side. A logit of exactly 0 names none, so it agrees only with another 0.
pub fn same_verdict(logit_a_first: f64, logit_b_first: f64) -> bool {
    let verdict = |logit: f64| if logit == 0.0 { 0.0 } else { logit.signum() };
    verdict(logit_a_first) == -verdict(logit_b_first)
}

/// MT-bench's rule (FastChat `show_result.py`): points of the first side where both orders name it, none where both name the other,
/// and a tie of ½ where they don't agree.
pub fn consistent_points(logit_a_first: f64, logit_b_first: f64) -> f64 {
    if logit_a_first == 0.0 || !same_verdict(logit_a_first, logit_b_first) {
        0.5
    } else {
        f64::from(u8::from(logit_a_first > 0.0))
    }
}

/// Verdicts of both orders: how often the side shown first is picked, and whether items whose verdict turns with the order turn to
/// the first or the second more often than by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderBias {
    pub first_pick_rate: f64,
    pub turned_to_first: u64,
    pub turned_to_second: u64,
    /// Exact sign test of the two.
    pub p: f64,
}

/// `logits`: of a first and of b first, of each item.
pub fn order_bias(logits: &[(f64, f64)]) -> OrderBias {
    let points = |logit: f64| if logit == 0.0 { 0.5 } else { f64::from(u8::from(logit > 0.0)) };
    let picks: f64 = logits.iter().map(|(a, b)| points(*a) + points(*b)).sum();
    let count = |both: fn(f64) -> bool| logits.iter().filter(|(a, b)| both(*a) && both(*b)).count() as u64;
    let (first, second) = (count(|logit| logit > 0.0), count(|logit| logit < 0.0));
    OrderBias {
        first_pick_rate: picks / (2.0 * logits.len() as f64),
        turned_to_first: first,
        turned_to_second: second,
        p: super::signs::sign_test(first, second),
    }
}

/// How often the longer side is preferred in one cluster (prompt), a tie half: where it is the better side, and where it is the worse.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Longer {
    /// Sum of the preferences, and their number.
    pub better: [f64; 2],
    pub worse: [f64; 2],
}

pub const TWO_RATES: &str = "two rates, each Wilson on effective n by jackknife of prompts, their limits combined (MOVER)";

/// Wrong verdicts below which nothing is said of what they favour: of the two that a careful judge gives in forty, 95 % held the truth in
/// 99.8 % of simulations.
const FEWEST: f64 = 5.0;

/// By how much more than ½ the longer side is preferred where it is as often the better as the worse one: half the sum of two rates, less ½.
/// None where it always is one, all in one cluster, or fewer than [`FEWEST`] verdicts wrong.
///
/// Its limits are made of the rates' own (Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach",
/// Statistics in Medicine 27): a careful judge's rates lie near 1 and 0, where the standard error of their sum sees nothing. ρ is their
/// correlation of the two, since prompts have both.
pub fn length_bias(clusters: &[Longer], level: f64) -> Option<Measured> {
    let wrong: f64 = clusters.iter().map(|c| c.better[1] - c.better[0] + c.worse[0]).sum();
    if wrong < FEWEST {
        return None;
    }
    let better = Rate::new(clusters.iter().map(|c| c.better).collect(), level)?;
    let worse = Rate::new(clusters.iter().map(|c| c.worse).collect(), level)?;
    let (value, rho) = ((better.value + worse.value) / 2.0 - 0.5, better.correlation(&worse));
    let half = |a: f64, b: f64| (a * a + b * b + 2.0 * rho * a * b).max(0.0).sqrt() / 2.0;
    let lower = value - half(better.value - better.interval.lower, worse.value - worse.interval.lower);
    let upper = value + half(better.interval.upper - better.value, worse.interval.upper - worse.value);
    let n = (better.total[1] + worse.total[1]) as usize;
    Some(Measured { value, interval: Interval { lower, upper }, n, clusters: clusters.len(), method: TWO_RATES })
}

/// Of sums and numbers of clusters, some of them empty.
struct Rate {
    sums: Vec<[f64; 2]>,
    total: [f64; 2],
    value: f64,
    interval: Interval,
}

impl Rate {
    /// None for fewer than two clusters.
    fn new(sums: Vec<[f64; 2]>, level: f64) -> Option<Self> {
        let total = sums.iter().fold([0.0; 2], |[sum, n], [s, m]| [sum + s, n + m]);
        let value = total[0] / total[1];
        let filled = sums.iter().filter(|[_, n]| *n > 0.5);
        let left_out: Vec<f64> = filled.map(|[s, n]| (total[0] - s) / (total[1] - n)).collect();
        let interval =
            (left_out.len() > 1).then(|| between(value, &left_out, Range::UNIT, total[1] as usize, level)).flatten()?.interval;
        Some(Self { sums, total, value, interval })
    }

    /// Residuals of the same clusters multiplied and summed, over the root of their squares.
    fn correlation(&self, other: &Self) -> f64 {
        let residuals = |rate: &Self| rate.sums.iter().map(|[s, n]| s - n * rate.value).collect::<Vec<f64>>();
        let (a, b) = (residuals(self), residuals(other));
        let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let spread = (product(&a, &a) * product(&b, &b)).sqrt();
        if spread > 0.0 { product(&a, &b) / spread } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number, numbers, vectors};
    use super::*;

    #[test]
    fn turned_verdicts_meet_the_reference() {
        let Some(file) = vectors("position_bias") else { return };
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let of = |name: &str| numbers(&file[name]).into_iter().map(logit).collect::<Vec<_>>();
        let logits: Vec<(f64, f64)> = of("p_first_when_A_first").into_iter().zip(of("p_first_when_B_first")).collect();
        let found = order_bias(&logits);
        close(&[found.first_pick_rate, found.p], &[number(&file["first_pick_rate"]), number(&file["sign_test_p"])], 1e-12);
        let expected = ["inconsistent_first_pref", "inconsistent_second_pref"].map(|name| file[name].as_u64().unwrap());
        assert_eq!([found.turned_to_first, found.turned_to_second], expected);
        let points: Vec<f64> = logits.iter().map(|(a, b)| consistent_points(*a, *b)).collect();
        let outcomes = file["mtbench_outcome"].as_array().unwrap().iter();
        let expected: Vec<f64> =
            outcomes.map(|o| ["B", "tie", "A"].iter().position(|n| *n == *o).unwrap() as f64 / 2.0).collect();
        assert_eq!(points, expected);
        let adjusted = points.iter().sum::<f64>() / points.len() as f64;
        close(&[adjusted], &[number(&file["mtbench_win_rate_adjusted_A"])], 1e-12);
    }

    #[test]
    fn effects_and_consistency_meet_the_reference() {
        let Some(file) = vectors("position_bias") else { return };
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let a: Vec<f64> = numbers(&file["p_first_when_A_first"]).into_iter().map(logit).collect();
        let b: Vec<f64> = numbers(&file["p_first_when_B_first"]).into_iter().map(logit).collect();
        let effects: Vec<f64> = a.iter().zip(&b).map(|(a, b)| position_effect(*a, *b)).collect();
        close(&effects, &numbers(&file["per_item_position_effect"]), 1e-12);
        let preferences = numbers(&file["debiased_pref_A_mean_logit"]);
        let again: Vec<f64> = (0..a.len()).map(|i| position_effect_of(preferences[i], (a[i] + b[i]) / 2.0)).collect();
        close(&again, &effects, 1e-12);
        let same = a.iter().zip(&b).filter(|(a, b)| same_verdict(**a, **b)).count() as f64 / a.len() as f64;
        close(&[same], &[file["consistency_rate"].as_f64().unwrap()], 1e-12);
    }

    #[test]
    fn a_certain_judge_has_no_position_effect() {
        assert_eq!(position_effect_of(1.0, 0.3), 0.0);
        assert_eq!(position_effect_of(0.0, 0.3), 0.0);
    }

    #[test]
    fn the_longer_side_is_compared_where_it_is_the_better_and_where_it_is_the_worse() {
        // 3 of 4 where it is better, 1 of 2 where it is worse: (0.75 + 0.5) / 2 − 0.5.
        let better = |sum| Longer { better: [sum, 1.0], ..Longer::default() };
        let worse = |sum| Longer { worse: [sum, 1.0], ..Longer::default() };
        let some = [better(1.0), better(1.0), better(1.0), better(0.0), worse(1.0), worse(0.0)];
        let clusters = some.repeat(3);
        let found = length_bias(&clusters, 0.95).unwrap();
        close(&[found.value], &[0.125], 1e-12);
        assert_eq!((found.n, found.clusters), (18, 18));
        assert!(length_bias(&some, 0.95).is_none(), "two verdicts are wrong");
        assert!(length_bias(&some[..4].repeat(9), 0.95).is_none(), "it never is the worse one");
    }
}
