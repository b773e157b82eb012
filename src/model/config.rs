//! `config.json` of a Llama under Hugging Face's names.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::numerics::attention::Heads;
use crate::suite::settings::FreshModel;

#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
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
}

/// Keys that change results and the only values of them that this implementation computes.
const FIXED: [(&str, &[&str]); 8] = [
    ("model_type", &["\"llama\""]),
    ("hidden_act", &["\"silu\""]),
    ("attention_bias", &["false", "null"]),
    ("mlp_bias", &["false", "null"]),
    ("attention_dropout", &["0.0", "0", "null"]),
    ("partial_rotary_factor", &["1.0", "1", "null"]),
    ("sliding_window", &["null"]),
    ("quantization_config", &["null"]),
];

impl LlamaConfig {
    /// Reads the `config.json` of a folder.
    pub fn load(folder: &Path) -> Result<Self> {
        super::files::read_config(folder)
    }

    pub fn fresh(model: &FreshModel, vocab_size: usize, bos: u32, eos: u32) -> Self {
        Self {
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
        }
    }

    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("not valid JSON: {e}")))?;
        let keys = Keys(value.as_object().ok_or_else(|| Error::input("a JSON object is expected"))?);
        keys.refuse_unsupported()?;
        let (hidden_size, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
        let config = Self {
            vocab_size: keys.count("vocab_size")?,
            hidden_size,
            intermediate_size: keys.count("intermediate_size")?,
            num_hidden_layers: keys.count("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: keys.count_or("num_key_value_heads", heads)?,
            head_dim: keys.count_or("head_dim", hidden_size / heads)?,
            max_position_embeddings: keys.count_or("max_position_embeddings", 2048)?,
            rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)?,
            rope_theta: keys.rope_theta()?,
            initializer_range: keys.number_or("initializer_range", 0.02)?,
            tie_word_embeddings: keys.flag_or("tie_word_embeddings", false)?,
            bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
            eos_token_id: keys.tokens("eos_token_id")?,
            pad_token_id: keys.tokens("pad_token_id")?.first().copied(),
        };
        config.check()?;
        Ok(config)
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

    /// What `config.json` says of a model of this `architecture` (`LlamaForCausalLM`, `LlamaForSequenceClassification`).
    pub fn to_json(&self, architecture: &str) -> String {
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut value = json!({
            "architectures": [architecture],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
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
        if architecture == "LlamaForSequenceClassification" {
            value["id2label"] = json!({"0": "LABEL_0"});
            value["label2id"] = json!({"LABEL_0": 0});
        }
        serde_json::to_string_pretty(&value).expect("JSON values serialise") + "\n"
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
        }
        tensors
    }
}

/// The keys of `config.json`, with errors that name them.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn refuse_unsupported(&self) -> Result<()> {
        for (key, allowed) in FIXED {
            if let Some(value) = self.0.get(key)
                && !allowed.contains(&value.to_string().as_str())
            {
                return Err(Error::input(format!("`{key}` = {value} is not supported"))
                    .help(format!("this implementation computes {key} = {}", allowed[0])));
            }
        }
        if !self.0.contains_key("model_type") {
            return Err(Error::input("`model_type` is missing").help("a Llama's config.json says \"model_type\": \"llama\""));
        }
        Ok(())
    }

    fn wrong<T>(&self, key: &str, expected: &str) -> Result<T> {
        let found = self.0.get(key).map_or("missing".to_owned(), Value::to_string);
        Err(Error::input(format!("`{key}` is {found}, but {expected} is expected")))
    }

    fn count(&self, key: &str) -> Result<usize> {
        match self.0.get(key).and_then(Value::as_u64) {
            Some(n) if n > 0 => Ok(n as usize),
            _ => self.wrong(key, "a positive whole number"),
        }
    }

    fn given(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|v| !v.is_null())
    }

    fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.given(key) { self.count(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_f64().map_or_else(|| self.wrong(key, "a number"), Ok),
        }
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_bool().map_or_else(|| self.wrong(key, "true or false"), Ok),
        }
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match self.0.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(id).collect(),
            Some(value) => id(value).map(|n| vec![n]),
        };
        ids.map_or_else(|| self.wrong(key, "a token id"), Ok)
    }

    /// From `rope_theta` (transformers 4) or `rope_parameters` (5); only plain rotation, no scaling.
    fn rope_theta(&self) -> Result<f64> {
        let mut theta = self.number_or("rope_theta", 10_000.0)?;
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(Value::Object(rope)) = self.0.get(key) else { continue };
            let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            if kind != "default" {
                return Err(Error::input(format!("`{key}` of type \"{kind}\" is not supported"))
                    .help("this implementation computes rope_type \"default\""));
            }
            theta = Keys(rope).number_or("rope_theta", theta)?;
        }
        Ok(theta)
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
        assert_eq!(LlamaConfig::from_json(&config.to_json("LlamaForCausalLM")).unwrap(), config);
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
            ("\"attention_bias\": true", "attention_bias"),
            ("\"hidden_act\": \"gelu\"", "hidden_act"),
            ("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}", "rope_scaling"),
            ("\"num_key_value_heads\": 3", "num_key_value_heads"),
            ("\"vocab_size\": -1", "vocab_size"),
            ("\"rms_norm_eps\": \"small\"", "rms_norm_eps"),
        ];
        for (line, key) in cases {
            let message = LlamaConfig::from_json(&format!("{SMALL}, {line}}}")).unwrap_err().message;
            assert!(message.contains(key), "{message}");
        }
    }
}
