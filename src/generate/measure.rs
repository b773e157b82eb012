//! What policy and reference think of sampled completions: log-probabilities and the exact per-position KL.

use super::{Completion, Sampled};
use crate::error::Result;
use crate::model::{Causal, TokenScore, compare};
use crate::statistics::divergence::estimators;
use crate::train::sequence::{Group, PackedGroups, SequenceScore};
use crate::watch::Watch;

/// Completions measured together. It bounds memory and has no influence on the bits.
const MEASURED_TOGETHER: usize = 32;

/// Whose completions they are.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredPolicy<'a> {
    pub variant: &'a str,
    pub seed: Option<u64>,
    pub checkpoint: u64,
}

/// One row a sampled completion, in order.
///
/// `policy` is the model that drew them; for the reference's own completions pass the reference twice. `gold`: the gold
/// reward of (prompt, completion), where the truth is known.
pub fn measure(
    of: &MeasuredPolicy,
    policy: &dyn Causal,
    reference: &dyn Causal,
    sampled: &[Sampled],
    gold: Option<fn(&str, &str) -> f64>,
    watch: &dyn Watch,
) -> Result<Vec<Completion>> {
    rows(of, sampled, &|chunk| values(policy, reference, chunk), gold, watch)
}

/// The same of completions whose policy is no model by itself: a model decoded with settings of its own, or the best of several draws. What
/// is known of each is its log-probability under the reference. `kl`: that of the policy to the reference, where theory gives it.
pub fn measure_derived(
    of: &MeasuredPolicy,
    reference: &dyn Causal,
    sampled: &[Sampled],
    kl: Option<f64>,
    gold: Option<fn(&str, &str) -> f64>,
    watch: &dyn Watch,
) -> Result<Vec<Completion>> {
    let unknown = |v: Values| Values { policy_logp: None, kl, kl_k3: None, entropy: None, ..v };
    rows(of, sampled, &|chunk| values(reference, reference, chunk).into_iter().map(unknown).collect(), gold, watch)
}

fn rows(
    of: &MeasuredPolicy,
    sampled: &[Sampled],
    values: &dyn Fn(&[Sampled]) -> Vec<Values>,
    gold: Option<fn(&str, &str) -> f64>,
    watch: &dyn Watch,
) -> Result<Vec<Completion>> {
    let mut rows = Vec::with_capacity(sampled.len());
    for chunk in sampled.chunks(MEASURED_TOGETHER) {
        watch.check()?;
        for (s, values) in chunk.iter().zip(values(chunk)) {
            let Values { policy_logp, reference_logp, kl, kl_k3, entropy } = values;
            rows.push(Completion {
                variant: of.variant.to_owned(),
                seed: of.seed,
                checkpoint: of.checkpoint,
                prompt_id: s.prompt_id.clone(),
                sample: s.sample,
                prompt: s.prompt.clone(),
                text: s.text.clone(),
                tokens: s.ids.len() as u32,
                finished: s.finished,
                policy_logp,
                reference_logp,
                kl,
                kl_k3,
                entropy,
                gold: gold.map(|reward| reward(&s.prompt, &s.text)),
            });
        }
        watch.advance(rows.len() as u64, sampled.len() as u64, "log-probabilities and KL");
    }
    Ok(rows)
}

struct Values {
    policy_logp: Option<f64>,
    reference_logp: f64,
    kl: Option<f64>,
    kl_k3: Option<f64>,
    entropy: Option<f64>,
}

fn values(policy: &dyn Causal, reference: &dyn Causal, sampled: &[Sampled]) -> Vec<Values> {
    // Samples of one prompt attend to one copy of it.
    let same_prompt = sampled.chunk_by(|a, b| a.prompt_ids == b.prompt_ids);
    let groups = PackedGroups::of(same_prompt.map(|samples| Group {
        prompt: &samples[0].prompt_ids,
        completions: samples.iter().map(|s| s.ids.as_slice()).collect(),
    }));
    if std::ptr::addr_eq(policy, reference) {
        let same = |s: SequenceScore| Values {
            policy_logp: Some(s.logp),
            reference_logp: s.logp,
            kl: Some(0.0),
            kl_k3: Some(0.0),
            entropy: Some(s.entropy),
        };
        return groups.sequences(&policy.score(&groups.packed, &groups.targets)).into_iter().map(same).collect();
    }
    let both = compare(policy, reference, &groups.packed, &groups.targets);
    let kl = groups.split(&both.kl).map(|tokens| tokens.iter().map(|&k| f64::from(k)).sum::<f64>());
    let k3 = |(own, other): (&TokenScore, &TokenScore)| estimators(f64::from(own.logp), f64::from(other.logp)).k3;
    let kl_k3 = groups.split(&both.policy).zip(groups.split(&both.reference)).map(|(p, r)| p.iter().zip(r).map(k3).sum::<f64>());
    groups
        .sequences(&both.policy)
        .iter()
        .zip(groups.sequences(&both.reference))
        .zip(kl.zip(kl_k3))
        .map(|((p, r), (kl, kl_k3))| Values {
            policy_logp: Some(p.logp),
            reference_logp: r.logp,
            kl: Some(kl),
            kl_k3: Some(kl_k3),
            entropy: Some(p.entropy),
        })
        .collect()
}
