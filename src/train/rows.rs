//! Steps and evaluations of a preference training as rows of fixed columns, for tables and the gate.

use serde::{Deserialize, Serialize};

use super::evaluation::Evaluation;
use super::metrics::Metrics;
use crate::error::{Error, Result};

/// Declares both rows from one list of what is measured, each with its column in the one and the other.
macro_rules! rows {
    ($($(#[$doc:meta])* $field:ident: $column:literal, $eval_column:literal;)*) => {
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
            $($(#[$doc])* #[serde(rename = $column)] pub $field: Option<f64>,)*
            pub entropy: f64,
            /// Before clipping.
            pub grad_norm: f64,
            pub learning_rate: f64,
            /// Tokens that went through the policy since step 1, prompts counted once a sequence as in TRL.
            pub num_tokens: u64,
        }

        /// An evaluation: the metrics of `TrainStep`, over all held-out examples at once, so that each example weighs the same (where TRL
        /// averages over batches).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct EvalStep {
            pub variant: String,
            pub seed: u64,
            /// Finished optimizer steps.
            pub step: u64,
            pub epoch: f64,
            pub eval_loss: f64,
            $($(#[$doc])* #[serde(rename = $eval_column)] pub $field: Option<f64>,)*
            pub eval_entropy: Option<f64>,
        }

        impl Metrics {
            /// This step of a preference training as a row.
            pub fn train_step(&self, variant: &str, seed: u64) -> Result<TrainStep> {
                let value = |name: &str| self.values.get(name).copied();
                let rewards = ["rewards/chosen", "rewards/rejected", "objective/scores"];
                if !rewards.into_iter().any(|name| self.values.contains_key(name)) {
                    return Err(Error::unexpected(format!("step {} has no rewards: it is no preference training", self.step)));
                }
                Ok(TrainStep {
                    variant: variant.to_owned(),
                    seed,
                    step: self.step,
                    epoch: self.epoch,
                    loss: self.loss,
                    $($field: value($column),)*
                    entropy: value("entropy").unwrap_or_default(),
                    grad_norm: self.grad_norm,
                    learning_rate: self.learning_rate,
                    num_tokens: self.num_tokens,
                })
            }
        }

        impl Evaluation {
            /// This evaluation of a preference training as a row.
            pub fn eval_step(&self, variant: &str, seed: u64) -> EvalStep {
                let value = |name: &str| self.values.get(name).copied();
                EvalStep {
                    variant: variant.to_owned(),
                    seed,
                    step: self.step,
                    epoch: self.epoch,
                    eval_loss: self.values["eval_loss"],
                    $($field: value($eval_column),)*
                    eval_entropy: value("eval_entropy"),
                }
            }
        }
    };
}

rows! {
    rewards_chosen: "rewards/chosen", "eval_rewards/chosen";
    rewards_rejected: "rewards/rejected", "eval_rewards/rejected";
    rewards_margins: "rewards/margins", "eval_rewards/margins";
    /// Share of pairs whose chosen reward is strictly greater: ties count as wrong, as in TRL.
    rewards_accuracies: "rewards/accuracies", "eval_rewards/accuracies";
    /// Share of pairs whose rewards are equal.
    rewards_ties: "rewards/ties", "eval_rewards/ties";
    logps_chosen: "logps/chosen", "eval_logps/chosen";
    logps_rejected: "logps/rejected", "eval_logps/rejected";
    /// Share of chosen completions that are less likely than under the reference.
    logps_chosen_fell: "logps/chosen_fell", "eval_logps/chosen_fell";
    /// Implicit KL: the mean of log π − log π_ref, nats a completion.
    kl_chosen: "kl/chosen", "eval_kl/chosen";
    kl_rejected: "kl/rejected", "eval_kl/rejected";
    /// KTO's KL, on mismatched completions.
    kl: "kl", "eval_kl";
    /// Cross-entropy of the chosen completions, where it is part of the loss.
    nll_loss: "nll_loss", "eval_nll_loss";
    /// ORPO: mean of log σ(log odds ratio), and of that ratio itself.
    log_odds_ratio: "log_odds_ratio", "eval_log_odds_ratio";
    log_odds_chosen: "log_odds_chosen", "eval_log_odds_chosen";
    logits_chosen: "logits/chosen", "eval_logits/chosen";
    logits_rejected: "logits/rejected", "eval_logits/rejected";
}
