//! Agreement of raters beyond chance on categories, complete data. With missing ratings see [`krippendorff`](super::krippendorff).

use super::interval::{Interval, z};

pub mod clustered;

/// Of a rater who says other than the commonest thing of fewer items than so many, nothing is said: no interval of agreement beyond chance
/// holds its level then (of 95 %, 80 were held in simulations with three such items of forty), as κ turns on each single one of them.
pub const FEWEST: f64 = 5.0;

/// How far apart two categories are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// All that differ alike.
    Nominal,
    Linear,
    Quadratic,
}

/// Two raters' counts: how often the first said i and the second j.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// (k, k), row by row.
    counts: Vec<f64>,
    categories: usize,
    n: f64,
}

/// A coefficient with its large-sample standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kappa {
    pub value: f64,
    pub standard_error: f64,
}

impl Kappa {
    pub fn interval(self, level: f64) -> Interval {
        Interval::around(self.value, z(level) * self.standard_error).within(-1.0, 1.0)
    }
}

impl Confusion {
    /// Categories are numbered from 0 in their order.
    ///
    /// # Panics
    /// When there are no ratings, the raters' counts differ, or a category is `categories` or more.
    pub fn new(first: &[usize], second: &[usize], categories: usize) -> Self {
        assert!(first.len() == second.len() && !first.is_empty(), "two raters of the same items");
        let mut counts = vec![0.0; categories * categories];
        for (a, b) in first.iter().zip(second) {
            assert!(*a < categories && *b < categories, "categories below {categories}");
            counts[a * categories + b] += 1.0;
        }
        Self { counts, categories, n: first.len() as f64 }
    }

    /// From how often the first said i and the second j, row by row.
    ///
    /// # Panics
    /// When nothing was counted.
    pub fn of_counts(counts: &[f64], categories: usize) -> Self {
        let n = counts.iter().sum();
        assert!(counts.len() == categories * categories && n > 0.0, "two raters of the same items");
        Self { counts: counts.to_vec(), categories, n }
    }

    fn share(&self, i: usize, j: usize) -> f64 {
        self.counts[i * self.categories + j] / self.n
    }

    /// Shares of each category by the first rater, and by the second.
    fn margins(&self) -> (Vec<f64>, Vec<f64>) {
        let all = 0..self.categories;
        let row = |i: usize| all.clone().map(|j| self.share(i, j)).sum();
        let column = |j: usize| all.clone().map(|i| self.share(i, j)).sum();
        (all.clone().map(row).collect(), all.clone().map(column).collect())
    }

    /// The share of items on which both say the same.
    pub fn percent(&self) -> f64 {
        (0..self.categories).map(|i| self.share(i, i)).sum()
    }

    /// Cohen's κ, weighted (Cohen 1960, 1968), with the standard error of Fleiss, Cohen & Everitt 1969, which for nominal weights
    /// is κ's own. None where chance alone would agree fully.
    pub fn cohen(&self, weights: Weights) -> Option<Kappa> {
        let k = self.categories;
        let span = (k.max(2) - 1) as f64;
        let agreement = |i: usize, j: usize| {
            let distance = i.abs_diff(j) as f64 / span;
            match weights {
                Weights::Nominal => f64::from(u8::from(i == j)),
                Weights::Linear => 1.0 - distance,
                Weights::Quadratic => 1.0 - distance * distance,
            }
        };
        let (rows, columns) = self.margins();
        let cells = || (0..k).flat_map(|i| (0..k).map(move |j| (i, j)));
        let observed: f64 = cells().map(|(i, j)| agreement(i, j) * self.share(i, j)).sum();
        let expected: f64 = cells().map(|(i, j)| agreement(i, j) * rows[i] * columns[j]).sum();
        if expected >= 1.0 {
            return None;
        }
        let value = (observed - expected) / (1.0 - expected);
        let row_mean: Vec<f64> = (0..k).map(|i| (0..k).map(|j| agreement(i, j) * columns[j]).sum()).collect();
        let column_mean: Vec<f64> = (0..k).map(|j| (0..k).map(|i| agreement(i, j) * rows[i]).sum()).collect();
        let squares: f64 = cells()
            .map(|(i, j)| {
                let term = agreement(i, j) * (1.0 - expected) - (row_mean[i] + column_mean[j]) * (1.0 - observed);
                self.share(i, j) * term * term
            })
            .sum();
        let centre = observed * expected - 2.0 * expected + observed;
        let variance = (squares - centre * centre).max(0.0) / (self.n * (1.0 - expected).powi(4));
        Some(Kappa { value, standard_error: variance.sqrt() })
    }

    /// Scott's π (Scott 1955): chance by the raters' pooled shares.
    pub fn scott(&self) -> Option<f64> {
        let (rows, columns) = self.margins();
        let chance = rows.iter().zip(&columns).map(|(a, b)| ((a + b) / 2.0).powi(2)).sum();
        beyond(self.percent(), chance)
    }

    /// Gwet's AC1 (Gwet 2008), which doesn't fall where nearly all items are of one category.
    pub fn gwet(&self) -> Option<f64> {
        let (rows, columns) = self.margins();
        let pooled = rows.iter().zip(&columns).map(|(a, b)| (a + b) / 2.0);
        let chance = pooled.map(|p| p * (1.0 - p)).sum::<f64>() / (self.categories.max(2) - 1) as f64;
        beyond(self.percent(), chance)
    }
}

fn beyond(observed: f64, chance: f64) -> Option<f64> {
    (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
}

/// Many raters: of each item how many chose each category, the same number of raters each, two or more.
pub struct Ratings<'a>(pub &'a [Vec<f64>]);

impl Ratings<'_> {
    /// Mean share of pairs of raters that agree, over items.
    pub fn percent(&self) -> f64 {
        let agreeing = |item: &Vec<f64>| {
            let raters: f64 = item.iter().sum();
            item.iter().map(|c| c * (c - 1.0)).sum::<f64>() / (raters * (raters - 1.0))
        };
        self.0.iter().map(agreeing).sum::<f64>() / self.0.len() as f64
    }

    /// Fleiss' κ (Fleiss 1971): chance by the shares of the categories.
    pub fn fleiss(&self) -> Option<f64> {
        let total: f64 = self.0.iter().flatten().sum();
        let share = |j: usize| self.0.iter().map(|item| item[j]).sum::<f64>() / total;
        beyond(self.percent(), (0..self.categories()).map(|j| share(j).powi(2)).sum())
    }

    /// Randolph's free-marginal κ (Randolph 2005): chance is one of the categories.
    pub fn randolph(&self) -> Option<f64> {
        beyond(self.percent(), 1.0 / self.categories() as f64)
    }

    fn categories(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, limits, number, numbers, vectors};
    use super::*;

    #[test]
    fn two_raters_meet_statsmodels_and_sklearn() {
        let Some(file) = vectors("agreement") else { return };
        let rater = |name: &str| numbers(&file[name]).into_iter().map(|v| v as usize).collect::<Vec<_>>();
        let table = Confusion::new(&rater("r1"), &rater("r2"), 3);
        let f = |name: &str| number(&file[name]);
        let kappa = table.cohen(Weights::Nominal).unwrap();
        close(
            &[table.percent(), kappa.value, kappa.standard_error],
            &[f("percent_agreement"), f("cohen_kappa"), f("cohen_kappa_se")],
            1e-9,
        );
        close(&limits(kappa.interval(0.95)), &numbers(&file["cohen_kappa_ci95"]), 1e-9);
        let weighted = [Weights::Linear, Weights::Quadratic].map(|w| table.cohen(w).unwrap().value);
        close(&weighted, &[f("weighted_linear"), f("weighted_quadratic")], 1e-9);
        close(&[table.scott().unwrap(), table.gwet().unwrap()], &[f("scott_pi_formula"), f("gwet_ac1_formula")], 1e-9);
    }

    #[test]
    fn many_raters_meet_statsmodels() {
        let Some(file) = vectors("agreement") else { return };
        let table: Vec<Vec<f64>> = file["fleiss_table"].as_array().unwrap().iter().map(numbers).collect();
        let ratings = Ratings(&table);
        let found = [ratings.fleiss().unwrap(), ratings.randolph().unwrap()];
        close(&found, &[number(&file["fleiss_kappa"]), number(&file["randolph_kappa"])], 1e-9);
    }

    #[test]
    fn one_category_for_all_leaves_kappa_undefined() {
        assert_eq!(Confusion::new(&[1, 1], &[1, 1], 2).cohen(Weights::Nominal), None);
        assert_eq!(Confusion::new(&[1, 1], &[1, 1], 2).gwet(), Some(1.0));
    }
}
