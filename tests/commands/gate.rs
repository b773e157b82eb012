//! The gate: golden files, verdicts, exit codes.

use std::fs;
use std::path::Path;

use crate::support::{copy_of_finished_smoke, edit, run_expecting};

fn accept(folder: &Path) {
    run_expecting(folder, &["baseline", "accept", "smoke", "--reason", "the first results of the test"], 0);
}

/// The smoke run with the truth as its judge: its own judges learn too little to be fit.
fn judged_by_gold() -> tempfile::TempDir {
    let folder = copy_of_finished_smoke();
    edit(&folder.path().join("suites/smoke.toml"), "[compare]\njudge = \"pairwise\"", "[compare]\njudge = \"gold\"");
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    folder
}

#[test]
fn a_run_passes_the_gate_of_its_own_golden() {
    let folder = judged_by_gold();
    accept(folder.path());
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--gate", "--quiet"], 0);
    assert!(ran.stdout.contains("Gate ✓ pass"), "{}", ran.stdout);
    run_expecting(folder.path(), &["gate", "smoke"], 0);
    let junit = fs::read_to_string(folder.path().join("reports/smoke/junit.xml")).unwrap();
    assert!(junit.contains("<testsuite"), "{junit}");
}

#[test]
fn a_void_win_rate_is_inconclusive_and_the_suite_says_what_that_means() {
    let folder = copy_of_finished_smoke();
    accept(folder.path());
    let arguments = ["suite", "run", "suites/smoke.toml", "--gate", "--quiet"];
    let ran = run_expecting(folder.path(), &arguments, 102);
    assert!(ran.stdout.contains("Gate ◇ inconclusive"), "{}", ran.stdout);
    edit(&folder.path().join("suites/smoke.toml"), "[gate]\n", "[gate]\non_inconclusive = \"pass\"\n");
    run_expecting(folder.path(), &arguments, 0);
}

#[test]
fn accepting_needs_a_reason_and_the_file_keeps_it() {
    let folder = copy_of_finished_smoke();
    run_expecting(folder.path(), &["baseline", "accept", "smoke", "--reason", " "], 2);
    accept(folder.path());
    let ran = run_expecting(folder.path(), &["baseline", "show", "golden/smoke.json"], 0);
    assert!(ran.stdout.contains("the first results of the test"), "{}", ran.stdout);
    let ran = run_expecting(folder.path(), &["baseline", "diff", "smoke"], 0);
    assert!(!ran.stdout.contains("changed"), "nothing changed:\n{}", ran.stdout);
}

#[test]
fn a_missing_golden_is_exit_3_before_any_work() {
    let folder = copy_of_finished_smoke();
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--gate"], 3);
    assert!(ran.stderr.contains("baseline accept"), "{}", ran.stderr);
    run_expecting(folder.path(), &["gate", "smoke"], 3);
}

#[test]
fn a_foreign_golden_is_exit_3() {
    let folder = copy_of_finished_smoke();
    accept(folder.path());
    edit(&folder.path().join("golden/smoke.json"), "\"suite\": \"smoke\"", "\"suite\": \"another\"");
    let ran = run_expecting(folder.path(), &["gate", "smoke"], 3);
    assert!(ran.stderr.contains("another"), "{}", ran.stderr);
}

#[test]
fn other_bits_under_the_same_suite_fail_the_gate_and_still_write_junit_and_summary() {
    let folder = copy_of_finished_smoke();
    accept(folder.path());
    let path = folder.path().join("golden/smoke.json");
    let mut golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let cells = golden["cells"].as_object_mut().expect("the golden file has digests of cells");
    let first = cells.values_mut().next().unwrap();
    *first = serde_json::Value::String("0".repeat(64));
    fs::write(&path, serde_json::to_string_pretty(&golden).unwrap()).unwrap();
    for name in ["junit.xml", "summary.md"] {
        fs::remove_file(folder.path().join("reports/smoke").join(name)).unwrap();
    }
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--gate", "--quiet"], 100);
    assert!(ran.stdout.to_lowercase().contains("fail"), "{}", ran.stdout);
    let junit = fs::read_to_string(folder.path().join("reports/smoke/junit.xml")).unwrap();
    assert!(junit.contains("<failure"), "{junit}");
    assert!(fs::read_to_string(folder.path().join("reports/smoke/summary.md")).unwrap().to_lowercase().contains("fail"));
}

#[test]
fn compare_pairs_two_runs_by_prompt_and_says_what_they_do_not_share() {
    let folder = judged_by_gold();
    run_expecting(folder.path(), &["report", "smoke", "--report-dir", "before"], 0);
    let ran = run_expecting(folder.path(), &["compare", "before", "smoke"], 0);
    assert!(ran.stdout.contains("equal") && !ran.stdout.contains("undecided"), "{}", ran.stdout);

    let two = ["compare", "before", "smoke", "--variant", "dpo-b0.1=dpo-b0.5"];
    let ran = run_expecting(folder.path(), &[&two[..], &["--format", "json"]].concat(), 0);
    let comparison: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(comparison["notes"].as_array().unwrap().len(), 0, "{}", comparison["notes"]);
    let rows = comparison["rows"].as_array().unwrap();
    let row = |metric: &str| rows.iter().find(|r| r["metric"] == metric).unwrap_or_else(|| panic!("no {metric}"));
    for metric in ["win_rate", "implicit_reward_margin", "kl_per_sequence", "gold_reward"] {
        let of = |field: &str| row(metric)[field].as_f64().unwrap();
        assert!((of("new") - of("old") - of("difference")).abs() < 1e-12);
        assert!(of("lower") <= of("difference") && of("difference") <= of("upper"), "{metric}");
    }
    assert_eq!(row("implicit_reward_margin")["equal"], false);

    let ran = run_expecting(folder.path(), &["compare", "before", "smoke", "--variant", "dpo-b0.1=dpo-b5"], 4);
    assert!(ran.stderr.contains("no variant `dpo-b5`"), "{}", ran.stderr);
    run_expecting(folder.path(), &["compare", "before", "smoke", "--variant", "dpo-b0.1"], 2);
    let ran = run_expecting(folder.path(), &["compare", "before", "smoke", "--format", "csv"], 0);
    assert!(ran.stdout.starts_with("old_variant,new_variant,metric,judge,old,new,difference,"), "{}", ran.stdout);

    edit(&folder.path().join("suites/smoke.toml"), "[judge.train]\nlearning_rate = 1e-3", "[judge.train]\nlearning_rate = 2e-3");
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    let ran = run_expecting(folder.path(), &["compare", "before", "smoke"], 0);
    assert!(ran.stdout.contains("! judge `pairwise` is another model in either run"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("Win rate, by pairwise") && ran.stdout.contains("Win rate, by gold"), "{}", ran.stdout);
}
