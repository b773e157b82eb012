//! A forward pass over a packed batch, what is read from it, and its gradients.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, Var};

use super::attention::Layout;
use super::sound;
use super::weights::Weights;
use crate::model::{Gradients, LlamaConfig, Packed, Parameters, Target, TokenScore};

/// Rows whose logits exist at one time.
const CHUNK: usize = 256;

/// The weights, and the residual stream after the last layer.
pub struct Pass {
    weights: Weights,
    /// (rows, hidden), before the final norm.
    hidden: Tensor,
}

impl Pass {
    /// `trained`: keeps what the gradients need.
    pub fn new(config: &LlamaConfig, parameters: &Parameters, packed: &Packed, trained: bool) -> Self {
        sound(Weights::new(config, parameters, trained).and_then(|weights| {
            let (rotaries, layout) =
                (weights.rotaries(packed.positions())?, Layout::new(&weights, packed.segments(), packed.rows())?);
            let mut hidden = weights.embed(packed.tokens(), packed.positions())?;
            for layer in 0..config.num_hidden_layers {
                hidden = weights.layer(layer, &hidden, &rotaries, |qkv| layout.attend(qkv, config.heads_in(layer)))?;
            }
            Ok(Self { weights, hidden })
        }))
    }

    /// (rows.len(), hidden), without their past.
    fn rows(&self, rows: &[usize]) -> Result<Tensor> {
        self.hidden.detach().index_select(&self.weights.indices(rows.iter().copied())?, 0)
    }

    /// (targets, vocabulary)
    fn logits(&self, head: &str, targets: &[Target]) -> Result<Tensor> {
        self.weights.head(head, &self.rows(&rows_of(targets))?)
    }

    /// One score a target under the head of that name.
    pub fn token_scores(&self, head: &str, targets: &[Target]) -> Vec<TokenScore> {
        let chunk = |targets: &[Target]| {
            let logits = self.logits(head, targets)?;
            let logps = log_softmax(&logits)?;
            let logp = self.of_targets(&logps, targets)?.to_vec1::<f32>()?;
            let entropy = (logps.exp()? * &logps)?.sum(1)?.neg()?.to_vec1::<f32>()?;
            let mean_logit = logits.mean(1)?.to_vec1::<f32>()?;
            let log_sum_squares = (&logps * 2.0)?.exp()?.sum(1)?.log()?.to_vec1::<f32>()?;
            let score =
                |(((logp, entropy), mean_logit), log_sum_squares)| TokenScore { logp, entropy, mean_logit, log_sum_squares };
            let all = logp.into_iter().zip(entropy).zip(mean_logit).zip(log_sum_squares);
            Ok(all.map(score).collect::<Vec<_>>())
        };
        targets.chunks(CHUNK).flat_map(|targets| sound(chunk(targets))).collect()
    }

    /// KL(self ‖ other) over the whole vocabulary at each target's row, nats.
    pub fn token_kl(&self, other: &Self, heads: [&str; 2], targets: &[Target]) -> Vec<f32> {
        let chunk = |targets: &[Target]| {
            let p = log_softmax(&self.logits(heads[0], targets)?)?;
            let r = log_softmax(&other.logits(heads[1], targets)?)?;
            (p.exp()? * (p - r)?)?.sum(1)?.to_vec1::<f32>()
        };
        targets.chunks(CHUNK).flat_map(|targets| sound(chunk(targets))).collect()
    }

    /// One output a row, of a head with one output.
    pub fn scores(&self, head: &str, rows: &[usize]) -> Vec<f32> {
        sound(self.rows(rows).and_then(|x| self.weights.head(head, &x)?.flatten_all()?.to_vec1()))
    }

    /// Adds to `grads` the gradients of Σ dlogps[i] · logp(targets[i]).
    pub fn token_backward(&self, head: &str, targets: &[Target], dlogps: &[f32], grads: &mut Gradients) {
        let weighted = |x: &Tensor, chunk: Range<usize>| {
            let logps = log_softmax(&self.weights.head(head, x)?)?;
            self.weighted(&self.of_targets(&logps, &targets[chunk.clone()])?, &dlogps[chunk])
        };
        sound(self.backward(&rows_of(targets), weighted, grads));
    }

    /// Adds to `grads` the gradients of Σ dscores[i] · score(rows[i]).
    pub fn score_backward(&self, head: &str, rows: &[usize], dscores: &[f32], grads: &mut Gradients) {
        let weighted =
            |x: &Tensor, chunk: Range<usize>| self.weighted(&self.weights.head(head, x)?.flatten_all()?, &dscores[chunk]);
        sound(self.backward(rows, weighted, grads));
    }

    /// The gradients of a sum over `rows`, of which `part` gives the share of a chunk from its hidden states: (chunk, hidden).
    /// The head is gone through first, a chunk at a time, then the layers once with what the chunks left at `hidden`.
    fn backward(
        &self,
        rows: &[usize],
        part: impl Fn(&Tensor, Range<usize>) -> Result<Tensor>,
        grads: &mut Gradients,
    ) -> Result<()> {
        let mut dhidden = self.hidden.detach().zeros_like()?;
        for start in (0..rows.len()).step_by(CHUNK) {
            let chunk = start..rows.len().min(start + CHUNK);
            let x = Var::from_tensor(&self.rows(&rows[chunk.clone()])?)?;
            let found = part(&x, chunk.clone())?.backward()?;
            if let Some(dx) = found.get(&x) {
                dhidden = dhidden.index_add(&self.weights.indices(rows[chunk].iter().copied())?, dx, 0)?;
            }
            self.weights.add_gradients(&found, grads)?;
        }
        let found = (&self.hidden * dhidden)?.sum_all()?.backward()?;
        self.weights.add_gradients(&found, grads)
    }

    /// (targets,): what stands at each target's token in `values`: (targets, vocabulary).
    fn of_targets(&self, values: &Tensor, targets: &[Target]) -> Result<Tensor> {
        let tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
        values.gather(&Tensor::from_vec(tokens, (targets.len(), 1), &self.weights.device)?, 1)?.squeeze(1)
    }

    /// Σ weights[i] · values[i] of `values`: (n,) in binary32.
    fn weighted(&self, values: &Tensor, weights: &[f32]) -> Result<Tensor> {
        (values * Tensor::new(weights, &self.weights.device)?.to_dtype(DType::F32)?)?.sum_all()
    }
}

fn rows_of(targets: &[Target]) -> Vec<usize> {
    targets.iter().map(|t| t.row).collect()
}

/// (rows, vocabulary) log-probabilities, nats.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)
}
