//! Reading `config.json`: every key that could change a result is computed, or it is an error that names it.

use serde_json::{Map, Value};

use super::block::{Block, Family, RopeScaling};
use crate::error::{Error, Result};
use crate::model::LlamaConfig;

/// Keys that change results and the only values (as JSON) that are computed here.
const FIXED: [(&str, &[&str]); 15] = [
    ("add_cross_attention", &["false"]),
    ("attention_dropout", &["0.0", "0"]),
    ("chunk_size_feed_forward", &["0"]),
    ("hidden_act", &["\"silu\"", "\"swish\""]),
    ("is_encoder_decoder", &["false"]),
    ("partial_rotary_factor", &["1.0", "1"]),
    ("pretraining_tp", &["1"]),
    ("pruned_heads", &["{}"]),
    ("resid_pdrop", &["0.0", "0"]),
    ("rope_interleaved", &["false"]),
    ("tie_encoder_decoder", &["false"]),
    ("tie_weights", &["true"]),
    ("torchscript", &["false"]),
    ("use_bfloat16", &["false"]),
    ("use_mrope", &["false"]),
];

/// Keys that every family has and that are computed.
const COMPUTED: [&str; 17] = [
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
];

/// Keys that change no logit: where a model comes from, how a file was stored, what `generate` and heads of other tasks read.
const HARMLESS: [&str; 56] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_version",
    "use_cache",
];

/// Keys inside `rope_parameters` and `rope_scaling`.
const ROPE: [&str; 8] = [
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "type",
];

/// Keys that not all families have.
fn own_keys(family: Family) -> &'static [&'static str] {
    match family {
        Family::Llama => &["attention_bias", "mlp_bias"],
        Family::Mistral => &["sliding_window"],
        Family::Qwen2 => &["layer_types", "max_window_layers", "sliding_window", "use_sliding_window"],
        Family::Qwen3 => &["attention_bias", "layer_types", "max_window_layers", "sliding_window", "use_sliding_window"],
    }
}

/// What `config.json` says.
pub(super) fn read(text: &str) -> Result<LlamaConfig> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("not valid JSON: {e}")))?;
    let keys = Keys(value.as_object().ok_or_else(|| Error::input("a JSON object is expected"))?);
    let family = keys.family()?;
    keys.refuse_unsupported(family)?;
    let (hidden_size, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let head_dim = if family == Family::Qwen3 { 128 } else { hidden_size / heads };
    let context = match family {
        Family::Llama => 2048,
        Family::Mistral => 4096 * 32,
        Family::Qwen2 | Family::Qwen3 => 32_768,
    };
    // Where the key is missing, transformers takes a number that fits its largest model only.
    let kv_heads = match family == Family::Llama || keys.0.contains_key("num_key_value_heads") {
        true => keys.count_or("num_key_value_heads", heads)?,
        false => keys.count("num_key_value_heads")?,
    };
    let layers = keys.count("num_hidden_layers")?;
    let (rope_theta, rope_scaling) = keys.rope()?;
    let config = LlamaConfig {
        family,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: keys.count_or("head_dim", head_dim)?,
        max_position_embeddings: keys.count_or("max_position_embeddings", context)?,
        rms_norm_eps: keys.number_or("rms_norm_eps", 1e-6)?,
        rope_theta,
        initializer_range: keys.number_or("initializer_range", 0.02)?,
        tie_word_embeddings: keys.flag_or("tie_word_embeddings", false)?,
        bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
        eos_token_id: keys.tokens("eos_token_id")?,
        pad_token_id: keys.tokens("pad_token_id")?.first().copied(),
        block: Block {
            qkv_bias: family == Family::Qwen2 || keys.flag_or("attention_bias", false)?,
            output_bias: keys.flag_or("attention_bias", false)?,
            mlp_bias: keys.flag_or("mlp_bias", false)?,
            qk_norm: family == Family::Qwen3,
            windows: keys.windows(family, layers)?,
            rope_scaling,
        },
    };
    config.check()?;
    Ok(config)
}

/// The keys of a JSON object, with errors that name them.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn family(&self) -> Result<Family> {
        let names = Family::ALL.map(Family::name).join(", ");
        let Some(found) = self.0.get("model_type") else {
            return Err(Error::input("`model_type` is missing").help(format!("the families that are computed are {names}")));
        };
        Family::ALL.into_iter().find(|f| found.as_str() == Some(f.name())).ok_or_else(|| {
            Error::input(format!("`model_type` = {found} is not supported"))
                .help(format!("the families that are computed are {names}"))
        })
    }

    fn refuse_unsupported(&self, family: Family) -> Result<()> {
        for (key, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            if let Some((_, allowed)) = FIXED.iter().find(|(fixed, _)| fixed == key) {
                if !allowed.contains(&value.to_string().as_str()) {
                    return Err(Error::input(format!("`{key}` = {value} is not supported"))
                        .help(format!("this implementation computes {key} = {}", allowed[0])));
                }
                continue;
            }
            let known = [&COMPUTED[..], &HARMLESS, own_keys(family), &["rope_scaling"]];
            if !known.iter().any(|keys| keys.contains(&key.as_str())) {
                return Err(Error::input(format!("`{key}` = {value} is not known for a model of type \"{}\"", family.name()))
                    .help("what is not known may change results; if it changes none, take it out of config.json"));
            }
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

    fn positive(&self, key: &str) -> Result<f64> {
        match self.0.get(key).and_then(Value::as_f64) {
            Some(number) if number > 0.0 => Ok(number),
            _ => self.wrong(key, "a positive number"),
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

    /// [`Block::windows`]: Mistral's window is every layer's, Qwen's that of the layers that `layer_types` names, or of those from
    /// `max_window_layers` on.
    fn windows(&self, family: Family, layers: usize) -> Result<Vec<Option<usize>>> {
        let sliding: Vec<bool> = match family {
            Family::Llama => return Ok(Vec::new()),
            Family::Mistral if self.0.contains_key("sliding_window") => vec![self.given("sliding_window"); layers],
            // transformers takes 4096 where the key is missing.
            Family::Mistral => return Ok(vec![Some(4096); layers]),
            Family::Qwen2 | Family::Qwen3 => self.sliding_layers(layers)?,
        };
        if !sliding.contains(&true) {
            return Ok(Vec::new());
        }
        let window = self.count("sliding_window")?;
        Ok(sliding.into_iter().map(|slides| slides.then_some(window)).collect())
    }

    /// Which of Qwen's layers have the window.
    fn sliding_layers(&self, layers: usize) -> Result<Vec<bool>> {
        let used = self.flag_or("use_sliding_window", false)?;
        if !self.given("layer_types") {
            let first = match self.0.get("max_window_layers") {
                _ if !used => layers as u64,
                None | Some(Value::Null) => 28,
                Some(first) => first.as_u64().map_or_else(|| self.wrong("max_window_layers", "a whole number"), Ok)?,
            };
            return Ok((0..layers as u64).map(|layer| layer >= first).collect());
        }
        let slides = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Some(false),
            Some("sliding_attention") if used => Some(true),
            _ => None,
        };
        let types = self.0["layer_types"].as_array().and_then(|types| types.iter().map(slides).collect::<Option<Vec<bool>>>());
        match types {
            Some(types) if types.len() == layers => Ok(types),
            _ => self.wrong(
                "layer_types",
                "\"full_attention\" for each layer, or \"sliding_attention\" where use_sliding_window is true,",
            ),
        }
    }

    /// From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).
    fn rope(&self) -> Result<(f64, Option<RopeScaling>)> {
        let (mut theta, mut scaling) = (self.number_or("rope_theta", 10_000.0)?, None);
        for key in ["rope_parameters", "rope_scaling"] {
            let rope = match self.0.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::Object(rope)) => rope,
                Some(_) => return self.wrong(key, "an object"),
            };
            if let Some((unknown, value)) = rope.iter().find(|(k, v)| !ROPE.contains(&k.as_str()) && !v.is_null()) {
                return Err(Error::input(format!("`{unknown}` = {value} in `{key}` is not supported")));
            }
            let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
            let rope = Keys(rope);
            if rope.number_or("partial_rotary_factor", 1.0)? != 1.0 {
                return Err(Error::input(format!("`partial_rotary_factor` in `{key}` is not supported")));
            }
            theta = rope.number_or("rope_theta", theta)?;
            scaling = rope.scaling(kind, key)?.or(scaling);
        }
        Ok((theta, scaling))
    }

    fn scaling(&self, kind: &str, key: &str) -> Result<Option<RopeScaling>> {
        Ok(Some(match kind {
            "default" => return Ok(None),
            "linear" => RopeScaling::Linear { factor: self.positive("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: self.positive("factor")?,
                low_freq_factor: self.positive("low_freq_factor")?,
                high_freq_factor: self.positive("high_freq_factor")?,
                original_max_position_embeddings: self.positive("original_max_position_embeddings")?,
            },
            _ => {
                return Err(Error::input(format!("`{key}` of type \"{kind}\" is not supported"))
                    .help("this implementation computes rope_type \"default\", \"linear\" and \"llama3\""));
            }
        }))
    }
}
