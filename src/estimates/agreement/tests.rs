//! Measures of annotators whose agreement can be counted by hand.

use super::*;
use crate::judge::recorded::{self, Reading};

fn group(name: &str, text: &str) -> Group {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("labels.csv");
    std::fs::write(&file, text).unwrap();
    Group { name: name.to_owned(), rows: recorded::read(&file, &Reading::default()).unwrap() }
}

fn found<'a>(rows: &'a [Agreement], measure: &str, first: &str) -> &'a Agreement {
    rows.iter().find(|a| a.measure == measure && a.first == first).unwrap_or_else(|| panic!("no {measure} of {first}"))
}

fn labels(votes: &[(&str, &[f64])]) -> String {
    let mut text = "prompt_id,judge,preference\n".to_owned();
    for (judge, votes) in votes {
        for (prompt, vote) in votes.iter().enumerate() {
            text += &format!("p{prompt},{judge},{vote}\n");
        }
    }
    text
}

#[test]
fn pairs_of_annotators_agree_as_counted_by_hand() {
    let both = group("labels", &labels(&[("ann", &[1.0, 1.0, 0.0, 0.0, 1.0]), ("bob", &[1.0, 0.0, 0.0, 0.0, 0.5])]));
    let rows = agreements(&[both]);
    let percent = found(&rows, "percent", "labels (ann)");
    assert_eq!((percent.value, percent.second.as_str(), percent.items), (0.6, "labels (bob)", 5));
    // Margins 3/5 wins and 2/5 losses against 1/5, 3/5 and 1/5 ties: chance 0.6 · 0.2 + 0.4 · 0.6 = 0.36.
    assert!((found(&rows, "cohen_kappa", "labels (ann)").value - (0.6 - 0.36) / 0.64).abs() < 1e-12);
    assert!(percent.lower <= percent.value && percent.value <= percent.upper);
    assert!(rows.iter().any(|a| a.measure == "krippendorff_alpha_nominal" && a.first == "all"));
}

#[test]
fn people_are_held_against_each_other_and_others_against_their_mode() {
    let people = labels(&[("ann", &[1.0, 1.0, 0.0]), ("bob", &[1.0, 1.0, 0.0]), ("cat", &[1.0, 0.0, 0.0])]);
    let groups = [group("large", "prompt_id,preference\np0,1\np1,1\np2,1\n"), group("people", &people)];
    let rows = against_humans(&groups, 1);
    // Leave one out: all agree on p0 and p2; on p1 ann and bob each face one vote of either side, half of whose modes is theirs, and cat
    // faces two of the other.
    let expected = (1.0 + (0.5 + 0.5) / 3.0 + 1.0) / 3.0;
    assert!((found(&rows, "human_agreement", "people").value - expected).abs() < 1e-12);
    assert!((found(&rows, "bias", "large").value - 1.0 / 3.0).abs() < 1e-12);
    assert!((found(&rows, "human_agreement", "large").value - 2.0 / 3.0).abs() < 1e-12);
    assert!(rows.iter().all(|a| a.measure != "variance" || a.first == "people"), "one vote has no variance");
}

#[test]
fn what_annotators_like_is_counted_where_it_can_be_told() {
    let long = "x".repeat(50);
    let text = format!(
        "prompt_id,preference,policy_output,baseline_output,first\n\
         p0,1,\"- one\n- two {long}\",short,policy\np1,0,short,{long},policy\np2,1,short,{long},baseline\np3,1,short,shore,policy\n"
    );
    let rows = against_humans(&[group("judge", &text), group("people", "prompt_id,preference\np0,1\n")], 1);
    let like = |measure| found(&rows, measure, "judge");
    assert_eq!((like("prefers_longer").items, like("prefers_lists").items, like("prefers_first").items), (3, 1, 4));
    assert!((like("prefers_longer").value - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!((like("prefers_lists").value, like("prefers_first").value), (1.0, 0.5));
}
