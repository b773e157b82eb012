//! How alike the two sides of a pair look to the model that training starts from: the CHES score, which predicts whether learning the pair
//! makes its chosen side less likely.
//!
//! Razin et al. 2024, "Unintentional Unalignment", arXiv 2410.08847, definition 2: with h_{y,<k} the last layer's hidden state from which
//! the k-th token of y is predicted,
//!
//! ```text
//! CHES(x, y+, y−) = ⟨Σ_k h_{y+,<k}, Σ_k h_{y−,<k}⟩ − ‖Σ_k h_{y+,<k}‖²
//! ```
//!
//! and, normalised by length, the same of the means in place of the sums. The higher, the more the chosen side is displaced.

use serde::{Deserialize, Serialize};

use super::sequence::{Group, PackedGroups, fit_pairs};
use crate::data::TokenizedPair;
use crate::error::Result;
use crate::model::Llama;
use crate::watch::Watch;

/// Pairs computed together. It bounds memory and has no influence on the bits.
const TOGETHER: usize = 16;

/// CHES of a pair under the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairSimilarity {
    pub pair_id: String,
    pub prompt_id: String,
    pub ches: f64,
    /// Of the means over tokens.
    pub ches_normalised: f64,
    pub chosen_tokens: u32,
    pub rejected_tokens: u32,
}

/// One row a pair, in order. Always in the strict arithmetic; `max_length` cuts completions as in training.
pub fn pair_similarities(
    model: &Llama,
    pairs: &[TokenizedPair],
    max_length: Option<usize>,
    watch: &dyn Watch,
) -> Result<Vec<PairSimilarity>> {
    let pairs = fit_pairs(&model.config, &pairs.into(), max_length)?;
    let mut rows = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(TOGETHER) {
        watch.check()?;
        let groups = PackedGroups::of(
            chunk.iter().map(|pair| Group { prompt: &pair.prompt, completions: vec![&pair.chosen, &pair.rejected] }),
        );
        let width = model.config.hidden_size;
        let states = model.hidden_states(&groups.packed, &groups.targets);
        let tokens: Vec<&[f32]> = states.chunks_exact(width).collect();
        let sums: Vec<Vec<f64>> = groups.split(&tokens).map(|rows| sum(rows, width)).collect();
        for (pair, sides) in chunk.iter().zip(sums.chunks_exact(2)) {
            rows.push(similarity(pair, &sides[0], &sides[1]));
        }
        watch.advance(rows.len() as u64, pairs.len() as u64, "hidden states of training pairs");
    }
    Ok(rows)
}

/// In the order of the tokens, in binary64.
fn sum(rows: &[&[f32]], width: usize) -> Vec<f64> {
    let mut sum = vec![0.0; width];
    for row in rows {
        sum.iter_mut().zip(*row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sum
}

fn similarity(pair: &TokenizedPair, chosen: &[f64], rejected: &[f64]) -> PairSimilarity {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (cross, own) = (dot(chosen, rejected), dot(chosen, chosen));
    let (n, m) = (pair.chosen.len() as f64, pair.rejected.len() as f64);
    PairSimilarity {
        pair_id: pair.id.clone(),
        prompt_id: pair.prompt_id.clone(),
        ches: cross - own,
        ches_normalised: cross / (n * m) - own / (n * n),
        chosen_tokens: pair.chosen.len() as u32,
        rejected_tokens: pair.rejected.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Silent;

    /// Recorded with transformers by `golden/train/ches.py`.
    #[test]
    fn scores_meet_pytorch_in_every_kind_of_model() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
        let text = std::fs::read_to_string(format!("{root}/train/ches.json")).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let name = case["model"].as_str().unwrap();
            let model = Llama::load(format!("{root}/models/{name}").as_ref()).unwrap();
            let ids = |row: &serde_json::Value, key: &str| -> Vec<u32> {
                row[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
            };
            let expected = case["pairs"].as_array().unwrap();
            let pair = |(i, row): (usize, &serde_json::Value)| TokenizedPair {
                id: format!("pair-{i}"),
                prompt_id: format!("prompt-{i}"),
                prompt: ids(row, "prompt"),
                chosen: ids(row, "chosen"),
                rejected: ids(row, "rejected"),
            };
            let pairs: Vec<TokenizedPair> = expected.iter().enumerate().map(pair).collect();
            let found = pair_similarities(&model, &pairs, None, &Silent).unwrap();
            for (row, expected) in found.iter().zip(expected) {
                for (found, key) in [(row.ches, "ches"), (row.ches_normalised, "ches_normalised")] {
                    let scale = expected[format!("{key}_scale")].as_f64().unwrap();
                    let expected = expected[key].as_f64().unwrap();
                    assert!((found - expected).abs() < 1e-4 * scale, "{name} {} {key}: {found}, not {expected}", row.pair_id);
                }
            }
        }
    }
}
