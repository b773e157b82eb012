//! Training in rounds: train, sample, label, train on.

use std::fs;
use std::path::{Path, PathBuf};

use dpo_eval::data::tokenize::TextTokenizer;
use dpo_eval::data::{Pair, Prompt};
use dpo_eval::generate::{Sampled, sample};
use dpo_eval::judge::Outcome;
use dpo_eval::judge::asking::Asking;
use dpo_eval::judge::protocol::compare;
use dpo_eval::judge::session::OnnxJudge;
use dpo_eval::model::{Adapter, Llama};
use dpo_eval::suite::settings::GenerateSettings;
use dpo_eval::train::{ScoredPolicy, pair_scores};
use dpo_eval::watch::Silent;

use crate::support::{assert_same_files, edit, repository, run_expecting, run_through_kills};

const SUITE: &str = r#"name = "rounds"
seeds = [1]

[dataset]
kind = "world"
demonstrations = 120
vocab_size = 300
train_prompts = 12
heldout_prompts = 4
judge_prompts = 12
eval_prompts = 6

[model]
hidden_size = 24
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 192

[sft]
learning_rate = 3e-3
max_steps = 30

[train]
learning_rate = 4e-3
max_steps = 4
save_steps = 2
eval_steps = 4
rounds = 2

[[variant]]
name = "by-gold"

[[variant]]
name = "by-judge"
round_judge = "pairwise"
round_reference = "original"

[[variant]]
name = "adapter"
lora_r = 4
rounds = 3

[[variant]]
name = "kto"
loss_type = "kto"
round_reference = "original"

[generate]
max_new_tokens = 16

[[judge]]
name = "pairwise"
kind = "pairwise"
min_accuracy = 0.99

[judge.train]
learning_rate = 1e-3
max_steps = 4
"#;

const RUN: [&str; 4] = ["suite", "run", "rounds.toml", "--quiet"];

fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rounds.toml"), SUITE).unwrap();
    folder
}

/// The folder of a finished cell.
fn cell(folder: &Path, id: &str) -> PathBuf {
    let is_its = |path: &Path| path.is_file() && fs::read_to_string(path).unwrap().contains(&format!("\"id\": \"{id}\","));
    let mut receipts = fs::read_dir(folder.join(".dpo-eval/cells")).unwrap().map(|entry| entry.unwrap().path());
    receipts.find(|path| is_its(path)).unwrap_or_else(|| panic!("no cell {id}")).with_extension("")
}

fn rows<T: serde::de::DeserializeOwned>(file: &Path) -> Vec<T> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &serde_json::Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{row} has no {name}"))
}

#[test]
fn a_later_round_learns_from_what_the_round_before_it_wrote_as_it_was_labelled() {
    let folder = place();
    let folder = folder.path();
    run_expecting(folder, &RUN, 0);

    // What stands in the round's samples is what the first round's last weights write, and not what the reference does.
    let at = |id: &str| cell(folder, id);
    let tokenizer = TextTokenizer::load(&at("reference")).unwrap();
    let prompts: Vec<Prompt> = rows(&at("data").join("train_prompts.jsonl"));
    let sampling = GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 16, samples_per_prompt: 4 };
    let written = |model: &Path| {
        let model = Llama::load(model).unwrap();
        sample(&model, &tokenizer, &prompts, &sampling, 1, "pairs/round-2/sample", &Silent).unwrap()
    };
    let first = written(&at("train/by-gold/seed-1").join("checkpoint-4"));
    let samples: Vec<Sampled> = rows(&at("pairs/by-gold/seed-1/round-2").join("samples.jsonl"));
    assert!(samples == first, "the samples are another policy's");
    assert!(samples != written(&at("reference")), "the first round has changed nothing");
    let pairs: Vec<Pair> = rows(&at("pairs/by-gold/seed-1/round-2").join("train.jsonl"));
    let wrote = |p: &Pair, text: &str| samples.iter().any(|s| s.prompt_id == p.prompt_id && s.text == text);
    assert!(pairs.len() > 12 && pairs.iter().all(|p| wrote(p, &p.chosen) && wrote(p, &p.rejected) && p.chosen != p.rejected));

    // The judge prefers every chosen side, whichever it reads first.
    let suite = dpo_eval::suite::load(&folder.join("rounds.toml")).unwrap();
    let model = OnnxJudge::open(&at("judge/pairwise").join("judge"), &suite.judges[0], 1).unwrap();
    let mut judge = Asking::new("pairwise", model, suite.judges[0].tie_width, None);
    let labelled: Vec<Pair> = rows(&at("pairs/by-judge/seed-1/round-2").join("train.jsonl"));
    let texts: Vec<[&str; 3]> = labelled.iter().map(|p| [p.prompt.as_str(), p.chosen.as_str(), p.rejected.as_str()]).collect();
    let says = compare(&mut judge, &texts, &Silent).unwrap();
    assert!(says.iter().all(|c| c.is_some_and(|c| c.outcome == Outcome::Win)));
    let against = |p: &&Pair| p.gold.unwrap().chosen < p.gold.unwrap().rejected;
    assert!(labelled.iter().any(|p| against(&p)), "so small a judge isn't always right");

    // Against the weights that it starts from a round begins without a difference; against the first reference it doesn't.
    let log = |id: &str| rows::<serde_json::Value>(&at(id).join("train_log.jsonl"));
    for (id, steps, differs) in [
        ("train/by-gold/seed-1/round-2", 5..=8, false),
        ("train/by-judge/seed-1/round-2", 5..=8, true),
        ("train/adapter/seed-1/round-2", 5..=8, false),
        ("train/adapter/seed-1/round-3", 9..=12, false),
        ("train/kto/seed-1/round-2", 5..=8, true),
    ] {
        let log = log(id);
        assert!(log.iter().map(|row| number(row, "step") as u64).eq(steps), "{id}: {log:?}");
        assert_eq!(number(&log[0], "kl/chosen") != 0.0, differs, "{id}");
        assert_eq!(number(&log[0], "learning_rate"), 4e-3, "{id}");
    }
    let tokens = |id: &str, row: usize| number(&log(id)[row], "num_tokens");
    assert!(tokens("train/by-gold/seed-1", 3) < tokens("train/by-gold/seed-1/round-2", 0));
    let evaluated: Vec<serde_json::Value> = rows(&at("train/by-gold/seed-1/round-2").join("eval_log.jsonl"));
    assert_eq!(number(&evaluated[0], "step"), 8.0);

    // The first round's weights decide: another β, another policy, other pairs; and so does the seed.
    let pairs_after = |from: &str, to: &str, id: &str| {
        let other = place();
        edit(&other.path().join("rounds.toml"), from, to);
        run_expecting(other.path(), &["train", "rounds.toml", "--variant", "by-gold", "--output", "out", "--quiet"], 0);
        rows::<Pair>(&cell(other.path(), id).join("train.jsonl"))
    };
    assert!(pairs != pairs_after("name = \"by-gold\"", "name = \"by-gold\"\nbeta = 0.5", "pairs/by-gold/seed-1/round-2"));
    assert!(pairs != pairs_after("seeds = [1]", "seeds = [2]", "pairs/by-gold/seed-2/round-2"));
}

#[test]
fn rounds_are_evaluated_reported_trained_alone_reproduced_and_accepted() {
    let (folder, again) = (place(), place());
    let folder = folder.path();
    run_expecting(folder, &RUN, 0);
    run_expecting(again.path(), &[&RUN[..], &["--threads", "1"]].concat(), 0);
    assert_same_files(&folder.join("reports/rounds"), &again.path().join("reports/rounds"));
    let report = fs::read_to_string(folder.join("reports/rounds/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let variants = report["suite"]["variants"].as_array().unwrap();
    assert_eq!(variants[1]["label"], "DPO, β = 0.1, 2 rounds labelled by pairwise");
    assert_eq!(variants[1]["checkpoints"], serde_json::json!([2, 4, 6, 8]));
    assert_eq!(variants[2]["checkpoints"], serde_json::json!([2, 4, 6, 8, 10, 12]));
    assert!(report["conclusions"].as_array().unwrap().iter().any(|c| c["win_rate"]["checkpoint"] == 12));
    let finding = |id: &str| report["findings"].as_array().unwrap().iter().any(|f| f["id"] == id);
    assert!(finding("judge-labels"));

    let training = ["train", "rounds.toml", "--variant", "by-judge", "--output", "out", "--quiet"];
    run_expecting(folder, &training, 0);
    let out = folder.join("out");
    assert_eq!(fs::read_to_string(out.join("train_log.csv")).unwrap().lines().count(), 9);
    let last = cell(folder, "train/by-judge/seed-1/round-2").join("checkpoint-4/model.safetensors");
    assert_eq!(fs::read(out.join("final/model.safetensors")).unwrap(), fs::read(last).unwrap());
    assert!(out.join("round-1/timing.jsonl").is_file() && out.join("round-2/tensorboard").is_dir());

    let settings = ["--thread-counts", "2", "--micro-batches", "3", "--isa", "scalar", "--quiet"];
    let repro = run_expecting(folder, &[&["repro", "--cells", "*round-*"][..], &settings].concat(), 0);
    for id in ["pairs/by-gold/seed-1/round-2", "pairs/by-judge/seed-1/round-2", "train/adapter/seed-1/round-3"] {
        assert!(repro.stdout.contains(id), "{}", repro.stdout);
    }
    // What a judge labelled holds no bit of the gate; all else does.
    run_expecting(folder, &["baseline", "accept", "rounds", "--reason", "a test", "--golden", "golden.json"], 0);
    let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    for part in ["cells", "chains"] {
        let held = |id: &str| golden[part].as_object().unwrap().contains_key(id);
        assert!(held("train/by-gold/seed-1/round-2") && held("train/by-judge/seed-1"), "{part}");
        assert!(!held("train/by-judge/seed-1/round-2") && !held("evaluate/by-judge/seed-1"), "{part}");
    }
    let plan = run_expecting(folder, &["suite", "plan", "rounds.toml"], 0).stdout;
    assert!(plan.contains("(9 training runs), all finished"), "{plan}");
}

#[test]
fn a_run_killed_in_its_rounds_gives_the_bytes_of_an_unbroken_one() {
    let (folder, unbroken) = (place(), place());
    run_expecting(unbroken.path(), &RUN, 0);
    let kills = run_through_kills(folder.path(), &RUN);
    assert!(kills >= 5, "only {kills} kills");
    assert_same_files(&unbroken.path().join("reports/rounds"), &folder.path().join("reports/rounds"));
}

/// Adapters in rounds over weights and an adapter from elsewhere; every step sees all pairs.
const OVER: &str = r#"name = "over"
seeds = [1]

[dataset]
kind = "world"
train_prompts = 12
heldout_prompts = 4
judge_prompts = 4
eval_prompts = 4

[model]
path = "out/base"

[train]
learning_rate = 4e-3
max_steps = 4
per_device_train_batch_size = 100
rounds = 2

[[variant]]
name = "fresh"
lora_r = 4
round_reference = "original"

[[variant]]
name = "on"
lora_adapter = "out/final"

[[variant]]
name = "on-original"
lora_adapter = "out/final"
round_reference = "original"

[generate]
max_new_tokens = 16
"#;

#[test]
fn rounds_of_an_adapter_are_compared_with_the_base_with_the_adapter_brought_along_or_with_the_round_before() {
    let folder = place();
    let folder = folder.path();
    run_expecting(folder, &["train", "rounds.toml", "--variant", "adapter", "--output", "out", "--quiet"], 0);
    fs::write(folder.join("over.toml"), OVER).unwrap();
    let tokenizer = TextTokenizer::load(&folder.join("out/base")).unwrap();
    let base = || Llama::load(&folder.join("out/base")).unwrap();
    let under = |adapter: &Path| base().with_adapter(Adapter::load(adapter).unwrap()).unwrap();
    for (variant, reference) in [("fresh", Some(base())), ("on", None), ("on-original", Some(under(&folder.join("out/final"))))] {
        run_expecting(folder, &["train", "over.toml", "--variant", variant, "--output", variant, "--quiet"], 0);
        let first = cell(folder, &format!("train/{variant}/seed-1"));
        let second = cell(folder, &format!("train/{variant}/seed-1/round-2"));
        let start = |cell: &Path| number(&rows::<serde_json::Value>(&cell.join("train_log.jsonl"))[0], "kl/chosen");
        assert_eq!(start(&first), 0.0, "{variant}");
        let policy = under(&first.join("checkpoint-4"));
        let pairs: Vec<Pair> = rows(&cell(folder, &format!("pairs/{variant}/seed-1/round-2")).join("train.jsonl"));
        let pairs: Vec<_> = pairs.iter().map(|p| tokenizer.pair(p)).collect();
        let of = ScoredPolicy { variant, seed: Some(1), checkpoint: 4, beta: 0.1 };
        let scores = pair_scores(&of, &policy, reference.as_ref().unwrap_or(&policy), &pairs, None, None, &Silent).unwrap();
        let kl = scores.iter().map(|s| s.policy_chosen - s.reference_chosen).sum::<f64>() / scores.len() as f64;
        assert!((start(&second) - kl).abs() < 1e-9 && (kl != 0.0) == reference.is_some(), "{variant}: {} {kl}", start(&second));
        let last = fs::read(second.join("checkpoint-4/adapter_model.safetensors")).unwrap();
        assert_eq!(fs::read(folder.join(variant).join("final/adapter_model.safetensors")).unwrap(), last);
    }
}

#[test]
fn a_round_in_which_every_pair_is_a_tie_ends_with_what_to_change() {
    let folder = place();
    let folder = folder.path();
    edit(&folder.join("rounds.toml"), "min_accuracy = 0.99", "tie_width = 1e6");
    let ran = run_expecting(folder, &["train", "rounds.toml", "--variant", "by-judge", "--output", "out", "--quiet"], 3);
    let expected =
        "round 2 of variant `by-judge` has nothing to learn from: none of 48 completions made a pair that `pairwise` labels";
    assert!(ran.stderr.contains(expected) && ran.stderr.contains("lower the judge's tie_width"), "{}", ran.stderr);
}

const FILE: &str = r#"name = "file"
seeds = [1]

[dataset]
kind = "pairs"
DATA

[model]
path = "out/final"

[train]
learning_rate = 1e-3
max_length = 128
num_train_epochs = 1
rounds = 2
LOSS

[[variant]]
name = "policy"

[generate]
max_new_tokens = 8

[[judge]]
name = "pairwise"
kind = "pairwise"
max_length = 128
JUDGE
"#;

#[test]
fn the_prompts_of_a_file_are_sampled_and_labelled_by_a_judge_whether_it_holds_pairs_or_single_completions() {
    let folder = place();
    let folder = folder.path();
    run_expecting(folder, &["train", "rounds.toml", "--variant", "by-judge", "--output", "out", "--quiet"], 0);
    let judge = format!("path = {:?}", cell(folder, "judge/pairwise").join("judge"));
    let pairs = fs::read_to_string(repository().join("tests/readme/pairs.jsonl")).unwrap();
    let single = |line: &str| {
        let pair: serde_json::Value = serde_json::from_str(line).unwrap();
        let row =
            |side: &str, label: bool| serde_json::json!({"prompt": pair["prompt"], "completion": pair[side], "label": label});
        format!("{}\n{}\n", row("chosen", true), row("rejected", false))
    };
    fs::write(folder.join("rows.jsonl"), pairs.lines().map(single).collect::<String>()).unwrap();
    fs::write(folder.join("pairs.jsonl"), &pairs).unwrap();
    for (name, data, loss, judge) in [
        ("pairs", "path = \"pairs.jsonl\"", "", "[judge.train]\nmax_steps = 2"),
        ("rows", "path = \"rows.jsonl\"\nformat = \"unpaired\"", "loss_type = \"kto\"", judge.as_str()),
    ] {
        let suite = FILE.replace("DATA", data).replace("LOSS", loss).replace("JUDGE", judge);
        fs::write(folder.join("file.toml"), suite).unwrap();
        let store = format!("{name}/.dpo-eval");
        run_expecting(folder, &["suite", "run", "file.toml", "--quiet", "--store", &store], 0);
        let at = |id: &str| cell(&folder.join(name), id);
        let prompts: std::collections::BTreeSet<String> = rows::<serde_json::Value>(&at("pairs").join("train.jsonl"))
            .iter()
            .map(|row| row["prompt_id"].as_str().unwrap().to_owned())
            .collect();
        let samples: Vec<Sampled> = rows(&at("pairs/policy/seed-1/round-2").join("samples.jsonl"));
        assert_eq!(samples.len(), 2 * prompts.len());
        assert!(samples.iter().all(|s| prompts.contains(&s.prompt_id)));
        // As many steps as in the first round, however many pairs there are.
        let steps = |id: &str| rows::<serde_json::Value>(&at(id).join("train_log.jsonl")).len();
        assert_eq!(steps("train/policy/seed-1"), steps("train/policy/seed-1/round-2"));
    }
    // A prompt without room for a completion is refused before the first round.
    let long = FILE.replace("DATA", "path = \"pairs.jsonl\"\njudge_share = 0").replace("LOSS", "").replace("JUDGE", &judge);
    fs::write(folder.join("file.toml"), long.replace("max_new_tokens = 8", "max_new_tokens = 185")).unwrap();
    let refused = run_expecting(folder, &["train", "file.toml", "--variant", "policy", "--output", "no", "--quiet"], 3);
    assert!(refused.stderr.contains("needs 185 more"), "{}", refused.stderr);
}
