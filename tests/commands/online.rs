//! Training on what the policy writes, through whole commands.

use std::fs;

use crate::support::{edit, run_expecting, workplace};

/// The smoke suite with PPO against its own reward model and RLOO against gold, under one seed.
fn place() -> tempfile::TempDir {
    let folder = workplace();
    let suite = folder.path().join("suites/smoke.toml");
    edit(&suite, "seeds = [1, 2]", "seeds = [1]");
    edit(
        &suite,
        "name = \"dpo-b0.1\"\nbeta = 0.1",
        "name = \"ppo\"\nloss_type = \"ppo\"\nreward_model = \"reward\"\nnum_ppo_epochs = 2\nnum_mini_batches = 2",
    );
    edit(
        &suite,
        "name = \"dpo-b0.5\"\nbeta = 0.5",
        "name = \"rloo\"\nloss_type = \"rloo\"\nreward_model = \"gold\"\ntarget_kl = 2.0",
    );
    folder
}

#[test]
fn ppo_and_rloo_go_the_whole_way_reproduce_themselves_and_stand_in_the_report() {
    let folder = place();
    let folder = folder.path();
    let suite = ["suite", "run", "suites/smoke.toml", "--quiet"];
    run_expecting(folder, &suite, 0);
    let log = fs::read_to_string(folder.join("reports/smoke/online_log.csv")).unwrap();
    let of = |variant: &str| log.lines().filter(|line| line.starts_with(&format!("{variant},1,"))).collect::<Vec<_>>();
    assert_eq!((of("ppo").len(), of("rloo").len()), (6, 6), "{log}");
    assert!(of("ppo").iter().all(|line| !line.ends_with(',')) && of("rloo").iter().all(|line| line.ends_with(",,")), "{log}");
    // PPO's policy is a model like any other: it is evaluated at its three checkpoints, and its bits can be had again.
    let completions = fs::read_to_string(folder.join("reports/smoke/completions.csv")).unwrap();
    for step in [2, 4, 6] {
        assert!(completions.lines().any(|line| line.starts_with(&format!("ppo,1,{step},"))), "step {step}");
    }
    let repro = run_expecting(folder, &["repro", "--quiet"], 0).stdout;
    assert!(repro.contains("train/ppo/seed-1") && repro.contains("train/rloo/seed-1"), "{repro}");
    let page = fs::read_to_string(folder.join("reports/smoke/index.html")).unwrap();
    assert!(page.contains("PPO, β = 0.1, rewarded by reward") && page.contains("RLOO, β = 0.1, rewarded by gold, KL aimed at 2"));
    run_expecting(folder, &["train", "suites/smoke.toml", "--variant", "ppo", "--output", "out", "--quiet"], 0);
    assert_eq!(fs::read_to_string(folder.join("out/online_log.csv")).unwrap().lines().count(), 7);
    fs::write(folder.join("in.jsonl"), "{\"ids\": [1, 5, 9, 11]}\n").unwrap();
    run_expecting(folder, &["logps", "out/final", "in.jsonl"], 0);
}
