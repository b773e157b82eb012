//! Fitness of made-up judges whose numbers are known.

use super::*;
use crate::estimates::find;
use crate::estimates::summary::fixture::{judgment, trial};
use crate::statistics::agreement::{Confusion, Weights};
use crate::statistics::krippendorff::Reliability;

fn scheme<'a>() -> Scheme<'a> {
    Scheme { level: 0.95, seed: 1, ..Scheme::default() }
}

fn of<'a>(made: &'a [Estimate], metric: &str) -> &'a Estimate {
    find(made, metric, "", None, None, Some("j")).unwrap_or_else(|| panic!("no {metric}"))
}

#[test]
fn a_judge_is_measured_in_both_directions_so_that_no_side_is_the_positive_one() {
    // 45 of 60 right, as sure as 0.8 where right and 0.7 where wrong.
    let trials: Vec<JudgeTrial> = (0..60).map(|p| trial("j", p, if p < 45 { 0.8 } else { 0.3 })).collect();
    let made = estimates(&Evidence { judge_trials: &trials, ..Evidence::default() }, &scheme());
    let loss = -(45.0 * 0.8f64.ln() + 15.0 * 0.3f64.ln()) / 60.0;
    assert!((of(&made, "judge_log_loss").value - loss).abs() < 1e-12);
    // Two classes of equal size on both sides: κ = 2 · accuracy − 1, and α is κ with the small-sample factor.
    assert!((of(&made, "judge_kappa").value - 0.5).abs() < 1e-12);
    let alpha = 1.0 - (240.0 - 1.0) / 240.0 * 0.25 / 0.5;
    assert!((of(&made, "judge_alpha").value - alpha).abs() < 1e-12);
    // Bins (0.7, 0.8] and its mirror: stated 0.8, right always; (0.6, 0.7]: stated 0.7, never right; 15 of 60.
    assert!((of(&made, "judge_ece").value - (0.75 * 0.2 + 0.25 * 0.7)).abs() < 1e-9);
    // Scores of the better sides 45 × 0.8, 15 × 0.3 against 45 × 0.2, 15 × 0.7: P(better above worse).
    let auc = (45.0 * 60.0 + 15.0 * 45.0) / 3600.0;
    assert!((of(&made, "judge_auc").value - auc).abs() < 1e-12);
    let bins: Vec<(&str, f64, usize)> =
        made.iter().filter(|e| e.metric == "judge_reliability").map(|e| (e.slice.as_deref().unwrap(), e.value, e.n)).collect();
    assert_eq!(bins, [("stated 0.6 to 0.7", 0.0, 15), ("stated 0.7 to 0.8", 1.0, 45)]);
    let few = estimates(&Evidence { judge_trials: &trials[..49], ..Evidence::default() }, &scheme());
    assert!(find(&few, "judge_ece", "", None, None, Some("j")).is_none(), "49 prompts are too few for ten bins");
}

#[test]
fn counts_give_the_coefficients_that_ratings_one_by_one_give() {
    let said: Vec<(usize, usize)> = (0..50).map(|i| (i * i % 3, (i * 7 / 5) % 3)).collect();
    let mut counts = [0.0; 9];
    said.iter().for_each(|(a, b)| counts[3 * a + b] += 1.0);
    let ratings: Vec<Vec<f64>> = said.iter().map(|(a, b)| vec![*a as f64, *b as f64]).collect();
    assert!((alpha(&counts) - Reliability::new(&ratings, Metric::Nominal).alpha().unwrap()).abs() < 1e-12);
    let (first, second): (Vec<usize>, Vec<usize>) = said.into_iter().unzip();
    let cohen = Confusion::new(&first, &second, 3).cohen(Weights::Nominal).unwrap();
    assert!((kappa(&counts) - cohen.value).abs() < 1e-12);
}

#[test]
fn length_bias_is_what_length_is_worth_where_it_says_nothing_of_quality() {
    let trials = |likes_longer: f64, errs: bool| -> Vec<JudgeTrial> {
        let row = |p: usize| {
            let mut row = trial("j", p, 0.5);
            row.length_difference = if p.is_multiple_of(4) { -60 } else { 60 };
            // Three of four better sides are longer. Where it errs, it errs in one of five, whatever is longer.
            let errs = errs && (p / 4).is_multiple_of(5);
            let right = if errs { -0.1 } else { 0.1 };
            row.preference = 0.5 + right + likes_longer * f64::from(row.length_difference.signum() as i32);
            row
        };
        (0..40).map(row).collect()
    };
    let bias = |rows: &[JudgeTrial]| {
        let made = estimates(&Evidence { judge_trials: rows, ..Evidence::default() }, &scheme());
        of(&made, "judge_length_bias").value
    };
    let same = bias(&trials(0.0, true));
    assert!(same.abs() < 1e-12, "as often right whatever the length, though it prefers the longer side in most: {same}");
    assert_eq!(bias(&trials(0.2, false)), 0.5, "always the longer");
    let never_wrong = trials(0.0, false);
    let made = estimates(&Evidence { judge_trials: &never_wrong, ..Evidence::default() }, &scheme());
    assert!(find(&made, "judge_length_bias", "", None, None, Some("j")).is_none(), "nothing that length could explain");
    let rows = trials(0.2, false);
    let made = estimates(&Evidence { judge_trials: &rows, ..Evidence::default() }, &scheme());
    let slices: Vec<&Estimate> = made.iter().filter(|e| e.metric == "judge_longer_preference").collect();
    assert_eq!((slices.len(), slices[0].slice.as_deref(), slices[0].n), (1, Some("lengths further apart"), 40));
}

fn probe(judge: &str, probe: Probe, prompt: usize, preference: f64) -> JudgeProbe {
    JudgeProbe {
        judge: judge.to_owned(),
        probe,
        prompt_id: format!("p{prompt:03}"),
        preference,
        outcome: Outcome::Tie,
        position_effect: Some(0.4),
        length_difference: 10,
        truncated: false,
    }
}

#[test]
fn probes_are_win_rates_gains_and_distances_and_gold_says_what_a_constant_deserves() {
    let mut rows = Vec::new();
    for prompt in 0..10 {
        rows.push(probe("j", Probe::Null, prompt, 0.4));
        rows.push(probe("j", Probe::Filler, prompt, 0.55));
        rows.push(probe("j", Probe::Identical, prompt, 0.5));
        rows.push(probe(GOLD, Probe::Null, prompt, f64::from(u8::from(prompt < 3))));
    }
    let made = estimates(&Evidence { judge_probes: &rows, ..Evidence::default() }, &scheme());
    assert!((of(&made, "probe_null_win_rate").value - 0.4).abs() < 1e-12);
    assert!((of(&made, "probe_null_excess").value - 0.1).abs() < 1e-12);
    assert!((of(&made, "probe_filler_gain").value - 0.05).abs() < 1e-12);
    assert_eq!(of(&made, "probe_identical_bias").value, 0.0);
    // σ(0.4) − ½: what the first place alone is worth.
    assert!((of(&made, "probe_identical_position").value - 0.098_687_660_112_452_3).abs() < 1e-12);
    assert!(find(&made, "probe_null_excess", "", None, None, Some(GOLD)).is_none());
}

#[test]
fn labels_correct_a_judge_that_is_wrong_everywhere_alike() {
    // The judge gives 0.2 too much throughout; a quarter of the prompts are labelled.
    let truth = |p: usize| f64::from(u8::from(p.is_multiple_of(2)));
    let mut rows = Vec::new();
    for p in 0..200 {
        rows.push(judgment("j", "dpo", 1, 10, p, 0.3 + 0.4 * truth(p) + 0.2));
        rows.push(judgment(GOLD, "dpo", 1, 10, p, truth(p)));
    }
    let labelled = Scheme { labels: Some((GOLD, 0.25)), ..scheme() };
    let made = estimates(&Evidence { judgments: &rows, ..Evidence::default() }, &labelled);
    let corrected = find(&made, "win_rate_corrected", "dpo", Some(10), None, Some("j")).unwrap();
    assert!(corrected.lower < 0.5 && 0.5 < corrected.upper, "{corrected:?}");
    assert!(corrected.method.contains("50 labels of 50 prompts by gold"), "{}", corrected.method);
    assert_eq!((corrected.n, corrected.clusters), (200, 200));
    assert!(find(&made, "win_rate_corrected", "dpo", Some(10), None, Some(GOLD)).is_none(), "labels don't correct themselves");
    let again = estimates(&Evidence { judgments: &rows, ..Evidence::default() }, &labelled);
    assert_eq!(made, again);
}

#[test]
fn a_panel_of_one_mind_agrees_fully_and_of_two_minds_not_at_all() {
    let rows = |same: bool| -> Vec<Judgment> {
        let of = |p: usize| {
            let wins = p.is_multiple_of(2);
            let other = if same { wins } else { p % 4 < 2 };
            [("a", wins), ("b", other)].map(|(judge, w)| judgment(judge, "dpo", 1, 10, p, if w { 0.9 } else { 0.1 }))
        };
        (0..40).flat_map(of).collect()
    };
    let members = ["a".to_owned(), "b".to_owned()];
    let panels = Scheme { panels: vec![("panel", &members)], ..scheme() };
    let alpha = |rows: &[Judgment]| {
        let made = estimates(&Evidence { judgments: rows, ..Evidence::default() }, &panels);
        find(&made, "panel_alpha", "dpo", Some(10), None, Some("panel")).unwrap().value
    };
    assert_eq!(alpha(&rows(true)), 1.0);
    assert!(alpha(&rows(false)).abs() < 0.05);
}
