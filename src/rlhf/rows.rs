//! Steps of on-policy training as rows of fixed columns.

use serde::{Deserialize, Serialize};

use crate::train::Metrics;

/// The file of a training's rows.
pub const ONLINE_LOG: &str = "online_log.jsonl";

/// What an optimizer step wrote and made of it, under TRL's names. Means over the step's completions; where a step has several updates,
/// of these too. Nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnlineStep {
    pub variant: String,
    pub seed: u64,
    /// From 1.
    pub step: u64,
    /// Of the reward model, penalties included.
    #[serde(rename = "objective/scores")]
    pub scores: f64,
    /// Σ log π − log π_ref of a completion.
    #[serde(rename = "objective/kl")]
    pub kl: f64,
    /// β at this step.
    #[serde(rename = "objective/kl_coef")]
    pub kl_coef: f64,
    /// scores − β · kl.
    #[serde(rename = "objective/rlhf_reward")]
    pub rlhf_reward: f64,
    /// −Σ log π of a completion.
    #[serde(rename = "objective/entropy")]
    pub entropy: f64,
    /// Tokens.
    #[serde(rename = "completions/mean_length")]
    pub mean_length: f64,
    /// Share that didn't end with EOS.
    #[serde(rename = "completions/clipped_ratio")]
    pub clipped_ratio: f64,
    /// PPO's, as those below.
    #[serde(rename = "loss/policy_avg")]
    pub policy_loss: Option<f64>,
    #[serde(rename = "loss/value_avg")]
    pub value_loss: Option<f64>,
    /// Share of tokens whose ratio, whose value was bounded.
    #[serde(rename = "policy/clipfrac_avg")]
    pub policy_clipped: Option<f64>,
    #[serde(rename = "val/clipfrac_avg")]
    pub value_clipped: Option<f64>,
    /// ½ (log π − log π_old)² of a token.
    #[serde(rename = "policy/approxkl_avg")]
    pub approximate_kl: Option<f64>,
    #[serde(rename = "val/ratio")]
    pub ratio: Option<f64>,
}

impl OnlineStep {
    /// # Panics
    /// When the step is none of on-policy training.
    pub fn of(metrics: &Metrics, variant: &str, seed: u64) -> Self {
        let own = |name: &str| metrics.values.get(name).copied();
        let all = |name: &str| own(name).expect("every on-policy step measures it");
        Self {
            variant: variant.to_owned(),
            seed,
            step: metrics.step,
            scores: all("objective/scores"),
            kl: all("objective/kl"),
            kl_coef: all("objective/kl_coef"),
            rlhf_reward: all("objective/rlhf_reward"),
            entropy: all("objective/entropy"),
            mean_length: all("completions/mean_length"),
            clipped_ratio: all("completions/clipped_ratio"),
            policy_loss: own("loss/policy_avg"),
            value_loss: own("loss/value_avg"),
            policy_clipped: own("policy/clipfrac_avg"),
            value_clipped: own("val/clipfrac_avg"),
            approximate_kl: own("policy/approxkl_avg"),
            ratio: own("val/ratio"),
        }
    }
}
