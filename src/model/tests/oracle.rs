//! Independent computations with candle: `candle-transformers`' Llama for logits, and a Llama of plain differentiable candle
//! operations in binary64 for gradients.

use std::collections::{BTreeMap, HashMap};

use candle_core::{D, DType, Device, Tensor, Var};
use candle_transformers::models::{gemma, gemma2, gemma3, llama, phi};

use crate::model::{Family, Llama, Packed, Target};

fn tensor(model: &Llama, name: &str) -> Tensor {
    let t = model.parameters.get(name);
    Tensor::from_slice(&t.values, t.shape.as_slice(), &Device::Cpu).unwrap()
}

/// (tokens, vocabulary) logits of one sequence.
pub(super) fn candle_logits(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    let c = &model.config;
    let config = llama::Config {
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        vocab_size: c.vocab_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        num_key_value_heads: c.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: c.rms_norm_eps,
        rope_theta: c.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: c.max_position_embeddings,
        tie_word_embeddings: c.tie_word_embeddings,
    };
    let tensors: HashMap<String, Tensor> = model.parameters.iter().map(|(n, _)| (n.to_owned(), tensor(model, n))).collect();
    let weights = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = llama::Llama::load(weights, &config).unwrap();
    let mut rows = Vec::new();
    for n in 1..=tokens.len() {
        // It gives logits of the last position only.
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
        let input = Tensor::new(&tokens[..n], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = theirs.forward(&input, 0, &mut cache).unwrap();
        rows.extend(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    rows
}

/// [`candle_logits`] by candle's model of another family, from the configuration that is written here.
pub(super) fn candle_logits_of_others(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    let tensors: HashMap<String, Tensor> = model.parameters.iter().map(|(n, _)| (n.to_owned(), tensor(model, n))).collect();
    let weights = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let mut config: serde_json::Value = serde_json::from_str(&model.config.causal_json()).unwrap();
    config["sliding_window_pattern"] = 6.into();
    config["qk_layernorm"] = false.into();
    let mut forward: Box<dyn FnMut(&Tensor) -> R> = match model.config.family {
        Family::Phi => {
            let mut theirs = phi::Model::new(&serde_json::from_value(config).unwrap(), weights).unwrap();
            Box::new(move |ids| {
                theirs.clear_kv_cache();
                theirs.forward(ids)
            })
        }
        Family::Gemma => {
            config.as_object_mut().unwrap().remove("hidden_act");
            let mut theirs = gemma::Model::new(false, &serde_json::from_value(config).unwrap(), weights).unwrap();
            Box::new(move |ids| {
                theirs.clear_kv_cache();
                theirs.forward(ids, 0)
            })
        }
        Family::Gemma2 => {
            let mut theirs = gemma2::Model::new(false, &serde_json::from_value(config).unwrap(), weights).unwrap();
            Box::new(move |ids| {
                theirs.clear_kv_cache();
                theirs.forward(ids, 0)
            })
        }
        Family::Gemma3 => {
            let mut theirs = gemma3::Model::new(false, &serde_json::from_value(config).unwrap(), weights).unwrap();
            Box::new(move |ids| {
                theirs.clear_kv_cache();
                theirs.forward(ids, 0)
            })
        }
        other => panic!("candle has no {}", other.name()),
    };
    let rows = (1..=tokens.len()).flat_map(|n| {
        let input = Tensor::new(&tokens[..n], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        forward(&input).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    });
    rows.collect()
}

type R = candle_core::Result<Tensor>;

struct Plain<'a> {
    model: &'a Llama,
    vars: BTreeMap<String, Var>,
}

impl Plain<'_> {
    fn w(&self, name: &str) -> &Tensor {
        &self.vars[name]
    }

    fn norm(&self, x: &Tensor, name: &str) -> R {
        let mean = (x.sqr()?.mean_keepdim(D::Minus1)? + self.model.config.rms_norm_eps)?;
        x.broadcast_div(&mean.sqrt()?)?.broadcast_mul(self.w(name))
    }

    /// `x`: (heads, tokens, head_dim)
    fn rotate(&self, x: &Tensor) -> R {
        let (_, tokens, dim) = x.dims3()?;
        let angle = |p: usize, i: usize| p as f64 * self.model.config.rope_theta.powf(-((2 * i) as f64) / dim as f64);
        let table = |f: fn(f64) -> f64| -> R {
            let values: Vec<f64> = (0..tokens).flat_map(|p| (0..dim / 2).map(move |i| f(angle(p, i)))).collect();
            Tensor::from_vec(values, (1, tokens, dim / 2), &Device::Cpu)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let (a, b) = (x.narrow(2, 0, dim / 2)?, x.narrow(2, dim / 2, dim / 2)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 2)
    }

    fn attention(&self, x: &Tensor, layer: usize) -> R {
        let c = &self.model.config;
        let tokens = x.dim(0)?;
        let project = |part: &str, heads: usize| -> R {
            let w = self.w(&format!("model.layers.{layer}.self_attn.{part}.weight"));
            x.matmul(&w.t()?)?.reshape((tokens, heads, c.head_dim))?.transpose(0, 1)?.contiguous()
        };
        let q = self.rotate(&project("q_proj", c.num_attention_heads)?)?;
        let k = self.rotate(&project("k_proj", c.num_key_value_heads)?)?;
        let v = project("v_proj", c.num_key_value_heads)?;
        let group = c.num_attention_heads / c.num_key_value_heads;
        let owners: Vec<u32> = (0..c.num_attention_heads).map(|h| (h / group) as u32).collect();
        let owners = Tensor::new(owners, &Device::Cpu)?;
        let (k, v) = (k.index_select(&owners, 0)?, v.index_select(&owners, 0)?);
        let mask: Vec<f64> = (0..tokens * tokens).map(|i| if i % tokens > i / tokens { -1e30 } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, tokens, tokens), &Device::Cpu)?;
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / (c.head_dim as f64).sqrt())?.broadcast_add(&mask)?;
        let out = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
        let out = out.transpose(0, 1)?.contiguous()?.reshape((tokens, c.num_attention_heads * c.head_dim))?;
        out.matmul(&self.w(&format!("model.layers.{layer}.self_attn.o_proj.weight")).t()?)
    }

    fn mlp(&self, x: &Tensor, layer: usize) -> R {
        let w = |part: &str| self.w(&format!("model.layers.{layer}.mlp.{part}.weight")).t();
        let gate = x.matmul(&w("gate_proj")?)?;
        (gate.silu()? * x.matmul(&w("up_proj")?)?)?.matmul(&w("down_proj")?)
    }

    /// (tokens, vocabulary) log-probabilities.
    fn log_probabilities(&self, tokens: &[u32]) -> R {
        let mut x = self.w("model.embed_tokens.weight").index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        for layer in 0..self.model.config.num_hidden_layers {
            let norm = |part: &str| format!("model.layers.{layer}.{part}.weight");
            x = (&x + self.attention(&self.norm(&x, &norm("input_layernorm"))?, layer)?)?;
            x = (&x + self.mlp(&self.norm(&x, &norm("post_attention_layernorm"))?, layer)?)?;
        }
        let head = if self.model.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let logits = self.norm(&x, "model.norm.weight")?.matmul(&self.w(head).t()?)?;
        candle_nn::ops::log_softmax(&logits, D::Minus1)
    }
}

/// Gradients of Σ dlogps · logp by candle's autograd in binary64, every target from its own unshared sequence.
pub(super) fn autograd(model: &Llama, packed: &Packed, targets: &[Target], dlogps: &[f32]) -> BTreeMap<String, Vec<f64>> {
    let var = |n: &str| Var::from_tensor(&tensor(model, n).to_dtype(DType::F64).unwrap()).unwrap();
    let vars = model.parameters.iter().map(|(n, _)| (n.to_owned(), var(n))).collect();
    let plain = Plain { model, vars };
    let mut loss = Tensor::zeros((), DType::F64, &Device::Cpu).unwrap();
    for (target, dlogp) in targets.iter().zip(dlogps) {
        let tokens = seen_by(packed, target.row);
        let logps = plain.log_probabilities(&tokens).unwrap();
        let logp = logps.get(tokens.len() - 1).unwrap().get(target.token as usize).unwrap();
        loss = (loss + (logp * f64::from(*dlogp)).unwrap()).unwrap();
    }
    let grads = loss.backward().unwrap();
    let values = |v: &Var| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    plain.vars.iter().map(|(n, v)| (n.clone(), values(v))).collect()
}

/// The tokens that a row's state has seen, the row's own included.
fn seen_by(packed: &Packed, row: usize) -> Vec<u32> {
    let segments = packed.segments();
    let own = segments.iter().position(|s| s.rows.contains(&row)).unwrap();
    let mut tokens = packed.tokens()[segments[own].rows.start..=row].to_vec();
    let mut parent = segments[own].parent;
    while let Some(p) = parent {
        tokens.splice(0..0, packed.tokens()[segments[p].rows.clone()].iter().copied());
        parent = segments[p].parent;
    }
    tokens
}
