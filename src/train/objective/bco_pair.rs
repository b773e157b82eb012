//! Binary classifier optimization, for pairs.

use std::collections::BTreeMap;

use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, logistic, softplus};
use crate::suite::settings::BcoShift;

/// −log σ(βr_w − δ) − log σ(−(βr_l − δ)) (Jung et al. 2024, arXiv 2404.04656, eq. 8). The paper's reward shift δ is a running mean
/// of rewards; TRL has δ = 0 since 0.29, which is the default here. With `BcoShift::Batch` δ is the mean reward of both
/// sides over the batch, a constant to the gradient: the loss then depends on nothing but the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BcoPair {
    pub beta: f64,
    pub shift: BcoShift,
}

impl Objective for BcoPair {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let shift = match self.shift {
            BcoShift::None => 0.0,
            BcoShift::Batch => {
                self.beta * batch.iter().map(|p| p.chosen.log_ratio() + p.rejected.log_ratio()).sum::<f64>() / (2.0 * n)
            }
        };
        let mut all = Evaluation { loss: 0.0, losses: Vec::new(), gradients: Vec::new(), metrics: Vec::new() };
        classify(batch, self.beta, shift, 1.0, &mut all);
        all
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(2.0 * std::f64::consts::LN_2)
    }
}

/// Adds to `all` the mean over pairs of −log σ(βr_w − δ) − log σ(−(βr_l − δ)), times `share`. `shift`: δ.
fn classify(pairs: &[PairLogps], beta: f64, shift: f64, share: f64, all: &mut Evaluation<PairGradient>) {
    let n = pairs.len() as f64;
    let rewards = |p: &PairLogps| (beta * p.chosen.log_ratio() - shift, beta * p.rejected.log_ratio() - shift);
    let losses: Vec<f64> = pairs.iter().map(rewards).map(|(w, l)| softplus(-w) + softplus(l)).collect();
    let gradient = |(w, l): (f64, f64)| PairGradient {
        chosen: SequenceGradient::policy(-beta * logistic(-w) / n),
        rejected: SequenceGradient::policy(beta * logistic(l) / n),
        prompt: 0.0,
    };
    all.gradients.extend(pairs.iter().map(rewards).map(gradient).map(|g| g * share));
    all.loss += share * (losses.iter().sum::<f64>() / n);
    all.losses.extend(losses);
}

/// LLaMA-Factory's BCO (`bco_loss` in its train/dpo/trainer.py, read at commit 0005269; `pref_bco_weight` adds it to another loss): δ
/// follows the rewards. It is the mean, over all micro-batches so far with the present one, of the mean reward of both sides (TRL's
/// `RunningMoments`, to which LLaMA-Factory gives one number a micro-batch), a constant to the gradient; a step's loss is the mean over
/// its micro-batches. There evaluations move δ too, and a resumed run starts it anew. Here an evaluation counts as the next micro-batch
/// and leaves nothing behind, and a resumed run goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RunningBco {
    pub beta: f64,
    /// Pairs of a micro-batch.
    pub size: usize,
    pub before: Running,
}

/// The mean of some numbers, which more may join.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Running {
    mean: f64,
    count: f64,
}

impl Running {
    /// Under these names it stands among a step's metrics, from which a resumed run has it again.
    const METRICS: [&str; 2] = ["bco/shift", "bco/batches"];

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.mean += (value - self.mean) / self.count;
    }
}

impl Objective for RunningBco {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let (mut running, share) = (self.before, 1.0 / batch.len().div_ceil(self.size) as f64);
        let mut all = Evaluation { loss: 0.0, losses: Vec::new(), gradients: Vec::new(), metrics: Vec::new() };
        for part in batch.chunks(self.size) {
            let ratios = part.iter().map(|p| p.chosen.log_ratio() + p.rejected.log_ratio()).sum::<f64>();
            running.add(self.beta * ratios / (2.0 * part.len() as f64));
            classify(part, self.beta, running.mean, share, &mut all);
        }
        all.metrics = Running::METRICS.into_iter().zip([running.mean, running.count]).collect();
        all
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(2.0 * std::f64::consts::LN_2)
    }

    fn recall(&mut self, metrics: &BTreeMap<String, f64>) {
        let [mean, count] = Running::METRICS.map(|name| metrics[name]);
        self.before = Running { mean, count };
    }
}
