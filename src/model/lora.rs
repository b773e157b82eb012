//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) over a frozen base, under PEFT's names and definitions.
//!
//! An adapted layer with the weight W: (outputs, inputs) computes
//!
//! ```text
//! y = W x + s · B A dropout(x),     s = alpha / r, or alpha / √r (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732)
//! ```
//!
//! with A: (r, inputs), B: (outputs, r). A starts uniform in ±1/√inputs, B as zeros. The order of the sums:
//! - low = s · (A x): a chain over the inputs from zero, then one multiplication;
//! - y: the chain of W x (which itself may continue the residual's value) goes on over the rank with `fma(low[p], B[o, p], y)`;
//! - backward, dlow = s · (dy B): a chain over the outputs, then one multiplication; dx goes on from W's part with
//!   `fma(dlow[p], A[p, i], dx)` over the rank, or, behind dropout, adds that product's own chain times the mask;
//! - dA and dB are chains over the rows of the optimizer batch, as all weight gradients (NUMERICS 2).
//!
//! Each is one of the kernels' products, so no bit depends on threads, micro-batches or instruction sets. While B is zero, y has
//! the base's bits. Merged weights, W + s · (B A) with one rounding for each of s · and +, give other last bits than the two paths.

use crate::error::{Error, Result};
use crate::model::dropout::Masks;
use crate::model::{Family, Gradients, LlamaConfig, Parameters, Tensor};
use crate::numerics::buffer::Buffer;
use crate::numerics::gemm::{MatRef, gemm};
use crate::numerics::{linear, matrix};
use crate::rng::Stream;
use crate::suite::settings::{Linear, LoraSettings};

/// An adapter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub settings: LoraSettings,
    /// A and B of every adapted layer under PEFT's names.
    pub parameters: Parameters,
}

/// The linear layers that a family has under these names, with where they stand in a layer.
fn adapted<'a>(family: Family, targets: &'a [Linear]) -> impl Iterator<Item = &'static str> + use<'a> {
    family.names().linears.iter().filter(move |(linear, _)| targets.contains(linear)).map(|(_, part)| *part)
}

/// What is adapted unless a suite says otherwise, which is written as no layer at all: PEFT's modules of the family, or the projections of
/// queries and values where it has several choices. All of Llama's layers stand for all of any family.
fn targets(family: Family, written: &[Linear]) -> Vec<Linear> {
    let all = || -> Vec<Linear> {
        let mut all: Vec<Linear> = family.names().linears.iter().map(|(linear, _)| *linear).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    match (written, family) {
        ([], Family::Gpt2) => vec![Linear::CAttn],
        ([], Family::GptNeoX) => vec![Linear::QueryKeyValue],
        ([], _) => vec![Linear::QProj, Linear::VProj],
        (written, _) if written == Linear::ALL => all(),
        (written, _) => written.to_vec(),
    }
}

impl Adapter {
    /// An adapter that changes nothing yet. A is drawn from the stream of its name.
    pub fn fresh(config: &LlamaConfig, settings: &LoraSettings, seed: u64) -> Self {
        let settings = LoraSettings { target_modules: targets(config.family, &settings.target_modules), ..settings.clone() };
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let values = match name.contains("lora_A") {
                true => {
                    // Kaiming-uniform with a = √5, which is torch's for linear layers.
                    let bound = 1.0 / (shape[1] as f64).sqrt();
                    let mut stream = Stream::of(seed, &format!("model/init/{name}"), 0);
                    (0..shape[0] * shape[1]).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect()
                }
                false => vec![0.0; shape[0] * shape[1]],
            };
            (name, Tensor { shape, values: values.into() })
        };
        let parameters = Self::tensors(config, &settings).into_iter().map(tensor).collect();
        Self { settings, parameters }
    }

    /// The same with the layers by the names that the family has for them, where "all" was said.
    pub(super) fn of_family(mut self, family: Family) -> Self {
        self.settings.target_modules = targets(family, &self.settings.target_modules);
        self
    }

    /// Name and shape of every tensor.
    pub(super) fn tensors(config: &LlamaConfig, settings: &LoraSettings) -> Vec<(String, Vec<usize>)> {
        let (mut tensors, linears) = (Vec::new(), config.linears());
        for layer in 0..config.num_hidden_layers {
            for part in adapted(config.family, &settings.target_modules) {
                let [a, b] = tensor_names(config.family, layer, part);
                let linear = linears.iter().find(|l| l.part == part).expect("a linear layer of this family");
                tensors.extend([(a, vec![settings.r, linear.inputs]), (b, vec![linear.outputs, settings.r])]);
            }
        }
        tensors
    }

    /// An error that names every tensor that doesn't fit a base of this configuration.
    pub(super) fn check(&self, config: &LlamaConfig) -> Result<()> {
        fits(config.family, &self.settings.target_modules)?;
        self.parameters.check(&Self::tensors(config, &self.settings)).map_err(|e| {
            let message = e.message.replacen("the configuration", "the base model under the adapter's r and target_modules", 1);
            Error::input(message).help("an adapter belongs to the model it was trained on: layers and widths must be the same")
        })
    }

    /// Whether it changes nothing: B is zero.
    pub fn is_neutral(&self) -> bool {
        self.parameters.iter().all(|(name, t)| name.contains("lora_A") || t.values.iter().all(|&b| b == 0.0))
    }

    /// Whether both scale their low-rank paths alike.
    pub fn scales_as(&self, other: &Self) -> bool {
        self.scale() == other.scale()
    }

    /// s, which the low-rank path is scaled by.
    fn scale(&self) -> f32 {
        let (r, alpha) = (self.settings.r as f64, self.settings.lora_alpha);
        (if self.settings.use_rslora { alpha / r.sqrt() } else { alpha / r }) as f32
    }

    /// The adapted layer, if it is one.
    fn path(&self, family: Family, layer: usize, part: &str) -> Option<Path<'_>> {
        let [a, b] = tensor_names(family, layer, part);
        let adapted = self.parameters.contains(&a);
        adapted.then(|| Path {
            a: &self.parameters.get(&a).values,
            b: &self.parameters.get(&b).values,
            rank: self.settings.r,
            scale: self.scale(),
            names: [a, b],
        })
    }

    /// The base's weights with the adapter's added: w + s · (B A).
    pub(super) fn merged(&self, config: &LlamaConfig, mut base: Parameters) -> Parameters {
        for layer in 0..config.num_hidden_layers {
            for part in adapted(config.family, &self.settings.target_modules) {
                let Some(path) = self.path(config.family, layer, part) else { continue };
                let (outputs, inputs) = (path.b.len() / path.rank, path.a.len() / path.rank);
                let mut product = Buffer::unspecified(outputs * inputs);
                let (b, a) = (MatRef::rows(path.b, path.rank), MatRef::rows(path.a, inputs));
                match config.family.stores_inputs_first() {
                    false => gemm(outputs, inputs, path.rank, b, a, &mut product, inputs, false),
                    true => gemm(inputs, outputs, path.rank, a.transposed(), b.transposed(), &mut product, outputs, false),
                }
                let weight = &mut base.get_mut(&(config.family.names().in_layer(layer, part) + ".weight")).values;
                weight.iter_mut().zip(product.iter()).for_each(|(w, p)| *w += path.scale * p);
            }
        }
        base
    }
}

/// PEFT's names of A and B.
fn tensor_names(family: Family, layer: usize, part: &str) -> [String; 2] {
    let layer = family.names().in_layer(layer, part);
    ['A', 'B'].map(|matrix| format!("base_model.model.{layer}.lora_{matrix}.weight"))
}

/// An error that names the layers that a family doesn't have.
pub(crate) fn fits(family: Family, targets: &[Linear]) -> Result<()> {
    let own: Vec<Linear> = self::targets(family, &Linear::ALL);
    let all_of_llama = targets == Linear::ALL;
    let strange: Vec<&str> = targets.iter().filter(|linear| !all_of_llama && !own.contains(linear)).map(|l| l.name()).collect();
    match strange.is_empty() {
        true => Ok(()),
        false => Err(Error::input(format!("a model of type \"{}\" has no linear layer {}", family.name(), strange.join(", ")))
            .help(format!("its linear layers are {}", own.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")))),
    }
}

/// The low-rank path of one layer.
struct Path<'a> {
    /// (rank, inputs)
    a: &'a [f32],
    /// (outputs, rank)
    b: &'a [f32],
    rank: usize,
    scale: f32,
    /// Of A and B.
    names: [String; 2],
}

impl Path<'_> {
    /// (rows, rank): s · A x.
    fn low(&self, x: &[f32]) -> Buffer {
        let inputs = self.a.len() / self.rank;
        let mut low = Buffer::unspecified(x.len() / inputs * self.rank);
        linear::forward(x, self.a, inputs, &mut low, false);
        matrix::scale(&mut low, self.scale);
        low
    }
}

/// An adapter in a pass.
#[derive(Clone, Copy)]
pub(crate) struct Applied<'a> {
    pub adapter: &'a Adapter,
    pub family: Family,
    /// None: no dropout.
    pub masks: Option<&'a Masks>,
}

impl Applied<'_> {
    fn path(&self, layer: usize, part: &str) -> Option<Path<'_>> {
        self.adapter.path(self.family, layer, part)
    }

    /// Whether the layer is adapted.
    pub fn adapts(&self, layer: usize, part: &str) -> bool {
        self.path(layer, part).is_some()
    }

    /// The number of an adapted layer, which its dropout masks are addressed by.
    fn module(&self, layer: usize, part: &str) -> u64 {
        let linears = self.family.names().linears;
        let linear = linears.iter().position(|(_, own)| *own == part).expect("a linear layer of this family");
        (layer * linears.len() + linear) as u64
    }

    /// `y`: (rows, outputs) += the layer's low-rank path of `x`: (rows, inputs).
    pub fn forward(&self, layer: usize, part: &str, x: &[f32], y: &mut [f32]) {
        let Some(path) = self.path(layer, part) else { return };
        let low = match self.masks {
            None => path.low(x),
            Some(masks) => path.low(&masks.dropped(self.module(layer, part), x, path.a.len() / path.rank)),
        };
        linear::forward(&low, path.b, path.rank, y, true);
    }

    /// (rows, rank): s · dy B, from `dy`: (rows, outputs), and `dx`: (rows, inputs) += what reaches the input through it; none where
    /// the layer isn't adapted.
    pub fn backward_input(&self, layer: usize, part: &str, dy: &[f32], dx: Option<&mut [f32]>) -> Option<Buffer> {
        let path = self.path(layer, part)?;
        let (inputs, outputs) = (path.a.len() / path.rank, path.b.len() / path.rank);
        let mut dlow = Buffer::unspecified(dy.len() / outputs * path.rank);
        linear::backward_input(dy, path.b, path.rank, &mut dlow, false);
        matrix::scale(&mut dlow, path.scale);
        match (dx, self.masks) {
            (None, _) => {}
            (Some(dx), None) => linear::backward_input(&dlow, path.a, inputs, dx, true),
            (Some(dx), Some(masks)) => {
                let mut through = Buffer::unspecified(dx.len());
                linear::backward_input(&dlow, path.a, inputs, &mut through, false);
                let through = masks.dropped(self.module(layer, part), &through, inputs);
                matrix::add(dx, &through);
            }
        }
        Some(dlow)
    }

    /// Continues the gradients of A and B. `dlow`: what [`Self::backward_input`] gave.
    pub fn backward_weight(&self, layer: usize, part: &str, dy: &[f32], x: &[f32], dlow: &[f32], grads: &mut Gradients) {
        let Some(path) = self.path(layer, part) else { return };
        let inputs = path.a.len() / path.rank;
        let dropped = self.masks.map(|masks| masks.dropped(self.module(layer, part), x, inputs));
        let x = dropped.as_deref().unwrap_or(x);
        linear::backward_weight(dlow, x, inputs, grads.get_mut(&path.names[0]));
        linear::backward_weight(dy, &path.low(x), path.rank, grads.get_mut(&path.names[1]));
    }
}
