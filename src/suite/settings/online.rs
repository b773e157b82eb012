//! Training on what the policy itself writes, scored by a reward: PPO, and RLOO as its simpler sibling.

use serde::Serialize;

/// What on-policy losses have beside their objective, under TRL's names where it has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnlineSettings {
    /// Who rewards: a reward model that this suite trains, by its judge's name, or `gold`, the world's own reward.
    pub reward_model: String,
    /// Completions of each prompt a step.
    pub num_generations: usize,
    /// Subtracted from the reward of a completion that doesn't end with EOS.
    pub missing_eos_penalty: f64,
    /// The KL to the reference that β is moved towards, nats a completion; none: β stays.
    pub target_kl: Option<f64>,
    /// None: RLOO.
    pub ppo: Option<PpoSettings>,
}

/// Schulman et al. 2017 as it is done for language models (Ziegler et al. 2019; Huang et al. 2024, arXiv 2403.17031).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PpoSettings {
    /// How often a step goes over what was written for it.
    pub num_ppo_epochs: usize,
    /// Updates in each of these.
    pub num_mini_batches: usize,
    pub cliprange: f64,
    pub cliprange_value: f64,
    /// Weight of the value head's loss.
    pub vf_coef: f64,
    pub gamma: f64,
    pub lam: f64,
    pub whiten_rewards: bool,
}

/// TRL's `PPOConfig`.
impl Default for PpoSettings {
    fn default() -> Self {
        Self {
            num_ppo_epochs: 4,
            num_mini_batches: 1,
            cliprange: 0.2,
            cliprange_value: 0.2,
            vf_coef: 0.1,
            gamma: 1.0,
            lam: 0.95,
            whiten_rewards: false,
        }
    }
}

impl OnlineSettings {
    /// Optimizer updates a step.
    pub fn updates(&self) -> usize {
        self.ppo.as_ref().map_or(1, |ppo| ppo.num_ppo_epochs * ppo.num_mini_batches)
    }
}
