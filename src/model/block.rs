//! What one family's transformer block has that another's lacks: the description that the passes are driven by.

use std::f64::consts::PI;

pub use crate::numerics::gelu::Gelu;
pub use crate::numerics::mlp::Gated;
use crate::numerics::rope;

/// The families whose models can be trained, by `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Llama 2 and 3, SmolLM, TinyLlama and others under this type.
    #[default]
    Llama,
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    Qwen3,
    Gpt2,
    /// Pythia among others.
    GptNeoX,
    /// Phi-1, Phi-1.5 and Phi-2.
    Phi,
    Gemma,
    Gemma2,
    /// The text model alone.
    Gemma3,
}

impl Family {
    pub const ALL: [Self; 10] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gpt2,
        Self::GptNeoX,
        Self::Phi,
        Self::Gemma,
        Self::Gemma2,
        Self::Gemma3,
    ];

    /// `model_type` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gpt2 => "gpt2",
            Self::GptNeoX => "gpt_neox",
            Self::Phi => "phi",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// Its class in transformers of a causal language model, and of a model with one scalar output.
    pub(super) fn classes(self) -> [&'static str; 2] {
        match self {
            Self::Llama => ["LlamaForCausalLM", "LlamaForSequenceClassification"],
            Self::Mistral => ["MistralForCausalLM", "MistralForSequenceClassification"],
            Self::Qwen2 => ["Qwen2ForCausalLM", "Qwen2ForSequenceClassification"],
            Self::Qwen3 => ["Qwen3ForCausalLM", "Qwen3ForSequenceClassification"],
            Self::Gpt2 => ["GPT2LMHeadModel", "GPT2ForSequenceClassification"],
            Self::GptNeoX => ["GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification"],
            Self::Phi => ["PhiForCausalLM", "PhiForSequenceClassification"],
            Self::Gemma => ["GemmaForCausalLM", "GemmaForSequenceClassification"],
            Self::Gemma2 => ["Gemma2ForCausalLM", "Gemma2ForSequenceClassification"],
            Self::Gemma3 => ["Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"],
        }
    }
}

/// Where a transformer block, and what stands before and after the blocks, differs from Llama's; the default differs nowhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Biases of the query, key and value projections.
    pub qkv_bias: bool,
    /// A bias of the projection that follows attention.
    pub output_bias: bool,
    /// Biases of the MLP's projections.
    pub mlp_bias: bool,
    /// A bias of the head.
    pub head_bias: bool,
    /// A norm over each head of queries and keys, before the rotary turn.
    pub qk_norm: bool,
    pub norm: Norm,
    pub mlp: Mlp,
    pub residual: Residual,
    pub positions: Positions,
    /// For each layer how many keys a query sees, its own included; none: all. Empty where no layer has a window.
    pub windows: Vec<Option<usize>>,
    /// Every token sees its whole sequence, those after it too: an encoder, which gives scores and no next token (`is_causal` false).
    pub bidirectional: bool,
    pub rope_scaling: Option<RopeScaling>,
    /// θ of the layers that have a window, which know no scaling; none: that of all layers.
    pub window_rope_theta: Option<f64>,
    /// Scores are divided by its root; none: `head_dim`.
    pub query_pre_attn_scalar: Option<f64>,
    /// What attention scores, and what logits are soft-capped at.
    pub score_cap: Option<f64>,
    pub logit_cap: Option<f64>,
    /// Token embeddings are multiplied by √hidden on their way in.
    pub scaled_embeddings: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Norm {
    #[default]
    Rms,
    /// RMSNorm whose weight is stored less one.
    RmsOfOnePlus,
    Layer,
}

/// The MLP between its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// Two products before it.
    Gated(Gated),
    /// One product before it.
    Gelu(Gelu),
}

impl Default for Mlp {
    fn default() -> Self {
        Self::Gated(Gated::SwiGlu)
    }
}

/// How attention and MLP join the residual stream x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// m = x + attention(norm(x)), then m + mlp(norm(m)).
    #[default]
    Sequential,
    /// x + attention(norm(x)) + mlp(norm(x)), each with its own norm, or under one name.
    Parallel,
    /// m = x + norm(attention(norm(x))), then m + norm(mlp(norm(m))).
    NormedBranches,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Positions {
    /// The first `share` of each head's elements is turned by position.
    #[default]
    Rotary,
    PartlyRotary {
        share: f64,
    },
    /// A learned vector is added to each token's embedding.
    Learned,
}

/// How the rotary frequencies of a context that was lengthened after pretraining follow from the plain ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All divided by a factor: positions are interpolated (Chen et al. 2023, arXiv 2306.15595).
    Linear { factor: f64 },
    /// Llama 3.1's: long waves are divided by the factor, short ones stay, between them there is a ramp (Grattafiori et al. 2024, arXiv
    /// 2407.21783, as transformers computes it).
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: f64 },
}

impl RopeScaling {
    fn scaled(&self, frequency: f64) -> f64 {
        match *self {
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context } => {
                // How often the wave fits into the original context.
                let turns = context * frequency / (2.0 * PI);
                if turns < low {
                    frequency / factor
                } else if turns > high {
                    frequency
                } else {
                    let short = (turns - low) / (high - low);
                    (1.0 - short) * frequency / factor + short * frequency
                }
            }
        }
    }
}

/// Radians a position for each pair of the `turned` first elements of a head (Su et al. 2021).
pub(crate) fn frequencies(turned: usize, theta: f64, scaling: Option<&RopeScaling>) -> Vec<f64> {
    let plain = rope::frequencies(turned, theta);
    match scaling {
        None => plain,
        Some(scaling) => plain.into_iter().map(|f| scaling.scaled(f)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_divides_long_waves_keeps_short_ones_and_is_continuous_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let of_turns = |turns: f64| 2.0 * PI * turns / 8192.0;
        assert_eq!(scaling.scaled(of_turns(0.5)), of_turns(0.5) / 8.0);
        assert_eq!(scaling.scaled(of_turns(5.0)), of_turns(5.0));
        for (turns, share) in [(1.0, 1.0 / 8.0), (4.0, 1.0), (2.5, 0.5 * (1.0 + 1.0 / 8.0))] {
            assert!((scaling.scaled(of_turns(turns)) / of_turns(turns) - share).abs() < 1e-12, "{turns}");
        }
    }
}
