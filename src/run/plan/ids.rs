//! What cells are called: unique in a plan, readable, and by what they are for.

use crate::generate::REFERENCE;
use crate::suite::settings::TrainSettings;

/// The first round is named as a training of one round is: it is the same training.
pub fn train_id(variant: &str, seed: u64, round: u64) -> String {
    format!("train/{}", round_id(variant, seed, round))
}

/// `round`: whose training reads the pairs, from 2.
pub fn round_pairs_id(variant: &str, seed: u64, round: u64) -> String {
    format!("pairs/{}", round_id(variant, seed, round))
}

fn round_id(variant: &str, seed: u64, round: u64) -> String {
    match round {
        1 => format!("{variant}/seed-{seed}"),
        _ => format!("{variant}/seed-{seed}/round-{round}"),
    }
}

/// The cells of a variant's training under a seed, round by round.
pub fn train_ids(variant: &str, settings: &TrainSettings, seed: u64) -> Vec<String> {
    (1..=settings.rounds()).map(|round| train_id(variant, seed, round)).collect()
}

pub fn evaluate_id(variant: Option<&str>, seed: Option<u64>) -> String {
    format!("evaluate/{}", policy_id(variant.unwrap_or(REFERENCE), seed))
}

pub fn judge_id(judge: &str) -> String {
    format!("judge/{judge}")
}

pub fn probes_id(judge: &str) -> String {
    format!("probes/{judge}")
}

pub fn judgments_id(judge: &str, variant: &str, seed: Option<u64>) -> String {
    format!("judgments/{judge}/{}", policy_id(variant, seed))
}

/// The deciding judge's judgments of a variant under all seeds, where they may stop early.
pub fn sequential_id(judge: &str, variant: &str) -> String {
    format!("judgments/{judge}/{variant}/sequential")
}

fn policy_id(variant: &str, seed: Option<u64>) -> String {
    seed.map_or_else(|| variant.to_owned(), |seed| format!("{variant}/seed-{seed}"))
}
