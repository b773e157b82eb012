//! Quantiles of a sample, with intervals over clusters.

use super::interval::{Interval, t};
use super::mean::{Clustered, Measured};

pub const WOODRUFF: &str = "quantile, cluster-robust t on its share (Woodruff)";

/// The quantile at `p` of ascending values, linear between the order statistics (type 7 of Hyndman & Fan 1996, NumPy's rule).
///
/// # Panics
/// When there are no values.
pub fn sorted_quantile(ascending: &[f64], p: f64) -> f64 {
    let place = p.clamp(0.0, 1.0) * (ascending.len() - 1) as f64;
    let (below, share) = (place.floor(), place - place.floor());
    let lower = ascending[below as usize];
    let upper = ascending[(below as usize + 1).min(ascending.len() - 1)];
    lower + share * (upper - lower)
}

/// The same of values in any order, at each of `ps`.
pub fn quantiles(values: &[f64], ps: &[f64]) -> Vec<f64> {
    let mut ascending = values.to_vec();
    ascending.sort_by(f64::total_cmp);
    ps.iter().map(|p| sorted_quantile(&ascending, *p)).collect()
}

/// The quantile at `p` of all items, its interval being the quantiles at the limits of the share of items up to it (Woodruff 1952;
/// Francisco & Fuller 1991 for clusters). None for fewer than two clusters.
pub fn clustered_quantile(items: &Clustered, p: f64, level: f64) -> Option<Measured> {
    if items.clusters() < 2 {
        return None;
    }
    let mut ascending = items.values().to_vec();
    ascending.sort_by(f64::total_cmp);
    let value = sorted_quantile(&ascending, p);
    let below = items.values().iter().map(|v| f64::from(u8::from(*v <= value)));
    let error = Clustered::new(items.cluster().iter().copied().zip(below)).standard_error()?;
    let half = t(level, items.clusters() - 1) * error;
    let interval = Interval { lower: sorted_quantile(&ascending, p - half), upper: sorted_quantile(&ascending, p + half) };
    Some(Measured { value, interval, n: items.len(), clusters: items.clusters(), method: WOODRUFF })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpo_eval_rng::Stream;

    #[test]
    fn intervals_of_clustered_medians_cover() {
        let covered = (0..400)
            .filter(|draw| {
                let mut stream = Stream::of(*draw, "test/quantile", 0);
                let prompts: Vec<f64> = (0..60).map(|_| stream.normal()).collect();
                let items = Clustered::new((0..180).map(|i| (i / 3, prompts[i / 3] + stream.normal())));
                let found = clustered_quantile(&items, 0.5, 0.95).unwrap();
                assert!(found.interval.lower <= found.value && found.value <= found.interval.upper);
                found.interval.lower <= 0.0 && 0.0 <= found.interval.upper
            })
            .count();
        assert!((368..=394).contains(&covered), "{covered}");
    }

    #[test]
    fn values_between_order_statistics_are_linear() {
        // numpy.quantile([3, 1, 2, 10], [0, .25, .5, .9, 1]).
        let found = quantiles(&[3.0, 1.0, 2.0, 10.0], &[0.0, 0.25, 0.5, 0.9, 1.0]);
        super::super::reference::close(&found, &[1.0, 1.75, 2.5, 7.9, 10.0], 1e-12);
        assert_eq!(quantiles(&[4.0], &[0.3]), [4.0]);
    }
}
