//! Wilcoxon's signed-rank test: whether paired differences lie around zero (Wilcoxon 1945).

use super::interval::normal_cdf;
use super::rank::midranks;

/// Above this many differences the exact distribution is not worth its time.
const EXACT: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRank {
    /// The smaller of the rank sums of positive and negative differences.
    pub statistic: f64,
    /// Two-sided.
    pub p: f64,
}

/// The exact test, given the ranks that were seen (so that ties need no correction); differences of zero are left out, as
/// Wilcoxon did. None without others, or with more than 200 of them: [`normal`] is good enough there.
pub fn exact(differences: &[f64]) -> Option<SignedRank> {
    let kept: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    if kept.is_empty() || kept.len() > EXACT {
        return None;
    }
    // Midranks are halves: twice their value is a whole number, and the distribution a count of subsets by their sum.
    let ranks: Vec<usize> = magnitudes(&kept).iter().map(|rank| (2.0 * rank) as usize).collect();
    let total: usize = ranks.iter().sum();
    let positive: usize = ranks.iter().zip(&kept).filter(|(_, d)| **d > 0.0).map(|(rank, _)| rank).sum();
    let smaller = positive.min(total - positive);
    let mut chance = vec![0.0; total + 1];
    chance[0] = 1.0;
    for rank in &ranks {
        for sum in (0..=total).rev() {
            let from = if sum >= *rank { chance[sum - rank] } else { 0.0 };
            chance[sum] = 0.5 * (chance[sum] + from);
        }
    }
    let tail: f64 = chance[..=smaller].iter().sum();
    Some(SignedRank { statistic: smaller as f64 / 2.0, p: (2.0 * tail).min(1.0) })
}

/// The normal approximation, corrected for ties. Differences of zero are ranked and then left out (Pratt 1959). None where
/// all are zero.
pub fn normal(differences: &[f64]) -> Option<SignedRank> {
    let n = differences.len() as f64;
    let ranks = magnitudes(differences);
    let sum = |keep: fn(f64) -> bool| ranks.iter().zip(differences).filter(|(_, d)| keep(**d)).map(|(r, _)| r).sum::<f64>();
    let statistic = sum(|d| d > 0.0).min(sum(|d| d < 0.0));
    let zeros = differences.iter().filter(|d| **d == 0.0).count() as f64;
    if zeros == n {
        return None;
    }
    let mean = (n * (n + 1.0) - zeros * (zeros + 1.0)) / 4.0;
    let cubic = |n: f64| n * (n + 1.0) * (2.0 * n + 1.0);
    let variance = (cubic(n) - cubic(zeros) - ties(differences) / 2.0) / 24.0;
    let z = (statistic - mean) / variance.sqrt();
    Some(SignedRank { statistic, p: (2.0 * normal_cdf(-z.abs())).min(1.0) })
}

fn magnitudes(differences: &[f64]) -> Vec<f64> {
    midranks(&differences.iter().map(|d| d.abs()).collect::<Vec<f64>>())
}

/// Σ (t³ − t) over groups of t equal magnitudes, zero aside.
fn ties(differences: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = differences.iter().map(|d| d.abs()).filter(|d| *d > 0.0).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.chunk_by(|a, b| a == b).map(|group| group.len() as f64).map(|t| t * t * t - t).sum()
}

#[cfg(test)]
mod tests {
    use super::super::reference::{close, differences, numbers, vectors};
    use super::*;

    #[test]
    fn both_forms_meet_scipy() {
        let Some(file) = vectors("paired_tests") else { return };
        let differences = differences(&file);
        let found = exact(&differences).unwrap();
        let f = |name: &str| file[name].as_f64().unwrap();
        close(&[found.statistic, found.p], &[f("wilcoxon_stat"), f("wilcoxon_p")], 1e-9);
        let found = normal(&differences).unwrap();
        close(&[found.statistic, found.p], &numbers(&file["wilcoxon_pratt_approx"]), 1e-9);
    }

    #[test]
    fn the_exact_p_is_a_count_of_sign_patterns() {
        let values = [0.3, -0.3, 1.0, 2.0, -0.1, 0.7, 0.7, 1.5];
        let ranks = magnitudes(&values);
        let sum = |signs: u32| (0..8).filter(|i| signs >> i & 1 == 1).map(|i| ranks[i]).sum::<f64>();
        let seen = exact(&values).unwrap();
        let total: f64 = ranks.iter().sum();
        let extreme = (0..256).filter(|signs| sum(*signs).min(total - sum(*signs)) <= seen.statistic).count();
        close(&[seen.p], &[extreme as f64 / 256.0], 1e-12);
        assert_eq!((exact(&[0.0, 0.0]), normal(&[0.0])), (None, None));
    }
}
