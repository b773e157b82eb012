//! `config.json` as it is written: what [`super::keys`] reads, and transformers with it.

use serde_json::{Value, json};

use super::block::{Family, Gated, Gelu, Mlp, Positions, Residual, RopeScaling};
use crate::model::LlamaConfig;

/// Entries that one family adds, or has under another name.
fn extend(value: &mut Value, entries: Value) {
    let (Value::Object(all), Value::Object(entries)) = (value, entries) else { unreachable!("two objects") };
    all.extend(entries);
}

impl LlamaConfig {
    /// `config.json` of a causal language model.
    pub fn causal_json(&self) -> String {
        self.to_json(false)
    }

    /// `config.json` of a model with one scalar output.
    pub fn scorer_json(&self) -> String {
        self.to_json(true)
    }

    fn to_json(&self, scorer: bool) -> String {
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let mut value = json!({
            "architectures": [self.family.classes()[usize::from(scorer)]],
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "initializer_range": self.initializer_range,
            "model_type": self.family.name(),
            "pad_token_id": self.pad_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match self.family {
            Family::Gpt2 => extend(&mut value, self.gpt2()),
            Family::GptNeoX => {
                extend(&mut value, self.sizes());
                extend(&mut value, self.gpt_neox());
            }
            Family::Phi => {
                extend(&mut value, self.sizes());
                extend(&mut value, self.phi());
            }
            _ => {
                extend(&mut value, self.sizes());
                extend(&mut value, self.like_llama());
                self.own_keys(&mut value);
            }
        }
        if self.block.bidirectional {
            value["is_causal"] = json!(false);
        }
        if let Some(scaling) = self.scaling() {
            value["rope_scaling"] = scaling;
        }
        if scorer {
            value["id2label"] = json!({"0": "LABEL_0"});
            value["label2id"] = json!({"LABEL_0": 0});
        }
        serde_json::to_string_pretty(&value).expect("JSON values serialise") + "\n"
    }

    fn sizes(&self) -> Value {
        json!({
            "attention_dropout": 0.0,
            "hidden_act": self.activation(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
        })
    }

    fn activation(&self) -> &'static str {
        match self.block.mlp {
            Mlp::Gated(Gated::SwiGlu) => "silu",
            Mlp::Gated(Gated::GeGlu) => "gelu_pytorch_tanh",
            Mlp::Gelu(Gelu::Exact) => "gelu",
            Mlp::Gelu(Gelu::Tanh) => "gelu_new",
        }
    }

    fn like_llama(&self) -> Value {
        json!({
            "head_dim": self.head_dim,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
        })
    }

    fn gpt2(&self) -> Value {
        json!({
            "activation_function": self.activation(),
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "layer_norm_epsilon": self.rms_norm_eps,
            "n_embd": self.hidden_size,
            "n_head": self.num_attention_heads,
            "n_inner": self.intermediate_size,
            "n_layer": self.num_hidden_layers,
            "n_positions": self.max_position_embeddings,
            "resid_pdrop": 0.0,
        })
    }

    fn gpt_neox(&self) -> Value {
        json!({
            "attention_bias": self.block.qkv_bias,
            "hidden_dropout": 0.0,
            "layer_norm_eps": self.rms_norm_eps,
            "rotary_emb_base": self.rope_theta,
            "rotary_pct": self.share(),
            "use_parallel_residual": self.block.residual == Residual::Parallel,
        })
    }

    fn phi(&self) -> Value {
        json!({
            "embd_pdrop": 0.0,
            "layer_norm_eps": self.rms_norm_eps,
            "num_key_value_heads": self.num_key_value_heads,
            "partial_rotary_factor": self.share(),
            "resid_pdrop": 0.0,
            "rope_theta": self.rope_theta,
        })
    }

    fn share(&self) -> f64 {
        match self.block.positions {
            Positions::PartlyRotary { share } => share,
            Positions::Rotary | Positions::Learned => 1.0,
        }
    }

    /// The keys that not all families like Llama have, and those that a plain model leaves out.
    fn own_keys(&self, value: &mut Value) {
        let block = &self.block;
        if !matches!(self.family, Family::Mistral | Family::Qwen2) {
            value["attention_bias"] = json!(block.output_bias);
        }
        if self.family == Family::Llama {
            value["mlp_bias"] = json!(block.mlp_bias);
        }
        let window = block.windows.iter().flatten().next();
        match self.family {
            Family::Mistral => value["sliding_window"] = json!(window),
            Family::Qwen2 | Family::Qwen3 => {
                value["use_sliding_window"] = json!(window.is_some());
                value["sliding_window"] = json!(window);
                let first = (0..self.num_hidden_layers).find(|layer| self.window(*layer).is_some());
                value["max_window_layers"] = json!(first.unwrap_or(self.num_hidden_layers));
                value["layer_types"] = self.layer_types();
            }
            Family::Gemma => value["hidden_activation"] = json!(self.activation()),
            Family::Gemma2 | Family::Gemma3 => {
                value["hidden_activation"] = json!(self.activation());
                value["query_pre_attn_scalar"] = whole(block.query_pre_attn_scalar);
                value["attn_logit_softcapping"] = json!(block.score_cap);
                value["final_logit_softcapping"] = json!(block.logit_cap);
                value["sliding_window"] = json!(window.unwrap_or(&4096));
                value["layer_types"] = self.layer_types();
            }
            _ => {}
        }
        if let Some(theta) = block.window_rope_theta {
            value["rope_local_base_freq"] = json!(theta);
        }
    }

    fn layer_types(&self) -> Value {
        let name = |layer| if self.window(layer).is_some() { "sliding_attention" } else { "full_attention" };
        (0..self.num_hidden_layers).map(name).collect()
    }

    fn scaling(&self) -> Option<Value> {
        Some(match self.block.rope_scaling? {
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings as u64,
            }),
        })
    }
}

/// A number as transformers wants it: whole ones without a point.
fn whole(number: Option<f64>) -> Value {
    number.map_or(Value::Null, |n| if n.fract() == 0.0 { json!(n as u64) } else { json!(n) })
}
