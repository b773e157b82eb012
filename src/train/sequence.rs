//! Examples as the model sees them: packed ragged batches, and per-token results summed to sequences.

use crate::data::TokenizedPair;
use crate::data::shelf::Shelf;
use crate::error::{Error, Result};
use crate::model::{Limits, Packed, Target, TokenScore, derived};

/// A completion's results. Sums run over its tokens in position order, in binary64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceScore {
    /// log π(y|x), nats.
    pub logp: f64,
    /// Σ of the entropies of the next-token distributions, nats.
    pub entropy: f64,
    /// Σ of the mean logits over the vocabulary.
    pub logits: f64,
    pub tokens: usize,
}

impl SequenceScore {
    pub fn of(tokens: &[TokenScore]) -> Self {
        let sum = |value: fn(&TokenScore) -> f32| tokens.iter().map(|t| f64::from(value(t))).sum();
        Self { logp: sum(|t| t.logp), entropy: sum(|t| t.entropy), logits: sum(|t| t.mean_logit), tokens: tokens.len() }
    }
}

/// A prompt with its completions, which all attend to one copy of it.
pub struct Group<'a> {
    pub prompt: &'a [u32],
    pub completions: Vec<&'a [u32]>,
}

/// Groups as one ragged batch.
pub struct PackedGroups {
    pub packed: Packed,
    /// The completions' tokens, group by group, completion by completion, in position order.
    pub targets: Vec<Target>,
    /// The number of tokens of each completion, in the same order.
    pub lengths: Vec<usize>,
}

impl PackedGroups {
    pub fn of<'a>(groups: impl IntoIterator<Item = Group<'a>>) -> Self {
        Self::pack(groups, false)
    }

    /// With the prompt's own tokens after its first as one more completion, before the others of its group.
    pub fn with_prompts<'a>(groups: impl IntoIterator<Item = Group<'a>>) -> Self {
        Self::pack(groups, true)
    }

    fn pack<'a>(groups: impl IntoIterator<Item = Group<'a>>, prompts: bool) -> Self {
        let (mut packed, mut targets, mut lengths) = (Packed::new(), Vec::new(), Vec::new());
        for group in groups {
            let prompt = packed.push(group.prompt);
            if prompts {
                targets.extend(packed.targets_within(prompt));
                lengths.push(group.prompt.len() - 1);
            }
            for completion in group.completions {
                let segment = packed.push_after(prompt, completion);
                targets.extend(packed.completion_targets(prompt, segment));
                lengths.push(completion.len());
            }
        }
        Self { packed, targets, lengths }
    }

    /// Without the targets that `kept` says no to, one entry a target.
    pub fn only(mut self, kept: &[bool]) -> Self {
        assert_eq!(kept.len(), self.targets.len(), "one entry a target");
        self.lengths = self.split(kept).map(|kept| kept.iter().filter(|kept| **kept).count()).collect();
        let mut kept = kept.iter();
        self.targets.retain(|_| *kept.next().expect("one entry a target"));
        self
    }

    /// The state of each packed row from which an adapter's dropout derives its masks: derived from that of the step, then the
    /// example, the segment in its group (0: the prompt, which its completions share) and the position.
    pub fn dropout_states(&self, step: u64, examples: &[usize]) -> Vec<u64> {
        let mut states = Vec::with_capacity(self.packed.rows());
        let (mut group, mut ordinal) = (0, 0);
        for segment in self.packed.segments() {
            (group, ordinal) = if segment.parent.is_none() { (group + 1, 0) } else { (group, ordinal + 1) };
            let state = derived(derived(step, examples[group - 1] as u64), ordinal);
            states.extend(self.packed.positions()[segment.rows.clone()].iter().map(|&p| derived(state, u64::from(p))));
        }
        states
    }

    /// One score a completion from one a target.
    pub fn sequences(&self, tokens: &[TokenScore]) -> Vec<SequenceScore> {
        self.split(tokens).map(SequenceScore::of).collect()
    }

    /// What belongs to each completion of something that has one entry a target.
    pub fn split<'a, T>(&'a self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let mut rest = values;
        self.lengths.iter().map(move |&length| {
            let (head, tail) = rest.split_at(length);
            rest = tail;
            head
        })
    }

    /// The gradient of each target from the gradient of each completion's sum.
    pub fn spread(&self, gradients: impl IntoIterator<Item = f64>) -> Vec<f32> {
        self.lengths.iter().zip(gradients).flat_map(|(&length, g)| std::iter::repeat_n(g as f32, length)).collect()
    }
}

/// Cuts the completion so that prompt and completion together have at most `max_length` tokens (TRL's `keep_start`), and
/// checks what is left against the model's vocabulary and context.
///
/// A prompt that leaves no room for a completion is an error: TRL drops such rows.
pub(crate) fn fit(
    limits: impl Into<Limits>,
    id: &str,
    prompt: &[u32],
    completion: &mut Vec<u32>,
    max_length: Option<usize>,
) -> Result<()> {
    not_empty(id, prompt, completion)?;
    if let Some(max) = max_length {
        if prompt.len() >= max {
            return Err(Error::input(format!(
                "the prompt of example {id} has {} tokens, which leaves no room for a completion within max_length = {max}",
                prompt.len()
            ))
            .help("raise max_length, or remove such prompts from the data (`max_prompt_length` in [dataset] does so and counts them)"));
        }
        completion.truncate(max - prompt.len());
    }
    check(limits, id, &[prompt, completion].concat())
}

/// An error where an example has nothing to be asked or nothing to learn.
pub(crate) fn not_empty(id: &str, prompt: &[u32], completion: &[u32]) -> Result<()> {
    if prompt.is_empty() || completion.is_empty() {
        let part = if prompt.is_empty() { "prompt" } else { "completion" };
        return Err(Error::input(format!("example {id} has a {part} without tokens")).help("remove it from the data"));
    }
    Ok(())
}

/// An error where a sequence doesn't fit the model's vocabulary or context.
pub(crate) fn check(limits: impl Into<Limits>, id: &str, tokens: &[u32]) -> Result<()> {
    let mut packed = Packed::new();
    packed.push(tokens);
    packed.check(limits).map_err(|e| Error { message: format!("example {id}: {}", e.message), ..e })
}

/// `fit` on both sides of pairs. Sides that the cut made equal are kept: their gradients cancel, as in TRL.
pub(crate) fn fit_pairs(
    limits: impl Into<Limits>,
    pairs: &Shelf<TokenizedPair>,
    max_length: Option<usize>,
) -> Result<Shelf<TokenizedPair>> {
    let (limits, mut fitted) = (limits.into(), pairs.like()?);
    for pair in pairs.iter() {
        let mut pair = pair.into_owned();
        fit(limits, &pair.id, &pair.prompt, &mut pair.chosen, max_length)?;
        fit(limits, &pair.id, &pair.prompt, &mut pair.rejected, max_length)?;
        fitted.add(pair)?;
    }
    Ok(fitted)
}
