//! Decoder-only transformers: Llama and the families that differ from it where `block` says, under the names that `names` lists. In the strict arithmetic with hand-written forward
//! and backward passes over the kernels of [`crate::numerics`], in the fast one with candle's operations (`fast`).
//!
//! Models of further families are evaluated through candle-transformers (`evaluated`): `causal` is what evaluation asks of either.
//!
//! A model may stand under a low-rank adapter (`lora`), which is then what training changes; `peft` is the adapter's file form.
//!
//! Files follow Hugging Face's layout: `config.json` and `model.safetensors` under its tensor names.

mod block;
mod causal;
mod config;
mod decode;
mod dropout;
mod evaluated;
mod fast;
mod files;
mod fused;
mod gradients;
mod keys;
mod llama;
mod lora;
mod mode;
mod names;
mod norms;
mod packed;
mod parameters;
mod peft;
mod scorer;
mod stored;
mod trunk;
mod written;

pub use block::{Block, Family, Gated, Gelu, Mlp, Norm, Positions, Residual, RopeScaling};
pub use causal::{Causal, Limits, compare, copy_evaluated, evaluated_families, evaluated_only, load};
pub use config::LlamaConfig;
pub(crate) use dropout::derived;
pub use evaluated::Evaluated;
pub use gradients::Gradients;
pub(crate) use llama::VALUE_HEAD;
pub use llama::{Comparison, Llama};
pub use lora::Adapter;
pub(crate) use lora::fits as check_targets;
pub use mode::{Decoder, Tape};
pub(crate) use names::{QK_NORMS, Qkv};
pub use packed::{Packed, SegmentId, Target};
pub use parameters::{Parameters, Tensor};
pub use scorer::Scorer;

pub use crate::numerics::logprob::TokenScore;

#[cfg(test)]
mod tests;
