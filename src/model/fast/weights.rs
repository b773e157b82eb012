//! Weights as candle tensors, and the layers made of them.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor, Var};

use crate::model::block::{Gated, Gelu, Mlp, Norm, Positions, Residual};
use crate::model::names::{QK_NORMS, Qkv};
use crate::model::{Gradients, LlamaConfig, Parameters};

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
    pub fn embed(&self, tokens: &[u32], positions: &[u32]) -> Result<Tensor> {
        let names = self.config.family.names();
        let rows =
            |name: &str, rows: &[u32]| self.get(&format!("{name}.weight")).index_select(&Tensor::new(rows, &self.device)?, 0);
        let mut x = rows(names.embedding, tokens)?;
        if let Some(scale) = self.config.embedding_scale() {
            x = (x * f64::from(scale))?;
        }
        match self.config.block.positions {
            Positions::Learned => x + rows(names.positions, positions)?,
            Positions::Rotary | Positions::PartlyRotary { .. } => Ok(x),
        }
    }

    /// The linear layer `part` of a transformer layer, with its bias where it has one: (rows, inputs) → (rows, outputs).
    fn linear(&self, layer: usize, part: &str, x: &Tensor) -> Result<Tensor> {
        let (family, name) = (self.config.family, self.config.family.names().in_layer(layer, part));
        let weight = self.get(&format!("{name}.weight"));
        let y = if family.stores_inputs_first() { x.matmul(weight)? } else { x.matmul(&weight.t()?)? };
        match self.tensors.get(&format!("{name}.bias")) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The norm `name` over the last dimension of `x` (RMSNorm: Zhang and Sennrich 2019, eq. 4; LayerNorm: Ba et al. 2016).
    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let eps = self.config.rms_norm_eps;
        let normed = |x: &Tensor| x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?);
        let weight = self.get(&format!("{name}.weight"));
        match self.config.block.norm {
            Norm::Rms => normed(x)?.broadcast_mul(weight),
            Norm::RmsOfOnePlus => normed(x)?.broadcast_mul(&(weight + 1.0)?),
            Norm::Layer => {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                normed(&centred)?.broadcast_mul(weight)?.broadcast_add(self.get(&format!("{name}.bias")))
            }
        }
    }

    /// (rows, outputs) in binary32: the head whose weight is `name` over the final norm of `x`: (rows, hidden).
    pub fn head(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let names = self.config.family.names();
        let mut y = self.norm(names.final_norm, x)?.matmul(&self.get(name).t()?)?;
        // A scorer's head has neither a bias nor a cap.
        if [names.head, names.embedding].iter().any(|own| name.strip_suffix(".weight") == Some(own)) {
            if let Some(bias) = self.tensors.get(&format!("{}.bias", names.head)) {
                y = y.broadcast_add(bias)?;
            }
            if let Some(cap) = self.config.block.logit_cap {
                y = soft_capped(&y, cap)?;
            }
        }
        y.to_dtype(DType::F32)
    }

    /// Queries, keys and values of `x`: (rows, hidden), each (rows, its heads, head_dim).
    fn qkv(&self, layer: usize, x: &Tensor) -> Result<[Tensor; 3]> {
        let c = &self.config;
        let (rows, heads, kv_heads, dim) = (x.dim(0)?, c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        match c.family.names().qkv {
            Qkv::Apart([q, k, v]) => {
                let project = |part: &str, heads: usize| self.linear(layer, part, x)?.reshape((rows, heads, dim));
                Ok([project(q, heads)?, project(k, kv_heads)?, project(v, kv_heads)?])
            }
            Qkv::Thirds(part) => {
                let all = self.linear(layer, part, x)?.reshape((rows, heads + 2 * kv_heads, dim))?;
                let part = |start, heads| all.narrow(1, start, heads)?.contiguous();
                Ok([part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?])
            }
            Qkv::ByHead(part) => {
                let all = self.linear(layer, part, x)?.reshape((rows, heads, 3, dim))?;
                let of = |i| all.narrow(2, i, 1)?.squeeze(2)?.contiguous();
                Ok([of(0)?, of(1)?, of(2)?])
            }
        }
    }

    fn mlp(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        let names = self.config.family.names();
        let first = self.linear(layer, names.mlp_in[0], x)?;
        let activated = match self.config.block.mlp {
            Mlp::Gated(Gated::SwiGlu) => (first.silu()? * self.linear(layer, names.mlp_in[1], x)?)?,
            Mlp::Gated(Gated::GeGlu) => (first.gelu()? * self.linear(layer, names.mlp_in[1], x)?)?,
            Mlp::Gelu(Gelu::Exact) => first.gelu_erf()?,
            Mlp::Gelu(Gelu::Tanh) => first.gelu()?,
        };
        self.linear(layer, names.mlp_out, &activated)
    }

    /// One layer over `x`: (rows, hidden). `attend` gets queries, keys, values, each (rows, its heads, head_dim), the first two
    /// turned, and gives (rows, heads · head_dim).
    pub fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        rotaries: &Rotaries,
        attend: impl FnOnce([&Tensor; 3]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (c, names) = (&self.config, self.config.family.names());
        let norm = |part: &str, x: &Tensor| self.norm(&names.in_layer(layer, part), x);
        let normed = norm(names.attention_norm, x)?;
        let [mut q, mut k, v] = self.qkv(layer, &normed)?;
        if c.block.qk_norm {
            [q, k] = [norm(QK_NORMS[0], &q)?, norm(QK_NORMS[1], &k)?];
        }
        if let Some(rotary) = rotaries.of(c, layer) {
            [q, k] = [rotary.turn(&q)?, rotary.turn(&k)?];
        }
        let attended = self.linear(layer, names.output, &attend([&q, &k, &v])?)?;
        match c.block.residual {
            Residual::Sequential => {
                let middle = (x + attended)?;
                &middle + self.mlp(layer, &norm(names.mlp_norm, &middle)?)?
            }
            Residual::Parallel => (x + attended)? + self.mlp(layer, &norm(names.mlp_norm, x)?)?,
            Residual::NormedBranches => {
                let middle = (x + norm(names.branch_norms[0], &attended)?)?;
                let mlp = self.mlp(layer, &norm(names.mlp_norm, &middle)?)?;
                &middle + norm(names.branch_norms[1], &mlp)?
            }
        }
    }

    /// Rotary tables for rows at `positions`.
    pub fn rotaries(&self, positions: &[u32]) -> Result<Rotaries> {
        let turns = self.config.block.positions != Positions::Learned;
        let table = |there: bool, windowed| there.then(|| self.rotary(positions, windowed)).transpose();
        Ok(Rotaries { plain: table(turns, false)?, windowed: table(turns && self.config.has_window_rope(), true)? })
    }

    fn rotary(&self, positions: &[u32], windowed: bool) -> Result<Rotary> {
        let frequencies = self.config.frequencies(windowed);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = positions.iter().flat_map(|p| frequencies.iter().map(move |w| f(f64::from(*p) * w))).collect();
            Tensor::from_vec(values, (positions.len(), 1, frequencies.len()), &self.device)?.to_dtype(self.dtype)
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

/// cap · tanh(x / cap).
pub(super) fn soft_capped(x: &Tensor, cap: f64) -> Result<Tensor> {
    (x / cap)?.tanh()? * cap
}

/// Rotary tables of the layers, none where positions are learned.
pub(super) struct Rotaries {
    plain: Option<Rotary>,
    /// Of layers with a window, where they turn by other angles.
    windowed: Option<Rotary>,
}

impl Rotaries {
    fn of(&self, config: &LlamaConfig, layer: usize) -> Option<&Rotary> {
        self.windowed.as_ref().filter(|_| config.window(layer).is_some()).or(self.plain.as_ref())
    }
}

/// Cosines and sines of some rows' positions: (rows, 1, pairs that are turned) each (Su et al. 2021).
struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// `x`: (rows, heads, head_dim); element i pairs with element i + half of those that are turned, the first ones.
    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let (half, dim) = (self.cos.dim(2)?, x.dim(2)?);
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let second = (b.broadcast_mul(&self.cos)? + a.broadcast_mul(&self.sin)?)?;
        match dim == 2 * half {
            true => Tensor::cat(&[first, second], 2),
            false => Tensor::cat(&[first, second, x.narrow(2, 2 * half, dim - 2 * half)?], 2),
        }
    }
}
