//! Agreement of two raters who say win, tie or loss of items that come in clusters (prompts).

use super::super::jackknife::between;
use super::super::mean::{Measured, Range};
use super::{Confusion, FEWEST, Weights};

/// How often the first says i (2 for a win, 1 for a tie) where the second says j, at 3 i + j.
pub type Counts = [f64; 9];

/// Cohen's κ. They agree fully where they always say the same.
pub fn kappa(counts: &Counts) -> f64 {
    let confusion = Confusion::of_counts(counts, 3);
    if confusion.percent() == 1.0 { 1.0 } else { confusion.cohen(Weights::Nominal).map_or(0.0, |kappa| kappa.value) }
}

/// Krippendorff's α of two raters without gaps, from Scott's π of N items: 1 − α = (1 − π) (2N − 1) / 2N.
pub fn alpha(counts: &Counts) -> f64 {
    let values = 2.0 * counts.iter().sum::<f64>();
    let confusion = Confusion::of_counts(counts, 3);
    if confusion.percent() == 1.0 { 1.0 } else { 1.0 - (1.0 - confusion.scott().unwrap_or(0.0)) * (values - 1.0) / values }
}

/// A coefficient of all clusters together, for `n` items. None in one cluster alone, and where a rater says the same of nearly all items (see
/// [`FEWEST`]).
pub fn measured(clusters: &[Counts], coefficient: fn(&Counts) -> f64, n: usize, level: f64) -> Option<Measured> {
    let mut all = [0.0; 9];
    clusters.iter().for_each(|counts| all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count));
    let said = |rater: [[usize; 3]; 3]| rater.map(|places| places.iter().map(|place| all[*place]).sum::<f64>());
    let raters = [said([[0, 1, 2], [3, 4, 5], [6, 7, 8]]), said([[0, 3, 6], [1, 4, 7], [2, 5, 8]])];
    let others = |said: &[f64; 3]| said.iter().sum::<f64>() - said.iter().copied().fold(0.0, f64::max);
    if raters.iter().any(|said| others(said) < FEWEST) {
        return None;
    }
    let value = coefficient(&all);
    let without = |counts: &Counts| {
        let rest: Counts = std::array::from_fn(|i| all[i] - counts[i]);
        if rest.iter().sum::<f64>() > 0.5 { coefficient(&rest) } else { value }
    };
    let left_out: Vec<f64> = clusters.iter().map(without).collect();
    between(value, &left_out, Range { lower: -1.0, upper: 1.0 }, n, level)
}

#[cfg(test)]
mod tests {
    use super::super::super::mean::{Clustered, rate};
    use super::super::super::reference::close;
    use super::*;

    /// Verdicts on pairs of which one side is better, counted in both directions: κ is 2 × accuracy − 1, and so is its interval.
    #[test]
    fn of_balanced_verdicts_kappa_is_the_rate_of_right_ones() {
        let right = [true, true, false, true, true, true, false, true, true, true, true, false, true, true];
        let cluster = |right: &bool| {
            let mut counts = [0.0; 9];
            counts[if *right { 8 } else { 2 }] += 1.0;
            counts[if *right { 0 } else { 6 }] += 1.0;
            counts
        };
        let clusters: Vec<Counts> = right.iter().map(cluster).collect();
        let found = measured(&clusters, kappa, right.len(), 0.95).unwrap();
        let items = Clustered::new(right.iter().map(|right| f64::from(u8::from(*right))).enumerate());
        let expected = rate(&items, 0.95).unwrap();
        let [value, lower, upper] = [expected.value, expected.interval.lower, expected.interval.upper].map(|x| 2.0 * x - 1.0);
        close(&[found.value, found.interval.lower, found.interval.upper], &[value, lower, upper], 1e-12);
    }

    #[test]
    fn raters_who_always_agree_have_one_and_an_interval_below() {
        let cluster = |i: usize| {
            if i < 12 { [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0] } else { [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] }
        };
        let clusters: Vec<Counts> = (0..30).map(cluster).collect();
        for coefficient in [kappa, alpha] {
            let found = measured(&clusters, coefficient, 60, 0.95).unwrap();
            assert_eq!((found.value, found.interval.upper), (1.0, 1.0));
            assert!(found.interval.lower < 0.8, "{found:?}");
        }
        assert!(measured(&[[0.0; 9]; 4], kappa, 0, 0.95).is_none());
        // Of raters who hardly ever say anything else nothing is known.
        assert!(measured(&clusters[10..15], kappa, 10, 0.95).is_none());
        assert!(measured(&clusters[9..15], kappa, 12, 0.95).is_some());
    }
}
