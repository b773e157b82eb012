//! What being shown first is worth to a judge (METHODS: judge bias; Zheng et al. 2023, Wang et al. 2023).

use super::logistic::logistic;

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

#[cfg(test)]
mod tests {
    use super::super::reference::{close, numbers, vectors};
    use super::*;

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
}
