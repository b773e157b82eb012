//! Weights as candle tensors, and the layers made of them.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor, Var};

use crate::model::{Gradients, LlamaConfig, Parameters};

/// The name of the tensor that token embeddings come from.
const EMBEDDING: &str = "model.embed_tokens.weight";

pub(super) struct Weights {
    pub config: LlamaConfig,
    tensors: BTreeMap<String, Tensor>,
    pub device: Device,
    dtype: DType,
}

impl Weights {
    /// A copy of `parameters`; `trained`: gradients by them are wanted.
    pub fn new(config: &LlamaConfig, parameters: &Parameters, trained: bool) -> Result<Self> {
        let (device, dtype) = (Device::Cpu, DType::F32);
        let tensor = |values: &[f32], shape: &[usize]| -> Result<Tensor> {
            let tensor = Tensor::from_slice(values, shape, &device)?.to_dtype(dtype)?;
            if trained { Ok(Var::from_tensor(&tensor)?.into_inner()) } else { Ok(tensor) }
        };
        let tensors = parameters.iter().map(|(name, t)| Ok((name.to_owned(), tensor(&t.values, &t.shape)?)));
        Ok(Self { config: config.clone(), tensors: tensors.collect::<Result<_>>()?, device, dtype })
    }

    /// Adds what `found` holds for the weights to `grads`.
    pub fn add_gradients(&self, found: &GradStore, grads: &mut Gradients) -> Result<()> {
        for (name, tensor) in &self.tensors {
            let Some(gradient) = found.get(tensor) else { continue };
            let values = gradient.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            grads.get_mut(name).iter_mut().zip(values).for_each(|(sum, g)| *sum += g);
        }
        Ok(())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    /// (tokens, hidden)
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.get(EMBEDDING).index_select(&Tensor::new(tokens, &self.device)?, 0)
    }

    /// `x`: (rows, inputs) → (rows, outputs)
    pub fn linear(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.get(name).t()?)
    }

    /// The linear layer `part` of a transformer layer, with its bias where it has one.
    fn linear_of(&self, layer: usize, part: &str, x: &Tensor) -> Result<Tensor> {
        let y = self.linear(&format!("model.layers.{layer}.{part}.weight"), x)?;
        match self.tensors.get(&format!("model.layers.{layer}.{part}.bias")) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// RMSNorm over the last dimension of `x` (Zhang and Sennrich 2019, eq. 4).
    pub fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let square = (x.sqr()?.mean_keepdim(D::Minus1)? + self.config.rms_norm_eps)?;
        x.broadcast_div(&square.sqrt()?)?.broadcast_mul(self.get(name))
    }

    /// (rows, outputs) in binary32: the head `name` over the final norm of `x`: (rows, hidden).
    pub fn head(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        self.linear(name, &self.norm("model.norm.weight", x)?)?.to_dtype(DType::F32)
    }

    /// One layer over `x`: (rows, hidden). `attend` gets queries, keys, values, each (rows, its heads, head_dim), the first two
    /// turned, and gives (rows, heads · head_dim).
    pub fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        rotary: &Rotary,
        attend: impl FnOnce([&Tensor; 3]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (c, name) = (&self.config, |part: &str| format!("model.layers.{layer}.{part}.weight"));
        let normed = self.norm(&name("input_layernorm"), x)?;
        let project = |part: &str, heads: usize| self.linear_of(layer, part, &normed)?.reshape((x.dim(0)?, heads, c.head_dim));
        let of_heads = |part: &str, x: Tensor| if c.block.qk_norm { self.norm(&name(part), &x) } else { Ok(x) };
        let q = rotary.turn(&of_heads("self_attn.q_norm", project("self_attn.q_proj", c.num_attention_heads)?)?)?;
        let k = rotary.turn(&of_heads("self_attn.k_norm", project("self_attn.k_proj", c.num_key_value_heads)?)?)?;
        let v = project("self_attn.v_proj", c.num_key_value_heads)?;
        let middle = (x + self.linear_of(layer, "self_attn.o_proj", &attend([&q, &k, &v])?)?)?;
        let normed = self.norm(&name("post_attention_layernorm"), &middle)?;
        let gated =
            (self.linear_of(layer, "mlp.gate_proj", &normed)?.silu()? * self.linear_of(layer, "mlp.up_proj", &normed)?)?;
        middle + self.linear_of(layer, "mlp.down_proj", &gated)?
    }

    /// Rotary tables for rows at `positions`.
    pub fn rotary(&self, positions: &[u32]) -> Result<Rotary> {
        let half = self.config.head_dim / 2;
        let frequencies = self.config.frequencies();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = positions.iter().flat_map(|p| frequencies.iter().map(move |w| f(f64::from(*p) * w))).collect();
            Tensor::from_vec(values, (positions.len(), 1, half), &self.device)?.to_dtype(self.dtype)
        };
        Ok(Rotary { cos: table(libm::cos)?, sin: table(libm::sin)? })
    }

    /// (values in the given shape) in the weights' element type.
    pub fn constant(&self, values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        Tensor::from_vec(values, shape.into(), &self.device)?.to_dtype(self.dtype)
    }

    /// (rows.len(),) for selecting rows.
    pub fn indices(&self, rows: impl IntoIterator<Item = usize>) -> Result<Tensor> {
        let rows: Vec<u32> = rows.into_iter().map(|r| r as u32).collect();
        Tensor::new(rows, &self.device)
    }
}

/// Cosines and sines of some rows' positions: (rows, 1, head_dim / 2) each (Su et al. 2021).
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// `x`: (rows, heads, head_dim); element i pairs with element i + head_dim / 2.
    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(2)? / 2;
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let second = (b.broadcast_mul(&self.cos)? + a.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[first, second], 2)
    }
}
