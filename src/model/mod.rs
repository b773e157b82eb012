//! Llama-shaped models: in the strict arithmetic with hand-written forward and backward passes over the kernels of
//! [`crate::numerics`], in the fast one with candle's operations (`fast`).
//!
//! Files follow Hugging Face's layout: `config.json` and `model.safetensors` under its tensor names.

mod config;
mod decode;
mod fast;
mod files;
mod gradients;
mod llama;
mod mode;
mod packed;
mod parameters;
mod scorer;
mod trunk;

pub use config::LlamaConfig;
pub use gradients::Gradients;
pub use llama::{Comparison, Llama, compare};
pub use mode::{Decoder, Tape};
pub use packed::{Packed, SegmentId, Target};
pub use parameters::{Parameters, Tensor};
pub use scorer::Scorer;

pub use crate::numerics::logprob::TokenScore;

#[cfg(test)]
mod tests;
