//! Policies that are decoded differently rather than trained, through whole commands.

use std::fs;
use std::path::Path;

use dpo_eval::generate::Completion;
use dpo_eval::judge::Judgment;
use serde::de::DeserializeOwned;

use crate::support::{edit, run_expecting, workplace};

/// The smoke suite under one seed, two samples a prompt, with these variants in place of its second one.
fn place(variants: &str) -> tempfile::TempDir {
    let folder = workplace();
    let suite = folder.path().join("suites/smoke.toml");
    edit(&suite, "seeds = [1, 2]", "seeds = [1]");
    edit(&suite, "max_new_tokens = 24", "max_new_tokens = 24\nsamples_per_prompt = 2");
    edit(&suite, "[[variant]]\nname = \"dpo-b0.5\"\nbeta = 0.5\n", variants);
    // The truth judges: judges this small are unfit, and their win rates void.
    edit(&suite, "[compare]\njudge = \"pairwise\"", "[compare]\njudge = \"gold\"");
    folder
}

/// The rows of a name in the report.
fn rows<T: DeserializeOwned>(folder: &Path, name: &str) -> Vec<T> {
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("reports/smoke/report.json")).unwrap()).unwrap();
    serde_json::from_value(report[name].clone()).unwrap()
}

fn completions(folder: &Path, variant: &str) -> Vec<Completion> {
    let mut all: Vec<Completion> = rows(folder, "completions");
    all.retain(|c| c.variant == variant);
    all
}

/// What every kind of variant must do beside being run: be planned, repeated, held against a golden file, compared with itself.
fn goes_the_whole_way(folder: &Path, cells: &[&str]) {
    let suite = "suites/smoke.toml";
    run_expecting(folder, &["suite", "run", suite, "--quiet"], 0);
    let plan = run_expecting(folder, &["suite", "plan", suite], 0).stdout;
    let repro = run_expecting(folder, &["repro", "--quiet"], 0).stdout;
    for cell in cells {
        assert!(plan.contains(cell) && repro.contains(cell), "{cell}\n{plan}\n{repro}");
    }
    run_expecting(folder, &["baseline", "accept", "smoke", "--reason", "a test"], 0);
    run_expecting(folder, &["suite", "run", suite, "--quiet", "--gate"], 0);
    run_expecting(folder, &["compare", "smoke", "smoke"], 0);
    run_expecting(folder, &["report", "smoke", "--report-dir", "again"], 0);
    run_expecting(folder, &["suite", "run", suite, "--quiet", "--sequential", "--report-dir", "sooner"], 0);
}

const DECODED: &str = r#"
[[variant]]
name = "greedy"
policy = "dpo-b0.1"
temperature = 0

[[variant]]
name = "all-tokens"
policy = "dpo-b0.1"
top_k = 100000

[[variant]]
name = "again"
policy = "reference"
temperature = 1.0
"#;

#[test]
fn a_policy_decoded_in_another_way_goes_the_whole_way_and_claims_nothing_that_is_not_known() {
    let folder = place(DECODED);
    let folder = folder.path();
    goes_the_whole_way(folder, &["evaluate/greedy/seed-1", "evaluate/all-tokens/seed-1", "evaluate/again/seed-1"]);
    let texts = |rows: &[Completion]| rows.iter().map(|c| c.text.clone()).collect::<Vec<_>>();
    // Samples from all tokens are samples: the random numbers are those of the policy's own.
    let mut trained = completions(folder, "dpo-b0.1");
    trained.retain(|c| c.checkpoint == 6);
    let all = completions(folder, "all-tokens");
    assert_eq!(texts(&all), texts(&trained));
    let likelihoods = |rows: &[Completion]| rows.iter().map(|c| c.reference_logp).collect::<Vec<_>>();
    assert_eq!(likelihoods(&all), likelihoods(&trained));
    let greedy = completions(folder, "greedy");
    assert_eq!(greedy.len(), trained.len());
    for c in &greedy {
        assert_eq!((c.checkpoint, c.seed), (6, Some(1)));
        assert!(c.policy_logp.is_none() && c.kl.is_none() && c.kl_k3.is_none() && c.entropy.is_none() && c.gold.is_some());
    }
    assert!(greedy.chunks(2).all(|two| two[0].text == two[1].text && [two[0].sample, two[1].sample] == [0, 1]));
    let again = completions(folder, "again");
    assert!(
        again.iter().all(|c| (c.checkpoint, c.seed) == (0, Some(1))) && texts(&again) != texts(&completions(folder, "reference"))
    );
    let read = |name: &str| fs::read_to_string(folder.join("reports/smoke").join(name)).unwrap();
    assert!(!read("estimates.csv").lines().any(|line| line.starts_with("kl_") && line.contains("greedy")));
    assert!(read("checks.csv").contains("not checked, because it has one checkpoint, the last of `dpo-b0.1`"));
    let page = read("index.html");
    assert!(page.contains("dpo-b0.1, greedy") && page.contains("reference at temperature 1"));
    let refused = run_expecting(folder, &["train", "suites/smoke.toml", "--variant", "greedy", "--output", "out"], 2);
    assert!(refused.stderr.contains("variant `greedy` is another policy decoded in another way"), "{}", refused.stderr);
}

const BEST: &str = r#"
[[variant]]
name = "best"
best_of_n = [1, 2, 8]
reward_model = "reward"

[[variant]]
name = "by-gold"
best_of_n = [1, 3, 4, 5, 6]
reward_model = "gold"

[[variant]]
name = "again"
policy = "reference"
temperature = 1.0
"#;

#[test]
fn the_best_of_n_goes_the_whole_way_and_grows_by_gold_where_gold_chooses() {
    let folder = place(BEST);
    let folder = folder.path();
    goes_the_whole_way(folder, &["evaluate/best/seed-1", "evaluate/by-gold/seed-1"]);
    let at = |variant: &str, n: u64| {
        let mut rows = completions(folder, variant);
        rows.retain(|c| c.checkpoint == n);
        rows
    };
    let texts = |rows: &[Completion]| rows.iter().map(|c| c.text.clone()).collect::<Vec<_>>();
    // Of one there is nothing to choose: it is a sample of the reference, whoever chooses.
    let again = texts(&completions(folder, "again"));
    assert_eq!(texts(&at("best", 1)), again);
    assert_eq!(texts(&at("by-gold", 1)), again);
    for (n, kl) in [(1, 0.0), (2, 2f64.ln() - 0.5), (8, 8f64.ln() - 0.875)] {
        let rows = at("best", n);
        assert_eq!(rows.len(), again.len());
        let known = |c: &Completion| (c.kl.unwrap() - kl).abs() < 1e-12 && c.policy_logp.is_none() && c.entropy.is_none();
        assert!(rows.iter().all(|c| known(c) && c.reference_logp < 0.0 && c.seed == Some(1)));
    }
    let gold: Vec<f64> = [1, 3, 4, 5, 6].iter().map(|&n| at("by-gold", n).iter().map(|c| c.gold.unwrap()).sum()).collect();
    assert!(gold.windows(2).all(|two| two[0] <= two[1]), "{gold:?}");
    // A model this small writes nothing that gold tells apart, but the reward model does, in its exported form too.
    let judged: Vec<Judgment> = rows(folder, "judgments");
    let score = |n: u64| -> f64 {
        let own = judged.iter().filter(|j| (j.judge.as_str(), j.variant.as_str(), j.checkpoint) == ("reward", "best", n));
        own.map(|j| j.score_policy.unwrap()).sum()
    };
    assert!(score(1) + 1e-3 < score(2) && score(2) + 1e-3 < score(8), "{} {} {}", score(1), score(2), score(8));
    let read = |name: &str| fs::read_to_string(folder.join("reports/smoke").join(name)).unwrap();
    let estimates = read("estimates.csv");
    assert!(estimates.lines().any(|line| line.starts_with("kl_per_sequence,best,8,")), "{estimates}");
    assert!(!estimates.lines().any(|line| line.starts_with("kl_k") && line.contains(",best,")));
    assert!(!read("pair_scores.csv").contains("best") && read("checks.csv").contains("its KL is known from n, not estimated"));
    let page = read("index.html");
    assert!(page.contains("best of 1 to 8 by reward") && page.contains("½ + d (α − β d)"));
    let refused = run_expecting(folder, &["train", "suites/smoke.toml", "--variant", "best", "--output", "out"], 2);
    assert!(refused.stderr.contains("is chosen completions of the reference"), "{}", refused.stderr);
}
