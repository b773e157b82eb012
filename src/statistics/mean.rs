//! Means, rates and ratios of values that come in clusters (prompts).
//!
//! The standard error is the cluster-robust one of the item mean (Liang & Zeger 1986; Miller 2024, eq. 4) with the factor
//! C / (C − 1), and quantiles are those of t with C − 1 degrees of freedom. With equally many items a cluster this is what the
//! cluster means alone would give.
//!
//! Where all clusters agree the data show no spread, and a standard error of zero would claim to know what a further cluster
//! says. For a value with a known range the interval then rests on one fact: 0 of C clusters differed. With u the exact
//! (Clopper–Pearson) upper limit of the share of clusters that do differ, the mean lies between v − u (v − min) and
//! v + u (max − v); at the ends of a range of 0 to 1 that is Clopper–Pearson itself.

use std::collections::BTreeMap;

use super::interval::{Interval, t};
use super::proportion::{clopper_pearson, score};

pub const CLUSTER_T: &str = "item mean, cluster-robust t";
pub const CLUSTER_WILSON: &str = "item mean, Wilson on effective n";
pub const CLUSTER_SOFT: &str = "item mean, Wilson on effective n and skewness-corrected t";
pub const CLUSTERS_AGREE: &str = "all clusters agree, Clopper–Pearson on clusters";
/// For values without a range: the interval is the point, and says so.
pub const CONSTANT: &str = "equal in all clusters, spread unknown";
pub const RATIO: &str = "ratio of cluster means, delta method, cluster t";

/// A point with its interval, before it gets a name. See [`super::Estimate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    pub value: f64,
    pub interval: Interval,
    pub n: usize,
    pub clusters: usize,
    pub method: &'static str,
}

/// What values a quantity can take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub lower: f64,
    pub upper: f64,
}

impl Range {
    pub const REAL: Self = Self { lower: f64::NEG_INFINITY, upper: f64::INFINITY };
    pub const NON_NEGATIVE: Self = Self { lower: 0.0, upper: f64::INFINITY };
    /// Probabilities, preferences, shares.
    pub const UNIT: Self = Self { lower: 0.0, upper: 1.0 };
    /// Differences of those.
    pub const DIFFERENCE: Self = Self { lower: -1.0, upper: 1.0 };
    pub const HALVES: Self = Self { lower: -0.5, upper: 0.5 };

    fn is_bounded(self) -> bool {
        self.lower.is_finite() && self.upper.is_finite()
    }
}

/// Values and the cluster of each, in the order of the data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clustered {
    values: Vec<f64>,
    /// Index of each value's cluster, numbered by first appearance.
    cluster: Vec<usize>,
    clusters: usize,
}

impl Clustered {
    pub fn new<K: Ord>(items: impl IntoIterator<Item = (K, f64)>) -> Self {
        let mut numbers = BTreeMap::new();
        let mut this = Self::default();
        for (label, value) in items {
            let next = numbers.len();
            this.cluster.push(*numbers.entry(label).or_insert(next));
            this.values.push(value);
        }
        this.clusters = numbers.len();
        this
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn clusters(&self) -> usize {
        self.clusters
    }

    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Index of each value's cluster, numbered by first appearance.
    pub fn cluster(&self) -> &[usize] {
        &self.cluster
    }

    /// The mean over items. NaN when there are none.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// √(C / (C − 1) Σ_c (Σ_{i∈c} (x_i − x̄))²) / n. None for fewer than two clusters.
    pub fn standard_error(&self) -> Option<f64> {
        let c = self.clusters as f64;
        Some(self.standard_error_of_the_population()? * (c / (c - 1.0)).sqrt())
    }

    /// The same without the factor C / (C − 1), as Miller 2024, eq. 4, writes it.
    pub fn standard_error_of_the_population(&self) -> Option<f64> {
        if self.clusters < 2 {
            return None;
        }
        let mean = self.mean();
        let mut residuals = vec![0.0; self.clusters];
        for (value, cluster) in self.values.iter().zip(&self.cluster) {
            residuals[*cluster] += value - mean;
        }
        Some(residuals.iter().map(|r| r * r).sum::<f64>().sqrt() / self.values.len() as f64)
    }

    /// Sum and number of items of each cluster, in order of first appearance.
    pub fn sums(&self) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0, 0.0]; self.clusters];
        for (value, cluster) in self.values.iter().zip(&self.cluster) {
            sums[*cluster][0] += value;
            sums[*cluster][1] += 1.0;
        }
        sums
    }

    /// Whether all clusters have the same mean, up to rounding; so too when there is only one.
    fn agree(&self) -> bool {
        let mean = self.mean();
        self.sums().iter().all(|[sum, n]| (sum / n - mean).abs() <= 1e-12 * mean.abs().max(1.0))
    }

    fn measured(&self, value: f64, interval: Interval, range: Range, method: &'static str) -> Measured {
        let interval = interval.within(range.lower, range.upper);
        Measured { value, interval, n: self.len(), clusters: self.clusters, method }
    }

    /// The interval where the clusters show no spread; see the module. None for one cluster of values without a range.
    fn without_spread(&self, range: Range, level: f64) -> Option<Measured> {
        let value = self.mean();
        if range.is_bounded() {
            let u = clopper_pearson(0, self.clusters as u64, level).upper;
            let interval = Interval { lower: value - u * (value - range.lower), upper: value + u * (range.upper - value) };
            Some(self.measured(value, interval, range, CLUSTERS_AGREE))
        } else if self.clusters > 1 {
            Some(self.measured(value, Interval { lower: value, upper: value }, range, CONSTANT))
        } else {
            None
        }
    }
}

/// The mean over items. None where no interval can be had: no items, or one cluster of values without a range.
///
/// Of values between 0 and 1 see [`soft`]; of others the t interval, cut to the range.
pub fn mean(items: &Clustered, range: Range, level: f64) -> Option<Measured> {
    interval(items, range, level, |value, error| {
        let critical = t(level, items.clusters - 1);
        if range == Range::UNIT {
            (soft(value, error, items.clusters, critical), CLUSTER_SOFT)
        } else {
            (Interval::around(value, critical * error), CLUSTER_T)
        }
    })
}

/// Limits of the mean of values between 0 and 1.
///
/// Judges' preferences lie anywhere between verdicts (0 or 1) and values that hardly vary. ρ, the clusters' variance over the
/// p (1 − p) of verdicts, tells where. For verdicts (ρ = 1) Wilson's interval on p (1 − p) / SE² items is right. For others the
/// mean is more skewed near the ends than Wilson's interval knows, and t with the skewness taken out is right: the skewness of
/// the beta distribution with this mean and variance, as the sample's own is too unsure in small samples. Between them
/// (1 − ρ)³ weighs: the power at which simulated coverage stays nearest to its level (`golden/statistics/coverage.csv`).
fn soft(value: f64, error: f64, clusters: usize, critical: f64) -> Interval {
    let (c, most) = (clusters as f64, value * (1.0 - value));
    let wilson = score(value, most / (error * error), critical);
    let share = c * error * error / most;
    if share >= 1.0 {
        return wilson;
    }
    let size = 1.0 / share - 1.0;
    let skewness = 2.0 * (1.0 - 2.0 * value) * (size + 1.0).sqrt() / ((size + 2.0) * most.sqrt());
    let corrected = without_skewness(value, error, skewness / c.sqrt(), critical);
    let weight = (1.0 - share).powi(3);
    let between = |wilson: f64, corrected: f64| wilson + weight * (corrected - wilson);
    Interval {
        lower: between(wilson.lower, corrected.lower).min(value),
        upper: between(wilson.upper, corrected.upper).max(value),
    }
}

/// t limits after a cubic transformation that takes the skewness of the mean out (Hall 1992, "On the removal of skewness by
/// transformation", §2).
fn without_skewness(value: f64, error: f64, skewness: f64, critical: f64) -> Interval {
    if skewness.abs() < 1e-9 {
        return Interval::around(value, critical * error);
    }
    let back = |x: f64| 3.0 / skewness * (libm::cbrt(1.0 + skewness * (x - skewness / 6.0)) - 1.0);
    Interval { lower: value - error * back(critical), upper: value - error * back(-critical) }
}

/// The share of a yes-or-no property (values 0, 1, or ½ for a tie), with Wilson's interval on the effective number of items
/// p (1 − p) / SE² with the t quantile, at most n (Korn & Graubard 1998): several verdicts of a prompt never tell more than as many
/// prompts would.
pub fn rate(items: &Clustered, level: f64) -> Option<Measured> {
    interval(items, Range::UNIT, level, |value, error| {
        let effective = (value * (1.0 - value) / (error * error)).min(items.len() as f64);
        (score(value, effective, t(level, items.clusters - 1)), CLUSTER_WILSON)
    })
}

fn interval(
    items: &Clustered,
    range: Range,
    level: f64,
    limits: impl FnOnce(f64, f64) -> (Interval, &'static str),
) -> Option<Measured> {
    if items.is_empty() {
        return None;
    }
    let Some(error) = items.standard_error().filter(|_| !items.agree()) else {
        return items.without_spread(range, level);
    };
    let value = items.mean();
    let (interval, method) = limits(value, error);
    Some(items.measured(value, interval, range, method))
}

/// Σ_c ȳ_c / Σ_c x̄_c over the clusters that have both: each cluster counts once, however many items either side has.
///
/// Delta method: the standard error is that of the mean of the residuals ȳ_c − R x̄_c, over the mean of x̄_c (Cochran 1977,
/// §6.3). None for fewer than two clusters or a denominator of zero.
pub fn ratio<K: Ord + Copy>(
    numerator: impl IntoIterator<Item = (K, f64)>,
    denominator: impl IntoIterator<Item = (K, f64)>,
    level: f64,
) -> Option<Measured> {
    let (y, x) = (means(numerator), means(denominator));
    let pairs: Vec<(f64, f64)> = y.iter().filter_map(|(k, (sy, ny))| x.get(k).map(|(sx, nx)| (sy / ny, sx / nx))).collect();
    let n: f64 = y.iter().filter(|(k, _)| x.contains_key(k)).map(|(_, (_, count))| count).sum();
    let total: f64 = pairs.iter().map(|(_, x)| x).sum();
    if pairs.len() < 2 || total <= 0.0 {
        return None;
    }
    let value = pairs.iter().map(|(y, _)| y).sum::<f64>() / total;
    let residuals = Clustered::new(pairs.iter().map(|(y, x)| y - value * x).enumerate());
    let error = residuals.standard_error()? / (total / pairs.len() as f64);
    // A ratio that is the same everywhere (a policy equal to its reference, say) has no spread to estimate.
    let scale = value.abs().max(1.0) * 1e-12;
    let method = if error <= scale { CONSTANT } else { RATIO };
    let half = if error <= scale { 0.0 } else { t(level, pairs.len() - 1) * error };
    let interval = Interval::around(value, half).within(0.0, f64::INFINITY);
    Some(Measured { value, interval, n: n as usize, clusters: pairs.len(), method })
}

/// new − old, each averaged within its cluster first, over the clusters that have both.
pub fn paired_difference<K: Ord + Copy>(
    new: impl IntoIterator<Item = (K, f64)>,
    old: impl IntoIterator<Item = (K, f64)>,
    range: Range,
    level: f64,
) -> Option<Measured> {
    let old = means(old);
    let differences = means(new).into_iter().filter_map(|(k, (sum, count))| {
        let (old_sum, old_count) = old.get(&k)?;
        Some((k, sum / count - old_sum / old_count))
    });
    mean(&Clustered::new(differences), range, level)
}

/// The means of either side in each cluster that both have.
pub fn in_common<K: Ord + Copy>(a: &[(K, f64)], b: &[(K, f64)]) -> Vec<[f64; 2]> {
    let (a, b) = (means(a.iter().copied()), means(b.iter().copied()));
    a.iter().filter_map(|(k, (sum, n))| b.get(k).map(|(other, m)| [sum / n, other / m])).collect()
}

/// Sum and count of each cluster.
fn means<K: Ord>(items: impl IntoIterator<Item = (K, f64)>) -> BTreeMap<K, (f64, f64)> {
    let mut sums = BTreeMap::new();
    for (label, value) in items {
        let entry = sums.entry(label).or_insert((0.0, 0.0));
        entry.0 += value;
        entry.1 += 1.0;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number, numbers, vectors};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_t_interval_of_independent_values_meets_scipy() {
        let Some(file) = vectors("mean_bootstrap") else { return };
        let items = Clustered::new(numbers(&file["x"]).into_iter().enumerate());
        let found = mean(&items, Range::REAL, 0.95).unwrap();
        close(&[found.value, items.standard_error().unwrap()], &[number(&file["mean"]), number(&file["sem"])], 1e-12);
        close(&[found.interval.lower, found.interval.upper], &numbers(&file["t_ci95"]), 1e-9);
    }

    #[test]
    fn clustered_standard_errors_meet_statsmodels_and_miller() {
        let Some(file) = vectors("clustered_paired_power") else { return };
        let (a, b, clusters) = (numbers(&file["scores_A"]), numbers(&file["scores_B"]), numbers(&file["cluster"]));
        let labels: Vec<i64> = clusters.iter().map(|c| *c as i64).collect();
        let items = Clustered::new(labels.iter().copied().zip(a.iter().copied()));
        let error = items.standard_error().unwrap();
        close(&[items.mean(), error], &[number(&file["mean_A"]), number(&file["se_statsmodels_cluster_corr"])], 1e-12);
        close(&[items.standard_error_of_the_population().unwrap()], &[number(&file["se_clustered_miller"])], 1e-12);

        let differences = Clustered::new(labels.into_iter().zip(a.iter().zip(&b).map(|(a, b)| a - b)));
        let paired = &file["paired"];
        close(
            &[differences.mean(), differences.standard_error().unwrap()],
            &[number(&paired["diff_mean"]), number(&paired["se_paired_clustered_corr"])],
            1e-12,
        );
    }

    #[test]
    fn the_paired_difference_meets_the_paired_t_test() {
        let Some(file) = vectors("paired_tests") else { return };
        let (a, b) = (numbers(&file["a"]), numbers(&file["b"]));
        let found =
            paired_difference(a.iter().copied().enumerate(), b.iter().copied().enumerate(), Range::DIFFERENCE, 0.95).unwrap();
        let error = (found.interval.upper - found.value) / t(0.95, a.len() - 1);
        close(&[found.value / error], &[number(&file["ttest_rel_t"])], 1e-9);
        // Non-inferiority at a margin of 0.02 is the same statistic, moved.
        close(&[(found.value + 0.02) / error], &[number(&file["noninferiority_margin_0.02"]["t"])], 1e-9);
    }

    #[test]
    fn win_rates_and_position_effects_meet_the_reference() {
        let Some(file) = vectors("position_bias") else { return };
        let items = Clustered::new(numbers(&file["debiased_pref_A_mean_prob"]).into_iter().enumerate());
        close(
            &[items.mean(), items.standard_error().unwrap()],
            &[number(&file["winrate_A_meanprob"]), number(&file["winrate_A_se"])],
            1e-9,
        );
        let effects = Clustered::new(numbers(&file["per_item_position_effect"]).into_iter().enumerate());
        let found = mean(&effects, Range::HALVES, 1.0 - number(&file["position_effect_t_p"])).unwrap();
        close(&[found.value, found.interval.lower], &[number(&file["mean_position_effect"]), 0.0], 1e-9);
    }

    #[test]
    fn clusters_that_agree_get_the_exact_interval_and_say_so() {
        let all = |value: f64| Clustered::new((0..60).map(|i| (i / 2, value)));
        let exact = clopper_pearson(30, 30, 0.95);
        for found in [mean(&all(1.0), Range::UNIT, 0.95), rate(&all(1.0), 0.95)] {
            let found = found.unwrap();
            assert_eq!(found.method, CLUSTERS_AGREE);
            close(&[found.interval.lower, found.interval.upper], &[exact.lower, 1.0], 1e-12);
        }
        let ties = mean(&all(0.5), Range::UNIT, 0.95).unwrap();
        assert!(ties.interval.lower < 0.5 && ties.interval.upper > 0.5);
        let alone = mean(&Clustered::new([("only", 0.7), ("only", 0.9)]), Range::UNIT, 0.95).unwrap();
        assert!(alone.interval.width() > 0.9);
        assert_eq!(mean(&Clustered::new([("only", 0.7)]), Range::REAL, 0.95), None);
        assert_eq!(mean(&Clustered::new(Vec::<(u8, f64)>::new()), Range::UNIT, 0.95), None);
    }

    #[test]
    fn a_ratio_of_constant_lengths_is_exact_and_scales() {
        let policy = [("a", 12.0), ("a", 16.0), ("b", 30.0), ("c", 9.0)];
        let reference = [("a", 10.0), ("b", 20.0), ("c", 11.0), ("d", 500.0)];
        let found = ratio(policy, reference, 0.95).unwrap();
        assert!((found.value - 53.0 / 41.0).abs() < 1e-12);
        assert_eq!((found.n, found.clusters), (4, 3));
        let doubled = ratio(policy.map(|(k, v)| (k, 2.0 * v)), reference, 0.95).unwrap();
        close(&[doubled.value, doubled.interval.upper], &[2.0 * found.value, 2.0 * found.interval.upper], 1e-9);
    }

    #[test]
    fn the_delta_method_agrees_with_the_jackknife() {
        let mut stream = dpo_eval_rng::Stream::of(3, "test/ratio", 0);
        let pairs: Vec<(f64, f64)> = (0..400)
            .map(|_| {
                let x = 20.0 + 3.0 * stream.normal();
                (1.3 * x + 2.0 * stream.normal(), x)
            })
            .collect();
        let (sy, sx) = pairs.iter().fold((0.0, 0.0), |(a, b), (y, x)| (a + y, b + x));
        let leave_one_out: Vec<f64> = pairs.iter().map(|(y, x)| (sy - y) / (sx - x)).collect();
        let n = pairs.len() as f64;
        let centre = leave_one_out.iter().sum::<f64>() / n;
        let jackknife = ((n - 1.0) / n * leave_one_out.iter().map(|r| (r - centre).powi(2)).sum::<f64>()).sqrt();
        let found = ratio(pairs.iter().map(|p| p.0).enumerate(), pairs.iter().map(|p| p.1).enumerate(), 0.95).unwrap();
        let error = (found.interval.upper - found.value) / t(0.95, pairs.len() - 1);
        assert!((error / jackknife - 1.0).abs() < 0.01, "{error} {jackknife}");
    }

    #[test]
    fn intervals_cover_the_truth_as_often_as_they_say() {
        const DRAWS: u64 = 1000;
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        for shift in [0.0, 2.0] {
            // Soft preferences σ(shift + 1.5 prompt + sample); their mean by the trapezoid rule over the normal density.
            let spread = (1.5f64 * 1.5 + 1.0).sqrt();
            let density = |x: f64| libm::exp(-x * x / 2.0) / (2.0 * std::f64::consts::PI).sqrt();
            let truth: f64 =
                (-800..=800).map(|i| f64::from(i) / 100.0).map(|x| 0.01 * density(x) * sigmoid(shift + spread * x)).sum();
            let (mut soft, mut hard) = (0, 0);
            for draw in 0..DRAWS {
                let mut stream = dpo_eval_rng::Stream::of(shift as u64, "test/coverage", draw);
                let prompts: Vec<f64> = (0..20).map(|_| shift + 1.5 * stream.normal()).collect();
                let items: Vec<(usize, f64)> = (0..80).map(|i| (i / 4, sigmoid(prompts[i / 4] + stream.normal()))).collect();
                let verdicts = items.iter().map(|(prompt, p)| (*prompt, f64::from(u8::from(stream.bernoulli(*p)))));
                let covers = |m: Measured| u64::from(m.interval.lower <= truth && truth <= m.interval.upper);
                hard += covers(rate(&Clustered::new(verdicts), 0.95).unwrap());
                soft += covers(mean(&Clustered::new(items.iter().copied()), Range::UNIT, 0.95).unwrap());
            }
            for covered in [soft, hard] {
                assert!((930..=970).contains(&covered), "{covered} of {DRAWS} around {truth}");
            }
        }
    }

    #[test]
    fn preferences_near_one_of_few_prompts_are_covered() {
        // The mean of σ(4 + 1.8 normal), by scipy.integrate.quad.
        const NEAR_ONE: f64 = 0.9425890;
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        let covered = (0..1000u64)
            .filter(|draw| {
                let mut stream = dpo_eval_rng::Stream::of(1, "test/coverage/near-one", *draw);
                let items = Clustered::new((0..20).map(|i| (i, sigmoid(4.0 + 1.8 * stream.normal()))));
                let found = mean(&items, Range::UNIT, 0.95).unwrap().interval;
                found.lower <= NEAR_ONE && NEAR_ONE <= found.upper
            })
            .count();
        assert!((930..=970).contains(&covered), "{covered}");
    }

    proptest! {
        #[test]
        fn intervals_hold_the_point_shrink_and_mirror(
            values in proptest::collection::vec(prop_oneof![0.0f64..=1.0, Just(0.0), Just(0.5), Just(1.0)], 2..120),
            size in 1usize..4,
            hard in proptest::bool::ANY,
        ) {
            let values: Vec<f64> = values.into_iter().map(|v| if hard { v.round() } else { v }).collect();
            let of = |flip: bool, copies: usize| {
                let items = (0..copies).flat_map(|copy| values.iter().enumerate().map(move |(i, v)| ((copy, i / size), *v)));
                let items = Clustered::new(items.map(|(k, v)| (k, if flip { 1.0 - v } else { v })));
                if hard { rate(&items, 0.95) } else { mean(&items, Range::UNIT, 0.95) }.unwrap()
            };
            let (here, there, more) = (of(false, 1), of(true, 1), of(false, 4));
            prop_assert!(0.0 <= here.interval.lower && here.interval.upper <= 1.0);
            prop_assert!(here.interval.lower <= here.value && here.value <= here.interval.upper);
            prop_assert!(here.interval.width() > 0.0);
            prop_assert!((here.value - (1.0 - there.value)).abs() < 1e-9);
            prop_assert!((here.interval.lower - (1.0 - there.interval.upper)).abs() < 1e-9);
            // Cut to the range, an interval may keep its width: [0, 1] stays [0, 1].
            prop_assert!(more.interval.width() <= here.interval.width() + 1e-12);
        }
    }
}
