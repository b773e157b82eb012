//! Models that candle-transformers computes through whole commands: evaluated in the fast arithmetic, refused everywhere else.

use std::fs;
use std::path::Path;

use dpo_eval::data::tokenize::TextTokenizer;
use dpo_eval::model::{Parameters, Tensor};

use crate::support::{repository, run_expecting, workplace};

const SUITE: &str = r#"name = "theirs"
seeds = [1]
numerics = "fast"

[dataset]
kind = "world"
demonstrations = 60
train_prompts = 8
heldout_prompts = 4
judge_prompts = 4
eval_prompts = 6

[model]
path = "base"

[[variant]]
name = "tuned"
checkpoint = "tuned"

[generate]
max_new_tokens = 8
samples_per_prompt = 2
"#;

/// The Mixtral of `golden/evaluated` with a vocabulary for texts, in a folder whose embeddings are `scale` times as large.
fn mixtral(folder: &Path, scale: f32) {
    fs::create_dir(folder).unwrap();
    let golden = repository().join("golden/evaluated/mixtral");
    let texts = ["the food was good and the staff was kind", "a review of a small hotel by the sea"];
    let tokenizer = TextTokenizer::train(&texts, 280).unwrap();
    tokenizer.save(folder).unwrap();
    let mut parameters = Parameters::from_safetensors(&fs::read(golden.join("model.safetensors")).unwrap()).unwrap();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let values = parameters.get(name).values.iter().cycle().take(tokenizer.vocab_size() * 16);
        let values = values.enumerate().map(|(i, v)| scale * v * (1.0 + (i % 7) as f32 / 10.0)).collect();
        parameters.insert(name, Tensor { shape: vec![tokenizer.vocab_size(), 16], values });
    }
    fs::write(folder.join("model.safetensors"), parameters.to_safetensors()).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(golden.join("config.json")).unwrap()).unwrap();
    config["vocab_size"] = tokenizer.vocab_size().into();
    config["max_position_embeddings"] = 512.into();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_mixtral_and_what_was_made_of_it_are_evaluated_and_the_report_says_by_whom() {
    let folder = workplace();
    let folder = folder.path();
    mixtral(&folder.join("base"), 1.0);
    mixtral(&folder.join("tuned"), 1.1);
    fs::write(folder.join("theirs.toml"), SUITE).unwrap();
    let plan = run_expecting(folder, &["suite", "plan", "theirs.toml"], 0).stdout;
    let by = "candle-transformers 0.11.1 (fast, evaluation alone): [model]: mixtral; variant `tuned`: mixtral";
    assert!(plan.contains(by), "{plan}");
    run_expecting(folder, &["suite", "run", "theirs.toml", "--quiet"], 0);
    let report = fs::read_to_string(folder.join("reports/theirs/report.json")).unwrap();
    assert!(report.contains("candle-transformers 0.11.1") && report.contains("variant `tuned`: mixtral"));
    let mut rows = csv::Reader::from_path(folder.join("reports/theirs/completions.csv")).unwrap();
    let column = |name: &str| rows.headers().unwrap().iter().position(|header| header == name).unwrap();
    let [variant, kl, policy, reference] = ["variant", "kl", "policy_logp", "reference_logp"].map(column);
    let number = |row: &csv::StringRecord, column: usize| row[column].parse::<f64>().unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    let of = |name: &str| rows.iter().filter(|row| &row[variant] == name).collect::<Vec<_>>();
    assert!(of("tuned").len() == 12 && of("tuned").iter().all(|row| number(row, kl) > 0.0));
    assert!(of("reference").len() == 12 && of("reference").iter().all(|row| number(row, policy) == number(row, reference)));
}

#[test]
fn what_can_only_be_evaluated_is_refused_in_the_strict_arithmetic_and_under_training() {
    let folder = workplace();
    let folder = folder.path();
    mixtral(&folder.join("base"), 1.0);
    mixtral(&folder.join("tuned"), 1.1);
    let refused = |from: &str, to: &str| {
        fs::write(folder.join("refused.toml"), SUITE.replacen(from, to, 1)).unwrap();
        run_expecting(folder, &["suite", "check", "refused.toml"], 2).stderr
    };
    let message = refused("\"fast\"", "\"strict\"");
    assert!(message.contains("[model] is a model of type \"mixtral\"") && message.contains("numerics = \"fast\""), "{message}");
    let training = "[train]\nmax_steps = 1\n\n[[variant]]\nname = \"dpo\"\n\n[generate]";
    let message = refused("[generate]", training);
    assert!(message.contains("variant `dpo` is trained over a model of type \"mixtral\""), "{message}");
    let message = refused("[generate]", "[sft]\nmax_steps = 1\n\n[generate]");
    assert!(message.contains("[sft] trains over"), "{message}");
    let message = refused("[generate]", "[[judge]]\nname = \"ours\"\nkind = \"reward_model\"\n\n[generate]");
    assert!(message.contains("judge `ours` is trained over"), "{message}");
    fs::write(folder.join("in.jsonl"), "{\"ids\": [1, 5, 9, 11]}\n").unwrap();
    let message = run_expecting(folder, &["logps", "base", "in.jsonl"], 3).stderr;
    assert!(message.contains("can only be evaluated") && message.contains("config.json"), "{message}");
}

#[test]
fn what_a_mixtral_implies_is_a_judge() {
    let folder = workplace();
    let folder = folder.path();
    mixtral(&folder.join("base"), 1.0);
    mixtral(&folder.join("tuned"), 1.1);
    let judge = "[[judge]]\nname = \"implied\"\nkind = \"implicit\"\npath = \"tuned\"\nmin_accuracy = 0\n\n[compare]\njudge = \"implied\"\n\n[generate]";
    fs::write(folder.join("theirs.toml"), SUITE.replace("[generate]", judge)).unwrap();
    run_expecting(folder, &["suite", "run", "theirs.toml", "--quiet"], 0);
    let report = fs::read_to_string(folder.join("reports/theirs/report.json")).unwrap();
    assert!(report.contains("judge `implied`: mixtral"));
    let judgments = fs::read_to_string(folder.join("reports/theirs/judgments.csv")).unwrap();
    assert!(judgments.lines().filter(|line| line.contains("implied")).count() >= 12, "{judgments}");
}

#[test]
fn the_version_that_reports_name_is_the_one_that_is_pinned() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("candle-transformers = { version = \"=0.11.1\""));
}
