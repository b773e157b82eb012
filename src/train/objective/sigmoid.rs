//! The loss of Direct Preference Optimization, and its conservative form for noisy labels.

use super::{Evaluation, Objective, PairGradient, PairLogps, logistic, softplus};
use crate::error::{Error, Result};

/// −(1 − ε) log σ(βΔ) − ε log σ(−βΔ), Δ the margin; the batch loss is the mean over pairs.
///
/// With ε = 0 it is DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7); with ε = `label_smoothing` > 0 conservative DPO
/// (Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", eq. 3): ε is the assumed share of
/// flipped labels. TRL 0.29 dropped ε from this loss without an error; here it always counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sigmoid {
    beta: f64,
    label_smoothing: f64,
}

impl Sigmoid {
    pub fn new(beta: f64, label_smoothing: f64) -> Result<Self> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::usage(format!("beta is {beta}; a positive number is expected")).help("0.1 is usual"));
        }
        if !(0.0..0.5).contains(&label_smoothing) {
            return Err(Error::usage(format!(
                "label_smoothing is {label_smoothing}; a share from 0 up to, not including, 0.5 is expected"
            ))
            .help("it is the assumed share of wrong labels; 0 is plain DPO"));
        }
        Ok(Self { beta, label_smoothing })
    }
}

impl Objective for Sigmoid {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let epsilon = self.label_smoothing;
        let n = batch.len() as f64;
        let mut losses = Vec::with_capacity(batch.len());
        let mut gradients = Vec::with_capacity(batch.len());
        for pair in batch {
            let u = self.beta * pair.margin();
            losses.push((1.0 - epsilon) * softplus(-u) + epsilon * softplus(u));
            // d/du: −(1 − ε) σ(−u) + ε σ(u); u rises with the chosen log-probability and falls with the rejected one.
            let slope = epsilon * logistic(u) - (1.0 - epsilon) * logistic(-u);
            let chosen = self.beta * slope / n;
            gradients.push(PairGradient { chosen, rejected: -chosen });
        }
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SequenceLogps, tests::agrees_with_golden};
    use super::*;

    fn pair(chosen: f64, rejected: f64) -> PairLogps {
        let side = |policy| SequenceLogps { policy, reference: -10.0, tokens: 5 };
        PairLogps { chosen: side(chosen), rejected: side(rejected) }
    }

    #[test]
    fn losses_and_gradients_are_the_recorded_ones() {
        agrees_with_golden(&Sigmoid::new(0.1, 0.0).unwrap(), "sigmoid b=.1");
        agrees_with_golden(&Sigmoid::new(0.1, 0.1).unwrap(), "sigmoid b=.1 cDPO eps=.1");
    }

    #[test]
    fn at_the_reference_the_loss_is_ln_2_for_any_smoothing() {
        for epsilon in [0.0, 0.1, 0.4] {
            let objective = Sigmoid::new(0.3, epsilon).unwrap();
            let found = objective.evaluate(&[pair(-10.0, -10.0)]);
            assert!((found.loss - objective.loss_at_reference().unwrap()).abs() < 1e-15);
            assert!((found.gradients[0].chosen + (1.0 - 2.0 * epsilon) * 0.3 / 2.0).abs() < 1e-15);
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let objective = Sigmoid::new(0.7, 0.2).unwrap();
        let (h, at) = (1e-6, |c: f64, r: f64| objective.evaluate(&[pair(c, r), pair(-3.0, -4.0)]).loss);
        let found = objective.evaluate(&[pair(-8.0, -9.5), pair(-3.0, -4.0)]).gradients[0];
        assert!((found.chosen - (at(-8.0 + h, -9.5) - at(-8.0 - h, -9.5)) / (2.0 * h)).abs() < 1e-9);
        assert!((found.rejected - (at(-8.0, -9.5 + h) - at(-8.0, -9.5 - h)) / (2.0 * h)).abs() < 1e-9);
    }

    #[test]
    fn swapping_the_sides_sends_epsilon_to_one_minus_epsilon() {
        let (a, b) = (pair(-8.0, -9.5), pair(-9.5, -8.0));
        let (epsilon, u) = (0.2, 0.7 * a.margin());
        let swapped = Sigmoid::new(0.7, epsilon).unwrap().evaluate(&[b]).loss;
        assert!((swapped - (epsilon * softplus(-u) + (1.0 - epsilon) * softplus(u))).abs() < 1e-12);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (beta, epsilon) in [(0.0, 0.0), (-1.0, 0.0), (f64::NAN, 0.0), (0.1, 0.5), (0.1, -0.1)] {
            assert!(Sigmoid::new(beta, epsilon).is_err(), "beta {beta}, label_smoothing {epsilon}");
        }
    }
}
