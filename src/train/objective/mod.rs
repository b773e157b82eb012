//! Objectives: log-probabilities of a whole optimizer batch in, losses and their gradients out, all in binary64.
//!
//! An objective sees the optimizer batch undivided, so one that couples its examples (a sort over the batch, a mean KL)
//! doesn't depend on the micro-batch split. It returns the gradient of the *batch* loss with respect to what the policy says
//! of each completion: how examples are weighed into the batch loss is the objective's own affair.
//!
//! Trainers give different definitions the same name. `dialect` chooses:
//!
//! | | `dpo-eval` | `trl` (1.16) | `original` | `openrlhf` | `llama-factory` |
//! |---|---|---|---|---|---|
//! | label smoothing in `sigmoid` | kept | dropped | kept | kept | kept |
//! | label smoothing in `simpo` | kept | kept | – | – | dropped |
//! | `ipo` | per token | per token | sums | sums | per token |
//! | `ld_alpha` | policy and reference | policy and reference | – | – | policy only |
//! | `sft`, NLL of `cpo`: mean over | tokens | tokens | sequences, of sums | sequences, of means | sequences, of means |
//! | NLL of `orpo`: mean over | completions' tokens | prompts' and completions' tokens | – | – | sequences, of means |
//! | `bco_pair` subtracts | nothing, or the batch's mean reward | nothing | – | – | the running mean of micro-batches' mean rewards |
//! | mean of a step, `aot`'s sort, `kto`'s KL | optimizer batch | mean of micro-batches | same | same | same |
//! | `kto`'s other completion: the one before | in the optimizer batch | in the micro-batch | – | – | in 1000 rows of the file |
//!
//! Sources: TRL 1.16 `dpo_trainer.py`, `kto_trainer.py`, `experimental/cpo`, `experimental/orpo`; the DPO paper's
//! `trainers.py`; OpenRLHF `models/loss.py`; LLaMA-Factory `train/dpo/trainer.py`, `train/kto`.

mod aot;
mod apo;
mod bco_pair;
mod combination;
mod cpo;
mod discopop;
mod divergence;
mod exo_pair;
mod gradient;
mod hinge;
mod ipo;
mod kl_penalty;
mod kto;
mod micro_batches;
mod nca_pair;
mod orpo;
mod reward;
mod robust;
mod score;
mod sft;
mod sigmoid;
mod simpo;
mod sppo_hard;
mod unlikelihood;
mod weighting;

pub use gradient::{Gradient, PairGradient, SequenceGradient};
pub use kto::UnpairedLogps;
pub use reward::Reward;
pub use sft::{Mean, Sft};

use std::collections::BTreeMap;

pub(crate) use crate::statistics::logistic::{logistic, softplus};
use crate::suite::settings::{Dialect, LossType, ObjectiveSettings, TrainSettings};
use combination::Combination;
use micro_batches::MicroBatches;
use score::{Score, Separable};

/// One completion: what policy and reference say of it, nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLogps {
    /// log π(y|x), summed over its tokens; with `ld_alpha` the weighted sum.
    pub policy: f64,
    /// The same under the reference.
    pub reference: f64,
    /// Tokens of the completion.
    pub tokens: usize,
    /// log π(y|x), every token weighing the same.
    pub plain: f64,
    /// −Σ log(1 − π(token)).
    pub unlikelihood: f64,
    /// Mean over tokens of log π(token) − log Σ π², the logarithm of WPO's weight.
    pub alignment: f64,
}

impl SequenceLogps {
    /// log π(y|x) − log π_ref(y|x): the implicit reward over β (Rafailov et al. 2023, eq. 5, without the partition function).
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

/// Both sides of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLogps {
    pub chosen: SequenceLogps,
    pub rejected: SequenceLogps,
    /// The prompt's own tokens after its first: Σ log π and their number.
    pub prompt: (f64, usize),
}

/// What an objective makes of an optimizer batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation<G> {
    /// The loss of the batch, nats.
    pub loss: f64,
    /// The part of each example, before it is weighed into the batch loss.
    pub losses: Vec<f64>,
    /// Of the batch loss, one an example.
    pub gradients: Vec<G>,
    /// What the objective measures beside its loss, under TRL's names.
    pub metrics: Vec<(&'static str, f64)>,
}

/// A training objective over examples of one shape: pairs, or single completions.
pub trait Objective: Send + Sync {
    type Example;
    type Gradient;

    /// `batch`: the whole optimizer batch, in batch order, at least one example.
    fn evaluate(&self, batch: &[Self::Example]) -> Evaluation<Self::Gradient>;

    /// The loss where the policy equals the reference, if it is a constant.
    fn loss_at_reference(&self) -> Option<f64>;

    /// `metrics`: of the step before the next batch. What an objective keeps of earlier batches stands there.
    fn recall(&mut self, _metrics: &BTreeMap<String, f64>) {}
}

pub type PairObjective = Box<dyn Objective<Example = PairLogps, Gradient = PairGradient>>;
pub type UnpairedObjective = Box<dyn Objective<Example = UnpairedLogps, Gradient = SequenceGradient>>;

/// The objective over pairs. `settings`: as `suite` resolves them; losses over single completions are a defect here.
pub fn paired(settings: &TrainSettings) -> PairObjective {
    let o = &settings.objective;
    let runs = |loss: LossType| o.dialect == Dialect::LlamaFactory && loss == LossType::BcoPair;
    let losses = || o.loss_type.iter().zip(&o.loss_weights);
    let mut terms: Vec<(f64, PairObjective)> =
        losses().filter(|(loss, _)| !runs(**loss)).map(|(&loss, &weight)| (weight, weighted(loss, o))).collect();
    if o.kl_coef > 0.0 {
        terms.push((o.kl_coef, Box::new(kl_penalty::OfPairs)));
    }
    let objective = in_dialect(combined(terms), settings);
    let Some((_, &weight)) = losses().find(|(loss, _)| runs(**loss)) else { return objective };
    // It sees the micro-batches itself, as each moves the shift of the next.
    let bco = bco_pair::RunningBco { beta: o.beta, size: scope(settings), before: bco_pair::Running::default() };
    Box::new(Combination { terms: vec![(1.0, objective), (weight, Box::new(bco))] })
}

/// The objective over single completions with a label.
pub fn unpaired(settings: &TrainSettings) -> UnpairedObjective {
    let o = &settings.objective;
    let loss =
        kto::Kto { beta: o.beta, weights: [o.undesirable_weight, o.desirable_weight], kl: o.loss_type[0] == LossType::Kto };
    let mut terms: Vec<(f64, UnpairedObjective)> = vec![(o.loss_weights[0], Box::new(loss))];
    if o.kl_coef > 0.0 {
        terms.push((o.kl_coef, Box::new(kl_penalty::OfCompletions)));
    }
    in_dialect(combined(terms), settings)
}

/// How many examples an objective's means and sorts range over: the optimizer batch, or other trainers' micro-batches.
fn scope(settings: &TrainSettings) -> usize {
    let micro = settings.per_device_train_batch_size;
    match settings.objective.dialect {
        Dialect::DpoEval => micro * settings.gradient_accumulation_steps,
        _ => micro,
    }
}

/// An objective, and over how many examples its means and sorts range.
pub struct Scoped<O> {
    pub objective: O,
    pub scope: usize,
}

impl<O> Scoped<O> {
    /// `objective`: [`paired`] or [`unpaired`].
    pub fn of(settings: &TrainSettings, objective: fn(&TrainSettings) -> O) -> Self {
        Self { objective: objective(settings), scope: scope(settings) }
    }

    /// Over `n` examples at once: how held-out examples are measured.
    pub fn undivided(settings: &TrainSettings, n: usize, objective: fn(&TrainSettings) -> O) -> Self {
        Self::of(&TrainSettings { per_device_train_batch_size: n, gradient_accumulation_steps: 1, ..settings.clone() }, objective)
    }
}

type Boxed<E, G> = Box<dyn Objective<Example = E, Gradient = G>>;

fn combined<E: 'static, G: Gradient + 'static>(mut terms: Vec<(f64, Boxed<E, G>)>) -> Boxed<E, G> {
    match terms.as_slice() {
        [(1.0, _)] => terms.remove(0).1,
        _ => Box::new(Combination { terms }),
    }
}

fn in_dialect<E: 'static, G: Gradient + 'static>(objective: Boxed<E, G>, settings: &TrainSettings) -> Boxed<E, G> {
    match settings.objective.dialect {
        Dialect::DpoEval => objective,
        _ => Box::new(MicroBatches { objective, size: scope(settings) }),
    }
}

fn weighted(loss: LossType, o: &ObjectiveSettings) -> PairObjective {
    let objective = plain(loss, o);
    match o.use_weighting {
        true => Box::new(weighting::Weighted { objective, couples: loss == LossType::Sft }),
        false => objective,
    }
}

fn plain(loss: LossType, o: &ObjectiveSettings) -> PairObjective {
    let beta = o.beta;
    let sums = Score::of_ratios(o);
    let smoothing = match (o.dialect, loss) {
        (Dialect::Trl, LossType::Sigmoid) | (Dialect::LlamaFactory, LossType::Simpo) => 0.0,
        _ => o.label_smoothing,
    };
    let sorted = |between| Box::new(aot::Aot { beta, label_smoothing: smoothing, between });
    match loss {
        LossType::Sigmoid => separable(sums.with_terms(o), sigmoid::Sigmoid::new(beta, smoothing)),
        LossType::SigmoidNorm => separable(sums.per_token(), sigmoid::Sigmoid::new(beta, 0.0)),
        LossType::Robust => separable(sums, robust::Robust { beta, label_smoothing: smoothing }),
        LossType::Ipo => match o.dialect {
            Dialect::Original | Dialect::Openrlhf => separable(sums, ipo::Ipo { beta }),
            Dialect::DpoEval | Dialect::Trl | Dialect::LlamaFactory => separable(sums.per_token(), ipo::Ipo { beta }),
        },
        LossType::Hinge => separable(sums, hinge::Hinge { beta }),
        LossType::ExoPair => separable(sums, exo_pair::ExoPair { beta, label_smoothing: smoothing }),
        LossType::NcaPair => separable(sums, nca_pair::NcaPair { beta }),
        LossType::BcoPair => Box::new(bco_pair::BcoPair { beta, shift: o.bco_shift }),
        LossType::SppoHard => separable(sums, sppo_hard::SppoHard { beta }),
        LossType::Aot => sorted(aot::Between::Pairs),
        LossType::AotUnpaired => sorted(aot::Between::Sides),
        LossType::ApoZero => separable(sums, apo::ApoZero { beta }),
        LossType::ApoDown => separable(sums, apo::ApoDown { beta }),
        LossType::Discopop => separable(sums, discopop::Discopop { beta, tau: o.discopop_tau }),
        LossType::Simpo => simpo::simpo(beta, o.simpo_gamma, smoothing),
        LossType::Cpo => cpo::cpo(beta, smoothing, o.cpo_alpha),
        LossType::Orpo => Box::new(orpo::Orpo { beta, nll: orpo::Nll::of(o.dialect) }),
        LossType::Sft => Box::new(sft::OnChosen(Mean::of(o.dialect))),
        LossType::Unlikelihood => Box::new(unlikelihood::Unlikelihood { alpha: o.unlikelihood_alpha }),
        LossType::Kto | LossType::ApoZeroUnpaired | LossType::Ppo | LossType::Rloo => {
            unreachable!("{} is no loss over pairs", loss.name())
        }
    }
}

fn separable<L: score::PairLoss + 'static>(score: Score, loss: L) -> PairObjective {
    Box::new(Separable { score, loss })
}

/// log(1 − eˣ) for x < 0, exact near 0 and far from it (Mächler 2012, "Accurately computing log(1 − exp(−|a|))").
fn log1mexp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { libm::log(-libm::expm1(x)) } else { libm::log1p(-libm::exp(x)) }
}

#[cfg(test)]
pub(crate) mod tests;
