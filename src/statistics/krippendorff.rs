//! Krippendorff's α: agreement of any number of raters, with ratings missing (Krippendorff 2019, chapter 12; 2011,
//! "Computing Krippendorff's Alpha-Reliability").

use super::agreement::FEWEST;
use super::bootstrap::{Bootstrap, Resampling};
use super::jackknife::between;
use super::mean::{Measured, Range};

/// What the distance of two values means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Nominal,
    /// Only the order counts: distance by how many ratings lie between.
    Ordinal,
    Interval,
    /// Of values from zero up.
    Ratio,
}

/// Ratings by item.
pub struct Reliability {
    /// Distinct values, ascending.
    values: Vec<f64>,
    /// Of each item with two or more ratings: index and count of each value that it got.
    items: Vec<Vec<(usize, f64)>>,
    metric: Metric,
}

impl Reliability {
    /// `ratings`: of each item those that it got, by whichever raters.
    pub fn new(ratings: &[Vec<f64>], metric: Metric) -> Self {
        let mut values: Vec<f64> = ratings.iter().filter(|item| item.len() > 1).flatten().copied().collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let counts = |item: &Vec<f64>| {
            let mut found: Vec<(usize, f64)> = Vec::new();
            let mut places: Vec<usize> = item.iter().map(|v| values.partition_point(|known| known < v)).collect();
            places.sort_unstable();
            for place in places {
                match found.last_mut() {
                    Some((last, count)) if *last == place => *count += 1.0,
                    _ => found.push((place, 1.0)),
                }
            }
            found
        };
        let items = ratings.iter().filter(|item| item.len() > 1).map(counts).collect();
        Self { values, items, metric }
    }

    /// α = 1 − (n − 1) Σ_u Σ_{c<k} n_uc n_uk δ² / (m_u − 1) / Σ_{c<k} n_c n_k δ². None where no two ratings differ at all.
    pub fn alpha(&self) -> Option<f64> {
        self.of(&(0..self.items.len() as u32).collect::<Vec<_>>())
    }

    /// Items drawn with replacement. Resamples in which nothing differs agree fully.
    pub fn bootstrap(&self, resampling: Resampling) -> Option<Bootstrap> {
        let value = self.alpha()?;
        Bootstrap::new(value, resampling.replicates(self.items.len(), |drawn| self.of(drawn).unwrap_or(1.0)))
    }

    /// Ratings that aren't the commonest one.
    fn beside_the_commonest(&self) -> f64 {
        let mut totals = vec![0.0; self.values.len()];
        self.items.iter().flatten().for_each(|(value, count)| totals[*value] += count);
        totals.iter().sum::<f64>() - totals.iter().copied().fold(0.0, f64::max)
    }

    fn of(&self, drawn: &[u32]) -> Option<f64> {
        let mut totals = vec![0.0; self.values.len()];
        for item in drawn {
            for (value, count) in &self.items[*item as usize] {
                totals[*value] += count;
            }
        }
        let distances = self.distances(&totals);
        let distance = |a: usize, b: usize| distances[a * self.values.len() + b];
        let observed: f64 = drawn
            .iter()
            .map(|item| {
                let counts = &self.items[*item as usize];
                let raters: f64 = counts.iter().map(|(_, count)| count).sum();
                let pairs = counts.iter().enumerate().flat_map(|(i, a)| counts[..i].iter().map(move |b| (a, b)));
                pairs.map(|(a, b)| a.1 * b.1 * distance(a.0, b.0)).sum::<f64>() / (raters - 1.0)
            })
            .sum();
        let n: f64 = totals.iter().sum();
        let pairs = (0..totals.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        let expected: f64 = pairs.map(|(a, b)| totals[a] * totals[b] * distance(a, b)).sum();
        (expected > 0.0).then(|| 1.0 - (n - 1.0) * observed / expected)
    }

    /// δ² of each two values.
    fn distances(&self, totals: &[f64]) -> Vec<f64> {
        let k = self.values.len();
        // Ratings up to the middle of each value's own.
        let mut up_to = 0.0;
        let middles: Vec<f64> = totals
            .iter()
            .map(|count| {
                up_to += count;
                up_to - count / 2.0
            })
            .collect();
        let mut distances = vec![0.0; k * k];
        for a in 0..k {
            for b in (0..k).filter(|b| *b != a) {
                let (x, y) = (self.values[a], self.values[b]);
                let distance = match self.metric {
                    Metric::Nominal => 1.0,
                    Metric::Ordinal => middles[a] - middles[b],
                    Metric::Interval => x - y,
                    Metric::Ratio => (x - y) / (x + y),
                };
                distances[a * k + b] = distance * distance;
            }
        }
        distances
    }
}

/// α of items that come in clusters (prompts), each a list of items with their ratings. None in one cluster alone, and where nearly all
/// ratings of items with two or more are the same (see [`FEWEST`]).
pub fn clustered_alpha(clusters: &[Vec<Vec<f64>>], metric: Metric, level: f64) -> Option<Measured> {
    let compared = |(cluster, items): (usize, &Vec<Vec<f64>>)| {
        items.iter().filter(|item| item.len() > 1).map(|item| (cluster, item.clone())).collect::<Vec<_>>()
    };
    let (of, ratings): (Vec<usize>, Vec<Vec<f64>>) = clusters.iter().enumerate().flat_map(compared).unzip();
    let all = Reliability::new(&ratings, metric);
    if all.beside_the_commonest() < FEWEST {
        return None;
    }
    let value = all.alpha().unwrap_or(1.0);
    let without = |cluster: usize| {
        let rest: Vec<u32> = (0u32..).zip(&of).filter(|(_, own)| **own != cluster).map(|(item, _)| item).collect();
        all.of(&rest).unwrap_or(1.0)
    };
    let left_out: Vec<f64> = (0..clusters.len()).map(without).collect();
    between(value, &left_out, Range { lower: -1.0, upper: 1.0 }, ratings.len(), level)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, number, vectors};
    use super::*;

    const ALL: [(Metric, &str); 4] =
        [(Metric::Nominal, "nominal"), (Metric::Ordinal, "ordinal"), (Metric::Interval, "interval"), (Metric::Ratio, "ratio")];

    fn items(file: &serde_json::Value) -> Vec<Vec<f64>> {
        let raters = file["krippendorff"]["reliability_data"].as_array().unwrap();
        let items = raters[0].as_array().unwrap().len();
        (0..items).map(|item| raters.iter().filter_map(|rater| rater[item].as_f64()).collect()).collect()
    }

    #[test]
    fn alpha_with_missing_ratings_meets_the_krippendorff_package() {
        let Some(file) = vectors("agreement") else { return };
        for (metric, name) in ALL {
            let found = Reliability::new(&items(&file), metric).alpha().unwrap();
            close(&[found], &[number(&file["krippendorff"][name])], 1e-9);
        }
    }

    #[test]
    fn the_bootstrap_holds_the_value_and_repeats() {
        let Some(file) = vectors("agreement") else { return };
        let reliability = Reliability::new(&items(&file), Metric::Ordinal);
        let resampling = Resampling { resamples: 500, seed: 1, purpose: "test/alpha" };
        let found = reliability.bootstrap(resampling).unwrap();
        let interval = found.percentile(0.95);
        assert!(interval.lower < found.value && found.value < interval.upper && interval.upper <= 1.0, "{interval:?}");
        assert_eq!(reliability.bootstrap(resampling).unwrap(), found);
    }

    #[test]
    fn full_agreement_is_one_and_nothing_to_differ_is_none() {
        let full = [vec![1.0, 1.0], vec![2.0, 2.0], vec![3.0]];
        let same = [vec![1.0, 1.0], vec![1.0, 1.0]];
        for (metric, _) in ALL {
            assert_eq!(Reliability::new(&full, metric).alpha(), Some(1.0));
            assert_eq!(Reliability::new(&same, metric).alpha(), None);
        }
    }

    #[test]
    fn clusters_left_out_in_turn_give_the_standard_error_of_the_jackknife() {
        let clusters: Vec<Vec<Vec<f64>>> =
            (0..12).map(|c| (0..2).map(|i| vec![f64::from(c % 2), f64::from((c + i * c) % 3 % 2)]).collect()).collect();
        let flat: Vec<Vec<f64>> = clusters.iter().flatten().cloned().collect();
        let found = clustered_alpha(&clusters, Metric::Nominal, 0.95).unwrap();
        close(&[found.value], &[Reliability::new(&flat, Metric::Nominal).alpha().unwrap()], 1e-12);
        assert_eq!((found.n, found.clusters), (24, 12));
        assert!(found.interval.lower < found.value && found.value < found.interval.upper, "{found:?}");
        assert!(clustered_alpha(&[vec![vec![1.0]], vec![vec![0.0]]], Metric::Nominal, 0.95).is_none());
    }
}
