//! Supervised fine-tuning: cross-entropy on completions' tokens.

use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient};
use crate::suite::settings::Dialect;

/// How completions of different lengths are averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mean {
    /// Every token of the batch weighs the same: −Σ log π(y|x) / Σ |y|.
    Tokens,
    /// Every completion weighs the same: the mean of −log π(y|x) / |y|.
    Sequences,
    /// The mean of −log π(y|x).
    Sums,
}

impl Mean {
    pub(super) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::DpoEval | Dialect::Trl => Self::Tokens,
            Dialect::Openrlhf | Dialect::LlamaFactory => Self::Sequences,
            Dialect::Original => Self::Sums,
        }
    }

    /// The loss of a batch, that of each completion, and the gradients along `plain`. Each item: Σ log π and tokens.
    pub(super) fn cross_entropy(self, batch: &[(f64, usize)]) -> (f64, Vec<f64>, Vec<f64>) {
        let n = batch.len() as f64;
        let all = batch.iter().map(|(_, tokens)| tokens).sum::<usize>() as f64;
        let share = |tokens: usize| match self {
            Self::Tokens => tokens as f64 / all,
            Self::Sequences | Self::Sums => 1.0 / n,
        };
        let per = |tokens: usize| if self == Self::Sums { 1.0 } else { tokens as f64 };
        let losses: Vec<f64> = batch.iter().map(|&(logp, tokens)| -logp / per(tokens)).collect();
        let loss = match self {
            Self::Tokens => -batch.iter().map(|(logp, _)| logp).sum::<f64>() / all,
            Self::Sequences | Self::Sums => losses.iter().sum::<f64>() / n,
        };
        let slopes = batch.iter().map(|&(_, tokens)| -share(tokens) / per(tokens)).collect();
        (loss, losses, slopes)
    }
}

/// The cross-entropy of demonstrations, mean over the optimizer batch's tokens. (TRL averages within each micro-batch
/// instead, unless told the number of items.)
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sft;

impl Objective for Sft {
    /// log π(y|x), nats, and |y|.
    type Example = (f64, usize);
    type Gradient = f64;

    fn evaluate(&self, batch: &[(f64, usize)]) -> Evaluation<f64> {
        let (loss, losses, gradients) = Mean::Tokens.cross_entropy(batch);
        Evaluation { loss, losses, gradients, metrics: Vec::new() }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}

/// The cross-entropy of pairs' chosen sides: the baseline "preferred fine-tuning" of the DPO paper, or a term that keeps
/// their log-probabilities up (Pang et al. 2024, arXiv 2404.19733, "RPO", eq. 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OnChosen(pub Mean);

impl Objective for OnChosen {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let items: Vec<(f64, usize)> = batch.iter().map(|p| (p.chosen.plain, p.chosen.tokens)).collect();
        let (loss, losses, slopes) = self.0.cross_entropy(&items);
        let gradient = |slope| PairGradient { chosen: SequenceGradient::plain(slope), ..PairGradient::default() };
        Evaluation { loss, losses, gradients: slopes.into_iter().map(gradient).collect(), metrics: vec![("nll_loss", loss)] }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}
