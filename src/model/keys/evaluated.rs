//! Families that candle-transformers computes, for evaluation alone: what of `config.json` it makes of them, and what it would pass over.

use serde_json::{Map, Value, json};

use super::{Keys, SIZES};
use crate::error::{Error, Result};
use crate::model::Limits;

/// Those whose logits in candle-transformers are those of transformers (`golden/evaluated`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theirs {
    Glm4,
    Helium,
    Mixtral,
    Olmo,
    Olmo2,
    Phi3,
    Qwen2Moe,
    Qwen3Moe,
    SmolLm3,
    StableLm,
    Starcoder2,
}

impl Theirs {
    pub const ALL: [Self; 11] = [
        Self::Glm4,
        Self::Helium,
        Self::Mixtral,
        Self::Olmo,
        Self::Olmo2,
        Self::Phi3,
        Self::Qwen2Moe,
        Self::Qwen3Moe,
        Self::SmolLm3,
        Self::StableLm,
        Self::Starcoder2,
    ];

    /// `model_type` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glm4 => "glm4",
            Self::Helium => "helium",
            Self::Mixtral => "mixtral",
            Self::Olmo => "olmo",
            Self::Olmo2 => "olmo2",
            Self::Phi3 => "phi3",
            Self::Qwen2Moe => "qwen2_moe",
            Self::Qwen3Moe => "qwen3_moe",
            Self::SmolLm3 => "smollm3",
            Self::StableLm => "stablelm",
            Self::Starcoder2 => "starcoder2",
        }
    }

    /// Keys that are computed beyond those of all families.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Glm4 => &["attention_bias", "head_dim", "partial_rotary_factor", "rms_norm_eps", "sliding_window"],
            Self::Helium => &["attention_bias", "head_dim", "mlp_bias", "rms_norm_eps"],
            Self::Mixtral => &["num_experts_per_tok", "num_local_experts", "rms_norm_eps", "sliding_window"],
            Self::Olmo => &["attention_bias", "clip_qkv"],
            Self::Olmo2 => &["attention_bias", "rms_norm_eps"],
            Self::Phi3 => &["partial_rotary_factor", "rms_norm_eps", "sliding_window"],
            Self::Qwen2Moe => &[
                "decoder_sparse_step",
                "layer_types",
                "max_window_layers",
                "moe_intermediate_size",
                "norm_topk_prob",
                "num_experts",
                "num_experts_per_tok",
                "rms_norm_eps",
                "shared_expert_intermediate_size",
                "sliding_window",
                "use_sliding_window",
            ],
            Self::Qwen3Moe => &[
                "attention_bias",
                "decoder_sparse_step",
                "head_dim",
                "layer_types",
                "max_window_layers",
                "moe_intermediate_size",
                "norm_topk_prob",
                "num_experts",
                "num_experts_per_tok",
                "num_local_experts",
                "rms_norm_eps",
                "sliding_window",
                "use_sliding_window",
            ],
            Self::SmolLm3 => &[
                "attention_bias",
                "layer_types",
                "max_window_layers",
                "mlp_bias",
                "no_rope_layer_interval",
                "no_rope_layers",
                "rms_norm_eps",
                "sliding_window",
                "use_sliding_window",
            ],
            Self::StableLm => &["layer_norm_eps", "partial_rotary_factor", "use_qkv_bias"],
            Self::Starcoder2 => &["hidden_act", "norm_epsilon", "sliding_window", "use_bias"],
        }
    }

    /// Keys that change results and the only value that candle-transformers computes.
    fn fixed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Qwen2Moe => &[("mlp_only_layers", "[]"), ("qkv_bias", "true")],
            Self::Qwen3Moe => &[("mlp_only_layers", "[]")],
            Self::StableLm => &[("use_parallel_residual", "false")],
            Self::Starcoder2 => &[("mlp_type", "\"default\""), ("norm_type", "\"layer_norm\"")],
            _ => &[],
        }
    }

    /// Keys without which candle-transformers assumes something else than transformers does, or that differ from model to model.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Glm4 => &["head_dim"],
            _ => &[],
        }
    }

    /// What transformers takes for `tie_word_embeddings` where it isn't written.
    fn is_tied(self) -> bool {
        matches!(self, Self::SmolLm3 | Self::Starcoder2)
    }
}

/// Dropout, which evaluation has none of, and what routers are trained with.
const HARMLESS: [&str; 12] = [
    "attention_dropout",
    "attention_softmax_in_fp32",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "original_max_position_embeddings",
    "output_router_logits",
    "resid_pdrop",
    "residual_dropout",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "scale_attention_softmax_in_fp32",
];

/// What `config.json` says of a model that is evaluated alone.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluatedConfig {
    pub family: Theirs,
    pub limits: Limits,
    pub tie_word_embeddings: bool,
    /// With the names and types that candle-transformers reads.
    pub json: Value,
}

/// None: a model of another kind.
pub fn read(text: &str) -> Result<Option<EvaluatedConfig>> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("not valid JSON: {e}")))?;
    let object = value.as_object().ok_or_else(|| Error::input("a JSON object is expected"))?;
    let named = |family: &Theirs| object.get("model_type").and_then(Value::as_str) == Some(family.name());
    Theirs::ALL.into_iter().find(named).map(|family| of_family(family, object)).transpose()
}

fn of_family(family: Theirs, object: &Map<String, Value>) -> Result<EvaluatedConfig> {
    let keys = Keys(object);
    refuse_unsupported(family, &keys)?;
    for key in family.required() {
        keys.count(key)?;
    }
    for key in ["clip_qkv", "layer_norm_eps", "norm_epsilon", "rms_norm_eps"] {
        keys.number(key)?;
    }
    if family != Theirs::Glm4 && family != Theirs::Helium && family != Theirs::Qwen3Moe {
        let width = keys.count("hidden_size")? / keys.count("num_attention_heads")?;
        if keys.count_or("head_dim", width)? != width {
            return keys.wrong("head_dim", &format!("{width}, hidden_size by num_attention_heads,"));
        }
    }
    let rope = keys.rope()?;
    if rope.scaling.is_some() {
        return Err(Error::input(format!("RoPE scaling of a model of type \"{}\" is not supported", family.name())));
    }
    let theta = rope.theta.map_or_else(|| keys.wrong("rope_theta", "a positive number"), Ok)?;
    let share = rope.share.or(keys.number("partial_rotary_factor")?);
    if share.is_none() && [Theirs::Glm4, Theirs::StableLm].contains(&family) {
        return keys.wrong("partial_rotary_factor", "a number");
    }
    let context = context(&keys)?;
    let tied = keys.flag_or("tie_word_embeddings", family.is_tied())?;
    let mut json = object.clone();
    let mut set = |key: &str, value: Value| json.insert(key.to_owned(), value);
    set("rope_theta", json!(theta));
    // A part that is all of it is none to candle, but where it must be a number.
    let part = share.filter(|share| *share < 1.0 || family == Theirs::StableLm);
    set("partial_rotary_factor", part.map_or(Value::Null, Value::from));
    // Nothing longer than the window is read, so there is none.
    set("sliding_window", if family.needs_window() { json!(context) } else { Value::Null });
    set("use_sliding_window", json!(false));
    set("max_window_layers", json!(0));
    // As many positions as candle tabulates.
    set("max_position_embeddings", json!(context));
    set("tie_word_embeddings", json!(tied));
    set("use_cache", json!(true));
    // Their types differ, and no logit depends on them.
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        set(key, json!(0));
    }
    for key in ["rope_scaling", "rope_parameters"] {
        set(key, Value::Null);
    }
    if family == Theirs::Qwen3Moe && keys.given("num_local_experts") {
        // Another name for the same number, the one that transformers 5 writes.
        let experts = keys.count("num_local_experts")?;
        if keys.count_or("num_experts", experts)? != experts {
            return keys.wrong("num_experts", &format!("num_local_experts = {experts}"));
        }
        set("num_experts", json!(experts));
    }
    if family == Theirs::SmolLm3 && !keys.given("no_rope_layers") && !keys.given("no_rope_layer_interval") {
        // As transformers has it.
        set("no_rope_layer_interval", json!(4));
    }
    let limits = Limits { vocab_size: keys.count("vocab_size")?, context };
    Ok(EvaluatedConfig { family, limits, tie_word_embeddings: tied, json: Value::Object(json) })
}

fn refuse_unsupported(family: Theirs, keys: &Keys) -> Result<()> {
    let mut own = [&SIZES[..], &["head_dim", "num_key_value_heads", "rope_parameters", "rope_scaling", "rope_theta"]].concat();
    own.extend(family.own_keys());
    for (key, allowed) in family.fixed() {
        own.push(key);
        if let Some(value) = keys.0.get(*key)
            && !value.is_null()
            && value.to_string().as_str() != *allowed
        {
            return Err(Error::input(format!("`{key}` = {value} is not supported"))
                .help(format!("candle-transformers computes {key} = {allowed}")));
        }
    }
    keys.refuse_unsupported(family.name(), &own, &HARMLESS)
}

/// How many tokens candle-transformers reads as transformers does: where layers have a window, candle passes over it when it decodes, and
/// takes one key too many otherwise; so sequences may not outgrow it.
fn context(keys: &Keys) -> Result<usize> {
    let positions = keys.count("max_position_embeddings")?;
    let local = |kind: &Value| kind.as_str() != Some("full_attention");
    let types = keys.0.get("layer_types").and_then(Value::as_array).is_some_and(|types| types.iter().any(local));
    let windowed = types || keys.flag_or("use_sliding_window", !keys.0.contains_key("use_sliding_window"))?;
    match keys.given("sliding_window") && windowed {
        true => Ok(positions.min(keys.count("sliding_window")?)),
        false if types => keys.wrong("sliding_window", "the window of layers that have one"),
        false => Ok(positions),
    }
}

impl Theirs {
    /// Whether candle wants a number for a window.
    fn needs_window(self) -> bool {
        matches!(self, Self::Mixtral | Self::Qwen2Moe)
    }
}
