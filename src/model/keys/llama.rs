//! Llama and whoever is built like it: Mistral, Qwen, Gemma.

use serde_json::Value;

use super::{Keys, Rope};
use crate::error::{Error, Result};
use crate::model::LlamaConfig;
use crate::model::block::{Block, Family, Gated, Gelu, Mlp, Norm, Residual};

pub(super) fn read(keys: &Keys, family: Family) -> Result<LlamaConfig> {
    let gemma = matches!(family, Family::Gemma | Family::Gemma2 | Family::Gemma3);
    let (hidden_size, heads) = (keys.count("hidden_size")?, keys.count("num_attention_heads")?);
    let head_dim = match family {
        Family::Qwen3 => 128,
        _ if gemma => 256,
        _ => hidden_size / heads,
    };
    let context = match family {
        Family::Mistral | Family::Gemma3 => 4096 * 32,
        Family::Qwen2 | Family::Qwen3 => 32_768,
        Family::Gemma | Family::Gemma2 => 8192,
        _ => 2048,
    };
    // Where the key is missing, transformers takes a number that fits its largest model only.
    let kv_heads = match family == Family::Llama || keys.0.contains_key("num_key_value_heads") {
        true => keys.count_or("num_key_value_heads", heads)?,
        false => keys.count("num_key_value_heads")?,
    };
    let layers = keys.count("num_hidden_layers")?;
    let (rope_theta, block) = if gemma { of_gemma(keys, family, layers)? } else { of_llama(keys, family, layers)? };
    Ok(LlamaConfig {
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
        tie_word_embeddings: keys.flag_or("tie_word_embeddings", gemma)?,
        bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
        eos_token_id: keys.tokens("eos_token_id")?,
        pad_token_id: keys.tokens("pad_token_id")?.first().copied(),
        block,
    })
}

/// θ, and what the blocks have of their own.
fn of_llama(keys: &Keys, family: Family, layers: usize) -> Result<(f64, Block)> {
    let rope = keys.rope()?;
    keys.whole_heads_turn(&rope)?;
    let block = Block {
        qkv_bias: family == Family::Qwen2 || keys.flag_or("attention_bias", false)?,
        output_bias: keys.flag_or("attention_bias", false)?,
        mlp_bias: keys.flag_or("mlp_bias", false)?,
        qk_norm: family == Family::Qwen3,
        windows: keys.windows(family, layers)?,
        rope_scaling: rope.scaling,
        ..Block::default()
    };
    Ok((rope.theta.unwrap_or(10_000.0), block))
}

fn of_gemma(keys: &Keys, family: Family, layers: usize) -> Result<(f64, Block)> {
    keys.gemma_activation(family)?;
    let bias = keys.flag_or("attention_bias", false)?;
    let plain = Block {
        qkv_bias: bias,
        output_bias: bias,
        norm: Norm::RmsOfOnePlus,
        mlp: Mlp::Gated(Gated::GeGlu),
        scaled_embeddings: true,
        ..Block::default()
    };
    if family == Family::Gemma {
        let rope = keys.rope()?;
        keys.whole_heads_turn(&rope)?;
        return Ok((rope.theta.unwrap_or(10_000.0), Block { rope_scaling: rope.scaling, ..plain }));
    }
    if family == Family::Gemma3 && keys.given("attn_logit_softcapping") {
        return Err(Error::input(
            "`attn_logit_softcapping` of a Gemma 3 is not supported: transformers reads it and caps nothing",
        )
        .help("if the model was trained without, take it out of config.json"));
    }
    let [score_cap, logit_cap] = if family == Family::Gemma2 { [Some(50.0), Some(30.0)] } else { [None; 2] };
    let sliding = keys.gemmas_sliding_layers(family, layers)?;
    let window = if sliding.contains(&true) { Some(keys.count_or("sliding_window", 4096)?) } else { None };
    let block = Block {
        residual: Residual::NormedBranches,
        windows: if window.is_some() { sliding.iter().map(|slides| window.filter(|_| *slides)).collect() } else { Vec::new() },
        query_pre_attn_scalar: keys.positive_unless_null("query_pre_attn_scalar", Some(256.0))?,
        score_cap: keys.positive_unless_null("attn_logit_softcapping", score_cap)?,
        logit_cap: keys.positive_unless_null("final_logit_softcapping", logit_cap)?,
        ..plain
    };
    if family == Family::Gemma2 {
        let rope = keys.rope()?;
        keys.whole_heads_turn(&rope)?;
        return Ok((rope.theta.unwrap_or(10_000.0), Block { rope_scaling: rope.scaling, ..block }));
    }
    let [global, local] = keys.gemma3_ropes()?;
    let block = Block {
        qk_norm: true,
        rope_scaling: global.scaling,
        window_rope_theta: window.map(|_| local.theta.unwrap_or(10_000.0)),
        ..block
    };
    Ok((global.theta.unwrap_or(1e6), block))
}

impl Keys<'_> {
    fn whole_heads_turn(&self, rope: &Rope) -> Result<()> {
        match rope.share {
            None | Some(1.0) => Ok(()),
            Some(share) => {
                let message = format!("`partial_rotary_factor` = {share} is not supported for a model of this type");
                Err(Error::input(message))
            }
        }
    }

    /// The approximated GELU; Gemma's first files call it `gelu`, and transformers reads that as the approximated one too.
    fn gemma_activation(&self, family: Family) -> Result<()> {
        for key in ["hidden_act", "hidden_activation"] {
            let legacy =
                family == Family::Gemma && key == "hidden_act" && self.0.get(key).and_then(Value::as_str) == Some("gelu");
            if !legacy && self.gelu(key, Gelu::Tanh)? != Gelu::Tanh {
                return self.wrong(key, "\"gelu_pytorch_tanh\"");
            }
        }
        Ok(())
    }

    /// Those that `layer_types` names, else all but every second (Gemma 2) or every `sliding_window_pattern`-th (Gemma 3).
    fn gemmas_sliding_layers(&self, family: Family, layers: usize) -> Result<Vec<bool>> {
        if self.given("layer_types") {
            return self.layer_types(layers, true);
        }
        let pattern = if family == Family::Gemma2 { 2 } else { self.count_or("sliding_window_pattern", 6)? };
        Ok((1..=layers).map(|layer| layer % pattern != 0).collect())
    }

    /// Of the layers without and with a window: an object for each (transformers 5), or keys of their own (4).
    fn gemma3_ropes(&self) -> Result<[Rope; 2]> {
        let nested = ["full_attention", "sliding_attention"];
        let ropes = match self.0.get("rope_parameters") {
            Some(Value::Object(ropes)) => {
                if let Some(unknown) = ropes.keys().find(|kind| !nested.contains(&kind.as_str())) {
                    return Err(Error::input(format!(
                        "`{unknown}` in `rope_parameters` is not supported for a model of this type"
                    ))
                    .help("it has an object for each of \"full_attention\" and \"sliding_attention\""));
                }
                let [global, local] = nested.map(|kind| Keys(ropes).rope_in(kind));
                let (global, local, scaling) = (global?, local?, self.rope_in("rope_scaling")?.scaling);
                [
                    Rope { theta: global.theta.or(self.number("rope_theta")?), scaling: scaling.or(global.scaling), ..global },
                    local,
                ]
            }
            _ => [self.rope()?, Rope::default()],
        };
        let [global, local] = ropes;
        self.whole_heads_turn(&global)?;
        self.whole_heads_turn(&local)?;
        if local.scaling.is_some() {
            return self.wrong("rope_parameters", "no scaling of \"sliding_attention\"");
        }
        let theta = local.theta.or(self.number("rope_local_base_freq")?);
        Ok([global, Rope { theta, ..local }])
    }

    /// [`Block::windows`]: Mistral's window is every layer's, Qwen's that of the layers that `layer_types` names, or of those from
    /// `max_window_layers` on.
    fn windows(&self, family: Family, layers: usize) -> Result<Vec<Option<usize>>> {
        let sliding: Vec<bool> = match family {
            Family::Mistral if self.0.contains_key("sliding_window") => vec![self.given("sliding_window"); layers],
            // transformers takes 4096 where the key is missing.
            Family::Mistral => return Ok(vec![Some(4096); layers]),
            Family::Qwen2 | Family::Qwen3 => self.sliding_layers(layers)?,
            _ => return Ok(Vec::new()),
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
        self.layer_types(layers, used)
    }

    /// Which layers `layer_types` gives the window; `used`: whether any may have it.
    fn layer_types(&self, layers: usize, used: bool) -> Result<Vec<bool>> {
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
}
