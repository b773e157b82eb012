//! SimPO: no reference, log-probabilities per token, a target margin.

use super::PairObjective;
use super::score::{Score, Separable};
use super::sigmoid::Sigmoid;

/// −log σ(β log π(y_w)/|y_w| − β log π(y_l)/|y_l| − γ) (Meng et al. 2024, arXiv 2405.14734, eq. 6), with label smoothing as in
/// conservative DPO. TRL's trainer adds a cross-entropy unless told not to; `loss_type = ["simpo", "sft"]` says so in the open.
pub(super) fn simpo(beta: f64, gamma: f64, label_smoothing: f64) -> PairObjective {
    Box::new(Separable { score: Score::of_policy().per_token(), loss: Sigmoid { beta, label_smoothing, target: gamma } })
}
