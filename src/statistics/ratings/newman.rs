//! Bradley–Terry with a parameter for ties (Davidson 1970), by Newman's iteration (Newman 2023, "Efficient computation of rankings
//! from pairwise comparisons", §4): with strengths π,
//! P(i beats j) = π_i / (π_i + π_j + 2 ν √(π_i π_j)) and P(tie) = 2 ν √(π_i π_j) / (the same).

use super::RatingError;
use super::matrix::Matrix;

const ITERATIONS: usize = 100_000;
const TOLERANCE: f64 = 1e-12;

#[derive(Debug, Clone, PartialEq)]
pub struct Newman {
    /// Of geometric mean 1.
    pub strengths: Vec<f64>,
    /// ν: 0 without ties.
    pub ties: f64,
}

pub fn fit(matrix: &Matrix) -> Result<Newman, RatingError> {
    let groups = matrix.groups();
    if groups.len() > 1 {
        return Err(RatingError::NotConnected { groups });
    }
    let n = matrix.players();
    let (mut strengths, mut ties) = (vec![1.0; n], 0.5);
    for _ in 0..ITERATIONS {
        let (next, next_ties) = step(matrix, &strengths, ties);
        let moved = next.iter().zip(&strengths).map(|(a, b)| libm::log(a / b).abs()).fold((next_ties - ties).abs(), f64::max);
        (strengths, ties) = (next, next_ties);
        if moved < TOLERANCE {
            return Ok(Newman { strengths, ties });
        }
    }
    Err(RatingError::NotConverged { iterations: ITERATIONS })
}

fn step(matrix: &Matrix, strengths: &[f64], v: f64) -> (Vec<f64>, f64) {
    let n = strengths.len();
    let mut next = vec![0.0; n];
    let (mut tied, mut decided) = (0.0, 0.0);
    for i in 0..n {
        let (mut up, mut down) = (0.0, 0.0);
        for j in (0..n).filter(|j| *j != i) {
            let (a, b) = (strengths[i], strengths[j]);
            let root = (a * b).sqrt();
            let all = a + b + 2.0 * v * root;
            up += matrix.wins(i, j) * (b + v * root) / all;
            down += matrix.wins(j, i) * (1.0 + v * (b / a).sqrt()) / all;
            tied += matrix.ties(i, j) * (a + b) / all / 2.0;
            decided += (matrix.wins(i, j) - matrix.ties(i, j) / 2.0) * root / all * 2.0;
        }
        next[i] = up / down;
    }
    let centre = libm::exp(next.iter().map(|s| libm::log(*s)).sum::<f64>() / n as f64);
    next.iter_mut().for_each(|s| *s /= centre);
    (next, tied / decided)
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::{close, number, vectors};
    use super::super::tests::{case, expected};
    use super::*;

    #[test]
    fn strengths_and_ties_meet_evalica() {
        let Some(file) = vectors("bradley_terry") else { return };
        for name in ["food", "simple"] {
            let (items, comparisons) = case(&file[name]);
            let found = fit(&Matrix::new(items.len(), &comparisons)).unwrap();
            // The vector's strengths have the level that its iteration happened to end at.
            let expected = expected(&file[name], "newman", &items);
            let centre = libm::exp(expected.iter().map(|s| libm::log(*s)).sum::<f64>() / expected.len() as f64);
            let expected: Vec<f64> = expected.iter().map(|s| s / centre).collect();
            close(&found.strengths, &expected, 1e-6);
            close(&[found.ties], &[number(&file[name]["newman"]["v"])], 1e-6);
        }
    }

    #[test]
    fn without_ties_it_is_bradley_terry() {
        let Some(file) = vectors("bradley_terry") else { return };
        let (items, mut comparisons) = case(&file["food"]);
        comparisons.retain(|c| c.outcome != 0.5);
        let matrix = Matrix::new(items.len(), &comparisons);
        let (found, plain) = (fit(&matrix).unwrap(), super::super::bradley_terry::fit(&matrix).unwrap());
        assert_eq!(found.ties, 0.0);
        close(&found.strengths, &plain.strengths(), 1e-6);
    }
}
