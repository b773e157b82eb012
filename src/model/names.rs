//! What each family calls the tensors that all of them have, as Hugging Face's files name them.

use super::block::Family;
use crate::suite::settings::Linear;

/// Names without a layer's number and without `.weight`.
pub(crate) struct Names {
    pub embedding: &'static str,
    /// Learned positions, where a family has such.
    pub positions: &'static str,
    /// What a layer's number stands after.
    pub layers: &'static str,
    pub attention_norm: &'static str,
    pub mlp_norm: &'static str,
    /// What attention and MLP give is normed by, where it is.
    pub branch_norms: [&'static str; 2],
    pub qkv: Qkv,
    /// The projection that follows attention.
    pub output: &'static str,
    /// Gate and up, or up alone.
    pub mlp_in: &'static [&'static str],
    pub mlp_out: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    /// The linear layers of a layer by the names that PEFT knows them by, in order.
    pub linears: &'static [(Linear, &'static str)],
}

/// How queries, keys and values are projected.
#[derive(Clone, Copy)]
pub(crate) enum Qkv {
    Apart([&'static str; 3]),
    /// By one matrix, whose outputs are all queries, then all keys, then all values.
    Thirds(&'static str),
    /// By one matrix, whose outputs are query, key and value of one head after the other.
    ByHead(&'static str),
}

/// Of queries and of keys.
pub(crate) const QK_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

const LLAMA: Names = Names {
    embedding: "model.embed_tokens",
    positions: "",
    layers: "model.layers",
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    branch_norms: ["", ""],
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    mlp_in: &["mlp.gate_proj", "mlp.up_proj"],
    mlp_out: "mlp.down_proj",
    final_norm: "model.norm",
    head: "lm_head",
    linears: &[
        (Linear::QProj, "self_attn.q_proj"),
        (Linear::KProj, "self_attn.k_proj"),
        (Linear::VProj, "self_attn.v_proj"),
        (Linear::OProj, "self_attn.o_proj"),
        (Linear::GateProj, "mlp.gate_proj"),
        (Linear::UpProj, "mlp.up_proj"),
        (Linear::DownProj, "mlp.down_proj"),
    ],
};

const GEMMA2: Names = Names {
    mlp_norm: "pre_feedforward_layernorm",
    branch_norms: ["post_attention_layernorm", "post_feedforward_layernorm"],
    ..LLAMA
};

const GPT2: Names = Names {
    embedding: "transformer.wte",
    positions: "transformer.wpe",
    layers: "transformer.h",
    attention_norm: "ln_1",
    mlp_norm: "ln_2",
    branch_norms: ["", ""],
    qkv: Qkv::Thirds("attn.c_attn"),
    output: "attn.c_proj",
    mlp_in: &["mlp.c_fc"],
    mlp_out: "mlp.c_proj",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    linears: &[
        (Linear::CAttn, "attn.c_attn"),
        (Linear::CProj, "attn.c_proj"),
        (Linear::CFc, "mlp.c_fc"),
        (Linear::CProj, "mlp.c_proj"),
    ],
};

const GPT_NEOX: Names = Names {
    embedding: "gpt_neox.embed_in",
    positions: "",
    layers: "gpt_neox.layers",
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    branch_norms: ["", ""],
    qkv: Qkv::ByHead("attention.query_key_value"),
    output: "attention.dense",
    mlp_in: &["mlp.dense_h_to_4h"],
    mlp_out: "mlp.dense_4h_to_h",
    final_norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    linears: &[
        (Linear::QueryKeyValue, "attention.query_key_value"),
        (Linear::Dense, "attention.dense"),
        (Linear::DenseHTo4h, "mlp.dense_h_to_4h"),
        (Linear::Dense4hToH, "mlp.dense_4h_to_h"),
    ],
};

/// Attention and MLP read one norm.
const PHI: Names = Names {
    mlp_norm: "input_layernorm",
    output: "self_attn.dense",
    mlp_in: &["mlp.fc1"],
    mlp_out: "mlp.fc2",
    final_norm: "model.final_layernorm",
    linears: &[
        (Linear::QProj, "self_attn.q_proj"),
        (Linear::KProj, "self_attn.k_proj"),
        (Linear::VProj, "self_attn.v_proj"),
        (Linear::Dense, "self_attn.dense"),
        (Linear::Fc1, "mlp.fc1"),
        (Linear::Fc2, "mlp.fc2"),
    ],
    ..LLAMA
};

impl Family {
    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Gemma => &LLAMA,
            Self::Gemma2 | Self::Gemma3 => &GEMMA2,
            Self::Gpt2 => &GPT2,
            Self::GptNeoX => &GPT_NEOX,
            Self::Phi => &PHI,
        }
    }

    /// Whether the matrices of its layers are stored as (inputs, outputs): GPT-2's `Conv1D`.
    pub(crate) fn stores_inputs_first(self) -> bool {
        self == Self::Gpt2
    }
}

impl Names {
    pub fn in_layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{layer}.{part}", self.layers)
    }
}
