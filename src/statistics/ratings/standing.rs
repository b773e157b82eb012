//! Which players the data tell apart: a range of ranks for each, and groups that are not separable.

use super::bradley_terry::BradleyTerry;
use crate::interval::normal_cdf;
use crate::multiplicity::{Adjustment, adjust};

/// Ranks from 1 on that a player may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    pub best: usize,
    pub worst: usize,
}

/// A player's best rank is one more than the players that are shown to be better, its worst one leaves room for those that are
/// shown to be worse. All pairs are tested at once (Holm), so all ranges hold together with confidence `level` (Mohamad, Goeman & van
/// Zwet 2022).
pub fn ranks(ratings: &BradleyTerry, level: f64) -> Vec<Ranks> {
    let n = ratings.theta.len();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).collect();
    let p: Vec<f64> = pairs
        .iter()
        .map(|(i, j)| {
            let difference = (ratings.theta[*i] - ratings.theta[*j]).abs();
            let error = ratings.variance_of_difference(*i, Some(*j)).sqrt();
            if difference == 0.0 { 1.0 } else { (2.0 * normal_cdf(-difference / error)).min(1.0) }
        })
        .collect();
    let mut ranks = vec![Ranks { best: 1, worst: n }; n];
    for ((i, j), p) in pairs.into_iter().zip(adjust(&p, Adjustment::Holm)) {
        if p <= 1.0 - level {
            let (better, worse) = if ratings.theta[i] > ratings.theta[j] { (i, j) } else { (j, i) };
            ranks[better].worst -= 1;
            ranks[worse].best += 1;
        }
    }
    ranks
}

/// Players in the order of their ratings, cut wherever everyone above is shown to be better than everyone below: the players of a
/// group are not separable from each other as a whole.
pub fn groups(ratings: &BradleyTerry, ranks: &[Ranks]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|a, b| ratings.theta[*b].total_cmp(&ratings.theta[*a]));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut worst = 0;
    for player in order {
        if ranks[player].best > worst {
            groups.push(Vec::new());
        }
        worst = worst.max(ranks[player].worst);
        groups.last_mut().expect("the first player's best rank is above 0").push(player);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::Comparison;
    use super::super::bradley_terry::fit;
    use super::super::matrix::Matrix;
    use super::*;

    fn games(left: u32, right: u32, won: usize, of: usize) -> Vec<Comparison> {
        (0..of).map(|i| Comparison { left, right, outcome: f64::from(u8::from(i < won)), cluster: 0 }).collect()
    }

    #[test]
    fn players_that_intervals_do_not_tell_apart_share_a_group() {
        let all = [games(0, 1, 52, 100), games(0, 2, 90, 100), games(1, 2, 88, 100), games(2, 3, 51, 100), games(0, 3, 91, 100)];
        let ratings = fit(&Matrix::new(4, &all.concat())).unwrap();
        let ranks = ranks(&ratings, 0.95);
        let range = |best, worst| Ranks { best, worst };
        assert_eq!(ranks, [range(1, 2), range(1, 2), range(3, 4), range(3, 4)]);
        assert_eq!(groups(&ratings, &ranks), [vec![0, 1], vec![2, 3]]);
        // With a tenth of the games nothing is sure but little.
        let few = fit(&Matrix::new(2, &games(0, 1, 6, 10))).unwrap();
        assert_eq!(groups(&few, &super::ranks(&few, 0.95)), [vec![0, 1]]);
    }
}
