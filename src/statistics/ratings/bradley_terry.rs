//! Bradley–Terry: P(i beats j) = σ(θ_i − θ_j) (Bradley & Terry 1952), ties as half a win each, by maximum likelihood.

use super::matrix::Matrix;
use super::{Comparison, RatingError};
use crate::dense::{inverse, product, solve};
use crate::interval::{Interval, z};
use crate::logistic::{logistic, softplus};

const ITERATIONS: usize = 200;

#[derive(Debug, Clone, PartialEq)]
pub struct BradleyTerry {
    /// Natural-logarithm ratings, of sum zero.
    pub theta: Vec<f64>,
    /// (players, players): the pseudo-inverse of the Fisher information.
    pub covariance: Vec<f64>,
    pub log_likelihood: f64,
}

/// Newton's method from equal ratings, its steps halved where they overshoot. The likelihood is concave, and has a maximum
/// where the players are one group.
pub fn fit(matrix: &Matrix) -> Result<BradleyTerry, RatingError> {
    let groups = matrix.groups();
    if groups.len() > 1 {
        return Err(RatingError::NotConnected { groups });
    }
    let n = matrix.players();
    let mut theta = vec![0.0; n];
    let mut likelihood = log_likelihood(matrix, &theta);
    for _ in 0..ITERATIONS {
        let (gradient, information) = slope(matrix, &theta);
        let step = solve(&grounded(&information, n), &gradient).ok_or(RatingError::NotConverged { iterations: 0 })?;
        let size = step.iter().map(|s| s.abs()).fold(0.0, f64::max);
        let mut share = 1.0;
        let (next, reached) = loop {
            let next: Vec<f64> = theta.iter().zip(&step).map(|(t, s)| t + share * s).collect();
            let reached = log_likelihood(matrix, &next);
            if reached >= likelihood || share * size < 1e-12 {
                break (next, reached);
            }
            share /= 2.0;
        };
        theta = next;
        likelihood = reached;
        if share * size < 1e-12 {
            return finish(matrix, theta, likelihood);
        }
    }
    Err(RatingError::NotConverged { iterations: ITERATIONS })
}

fn finish(matrix: &Matrix, mut theta: Vec<f64>, log_likelihood: f64) -> Result<BradleyTerry, RatingError> {
    let n = theta.len();
    let centre = theta.iter().sum::<f64>() / n as f64;
    theta.iter_mut().for_each(|t| *t -= centre);
    let (_, information) = slope(matrix, &theta);
    let mut covariance = inverse(&grounded(&information, n), n).ok_or(RatingError::NotConverged { iterations: 0 })?;
    // (I + 1 1ᵀ / n)⁻¹ − 1 1ᵀ / n is the pseudo-inverse of an information I with I 1 = 0.
    covariance.iter_mut().for_each(|c| *c -= 1.0 / n as f64);
    Ok(BradleyTerry { theta, covariance, log_likelihood })
}

/// The information with 1 1ᵀ / n added: the common level of all ratings, of which the data say nothing, is held.
fn grounded(information: &[f64], n: usize) -> Vec<f64> {
    information.iter().map(|i| i + 1.0 / n as f64).collect()
}

/// Σ_ij wins_ij log σ(θ_i − θ_j).
fn log_likelihood(matrix: &Matrix, theta: &[f64]) -> f64 {
    let n = theta.len();
    let terms = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
    -terms.map(|(i, j)| matrix.wins(i, j) * softplus(theta[j] - theta[i])).sum::<f64>()
}

/// Gradient (n) and Fisher information (n, n).
fn slope(matrix: &Matrix, theta: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = theta.len();
    let (mut gradient, mut information) = (vec![0.0; n], vec![0.0; n * n]);
    for i in 0..n {
        for j in 0..i {
            let games = matrix.games(i, j);
            if games > 0.0 {
                let p = logistic(theta[i] - theta[j]);
                let surprise = matrix.wins(i, j) - games * p;
                gradient[i] += surprise;
                gradient[j] -= surprise;
                let weight = games * p * (1.0 - p);
                information[i * n + i] += weight;
                information[j * n + j] += weight;
                information[i * n + j] -= weight;
                information[j * n + i] -= weight;
            }
        }
    }
    (gradient, information)
}

impl BradleyTerry {
    pub fn win_probability(&self, i: usize, j: usize) -> f64 {
        logistic(self.theta[i] - self.theta[j])
    }

    /// Strengths exp(θ), of geometric mean 1.
    pub fn strengths(&self) -> Vec<f64> {
        self.theta.iter().map(|t| libm::exp(*t)).collect()
    }

    /// 400 θ / ln 10 around `centre`: 400 points are odds of ten to one, as in Elo's scale.
    pub fn elo(&self, centre: f64) -> Vec<f64> {
        self.theta.iter().map(|t| centre + 400.0 * t / std::f64::consts::LN_10).collect()
    }

    pub fn standard_error(&self, i: usize) -> f64 {
        self.variance_of_difference(i, None).sqrt()
    }

    /// θ_i − θ_j.
    pub fn difference(&self, i: usize, j: usize, level: f64) -> Interval {
        let half = z(level) * self.variance_of_difference(i, Some(j)).sqrt();
        Interval::around(self.theta[i] - self.theta[j], half)
    }

    pub(super) fn variance_of_difference(&self, i: usize, j: Option<usize>) -> f64 {
        let n = self.theta.len();
        let of = |a: usize, b: usize| self.covariance[a * n + b];
        j.map_or(of(i, i), |j| of(i, i) + of(j, j) - 2.0 * of(i, j)).max(0.0)
    }

    /// The same ratings with a covariance that holds where the comparisons of a cluster go together, or outcomes are a judge's
    /// preferences: the sandwich H⁺ (Σ_c g_c g_cᵀ) H⁺ with the factor C / (C − 1), g_c the score of a cluster (White 1982; Liang &
    /// Zeger 1986). None for fewer than two clusters.
    pub fn clustered(&self, comparisons: &[Comparison]) -> Option<Self> {
        let n = self.theta.len();
        let mut order: Vec<&Comparison> = comparisons.iter().collect();
        order.sort_by_key(|c| c.cluster);
        let (mut middle, mut score, mut clusters) = (vec![0.0; n * n], vec![0.0; n], 0.0);
        for cluster in order.chunk_by(|a, b| a.cluster == b.cluster) {
            let mut touched: Vec<usize> = Vec::with_capacity(2 * cluster.len());
            for c in cluster {
                let (left, right) = (c.left as usize, c.right as usize);
                let surprise = c.outcome - self.win_probability(left, right);
                score[left] += surprise;
                score[right] -= surprise;
                touched.extend([left, right]);
            }
            touched.sort_unstable();
            touched.dedup();
            for i in &touched {
                for j in &touched {
                    middle[i * n + j] += score[*i] * score[*j];
                }
            }
            touched.iter().for_each(|i| score[*i] = 0.0);
            clusters += 1.0;
        }
        let factor = clusters / (clusters - 1.0);
        let mut covariance = product(&product(&self.covariance, &middle, n), &self.covariance, n);
        covariance.iter_mut().for_each(|c| *c *= factor);
        (clusters > 1.0).then(|| Self { covariance, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::{close, number, numbers, peers, vectors};
    use super::super::tests::{case, expected};
    use super::*;
    use dpo_eval_rng::Stream;

    #[test]
    fn ratings_meet_evalica_and_the_maximum_of_scipy() {
        let Some(file) = vectors("bradley_terry") else { return };
        for name in ["food", "simple"] {
            let (items, comparisons) = case(&file[name]);
            let found = fit(&Matrix::new(items.len(), &comparisons)).unwrap();
            close(&found.strengths(), &expected(&file[name], "bradley_terry", &items), 1e-6);
            let mle = &file[name]["bt_mle_logscale"];
            close(&found.theta, &numbers(&mle["theta_sum_zero"]), 1e-6);
            close(&[found.log_likelihood], &[number(&mle["loglik"])], 1e-9);
            let covariance: Vec<f64> = mle["cov_pinv"].as_array().unwrap().iter().flat_map(numbers).collect();
            close(&found.covariance, &covariance, 1e-6);
            let errors: Vec<f64> = (0..items.len()).map(|i| found.standard_error(i)).collect();
            close(&errors, &numbers(&mle["se"]), 1e-6);
            close(&found.elo(1000.0), &numbers(&mle["elo_scale_400log10_centered_1000"]), 1e-4);
        }
    }

    #[test]
    fn players_that_never_lost_are_named_and_not_rated() {
        let won = |left, right| Comparison { left, right, outcome: 1.0, cluster: 0 };
        let matrix = Matrix::new(3, &[won(0, 1), won(1, 0), won(2, 0), won(2, 1)]);
        assert_eq!(fit(&matrix), Err(RatingError::NotConnected { groups: vec![vec![0, 1], vec![2]] }));
    }

    #[test]
    fn soft_preferences_in_clusters_meet_the_fractional_logit_of_statsmodels() {
        let file = &peers()["bradley_terry"];
        let rows = file["rows"].as_array().unwrap().iter();
        let comparisons: Vec<Comparison> = rows
            .map(|row| {
                let at = |i: usize| row[i].as_u64().unwrap() as u32;
                Comparison { left: at(0), right: at(1), outcome: number(&row[2]), cluster: at(3) }
            })
            .collect();
        let found = fit(&Matrix::new(4, &comparisons)).unwrap().clustered(&comparisons).unwrap();
        let above: Vec<f64> = (1..4).map(|i| found.theta[i] - found.theta[0]).collect();
        close(&above, &numbers(&file["above_first"]), 1e-6);
        let errors: Vec<f64> = (1..4).map(|i| found.variance_of_difference(i, Some(0)).sqrt()).collect();
        close(&errors, &numbers(&file["standard_error_above_first"]), 1e-6);
    }

    /// `copies` of each of 400 prompts' comparisons of four players.
    fn comparisons(draw: u64, copies: u32) -> Vec<Comparison> {
        let mut stream = Stream::of(draw, "test/bradley-terry", 0);
        let truth = [0.6, 0.1, -0.2, -0.5];
        let mut found = Vec::new();
        for cluster in 0..400 {
            let (left, right) = (stream.index(4), stream.index(3));
            let right = if right >= left { right + 1 } else { right };
            let outcome = f64::from(u8::from(stream.bernoulli(logistic(truth[left] - truth[right]))));
            let comparison = Comparison { left: left as u32, right: right as u32, outcome, cluster };
            found.extend(std::iter::repeat_n(comparison, copies as usize));
        }
        found
    }

    #[test]
    fn copies_of_a_comparison_change_nothing_when_clustered() {
        let of = |copies: u32| {
            let comparisons = comparisons(3, copies);
            let plain = fit(&Matrix::new(4, &comparisons)).unwrap();
            let clustered = plain.clustered(&comparisons).unwrap();
            (plain, clustered)
        };
        let ((plain, once), (tripled, thrice)) = (of(1), of(3));
        close(&once.theta, &thrice.theta, 1e-9);
        close(&once.covariance, &thrice.covariance, 1e-9);
        close(&[tripled.standard_error(0)], &[plain.standard_error(0) / 3f64.sqrt()], 1e-9);
        // One comparison a cluster, from the model itself: both covariances mean the same.
        assert!((once.standard_error(0) / plain.standard_error(0) - 1.0).abs() < 0.15);
    }

    #[test]
    fn differences_cover_the_truth() {
        let covered = (0..300)
            .filter(|draw| {
                let comparisons = comparisons(*draw, 2);
                let found = fit(&Matrix::new(4, &comparisons)).unwrap().clustered(&comparisons).unwrap();
                let interval = found.difference(0, 3, 0.95);
                interval.lower <= 1.1 && 1.1 <= interval.upper
            })
            .count();
        // 95 % of 300, within 2.7 standard deviations.
        assert!((275..=295).contains(&covered), "{covered}");
    }
}
