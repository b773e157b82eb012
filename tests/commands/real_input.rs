//! A real pretrained model and real human preferences; skipped where they are absent.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{repository, run_expecting, shared};

/// The suite of the DPO paper's settings, over a small model and one published file, with a few steps of each training.
fn small(suite: &str, model: &Path, data: &Path) -> String {
    let sources = suite.find("[[dataset.source]]").unwrap();
    let rest = suite.find("# The whole audit").unwrap();
    let source = format!("[[dataset.source]]\nname = \"harmless-base\"\npath = {data:?}\nformat = \"hh\"\nlimit = 200\n\n");
    let mut text = [&suite[..sources], &source, &suite[rest..]].concat();
    let line = text.lines().find(|line| line.starts_with("path = \"EleutherAI/")).unwrap().to_owned();
    text = text.replace(&line, &format!("path = {model:?}"));
    for (paper, here) in [
        ("heldout_share = 0.02", "heldout_share = 0.1"),
        ("judge_share = 0.1", "judge_share = 0.2"),
        ("eval_share = 0.02", "eval_share = 0.1"),
        ("eval_prompts = 256", "eval_prompts = 4"),
        ("num_train_epochs = 1", "max_steps = 3"),
        ("gradient_accumulation_steps = 16", "gradient_accumulation_steps = 1"),
        ("max_length = 512", "max_length = 384"),
        ("max_length = 768", "max_length = 384"),
        ("save_steps = 625\n", ""),
        ("max_new_tokens = 256", "max_new_tokens = 12"),
    ] {
        assert!(text.contains(paper), "{paper}");
        text = text.replace(paper, here);
    }
    text
}

#[test]
fn the_papers_suite_runs_from_human_preferences_to_a_report_on_a_pretrained_llama() {
    let (Some(model), Some(data)) = (shared("models/stories260k"), shared("data/hh-harmless-base-test.jsonl.gz")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let suite = fs::read_to_string(repository().join("suites/hh.toml")).unwrap();
    fs::write(folder.path().join("hh.toml"), small(&suite, &model, &data)).unwrap();
    run_expecting(folder.path(), &["suite", "run", "hh.toml", "--quiet"], 0);
    let report = folder.path().join("reports/hh");
    let log = fs::read_to_string(report.join("train_log.csv")).unwrap();
    assert_eq!(log.lines().count(), 4);
    // Policy equals reference before the first update: the loss is ln 2.
    let first: Vec<&str> = log.lines().nth(1).unwrap().split(',').collect();
    assert!((first[4].parse::<f64>().unwrap() - std::f64::consts::LN_2).abs() < 1e-6, "{log}");
    let page = fs::read_to_string(report.join("index.html")).unwrap();
    assert!(page.contains("implicit") && page.contains("label-noise-at-most") && page.contains("harmless-base&#x2f;rows"));
}

#[test]
fn the_audit_of_the_human_preferences_is_quick_and_complete() {
    let Some(data) = shared("data/hh-harmless-base-test.jsonl.gz") else { return };
    let folder = tempfile::tempdir().unwrap();
    let ran = run_expecting(folder.path(), &["data", "audit", data.to_str().unwrap(), "--layout", "hh", "--format", "json"], 0);
    let items: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(items.as_array().unwrap().len() > 3, "{}", ran.stdout);
    // Through a pipe that closes early.
    let piped = Command::new("sh")
        .args(["-c", &format!("'{}' data audit '{}' --layout hh | head -1", env!("CARGO_BIN_EXE_dpo-eval"), data.display())])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
}
