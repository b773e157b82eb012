//! What can't be asked of policies that are decoded differently rather than trained, and why.
//!
//! Another policy decoded in another way has that policy's weights, so whatever rests on log-probabilities of pairs would say the same again. How
//! likely its own texts are as it is decoded isn't measured: log-probabilities are those at temperature 1. And it has one checkpoint.
//!
//! The best of n completions have no weights at all. Their KL is known, not estimated, and what is optimised is the reward that chooses.

use super::inspection::Measure;
use crate::generate::REFERENCE;
use crate::judge::GOLD;
use crate::suite::settings::{BestOfSettings, DecodedSettings, PolicySource, Variant};

/// None: it can be asked. Goes on from "not checked, because ".
pub(super) fn why(variant: &Variant, measure: &Measure) -> Option<String> {
    match &variant.policy {
        PolicySource::Train(_) | PolicySource::Checkpoint { .. } => None,
        PolicySource::Decoded(decoded) => of_decoded(decoded, measure.id),
        PolicySource::BestOfN(best) => of_best(best, measure.id),
    }
}

fn of_best(best: &BestOfSettings, id: &str) -> Option<String> {
    match id {
        "proxy-gold-divergence" if best.reward_model == GOLD => {
            Some("gold itself chooses: there is no proxy that could part from it".to_owned())
        }
        "kl-per-token" => Some("its texts are the reference's own: no token is drawn from elsewhere".to_owned()),
        "kl-disagreement" => Some("its KL is known from n, not estimated".to_owned()),
        "entropy-collapse" => Some("what it would write next has no distribution: whole texts are chosen".to_owned()),
        id if rests_on_pairs(id) => Some("it chooses among texts and gives pairs no log-probability".to_owned()),
        _ => None,
    }
}

fn of_decoded(decoded: &DecodedSettings, id: &str) -> Option<String> {
    let of = decoded.of.as_deref().unwrap_or(REFERENCE);
    match id {
        "proxy-gold-divergence" | "win-rate-hump" | "win-rate-peak" => Some(format!("it has one checkpoint, the last of `{of}`")),
        "kl-budget" | "kl-per-token" | "kl-disagreement" | "entropy-collapse" => {
            Some(format!("log-probabilities are known of `{of}` at temperature 1, not as it is decoded here"))
        }
        "self-bleu" | "unique-samples" if decoded.is_greedy() => Some("greedy decoding writes one text a prompt".to_owned()),
        id if rests_on_pairs(id) => Some(match &decoded.of {
            Some(of) => format!("on pairs it is `{of}` again"),
            None => "on pairs it is the reference, which they are scored against".to_owned(),
        }),
        _ => None,
    }
}

/// On what a policy thinks of pairs, or on what it was trained with.
fn rests_on_pairs(id: &str) -> bool {
    [
        "chosen-displacement",
        "chosen-fell",
        "similarity",
        "similarity-predicts",
        "opposite-rise",
        "accuracy-gap",
        "margin-saturation",
        "accuracy-decoupled",
        "ranking-decoupled",
        "length-coupling",
    ]
    .contains(&id)
}

#[cfg(test)]
mod tests {
    use super::super::MEASURES;
    use super::*;

    #[test]
    fn what_is_left_out_are_measures() {
        let all: Vec<&str> = MEASURES.into_iter().flatten().map(|measure| measure.id).collect();
        assert_eq!(all.iter().filter(|id| rests_on_pairs(id)).count(), 10);
        let named = ["proxy-gold-divergence", "win-rate-hump", "win-rate-peak", "kl-budget", "kl-per-token", "kl-disagreement"];
        assert!(named.iter().chain(&["entropy-collapse", "self-bleu", "unique-samples"]).all(|id| all.contains(id)), "{all:?}");
    }
}
