//! Which policies are evaluated: trained here, trained elsewhere, or one of these or the reference decoded in a way of its own.

use std::path::PathBuf;

use serde::Serialize;

use super::{GenerateSettings, TrainSettings};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variant {
    pub name: String,
    pub policy: PolicySource,
}

impl Variant {
    /// How it is trained; none: it isn't, here.
    pub fn training(&self) -> Option<&TrainSettings> {
        match &self.policy {
            PolicySource::Train(settings) => Some(settings),
            PolicySource::Checkpoint { .. } | PolicySource::Decoded(_) | PolicySource::BestOfN(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum PolicySource {
    Train(Box<TrainSettings>),
    /// A policy trained elsewhere: a Hugging Face folder. `beta` scales its implicit rewards.
    Checkpoint {
        path: PathBuf,
        beta: f64,
    },
    /// Another policy of the suite at its last checkpoint, sampled with other settings.
    Decoded(DecodedSettings),
    /// The reference, of whose completions a reward model chooses.
    BestOfN(BestOfSettings),
}

/// How a policy is decoded that a suite has already. In place of what [generate] says; the rest is as there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecodedSettings {
    /// The variant; none: the reference.
    pub of: Option<String>,
    /// 0: greedy.
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: Option<usize>,
}

impl DecodedSettings {
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// What it changes of the settings that all others are decoded with.
    pub fn over(&self, generate: &GenerateSettings) -> GenerateSettings {
        GenerateSettings { temperature: self.temperature, top_p: self.top_p, top_k: self.top_k, ..generate.clone() }
    }
}

/// Best of n: of the first n completions that the reference writes, the one that the reward model scores highest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestOfSettings {
    /// n, rising; each is a checkpoint.
    pub best_of_n: Vec<u64>,
    /// A judge by its name, or `gold`, the world's own reward.
    pub reward_model: String,
}

impl BestOfSettings {
    /// Completions that are written of each prompt and sample.
    pub fn most(&self) -> u64 {
        self.best_of_n.last().copied().unwrap_or_default()
    }
}
