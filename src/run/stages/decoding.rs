//! Policies that are another one decoded in another way: its last checkpoint, drawn from with settings of the variant's own.

use super::{Body, names};
use crate::data::files::write_jsonl;
use crate::error::Result;
use crate::generate::{self, MeasuredPolicy, Sampled};
use crate::model::Causal;
use crate::suite::settings::DecodedSettings;

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
        let rows = generate::measure_derived(&of, reference.as_ref(), &samples, self.gold(), self.context.watch)?;
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
