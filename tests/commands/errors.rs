//! Bad input ends in a sentence with file, line and remedy, the right exit code, and nothing lost.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{assert_same_files, copy_of_finished_smoke, dpo_eval, edit, finished_smoke, ran, run_expecting, workplace};

const PAIRS_SUITE: &str = r#"name = "mine"
seeds = [1]

[model]
path = "model"

[dataset]
kind = "pairs"
path = "pairs.jsonl"
format = "explicit"
heldout_share = 0.2
judge_share = 0.3
eval_share = 0.2
eval_prompts = 4

[train]
max_steps = 2
per_device_train_batch_size = 4

[[variant]]
name = "dpo"

[generate]
max_new_tokens = 6

[[judge]]
name = "reward"
kind = "reward_model"
max_length = 256

[judge.train]
max_steps = 2
per_device_train_batch_size = 4

[compare]
judge = "reward"
"#;

/// A folder with a trained model, forty pairs, and a suite over them.
pub fn own_pairs() -> tempfile::TempDir {
    let folder = copy_of_finished_smoke();
    let arguments = ["train", "suites/smoke.toml", "--variant", "dpo-b0.1", "--output", "out", "--quiet"];
    run_expecting(folder.path(), &arguments, 0);
    fs::rename(folder.path().join("out/final"), folder.path().join("model")).unwrap();
    let pair = |i: usize| {
        format!(
            "{{\"prompt\": \"Review number {i}:\", \"chosen\": \" it is good.\", \"rejected\": \" it is bad number {i}.\"}}\n"
        )
    };
    fs::write(folder.path().join("pairs.jsonl"), (0..40).map(pair).collect::<String>()).unwrap();
    fs::write(folder.path().join("mine.toml"), PAIRS_SUITE).unwrap();
    folder
}

fn replace_line(file: &Path, number: usize, line: &str) {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().enumerate().map(|(i, old)| if i + 1 == number { line } else { old }).collect();
    fs::write(file, lines.join("\n") + "\n").unwrap();
}

#[test]
fn own_model_and_pairs_run_from_data_to_report() {
    let folder = own_pairs();
    run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 0);
    assert!(folder.path().join("reports/mine/index.html").is_file());
}

#[test]
fn an_sft_table_fine_tunes_on_the_chosen_sides_of_the_pairs() {
    let folder = own_pairs();
    edit(&folder.path().join("mine.toml"), "[train]\n", "[sft]\nmax_steps = 2\nlearning_rate = 1e-3\n\n[train]\n");
    run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 0);
}

#[test]
fn prompts_beyond_max_prompt_length_are_left_out_and_counted() {
    let folder = own_pairs();
    for line in [3, 30] {
        let pair = format!(r#"{{"prompt": "{}", "chosen": " a", "rejected": " b"}}"#, "so long a prompt ".repeat(200));
        replace_line(&folder.path().join("pairs.jsonl"), line, &pair);
    }
    edit(&folder.path().join("mine.toml"), "format = \"explicit\"\n", "format = \"explicit\"\nmax_prompt_length = 128\n");
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 0);
    assert!(ran.stdout.contains("2 of 40 pairs have prompts longer than max_prompt_length = 128"), "{}", ran.stdout);
    edit(&folder.path().join("mine.toml"), "max_prompt_length = 128", "max_prompt_length = 2");
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3);
    assert!(ran.stderr.contains("raise max_prompt_length"), "{}", ran.stderr);
}

#[test]
fn suite_mistakes_point_into_the_file() {
    let folder = workplace();
    let cases = [
        ("unknown_key", "beta = 0.5", "betta = 0.5"),
        ("wrong_type", "max_steps = 6\nsave_steps = 2", "max_steps = \"six\"\nsave_steps = 2"),
        ("out_of_range", "learning_rate = 5e-4", "learning_rate = -5e-4"),
        ("unknown_judge", "judge = \"pairwise\"\n\n[gate]", "judge = \"pair\"\n\n[gate]"),
        ("no_toml", "[model]", "[model"),
    ];
    let original = fs::read_to_string(folder.path().join("suites/smoke.toml")).unwrap();
    for (name, from, to) in cases {
        fs::write(folder.path().join("broken.toml"), &original).unwrap();
        edit(&folder.path().join("broken.toml"), from, to);
        let ran = run_expecting(folder.path(), &["suite", "run", "broken.toml"], 2);
        insta::assert_snapshot!(name, ran.stderr);
        assert!(!folder.path().join(".dpo-eval").exists(), "nothing is begun");
    }
}

#[test]
fn a_missing_suite_names_the_way_to_write_one() {
    let folder = workplace();
    insta::assert_snapshot!(run_expecting(folder.path(), &["suite", "run", "none.toml"], 3).stderr);
}

#[test]
fn a_missing_data_file_is_named() {
    let folder = own_pairs();
    fs::remove_file(folder.path().join("pairs.jsonl")).unwrap();
    insta::assert_snapshot!(run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3).stderr);
}

#[test]
fn an_empty_dataset_is_refused() {
    let folder = own_pairs();
    fs::write(folder.path().join("pairs.jsonl"), "").unwrap();
    insta::assert_snapshot!(run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3).stderr);
}

#[test]
fn a_pair_with_identical_sides_is_named_with_its_line() {
    let folder = own_pairs();
    let line = r#"{"prompt": "Review this:", "chosen": " same", "rejected": " same"}"#;
    replace_line(&folder.path().join("pairs.jsonl"), 7, line);
    insta::assert_snapshot!(run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3).stderr);
}

#[test]
fn a_line_that_is_no_pair_is_named_with_its_field() {
    let folder = own_pairs();
    replace_line(&folder.path().join("pairs.jsonl"), 12, r#"{"prompt": "Review this:", "chosen": 4, "rejected": " same"}"#);
    insta::assert_snapshot!(run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3).stderr);
}

#[test]
fn a_prompt_longer_than_the_context_is_named_with_its_length() {
    let folder = own_pairs();
    let prompt = "so long a prompt ".repeat(200);
    for line in 1..=40 {
        let pair = format!(r#"{{"prompt": "{prompt}{line}", "chosen": " a", "rejected": " b"}}"#);
        replace_line(&folder.path().join("pairs.jsonl"), line, &pair);
    }
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3);
    insta::with_settings!({filters => vec![(r"has \d+ tokens", "has [n] tokens")]}, {
        insta::assert_snapshot!("long_prompt", ran.stderr);
    });
}

#[test]
fn a_changed_artifact_is_a_digest_mismatch_that_names_the_file() {
    let folder = copy_of_finished_smoke();
    let cells = folder.path().join(".dpo-eval/cells");
    let log = fs::read_dir(cells)
        .unwrap()
        .map(|e| e.unwrap().path().join("judgments.jsonl"))
        .find(|path| path.is_file())
        .expect("a cell with judgments");
    let mut bytes = fs::read(&log).unwrap();
    let place = bytes.iter().position(|b| b.is_ascii_digit()).unwrap();
    bytes[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
    fs::write(&log, bytes).unwrap();
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 3);
    assert!(ran.stderr.contains("digest") && ran.stderr.contains("judgments.jsonl"), "{}", ran.stderr);
    let remedy = ran.stderr.split("remove ").nth(1).unwrap().split(" to make it again").next().unwrap();
    fs::remove_file(folder.path().join(remedy)).unwrap();
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet"], 0);
    assert_same_files(&finished_smoke().join("reports/smoke"), &folder.path().join("reports/smoke"));
}

#[test]
fn a_store_that_cannot_be_written_names_the_way_out() {
    let folder = workplace();
    fs::write(folder.path().join("file"), "").unwrap();
    let ran = run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--quiet", "--store", "file/store"], 3);
    assert!(ran.stderr.contains("file/store") && ran.stderr.contains("--store DIR"), "{}", ran.stderr);
}

/// Needs a mount of its own, so it runs where the user may make one in a private namespace.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_with_75_an_unwritable_one_with_3_and_the_next_run_goes_on() {
    let folder = workplace();
    let store = folder.path().join("small");
    fs::create_dir(&store).unwrap();
    let run = format!("'{}' suite run suites/smoke.toml --quiet --store small", env!("CARGO_BIN_EXE_dpo-eval"));
    let script = format!(
        "mount -t tmpfs -o size=600k tmpfs small || exit 99; {run}; code=$?; test $code = 75 || exit $code
        test ! -e reports || exit 98
        mount -o remount,ro small || exit 99; {run}; code=$?; test $code = 3 || exit $code
        mount -o remount,rw,size=64m small || exit 99; {run}"
    );
    let output =
        Command::new("unshare").args(["--map-root-user", "--mount", "sh", "-c", &script]).current_dir(folder.path()).output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no unshare(1) here");
        return;
    };
    let ran = ran(&output);
    if ran.code == 99 || ran.stderr.contains("unshare") {
        eprintln!("skipped: no private mounts here: {}", ran.stderr);
        return;
    }
    assert_ne!(ran.code, 98, "there is a report of a run that isn't finished");
    assert!(ran.stderr.contains("the disk is full"), "{}", ran.stderr);
    assert!(ran.stderr.contains("permission denied"), "{}", ran.stderr);
    assert_eq!(ran.code, 0, "with room again the same command goes on: {}", ran.stderr);
    assert_same_files(&finished_smoke().join("reports/smoke"), &folder.path().join("reports/smoke"));
}

#[test]
fn a_missing_onnx_library_lists_what_was_tried() {
    let folder = workplace();
    let output = dpo_eval(folder.path())
        .args(["suite", "run", "suites/smoke.toml"])
        .env("ORT_DYLIB_PATH", "nowhere/libonnxruntime.so")
        .output()
        .unwrap();
    let with_path = ran(&output);
    assert_eq!(with_path.code, 3, "{}", with_path.stderr);
    assert!(with_path.stderr.contains("nowhere/libonnxruntime.so"), "{}", with_path.stderr);
    let output = dpo_eval(folder.path())
        .args(["suite", "run", "suites/smoke.toml"])
        .env_remove("ORT_DYLIB_PATH")
        .env("DPO_EVAL_OFFLINE", "1")
        .env("XDG_CACHE_HOME", folder.path().join("cache"))
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let offline = ran(&output);
    if offline.code == 0 {
        eprintln!("skipped: this machine has ONNX Runtime as a system library");
        return;
    }
    assert_eq!(offline.code, 3, "{}", offline.stderr);
    assert!(offline.stderr.contains("DPO_EVAL_OFFLINE"), "{}", offline.stderr);
}

#[test]
fn a_judge_with_a_wrong_signature_is_refused_by_name() {
    let folder = own_pairs();
    // A policy is no judge: the folder has no model.onnx.
    edit(
        &folder.path().join("mine.toml"),
        "[judge.train]\nmax_steps = 2\nper_device_train_batch_size = 4\n",
        "path = \"model\"\n",
    );
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3);
    insta::assert_snapshot!("judge_without_onnx", ran.stderr);
    // And no ONNX file either, whatever its name says.
    fs::write(folder.path().join("model/model.onnx"), "not a model").unwrap();
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3);
    assert!(ran.stderr.starts_with("error: model/model.onnx: ONNX Runtime can't load it"), "{}", ran.stderr);
    // A judge whose second input has another name.
    let cells = fs::read_dir(folder.path().join(".dpo-eval/cells")).unwrap();
    let mut judges = cells.map(|e| e.unwrap().path().join("judge"));
    let reward = |judge: &std::path::PathBuf| {
        fs::read_to_string(judge.join("judge.json")).is_ok_and(|manifest| manifest.contains("reward_model"))
    };
    let real = judges.find(reward).expect("a trained reward model").join("model.onnx");
    let renamed = replaced(&fs::read(real).unwrap(), b"attention_mask", b"attention_wand");
    fs::write(folder.path().join("model/model.onnx"), renamed).unwrap();
    let ran = run_expecting(folder.path(), &["suite", "run", "mine.toml", "--quiet"], 3);
    insta::assert_snapshot!("judge_with_other_inputs", ran.stderr);
}

/// `bytes` with every `from` as `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn a_reader_that_goes_away_is_a_normal_end() {
    let mut child =
        dpo_eval(finished_smoke()).args(["suite", "schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn nothing_selected_is_exit_4_and_a_wrong_flag_exit_2() {
    let folder = workplace();
    run_expecting(folder.path(), &["train", "suites/smoke.toml", "--variant", "none", "--output", "out"], 4);
    run_expecting(folder.path(), &["runs", "list"], 4);
    run_expecting(folder.path(), &["suite", "run", "suites/smoke.toml", "--threads", "0"], 2);
    run_expecting(folder.path(), &["gate", "nothing"], 3);
    let output = dpo_eval(folder.path()).args(["doctor"]).env("DPO_EVAL_ISA", "abacus").output().unwrap();
    assert_eq!(ran(&output).code, 2, "{}", ran(&output).stderr);
}
