//! Judges that fall for what no honest judge falls for.

use super::*;
use crate::estimates::judges::{Scheme, estimates};
use crate::judge::Outcome;
use crate::judge::probes::Probe;

fn probe(probe: Probe, prompt: usize, preference: f64) -> JudgeProbe {
    JudgeProbe {
        judge: "pairwise".to_owned(),
        probe,
        prompt_id: format!("p{prompt:03}"),
        preference,
        outcome: Outcome::Tie,
        position_effect: None,
        length_difference: 0,
        truncated: false,
    }
}

/// Healthy rows, and a probe whose preference is `mean` but for a little spread.
fn with(kind: Probe, mean: f64, spread: f64) -> Rows {
    let mut rows = healthy();
    rows.judge_probes = (0..60).map(|p| probe(kind, p, mean + if p % 2 == 0 { spread } else { -spread })).collect();
    rows
}

fn all(rows: &Rows, suite: &Suite) -> (Vec<(String, Severity)>, Conclusion) {
    let evidence = rows.evidence();
    let mut made = summarise(&evidence, 0.95);
    made.extend(estimates(&evidence, &Scheme { level: 0.95, seed: 1, ..Scheme::default() }));
    let found = inspect(suite, &evidence, &made, &[]).findings;
    (found.into_iter().map(|f| (f.id, f.severity)).collect(), conclude(suite, &made).remove(0))
}

#[test]
fn a_judge_that_surely_falls_for_a_probe_is_unfit_and_the_verdict_names_the_probe() {
    let cases = [
        (Probe::Null, 0.3, "judge-null", "prefers one constant text"),
        (Probe::Empty, 0.3, "judge-empty", "prefers the empty text"),
        (Probe::Filler, 0.6, "judge-filler", "last sentence is said twice"),
        (Probe::Markdown, 0.6, "judge-markdown", "dressed in Markdown"),
        (Probe::Injection, 0.6, "judge-injection", "ask to be chosen"),
        (Probe::Identical, 0.6, "judge-identical", "tells an answer from itself"),
    ];
    for (kind, preference, id, words) in cases {
        let (found, conclusion) = all(&with(kind, preference, 0.05), &suite());
        assert_eq!(found, one(id, Severity::Fail), "{kind:?}");
        assert_eq!(conclusion.answer, Answer::Void);
        assert!(conclusion.sentence.contains(words) && conclusion.sentence.contains("void"), "{}", conclusion.sentence);
    }
}

#[test]
fn a_judge_that_resists_says_nothing_and_one_that_perhaps_falls_is_warned_of() {
    for (kind, preference) in [(Probe::Null, 0.05), (Probe::Filler, 0.5), (Probe::Injection, 0.2), (Probe::Identical, 0.5)] {
        let (found, conclusion) = all(&with(kind, preference, 0.0), &suite());
        assert_eq!((found, conclusion.answer), (vec![], Answer::Better), "{kind:?}");
    }
    // 0.12 on average, but as uncertain as 60 answers of 0 or 0.24 are: the interval holds 0.1.
    let (found, conclusion) = all(&with(Probe::Null, 0.12, 0.12), &suite());
    assert_eq!((found, conclusion.answer), (one("judge-null", Severity::Warn), Answer::Better));
}

#[test]
fn the_suite_says_what_it_accepts() {
    let mut lenient = suite();
    lenient.judges[0].fitness.max_filler_gain = 0.2;
    let (found, conclusion) = all(&with(Probe::Filler, 0.6, 0.05), &lenient);
    assert_eq!((found, conclusion.answer), (vec![], Answer::Better));
}

/// Sixty held-out pairs whose longer side is as often the better one, and is preferred in a share of all; every second is of another prompt.
fn lengths(preferred: usize) -> Rows {
    let mut rows = healthy();
    let trial = |i: usize| {
        let (longer_is_better, prefers_longer) = (i.is_multiple_of(2), i * preferred / 60 != (i + 1) * preferred / 60);
        JudgeTrial {
            judge: "pairwise".to_owned(),
            pair_id: format!("length-{i}"),
            prompt_id: format!("length-{}", i / 2),
            preference: if longer_is_better == prefers_longer { 0.9 } else { 0.1 },
            position_effect: Some(0.0),
            gold_better: None,
            gold_worse: None,
            length_difference: if longer_is_better { 50 } else { -50 },
        }
    };
    rows.judge_trials = (0..60).map(trial).collect();
    rows
}

#[test]
fn a_judge_that_surely_likes_length_is_unfit_where_the_suite_asks_and_so_is_one_that_likes_brevity() {
    for (preferred, words) in [(54, "prefers the longer of two texts"), (6, "prefers the shorter of two texts")] {
        let rows = lengths(preferred);
        let mut strict = suite();
        strict.judges[0].min_accuracy = 0.0;
        let careless = all(&rows, &strict);
        assert!(careless.0.iter().all(|(id, _)| id != "judge-length") && careless.1.answer != Answer::Void);
        strict.judges[0].fitness.max_length_bias = Some(0.2);
        let (found, conclusion) = all(&rows, &strict);
        assert!(found.contains(&("judge-length".to_owned(), Severity::Fail)), "{found:?}");
        assert!(conclusion.answer == Answer::Void && conclusion.sentence.contains(words), "{}", conclusion.sentence);
        strict.judges[0].fitness.max_length_bias = Some(0.45);
        assert!(all(&rows, &strict).0.iter().all(|(id, _)| id != "judge-length"));
    }
}

#[test]
fn a_judge_that_surely_cant_read_enough_of_its_questions_is_unfit_where_the_suite_asks() {
    let mut rows = healthy();
    rows.judgments.iter_mut().filter(|j| j.judge == "pairwise").enumerate().for_each(|(i, j)| j.truncated = i % 3 == 0);
    let mut strict = suite();
    assert_eq!(all(&rows, &strict).0, []);
    strict.judges[0].fitness.max_truncated = Some(0.1);
    let (found, conclusion) = all(&rows, &strict);
    assert_eq!((found, conclusion.answer), (one("judge-truncated", Severity::Fail), Answer::Void));
    assert!(conclusion.sentence.contains("of what it is asked as a whole"), "{}", conclusion.sentence);
    strict.judges[0].fitness.max_truncated = Some(0.5);
    assert_eq!(all(&rows, &strict).0, []);
}

#[test]
fn a_constant_may_win_where_gold_says_that_it_deserves_to() {
    let mut rows = with(Probe::Null, 0.35, 0.05);
    let gold =
        |p: usize| JudgeProbe { judge: GOLD.to_owned(), ..probe(Probe::Null, p, f64::from(u8::from(p.is_multiple_of(3)))) };
    rows.judge_probes.extend((0..60).map(gold));
    assert_eq!(all(&rows, &suite()).0, []);
}

#[test]
fn an_unprobed_judge_is_told_of() {
    let mut blind = suite();
    blind.judges[0].fitness.probes = 0;
    assert_eq!(all(&healthy(), &blind).0, one("judge-unprobed", Severity::Info));
}

#[test]
fn a_win_rate_corrected_by_labels_decides_however_bad_the_judge() {
    let mut rows = healthy();
    // Always for the policy, and wrong on most labelled pairs.
    rows.judgments.iter_mut().filter(|j| j.judge == "pairwise").for_each(|j| j.preference = 0.99);
    rows.judge_trials.iter_mut().for_each(|t| t.preference = 1.0 - t.preference);
    let mut suite = suite();
    suite.statistics.labels = Some(LabelSettings { judge: GOLD.to_owned(), share: 0.5 });
    let evidence = rows.evidence();
    let mut made = summarise(&evidence, 0.95);
    assert_eq!(conclude(&suite, &made)[0].answer, Answer::Void, "nothing corrects it yet");
    made.extend(estimates(&evidence, &Scheme { level: 0.95, seed: 1, panels: vec![], labels: Some((GOLD, 0.5)) }));
    let conclusion = conclude(&suite, &made).remove(0);
    assert_eq!((conclusion.answer, conclusion.win_rate.metric.as_str()), (Answer::Better, "win_rate_corrected"));
    assert!(conclusion.win_rate.value < 0.9 && conclusion.sentence.contains("corrected by labels"), "{conclusion:?}");
}

#[test]
fn labels_of_too_few_prompts_are_told_of_and_correct_nothing() {
    let (rows, mut suite) = (healthy(), suite());
    for (share, few) in [(0.1, true), (0.5, false)] {
        suite.statistics.labels = Some(LabelSettings { judge: GOLD.to_owned(), share });
        let found = all(&rows, &suite).0;
        assert_eq!(found.contains(&("labels-few".to_owned(), Severity::Warn)), few, "{share}: {found:?}");
        let scheme = Scheme { level: 0.95, seed: 1, panels: vec![], labels: Some((GOLD, share)) };
        let made = estimates(&rows.evidence(), &scheme);
        assert_eq!(made.iter().any(|e| e.metric == "win_rate_corrected"), !few, "{share}");
    }
}

#[test]
fn a_recorded_judge_that_misses_completions_is_told_of() {
    let mut recorded = suite();
    recorded.judges[0].source = JudgeSource::Replay { path: "labels.csv".into() };
    let mut rows = healthy();
    let mut left = 100;
    rows.judgments.retain(|j| {
        j.judge != "pairwise" || {
            left -= i32::from(left > 0);
            left > 0
        }
    });
    let found = all(&rows, &recorded).0;
    assert_eq!(found, [("judge-unprobed".to_owned(), Severity::Info), ("judge-missing".to_owned(), Severity::Warn)]);
}
