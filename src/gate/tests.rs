use std::path::Path;

use super::*;
use crate::checks::{Answer, Conclusion, Finding, Severity};
use crate::digest::Digest;
use crate::error::Kind;
use crate::estimates::summary::fixture::{completion, judgment};
use crate::estimates::summary::{Evidence, summarise};
use crate::estimates::{Estimate, find};
use crate::report::Verdict;
use crate::report::{CellRow, GateReport, ReportData, SuiteInfo};
use crate::rng::Stream;
use crate::suite::settings::GateSettings;
use crate::suite::settings::{Numerics, OnInconclusive};
use crate::train::TrainStep;
use crate::train::chain::Abridged;

const MARGIN: f64 = 0.05;

fn settings() -> GateSettings {
    GateSettings {
        golden: Path::new("golden").join("test.json"),
        margin: MARGIN,
        curve_tolerance: 0.01,
        on_inconclusive: OnInconclusive::Fail,
    }
}

fn step(step: u64, loss: f64) -> TrainStep {
    TrainStep {
        variant: "dpo".to_owned(),
        seed: 1,
        step,
        epoch: 0.0,
        loss,
        rewards_chosen: Some(0.0),
        rewards_rejected: Some(0.0),
        rewards_margins: Some(1.0 - loss),
        rewards_accuracies: Some(0.5),
        rewards_ties: Some(0.0),
        logps_chosen: Some(0.0),
        logps_rejected: Some(0.0),
        logps_chosen_fell: Some(0.0),
        kl_chosen: Some(0.0),
        kl_rejected: Some(0.0),
        kl: None,
        nll_loss: None,
        log_odds_ratio: None,
        log_odds_chosen: None,
        logits_chosen: Some(0.0),
        logits_rejected: Some(0.0),
        entropy: 0.0,
        grad_norm: 0.0,
        learning_rate: 0.0,
        num_tokens: 0,
    }
}

fn conclusion(win_rate: &Estimate) -> Conclusion {
    Conclusion {
        variant: "dpo".to_owned(),
        answer: if win_rate.lower > 0.5 { Answer::Better } else { Answer::Undecided },
        win_rate: win_rate.clone(),
        gold_win_rate: None,
        sentence: String::new(),
        prompts_needed: None,
    }
}

/// `steps` links that are those of `run` from step `from` on and the same in every run before.
fn chain(steps: u64, run: u64, from: u64) -> Abridged {
    let link = |step| Digest::of_value(&(step, if step < from { 0 } else { run }));
    let short: Vec<String> = (1..=steps).map(|step| link(step).to_string()[..8].to_owned()).collect();
    Abridged { last: link(steps), links: short.join(" ") }
}

/// A run of one variant: each prompt has a difficulty of its own, shared by all runs; `run` draws the completions anew and
/// `shift` moves the true win rate.
fn report(prompts: usize, run: u64, shift: f64) -> ReportData {
    let mut judgments = Vec::new();
    for prompt in 0..prompts {
        let difficulty = Stream::of(0, "test/difficulty", prompt as u64).uniform();
        for (seed, sample) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            let mut noise = Stream::of(run, "test/sample", (prompt as u64 * 4 + seed) * 4 + u64::from(sample));
            let preference = (0.5 + 0.3 * difficulty + shift + 0.15 * (noise.uniform() - 0.5)).clamp(0.0, 1.0);
            let mut row = judgment("pairwise", "dpo", seed, 20, prompt, preference);
            row.sample = sample;
            judgments.push(row);
        }
    }
    // The run's number stands in the rows, as other completions would.
    let completions = (0..prompts).map(|p| completion("dpo", Some(run), 20, p, 0)).collect();
    let estimates = summarise(&Evidence { judgments: &judgments, ..Evidence::default() }, 0.95);
    let win_rate = find(&estimates, "win_rate", "dpo", Some(20), None, Some("pairwise")).unwrap();
    let cell = |id: &str, stage: &str, content: u64| CellRow {
        id: id.to_owned(),
        stage: stage.to_owned(),
        key: Digest::of_bytes(b"key"),
        output: Digest::of_value(&content),
    };
    ReportData {
        schema: 1,
        suite: SuiteInfo {
            name: "test".to_owned(),
            title: String::new(),
            description: String::new(),
            digest: Digest::of_value(&run),
            numerics: Numerics::Strict,
            variants: vec![],
        },
        judge: "pairwise".to_owned(),
        conclusions: vec![conclusion(win_rate)],
        findings: vec![],
        checks: vec![],
        humps: vec![],
        study: None,
        decodings: vec![],
        audit: vec![],
        gate: None,
        gate_settings: settings(),
        cells: vec![cell("train/dpo/seed-1", "train", run), cell("judgments/pairwise/dpo", "judgments", 99)],
        provenance: vec![],
        online_log: Vec::new(),
        eval_log: Vec::new(),
        train_log: (1..=40).map(|s| step(s, 0.7 - 0.01 * s as f64)).collect(),
        chains: [("train/dpo/seed-1".to_owned(), chain(40, run, 1))].into(),
        judged: Default::default(),
        pair_scores: vec![],
        train_scores: Vec::new(),
        opposite_scores: Vec::new(),
        similarities: Vec::new(),
        completions,
        judge_trials: vec![],
        judge_probes: vec![],
        labelled: None,
        sequential: Vec::new(),
        samples_shown: 0,
        estimates,
        judgments,
    }
}

fn gate(new: &ReportData, old: &ReportData) -> GateReport {
    compare(new, &Golden::from_report(old, "a test").unwrap(), &settings())
}

fn row<'a>(report: &'a GateReport, kind: &str) -> &'a crate::report::GateRow {
    report.rows.iter().find(|r| r.kind == kind).unwrap()
}

#[test]
fn a_run_passes_against_its_own_golden() {
    for prompts in [2, 100] {
        let run = report(prompts, 1, 0.0);
        let found = gate(&run, &run);
        assert_eq!(found.verdict, Verdict::Pass, "{:#?}", found.rows);
        assert_eq!(row(&found, "win-rate").difference, Some(0.0));
        assert!(found.rows.iter().all(|r| !r.name.starts_with("judgments")));
        assert_eq!(found.golden, "test.json");
    }
}

#[test]
fn a_policy_worse_by_more_than_the_margin_fails() {
    let found = gate(&report(100, 2, -0.1), &report(100, 1, 0.0));
    assert_eq!(found.verdict, Verdict::Fail);
    let row = row(&found, "win-rate");
    assert!(row.upper.unwrap() < -MARGIN && row.message.contains("a loss of more than 5.0 points"), "{}", row.message);
}

#[test]
fn a_better_policy_passes() {
    assert_eq!(gate(&report(100, 2, 0.1), &report(100, 1, 0.0)).verdict, Verdict::Pass);
}

#[test]
fn too_little_evidence_is_inconclusive_with_a_number() {
    let found = gate(&report(6, 2, -0.045), &report(6, 1, 0.0));
    assert_eq!(found.verdict, Verdict::Inconclusive, "{:#?}", found.rows);
    let row = row(&found, "win-rate");
    assert!(row.prompts_needed.unwrap() > 6 && row.message.contains("prompts would decide"), "{}", row.message);
}

/// How many of 200 pairs of runs whose true difference is `shift` pass and fail.
fn passed_and_failed(shift: f64) -> (usize, usize) {
    let verdicts: Vec<Verdict> =
        (0..200).map(|i| gate(&report(30, 1000 + 2 * i, shift), &report(30, 1001 + 2 * i, 0.0)).verdict).collect();
    let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
    (count(Verdict::Pass), count(Verdict::Fail))
}

#[test]
fn noise_of_the_same_process_does_not_fail() {
    let (_, failed) = passed_and_failed(0.0);
    assert!(failed <= 10, "{failed} of 200");
}

#[test]
fn at_the_margin_errors_stay_below_five_percent_either_way() {
    let (passed, failed) = passed_and_failed(-MARGIN);
    assert!(passed <= 10 && failed <= 10, "{passed} passed and {failed} failed of 200");
}

#[test]
fn other_bits_from_the_same_suite_fail_and_name_the_cell() {
    let run = report(50, 1, 0.0);
    let mut other = run.clone();
    other.cells[0].output = Digest::of_bytes(b"other");
    other.cells[1].output = Digest::of_bytes(b"other");
    let found = gate(&other, &run);
    let failed: Vec<&str> = found.rows.iter().filter(|r| r.verdict == Verdict::Fail).map(|r| r.message.as_str()).collect();
    assert_eq!(failed, ["cell `train/dpo/seed-1` gave other bits than the golden, from the same suite"]);
    other.suite.digest = Digest::of_bytes(b"changed on purpose");
    assert_eq!(gate(&other, &run).verdict, Verdict::Pass);
}

#[test]
fn a_training_with_other_bits_from_the_same_suite_fails_and_names_the_first_step() {
    let old = report(50, 1, 0.0);
    let mut new = old.clone();
    assert_eq!(row(&gate(&new, &old), "chain").verdict, Verdict::Pass);
    let mut golden = Golden::from_report(&old, "a test").unwrap();
    golden.chains = [("train/dpo/seed-1".to_owned(), chain(40, 3, 17))].into();
    new.chains = [("train/dpo/seed-1".to_owned(), chain(40, 4, 17))].into();
    let found = compare(&new, &golden, &settings());
    let chain_row = row(&found, "chain");
    assert_eq!((found.verdict, chain_row.verdict), (Verdict::Fail, Verdict::Fail));
    assert!(chain_row.message.contains("step 17 of 40"), "{}", chain_row.message);
    let lines = diff(&golden, &Golden::from_report(&new, "a test").unwrap());
    assert!(lines.iter().any(|l| l == "chain train/dpo/seed-1: 40 → 40 steps, other bits from step 17"), "{lines:#?}");
    new.chains.clear();
    assert_eq!(row(&compare(&new, &golden, &settings()), "chain").verdict, Verdict::Fail);
    // Of another suite other bits are expected.
    new.suite.digest = Digest::of_value("another");
    assert!(compare(&new, &golden, &settings()).rows.iter().all(|r| r.kind != "chain"));
}

#[test]
fn fast_runs_are_held_to_numbers_and_the_gate_says_why() {
    let mut fast = report(50, 1, 0.0);
    fast.suite.numerics = Numerics::Fast;
    assert!(Golden::from_report(&fast, "a test").unwrap().cells.is_empty());
    let mut other = fast.clone();
    other.cells.iter_mut().for_each(|c| c.output = Digest::of_bytes(b"another machine"));
    let found = gate(&other, &fast);
    assert_eq!(found.verdict, Verdict::Pass);
    let digests: Vec<&str> = found.rows.iter().filter(|r| r.kind == "digest").map(|r| r.message.as_str()).collect();
    assert_eq!(digests, Vec::<&str>::new());
    assert_eq!(
        row(&found, "numerics").message,
        "digests are not compared: fast arithmetic gives the same bits on one machine only, so numbers decide"
    );
    other.train_log[19].loss += 0.05;
    assert_eq!(row(&gate(&other, &fast), "curve").verdict, Verdict::Fail);
}

#[test]
fn a_golden_in_another_arithmetic_is_named() {
    let strict = report(50, 1, 0.0);
    let mut fast = strict.clone();
    fast.suite.numerics = Numerics::Fast;
    fast.suite.digest = Digest::of_bytes(b"the mode is part of the suite");
    for (run, golden, said) in
        [(&fast, &strict, "in strict arithmetic, this run in fast"), (&strict, &fast, "in fast arithmetic")]
    {
        let found = gate(run, golden);
        assert!(row(&found, "numerics").message.contains(said), "{}", row(&found, "numerics").message);
        assert!(!found.rows.iter().any(|r| r.kind == "curve"));
    }
    let of = |run| Golden::from_report(run, "a test").unwrap();
    assert!(diff(&of(&strict), &of(&fast)).contains(&"numerics: strict → fast".to_owned()));
}

#[test]
fn curves_must_stay_within_their_tolerance() {
    let run = report(50, 1, 0.0);
    let mut other = run.clone();
    other.train_log[19].loss += 0.005;
    assert_eq!(gate(&other, &run).verdict, Verdict::Pass);
    other.train_log[19].loss += 0.01;
    let found = gate(&other, &run);
    assert_eq!(found.verdict, Verdict::Fail);
    assert!(row(&found, "curve").message.contains("step 20"), "{}", row(&found, "curve").message);
    other.train_log[19].loss = f64::NAN;
    assert_eq!(gate(&other, &run).verdict, Verdict::Fail);
    other.train_log.truncate(30);
    assert!(row(&gate(&other, &run), "curve").message.contains("no step 40"));
}

#[test]
fn a_missing_variant_fails_and_a_new_one_is_noted() {
    let run = report(50, 1, 0.0);
    let mut other = run.clone();
    other.conclusions[0].variant = "another".to_owned();
    let found = gate(&other, &run);
    assert_eq!(found.verdict, Verdict::Fail);
    assert!(row(&found, "win-rate").message.contains("`dpo` of the golden is missing"));
    assert!(found.rows.iter().any(|r| r.verdict == Verdict::Pass && r.message.contains("`another` is new")));
}

#[test]
fn new_failures_fail_and_accepted_ones_do_not() {
    let run = report(50, 1, 0.0);
    let mut bad = run.clone();
    bad.findings = vec![Finding {
        id: "kl-budget".to_owned(),
        check: "O3".to_owned(),
        severity: Severity::Fail,
        variant: "dpo".to_owned(),
        checkpoint: Some(20),
        seed: None,
        message: String::new(),
        value: None,
        lower: None,
        upper: None,
        threshold: None,
        n: 1,
        evidence: String::new(),
        hint: String::new(),
        claim: String::new(),
    }];
    assert_eq!(gate(&bad, &run).verdict, Verdict::Fail);
    assert_eq!(gate(&bad, &bad).verdict, Verdict::Pass);
    bad.findings[0].severity = Severity::Warn;
    assert_eq!(gate(&bad, &run).verdict, Verdict::Pass);
}

#[test]
fn a_void_win_rate_another_judge_and_other_prompts_are_never_a_pass() {
    let (old, mut new) = (report(50, 1, 0.0), report(50, 2, 0.0));
    new.conclusions[0].answer = Answer::Void;
    assert_eq!(gate(&new, &old).verdict, Verdict::Inconclusive);
    new.conclusions[0].answer = Answer::Better;
    new.completions.iter_mut().for_each(|c| c.prompt.push_str(" with another text"));
    assert_eq!(gate(&new, &old).verdict, Verdict::Inconclusive);
    new.judge = "another".to_owned();
    assert!(row(&gate(&new, &old), "win-rate").message.contains("can't be compared"));
}

#[test]
fn a_golden_file_reads_back_and_a_missing_or_foreign_one_is_an_input_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.json");
    let missing = Golden::load(&path, "test").unwrap_err();
    assert_eq!(missing.kind, Kind::Input);
    assert!(missing.help.unwrap().contains("dpo-eval baseline accept"));
    let golden = Golden::from_report(&report(10, 1, 0.0), "a test").unwrap();
    std::fs::write(&path, golden.to_json()).unwrap();
    assert_eq!(Golden::load(&path, "test").unwrap(), golden);
    for (name, text) in [
        ("foreign", golden.to_json()),
        ("test", golden.to_json().replace("\"schema\": 2", "\"schema\": 0")),
        ("test", "{}".to_owned()),
        ("test", golden.to_json()[..200].to_owned()),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(Golden::load(&path, name).unwrap_err().kind, Kind::Input);
    }
    assert_eq!(Golden::from_report(&report(10, 1, 0.0), " ").unwrap_err().kind, Kind::Usage);
}

#[test]
fn a_diff_names_what_changed() {
    let of = |run, shift| Golden::from_report(&report(10, run, shift), "a test").unwrap();
    assert_eq!(diff(&of(1, 0.0), &of(1, 0.0)), Vec::<String>::new());
    let lines = diff(&of(1, 0.0), &of(2, -0.1));
    assert!(lines[0].starts_with("suite digest: "), "{lines:#?}");
    assert!(lines.iter().any(|l| l.starts_with("cell train/dpo/seed-1: ")), "{lines:#?}");
    assert!(lines.iter().any(|l| l.starts_with("variant dpo: better at checkpoint 20, win rate ")), "{lines:#?}");
}

/// A run whose judge sees 0.3 too much of what is long, and whose labels are right: a quarter of its prompts are labelled.
fn labelled_report(prompts: usize, run: u64, truth: f64, flattery: f64) -> ReportData {
    let mut data = report(prompts, run, truth + flattery);
    let noise = |prompt: usize| 0.1 * (Stream::of(run, "test/label", prompt as u64).uniform() - 0.5);
    for prompt in 0..prompts {
        let difficulty = Stream::of(0, "test/difficulty", prompt as u64).uniform();
        let preference = 0.3 + 0.3 * difficulty + truth + noise(prompt);
        data.judgments.push(judgment("people", "dpo", 1, 20, prompt, preference));
    }
    let labelled = (0..prompts).step_by(4).map(|p| format!("p{p:03}")).collect();
    data.labelled = Some(crate::report::Labelled { judge: "people".to_owned(), prompts: labelled });
    data.conclusions[0].win_rate.metric = "win_rate_corrected".to_owned();
    data
}

#[test]
fn where_labels_correct_the_win_rates_they_correct_the_difference_too() {
    // The judge likes the new run as well as the old one, while in truth it is 0.15 worse.
    let (old, new) = (labelled_report(400, 1, 0.0, 0.0), labelled_report(400, 2, -0.15, 0.15));
    let mut raw = [old.clone(), new.clone()];
    raw.iter_mut().for_each(|run| run.conclusions[0].win_rate.metric = "win_rate".to_owned());
    let uncorrected = gate(&raw[1], &raw[0]);
    assert_eq!(row(&uncorrected, "win-rate").verdict, Verdict::Pass, "{:?}", row(&uncorrected, "win-rate"));
    let found = gate(&new, &old);
    let win_rate = row(&found, "win-rate");
    assert_eq!(win_rate.verdict, Verdict::Fail, "{win_rate:?}");
    assert!(win_rate.lower.unwrap() < -0.15 && -0.15 < win_rate.upper.unwrap(), "{win_rate:?}");
    assert!(win_rate.message.contains("400 common prompts, corrected by labels"), "{}", win_rate.message);
    // With every prompt labelled the labels alone say it.
    let everyone = |mut run: ReportData| {
        run.labelled.as_mut().unwrap().prompts = (0..400).map(|p| format!("p{p:03}")).collect();
        run
    };
    let found = gate(&everyone(new), &everyone(old.clone()));
    assert_eq!(row(&found, "win-rate").verdict, Verdict::Fail);
    assert_eq!(row(&gate(&old, &old), "win-rate").difference, Some(0.0));
}

#[test]
fn corrected_win_rates_are_not_held_against_others() {
    let (plain, corrected) = (report(200, 1, 0.0), labelled_report(200, 2, 0.0, 0.0));
    for (new, old) in [(&plain, &corrected), (&corrected, &plain)] {
        let found = gate(new, old);
        let win_rate = row(&found, "win-rate");
        assert_eq!(win_rate.verdict, Verdict::Inconclusive);
        assert!(
            win_rate.message.contains("labels of `people`") && win_rate.message.contains("accept a new golden"),
            "{win_rate:?}"
        );
    }
    let text = Golden::from_report(&corrected, "a test").unwrap().to_json();
    let read: Golden = serde_json::from_str(&text).unwrap();
    assert_eq!((read.labels.as_deref(), read.variants[0].labels.len()), (Some("people"), 50));
    assert!(!Golden::from_report(&plain, "a test").unwrap().to_json().contains("\"labels\""));
}
