//! Logistic regression on soft labels with penalties, solved to its optimum.
//!
//! minimise Σ_i w_i (log(1 + e^{m_i}) − y_i m_i) + Σ_j (a_j |b_j| + ½ r_j b_j²),  m_i = Σ_j x_ij b_j
//!
//! liblinear's L1 problem ‖b‖₁ + C Σ_i … is this one with a_j = 1 / C. It is solved by proximal Newton steps: the quadratic model of the
//! smooth part plus the penalties is minimised by coordinate descent, and the step is halved until the objective falls (Yuan, Ho & Lin
//! 2012, "An improved GLMNET for L1-regularized logistic regression"). liblinear itself stops at a tolerance of 1e-4; here the last step
//! is below 1e-8, and Newton's error after it is of the order of its square.

use super::logistic::softplus;

/// Of one coefficient.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Penalty {
    pub absolute: f64,
    pub square: f64,
}

/// Rows with their labels and weights; a weight of 0 leaves a row out.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// (rows, columns), row after row.
    pub features: &'a [f64],
    /// (rows,) 0 to 1.
    pub labels: &'a [f64],
    /// (rows,) at least 0.
    pub weights: &'a [f64],
}

/// The optimum isn't finite, or wasn't reached in a hundred steps: without a penalty on them, coefficients grow for ever where the columns
/// tell the labels apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unconverged;

/// Largest change of a coefficient in the last step.
const LAST_STEP: f64 = 1e-8;

/// The coefficients at the optimum, one a penalty, starting from `start`.
///
/// # Errors
/// See [`Unconverged`].
pub fn fit(rows: Rows<'_>, penalties: &[Penalty], start: &[f64]) -> Result<Vec<f64>, Unconverged> {
    let mut here = start.to_vec();
    let mut model = Model::at(rows, &here);
    let mut objective = model.loss + penalty(penalties, &here);
    for _ in 0..100 {
        let target = model.minimum(penalties, &here);
        let longest = here.iter().zip(&target).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if !longest.is_finite() {
            return Err(Unconverged);
        }
        let mut share = 1.0;
        loop {
            let there: Vec<f64> = here.iter().zip(&target).map(|(a, b)| a + share * (b - a)).collect();
            let next = Model::at(rows, &there);
            let reached = next.loss + penalty(penalties, &there);
            // Near the optimum the objective changes by less than its rounding.
            if reached <= objective + 1e-13 * objective.abs() || share < 1e-9 {
                (here, model, objective) = (there, next, reached);
                break;
            }
            share /= 2.0;
        }
        if longest * share <= LAST_STEP {
            return Ok(here);
        }
    }
    Err(Unconverged)
}

fn penalty(penalties: &[Penalty], at: &[f64]) -> f64 {
    penalties.iter().zip(at).map(|(p, b)| p.absolute * b.abs() + 0.5 * p.square * b * b).sum()
}

/// The smooth part at a point, to second order.
struct Model {
    loss: f64,
    /// (columns,)
    gradient: Vec<f64>,
    /// (columns, columns)
    curvature: Vec<f64>,
}

impl Model {
    fn at(rows: Rows<'_>, at: &[f64]) -> Self {
        let columns = at.len();
        let mut this = Self { loss: 0.0, gradient: vec![0.0; columns], curvature: vec![0.0; columns * columns] };
        for ((row, label), weight) in rows.features.chunks_exact(columns).zip(rows.labels).zip(rows.weights) {
            if *weight == 0.0 {
                continue;
            }
            let margin: f64 = row.iter().zip(at).map(|(x, b)| x * b).sum();
            let small = libm::exp(-margin.abs());
            let chance = if margin >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
            this.loss += weight * (margin.max(0.0) + libm::log1p(small) - label * margin);
            let (slope, bend) = (weight * (chance - label), weight * small / ((1.0 + small) * (1.0 + small)));
            for (j, x) in row.iter().enumerate() {
                this.gradient[j] += slope * x;
                for (k, y) in row[..=j].iter().enumerate() {
                    this.curvature[j * columns + k] += bend * x * y;
                }
            }
        }
        for j in 0..columns {
            for k in 0..j {
                this.curvature[k * columns + j] = this.curvature[j * columns + k];
            }
        }
        this
    }

    /// Where the quadratic model with the penalties is smallest, by coordinate descent.
    fn minimum(&self, penalties: &[Penalty], here: &[f64]) -> Vec<f64> {
        let columns = here.len();
        let mut at = here.to_vec();
        for _ in 0..1000 {
            let mut moved: f64 = 0.0;
            for j in 0..columns {
                let bend = &self.curvature[j * columns..][..columns];
                let scale = bend[j] + penalties[j].square;
                if scale <= 0.0 {
                    continue;
                }
                let slope = self.gradient[j] + (0..columns).map(|k| bend[k] * (at[k] - here[k])).sum::<f64>();
                let free = bend[j] * at[j] - slope;
                let value = soft_threshold(free, penalties[j].absolute) / scale;
                moved = moved.max((value - at[j]).abs());
                at[j] = value;
            }
            if moved <= 1e-12 {
                break;
            }
        }
        at
    }
}

fn soft_threshold(value: f64, by: f64) -> f64 {
    if value > by {
        value - by
    } else if value < -by {
        value + by
    } else {
        0.0
    }
}

/// log(1 + e^m) − y m: what a label costs at a margin.
pub fn cost(margin: f64, label: f64) -> f64 {
    softplus(margin) - label * margin
}
