//! CPO: DPO with a uniform reference, held by a cross-entropy on the chosen side.

use super::PairObjective;
use super::combination::Combination;
use super::score::{Score, Separable};
use super::sft::{Mean, OnChosen};
use super::sigmoid::Sigmoid;

/// −log σ(β log π(y_w) − β log π(y_l)) + α · NLL(y_w) (Xu et al. 2024, arXiv 2401.08417, eq. 5; TRL's `cpo_alpha` is α), with
/// label smoothing as in conservative DPO. NLL is the mean over the tokens.
pub(super) fn cpo(beta: f64, label_smoothing: f64, alpha: f64) -> PairObjective {
    let preference = Separable { score: Score::of_policy(), loss: Sigmoid::new(beta, label_smoothing) };
    let mut terms: Vec<(f64, PairObjective)> = vec![(1.0, Box::new(preference))];
    if alpha > 0.0 {
        terms.push((alpha, Box::new(OnChosen(Mean::Tokens))));
    }
    Box::new(Combination { terms })
}
