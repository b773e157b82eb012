//! Decoding with a KV cache; emits `Completion` rows.
//!
//! `sample` draws completions, `measure` says what policy and reference think of them, and `measure_derived` what is known of those whose
//! policy is no model by itself.

mod measure;
mod sampler;

pub use measure::{MeasuredPolicy, measure, measure_derived};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::Prompt;
use crate::data::tokenize::TextTokenizer;
use crate::error::{Error, Result};
use crate::model::{Causal, Decoder};
use crate::rng::Stream;
use crate::suite::settings::GenerateSettings;
use crate::watch::Watch;

use sampler::Sampler;

/// The name under which the reference's own completions are stored.
pub const REFERENCE: &str = "reference";

/// Completions decoded together. It bounds memory and has no influence on what is drawn.
pub(crate) const DECODED_TOGETHER: usize = 64;

/// Sequences for whose next tokens a further thread is worth it.
const SAMPLED_TOGETHER: usize = 8;

/// One sampled completion. Log-probabilities in nats, summed over its tokens (EOS included when `finished`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The policy's variant, or `reference`.
    pub variant: String,
    /// The training seed; none for the reference and for policies trained elsewhere.
    pub seed: Option<u64>,
    /// The optimizer step of the checkpoint; 0 for the reference; of the best of n completions, n.
    pub checkpoint: u64,
    pub prompt_id: String,
    pub sample: u32,
    pub prompt: String,
    pub text: String,
    pub tokens: u32,
    /// Whether it ended with EOS rather than at `max_new_tokens`.
    pub finished: bool,
    /// Under the policy at temperature 1; none where the policy isn't a model as it is (decoded with settings of its own, or chosen from several).
    pub policy_logp: Option<f64>,
    pub reference_logp: f64,
    /// Σ over its positions of the full-vocabulary KL(policy ‖ reference), nats: the Rao–Blackwellised estimator. Of the best of n
    /// completions, log n − (n − 1) / n. None where it isn't known.
    pub kl: Option<f64>,
    /// Σ over its tokens of (r − 1) − log r, r = π_ref / π: the k3 estimator of the same KL (Schulman 2020), token by token, since of
    /// whole sequences it explodes.
    #[serde(default)]
    pub kl_k3: Option<f64>,
    /// Σ over its positions of the entropy of the policy's next token, nats.
    #[serde(default)]
    pub entropy: Option<f64>,
    /// Gold reward, where the truth is known.
    pub gold: Option<f64>,
}

/// A completion as it was drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    pub prompt_id: String,
    /// 0, 1, … within the prompt.
    pub sample: u32,
    pub prompt: String,
    pub prompt_ids: Vec<u32>,
    /// What was drawn, EOS included.
    pub ids: Vec<u32>,
    /// The text of `ids` without special tokens.
    pub text: String,
    /// Whether it ended with EOS.
    pub finished: bool,
}

/// Draws `settings.samples_per_prompt` completions of each prompt: prompt by prompt, sample by sample.
///
/// Completion `s` of prompt `p` draws from `Stream::of(seed, purpose, p · samples + s)` alone, so it doesn't depend on
/// what is decoded beside it.
pub fn sample(
    model: &dyn Causal,
    tokenizer: &TextTokenizer,
    prompts: &[Prompt],
    settings: &GenerateSettings,
    seed: u64,
    purpose: &str,
    watch: &dyn Watch,
) -> Result<Vec<Sampled>> {
    let said = sample_saying(model, tokenizer, prompts, settings, seed, purpose, &|_| (), watch)?;
    Ok(said.into_iter().map(|(sampled, _)| sampled).collect())
}

/// [`sample`], with what `say` makes of each token as it is drawn.
#[allow(clippy::too_many_arguments, reason = "what sampling consists of, and what is said of it")]
pub(crate) fn sample_saying<S: Send>(
    model: &dyn Causal,
    tokenizer: &TextTokenizer,
    prompts: &[Prompt],
    settings: &GenerateSettings,
    seed: u64,
    purpose: &str,
    say: &(dyn Fn(Drawn<'_>) -> S + Sync),
    watch: &dyn Watch,
) -> Result<Vec<(Sampled, Vec<S>)>> {
    let mut writer = Writer::new(model, tokenizer, prompts, settings)?;
    let samples = settings.samples_per_prompt;
    let all: Vec<usize> = (0..prompts.len() * samples).collect();
    let mut sampled = Vec::with_capacity(all.len());
    for chunk in all.chunks(DECODED_TOGETHER) {
        let draw =
            |&i: &usize| Draw { of: i / samples, sample: (i % samples) as u32, stream: Stream::of(seed, purpose, i as u64) };
        sampled.extend(writer.write_saying(chunk.iter().map(draw).collect(), say, watch)?);
        watch.advance(sampled.len() as u64, all.len() as u64, "completions");
    }
    Ok(sampled)
}

/// A token as it is drawn.
pub(crate) struct Drawn<'a> {
    /// (vocabulary,): what it was drawn from.
    pub logits: &'a [f32],
    /// (hidden,): the last layer's state, after the final norm, that these come from; empty but in the strict arithmetic.
    pub state: &'a [f32],
    pub token: u32,
}

/// A completion to be drawn: of which prompt, as which of its samples, with which random numbers.
pub(crate) struct Draw {
    pub of: usize,
    pub sample: u32,
    pub stream: Stream,
}

/// Draws completions of its prompts in any order. What is drawn together is decoded together, and a prompt is then read once.
pub(crate) struct Writer<'a> {
    tokenizer: &'a TextTokenizer,
    prompts: &'a [Prompt],
    encoded: Vec<Vec<u32>>,
    max_new_tokens: usize,
    sampler: Sampler,
    decoder: Decoder<'a>,
}

impl<'a> Writer<'a> {
    pub fn new(
        model: &'a dyn Causal,
        tokenizer: &'a TextTokenizer,
        prompts: &'a [Prompt],
        settings: &GenerateSettings,
    ) -> Result<Self> {
        let sampler = Sampler::new(settings)?;
        if settings.max_new_tokens == 0 || settings.samples_per_prompt == 0 {
            return Err(Error::usage("max_new_tokens and samples_per_prompt must be at least 1"));
        }
        let encoded: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.prompt(&p.text)).collect();
        for (prompt, ids) in prompts.iter().zip(&encoded) {
            check_fits(model, prompt, ids, settings)?;
        }
        let max_new_tokens = settings.max_new_tokens;
        Ok(Self { tokenizer, prompts, encoded, max_new_tokens, sampler, decoder: model.decoder() })
    }

    pub fn write(&mut self, draws: Vec<Draw>, watch: &dyn Watch) -> Result<Vec<Sampled>> {
        Ok(self.write_saying(draws, &|_| (), watch)?.into_iter().map(|(sampled, _)| sampled).collect())
    }

    pub fn write_saying<S: Send>(
        &mut self,
        draws: Vec<Draw>,
        say: &(dyn Fn(Drawn<'_>) -> S + Sync),
        watch: &dyn Watch,
    ) -> Result<Vec<(Sampled, Vec<S>)>> {
        let starts: Vec<Vec<u32>> = draws.iter().map(|draw| self.encoded[draw.of].clone()).collect();
        let (places, mut streams): (Vec<(usize, u32)>, Vec<Stream>) =
            draws.into_iter().map(|draw| ((draw.of, draw.sample), draw.stream)).unzip();
        let eos = self.tokenizer.eos();
        let drawn = decode(&mut self.decoder, &starts, self.max_new_tokens, eos, &self.sampler, &mut streams, say, watch)?;
        let sampled = |((of, sample), (ids, said)): ((usize, u32), (Vec<u32>, Vec<S>))| {
            let (prompt, prompt_ids) = (&self.prompts[of], &self.encoded[of]);
            let sampled = Sampled {
                prompt_id: prompt.id.clone(),
                sample,
                prompt: prompt.text.clone(),
                prompt_ids: prompt_ids.clone(),
                text: self.tokenizer.decode_after(prompt_ids, &ids),
                finished: ids.last() == Some(&eos),
                ids,
            };
            (sampled, said)
        };
        Ok(places.into_iter().zip(drawn).map(sampled).collect())
    }
}

fn check_fits(model: &dyn Causal, prompt: &Prompt, ids: &[u32], settings: &GenerateSettings) -> Result<()> {
    let context = model.limits().context;
    if ids.is_empty() {
        return Err(Error::input(format!("prompt {} has no tokens to start from", prompt.id))
            .help("give it a text, or use a tokenizer that begins texts with BOS"));
    }
    if ids.len() + settings.max_new_tokens > context {
        return Err(Error::input(format!(
            "prompt {} has {} tokens; with max_new_tokens = {} it exceeds the model's context of {context}",
            prompt.id,
            ids.len(),
            settings.max_new_tokens
        ))
        .help("lower max_new_tokens, or remove such prompts from the data"));
    }
    Ok(())
}

/// Continues each of `starts` until EOS or `max_new_tokens`: the tokens, and what is said of each. Sequence i draws from `streams[i]`.
#[allow(clippy::too_many_arguments, reason = "what decoding consists of, and what is said of it")]
fn decode<S: Send>(
    decoder: &mut Decoder,
    starts: &[Vec<u32>],
    max_new_tokens: usize,
    eos: u32,
    sampler: &Sampler,
    streams: &mut [Stream],
    say: &(dyn Fn(Drawn<'_>) -> S + Sync),
    watch: &dyn Watch,
) -> Result<Vec<(Vec<u32>, Vec<S>)>> {
    let mut written: Vec<(Vec<u32>, Vec<S>)> = starts.iter().map(|_| (Vec::new(), Vec::new())).collect();
    let (mut next, mut alive) = (vec![eos; starts.len()], vec![true; starts.len()]);
    decoder.begin(starts);
    for token in 0..max_new_tokens {
        watch.check()?;
        if token > 0 {
            decoder.step(&next, &alive);
        }
        let [vocabulary, hidden] = [decoder.logits(), decoder.states()].map(|rows| rows.len() / starts.len());
        let states = decoder.states();
        let sequences = decoder.logits().par_chunks_exact(vocabulary).zip(&mut *streams).zip(&mut next).zip(&mut written);
        let sequences = sequences.zip(&alive).enumerate().with_min_len(SAMPLED_TOGETHER).filter(|(_, (_, alive))| **alive);
        sequences.try_for_each(|(i, ((((logits, stream), next), written), _))| {
            let token = sampler.next(logits, stream)?;
            *next = token;
            written.0.push(token);
            written.1.push(say(Drawn { logits, state: &states[i * hidden..][..hidden], token }));
            Ok(())
        })?;
        (0..alive.len()).for_each(|i| alive[i] &= next[i] != eos);
        if !alive.contains(&true) {
            break;
        }
    }
    Ok(written)
}

#[cfg(test)]
pub(crate) mod tests;
