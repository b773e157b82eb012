//! `[study]`: what may be compared, and what a claim needs.

use super::*;

const METHODS: &str = "
[[study.method]]
name = \"DPO\"
variants = [\"a\", \"b\"]

[[study.method]]
name = \"Other\"
variants = [\"b\"]
";

fn with_claim(claim: &str) -> String {
    format!(
        "{}{METHODS}\n[[study.claim]]\nname = \"c\"\nexpected = \"It is so.\"\nmethod = \"DPO\"\n{claim}\n",
        with_keys("beta = 0.1")
    )
}

#[test]
fn a_study_keeps_its_methods_and_claims_and_is_part_of_the_suites_digest_alone() {
    let suite = understood(&with_claim("kind = \"frontier\"\nagainst = \"Other\""));
    let study = suite.study.as_ref().unwrap();
    assert_eq!((study.method.len(), study.claim[0].against.as_deref()), (2, Some("Other")));
    let plain = understood(&with_keys("beta = 0.1"));
    assert_eq!(plain.study, None);
    assert_ne!(plain.digest(), suite.digest());
    assert_eq!(plain.variants, suite.variants);
}

#[test]
fn what_cannot_be_compared_or_decided_is_an_error_that_says_why() {
    let order = with_claim("kind = \"kl_order\"");
    let mut shown = refusals(
        &order,
        &[
            ("kind = \"kl_order\"", "kind = \"frontier\""),
            ("kind = \"kl_order\"", "kind = \"frontier\"\nagainst = \"DPO\""),
            ("kind = \"kl_order\"", "kind = \"frontier\"\nagainst = \"Othr\""),
            ("kind = \"kl_order\"", "kind = \"kl_order\"\nagainst = \"Other\""),
            ("kind = \"kl_order\"", "kind = \"kl_order\"\nmargin = 1"),
            ("kind = \"kl_order\"", "kind = \"best\""),
            ("variants = [\"a\", \"b\"]", "variants = [\"a\"]"),
            ("variants = [\"a\", \"b\"]", "variants = [\"a\", \"c\"]"),
            ("variants = [\"a\", \"b\"]", "variants = [\"a\", \"a\"]"),
            ("variants = [\"a\", \"b\"]", "variants = []"),
            ("name = \"Other\"", "name = \"DPO\""),
            ("name = \"c\"", "name = \"c c\""),
            ("It is so.", " "),
        ],
    );
    let compares = |kind: &str| with_claim(&format!("kind = \"{kind}\"\nagainst = \"Other\""));
    shown += &refusals(&compares("seed_variance"), &[("seeds = [1, 2]", "seeds = [1]")]);
    shown += &refusals(&compares("over_optimisation"), &[("[generate]", "[compare]\njudge = \"gold\"\n[generate]")]);
    let best = with_claim("kind = \"calibration\"\nagainst = \"Other\"")
        .replace("optim = \"sgd\"", "best_of_n = [1, 2]\nreward_model = \"gold\"");
    shown += &refusals(&best, &[("[\"a\", \"b\"]", "[\"a\", \"b\"]"), ("[\"a\", \"b\"]", "[\"a\"]")]);
    let decoded = order.replace("optim = \"sgd\"", "policy = \"a\"\ntemperature = 0");
    shown += &refusals(&decoded, &[("[\"a\", \"b\"]", "[\"a\", \"b\"]")]);
    shown += &refusals(&with_keys("beta = 0.1"), &[("[generate]", "[study]\n[generate]")]);
    refused("what_cannot_be_compared_or_decided_is_an_error_that_says_why", shown);
}
