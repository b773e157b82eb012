//! Options of training on the whole chain: evaluation, early ends, a reference that follows, and what stands beside the results.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{assert_same_files, copy_of_finished_smoke, edit, repository, run_expecting, workplace};

/// The smoke suite with held-out evaluation, best weights, and a reference that follows.
fn place() -> tempfile::TempDir {
    let folder = workplace();
    let suite = folder.path().join("suites/smoke.toml");
    edit(&suite, "max_steps = 40", "max_steps = 40\neval_steps = 20");
    edit(&suite, "max_steps = 6\nsave_steps = 2", "max_steps = 6\neval_steps = 2");
    edit(
        &suite,
        "name = \"dpo-b0.5\"\nbeta = 0.5",
        "name = \"best\"\nlearning_rate = 0.05\nearly_stopping_patience = 1\nload_best_model_at_end = true\n\n[[variant]]\n\
         name = \"follows\"\nprecompute_ref_log_probs = false\nsync_ref_model = true\nref_model_sync_steps = 2",
    );
    folder
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn evaluations_best_weights_and_a_following_reference_go_the_whole_way_and_repeat_themselves() {
    let (folder, again) = (place(), place());
    let suite = ["suite", "run", "suites/smoke.toml", "--quiet"];
    run_expecting(folder.path(), &suite, 0);
    let report = folder.path().join("reports/smoke");
    let evaluations = lines(&report.join("eval_log.csv"));
    assert!(evaluations[0].starts_with("variant,seed,step,epoch,eval_loss,eval_rewards/chosen"), "{}", evaluations[0]);
    let of = |variant: &str| evaluations.iter().filter(|line| line.starts_with(&format!("{variant},1,"))).count();
    assert_eq!((of("dpo-b0.1"), of("follows")), (3, 3));
    // The learning rate is far too high, so a later evaluation is worse than an earlier one; the one checkpoint has the plan's last step.
    assert!((2..=3).contains(&of("best")), "{evaluations:#?}");
    let scores = lines(&report.join("pair_scores.csv"));
    assert!(scores.iter().filter(|line| line.starts_with("best,")).all(|line| line.split(',').nth(2) == Some("6")));
    // The training pairs, those of them that are measured, and the held-out ones, for all variants and seeds whose reference scores them
    // before.
    assert_eq!(fs::read_dir(folder.path().join(".dpo-eval/scores")).unwrap().count(), 3);
    run_expecting(again.path(), &[&suite[..], &["--threads", "1"]].concat(), 0);
    assert_same_files(&report, &again.path().join("reports/smoke"));

    let arguments = ["train", "suites/smoke.toml", "--variant", "follows", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    let out = folder.path().join("out");
    assert_eq!((lines(&out.join("timing.jsonl")).len(), lines(&out.join("eval_log.csv")).len()), (6, 4));
    assert!(fs::read_dir(out.join("tensorboard")).unwrap().next().is_some());
    assert!(!out.join("last").exists(), "final has the last weights");

    // Best and last weights are both there, each as a model.
    let arguments = ["train", "suites/smoke.toml", "--variant", "best", "--output", "best", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    let weights = |name: &str| fs::read(folder.path().join("best").join(name).join("model.safetensors")).unwrap();
    assert_ne!(weights("final"), weights("last"));
    fs::write(folder.path().join("text.jsonl"), "{\"ids\": [1, 2, 3]}\n").unwrap();
    run_expecting(folder.path(), &["logps", "best/last", "text.jsonl"], 0);
}

#[test]
fn fine_tuning_packs_demonstrations_into_bins_of_max_length_tokens() {
    let folder = workplace();
    let packed = "per_device_train_batch_size = 2\npacking = true\nmax_length = 128";
    edit(&folder.path().join("suites/smoke.toml"), "per_device_train_batch_size = 16", packed);
    let arguments = ["train", "suites/smoke.toml", "--variant", "dpo-b0.1", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    let log = found(&folder.path().join(".dpo-eval"), "sft_log.jsonl").unwrap();
    let last: serde_json::Value = serde_json::from_str(lines(&log).last().unwrap()).unwrap();
    assert_eq!(last["step"], 40);
    let a_bin = last["num_tokens"].as_f64().unwrap() / 80.0;
    assert!((110.0..=128.0).contains(&a_bin), "{a_bin} tokens a bin");
}

/// The first file of that name below a folder.
fn found(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let own = entries.iter().find(|path| path.is_file() && path.ends_with(name)).cloned();
    own.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| found(path, name)))
}

const KTO: &str = r#"seeds = [1]

[dataset]
kind = "pairs"
sampling = "sequential"
DATA

[model]
path = "out/final"

[train]
learning_rate = 1e-3
max_length = 128
max_steps = 3
eval_steps = 2

[[variant]]
name = "kto"
loss_type = "kto"

[generate]
max_new_tokens = 8

[[judge]]
name = "brought"
kind = "pairwise"
max_length = 128
path = "JUDGE"
"#;

#[test]
fn labelled_completions_that_are_the_sides_of_pairs_train_and_evaluate_as_the_pairs_do() {
    let folder = copy_of_finished_smoke();
    let at = |name: &str| folder.path().join(name);
    let model = ["train", "suites/smoke.toml", "--variant", "dpo-b0.1", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &model, 0);
    let judge = found(&at(".dpo-eval"), "model.onnx").unwrap().parent().unwrap().to_owned();
    let pairs = fs::read_to_string(repository().join("tests/readme/pairs.jsonl")).unwrap();
    let mut rows = String::new();
    for line in pairs.lines() {
        let pair: serde_json::Value = serde_json::from_str(line).unwrap();
        for (side, label) in [("chosen", true), ("rejected", false)] {
            let row = serde_json::json!({"prompt": pair["prompt"], "completion": pair[side], "label": label});
            rows += &format!("{row}\n");
        }
    }
    fs::write(at("rows.jsonl"), rows).unwrap();
    fs::write(at("pairs.jsonl"), pairs).unwrap();
    for (name, data) in
        [("paired", "path = \"pairs.jsonl\"\njudge_share = 0"), ("single", "path = \"rows.jsonl\"\nformat = \"unpaired\"")]
    {
        let suite = KTO.replace("DATA", data).replace("JUDGE", judge.to_str().unwrap());
        fs::write(at(&format!("{name}.toml")), format!("name = \"{name}\"\n{suite}")).unwrap();
        run_expecting(folder.path(), &["suite", "run", &format!("{name}.toml"), "--quiet"], 0);
    }
    for file in ["train_log.csv", "eval_log.csv", "completions.csv"] {
        assert_eq!(lines(&at("reports/paired").join(file)), lines(&at("reports/single").join(file)), "{file}");
    }
    assert!(lines(&at("reports/single/train_log.csv")).len() == 4 && lines(&at("reports/single/eval_log.csv")).len() == 3);
    // One completion has no margin.
    assert!(lines(&at("reports/paired/pair_scores.csv")).len() > 1);
    assert_eq!(lines(&at("reports/single/pair_scores.csv")).len(), 1);
    let audit = run_expecting(folder.path(), &["data", "audit", "rows.jsonl", "--layout", "unpaired"], 0).stdout;
    assert!(audit.contains("72 of 144 rows are labelled undesirable"), "{audit}");
}
