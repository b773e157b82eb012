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
