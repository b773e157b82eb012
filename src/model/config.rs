//! `config.json` of a Llama, or of a family that differs little from it, under Hugging Face's names.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::block::{self, Block, Family, RopeScaling};
use crate::error::{Error, Result};
use crate::numerics::attention::Heads;
use crate::suite::settings::FreshModel;

#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub family: Family,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// Usually one; some chat models name several.
    pub eos_token_id: Vec<u32>,
    pub pad_token_id: Option<u32>,
    pub block: Block,
}

impl LlamaConfig {
    /// Reads the `config.json` of a folder.
    pub fn load(folder: &Path) -> Result<Self> {
        super::files::read_config(folder)
    }

    pub fn fresh(model: &FreshModel, vocab_size: usize, bos: u32, eos: u32) -> Self {
        Self {
            family: Family::Llama,
            vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            head_dim: model.hidden_size / model.num_attention_heads,
            max_position_embeddings: model.max_position_embeddings,
            rms_norm_eps: model.rms_norm_eps,
            rope_theta: model.rope_theta,
            initializer_range: model.initializer_range,
            tie_word_embeddings: model.tie_word_embeddings,
            bos_token_id: Some(bos),
            eos_token_id: vec![eos],
            pad_token_id: None,
            block: Block::default(),
        }
    }

    pub fn from_json(text: &str) -> Result<Self> {
        super::keys::read(text)
    }

    /// An error when the sizes contradict each other.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::input(message));
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
            return wrong(format!("num_attention_heads = {heads} is no multiple of num_key_value_heads = {kv}"));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return wrong(format!("head_dim = {} is not a positive even number", self.head_dim));
        }
        if self.rope_theta <= 0.0 || self.rms_norm_eps < 0.0 {
            return wrong("rope_theta must be positive and rms_norm_eps not negative".to_owned());
        }
        Ok(())
    }

    /// `config.json` of a causal language model.
    pub fn causal_json(&self) -> String {
        self.to_json("ForCausalLM")
    }

    /// `config.json` of a model with one scalar output.
    pub fn scorer_json(&self) -> String {
        self.to_json("ForSequenceClassification")
    }

    fn to_json(&self, task: &str) -> String {
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut value = json!({
            "architectures": [format!("{}{task}", self.family.class())],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.family.name(),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        self.own_keys(&mut value);
        if task == "ForSequenceClassification" {
            value["id2label"] = json!({"0": "LABEL_0"});
            value["label2id"] = json!({"LABEL_0": 0});
        }
        serde_json::to_string_pretty(&value).expect("JSON values serialise") + "\n"
    }

    /// The keys that not all families have, and those that a plain model leaves out.
    fn own_keys(&self, value: &mut Value) {
        let block = &self.block;
        if matches!(self.family, Family::Llama | Family::Qwen3) {
            value["attention_bias"] = json!(block.output_bias);
        }
        if self.family == Family::Llama {
            value["mlp_bias"] = json!(block.mlp_bias);
        }
        let window = block.windows.iter().flatten().next();
        match self.family {
            Family::Llama => {}
            Family::Mistral => value["sliding_window"] = json!(window),
            Family::Qwen2 | Family::Qwen3 => {
                let slides = |layer| self.window(layer).is_some();
                let name = |layer| if slides(layer) { "sliding_attention" } else { "full_attention" };
                value["use_sliding_window"] = json!(window.is_some());
                value["sliding_window"] = json!(window);
                value["max_window_layers"] =
                    json!((0..self.num_hidden_layers).find(|l| slides(*l)).unwrap_or(self.num_hidden_layers));
                value["layer_types"] = (0..self.num_hidden_layers).map(name).collect();
            }
        }
        match block.rope_scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => value["rope_scaling"] = json!({"rope_type": "linear", "factor": factor}),
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings }) => {
                value["rope_scaling"] = json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings as u64,
                });
            }
        }
    }

    /// How many keys a query of this layer sees, its own included; none: all.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        self.block.windows.get(layer).copied().flatten()
    }

    /// The different windows of the layers.
    pub(crate) fn windows(&self) -> BTreeSet<Option<usize>> {
        (0..self.num_hidden_layers).map(|layer| self.window(layer)).collect()
    }

    /// Radians a position for each pair of a head.
    pub(crate) fn frequencies(&self) -> Vec<f64> {
        block::frequencies(self.head_dim, self.rope_theta, self.block.rope_scaling.as_ref())
    }

    /// What the queries of this layer see.
    pub(crate) fn heads_in(&self, layer: usize) -> Heads {
        Heads { window: self.window(layer), ..self.heads() }
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads { heads: self.num_attention_heads, kv_heads: self.num_key_value_heads, head_dim: self.head_dim, window: None }
    }

    /// Name and shape of every tensor of the transformer below its head.
    pub(crate) fn trunk_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads().query_width(), self.heads().key_width());
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.num_hidden_layers {
            let parts: [(&str, Vec<usize>); 9] = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![q, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, q]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![inner, hidden]),
                ("mlp.up_proj", vec![inner, hidden]),
                ("mlp.down_proj", vec![hidden, inner]),
            ];
            tensors.extend(parts.into_iter().map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
            self.own_tensors(layer, &mut tensors);
        }
        tensors
    }

    /// Those that a plain Llama lacks.
    fn own_tensors(&self, layer: usize, tensors: &mut Vec<(String, Vec<usize>)>) {
        let (hidden, inner, block) = (self.hidden_size, self.intermediate_size, &self.block);
        let (q, kv) = (self.heads().query_width(), self.heads().key_width());
        let parts = [
            (block.qkv_bias, "self_attn.q_proj.bias", q),
            (block.qkv_bias, "self_attn.k_proj.bias", kv),
            (block.qkv_bias, "self_attn.v_proj.bias", kv),
            (block.output_bias, "self_attn.o_proj.bias", hidden),
            (block.mlp_bias, "mlp.gate_proj.bias", inner),
            (block.mlp_bias, "mlp.up_proj.bias", inner),
            (block.mlp_bias, "mlp.down_proj.bias", hidden),
            (block.qk_norm, "self_attn.q_norm.weight", self.head_dim),
            (block.qk_norm, "self_attn.k_norm.weight", self.head_dim),
        ];
        let there = parts.into_iter().filter(|(there, ..)| *there);
        tensors.extend(there.map(|(_, part, width)| (format!("model.layers.{layer}.{part}"), vec![width])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2"#;

    #[test]
    fn a_configuration_survives_writing_and_reading() {
        let config = LlamaConfig::from_json(&format!("{SMALL}, \"eos_token_id\": [3, 4], \"head_dim\": 6}}")).unwrap();
        assert_eq!(config.num_key_value_heads, 2);
        assert_eq!(LlamaConfig::from_json(&config.causal_json()).unwrap(), config);
    }

    #[test]
    fn both_generations_of_rope_keys_are_read() {
        let old = LlamaConfig::from_json(&format!("{SMALL}, \"rope_theta\": 5e5}}")).unwrap();
        let new = format!("{SMALL}, \"rope_parameters\": {{\"rope_theta\": 5e5, \"rope_type\": \"default\"}}}}");
        assert_eq!(old, LlamaConfig::from_json(&new).unwrap());
    }

    #[test]
    fn what_would_change_results_is_refused_by_name() {
        let cases = [
            ("\"attention_bias\": \"all\"", "attention_bias"),
            ("\"attention_dropout\": 0.1", "attention_dropout"),
            ("\"embedding_multiplier\": 12.0", "embedding_multiplier"),
            ("\"sliding_window\": 7", "sliding_window"),
            ("\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", "dynamic"),
            ("\"rope_scaling\": {\"rope_type\": \"linear\"}", "factor"),
            ("\"rope_parameters\": {\"rope_type\": \"default\", \"mrope_section\": [1]}", "mrope_section"),
            ("\"hidden_act\": \"gelu\"", "hidden_act"),
            ("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}", "low_freq_factor"),
            ("\"num_key_value_heads\": 3", "num_key_value_heads"),
            ("\"vocab_size\": -1", "vocab_size"),
            ("\"rms_norm_eps\": \"small\"", "rms_norm_eps"),
        ];
        for (line, key) in cases {
            let message = LlamaConfig::from_json(&format!("{SMALL}, {line}}}")).unwrap_err().message;
            assert!(message.contains(key), "{message}");
        }
    }

    /// Reads a configuration of this family with these further keys.
    fn of(family: &str, keys: &str) -> Result<LlamaConfig> {
        LlamaConfig::from_json(&format!("{}, \"num_key_value_heads\": 2{keys}}}", SMALL.replace("llama", family)))
    }

    #[test]
    fn every_family_survives_writing_and_reading_with_all_that_is_its_own() {
        let scaling = [
            "\"linear\"",
            "\"llama3\", \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 32",
        ];
        let window = ", \"use_sliding_window\": true, \"sliding_window\": 3, \"max_window_layers\": 0";
        for rope in scaling.map(|kind| format!(", \"rope_scaling\": {{\"factor\": 2.5, \"rope_type\": {kind}}}")) {
            for (family, own) in [
                ("llama", ", \"attention_bias\": true, \"mlp_bias\": true"),
                ("mistral", ", \"sliding_window\": 3"),
                ("mistral", ", \"sliding_window\": null"),
                ("qwen2", ""),
                ("qwen2", window),
                ("qwen3", ", \"attention_bias\": true"),
                ("qwen3", window),
            ] {
                let config = of(family, &format!("{own}{rope}")).unwrap();
                assert_eq!(LlamaConfig::from_json(&config.causal_json()).unwrap(), config);
                let class = format!("\"{}ForSequenceClassification\"", config.family.class());
                assert!(config.scorer_json().contains(&class), "{class}");
            }
        }
    }

    #[test]
    fn windows_are_those_of_the_layers_that_have_them() {
        let layers = ", \"num_hidden_layers\": 3";
        let windows = |family: &str, keys: &str| of(family, &format!("{layers}{keys}")).unwrap().block.windows;
        assert_eq!(windows("mistral", ", \"sliding_window\": 9"), [Some(9); 3]);
        assert_eq!(windows("mistral", ", \"sliding_window\": null"), []);
        assert_eq!(windows("mistral", ""), [Some(4096); 3]);
        let used = ", \"use_sliding_window\": true, \"sliding_window\": 9";
        assert_eq!(windows("qwen2", &format!("{used}, \"max_window_layers\": 1")), [None, Some(9), Some(9)]);
        assert_eq!(windows("qwen2", ", \"sliding_window\": 9, \"max_window_layers\": 1"), []);
        let types = ", \"layer_types\": [\"sliding_attention\", \"full_attention\", \"full_attention\"]";
        assert_eq!(windows("qwen3", &format!("{used}{types}")), [Some(9), None, None]);
        assert!(of("qwen3", &format!("{layers}{types}")).unwrap_err().message.contains("layer_types"));
    }

    #[test]
    fn a_key_of_another_family_and_an_unknown_family_are_refused_by_name() {
        for (family, keys, name) in [
            ("mistral", ", \"attention_bias\": true", "attention_bias"),
            ("qwen2", ", \"mlp_bias\": true", "mlp_bias"),
            ("olmo", "", "olmo"),
        ] {
            assert!(of(family, keys).unwrap_err().message.contains(name));
        }
        let missing = LlamaConfig::from_json(&format!("{}}}", SMALL.replace("llama", "mistral"))).unwrap_err();
        assert!(missing.message.contains("num_key_value_heads"));
        assert_eq!(of("qwen3", "").unwrap().head_dim, 128);
    }
}
