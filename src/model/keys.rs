//! Reading `config.json`: every key that could change a result is computed, or it is an error that names it.

pub(super) mod evaluated;
mod gpt;
mod llama;

use serde_json::{Map, Value};

use self::evaluated::Theirs;
use super::block::{Family, Gelu, RopeScaling};
use crate::error::{Error, Result};
use crate::model::LlamaConfig;

/// Keys that change results and the only values (as JSON) that are computed here, in families that have no use of their own for them.
const FIXED: [(&str, &[&str]); 20] = [
    ("add_cross_attention", &["false"]),
    ("attention_dropout", &["0.0", "0"]),
    ("chunk_size_feed_forward", &["0"]),
    ("hidden_act", &["\"silu\"", "\"swish\""]),
    ("is_encoder_decoder", &["false"]),
    ("partial_rotary_factor", &["1.0", "1"]),
    ("pretraining_tp", &["1"]),
    ("pruned_heads", &["{}"]),
    ("qk_layernorm", &["false"]),
    ("reorder_and_upcast_attn", &["false"]),
    ("resid_pdrop", &["0.0", "0"]),
    ("rope_interleaved", &["false"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("scale_attn_weights", &["true"]),
    ("tie_encoder_decoder", &["false"]),
    ("tie_weights", &["true"]),
    ("torchscript", &["false"]),
    ("use_bfloat16", &["false"]),
    ("use_bidirectional_attention", &["false"]),
    ("use_mrope", &["false"]),
];

/// Keys that every family has and that are computed.
const COMPUTED: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
    "is_causal",
    "model_type",
    "pad_token_id",
    "tie_word_embeddings",
    "vocab_size",
];

/// Sizes under the names that most families have for them.
const SIZES: [&str; 5] =
    ["hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers"];

/// Those of Llama and whoever is built like it.
const LLAMA: [&str; 6] = ["head_dim", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta"];

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

/// Keys that are computed beyond [`COMPUTED`].
fn own_keys(family: Family) -> Vec<&'static str> {
    let (shapes, own): (&[&[&str]], &[&str]) = match family {
        Family::Llama => (&[&SIZES, &LLAMA], &["attention_bias", "mlp_bias"]),
        Family::Mistral => (&[&SIZES, &LLAMA], &["sliding_window"]),
        Family::Qwen2 => (&[&SIZES, &LLAMA], &["layer_types", "max_window_layers", "sliding_window", "use_sliding_window"]),
        Family::Qwen3 => {
            (&[&SIZES, &LLAMA], &["attention_bias", "layer_types", "max_window_layers", "sliding_window", "use_sliding_window"])
        }
        Family::Gemma => (&[&SIZES, &LLAMA], &["attention_bias", "hidden_act", "hidden_activation"]),
        Family::Gemma2 | Family::Gemma3 => (&[&SIZES, &LLAMA, &GEMMA], &[]),
        Family::Gpt2 => {
            (&[], &["activation_function", "layer_norm_epsilon", "n_embd", "n_head", "n_inner", "n_layer", "n_positions"])
        }
        Family::GptNeoX => (
            &[&SIZES],
            &[
                "attention_bias",
                "hidden_act",
                "layer_norm_eps",
                "partial_rotary_factor",
                "rope_parameters",
                "rope_scaling",
                "rope_theta",
                "rotary_emb_base",
                "rotary_pct",
                "use_parallel_residual",
            ],
        ),
        Family::Phi => (
            &[&SIZES],
            &[
                "hidden_act",
                "layer_norm_eps",
                "num_key_value_heads",
                "partial_rotary_factor",
                "rope_parameters",
                "rope_scaling",
                "rope_theta",
            ],
        ),
    };
    shapes.iter().copied().flatten().chain(own).copied().collect()
}

const GEMMA: [&str; 10] = [
    "attention_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "hidden_act",
    "hidden_activation",
    "layer_types",
    "query_pre_attn_scalar",
    "rope_local_base_freq",
    "sliding_window",
    "sliding_window_pattern",
];

/// Keys of one family that change no logit: dropout of its pretraining (training here has what the suite says, as TRL's `disable_dropout`
/// takes it away), and what heads of other tasks read.
fn harmless(family: Family) -> &'static [&'static str] {
    match family {
        Family::Gpt2 => &[
            "attn_pdrop",
            "embd_pdrop",
            "gradient_checkpointing",
            "n_ctx",
            "resid_pdrop",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ],
        Family::GptNeoX => &["attention_dropout", "hidden_dropout"],
        Family::Phi => &["attention_dropout", "embd_pdrop", "resid_pdrop"],
        Family::Gemma2 | Family::Gemma3 => &["_sliding_window_pattern", "cache_implementation"],
        _ => &[],
    }
}

/// What `config.json` says.
pub(super) fn read(text: &str) -> Result<LlamaConfig> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("not valid JSON: {e}")))?;
    let keys = Keys(value.as_object().ok_or_else(|| Error::input("a JSON object is expected"))?);
    let family = keys.family()?;
    keys.refuse_unsupported(family.name(), &own_keys(family), harmless(family))?;
    let mut config = match family {
        Family::Gpt2 => gpt::gpt2(&keys),
        Family::GptNeoX => gpt::gpt_neox(&keys),
        Family::Phi => gpt::phi(&keys),
        _ => llama::read(&keys, family),
    }?;
    config.block.bidirectional = !keys.flag_or("is_causal", true)?;
    config.check()?;
    Ok(config)
}

/// What a configuration says of rotary positions.
#[derive(Default)]
struct Rope {
    theta: Option<f64>,
    scaling: Option<RopeScaling>,
    /// Of each head's elements, the first ones of which are turned.
    share: Option<f64>,
}

/// The keys of a JSON object, with errors that name them.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn family(&self) -> Result<Family> {
        let names = Family::ALL.map(Family::name).join(", ");
        let Some(found) = self.0.get("model_type") else {
            return Err(Error::input("`model_type` is missing").help(format!("the families that are computed are {names}")));
        };
        if let Some(family) = Family::ALL.into_iter().find(|f| found.as_str() == Some(f.name())) {
            return Ok(family);
        }
        if let Some(theirs) = Theirs::ALL.into_iter().find(|f| found.as_str() == Some(f.name())) {
            return Err(Error::input(format!(
                "a model of type \"{}\" can only be evaluated: candle-transformers computes it, which has no gradients, and sums in no fixed order",
                theirs.name()
            ))
            .help("name it as [model] or as a variant's `checkpoint`, with numerics = \"fast\" and nothing that is trained over it"));
        }
        let evaluated = Theirs::ALL.map(Theirs::name).join(", ");
        Err(Error::input(format!("`model_type` = {found} is not supported")).help(format!(
            "the families that are computed are {names}; with numerics = \"fast\" models of {evaluated} can be evaluated"
        )))
    }

    /// An error that names a key which could change the result of a model of this type and isn't `own`, nor one of those that are computed
    /// or harmless in all.
    fn refuse_unsupported(&self, name: &str, own: &[&str], harmless: &[&str]) -> Result<()> {
        for (key, value) in self.0.iter().filter(|(_, value)| !value.is_null()) {
            if own.contains(&key.as_str()) || harmless.contains(&key.as_str()) {
                continue;
            }
            if let Some((_, allowed)) = FIXED.iter().find(|(fixed, _)| fixed == key) {
                if !allowed.contains(&value.to_string().as_str()) {
                    return Err(Error::input(format!("`{key}` = {value} is not supported"))
                        .help(format!("this implementation computes {key} = {}", allowed[0])));
                }
                continue;
            }
            if ![&COMPUTED[..], &HARMLESS].iter().any(|keys| keys.contains(&key.as_str())) {
                return Err(Error::input(format!("`{key}` = {value} is not known for a model of type \"{name}\""))
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

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map_or_else(|| self.wrong(key, "a number"), |number| Ok(Some(number))),
        }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A positive number; none where the key is null, the default where it is missing.
    fn positive_unless_null(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.positive(key).map(Some),
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

    /// From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).
    fn rope(&self) -> Result<Rope> {
        let mut all = Rope { theta: self.number("rope_theta")?, ..Rope::default() };
        for key in ["rope_parameters", "rope_scaling"] {
            let one = self.rope_in(key)?;
            all.theta = one.theta.or(all.theta);
            all.scaling = one.scaling.or(all.scaling);
            all.share = one.share.or(all.share);
        }
        Ok(all)
    }

    /// The rope object under this key; nothing where there is none.
    fn rope_in(&self, key: &str) -> Result<Rope> {
        let rope = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(Rope::default()),
            Some(Value::Object(rope)) => rope,
            Some(_) => return self.wrong(key, "an object"),
        };
        if let Some((unknown, value)) = rope.iter().find(|(k, v)| !ROPE.contains(&k.as_str()) && !v.is_null()) {
            return Err(Error::input(format!("`{unknown}` = {value} in `{key}` is not supported")));
        }
        let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        let rope = Keys(rope);
        Ok(Rope {
            theta: rope.number("rope_theta")?,
            scaling: rope.scaling(kind, key)?,
            share: rope.number("partial_rotary_factor")?,
        })
    }

    /// GELU's form under this key.
    fn gelu(&self, key: &str, default: Gelu) -> Result<Gelu> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(name) => match name.as_str() {
                Some("gelu") => Ok(Gelu::Exact),
                Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Gelu::Tanh),
                _ => self.wrong(key, "\"gelu\", \"gelu_new\" or \"gelu_pytorch_tanh\""),
            },
        }
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
