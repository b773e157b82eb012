//! Whether probabilities mean what they say: proper scores, binned errors, and the temperature that would mend them.
//!
//! An outcome is 1, 0, or a share between (½ for a tie, a gold probability). Sources: Brier 1950; Murphy 1973; Guo et al. 2017 (ECE,
//! temperature).

use super::bootstrap::{Bootstrap, Resampling};
use super::interval::{Interval, bisect, t};
use super::logistic::logistic;
use super::mean::{Clustered, Measured};
use super::quantile::quantiles;

pub const TEMPERATURE: &str = "maximum likelihood, cluster-robust t on its logarithm";
pub const EXPECTED_ERROR: &str = "ten bins, clusters resampled, less what chance alone makes";

/// A stated probability and what came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    pub probability: f64,
    pub outcome: f64,
}

impl Forecast {
    pub fn brier(self) -> f64 {
        (self.probability - self.outcome).powi(2)
    }

    /// −y log p − (1 − y) log (1 − p), p cut to [ε, 1 − ε] with ε of binary64, as scikit-learn does: one certain error is not
    /// infinitely bad.
    pub fn log_loss(self) -> f64 {
        let p = self.probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        -self.outcome * libm::log(p) - (1.0 - self.outcome) * libm::log1p(-p)
    }
}

/// Forecasts of one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    pub lower: f64,
    pub upper: f64,
    pub n: usize,
    /// Mean stated probability.
    pub confidence: f64,
    /// Mean outcome.
    pub frequency: f64,
}

/// Where bins end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binning {
    /// Of one width over 0 to 1.
    Uniform,
    /// Of about as many forecasts each.
    Quantile,
}

/// The reliability curve: bins that hold a forecast, ascending. A bin has its upper end and not its lower one (0 is in the first).
pub fn reliability(forecasts: &[Forecast], bins: usize, binning: Binning) -> Vec<Bin> {
    let edges: Vec<f64> = match binning {
        Binning::Uniform => (0..=bins).map(|i| i as f64 / bins as f64).collect(),
        Binning::Quantile if forecasts.is_empty() => return Vec::new(),
        Binning::Quantile => {
            let ps: Vec<f64> = (0..=bins).map(|i| i as f64 / bins as f64).collect();
            quantiles(&forecasts.iter().map(|f| f.probability).collect::<Vec<_>>(), &ps)
        }
    };
    let mut found = vec![(0usize, 0.0, 0.0); bins];
    for forecast in forecasts {
        let bin = &mut found[edges[1..bins].partition_point(|edge| *edge < forecast.probability)];
        bin.0 += 1;
        bin.1 += forecast.probability;
        bin.2 += forecast.outcome;
    }
    let bin = |(i, (n, p, y)): (usize, (usize, f64, f64))| {
        let count = n as f64;
        (n > 0).then(|| Bin { lower: edges[i], upper: edges[i + 1], n, confidence: p / count, frequency: y / count })
    };
    found.into_iter().enumerate().filter_map(bin).collect()
}

/// Σ n_b |frequency − confidence| / n: the expected calibration error.
pub fn expected_error(bins: &[Bin]) -> f64 {
    weighted(bins, |b| (b.frequency - b.confidence).abs())
}

/// The largest |frequency − confidence| of a bin.
pub fn maximum_error(bins: &[Bin]) -> f64 {
    bins.iter().map(|b| (b.frequency - b.confidence).abs()).fold(0.0, f64::max)
}

/// Murphy's parts of the Brier score of forecasts that are replaced by their bin's mean: reliability − resolution + uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Murphy {
    pub reliability: f64,
    pub resolution: f64,
    pub uncertainty: f64,
}

pub fn murphy(bins: &[Bin]) -> Murphy {
    let base = weighted(bins, |b| b.frequency);
    Murphy {
        reliability: weighted(bins, |b| (b.frequency - b.confidence).powi(2)),
        resolution: weighted(bins, |b| (b.frequency - base).powi(2)),
        uncertainty: base * (1.0 - base),
    }
}

fn weighted(bins: &[Bin], value: impl Fn(&Bin) -> f64) -> f64 {
    let n: usize = bins.iter().map(|b| b.n).sum();
    bins.iter().map(|b| b.n as f64 * value(b)).sum::<f64>() / n as f64
}

/// The temperature T with which σ(logit / T) has the least log loss: above 1 where the forecasts are too sure. `logits`: of the
/// stated probability, with the outcome. None where no positive finite T is best: the outcomes are never on the wrong side,
/// or not more often on the right one than by chance.
pub fn temperature(logits: &[(f64, f64)]) -> Option<f64> {
    // The derivative of the mean log loss in 1 / T, which grows with 1 / T (the loss is convex in it).
    let slope = |inverse: f64| logits.iter().map(|(x, y)| (logistic(inverse * x) - y) * x).sum::<f64>();
    let (smallest, largest) = (-30.0, 30.0);
    if slope(libm::exp(smallest)) >= 0.0 || slope(libm::exp(largest)) <= 0.0 {
        return None;
    }
    Some(libm::exp(-bisect(smallest, largest, |log| slope(libm::exp(log)))))
}

/// [`temperature`] of pairs whose right side is known, from the margins (logits) of the right sides, with the interval of a maximum-
/// likelihood estimate that is clustered: SE(1/T) = √(C / (C − 1) Σ_c s_c²) / H, s_c the clusters' slopes, H the curvature.
pub fn clustered_temperature(margins: &Clustered, level: f64) -> Option<Measured> {
    let value = temperature(&margins.values().iter().map(|m| (*m, 1.0)).collect::<Vec<_>>())?;
    let p = |margin: f64| logistic(margin / value);
    let slopes = margins.values().iter().map(|m| (p(*m) - 1.0) * m);
    // The slopes have mean zero at the maximum.
    let error = Clustered::new(margins.cluster().iter().copied().zip(slopes)).standard_error()?;
    let curvature = margins.values().iter().map(|m| m * m * p(*m) * (1.0 - p(*m))).sum::<f64>() / margins.len() as f64;
    let half = t(level, margins.clusters() - 1) * error / curvature * value;
    let interval = Interval { lower: value * libm::exp(-half), upper: value * libm::exp(half) };
    Some(Measured { value, interval, n: margins.len(), clusters: margins.clusters(), method: TEMPERATURE })
}

/// Of one cluster: in each of ten bins the sum of outcome minus stated probability, and the number of forecasts in all.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gaps {
    pub sums: [f64; 10],
    pub n: f64,
}

/// A calibration error with its resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedError {
    pub value: f64,
    pub bootstrap: Bootstrap,
    /// Σ_b |gap of the resample − gap of the sample|: what chance adds to an error, in resamples.
    noise: Bootstrap,
}

impl ExpectedError {
    /// A calibration error is never below zero, so that chance alone makes it positive, more so in resamples than in the sample: percentiles
    /// of these hold no calibrated forecaster's zero. |ECE − truth| ≤ Σ_b |gap − its expectation|, so that the value less the (1 + level) / 2
    /// quantile of this sum's resamples is a lower limit; the upper one is the bootstrap's basic one, which takes the bias off
    /// (`golden/statistics/coverage.csv`).
    pub fn interval(&self, level: f64) -> Interval {
        let lower = self.value - self.noise.quantile(0.5 + level / 2.0);
        let upper = self.bootstrap.basic(level).upper.max(self.value);
        Interval { lower, upper }.within(0.0, 1.0)
    }
}

/// Clusters below which no calibration error is given: of twenty, ten bins hold two each, and 95 % held the truth in up to 99.8 %.
const FEWEST: usize = 50;

/// The expected calibration error of forecasts in bins, clusters drawn with replacement. None for fewer than [`FEWEST`] clusters.
pub fn clustered_expected_error(clusters: &[Gaps], resampling: Resampling) -> Option<ExpectedError> {
    if clusters.len() < FEWEST {
        return None;
    }
    let sum = |drawn: &[u32]| {
        let mut sum = Gaps::default();
        for cluster in drawn.iter().map(|cluster| &clusters[*cluster as usize]) {
            sum.sums.iter_mut().zip(&cluster.sums).for_each(|(sum, gap)| *sum += gap);
            sum.n += cluster.n;
        }
        sum.sums.map(|gap| gap / sum.n)
    };
    let whole = sum(&(0..clusters.len() as u32).collect::<Vec<_>>());
    let distance = |gaps: &[f64; 10], from: &[f64; 10]| gaps.iter().zip(from).map(|(a, b)| (a - b).abs()).sum::<f64>();
    let value = distance(&whole, &[0.0; 10]);
    let replicate = |drawn: &[u32]| {
        let gaps = sum(drawn);
        (distance(&gaps, &[0.0; 10]), distance(&gaps, &whole))
    };
    let (errors, noise) = resampling.replicates(clusters.len(), replicate).into_iter().unzip();
    Some(ExpectedError { value, bootstrap: Bootstrap::new(value, errors)?, noise: Bootstrap::new(0.0, noise)? })
}

/// The expected calibration error of margins of right sides: stated is σ(|margin|) for the side with the greater reward, which is the
/// right one or not (a tie half), in ten bins from ½ to 1.
pub fn expected_error_of_pairs(margins: &Clustered, resampling: Resampling) -> Option<ExpectedError> {
    let mut clusters = vec![Gaps::default(); margins.clusters()];
    for (margin, cluster) in margins.values().iter().zip(margins.cluster()) {
        let stated = logistic(margin.abs());
        let right = if *margin == 0.0 { 0.5 } else { f64::from(u8::from(*margin > 0.0)) };
        let gaps = &mut clusters[*cluster];
        gaps.sums[((20.0 * (stated - 0.5)) as usize).min(9)] += right - stated;
        gaps.n += 1.0;
    }
    clustered_expected_error(&clusters, resampling)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::reference::{close, number, numbers, peers, vectors};
    use super::*;

    pub fn forecasts(file: &serde_json::Value) -> Vec<Forecast> {
        let pairs = numbers(&file["p"]).into_iter().zip(numbers(&file["y"]));
        pairs.map(|(probability, outcome)| Forecast { probability, outcome }).collect()
    }

    #[test]
    fn scores_meet_sklearn() {
        let Some(file) = vectors("calibration") else { return };
        let forecasts = forecasts(&file);
        let mean = |f: fn(Forecast) -> f64| forecasts.iter().map(|x| f(*x)).sum::<f64>() / forecasts.len() as f64;
        close(&[mean(Forecast::brier), mean(Forecast::log_loss)], &[number(&file["brier"]), number(&file["log_loss"])], 1e-9);
    }

    #[test]
    fn binned_errors_meet_the_reference() {
        let Some(file) = vectors("calibration") else { return };
        let bins = reliability(&forecasts(&file), 10, Binning::Uniform);
        let expected = file["bins_lo_hi_n_conf_acc"].as_array().unwrap();
        assert_eq!(bins.len(), expected.len());
        for (bin, expected) in bins.iter().zip(expected) {
            close(&[bin.lower, bin.upper, bin.n as f64, bin.confidence, bin.frequency], &numbers(expected), 1e-9);
        }
        let parts = murphy(&bins);
        let found = [expected_error(&bins), maximum_error(&bins), parts.reliability, parts.resolution, parts.uncertainty];
        let names = ["ece_10_equal_width_right_closed", "mce", "reliability_10", "resolution_10", "uncertainty"];
        close(&found, &names.map(|name| number(&file[name])), 1e-9);
    }

    #[test]
    fn reliability_curves_meet_sklearn() {
        let Some(file) = vectors("calibration") else { return };
        for (name, bins, binning) in [("sklearn_uniform5", 5, Binning::Uniform), ("sklearn_quantile4", 4, Binning::Quantile)] {
            let curve = reliability(&forecasts(&file), bins, binning);
            close(&curve.iter().map(|b| b.frequency).collect::<Vec<_>>(), &numbers(&file[name]["prob_true"]), 1e-9);
            close(&curve.iter().map(|b| b.confidence).collect::<Vec<_>>(), &numbers(&file[name]["prob_pred"]), 1e-9);
        }
    }

    #[test]
    fn the_temperature_undoes_what_made_forecasts_too_sure() {
        // Outcomes that are what σ(x) says, stated as σ(3 x): the logits want to be divided by 3.
        let logits: Vec<(f64, f64)> = (-20..=20).map(|i| f64::from(i) / 5.0).map(|x| (3.0 * x, logistic(x))).collect();
        close(&[temperature(&logits).unwrap()], &[3.0], 1e-9);
        let file = &peers()["temperature"];
        let logits: Vec<(f64, f64)> = numbers(&file["logits"]).into_iter().zip(numbers(&file["outcomes"])).collect();
        close(&[temperature(&logits).unwrap()], &[number(&file["temperature"])], 1e-6);
        assert_eq!(temperature(&[(1.0, 1.0), (-2.0, 0.0)]), None);
        assert_eq!(temperature(&[(1.0, 0.0), (-2.0, 1.0)]), None);
        assert_eq!(temperature(&[]), None);
    }

    /// Margins of right sides of 80 prompts, two pairs each, stated `factor` times too sure.
    fn margins(factor: f64, draw: u64) -> Clustered {
        let mut stream = dpo_eval_rng::Stream::of(draw, "test/temperature", 0);
        let mut items = Vec::new();
        for prompt in 0..80 {
            let level = stream.normal();
            for _ in 0..2 {
                let logit = level + stream.normal();
                let right = if stream.bernoulli(logistic(logit)) { logit } else { -logit };
                items.push((prompt, factor * right));
            }
        }
        Clustered::new(items)
    }

    #[test]
    fn temperatures_of_pairs_cover_what_made_them() {
        let covered = (0..300)
            .filter(|draw| {
                let found = clustered_temperature(&margins(2.0, *draw), 0.95).unwrap();
                found.interval.lower <= 2.0 && 2.0 <= found.interval.upper
            })
            .count();
        assert!((274..=297).contains(&covered), "{covered}");
    }

    #[test]
    fn calibrated_margins_may_have_no_error_and_others_have_one() {
        let zero_within = |factor: f64| {
            let found = |draw| {
                let resampling = Resampling { resamples: 200, seed: draw, purpose: "test/ece" };
                expected_error_of_pairs(&margins(factor, draw), resampling).unwrap().interval(0.95)
            };
            (0..200).filter(|draw| found(*draw).lower == 0.0).count()
        };
        let (calibrated, not) = (zero_within(1.0), zero_within(6.0));
        assert!((184..=200).contains(&calibrated) && not < 20, "{calibrated} {not}");
    }

    #[test]
    fn the_expected_error_of_pairs_is_that_of_their_bins() {
        let margins = margins(3.0, 1);
        let resampling = Resampling { resamples: 300, seed: 1, purpose: "test/ece" };
        let found = expected_error_of_pairs(&margins, resampling).unwrap();
        // The same by the reliability curve: twenty bins from 0 to 1, of which the upper ten are filled.
        let forecasts: Vec<Forecast> = margins
            .values()
            .iter()
            .map(|m| Forecast { probability: logistic(m.abs()), outcome: f64::from(u8::from(*m > 0.0)) })
            .collect();
        close(&[found.value], &[expected_error(&reliability(&forecasts, 20, Binning::Uniform))], 1e-12);
        let interval = found.interval(0.95);
        assert!(interval.lower <= found.value && found.value <= interval.upper && interval.width() > 0.01);
        // Sure of itself three times too much: that isn't chance.
        assert!(interval.lower > 0.0);
    }
}
