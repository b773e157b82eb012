//! The implicit reward β (log π − log π_ref) on held-out pairs: how often and how surely it ranks the chosen side higher.

use super::summary::{above, margin, yes};
use crate::statistics::bootstrap::Resampling;
use crate::statistics::calibration::{EXPECTED_ERROR, clustered_temperature, expected_error_of_pairs};
use crate::statistics::discrimination::{Scored, area};
use crate::statistics::logistic::{logistic, softplus};
use crate::statistics::mean::{Clustered, Measured, Range, mean, rate};
use crate::statistics::quantile::clustered_quantile;
use crate::train::PairScore;

/// Widths of the bins of confidence: the reliability curve from ½ to 1.
const BINS: usize = 5;

/// Metric, slice, and what was measured, in the order of the estimates.
pub(super) type Found = (&'static str, Option<String>, Option<Measured>);

/// Of all pairs of a policy. `slices`: also by length and by confidence.
pub(super) fn estimates(rows: &[&PairScore], slices: bool, level: f64) -> Vec<Found> {
    let of = |value: &dyn Fn(&PairScore) -> f64| Clustered::new(rows.iter().map(|p| (p.prompt_id.as_str(), value(p))));
    let right = |p: &PairScore| above(margin(p), 0.0);
    let ties = of(&|p| yes(margin(p) == 0.0));
    let margins = of(&margin);
    let resampling = Resampling { resamples: 1000, seed: 0, purpose: "estimates/implicit-ece" };
    let ece = expected_error_of_pairs(&margins, resampling).map(|found| Measured {
        value: found.value,
        interval: found.interval(level),
        n: margins.len(),
        clusters: margins.clusters(),
        method: EXPECTED_ERROR,
    });
    let squared = of(&|p| logistic(-margin(p)).powi(2));
    let whole = |metric, measured| (metric, None, measured);
    let mut found = vec![
        whole("implicit_reward_accuracy", rate(&of(&right), level)),
        whole("implicit_reward_tie_rate", rate(&ties, level).filter(|_| ties.mean() > 0.0)),
        whole("implicit_reward_margin", mean(&margins, Range::REAL, level)),
        whole("implicit_reward_margin_p10", clustered_quantile(&margins, 0.1, level)),
        whole("implicit_reward_margin_p50", clustered_quantile(&margins, 0.5, level)),
        whole("implicit_reward_margin_p90", clustered_quantile(&margins, 0.9, level)),
        whole("implicit_reward_auc", auc(rows).and_then(|area| area.measured(level))),
        whole("implicit_reward_brier", mean(&squared, Range::UNIT, level)),
        whole("implicit_reward_log_loss", mean(&of(&|p| softplus(-margin(p))), Range::NON_NEGATIVE, level)),
        whole("implicit_reward_ece", ece),
        whole("implicit_reward_temperature", clustered_temperature(&margins, level)),
    ];
    if slices {
        let mut slice = |name: String, holds: &dyn Fn(&PairScore) -> bool| {
            let own = rows.iter().filter(|p| holds(p)).map(|p| (p.prompt_id.as_str(), right(p)));
            found.push(("implicit_reward_accuracy", Some(name), rate(&Clustered::new(own), level)));
        };
        slice("chosen longer".to_owned(), &|p| p.chosen_tokens > p.rejected_tokens);
        slice("chosen as long".to_owned(), &|p| p.chosen_tokens == p.rejected_tokens);
        slice("chosen shorter".to_owned(), &|p| p.chosen_tokens < p.rejected_tokens);
        for bin in 0..BINS {
            let end = |i: usize| 0.5 + 0.5 * i as f64 / BINS as f64;
            let name = format!("confidence {:.1} to {:.1}", end(bin), end(bin + 1));
            slice(name, &|p| {
                let stated = logistic(margin(p).abs());
                stated >= end(bin) && (stated < end(bin + 1) || bin + 1 == BINS)
            });
        }
    }
    found
}

/// Chosen completions against rejected ones, each by its own implicit reward, whatever pair it is of.
fn auc(rows: &[&PairScore]) -> Option<crate::statistics::discrimination::Area> {
    let prompts = Clustered::new(rows.iter().map(|p| (p.prompt_id.as_str(), 0.0)));
    let sides = |(p, cluster): (&&PairScore, &usize)| {
        let chosen = p.beta * (p.policy_chosen - p.reference_chosen);
        let rejected = p.beta * (p.policy_rejected - p.reference_rejected);
        [(chosen, true), (rejected, false)].map(|(score, positive)| Scored { score, positive, cluster: *cluster })
    };
    area(&rows.iter().zip(prompts.cluster()).flat_map(sides).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::summary::fixture::pair_score;
    use super::*;

    /// Chosen gains 1; rejected gains −1 + prompt / 5, on a scale on which β = 0.1.
    fn rows() -> Vec<PairScore> {
        (0..20).map(|prompt| pair_score("dpo", 1, 10, prompt, 1.0, -1.0 + prompt as f64 / 5.0)).collect()
    }

    fn value(found: &[Found], metric: &str, slice: Option<&str>) -> f64 {
        let of = |(m, s, measured): &Found| (*m == metric && s.as_deref() == slice).then_some(measured.as_ref()?.value);
        found.iter().find_map(of).unwrap_or_else(|| panic!("no {metric} {slice:?}"))
    }

    #[test]
    fn pairs_give_what_their_margins_say() {
        let rows = rows();
        let found = estimates(&rows.iter().collect::<Vec<_>>(), true, 0.95);
        let margins: Vec<f64> = rows.iter().map(margin).collect();
        let mean = |f: &dyn Fn(f64) -> f64| margins.iter().map(|m| f(*m)).sum::<f64>() / 20.0;
        let near = |metric, expected: f64| {
            let found = value(&found, metric, None);
            assert!((found - expected).abs() < 1e-9, "{metric}: {found}, not {expected}");
        };
        near("implicit_reward_margin_p50", 0.1 * (2.0 - 1.9));
        near("implicit_reward_brier", mean(&|m| (1.0 - 1.0 / (1.0 + (-m).exp())).powi(2)));
        near("implicit_reward_log_loss", mean(&|m| (1.0 + (-m).exp()).ln()));
        // Chosen all have 0.1; ten rejected lie below, one at it, nine above.
        near("implicit_reward_auc", 10.5 / 20.0);
        // All chosen are shorter by two tokens, and no margin is sure of itself.
        assert_eq!(value(&found, "implicit_reward_accuracy", Some("chosen shorter")), 10.5 / 20.0);
        assert_eq!(value(&found, "implicit_reward_accuracy", Some("confidence 0.5 to 0.6")), 10.5 / 20.0);
        let empty = found.iter().filter(|(m, s, measured)| *m == "implicit_reward_accuracy" && s.is_some() && measured.is_none());
        assert_eq!(empty.count(), 6);
    }

    /// `shared/reference/vectors`, made by NumPy and scikit-learn; absent in most checkouts.
    #[test]
    fn recorded_log_probabilities_give_the_recorded_numbers() {
        let path = format!("{}/../shared/reference/vectors/overoptimization_dpo.json", env!("CARGO_MANIFEST_DIR"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("skipped: {path} is absent");
            return;
        };
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let file = &file["dpo"];
        let of = |name: &str, i: usize| file[name][i].as_f64().unwrap();
        let rows: Vec<PairScore> = (0..8)
            .map(|i| PairScore {
                beta: file["beta"].as_f64().unwrap(),
                policy_chosen: of("policy_chosen_logps", i),
                policy_rejected: of("policy_rejected_logps", i),
                reference_chosen: of("ref_chosen_logps", i),
                reference_rejected: of("ref_rejected_logps", i),
                chosen_tokens: of("len_chosen", i) as u32,
                rejected_tokens: of("len_rejected", i) as u32,
                ..pair_score("dpo", 1, 10, i, 0.0, 0.0)
            })
            .collect();
        let found = estimates(&rows.iter().collect::<Vec<_>>(), false, 0.95);
        for (metric, name) in [
            ("implicit_reward_accuracy", "accuracy_ties_half"),
            ("implicit_reward_margin", "mean_margin"),
            ("implicit_reward_brier", "brier_vs_label1"),
            ("implicit_reward_log_loss", "dpo_loss_mean"),
        ] {
            let (found, expected) = (value(&found, metric, None), file[name].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-9, "{metric}: {found}, not {expected}");
        }
    }

    #[test]
    fn doubling_beta_doubles_the_temperature() {
        let rows = rows();
        let doubled: Vec<PairScore> = rows.iter().map(|p| PairScore { beta: 0.2, ..p.clone() }).collect();
        let of = |rows: &[PairScore]| {
            let found = estimates(&rows.iter().collect::<Vec<_>>(), false, 0.95);
            value(&found, "implicit_reward_temperature", None)
        };
        assert!((of(&doubled) / of(&rows) - 2.0).abs() < 1e-9);
    }
}
