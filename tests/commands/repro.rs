//! `repro`: a finished run's cells again under other settings.

use std::fs;
use std::path::Path;

use dpo_eval::digest::Digest;

use crate::support::{copy_of_finished_smoke, edit, run_expecting};

/// Changes a file of a finished cell and makes the store believe that it was always so.
fn forge(store: &Path, cell: &str, name: &str, change: impl Fn(String) -> String) {
    let receipts = fs::read_dir(store.join("cells")).unwrap().map(|e| e.unwrap().path());
    let of_cell = |path: &Path| path.is_file() && fs::read_to_string(path).unwrap().contains(&format!("\"id\": \"{cell}\""));
    let receipt = receipts.into_iter().find(|path| of_cell(path)).unwrap();
    let file = receipt.with_extension("").join(name);
    let before = fs::read_to_string(&file).unwrap();
    let after = change(before.clone());
    assert_eq!(before.len(), after.len(), "the receipt's length must go on to hold");
    let digest = |text: &str| Digest::of_bytes(text.as_bytes()).to_string();
    let object = digest(&after);
    fs::create_dir_all(store.join("objects").join(&object[..2])).unwrap();
    fs::write(store.join("objects").join(&object[..2]).join(&object), &after).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &after).unwrap();
    edit(&receipt, &digest(&before), &object);
}

#[test]
fn a_run_is_reproduced_under_other_threads_micro_batches_and_instruction_sets() {
    let folder = copy_of_finished_smoke();
    let ran = run_expecting(folder.path(), &["repro", "--quiet"], 0);
    assert!(ran.stdout.contains("judge/pairwise") && ran.stdout.contains("same bits: 6 steps"), "{}", ran.stdout);
    assert!(ran.stdout.contains("10 cells left out") && ran.stdout.contains("scalar, "), "{}", ran.stdout);
    assert!(fs::read_dir(folder.path().join(".dpo-eval/work")).unwrap().all(|e| e.unwrap().path().is_file()), "scratch is gone");
}

#[test]
fn a_run_whose_input_was_another_is_not_reproduced_and_the_first_step_tensor_and_element_are_named() {
    let folder = copy_of_finished_smoke();
    let store = folder.path().join(".dpo-eval");
    // Two letters of one pair: the trainings that the record speaks of saw another text.
    forge(&store, "pairs", "train.jsonl", |text| text.replacen("\"chosen\":\" The", "\"chosen\":\" Teh", 1));
    let cells = ["repro", "smoke", "--cells", "train/dpo-b0.1/seed-1,judge/*"];
    let arguments = [&cells[..], &["--isa", "scalar", "--thread-counts", "1", "--micro-batches", "16"]].concat();
    let ran = run_expecting(folder.path(), &arguments, 103);
    assert!(ran.stderr.contains("1 of 3 repetitions gave other bits than run smoke-"), "{}", ran.stderr);
    for part in ["differs from step ", "is the first that differs", "after step ", "`, element ", "recorded", "found"] {
        assert!(ran.stdout.contains(part), "no `{part}` in\n{}", ran.stdout);
    }
    let ran = run_expecting(folder.path(), &[&arguments[..], &["--format", "json", "--quiet"]].concat(), 103);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let of_training = |c: &&serde_json::Value| c["cell"] == "train/dpo-b0.1/seed-1";
    let training = &value["comparisons"].as_array().unwrap().iter().find(of_training).unwrap()["difference"]["training"];
    let element = &training["weights"]["element"];
    assert!(training["step"].as_u64().unwrap() >= 1 && element["index"].is_u64(), "{training:#}");
    assert_ne!(element["expected"]["bits"], element["found"]["bits"]);
}

#[test]
fn what_cannot_be_repeated_is_refused_with_its_own_code() {
    let folder = copy_of_finished_smoke();
    run_expecting(folder.path(), &["repro", "nothing"], 4);
    let ran = run_expecting(folder.path(), &["repro", "--cells", "judgments/pairwise/*"], 4);
    assert!(ran.stderr.contains("train/dpo-b0.1/seed-1"), "{}", ran.stderr);
    let ran = run_expecting(folder.path(), &["repro", "--isa", "sse9"], 2);
    assert!(ran.stderr.contains("scalar"), "{}", ran.stderr);
    fs::remove_dir_all(folder.path().join(".dpo-eval/cells")).unwrap();
    let ran = run_expecting(folder.path(), &["repro", "smoke"], 5);
    assert!(ran.stderr.contains("dpo-eval suite run"), "{}", ran.stderr);
    fs::remove_dir_all(folder.path().join(".dpo-eval")).unwrap();
    run_expecting(folder.path(), &["repro"], 4);
    assert!(!folder.path().join(".dpo-eval").exists(), "looking makes no store");
}
