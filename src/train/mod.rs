//! Training: objectives, optimizer, schedule, loop, checkpoints, metrics.
//!
//! `run` is the one loop; what it trains is a `Task` (SFT, preferences, judges). `objective` holds the losses.

pub mod chain;
mod completion;
mod evaluation;
mod metrics;
pub mod objective;
mod optimizer;
mod packing;
mod policy;
mod preference;
mod reference;
mod run;
mod schedule;
mod score_cache;
pub(crate) mod sequence;
mod sft;
mod state;
mod task;
mod tensorboard;
mod timing;
mod unpaired;

pub use evaluation::{EvalStep, Evaluation};
pub use metrics::Metrics;
pub use preference::{PairOutput, PreferenceTask, ScoredPolicy, pair_scores};
pub use run::{EVAL_LOG, checkpoint, checkpoint_folder, checkpoint_steps, run};
pub use schedule::learning_rate;
pub use score_cache::ScoreCache;
pub use sft::SftTask;
pub(crate) use state::weights_kept;
pub use task::{BatchLoss, Task};
pub use unpaired::{Feedback, UnpairedTask};

use serde::{Deserialize, Serialize};

/// The metrics of one optimizer step, under TRL's names where it has them. Log-probabilities and rewards in nats, means over
/// the batch. What an objective doesn't have, or a batch without chosen or rejected examples, is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainStep {
    pub variant: String,
    pub seed: u64,
    /// From 1.
    pub step: u64,
    pub epoch: f64,
    pub loss: f64,
    #[serde(rename = "rewards/chosen")]
    pub rewards_chosen: Option<f64>,
    #[serde(rename = "rewards/rejected")]
    pub rewards_rejected: Option<f64>,
    #[serde(rename = "rewards/margins")]
    pub rewards_margins: Option<f64>,
    /// Share of pairs whose chosen reward is strictly greater: ties count as wrong, as in TRL.
    #[serde(rename = "rewards/accuracies")]
    pub rewards_accuracies: Option<f64>,
    /// Share of pairs whose rewards are equal.
    #[serde(rename = "rewards/ties")]
    pub rewards_ties: Option<f64>,
    #[serde(rename = "logps/chosen")]
    pub logps_chosen: Option<f64>,
    #[serde(rename = "logps/rejected")]
    pub logps_rejected: Option<f64>,
    /// Share of chosen completions that are less likely than under the reference.
    #[serde(rename = "logps/chosen_fell")]
    pub logps_chosen_fell: Option<f64>,
    /// Implicit KL: the mean of log π − log π_ref, nats a completion.
    #[serde(rename = "kl/chosen")]
    pub kl_chosen: Option<f64>,
    #[serde(rename = "kl/rejected")]
    pub kl_rejected: Option<f64>,
    /// KTO's KL, on mismatched completions.
    pub kl: Option<f64>,
    /// Cross-entropy of the chosen completions, where it is part of the loss.
    pub nll_loss: Option<f64>,
    /// ORPO: mean of log σ(log odds ratio), and of that ratio itself.
    pub log_odds_ratio: Option<f64>,
    pub log_odds_chosen: Option<f64>,
    #[serde(rename = "logits/chosen")]
    pub logits_chosen: Option<f64>,
    #[serde(rename = "logits/rejected")]
    pub logits_rejected: Option<f64>,
    pub entropy: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Tokens that went through the policy since step 1, prompts counted once a sequence as in TRL.
    pub num_tokens: u64,
}

/// Log-probabilities (nats, summed over the completion's tokens) of one pair under a checkpoint and the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    pub variant: String,
    /// None for policies trained elsewhere.
    pub seed: Option<u64>,
    pub checkpoint: u64,
    pub pair_id: String,
    pub prompt_id: String,
    pub beta: f64,
    pub policy_chosen: f64,
    pub policy_rejected: f64,
    pub reference_chosen: f64,
    pub reference_rejected: f64,
    pub chosen_tokens: u32,
    pub rejected_tokens: u32,
}

#[cfg(test)]
pub(crate) mod tests;
