//! Reports in which something isn't there.

use super::*;
use crate::judge::GOLD;

pub(super) fn without_gate() -> ReportData {
    ReportData { gate: None, ..fixture::report() }
}

pub(super) fn without_gold() -> ReportData {
    let mut data = fixture::report();
    data.estimates.retain(|e| e.judge.as_deref() != Some(GOLD) && e.metric != "gold_reward" && e.slice.is_none());
    data.judgments.retain(|j| j.judge != GOLD);
    data.conclusions.iter_mut().for_each(|c| c.gold_win_rate = None);
    data.completions.iter_mut().for_each(|c| c.gold = None);
    for trial in &mut data.judge_trials {
        (trial.gold_better, trial.gold_worse) = (None, None);
    }
    data
}

/// Policies trained elsewhere: one checkpoint without a seed, and nothing that training leaves behind.
pub(super) fn trained_elsewhere() -> ReportData {
    let mut data = fixture::report();
    for variant in &mut data.suite.variants {
        (variant.seeds, variant.checkpoints) = (Vec::new(), vec![60]);
    }
    data.train_log.clear();
    data.online_log.clear();
    data.pair_scores.clear();
    data.estimates.retain(|e| e.seed.is_none() && e.checkpoint.is_none_or(|c| c == 0 || c == 60));
    data.completions.retain(|c| c.seed.is_none_or(|s| s == 11) && (c.checkpoint == 0 || c.checkpoint == 60));
    data.judgments.retain(|j| j.seed == Some(11) && j.checkpoint == 60);
    data.completions.iter_mut().for_each(|c| c.seed = None);
    data.judgments.iter_mut().for_each(|j| j.seed = None);
    data
}

pub(super) fn nearly_everything() -> ReportData {
    let mut data = trained_elsewhere();
    data.gate = None;
    data.findings.clear();
    data.judge_trials.clear();
    data.provenance.clear();
    data.cells.clear();
    data.samples_shown = 0;
    data.suite.variants.truncate(1);
    data.conclusions.truncate(1);
    data.conclusions[0].gold_win_rate = None;
    data.completions.clear();
    data.judgments.clear();
    data.estimates.clear();
    data
}

fn single_checkpoint() -> ReportData {
    let mut data = fixture::report();
    data.suite.variants.iter_mut().for_each(|v| v.checkpoints = vec![60]);
    data.estimates.retain(|e| e.checkpoint.is_none_or(|c| c == 0 || c == 60));
    data
}

#[test]
fn every_report_with_a_piece_missing_is_written_and_reads_back() {
    let mut without_trials = fixture::report();
    without_trials.judge_trials.clear();
    without_trials.estimates.retain(|e| !e.metric.starts_with("judge_"));
    let without_findings = ReportData { findings: Vec::new(), ..fixture::report() };
    let cases = [
        without_gate(),
        without_gold(),
        trained_elsewhere(),
        nearly_everything(),
        single_checkpoint(),
        without_trials,
        without_findings,
    ];
    for data in cases {
        let files = written(&data);
        assert_eq!(serde_json::from_slice::<ReportData>(&files["report.json"]).unwrap(), data);
        for width in [60, 80, 200] {
            let shown = terminal(&data, width, false);
            assert!(shown.contains(&data.conclusions[0].variant), "{shown}");
        }
    }
}

#[test]
fn without_gold_nothing_speaks_of_gold() {
    let data = ReportData { gate: None, ..without_gold() };
    let data = ReportData { suite: SuiteInfo { description: String::new(), ..data.suite.clone() }, ..data };
    assert!(!markdown::render(&data).contains("gold"));
    assert!(!terminal(&data, 80, false).contains("gold"));
}

#[test]
fn the_summary_without_a_gate_is_locked() {
    let data = without_gate();
    insta::assert_snapshot!("markdown_bare", markdown::render(&nearly_everything()));
    insta::assert_snapshot!("junit_without_gate", junit::render(&data).unwrap());
    insta::assert_snapshot!("terminal_bare_60", terminal(&nearly_everything(), 60, false));
}
