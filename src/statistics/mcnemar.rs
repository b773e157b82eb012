//! McNemar's test: whether two verdicts on the same items are right equally often. Only items where exactly one is right tell;
//! under the hypothesis each side is that one with chance ½.

use super::interval::{binomial_cdf, normal_cdf};

/// Counts of items where only the first is right, and only the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordant {
    pub first: u64,
    pub second: u64,
}

impl Discordant {
    fn total(self) -> u64 {
        self.first + self.second
    }

    /// Exact two-sided p: twice the smaller binomial tail.
    pub fn exact(self) -> f64 {
        (2.0 * binomial_cdf(self.first.min(self.second), self.total(), 0.5)).min(1.0)
    }

    /// The exact p with half the weight of what was seen (Fagerland, Lydersen & Laake 2013): closer to its nominal level.
    pub fn mid_p(self) -> f64 {
        let (less, n) = (self.first.min(self.second), self.total());
        let below = if less == 0 { 0.0 } else { binomial_cdf(less - 1, n, 0.5) };
        binomial_cdf(less, n, 0.5) + below
    }

    /// χ² with one degree of freedom, (|b − c| − 1)² / (b + c) with `continuity`, and its p. None without discordant items.
    pub fn chi_squared(self, continuity: bool) -> Option<(f64, f64)> {
        let n = self.total();
        let distance = self.first.abs_diff(self.second) as f64 - f64::from(u8::from(continuity));
        let statistic = distance * distance / n as f64;
        (n > 0).then(|| (statistic, 2.0 * normal_cdf(-statistic.sqrt())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, vectors};
    use super::*;

    #[test]
    fn p_values_meet_statsmodels() {
        let Some(file) = vectors("proportions") else { return };
        for case in file["mcnemar"].as_array().unwrap() {
            let cell = |i: usize, j: usize| case["table"][i][j].as_u64().unwrap();
            let f = |name: &str| case[name].as_f64().unwrap();
            let table = Discordant { first: cell(0, 1), second: cell(1, 0) };
            close(&[table.exact(), table.mid_p()], &[f("exact_p"), f("midp")], 1e-9);
            let (corrected, plain) = (table.chi_squared(true), table.chi_squared(false));
            let found = [corrected.unwrap().0, corrected.unwrap().1, plain.unwrap().0, plain.unwrap().1];
            close(&found, &[f("cc_stat"), f("cc_p"), f("stat"), f("p")], 1e-9);
        }
    }

    #[test]
    fn nothing_discordant_tells_nothing() {
        let table = Discordant { first: 0, second: 0 };
        assert_eq!((table.exact(), table.mid_p(), table.chi_squared(true)), (1.0, 1.0, None));
    }
}
