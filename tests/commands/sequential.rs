//! Judging that stops when it knows enough.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::run_expecting;

/// A policy that training broke, which repeats itself and is told at once, and one that hardly moved, which nothing tells.
const SUITE: &str = r#"name = "sequential"
seeds = [1, 2]

[dataset]
kind = "world"
demonstrations = 120
vocab_size = 300
train_prompts = 12
heldout_prompts = 4
judge_prompts = 12
eval_prompts = 60

[model]
hidden_size = 24
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 192

[sft]
learning_rate = 3e-3
max_steps = 30

[train]
max_steps = 4

[[variant]]
name = "broken"
learning_rate = 0.3

[[variant]]
name = "unmoved"
learning_rate = 1e-9

[generate]
max_new_tokens = 16

[[judge]]
name = "loops"
kind = "rubric"
min_accuracy = 0
rule = [{ regex = 'er|is', per_match = true, weight = 1.0 }]

[judge.fitness]
probes = 0

[[judge]]
name = "short"
kind = "rubric"
min_accuracy = 0
rule = [{ characters = [0, 40] }]

[compare]
judge = "loops"
"#;

fn report(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("reports/sequential/report.json")).unwrap()).unwrap()
}

fn list<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    report[name].as_array().unwrap_or_else(|| panic!("no {name}")).iter().collect()
}

/// Prompts of a variant that a judge judged.
fn judged<'a>(report: &'a Value, judge: &str, variant: &str) -> BTreeSet<&'a str> {
    let own = |row: &&&Value| row["judge"] == judge && row["variant"] == variant;
    list(report, "judgments").iter().filter(own).map(|row| row["prompt_id"].as_str().unwrap()).collect()
}

fn win_rate<'a>(report: &'a Value, variant: &str, judge: &str) -> &'a Value {
    let own = |e: &&&Value| e["metric"] == "win_rate" && e["variant"] == variant && e["judge"] == judge && e["seed"].is_null();
    list(report, "estimates").into_iter().find(|e| own(&e)).unwrap()
}

#[test]
fn a_sequential_run_judges_what_it_needs_and_leaves_the_whole_run_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("sequential.toml"), SUITE).unwrap();
    let run = ["suite", "run", "sequential.toml", "--sequential"];
    let said = run_expecting(folder, &run, 0).stdout;
    let early = report(folder);
    let used = |variant: &str| {
        let row = list(&early, "sequential").into_iter().find(|row| row["variant"] == variant).unwrap();
        (row["prompts"].as_array().unwrap().len(), row["decided"].as_bool().unwrap(), row["of"].as_u64().unwrap())
    };
    assert_eq!(used("broken"), (20, true, 60));
    assert_eq!(used("unmoved"), (60, false, 60));
    assert!(said.contains("`broken` was judged on 20 of 60 prompts") || said.contains("judged on 20 of 60"), "{said}");
    for judge in ["loops", "short", "gold"] {
        assert_eq!((judged(&early, judge, "broken").len(), judged(&early, judge, "unmoved").len()), (20, 60), "{judge}");
        assert_eq!(judged(&early, judge, "broken"), judged(&early, "loops", "broken"));
        let method = win_rate(&early, "broken", judge)["method"].as_str().unwrap();
        assert!(method.contains("valid whenever a run stops"), "{judge}: {method}");
    }
    let refused = run_expecting(folder, &["baseline", "accept", "sequential", "--reason", "early"], 5);
    assert!(
        refused.stderr.contains("stopped judging early") && refused.stderr.contains("without --sequential"),
        "{}",
        refused.stderr
    );

    // The same again takes everything from the store; a whole run finds nothing of it but what judges answered.
    let before = fs::read(folder.join("reports/sequential/report.json")).unwrap();
    run_expecting(folder, &run, 0);
    assert_eq!(fs::read(folder.join("reports/sequential/report.json")).unwrap(), before);
    run_expecting(folder, &["repro", "sequential", "--cells", "evaluate/broken/seed-1"], 0);
    run_expecting(folder, &["suite", "run", "sequential.toml"], 0);
    let whole = report(folder);
    assert!(whole.get("sequential").is_none());
    assert_eq!(judged(&whole, "loops", "broken").len(), 60);
    let method = win_rate(&whole, "broken", "loops")["method"].as_str().unwrap();
    assert!(!method.contains("stops"), "{method}");
    for row in list(&early, "judgments") {
        assert!(list(&whole, "judgments").contains(&row), "the same prompts are judged the same");
    }

    // Against the golden of the whole run: the same completions, on the prompts that were judged.
    run_expecting(folder, &["baseline", "accept", "sequential", "--reason", "all prompts"], 0);
    run_expecting(folder, &[&run[..], &["--gate"]].concat(), 0);
    let gated = report(folder);
    let rows = list(&gated, "sequential");
    assert!(rows.iter().all(|row| row["compared"] == true), "{rows:?}");
    let row = gated["gate"]["rows"].as_array().unwrap().iter().find(|row| row["kind"] == "win-rate").unwrap();
    assert_eq!((row["verdict"].as_str(), row["difference"].as_f64()), (Some("pass"), Some(0.0)));
}

#[test]
fn labels_and_early_stops_do_not_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{SUITE}\n[statistics]\nlabels = \"gold\"\nlabels_share = 0.5\n");
    fs::write(folder.path().join("sequential.toml"), text).unwrap();
    let refused = run_expecting(folder.path(), &["suite", "run", "sequential.toml", "--sequential"], 2);
    assert!(refused.stderr.contains("labels correct"), "{}", refused.stderr);
}
