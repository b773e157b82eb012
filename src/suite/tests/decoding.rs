//! Policies decoded in another way: what a suite may say of them.

use super::super::settings::{DecodedSettings, PolicySource};
use super::*;

/// The world with one more variant of these keys.
fn beside(keys: &str) -> String {
    WORLD.replacen("[generate]", &format!("[[variant]]\nname = \"other\"\n{keys}\n\n[generate]"), 1)
}

fn decoded(suite: &Suite) -> &DecodedSettings {
    match &suite.variant("other").unwrap().policy {
        PolicySource::Decoded(settings) => settings,
        policy => panic!("{policy:?}"),
    }
}

#[test]
fn a_policy_is_decoded_with_its_own_settings_and_with_those_of_all_where_it_says_nothing() {
    let suite = understood(&beside("policy = \"a\"\ntop_k = 7"));
    let own = decoded(&suite);
    assert_eq!((own.of.as_deref(), own.temperature, own.top_k), (Some("a"), suite.generate.temperature, Some(7)));
    let over = own.over(&suite.generate);
    assert_eq!((over.max_new_tokens, over.top_k), (suite.generate.max_new_tokens, Some(7)));
    let suite = understood(&beside("policy = \"reference\"\ntemperature = 0"));
    let own = decoded(&suite);
    assert!(own.of.is_none() && own.is_greedy() && own.top_k.is_none() && own.top_p == 1.0);
    // The reference sampled once more compares like with like.
    let same = format!("policy = \"reference\"\ntemperature = {}", suite.generate.temperature);
    assert_eq!(decoded(&understood(&beside(&same))).over(&suite.generate), suite.generate);
}

#[test]
fn a_variant_that_decodes_another_leaves_the_digests_of_the_others_settings_alone() {
    let (without, with) = (understood(WORLD), understood(&beside("policy = \"a\"\ntemperature = 0.2")));
    assert_eq!(without.variants, with.variants[..without.variants.len()]);
    assert_ne!(without.digest(), with.digest());
}

#[test]
fn policies_that_cannot_be_decoded_or_keys_that_change_nothing_are_errors() {
    let changed = |keys: &str| {
        let text = beside(keys);
        let error = parse(&text, Path::new("toy.toml")).expect_err(keys);
        assert!(error.place.is_some(), "no place: {error}");
        format!("{error}\n\n")
    };
    let messages: String = [
        "policy = \"c\"\ntemperature = 0.5",
        "policy = \"other\"\ntemperature = 0.5",
        "policy = \"a\"",
        "policy = \"a\"\ntemperature = 0.7",
        "policy = \"a\"\ntemperature = -1",
        "policy = \"a\"\ntop_p = 1.5",
        "policy = \"a\"\ntemperature = 0\ntop_p = 0.9",
        "policy = \"a\"\ntemperature = 0.5\nbeta = 0.3",
        "checkpoint = \"tuned\"\npolicy = \"a\"",
        "temperature = 0.5",
    ]
    .map(changed)
    .concat();
    refused("policies_that_cannot_be_decoded_or_keys_that_change_nothing_are_errors", messages);
}

const REWARD: &str = "\n[[judge]]\nname = \"reward\"\nkind = \"reward_model\"\n\n[compare]\njudge = \"pairwise\"\n";

#[test]
fn the_best_of_n_has_rising_numbers_and_somebody_who_chooses() {
    let best = |text: &str| match &understood(text).variant("other").unwrap().policy {
        PolicySource::BestOfN(best) => (best.best_of_n.clone(), best.reward_model.clone(), best.most()),
        policy => panic!("{policy:?}"),
    };
    let text = beside("best_of_n = [1, 4, 16]\nreward_model = \"reward\"") + REWARD;
    assert_eq!(best(&text), (vec![1, 4, 16], "reward".to_owned(), 16));
    // Where there is one who can choose, it needn't be said.
    assert_eq!(best(&beside("best_of_n = [2]")), (vec![2], "gold".to_owned(), 2));
}

#[test]
fn choices_that_cannot_be_or_keys_that_change_nothing_are_errors() {
    let changed = |(keys, from, to): (&str, &str, &str)| {
        let text = beside(keys).replacen(from, to, 1) + REWARD;
        let error = parse(&text, Path::new("toy.toml")).expect_err(keys);
        assert!(error.place.is_some(), "no place: {error}");
        format!("{error}\n\n")
    };
    let plain = |keys| (keys, "", "");
    let messages: String = [
        plain("best_of_n = []"),
        plain("best_of_n = [0, 1]\nreward_model = \"gold\""),
        plain("best_of_n = [1, 4, 4]\nreward_model = \"gold\""),
        plain("best_of_n = [1, 4]"),
        plain("best_of_n = [1, 4]\nreward_model = \"pairwise\""),
        plain("best_of_n = [1, 4]\nreward_model = \"gold\"\nbeta = 0.1"),
        plain("best_of_n = [1, 4]\npolicy = \"a\"\ntemperature = 0.5"),
        plain("policy = \"best\"\ntemperature = 0.5\n\n[[variant]]\nname = \"best\"\nbest_of_n = [2]\nreward_model = \"gold\""),
        ("best_of_n = [1, 4]\nreward_model = \"gold\"", "temperature = 0.7", "temperature = 0"),
    ]
    .map(changed)
    .concat();
    refused("choices_that_cannot_be_or_keys_that_change_nothing_are_errors", messages);
}
