//! A judge from elsewhere: a BERT that transformers made and torch exported (`golden/judges`), in a suite.

use std::fs;
use std::path::Path;

use crate::support::{assert_same_files, copy_of_finished_smoke, edit, repository, run_expecting};

const TRAINED: &str = "[[judge]]\nname = \"reward\"\nkind = \"reward_model\"\nmin_accuracy = 0.99\n\n[judge.train]\nlearning_rate = 1e-3\nmax_steps = 6\n";

/// The finished smoke run's folder, with the BERT whose model is `onnx` in place of the reward model.
fn with_bert(onnx: &str, keys: &str) -> tempfile::TempDir {
    let folder = copy_of_finished_smoke();
    let judge = format!(
        "[[judge]]\nname = \"bert\"\nkind = \"pairwise\"\npath = \"../bert\"\nmin_accuracy = 0.99\ntemplate = [\"{{prompt}} {{a}}\", \"{{prompt}} {{b}}\"]\n{keys}"
    );
    edit(&folder.path().join("suites/smoke.toml"), TRAINED, &judge);
    let golden = repository().join("golden/judges");
    fs::create_dir(folder.path().join("bert")).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        fs::copy(golden.join("bert").join(file), folder.path().join("bert").join(file)).unwrap();
    }
    fs::copy(golden.join(onnx), folder.path().join("bert/model.onnx")).unwrap();
    folder
}

fn session(folder: &Path) -> serde_json::Value {
    let cells = fs::read_dir(folder.join(".dpo-eval/cells")).unwrap().map(|cell| cell.unwrap().path());
    let records = cells.filter_map(|cell| fs::read_to_string(cell.join("session.json")).ok());
    let values = records.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
    values.into_iter().find(|record| record["max_length"] == 48).expect("the BERT's record")
}

#[test]
fn a_quantised_judge_is_asked_one_by_one_and_the_report_says_so_whatever_the_threads() {
    let (folder, again) = (with_bert("variants/int8.onnx", ""), with_bert("variants/int8.onnx", ""));
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet", "--threads", "1"], 0);
    run_expecting(again.path(), &["suite", "run", "suites/smoke.toml", "--quiet", "--threads", "3"], 0);
    assert_same_files(&folder.path().join("reports/smoke"), &again.path().join("reports/smoke"));
    let findings = fs::read_to_string(folder.path().join("reports/smoke/findings.csv")).unwrap();
    let told = findings.lines().find(|line| line.contains("judge-batch")).expect("a finding");
    assert!(told.contains("asked one by one") && told.contains("info"), "{told}");
    let record = session(folder.path());
    assert_eq!((&record["batching"], &record["threads"], &record["provider"]), (&"alone".into(), &1.into(), &"cpu".into()));
    assert!(record["runtime_library"].as_str().is_some_and(|digest| digest.len() == 64));
    let judgments = fs::read_to_string(folder.path().join("reports/smoke/judgments.csv")).unwrap();
    assert!(judgments.lines().any(|line| line.contains("bert")));
}

#[test]
fn what_a_judge_leaves_open_is_an_error_that_names_the_key() {
    let folder = with_bert("bert/model.onnx", "");
    let config = folder.path().join("bert/config.json");
    edit(&config, "\"A\"", "\"LABEL_0\"");
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 3);
    insta::assert_snapshot!("judge_without_labels", ran.stderr);
    edit(
        &folder.path().join("suites/smoke.toml"),
        "path = \"../bert\"",
        "path = \"../bert\"\nlabels = [\"first\", \"second\", \"tie\"]",
    );
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
}
