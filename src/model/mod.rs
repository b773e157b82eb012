//! Decoder-only transformers: Llama and the families that differ from it where `block` says, under the names that `names` lists. In the strict arithmetic with hand-written forward
//! and backward passes over the kernels of [`crate::numerics`], in the fast one with candle's operations (`fast`).
//!
//! A model may stand under a low-rank adapter (`lora`), which is then what training changes; `peft` is the adapter's file form.
//!
//! Files follow Hugging Face's layout: `config.json` and `model.safetensors` under its tensor names.

mod block;
mod config;
mod decode;
mod dropout;
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
mod trunk;
mod written;

pub use block::{Block, Family, Mlp, Norm, Positions, Residual, RopeScaling};
pub use config::LlamaConfig;
pub(crate) use dropout::derived;
pub use gradients::Gradients;
pub(crate) use llama::VALUE_HEAD;
pub use llama::{Comparison, Llama, compare};
pub use lora::Adapter;
pub(crate) use lora::fits as check_targets;
pub use mode::{Decoder, Tape};
pub use packed::{Packed, SegmentId, Target};
pub use parameters::{Parameters, Tensor};
pub use scorer::Scorer;

pub use crate::numerics::logprob::TokenScore;

#[cfg(test)]
mod tests;
