use std::path::Path;

use super::control::{Control, Join, Prepared, RIDGE};
use super::*;
use crate::judge::recorded::{Reading, read};
use crate::statistics::mean::{Clustered, Range, mean};

fn subjects_of(name: &str, text: &str, choice: &Choice, merge: bool) -> crate::Result<Vec<Subject>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    subjects::subjects(Path::new(name), read(&path, &Reading::default())?, choice, merge)
}

fn one(name: &str, text: &str) -> Subject {
    let mut found = subjects_of(name, text, &Choice::default(), true).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

const CONTROL: Control<'static> =
    Control { difficulty: None, gamed: &[], join: Join::Instruction, resamples: 200, seed: 0, level: 0.95 };

fn vectors(name: &str) -> Option<serde_json::Value> {
    let path = format!("{}/../shared/reference/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: {path} is absent");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
}

#[test]
fn both_orders_of_a_prompt_are_one_item() {
    let text = "prompt_id,first,preference\nq1,policy,0.9\nq1,baseline,0.5\nq2,policy,0.2\nq2,baseline,0.6\n";
    let subject = one("l.csv", text);
    let found = rates::win_rate("l.csv", &subject, 0.95).unwrap();
    close(found.measure("win_rate").unwrap().value, 55.0, 1e-12);
    assert_eq!((found.fact("n_total"), found.fact("prompts")), (Some(2.0), Some(2.0)));
    // ((0.9 + 1 − 0.5 − 1) / 2 + (0.2 + 1 − 0.6 − 1) / 2) / 2, in points.
    close(found.measure("position_effect").unwrap().value, 100.0 * (0.2 - 0.2) / 2.0, 1e-12);
    assert_eq!(["n_wins", "n_wins_base", "n_draws"].map(|n| found.measure(n).unwrap().value), [1.0, 1.0, 0.0]);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

#[test]
fn one_order_alone_is_said_and_half_a_pair_of_orders_does_not_count() {
    let text = "prompt_id,first,preference\nq1,policy,0.9\nq2,policy,0.2\nq2,baseline,\nq3,baseline,0.4\n";
    let found = rates::win_rate("l.csv", &one("l.csv", text), 0.95).unwrap();
    close(found.measure("win_rate").unwrap().value, 65.0, 1e-12);
    assert_eq!(found.fact("unreadable"), Some(1.0));
    assert!(found.notes.iter().any(|n| n.contains("2 items were judged in one order alone (1 with the policy first)")));
}

#[test]
fn several_raters_and_samples_of_a_prompt_are_one_cluster() {
    let text = "prompt_id,sample,preference\nq1,0,1\nq1,1,0\nq2,0,1\nq2,1,1\nq3,0,0.5\n";
    let found = rates::win_rate("l.csv", &one("l.csv", text), 0.95).unwrap();
    let values = [("q1", 1.0), ("q1", 0.0), ("q2", 1.0), ("q2", 1.0), ("q3", 0.5)];
    let expected = mean(&Clustered::new(values), Range::UNIT, 0.95).unwrap();
    let win_rate = found.measure("win_rate").unwrap();
    close(win_rate.lower, 100.0 * expected.interval.lower, 1e-12);
    assert_eq!((found.fact("n_total"), found.fact("prompts")), (Some(5.0), Some(3.0)));
}

#[test]
fn arena_hard_by_prompt_and_as_published_meet_the_reference() {
    let Some(vectors) = vectors("arena_hard") else { return };
    let games = vectors["games_g1_baselineIsA__g2_modelIsA"].as_array().unwrap().iter().enumerate();
    let line = |(i, g): (usize, &serde_json::Value)| {
        format!(r#"{{"uid": "{i}", "model": "m", "games": [{{"score": {}}}, {{"score": {}}}]}}"#, g[0], g[1])
    };
    let subject = one("m.jsonl", &games.map(line).collect::<Vec<_>>().join("\n"));
    let number = |name: &str| vectors[name].as_f64().unwrap();
    let ours = rates::win_rate("m.jsonl", &subject, 0.95).unwrap();
    close(ours.measure("win_rate").unwrap().value, 100.0 * number("win_rate_per_prompt_mean"), 1e-9);
    let published = Compat::ArenaHard.win_rate("m.jsonl", &subject, &CONTROL).unwrap();
    close(published.measure("win_rate").unwrap().value, 100.0 * number("win_rate_exploded"), 1e-9);
    close(published.fact("standard_error").unwrap(), 100.0 * number("naive_sem_exploded"), 1e-9);
    assert_eq!(published.fact("n_verdicts"), Some(number("n_exploded")));
    let exploded = |of: &Subject| -> Vec<(String, f64)> {
        let each = of.items.iter().flat_map(|i| i.verdicts.iter().map(move |v| (i.prompt_id.clone(), *v)));
        each.flat_map(|(prompt, (p, strength))| vec![(prompt, p.unwrap()); strength as usize]).collect()
    };
    // statsmodels' factor is (n − 1) / (n − k) = 1 here, Miller's none: both differ from ours by C / (C − 1) alone.
    let error = Clustered::new(exploded(&subject)).standard_error().unwrap();
    let ratio = error / number("prompt_clustered_se_exploded");
    assert!((ratio - 1.0).abs() < 1e-9 || (ratio - (6.0f64 / 5.0).sqrt()).abs() < 1e-9, "{ratio}");
}

#[test]
fn mt_bench_orders_that_disagree_are_a_tie_as_published() {
    let Some(vectors) = vectors("position_bias") else { return };
    let numbers = |name: &str| vectors[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let (a_first, b_first) = (numbers("p_first_when_A_first"), numbers("p_first_when_B_first"));
    let winner = |a_wins: bool| if a_wins { "model_1" } else { "model_2" };
    let lines: Vec<String> = (0..a_first.len())
        .map(|i| {
            let (g1, g2) = (winner(a_first[i] > 0.5), winner(b_first[i] < 0.5));
            format!(
                r#"{{"question_id": {i}, "model_1": "A", "model_2": "B", "g1_winner": "{g1}", "g2_winner": "{g2}", "turn": 1}}"#
            )
        })
        .collect();
    let subject = one("pair.jsonl", &lines.join("\n"));
    let found = Compat::MtBench.win_rate("pair.jsonl", &subject, &CONTROL).unwrap();
    close(
        found.measure("win_rate_adjusted").unwrap().value,
        100.0 * vectors["mtbench_win_rate_adjusted_A"].as_f64().unwrap(),
        1e-9,
    );
    let outcomes = vectors["mtbench_outcome"].as_array().unwrap();
    let wins = outcomes.iter().filter(|o| o.as_str() == Some("A")).count() as f64;
    close(found.measure("n_wins").unwrap().value, wins, 0.0);
    close(found.measure("win_rate").unwrap().value, 100.0 * wins / outcomes.len() as f64, 1e-9);
}

#[test]
fn a_side_is_chosen_by_name_and_rows_are_turned_to_it() {
    let text = "left,right,winner\nx,y,left\ny,x,left\nx,z,tie\n";
    let choose = |policy: Option<&str>, baseline: Option<&str>| {
        let choice = Choice { policy: policy.map(str::to_owned), baseline: baseline.map(str::to_owned) };
        subjects_of("c.csv", text, &choice, true)
    };
    let found = choose(Some("y"), Some("x")).unwrap();
    assert_eq!(found[0].items.iter().map(|i| i.preference).collect::<Vec<_>>(), [Some(0.0), Some(1.0)]);
    let errors = [choose(None, None), choose(Some("w"), None), choose(Some("x"), None), choose(Some("y"), Some("z"))];
    let shown: Vec<String> = errors.into_iter().map(|e| e.unwrap_err().to_string()).collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

fn lengths(preferences: &[f64], gains: &[f64]) -> String {
    let rows = preferences.iter().zip(gains).enumerate();
    let row = |(i, (p, gain)): (usize, (&f64, &f64))| format!("q{i},{p},{},100\n", 100.0 + gain);
    format!("prompt_id,preference,policy_length,baseline_length\n{}", rows.map(row).collect::<String>())
}

#[test]
fn the_interval_of_a_length_controlled_win_rate_holds_the_point_and_has_width() {
    let preferences: Vec<f64> = (0..40).map(|i| f64::from(i % 7) / 6.0).collect();
    let gains: Vec<f64> = (0..40).map(|i| f64::from(i % 7) * 20.0 - 30.0).collect();
    let subject = one("l.csv", &lengths(&preferences, &gains));
    let mut found = rates::win_rate("l.csv", &subject, 0.95).unwrap();
    control::add(&mut found, &subject, &CONTROL).unwrap();
    let controlled = found.measure("length_controlled_winrate").unwrap();
    assert!(controlled.lower < controlled.value && controlled.value < controlled.upper, "{controlled:?}");
    assert!(controlled.value < found.measure("win_rate").unwrap().value);
    // Where every prompt says the same, so does every resample; the interval then rests on the number of prompts.
    let subject = one("l.csv", &lengths(&[1.0; 30], &gains));
    let mut found = rates::win_rate("l.csv", &subject, 0.95).unwrap();
    control::add(&mut found, &subject, &CONTROL).unwrap();
    let controlled = found.measure("length_controlled_winrate").unwrap();
    assert!(controlled.value > 99.9 && controlled.lower < 95.0, "{controlled:?}");
}

#[test]
fn a_policy_differs_from_itself_by_nothing_and_from_its_mirror_by_twice_its_lead() {
    let preferences: Vec<f64> = (0..30).map(|i| f64::from(i % 5) / 5.0).collect();
    let gains: Vec<f64> = (0..30).map(|i| f64::from(i % 11) * 10.0).collect();
    let subject = one("l.csv", &lengths(&preferences, &gains));
    let compared = |other: &Subject| {
        compare::difference(["a", "b"], [&subject, other], Some([RIDGE; 2]), &CONTROL).unwrap().unwrap().measures
    };
    for measure in compared(&subject) {
        assert!(measure.value == 0.0 && measure.lower <= 0.0 && measure.upper >= 0.0, "{measure:?}");
    }
    let mirror: Vec<f64> = preferences.iter().map(|p| 1.0 - p).collect();
    let mirror = one("l.csv", &lengths(&mirror, &gains));
    let mean = preferences.iter().sum::<f64>() / 30.0;
    close(compared(&mirror)[0].value, 100.0 * (2.0 * mean - 1.0), 1e-9);
    let prepared = Prepared::lengths("l.csv", &subject, &CONTROL).unwrap().unwrap();
    assert_eq!(prepared.fitted(RIDGE, &CONTROL).unwrap().draws.len(), 200);
}

#[test]
fn prompts_that_agree_have_a_standard_error_all_the_same() {
    for preference in ["0.3", "0.5", "1"] {
        let text: String = (0..12).map(|i| format!("q{i},{preference}\n")).collect();
        let found = rates::win_rate("l.csv", &one("l.csv", &format!("prompt_id,preference\n{text}")), 0.95).unwrap();
        let win_rate = found.measure("win_rate").unwrap();
        close(win_rate.value, 100.0 * preference.parse::<f64>().unwrap(), 1e-9);
        let error = found.fact("standard_error").unwrap();
        close(2.0 * 1.959_963_984_540_054 * error, win_rate.upper - win_rate.lower, 1e-9);
        assert!(error > 1.0, "{preference}: {error}");
    }
}
