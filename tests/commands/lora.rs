//! Low-rank adapters through whole commands: trained, reproduced, merged, brought along, trained on.

use std::fs;
use std::path::Path;

use crate::support::{assert_same_files, run, run_expecting, run_reproduce_and_merge, workplace};

const SUITE: &str = r#"name = "adapters"
seeds = [1]

[dataset]
kind = "world"
demonstrations = 60
vocab_size = 300
train_prompts = 8
heldout_prompts = 4
judge_prompts = 4
eval_prompts = 4

[model]
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = 192

[sft]
learning_rate = 3e-3
max_steps = 6

[train]
learning_rate = 5e-3
max_steps = 5
save_steps = 2

[[variant]]
name = "lora"
lora_r = 4
lora_dropout = 0.1
lora_target_modules = "all-linear"

[generate]
max_new_tokens = 12
"#;

/// A suite whose reference is `out/base`, with this variant.
fn brought_along(folder: &Path, variant: &str) {
    let suite = SUITE.replace("hidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 2\n", "path = \"out/base\"\n");
    let suite = suite.replace("max_position_embeddings = 192\n", "").replace("vocab_size = 300\n", "");
    let [training, generate] = ["[sft]", "[generate]"].map(|table| suite.find(table).unwrap());
    fs::write(folder.join("other.toml"), format!("{}{variant}\n{}", &suite[..training], &suite[generate..])).unwrap();
}

#[test]
fn an_adapter_is_trained_reproduced_merged_brought_along_and_trained_on() {
    let folder = workplace();
    let folder = folder.path();
    fs::write(folder.join("adapters.toml"), SUITE).unwrap();
    run_reproduce_and_merge(folder, "adapters.toml", "out");
    let report = fs::read_to_string(folder.join("reports/adapters/report.json")).unwrap();
    assert!(report.contains("LoRA r = 4") && report.contains("adapter_model.safetensors"));
    assert!(folder.join("out/final/adapter_config.json").is_file() && !folder.join("out/final/model.safetensors").exists());

    // The adapter itself and the merged model are the same policy.
    for (from, reports) in [("out/final", "by-adapter"), ("out/merged", "by-weights")] {
        brought_along(folder, &format!("[[variant]]\nname = \"theirs\"\ncheckpoint = \"{from}\"\n"));
        run_expecting(folder, &["suite", "run", "other.toml", "--quiet", "--report-dir", reports], 0);
    }
    let rows = |report: &str| fs::read_to_string(folder.join(report).join("estimates.csv")).unwrap();
    assert_eq!(rows("by-adapter"), rows("by-weights"));

    brought_along(folder, "[train]\nmax_steps = 2\n\n[[variant]]\nname = \"on\"\nlora_adapter = \"out/final\"\n");
    for output in ["on", "on-again"] {
        run_expecting(folder, &["train", "other.toml", "--variant", "on", "--output", output, "--quiet"], 0);
        fs::remove_dir_all(folder.join(".dpo-eval")).unwrap();
    }
    assert_same_files(&folder.join("on/final"), &folder.join("on-again/final"));
    let log = fs::read_to_string(folder.join("on/train_log.csv")).unwrap();
    assert!(log.lines().nth(1).unwrap().contains("0.693147"), "the reference is the adapter as it was: {log}");

    // Weights that were all trained are exported as they are, but onto no model that is read.
    brought_along(folder, "[train]\nmax_steps = 2\n\n[[variant]]\nname = \"all\"\n");
    let train = |export: &str| {
        run(folder, &["train", "other.toml", "--variant", "all", "--output", "all", "--export", export, "--quiet"])
    };
    let refused = train("out/base");
    assert!(refused.code == 2 && refused.stderr.contains("--export is the base's own folder"), "{}", refused.stderr);
    assert_eq!(train("plain").code, 0);
    assert_same_files(&folder.join("all/final"), &folder.join("plain"));
}

#[test]
fn merging_refuses_what_is_no_adapter_or_does_not_fit() {
    let folder = workplace();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/lora");
    let [base, adapter, other] = ["base", "adapter", "trl_dpo_lora/adapter"].map(|name| format!("{golden}/{name}"));
    let merge = |adapter: &str, base: &str| run(folder.path(), &["merge", adapter, "--base", base, "--output", "merged"]);
    let ran = merge(&base, &base);
    assert!(ran.code == 3 && ran.stderr.contains("adapter_config.json is missing"), "{}", ran.stderr);
    let ran = merge(&other, &base);
    assert!(ran.code == 3 && ran.stderr.contains("q_proj.lora_A.weight` has shape [4, 48], not [4, 16]"), "{}", ran.stderr);
    assert!(!folder.path().join("merged").exists());
    assert_eq!(merge(&adapter, &base).code, 0);
    assert!(folder.path().join("merged/model.safetensors").is_file());
}
