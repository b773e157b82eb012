//! Policies that aren't trained but decoded: the last checkpoint of another one, drawn from with settings of the variant's own, and the best
//! of what the reference writes.

use super::{Body, names};
use crate::data::files::write_jsonl;
use crate::error::Result;
use crate::generate::{self, MeasuredPolicy, Sampled};
use crate::model::Causal;
use crate::rlhf::{Choice, best_of};
use crate::statistics::divergence;
use crate::suite::settings::{BestOfSettings, DecodedSettings};

impl Body<'_> {
    /// Draws with the random numbers of all other policies' samples, or, from the reference, with those under the seed.
    pub(super) fn evaluate_decoded(&self, name: &str, seed: Option<u64>, decoded: &DecodedSettings) -> Result<Vec<String>> {
        let reference = self.evaluated_reference()?;
        let (checkpoint, policy, drawn_under) = match &decoded.of {
            Some(of) => {
                let (checkpoint, policy, _) = self.last_policy(of, seed, reference.as_ref())?;
                (checkpoint, Some(policy), self.suite.seed)
            }
            None => (0, None, seed.unwrap_or(self.suite.seed)),
        };
        let policy = policy.as_deref().unwrap_or(reference.as_ref());
        let samples = self.decoded_samples(policy, decoded, drawn_under)?;
        let of = MeasuredPolicy { variant: name, seed, checkpoint };
        let rows = generate::measure_derived(&of, reference.as_ref(), &samples, None, self.gold(), self.context.watch)?;
        write_jsonl(&self.work().join("completions.jsonl"), &rows)?;
        Ok(names(&["completions.jsonl"]))
    }

    /// At each n as at a checkpoint. Their KL is that of the best of n draws from the draws (Gao et al. 2022): exact where rewards have no ties,
    /// else an upper bound, as where texts repeat (Beirami et al. 2024, arXiv 2401.01879).
    pub(super) fn evaluate_best_of(&self, name: &str, seed: Option<u64>, best: &BestOfSettings) -> Result<Vec<String>> {
        let (reference, tokenizer, prompts) = (self.evaluated_reference()?, self.tokenizer()?, self.evaluation_prompts()?);
        let reference = reference.as_ref();
        let reward = self.reward(&best.reward_model, &tokenizer)?;
        let (counts, seed_of_draws) = (best.best_of_n.as_slice(), seed.unwrap_or(self.suite.seed));
        let choice = Choice { reward: &reward, counts, seed: seed_of_draws, purpose: super::POLICY_SAMPLES };
        let chosen = best_of(reference, &tokenizer, &prompts, &self.suite.generate, &choice, self.context.watch)?;
        let mut rows = Vec::new();
        for (&n, samples) in counts.iter().zip(&chosen) {
            let of = MeasuredPolicy { variant: name, seed, checkpoint: n };
            let (kl, watch) = (Some(divergence::best_of(n)), self.context.watch);
            rows.extend(generate::measure_derived(&of, reference, samples, kl, self.gold(), watch)?);
        }
        write_jsonl(&self.work().join("completions.jsonl"), &rows)?;
        Ok(names(&["completions.jsonl"]))
    }

    /// Greedy decoding writes one text a prompt, which stands beside each of the reference's samples.
    fn decoded_samples(&self, policy: &dyn Causal, decoded: &DecodedSettings, seed: u64) -> Result<Vec<Sampled>> {
        let (tokenizer, prompts) = (self.tokenizer()?, self.evaluation_prompts()?);
        let mut settings = decoded.over(&self.suite.generate);
        let beside = settings.samples_per_prompt;
        if decoded.is_greedy() {
            settings.samples_per_prompt = 1;
        }
        let drawn = generate::sample(policy, &tokenizer, &prompts, &settings, seed, super::POLICY_SAMPLES, self.context.watch)?;
        if !decoded.is_greedy() {
            return Ok(drawn);
        }
        let copies = |text: &Sampled| (0..beside as u32).map(|sample| Sampled { sample, ..text.clone() }).collect::<Vec<_>>();
        Ok(drawn.iter().flat_map(copies).collect())
    }
}
