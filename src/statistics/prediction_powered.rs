//! A judge's mean corrected by a few trusted labels (PPI, Angelopoulos et al. 2023; PPI++, Angelopoulos, Duchi & Zrnic 2023): as
//! unbiased as the labels alone, and tighter by as much as the judge predicts them. For win rates and for accuracies.

use std::collections::BTreeMap;

use super::interval::{Interval, t, z};

/// What the judge said of an item, and the trusted label where there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    pub judge: f64,
    pub label: Option<f64>,
    /// Items of a cluster (prompt) go together, labelled or not.
    pub cluster: usize,
}

/// How much the judge counts: 0 uses the labels alone, 1 is PPI.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tuning {
    /// PPI++: as much as makes the standard error smallest, between 0 and 1.
    Best,
    Fixed(f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corrected {
    pub value: f64,
    /// Large-sample, as in the papers (no small-sample factor).
    pub standard_error: f64,
    pub lambda: f64,
    /// Of the labels alone.
    pub classical: f64,
    pub classical_standard_error: f64,
    pub labels: usize,
    /// Clusters that hold a label.
    pub labelled_clusters: usize,
}

/// Labelled clusters below which no interval is given: of five, 95 % held the truth in 89 % of simulations.
pub const FEWEST: usize = 10;

impl Corrected {
    /// As the papers have it, by the normal quantile.
    pub fn interval(&self, level: f64) -> Interval {
        Interval::around(self.value, z(level) * self.standard_error)
    }

    /// For few labels: by t over the labelled clusters C, with the factor C / (C − 1). None below [`FEWEST`] of them.
    pub fn interval_of_few(&self, level: f64) -> Option<Interval> {
        let c = self.labelled_clusters;
        let factor = (c as f64 / (c as f64 - 1.0)).sqrt();
        (c >= FEWEST).then(|| Interval::around(self.value, t(level, c - 1) * factor * self.standard_error))
    }

    /// How many labels alone would give this standard error.
    pub fn effective_labels(&self) -> f64 {
        self.labels as f64 * (self.classical_standard_error / self.standard_error).powi(2)
    }
}

/// θ = λ mean(ŷ of unlabelled) + mean(y − λ ŷ of labelled). The variance sums the influence of each cluster:
/// Σ_c (λ/N Σ_unlabelled (ŷ − mean) + 1/n Σ_labelled (y − λ ŷ − mean))², which for clusters of one is λ² var(ŷ) / N + var(y − λ ŷ) / n.
/// None without labels or without unlabelled items.
pub fn corrected_mean(items: &[Predicted], tuning: Tuning) -> Option<Corrected> {
    let labelled: Vec<(f64, f64, usize)> = items.iter().filter_map(|i| Some((i.label?, i.judge, i.cluster))).collect();
    let unlabelled: Vec<(f64, usize)> = items.iter().filter(|i| i.label.is_none()).map(|i| (i.judge, i.cluster)).collect();
    if labelled.is_empty() || unlabelled.is_empty() {
        return None;
    }
    let (n, big_n) = (labelled.len() as f64, unlabelled.len() as f64);
    let lambda = match tuning {
        Tuning::Best => best(&labelled, items, n, big_n),
        Tuning::Fixed(lambda) => lambda,
    };
    let unlabelled_mean = unlabelled.iter().map(|(judge, _)| judge).sum::<f64>() / big_n;
    let rectified = labelled.iter().map(|(y, judge, _)| y - lambda * judge).sum::<f64>() / n;
    let classical = labelled.iter().map(|(y, ..)| y).sum::<f64>() / n;

    let of_labelled = labelled.iter().map(|(y, judge, c)| (*c, (y - lambda * judge - rectified) / n));
    let of_unlabelled = unlabelled.iter().map(|(judge, c)| (*c, lambda * (judge - unlabelled_mean) / big_n));
    Some(Corrected {
        value: lambda * unlabelled_mean + rectified,
        standard_error: squares(of_labelled.chain(of_unlabelled)).sqrt(),
        lambda,
        classical,
        classical_standard_error: squares(labelled.iter().map(|(y, _, c)| (*c, (y - classical) / n))).sqrt(),
        labels: labelled.len(),
        labelled_clusters: sums(labelled.iter().map(|(.., c)| (*c, 1.0))).len(),
    })
}

/// λ = cov(y, ŷ) / ((1 + n/N) var(ŷ)), both of cluster sums; the variance over all items (ppi_py 0.2.3 for clusters of one).
fn best(labelled: &[(f64, f64, usize)], items: &[Predicted], n: f64, big_n: f64) -> f64 {
    let (mean_y, mean_judge) = labelled.iter().fold((0.0, 0.0), |(a, b), (y, judge, _)| (a + y / n, b + judge / n));
    let of_y = sums(labelled.iter().map(|(y, _, c)| (*c, y - mean_y)));
    let of_judge = sums(labelled.iter().map(|(_, judge, c)| (*c, judge - mean_judge)));
    let covariance = of_y.values().zip(of_judge.values()).map(|(a, b)| a * b).sum::<f64>() / n;
    let mean = items.iter().map(|i| i.judge).sum::<f64>() / (n + big_n);
    let pooled = sums(items.iter().map(|i| (i.cluster, i.judge - mean)));
    let c = pooled.len() as f64;
    let variance = pooled.values().map(|s| s * s).sum::<f64>() / (n + big_n) * c / (c - 1.0);
    if variance > 0.0 { (covariance / ((1.0 + n / big_n) * variance)).clamp(0.0, 1.0) } else { 0.0 }
}

fn sums(items: impl Iterator<Item = (usize, f64)>) -> BTreeMap<usize, f64> {
    let mut sums = BTreeMap::new();
    for (cluster, value) in items {
        *sums.entry(cluster).or_insert(0.0) += value;
    }
    sums
}

fn squares(items: impl Iterator<Item = (usize, f64)>) -> f64 {
    sums(items).values().map(|s| s * s).sum()
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, limits, number, numbers, vectors};
    use super::*;
    use dpo_eval_rng::Stream;

    fn items(file: &serde_json::Value) -> Vec<Predicted> {
        let labelled = numbers(&file["Yhat"]).into_iter().zip(numbers(&file["Y"])).map(|(judge, y)| (judge, Some(y)));
        let unlabelled = numbers(&file["Yhat_unlabeled"]).into_iter().map(|judge| (judge, None));
        let all = labelled.chain(unlabelled).enumerate();
        all.map(|(cluster, (judge, label))| Predicted { judge, label, cluster }).collect()
    }

    #[test]
    fn means_meet_ppi_py() {
        let Some(file) = vectors("ppi") else { return };
        let items = items(&file);
        let cases = [("auto", Tuning::Best), ("lam0", Tuning::Fixed(0.0)), ("lam1", Tuning::Fixed(1.0))];
        for (name, tuning) in cases {
            let found = corrected_mean(&items, tuning).unwrap();
            close(&[found.value], &[number(&file[name]["point"])], 1e-9);
            close(&limits(found.interval(0.95)), &numbers(&file[name]["ci95"]), 1e-9);
            let z = (found.value - 0.5).abs() / found.standard_error;
            close(&[2.0 * super::super::interval::normal_cdf(-z)], &[number(&file[name]["pval_null_0.5"])], 1e-9);
        }
        let best = corrected_mean(&items, Tuning::Best).unwrap();
        close(
            &[best.lambda, best.standard_error],
            &[number(&file["lambda_hat"]), number(&file["check_formula_auto"]["se"])],
            1e-9,
        );
        close(&[best.effective_labels() / 20.0], &[number(&file["effective_sample_size_ratio"])], 1e-9);
        close(&[best.classical], &[number(&file["classical"]["mean"])], 1e-12);
    }

    #[test]
    fn a_biased_judge_is_corrected_and_its_interval_covers() {
        let (mut covered, mut tighter) = (0, 0);
        for draw in 0..400 {
            let mut stream = Stream::of(draw, "test/ppi", 0);
            let items: Vec<Predicted> = (0..600)
                .map(|i| {
                    // Two samples of a prompt share its chance of a win; the judge likes them all too well.
                    let chance = 0.25 + 0.5 * Stream::of(draw, "test/ppi/prompt", i / 2).uniform();
                    let win = f64::from(u8::from(stream.bernoulli(chance)));
                    let judge = (0.6 * win + 0.35 + 0.1 * stream.normal()).clamp(0.0, 1.0);
                    Predicted { judge, label: (i < 120).then_some(win), cluster: i as usize / 2 }
                })
                .collect();
            let found = corrected_mean(&items, Tuning::Best).unwrap();
            let interval = found.interval_of_few(0.95).unwrap();
            covered += u32::from(interval.lower <= 0.5 && 0.5 <= interval.upper);
            tighter += u32::from(found.effective_labels() > 120.0);
        }
        assert!((368..=392).contains(&covered), "{covered}");
        assert!(tighter > 390, "{tighter}");
    }

    #[test]
    fn a_judge_that_says_nothing_leaves_the_labels() {
        let items: Vec<Predicted> =
            (0..30).map(|i| Predicted { judge: 0.5, label: (i < 10).then_some((i % 2) as f64), cluster: i }).collect();
        let found = corrected_mean(&items, Tuning::Best).unwrap();
        assert_eq!((found.lambda, found.value), (0.0, 0.5));
        assert!(found.interval_of_few(0.95).is_some());
        let fewer = Predicted { label: None, ..items[0] };
        let fewer = corrected_mean(&[&[fewer], &items[1..]].concat(), Tuning::Best).unwrap();
        assert_eq!(fewer.interval_of_few(0.95), None, "nine labelled prompts");
        assert_eq!(corrected_mean(&items[..10], Tuning::Best), None);
        assert_eq!(corrected_mean(&items[10..], Tuning::Best), None);
    }
}
