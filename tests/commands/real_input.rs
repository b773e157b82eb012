//! A real pretrained model and real human preferences; skipped where they are absent.

use std::fs;
use std::process::Command;

use crate::support::{run_expecting, shared};

const SUITE: &str = r#"name = "real"
title = "A real Llama on HH-RLHF"
seeds = [1]

[model]
path = "MODEL"

[dataset]
kind = "pairs"
path = "DATA"
format = "hh"
limit = 200
max_prompt_length = 256
heldout_share = 0.1
judge_share = 0.2
eval_share = 0.1
eval_prompts = 4

[train]
max_steps = 3
per_device_train_batch_size = 4
learning_rate = 1e-4
max_length = 384

[[variant]]
name = "dpo"

[generate]
max_new_tokens = 12

[[judge]]
name = "reward"
kind = "reward_model"
max_length = 384

[judge.train]
max_steps = 3
per_device_train_batch_size = 4

[compare]
judge = "reward"
"#;

#[test]
fn a_pretrained_llama_and_human_preferences_run_from_data_to_report() {
    let (Some(model), Some(data)) = (shared("models/stories260k"), shared("data/hh-harmless-base-test.jsonl.gz")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let suite = SUITE.replace("MODEL", model.to_str().unwrap()).replace("DATA", data.to_str().unwrap());
    fs::write(folder.path().join("real.toml"), suite).unwrap();
    run_expecting(folder.path(), &["suite", "run", "real.toml", "--quiet"], 0);
    let report = folder.path().join("reports/real");
    let log = fs::read_to_string(report.join("train_log.csv")).unwrap();
    assert_eq!(log.lines().count(), 4);
    // Policy equals reference before the first update: the loss is ln 2.
    let first: Vec<&str> = log.lines().nth(1).unwrap().split(',').collect();
    assert!((first[4].parse::<f64>().unwrap() - std::f64::consts::LN_2).abs() < 1e-6, "{log}");
    assert!(fs::read_to_string(report.join("index.html")).unwrap().contains("implicit"));
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
