//! Options of training on the whole chain: evaluation, early ends, a reference that follows, and what stands beside the results.

use std::fs;
use std::path::Path;

use crate::support::{assert_same_files, edit, run_expecting, workplace};

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
    // The training pairs and the held-out ones, for all variants and seeds whose reference scores them before.
    assert_eq!(fs::read_dir(folder.path().join(".dpo-eval/scores")).unwrap().count(), 2);
    run_expecting(again.path(), &[&suite[..], &["--threads", "1"]].concat(), 0);
    assert_same_files(&report, &again.path().join("reports/smoke"));

    let arguments = ["train", "suites/smoke.toml", "--variant", "follows", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    let out = folder.path().join("out");
    assert_eq!((lines(&out.join("timing.jsonl")).len(), lines(&out.join("eval_log.csv")).len()), (6, 4));
    assert!(fs::read_dir(out.join("tensorboard")).unwrap().next().is_some());
}
