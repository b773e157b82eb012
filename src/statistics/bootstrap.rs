//! The bootstrap over units that are drawn with replacement (items, or whole clusters): percentile, basic, BCa and
//! studentised intervals (Efron & Tibshirani 1993, chapters 12 to 14; Davison & Hinkley 1997, chapter 5).
//!
//! Each resample has its own addressed stream, so that neither the number of threads nor that of resamples changes one.

use dpo_eval_rng::Stream;
use rayon::prelude::*;

use super::interval::{Interval, normal_cdf, normal_quantile};
use super::mean::Clustered;
use super::quantile::sorted_quantile;

/// What a resample is addressed by.
#[derive(Debug, Clone, Copy)]
pub struct Resampling<'a> {
    pub resamples: usize,
    pub seed: u64,
    /// What is resampled for, `"win-rate"` say: two purposes never share their draws.
    pub purpose: &'a str,
}

impl Resampling<'_> {
    /// `statistic` of each resample, in order; it gets the drawn units, as many as there are.
    pub fn replicates<T: Send>(self, units: usize, statistic: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        (0..self.resamples)
            .into_par_iter()
            .map_init(
                || vec![0u32; units],
                |drawn, resample| {
                    Stream::of(self.seed, self.purpose, resample as u64).fill_indices(units, drawn);
                    statistic(drawn)
                },
            )
            .collect()
    }
}

/// A statistic of the sample and of its resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    pub value: f64,
    /// Ascending.
    replicates: Vec<f64>,
}

impl Bootstrap {
    /// None where there is no replicate, or one is not a number.
    pub fn new(value: f64, mut replicates: Vec<f64>) -> Option<Self> {
        if replicates.is_empty() || replicates.iter().any(|r| r.is_nan()) {
            return None;
        }
        replicates.sort_by(f64::total_cmp);
        Some(Self { value, replicates })
    }

    /// The standard deviation of the replicates.
    pub fn standard_error(&self) -> f64 {
        let n = self.replicates.len() as f64;
        let mean = self.replicates.iter().sum::<f64>() / n;
        (self.replicates.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / (n - 1.0)).sqrt()
    }

    pub fn quantile(&self, p: f64) -> f64 {
        sorted_quantile(&self.replicates, p)
    }

    pub fn percentile(&self, level: f64) -> Interval {
        let tail = (1.0 - level) / 2.0;
        Interval { lower: self.quantile(tail), upper: self.quantile(1.0 - tail) }
    }

    pub fn basic(&self, level: f64) -> Interval {
        let percentile = self.percentile(level);
        Interval { lower: 2.0 * self.value - percentile.upper, upper: 2.0 * self.value - percentile.lower }
    }

    /// Bias-corrected and accelerated (Efron 1987). `jackknife`: the statistic without each unit in turn. None where all
    /// replicates lie on one side of the value, or the jackknife doesn't vary.
    pub fn bca(&self, jackknife: &[f64], level: f64) -> Option<Interval> {
        let acceleration = acceleration(jackknife)?;
        let below = self.replicates.partition_point(|r| *r < self.value);
        let equal = self.replicates.partition_point(|r| *r <= self.value) - below;
        let share = (below as f64 + 0.5 * equal as f64) / self.replicates.len() as f64;
        if share <= 0.0 || share >= 1.0 {
            return None;
        }
        let bias = normal_quantile(share);
        let place = |p: f64| {
            let shifted = bias + normal_quantile(p);
            normal_cdf(bias + shifted / (1.0 - acceleration * shifted))
        };
        let tail = (1.0 - level) / 2.0;
        Some(Interval { lower: self.quantile(place(tail)), upper: self.quantile(place(1.0 - tail)) })
    }
}

/// a = Σ (m − J_i)³ / (6 (Σ (m − J_i)²)^1.5), m the mean of the J_i.
fn acceleration(jackknife: &[f64]) -> Option<f64> {
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let power = |k: i32| jackknife.iter().map(|j| (mean - j).powi(k)).sum::<f64>();
    let squares = power(2);
    (squares > 0.0).then(|| power(3) / (6.0 * squares.powf(1.5)))
}

/// value − t* SE, t* the quantiles of the resamples' own (r − value) / SE(r). None where a resample has no spread.
pub fn studentised(value: f64, standard_error: f64, resampled: &[(f64, f64)], level: f64) -> Option<Interval> {
    let mut t: Vec<f64> = resampled.iter().map(|(r, error)| (r - value) / error).collect();
    if t.is_empty() || t.iter().any(|t| !t.is_finite()) {
        return None;
    }
    t.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let at = |p: f64| value - sorted_quantile(&t, p) * standard_error;
    Some(Interval { lower: at(1.0 - tail), upper: at(tail) })
}

/// The mean over items, with whole clusters as the units that are drawn.
pub struct ClusterMean {
    /// Sum and number of items of each cluster.
    clusters: Vec<[f64; 2]>,
    value: f64,
}

impl ClusterMean {
    pub fn new(items: &Clustered) -> Self {
        Self { clusters: items.sums(), value: items.mean() }
    }

    pub fn of(&self, drawn: &[u32]) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for unit in drawn {
            let [s, n] = self.clusters[*unit as usize];
            sum += s;
            count += n;
        }
        sum / count
    }

    /// The mean and its cluster-robust standard error.
    pub fn located(&self, drawn: &[u32]) -> (f64, f64) {
        let (mut sum, mut count, mut ss, mut sn, mut nn) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for unit in drawn {
            let [s, n] = self.clusters[*unit as usize];
            sum += s;
            count += n;
            ss += s * s;
            sn += s * n;
            nn += n * n;
        }
        let (mean, c) = (sum / count, drawn.len() as f64);
        let residuals = (ss - 2.0 * mean * sn + mean * mean * nn).max(0.0);
        (mean, (c / (c - 1.0) * residuals).sqrt() / count)
    }

    pub fn bootstrap(&self, resampling: Resampling) -> Option<Bootstrap> {
        Bootstrap::new(self.value, resampling.replicates(self.clusters.len(), |drawn| self.of(drawn)))
    }

    /// The mean without each cluster in turn.
    pub fn jackknife(&self) -> Vec<f64> {
        let (sum, count) = self.clusters.iter().fold((0.0, 0.0), |(s, n), [sum, count]| (s + sum, n + count));
        self.clusters.iter().map(|[s, n]| (sum - s) / (count - n)).collect()
    }

    pub fn studentised(&self, resampling: Resampling, level: f64) -> Option<Interval> {
        let all: Vec<u32> = (0..self.clusters.len() as u32).collect();
        let (value, error) = self.located(&all);
        studentised(value, error, &resampling.replicates(self.clusters.len(), |drawn| self.located(drawn)), level)
    }
}

#[cfg(test)]
mod tests {
    use super::super::interval::t;
    use super::super::reference::{close, limits, number, numbers, vectors};
    use super::*;

    #[test]
    fn intervals_meet_scipy_on_the_same_resamples() {
        let Some(file) = vectors("mean_bootstrap") else { return };
        let items = Clustered::new(numbers(&file["x"]).into_iter().enumerate());
        let mean = ClusterMean::new(&items);
        let file = &file["bootstrap"];
        let rows = file["indices"].as_array().unwrap().iter();
        let drawn: Vec<Vec<u32>> = rows.map(|row| numbers(row).into_iter().map(|i| i as u32).collect()).collect();
        let replicates: Vec<f64> = drawn.iter().map(|row| mean.of(row)).collect();
        close(&replicates, &numbers(&file["theta_b"]), 1e-12);
        let bootstrap = Bootstrap::new(mean.value, replicates).unwrap();
        close(&limits(bootstrap.percentile(0.95)), &numbers(&file["scipy_percentile"]), 1e-9);
        close(&limits(bootstrap.basic(0.95)), &numbers(&file["scipy_basic"]), 1e-9);
        close(&mean.jackknife(), &numbers(&file["bca"]["jackknife"]), 1e-12);
        close(&limits(bootstrap.bca(&mean.jackknife(), 0.95).unwrap()), &numbers(&file["scipy_BCa"]), 1e-9);
        close(&[bootstrap.standard_error()], &[number(&file["boot_se_ddof1"])], 1e-12);
        close(&[acceleration(&mean.jackknife()).unwrap()], &[number(&file["bca"]["a"])], 1e-9);
    }

    #[test]
    fn a_resample_has_the_standard_error_of_the_same_values_written_out() {
        let items = Clustered::new([("a", 0.1), ("a", 0.9), ("b", 0.4), ("c", 0.8), ("c", 0.6), ("c", 0.7)]);
        let written_out = Clustered::new([(0, 0.1), (0, 0.9), (1, 0.8), (1, 0.6), (1, 0.7), (2, 0.1), (2, 0.9)]);
        let (mean, error) = ClusterMean::new(&items).located(&[0, 2, 0]);
        close(&[mean, error], &[written_out.mean(), written_out.standard_error().unwrap()], 1e-12);
    }

    #[test]
    fn intervals_of_many_values_come_near_the_t_interval() {
        let mut stream = Stream::of(5, "test/bootstrap", 0);
        let items = Clustered::new((0..600).map(|i| (i / 2, 1.0 + stream.normal())));
        let mean = ClusterMean::new(&items);
        let resampling = Resampling { resamples: 4000, seed: 1, purpose: "test" };
        let half = t(0.95, 299) * items.standard_error().unwrap();
        let bootstrap = mean.bootstrap(resampling).unwrap();
        let bca = bootstrap.bca(&mean.jackknife(), 0.95).unwrap();
        for found in [bootstrap.percentile(0.95), bootstrap.basic(0.95), bca, mean.studentised(resampling, 0.95).unwrap()] {
            close(&limits(found), &[items.mean() - half, items.mean() + half], 0.1 * half);
        }
    }

    #[test]
    fn threads_change_nothing_and_the_seed_does() {
        let items = Clustered::new((0..50).map(|i| (i, f64::from(i * i % 17))));
        let of = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| ClusterMean::new(&items).bootstrap(Resampling { resamples: 200, seed, purpose: "test" }))
        };
        assert_eq!(of(1, 3), of(2, 3));
        assert_ne!(of(1, 3), of(1, 4));
    }
}
