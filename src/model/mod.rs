//! Llama-shaped models with hand-written forward and backward passes over the kernels of [`crate::numerics`].
//!
//! Files follow Hugging Face's layout: `config.json` and `model.safetensors` under its tensor names.

mod config;
mod decode;
mod files;
mod gradients;
mod llama;
mod packed;
mod parameters;
mod scorer;
mod trunk;

pub use config::LlamaConfig;
pub use decode::Decoder;
pub use gradients::Gradients;
pub use llama::{Comparison, Llama, compare};
pub use packed::{Packed, SegmentId, Target};
pub use parameters::{Parameters, Tensor};
pub use scorer::Scorer;
pub use trunk::Tape;

pub use crate::numerics::logprob::TokenScore;

#[cfg(test)]
mod tests;
