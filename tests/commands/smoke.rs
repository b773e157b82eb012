//! The whole chain on a small suite, and what it prints and leaves.

use std::fs;
use std::time::Instant;

use dpo_eval::numerics::isa;

use crate::support::{assert_same_files, copy_of_finished_smoke, dpo_eval, edit, finished_smoke, ran, run_expecting, workplace};

#[test]
fn two_clean_runs_write_the_same_bytes_whatever_the_threads() {
    let again = workplace();
    run_expecting(again.path(), &["suite", "run", "suites/smoke.toml", "--quiet", "--threads", "1"], 0);
    assert_same_files(&finished_smoke().join("reports/smoke"), &again.path().join("reports/smoke"));
}

#[test]
fn every_instruction_set_gives_the_same_training_completions_and_scores() {
    let expected = finished_smoke().join("reports/smoke");
    let fastest_first = isa::native().into_iter().rev();
    for isa in fastest_first.skip(1) {
        let folder = workplace();
        let arguments = ["suite", "run", "suites/smoke.toml", "--quiet"];
        let ran = ran(&dpo_eval(folder.path()).env("DPO_EVAL_ISA", isa.name()).args(arguments).output().unwrap());
        assert_eq!(ran.code, 0, "{isa}\n{}", ran.stderr);
        for file in ["train_log.csv", "completions.csv", "pair_scores.csv"] {
            let [a, b] = [&expected, &folder.path().join("reports/smoke")].map(|report| fs::read(report.join(file)).unwrap());
            assert!(a == b, "{file} differs under {isa}");
        }
    }
}

#[test]
fn a_changed_seed_changes_the_rows() {
    let other = workplace();
    edit(&other.path().join("suites/smoke.toml"), "seeds = [1, 2]", "seeds = [3, 2]");
    run_expecting(other.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    let log = |folder: &std::path::Path| fs::read_to_string(folder.join("reports/smoke/train_log.csv")).unwrap();
    let (a, b) = (log(finished_smoke()), log(other.path()));
    let lines = |text: &str, seed: &str| -> Vec<String> {
        text.lines().filter(|l| l.split(',').nth(1) == Some(seed) && l.starts_with("dpo")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&a, "2"), lines(&b, "2"), "a seed's run depends on nothing but itself");
    let losses = |lines: Vec<String>| lines.iter().map(|l| l.split(',').nth(4).unwrap().to_owned()).collect::<Vec<_>>();
    assert_ne!(losses(lines(&a, "1")), losses(lines(&b, "3")));
}

/// A workplace whose smoke suite computes in the fast arithmetic.
fn fast_workplace() -> tempfile::TempDir {
    let folder = workplace();
    edit(&folder.path().join("suites/smoke.toml"), "seeds = [1, 2]", "seeds = [1]\nnumerics = \"fast\"");
    folder
}

#[test]
fn the_fast_arithmetic_goes_the_whole_way_repeats_itself_and_stands_in_every_report() {
    let (folder, again) = (fast_workplace(), fast_workplace());
    let suite = ["suite", "run", "suites/smoke.toml", "--quiet"];
    let ran = run_expecting(folder.path(), &suite, 0);
    assert!(ran.stdout.contains("in fast arithmetic"), "{}", ran.stdout);
    run_expecting(again.path(), &suite, 0);
    let report = folder.path().join("reports/smoke");
    assert_same_files(&report, &again.path().join("reports/smoke"));
    for (name, said) in [
        ("report.json", "\"numerics\":\"fast\""),
        ("index.html", "in fast arithmetic"),
        ("index.html", "fast (f32, candle&#x27;s operations"),
        ("summary.md", "in fast arithmetic"),
    ] {
        let text = fs::read_to_string(report.join(name)).unwrap().replace("\": \"", "\":\"");
        assert!(text.contains(said), "{name} doesn't say {said}");
    }
    // Data are the same cell in both; what a model computes is not.
    let plan = |folder: &std::path::Path| {
        let text = run_expecting(folder, &["suite", "plan", "suites/smoke.toml", "--format", "json"], 0).stdout;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cells = value["cells"].as_array().unwrap().clone();
        move |id: &str| cells.iter().find(|c| c["id"] == id).unwrap()["key"].clone()
    };
    let (strict, fast) = (plan(finished_smoke()), plan(folder.path()));
    assert_eq!(strict("data"), fast("data"));
    for id in ["reference", "pairs", "judge/pairwise", "train/dpo-b0.1/seed-1", "evaluate/reference"] {
        assert_ne!(strict(id), fast(id), "{id}");
    }
    run_expecting(folder.path(), &["baseline", "accept", "smoke", "--reason", "a test"], 0);
    edit(&folder.path().join("suites/smoke.toml"), "[compare]\njudge = \"pairwise\"", "[compare]\njudge = \"gold\"");
    run_expecting(folder.path(), &suite, 0);
    run_expecting(folder.path(), &["baseline", "accept", "smoke", "--reason", "a test"], 0);
    let ran = run_expecting(folder.path(), &["gate", "smoke"], 0);
    assert!(ran.stdout.contains("digests are not compared"), "{}", ran.stdout);
}

#[test]
fn a_device_that_is_not_there_ends_a_run_before_any_work() {
    let folder = workplace();
    edit(&folder.path().join("suites/smoke.toml"), "seeds = [1, 2]", "seeds = [1]\ndevice = \"cuda:977\"");
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml"], 2);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("\nhelp: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("reference") && !folder.path().join("reports/smoke").exists(), "{}", ran.stderr);
    for device in ["gpu", "cuda:977"] {
        let ran = run_expecting(folder.path(), &["repro", "--device", device], 2);
        assert!(ran.stderr.contains("\nhelp: "), "{}", ran.stderr);
    }
    let doctor = run_expecting(folder.path(), &["doctor"], 0);
    assert!(doctor.stdout.contains("\nCUDA devices    "), "{}", doctor.stdout);
}

#[test]
fn a_second_run_is_served_from_the_store() {
    let folder = copy_of_finished_smoke();
    let started = Instant::now();
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml"], 0);
    assert!(started.elapsed().as_secs() < 10);
    assert!(!ran.stderr.contains("train/"), "nothing is trained again:\n{}", ran.stderr);
    assert_same_files(&finished_smoke().join("reports/smoke"), &folder.path().join("reports/smoke"));
}

#[test]
fn the_result_table_and_the_summary_are_locked() {
    let folder = copy_of_finished_smoke();
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    // Judge scores differ between CPUs in their last bits, so the locked text is the shape: every number is masked.
    insta::with_settings!({filters => vec![(r"[-−]?\d+(\.\d+)?", "#"), (r"#( *%)?", "#"), (r"─+|═+|━+", "─"), (r" +", " ")]}, {
        insta::assert_snapshot!("smoke_table", ran.stdout);
    });
}

#[test]
fn the_plan_names_every_cell_and_what_is_finished() {
    let folder = workplace();
    let ran = run_expecting(folder.path(), &["suite", "plan", "suites/smoke.toml"], 0);
    insta::with_settings!({filters => vec![(r" +\d+\.\d s", " [time]"), (r"about \d+ s on \d+ threads", "about [time]"), (r"[0-9a-f]{12}", "[key]")]}, {
        insta::assert_snapshot!("smoke_plan", ran.stdout);
    });
    let ran = run_expecting(finished_smoke(), &["suite", "plan", "suites/smoke.toml"], 0);
    assert!(!ran.stdout.contains("to run") && ran.stdout.contains(", all finished\n"), "{}", ran.stdout);
}

#[test]
fn machines_read_one_json_value_and_narrow_terminals_get_narrow_lines() {
    let folder = copy_of_finished_smoke();
    let arguments = ["suite", "run", "suites/smoke.toml", "--format", "json", "--quiet"];
    let value: serde_json::Value = serde_json::from_str(&run_expecting(folder.path(), &arguments, 0).stdout).unwrap();
    assert!(value["estimates"].as_array().unwrap().len() > 100);
    let narrow = dpo_eval(folder.path()).args(["suite", "run", "suites/smoke.toml"]).env("COLUMNS", "60").output().unwrap();
    let shown = ran(&narrow).stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn quickstart_plan_and_checks_are_locked() {
    let folder = workplace();
    let ran = run_expecting(folder.path(), &["suite", "check", "suites/quickstart.toml"], 0);
    insta::with_settings!({filters => vec![(r"digest [0-9a-f]+", "digest [digest]")]}, {
        insta::assert_snapshot!("quickstart_check", ran.stdout);
    });
}

#[test]
fn help_texts_are_locked() {
    let folder = workplace();
    for (name, arguments) in [
        ("help", vec!["--help"]),
        ("help_suite", vec!["suite", "--help"]),
        ("help_suite_run", vec!["suite", "run", "--help"]),
        ("help_baseline", vec!["baseline", "--help"]),
        ("help_train", vec!["train", "--help"]),
    ] {
        insta::assert_snapshot!(name, run_expecting(folder.path(), &arguments, 0).stdout);
    }
}

#[test]
fn one_variant_trains_by_itself_into_a_hugging_face_folder() {
    let folder = copy_of_finished_smoke();
    let arguments = ["train", "suites/smoke.toml", "--variant", "dpo-b0.1", "--seed", "2", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    let log = fs::read_to_string(folder.path().join("out/train_log.csv")).unwrap();
    assert!(log.lines().next().unwrap().contains("rewards/margins"), "{log}");
    assert_eq!(log.lines().count(), 7);
    fs::write(folder.path().join("in.jsonl"), "{\"ids\": [1, 5, 9, 11]}\n{\"prompt\": \"Review\", \"completion\": \" good\"}\n")
        .unwrap();
    let ran = run_expecting(folder.path(), &["logps", "out/final", "in.jsonl", "--format", "json"], 0);
    let first: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    let logps = first["logps"].as_array().unwrap();
    assert_eq!(logps.len(), 3);
    assert!(logps.iter().all(|l| l.as_f64().unwrap() < 0.0));
    assert_eq!(ran.stdout.lines().count(), 2);
}

#[test]
fn every_template_of_suite_init_passes_suite_check_or_names_the_missing_input() {
    let folder = workplace();
    run_expecting(folder.path(), &["suite", "init", "mine.toml", "--template", "world"], 0);
    run_expecting(folder.path(), &["suite", "check", "mine.toml"], 0);
    for template in ["pairs", "checkpoint"] {
        let file = format!("{template}.toml");
        run_expecting(folder.path(), &["suite", "init", &file, "--template", template], 0);
        let ran = run_expecting(folder.path(), &["suite", "check", &file], 3);
        assert!(ran.stderr.contains("does not exist"), "{}", ran.stderr);
    }
    let ran = run_expecting(folder.path(), &["suite", "init", "mine.toml"], 2);
    assert!(ran.stderr.contains("exists already"));
}

#[test]
fn runs_are_listed_shown_and_pruned() {
    let folder = copy_of_finished_smoke();
    let ran = run_expecting(folder.path(), &["runs", "list"], 0);
    let id = ran.stdout.split('\t').next().unwrap().to_owned();
    assert!(id.starts_with("smoke-"), "{id}");
    let ran = run_expecting(folder.path(), &["runs", "show", &id], 0);
    assert!(ran.stdout.contains("train/dpo-b0.1/seed-1"), "{}", ran.stdout);
    run_expecting(folder.path(), &["runs", "prune"], 0);
    let ran = run_expecting(folder.path(), &["suite", "plan", "suites/smoke.toml"], 0);
    assert!(ran.stdout.contains("all finished"), "a recorded run is kept:\n{}", ran.stdout);
    run_expecting(folder.path(), &["runs", "prune", "--keep", "0"], 0);
    let ran = run_expecting(folder.path(), &["suite", "plan", "suites/smoke.toml"], 0);
    assert!(ran.stdout.contains("29 to run"), "{}", ran.stdout);
}
