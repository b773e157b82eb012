//! Models that are built otherwise than Llama through whole commands: fine-tuned, trained with and without an adapter, made judges, reproduced,
//! merged.

use std::fs;
use std::path::Path;

use dpo_eval::model::{Llama, LlamaConfig};

use crate::support::{run_expecting, run_reproduce_and_merge, workplace};

const FIRST: &str = r#"name = "tokens"
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
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 192

[sft]
max_steps = 1

[train]
max_steps = 1

[[variant]]
name = "dpo"

[generate]
max_new_tokens = 8
"#;

const FAMILY: &str = r#"name = "FAMILY"
seeds = [1]

[dataset]
kind = "world"
demonstrations = 60
train_prompts = 8
heldout_prompts = 4
judge_prompts = 4
eval_prompts = 4

[model]
path = "FAMILY"

[sft]
max_steps = 2

[train]
learning_rate = 5e-3
max_steps = 3
save_steps = 2

[[variant]]
name = "dpo"

[[variant]]
name = "lora"
lora_r = 2
lora_target_modules = "all-linear"

[[judge]]
name = "ours"
kind = "pairwise"

[judge.fitness]
probes = 0

[judge.train]
max_steps = 1

[generate]
max_new_tokens = 8
"#;

/// Their sizes, under their own names.
const CONFIGS: [(&str, &str); 3] = [
    ("gpt2", r#""n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 192"#),
    (
        "gpt_neox",
        r#""hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 192, "rotary_pct": 0.5"#,
    ),
    (
        "gemma2",
        r#""hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 8, "max_position_embeddings": 192, "sliding_window": 9"#,
    ),
];

/// A folder with a model of this family and the tokenizer of `out/base`, and `FAMILY.toml` beside it.
fn model(folder: &Path, family: &str, sizes: &str) {
    let tokenizer = fs::read_to_string(folder.join("out/final/tokenizer.json")).unwrap();
    let vocabulary = LlamaConfig::load(&folder.join("out/final")).unwrap().vocab_size;
    let config = format!("{{\"model_type\": \"{family}\", \"vocab_size\": {vocabulary}, {sizes}}}");
    Llama::random(LlamaConfig::from_json(&config).unwrap(), 1).save(&folder.join(family)).unwrap();
    fs::write(folder.join(family).join("tokenizer.json"), tokenizer).unwrap();
    let name = "tokenizer_config.json";
    fs::copy(folder.join("out/final").join(name), folder.join(family).join(name)).unwrap();
    fs::write(folder.join(format!("{family}.toml")), FAMILY.replace("FAMILY", family)).unwrap();
}

#[test]
fn other_families_are_trained_evaluated_made_judges_reproduced_and_merged() {
    let folder = workplace();
    let folder = folder.path();
    fs::write(folder.join("tokens.toml"), FIRST).unwrap();
    run_expecting(folder, &["train", "tokens.toml", "--variant", "dpo", "--output", "out", "--quiet"], 0);
    for (family, sizes) in CONFIGS {
        model(folder, family, sizes);
        run_reproduce_and_merge(folder, &format!("{family}.toml"), family);
    }
}

#[test]
fn what_a_family_does_not_have_is_refused_before_any_work() {
    let folder = workplace();
    let folder = folder.path();
    fs::write(folder.join("tokens.toml"), FIRST).unwrap();
    run_expecting(folder, &["train", "tokens.toml", "--variant", "dpo", "--output", "out", "--quiet"], 0);
    let (family, sizes) = CONFIGS[0];
    model(folder, family, sizes);
    let refused = |from: &str, to: &str, code: i32| {
        fs::write(folder.join("refused.toml"), FAMILY.replace("FAMILY", family).replacen(from, to, 1)).unwrap();
        run_expecting(folder, &["suite", "check", "refused.toml"], code).stderr
    };
    let message = refused("\"all-linear\"", "[\"q_proj\", \"c_fc\"]", 3);
    assert!(message.contains("variant `lora`") && message.contains("no linear layer q_proj"), "{message}");
    let (windowed, sizes) = CONFIGS[2];
    model(folder, windowed, sizes);
    let encoder = "kind = \"pairwise\"\nattention = \"bidirectional\"";
    fs::write(folder.join("encoder.toml"), FAMILY.replace("FAMILY", windowed).replacen("kind = \"pairwise\"", encoder, 1))
        .unwrap();
    let message = run_expecting(folder, &["suite", "check", "encoder.toml"], 2).stderr;
    assert!(message.contains("judge `ours` has max_length") && message.contains("a gemma2 see 9 at a time"), "{message}");
    let config = folder.join(family).join("config.json");
    let strange = fs::read_to_string(&config).unwrap().replace("gpt2", "mpt");
    fs::write(&config, strange).unwrap();
    let message = refused("max_steps = 3", "max_steps = 4", 3);
    assert!(message.contains("`model_type` = \"mpt\" is not supported") && message.contains("config.json"), "{message}");
}
