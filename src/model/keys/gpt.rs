//! GPT-2, GPT-NeoX and Phi: LayerNorm, an MLP of two products, biases.

use super::{Keys, Rope};
use crate::error::{Error, Result};
use crate::model::LlamaConfig;
use crate::model::block::{Block, Family, Gelu, Mlp, Norm, Positions, Residual};

struct Sizes {
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    context: usize,
}

pub(super) fn gpt2(keys: &Keys) -> Result<LlamaConfig> {
    let (hidden, heads) = (keys.count_or("n_embd", 768)?, keys.count_or("n_head", 12)?);
    let sizes = Sizes {
        hidden,
        inner: keys.count_or("n_inner", 4 * hidden)?,
        layers: keys.count_or("n_layer", 12)?,
        heads,
        kv_heads: heads,
        context: keys.count_or("n_positions", 1024)?,
    };
    let block = Block {
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        norm: Norm::Layer,
        mlp: Mlp::Gelu(keys.gelu("activation_function", Gelu::Tanh)?),
        positions: Positions::Learned,
        ..Block::default()
    };
    Ok(LlamaConfig {
        rms_norm_eps: keys.number_or("layer_norm_epsilon", 1e-5)?,
        tie_word_embeddings: keys.flag_or("tie_word_embeddings", true)?,
        ..keys.with_layer_norm(Family::Gpt2, &sizes, block)?
    })
}

pub(super) fn gpt_neox(keys: &Keys) -> Result<LlamaConfig> {
    let (sizes, rope) = (keys.sizes()?, keys.rope()?);
    let share = keys.share(&rope, &["rotary_pct", "partial_rotary_factor"], 0.25)?;
    let bias = keys.flag_or("attention_bias", true)?;
    let block = Block {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: true,
        norm: Norm::Layer,
        mlp: Mlp::Gelu(keys.gelu("hidden_act", Gelu::Exact)?),
        residual: if keys.flag_or("use_parallel_residual", true)? { Residual::Parallel } else { Residual::Sequential },
        positions: turned(share),
        rope_scaling: rope.scaling,
        ..Block::default()
    };
    let rope_theta = rope.theta.or(keys.number("rotary_emb_base")?).unwrap_or(10_000.0);
    Ok(LlamaConfig { rope_theta, ..keys.with_layer_norm(Family::GptNeoX, &sizes, block)? })
}

pub(super) fn phi(keys: &Keys) -> Result<LlamaConfig> {
    let (sizes, rope) = (keys.sizes()?, keys.rope()?);
    let sizes = Sizes { kv_heads: keys.count_or("num_key_value_heads", sizes.heads)?, ..sizes };
    let block = Block {
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        head_bias: true,
        norm: Norm::Layer,
        mlp: Mlp::Gelu(keys.gelu("hidden_act", Gelu::Tanh)?),
        residual: Residual::Parallel,
        positions: turned(keys.share(&rope, &["partial_rotary_factor"], 0.5)?),
        rope_scaling: rope.scaling,
        ..Block::default()
    };
    let rope_theta = rope.theta.unwrap_or(10_000.0);
    Ok(LlamaConfig { rope_theta, ..keys.with_layer_norm(Family::Phi, &sizes, block)? })
}

fn turned(share: f64) -> Positions {
    if share == 1.0 { Positions::Rotary } else { Positions::PartlyRotary { share } }
}

impl Keys<'_> {
    /// The sizes under their usual names.
    fn sizes(&self) -> Result<Sizes> {
        let heads = self.count("num_attention_heads")?;
        Ok(Sizes {
            hidden: self.count("hidden_size")?,
            inner: self.count("intermediate_size")?,
            layers: self.count("num_hidden_layers")?,
            heads,
            kv_heads: heads,
            context: self.count_or("max_position_embeddings", 2048)?,
        })
    }

    /// What the three have in common.
    fn with_layer_norm(&self, family: Family, sizes: &Sizes, block: Block) -> Result<LlamaConfig> {
        if !sizes.hidden.is_multiple_of(sizes.heads) {
            let message = format!("a width of {} is no multiple of {} attention heads", sizes.hidden, sizes.heads);
            return Err(Error::input(message));
        }
        Ok(LlamaConfig {
            family,
            vocab_size: self.count("vocab_size")?,
            hidden_size: sizes.hidden,
            intermediate_size: sizes.inner,
            num_hidden_layers: sizes.layers,
            num_attention_heads: sizes.heads,
            num_key_value_heads: sizes.kv_heads,
            head_dim: sizes.hidden / sizes.heads,
            max_position_embeddings: sizes.context,
            rms_norm_eps: self.number_or("layer_norm_eps", 1e-5)?,
            rope_theta: 10_000.0,
            initializer_range: self.number_or("initializer_range", 0.02)?,
            tie_word_embeddings: self.flag_or("tie_word_embeddings", false)?,
            bos_token_id: self.tokens("bos_token_id")?.first().copied(),
            eos_token_id: self.tokens("eos_token_id")?,
            pad_token_id: self.tokens("pad_token_id")?.first().copied(),
            block,
        })
    }

    /// Which share of a head is turned: in the rope object (transformers 5), or under one of `keys` (4); they must agree.
    fn share(&self, rope: &Rope, keys: &[&str], default: f64) -> Result<f64> {
        let mut share = rope.share;
        for key in keys {
            let Some(own) = self.number(key)? else { continue };
            if share.is_some_and(|share| share != own) {
                return self.wrong(key, &format!("{} as in the rope parameters", share.unwrap_or(own)));
            }
            share = Some(own);
        }
        Ok(share.unwrap_or(default))
    }
}
