//! Judges of every kind, and what a suite can't ask of them.

use super::*;
use crate::suite::settings::{Combine, FitnessSettings, ImplicitReward, JudgeKind, JudgeSource, LabelSettings, RuleTest};

const KINDS: &str = r#"
[[judge]]
name = "rules"
kind = "rubric"
tie_width = 0.1

[[judge.rule]]
contains = "sorry"
ignore_case = true
weight = -1.5

[[judge.rule]]
words = [5, 60]

[[judge]]
name = "own"
kind = "implicit"
path = "policy"

[[judge]]
name = "people"
kind = "replay"
path = "labels.csv"

[[judge]]
name = "panel"
kind = "panel"
members = ["pairwise", "rules"]
combine = "majority"
[judge.fitness]
max_null_win_rate = 0.3

[compare]
judge = "pairwise"

[statistics]
labels = "people"
"#;

fn with_kinds() -> String {
    format!("{WORLD}{KINDS}")
}

#[test]
fn judges_of_every_kind_are_understood() {
    let suite = understood(&with_kinds());
    let judge = |name: &str| suite.judges.iter().find(|j| j.name == name).unwrap();
    let JudgeSource::Rubric { rules } = &judge("rules").source else { panic!("rules") };
    assert_eq!((rules[0].weight, rules[0].ignore_case, &rules[1].test), (-1.5, true, &RuleTest::Words([5, 60])));
    assert_eq!((judge("rules").kind, judge("rules").tie_width, rules[1].weight), (JudgeKind::RewardModel, 0.1, 1.0));
    let JudgeSource::Implicit(own) = &judge("own").source else { panic!("implicit") };
    assert_eq!((own.reward, own.beta, &own.reference), (ImplicitReward::LogRatio, 0.1, &None));
    let JudgeSource::Panel(panel) = &judge("panel").source else { panic!("panel") };
    assert_eq!((panel.members.len(), panel.combine), (2, Combine::Majority));
    assert_eq!(judge("panel").fitness, FitnessSettings { max_null_win_rate: 0.3, ..FitnessSettings::default() });
    assert_eq!(suite.statistics.labels, Some(LabelSettings { judge: "people".to_owned(), share: 1.0 }));
    let sums = understood(&with_kinds().replace("path = \"policy\"", "path = \"policy\"\nreward = \"avg\""));
    let JudgeSource::Implicit(own) = &sums.judges[2].source else { panic!("implicit") };
    assert_eq!((own.reward, own.beta), (ImplicitReward::Avg, 1.0));
}

#[test]
fn what_is_said_of_no_judge_changes_no_digest() {
    let plain = understood(WORLD);
    let same = understood(&format!("{WORLD}\n[judge.fitness]\nprobes = 100\nmax_filler_gain = 0.03\n"));
    assert_eq!(plain.digest(), same.digest());
    let other = understood(&format!("{WORLD}\n[judge.fitness]\nprobes = 50\n"));
    assert_ne!(plain.digest(), other.digest());
}

#[test]
fn judges_that_cannot_be_or_keys_without_effect_are_refused() {
    let changes = [
        ("kind = \"rubric\"", "kind = \"rubric\"\ntemplate = \"{a}\""),
        ("kind = \"replay\"", "kind = \"replay\"\nfitness = { probes = 3 }"),
        ("path = \"labels.csv\"\n", "\n"),
        ("contains = \"sorry\"", "contains = \"sorry\"\nregex = \"x\""),
        ("contains = \"sorry\"", "contains = \"\""),
        ("contains = \"sorry\"", "regex = \"so(rry\""),
        ("words = [5, 60]", "words = [60, 5]"),
        ("words = [5, 60]", "words = [5, 60]\nper_match = true"),
        ("words = [5, 60]", "words = [5, 60]\nweight = 0"),
        ("words = [5, 60]", "format = \"yaml\""),
        ("path = \"policy\"", "path = \"policy\"\nreward = \"sum\"\nreference = \"model\""),
        ("path = \"policy\"", "path = \"policy\"\nbeta = 0"),
        ("[\"pairwise\", \"rules\"]", "[\"pairwise\"]"),
        ("[\"pairwise\", \"rules\"]", "[\"pairwise\", \"rulse\"]"),
        ("[\"pairwise\", \"rules\"]", "[\"pairwise\", \"pairwise\"]"),
        ("[\"pairwise\", \"rules\"]", "[\"pairwise\", \"panel\"]"),
        ("combine = \"majority\"", "combine = \"majority\"\ntie_width = 0.2"),
        ("max_null_win_rate = 0.3", "max_null_win_rate = 1.3"),
        ("max_null_win_rate = 0.3", "max_null_win_rate = 0.3\nprobes = 0"),
        ("labels = \"people\"", "labels = \"folks\""),
        ("labels = \"people\"", "labels = \"pairwise\""),
        ("labels = \"people\"", "labels = \"gold\""),
        ("labels = \"people\"", "labels_share = 0.5"),
        ("labels = \"people\"", "labels = \"people\"\nlabels_share = 0"),
    ];
    let text = with_kinds();
    refused("judges_that_cannot_be_or_keys_without_effect_are_refused", refusals(&text, &changes));
}
