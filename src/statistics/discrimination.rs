//! How well scores tell two classes apart: area under the ROC curve with an interval over clusters, average precision, and
//! Matthews' correlation at a threshold.

use super::interval::{Interval, t};
use super::logistic::logistic;
use super::mean::{CLUSTERS_AGREE, Measured};
use super::proportion::clopper_pearson;
use super::rank::midranks;

pub const AREA: &str = "area under ROC, clustered (Obuchowski), t on the logit";

/// A score, its class, and the cluster (prompt) that it shares with others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub score: f64,
    pub positive: bool,
    pub cluster: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub value: f64,
    pub standard_error: f64,
    pub n: usize,
    pub clusters: usize,
}

impl Area {
    /// By t over clusters on the logit scale, so that it stays within 0 and 1 (Pepe 2003, §5.2). Where the area is 0 or 1 no cluster
    /// differs, and the interval is Clopper & Pearson's of none of them. None for one cluster.
    pub fn measured(self, level: f64) -> Option<Measured> {
        let Self { value, clusters, .. } = self;
        if clusters < 2 {
            return None;
        }
        let (interval, method) = if value <= 0.0 || value >= 1.0 {
            let right = if value >= 1.0 { clusters as u64 } else { 0 };
            (clopper_pearson(right, clusters as u64, level), CLUSTERS_AGREE)
        } else {
            let odds = libm::log(value / (1.0 - value));
            let half = t(level, clusters - 1) * self.standard_error / (value * (1.0 - value));
            (Interval { lower: logistic(odds - half), upper: logistic(odds + half) }, AREA)
        };
        Some(Measured { value, interval, n: self.n, clusters, method })
    }
}

/// The area under the ROC curve: the chance that a positive scores above a negative, ties half (Mann & Whitney 1947), with the
/// standard error for clustered data (Obuchowski 1997), which for clusters of one is that of DeLong et al. 1988.
/// None where a class is empty.
pub fn area(items: &[Scored]) -> Option<Area> {
    let ranks = midranks(&items.iter().map(|i| i.score).collect::<Vec<_>>());
    let within = |class: bool| {
        let own: Vec<f64> = items.iter().filter(|i| i.positive == class).map(|i| i.score).collect();
        midranks(&own)
    };
    let mut own = [within(false).into_iter(), within(true).into_iter()];
    let positives = items.iter().filter(|i| i.positive).count() as f64;
    let negatives = items.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // Structural components: the share of the other class that an item lies on the right side of.
    let placed = items.iter().zip(&ranks).map(|(item, rank)| {
        let below = rank - own[usize::from(item.positive)].next().expect("a rank for each");
        if item.positive { below / negatives } else { 1.0 - below / positives }
    });
    let components: Vec<f64> = placed.collect();
    let value = items.iter().zip(&components).filter(|(i, _)| i.positive).map(|(_, c)| c).sum::<f64>() / positives;

    // Sums over each cluster of components − value: of positives, and of negatives.
    let mut sums: std::collections::BTreeMap<usize, [f64; 2]> = Default::default();
    let (mut with_positive, mut with_negative) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for (item, component) in items.iter().zip(&components) {
        sums.entry(item.cluster).or_default()[usize::from(item.positive)] += component - value;
        if item.positive { &mut with_positive } else { &mut with_negative }.insert(item.cluster);
    }
    let factor = |clusters: usize| {
        let c = clusters as f64;
        if clusters > 1 { c / (c - 1.0) } else { 0.0 }
    };
    let (all, p, n) = (sums.len(), with_positive.len(), with_negative.len());
    let part = |f: fn(&[f64; 2]) -> f64| sums.values().map(f).sum::<f64>();
    let variance = factor(p) * part(|s| s[1] * s[1]) / (positives * positives)
        + factor(n) * part(|s| s[0] * s[0]) / (negatives * negatives)
        + 2.0 * factor(all) * part(|s| s[0] * s[1]) / (positives * negatives);
    Some(Area { value, standard_error: variance.max(0.0).sqrt(), n: items.len(), clusters: all })
}

/// Σ (R_k − R_{k−1}) P_k over thresholds, as scikit-learn's `average_precision_score`. None without a positive.
pub fn average_precision(items: &[Scored]) -> Option<f64> {
    let mut sorted: Vec<&Scored> = items.iter().collect();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let positives = items.iter().filter(|i| i.positive).count() as f64;
    let (mut seen, mut right, mut sum) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        let found = tied.iter().filter(|i| i.positive).count() as f64;
        seen += tied.len() as f64;
        right += found;
        sum += found * right / seen;
    }
    (positives > 0.0).then(|| sum / positives)
}

/// Matthews' correlation (1975) of the class with `score` ≥ `threshold`. None where a margin is empty.
pub fn matthews(items: &[Scored], threshold: f64) -> Option<f64> {
    let count = |said: bool, is: bool| items.iter().filter(|i| (i.score >= threshold) == said && i.positive == is).count() as f64;
    let (tp, fp, false_negative, tn) = (count(true, true), count(true, false), count(false, true), count(false, false));
    let scale = ((tp + fp) * (tp + false_negative) * (tn + fp) * (tn + false_negative)).sqrt();
    (scale > 0.0).then(|| (tp * tn - fp * false_negative) / scale)
}

#[cfg(test)]
mod tests {
    use super::super::calibration::tests::forecasts;
    use super::super::reference::{close, number, vectors};
    use super::*;
    use dpo_eval_rng::Stream;

    #[test]
    fn areas_and_correlations_meet_sklearn() {
        let Some(file) = vectors("calibration") else { return };
        let forecasts = forecasts(&file);
        let items: Vec<Scored> = forecasts
            .iter()
            .enumerate()
            .map(|(cluster, f)| Scored { score: f.probability, positive: f.outcome == 1.0, cluster })
            .collect();
        let area = area(&items).unwrap();
        let positives = items.iter().filter(|i| i.positive).count() as f64;
        let pairs = positives * (items.len() as f64 - positives);
        let found = [area.value, area.value * pairs, average_precision(&items).unwrap(), matthews(&items, 0.5).unwrap()];
        let names = ["roc_auc", "mann_whitney_u", "average_precision", "mcc_at_half"];
        close(&found, &names.map(|name| number(&file[name])), 1e-9);
        let right = items.iter().filter(|i| (i.score >= 0.5) == i.positive).count() as f64 / items.len() as f64;
        close(&[right], &[number(&file["accuracy_at_half"])], 1e-12);
    }

    fn covers(interval: Interval, truth: f64) -> bool {
        interval.lower <= truth && truth <= interval.upper
    }

    /// Chosen and rejected of a prompt share its difficulty.
    fn clustered(prompts: usize, draw: u64) -> Vec<Scored> {
        let mut stream = Stream::of(draw, "test/area", 0);
        let mut items = Vec::new();
        for cluster in 0..prompts {
            let shared = stream.normal();
            for positive in [true, false, true, false] {
                let score = shared + stream.normal() + if positive { 1.0 } else { 0.0 };
                items.push(Scored { score, positive, cluster });
            }
        }
        items
    }

    #[test]
    fn the_standard_error_is_the_spread_over_samples() {
        let areas: Vec<Area> = (0..400).map(|draw| area(&clustered(40, draw)).unwrap()).collect();
        let mean = areas.iter().map(|a| a.value).sum::<f64>() / 400.0;
        let spread = (areas.iter().map(|a| (a.value - mean).powi(2)).sum::<f64>() / 399.0).sqrt();
        let stated = areas.iter().map(|a| a.standard_error).sum::<f64>() / 400.0;
        assert!((stated / spread - 1.0).abs() < 0.1, "{stated} {spread}");
        // Two normals, √(1 + 1) each, one apart: Φ(1 / 2).
        let truth = super::super::interval::normal_cdf(0.5);
        let covered = areas.iter().filter(|a| covers(a.measured(0.95).unwrap().interval, truth)).count();
        assert!((368..=392).contains(&covered), "{covered}");
    }

    #[test]
    fn a_class_without_items_has_no_area() {
        let one = Scored { score: 1.0, positive: true, cluster: 0 };
        assert!(area(&[one]).is_none() && average_precision(&[]).is_none() && matthews(&[one], 0.5).is_none());
        let apart = area(&[one, Scored { score: 0.0, positive: false, cluster: 1 }]).unwrap();
        let measured = apart.measured(0.95).unwrap();
        assert_eq!((measured.value, measured.interval.upper, measured.method), (1.0, 1.0, CLUSTERS_AGREE));
        assert!(measured.interval.lower < 0.2);
    }
}
