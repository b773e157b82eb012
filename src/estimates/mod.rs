//! A run's rows in, `Estimate` rows out.
//!
//! | file | concept |
//! |---|---|
//! | `summary` | all of a run's rows to all of its estimates |
//! | `length` | the win rate at equal length, of a run's judgments |
//! | `agreement` | how far recorded verdicts agree |
//! | `judges` | how far judges can be trusted, and win rates corrected by labels |
//! | `implicit` | what the implicit rewards of held-out pairs say |
//! | `pairing` | two policies on the same prompts, new minus old |
//! | `ratings` | comparisons of many policies to ratings: `dpo-eval ratings` |
//! | `variance` | what prompts, seeds, samples and judges add to the spread of preferences |
//! | `sequential` | judging that may stop early: its order, when it stops, intervals that hold then |
//! | `winrate` | recorded preferences to win rates: `dpo-eval winrate` |
//!
//! Prompts are the clusters: samples, seeds, both presentation orders and several pairs of one prompt share it, so an
//! interval speaks about other prompts of the same kind. Training seeds are those of the suite, not a sample of seeds.

pub mod agreement;
mod implicit;
pub mod judges;
mod length;
pub mod pairing;
pub mod ratings;
pub mod sequential;
pub mod summary;
mod variance;
pub mod winrate;

use serde::{Deserialize, Serialize};

use crate::statistics::{interval, mean, power};

/// A number never travels alone. One row of `estimates.csv`; the field order is the column order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub metric: String,
    /// Empty where the metric belongs to no variant (a judge's accuracy, say).
    pub variant: String,
    pub checkpoint: Option<u64>,
    /// None: pooled over seeds.
    pub seed: Option<u64>,
    pub judge: Option<String>,
    pub slice: Option<String>,
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    /// Confidence level of the interval, 0.95 say.
    pub level: f64,
    pub n: usize,
    pub clusters: usize,
    pub method: String,
}

impl Estimate {
    /// The cluster-robust standard error, where the interval was made from one: value ± t SE, t with clusters − 1 degrees of
    /// freedom. Read off the upper limit, as the lower one may have been cut at zero.
    pub fn standard_error(&self) -> Option<f64> {
        let from_one = [mean::CLUSTER_T, mean::RATIO].contains(&self.method.as_str()) && self.clusters > 1;
        from_one.then(|| (self.upper - self.value) / interval::t(self.level, self.clusters - 1))
    }

    /// About how many prompts would tell it from `bound`.
    pub fn prompts_to_decide(&self, bound: f64) -> u64 {
        let interval = interval::Interval { lower: self.lower, upper: self.upper };
        power::prompts_to_decide(self.value, interval, self.clusters, self.level, bound)
    }
}

/// The estimate of one metric, if it was made.
pub fn find<'a>(
    estimates: &'a [Estimate],
    metric: &str,
    variant: &str,
    checkpoint: Option<u64>,
    seed: Option<u64>,
    judge: Option<&str>,
) -> Option<&'a Estimate> {
    estimates.iter().find(|e| {
        e.metric == metric
            && e.variant == variant
            && e.checkpoint == checkpoint
            && e.seed == seed
            && e.judge.as_deref() == judge
            && e.slice.is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::mean::{Clustered, Range, mean};

    #[test]
    fn the_standard_error_of_an_estimate_is_that_of_the_values() {
        let items = [("a", 0.5), ("a", 1.0), ("b", 2.5), ("c", 0.25), ("d", 4.0), ("d", 3.0)];
        let clustered = Clustered::new(items);
        let measured = mean(&clustered, Range::NON_NEGATIVE, 0.9).unwrap();
        let mut estimate = Estimate {
            metric: "kl_per_sequence".to_owned(),
            variant: String::new(),
            checkpoint: None,
            seed: None,
            judge: None,
            slice: None,
            value: measured.value,
            lower: measured.interval.lower,
            upper: measured.interval.upper,
            level: 0.9,
            n: measured.n,
            clusters: measured.clusters,
            method: measured.method.to_owned(),
        };
        let (found, expected) = (estimate.standard_error().unwrap(), clustered.standard_error().unwrap());
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        estimate.method = mean::CLUSTER_WILSON.to_owned();
        assert_eq!(estimate.standard_error(), None);
    }
}
