//! Odds ratio preference optimization: no reference.

use super::sft::Mean;
use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, log1mexp, logistic, softplus};
use crate::suite::settings::Dialect;

/// What the cross-entropy counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Nll {
    Completion(Mean),
    /// TRL: prompt and completion, every token weighing the same.
    Whole,
}

impl Nll {
    pub fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Trl => Self::Whole,
            _ => Self::Completion(Mean::of(dialect)),
        }
    }
}

/// NLL(y_w) − β log σ(log odds(y_w) − log odds(y_l)), odds = p/(1 − p) with log p = log π(y)/|y| (Hong et al. 2024, arXiv
/// 2403.07691, eqs. 4–7; β is their λ, as in TRL).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Orpo {
    pub beta: f64,
    pub nll: Nll,
}

impl Objective for Orpo {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let item = |p: &PairLogps| match self.nll {
            Nll::Completion(_) => (p.chosen.plain, p.chosen.tokens),
            Nll::Whole => (p.chosen.plain + p.prompt.0, p.chosen.tokens + p.prompt.1),
        };
        let mean = match self.nll {
            Nll::Completion(mean) => mean,
            Nll::Whole => Mean::Tokens,
        };
        let (nll, mut losses, slopes) = mean.cross_entropy(&batch.iter().map(item).collect::<Vec<_>>());
        let (mut ratios, mut odds) = (0.0, 0.0);
        let mut gradients = Vec::with_capacity(batch.len());
        for ((pair, loss), nll_slope) in batch.iter().zip(&mut losses).zip(slopes) {
            let average = |s: &super::SequenceLogps| s.policy / s.tokens as f64;
            let (w, l) = (average(&pair.chosen), average(&pair.rejected));
            let log_odds = (w - l) - (log1mexp(w) - log1mexp(l));
            *loss += self.beta * softplus(-log_odds);
            ratios -= softplus(-log_odds);
            odds += log_odds;
            // d log odds / d log p = 1/(1 − p).
            let slope = -self.beta * logistic(-log_odds) / n;
            let along = |log_p: f64, tokens: usize| SequenceGradient::policy(-slope / libm::expm1(log_p) / tokens as f64);
            let chosen = along(w, pair.chosen.tokens) + SequenceGradient::plain(nll_slope);
            let rejected = along(l, pair.rejected.tokens) * -1.0;
            let prompt = if self.nll == Nll::Whole { nll_slope } else { 0.0 };
            gradients.push(PairGradient { chosen, rejected, prompt });
        }
        let metrics = vec![("nll_loss", nll), ("log_odds_ratio", ratios / n), ("log_odds_chosen", odds / n)];
        Evaluation { loss: nll - self.beta * ratios / n, losses, gradients, metrics }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}
