//! Reinforcement learning from a reward: what the policy writes is scored, and what scored well becomes likelier.
//!
//! | file | |
//! |---|---|
//! | `reward` | who scores: a reward model that a suite trained, or the world's own reward |
//! | `ppo`, `rloo` | what a token is worth, and the loss (pure) |
//! | `coefficient` | β where a KL is aimed at |
//! | `task` | an optimizer step: write, score, update |
//! | `rows` | what is written down of it |
//! | `best_of` | without training: the best of several completions |
//!
//! The objective is E[r(x, y)] − β KL(π ‖ π_ref) (Stiennon et al. 2020; DPO's eq. 3), with `beta` for β (TRL's PPO: `kl_coef`). Its
//! estimate on a completion is Σ_t log π(y_t) − log π_ref(y_t), charged token by token (PPO) or at once (RLOO).

mod best_of;
mod coefficient;
mod ppo;
mod reward;
mod rloo;
mod rows;
mod task;

pub use best_of::{Choice, best_of};
pub use reward::{Reward, RewardModel};
pub use rows::{ONLINE_LOG, OnlineStep};
pub use task::OnlineTask;

#[cfg(test)]
mod tests;
