//! A causal language model as evaluation sees it, whoever computes it: what it reads, what it says of texts, and how it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files;
use super::keys::evaluated;
use crate::error::Result;
use crate::model::{Comparison, Decoder, Evaluated, Llama, LlamaConfig, Packed, Target, TokenScore, llama};
use crate::numerics::logprob;
use crate::suite::settings::Numerics;

/// What a model can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub vocab_size: usize,
    /// Tokens of the longest sequence.
    pub context: usize,
}

impl Limits {
    /// Those of a Hugging Face folder, of whichever kind.
    pub fn load(folder: &Path) -> Result<Self> {
        match Evaluated::config(folder)? {
            Some(config) => Ok(config.limits),
            None => Ok(Self::from(&LlamaConfig::load(folder)?)),
        }
    }
}

impl From<&LlamaConfig> for Limits {
    fn from(config: &LlamaConfig) -> Self {
        Self { vocab_size: config.vocab_size, context: config.max_position_embeddings }
    }
}

pub trait Causal: Send + Sync {
    fn limits(&self) -> Limits;

    /// Without sequences so far.
    fn decoder(&self) -> Decoder<'_>;

    /// One score a target; keeps nothing.
    fn score(&self, packed: &Packed, targets: &[Target]) -> Vec<TokenScore>;

    /// The model itself where it is computed here, and could be trained.
    fn own(&self) -> Option<&Llama>;
}

impl Causal for Llama {
    fn limits(&self) -> Limits {
        Limits::from(&self.config)
    }

    fn decoder(&self) -> Decoder<'_> {
        Decoder::of(self)
    }

    fn score(&self, packed: &Packed, targets: &[Target]) -> Vec<TokenScore> {
        Llama::score(self, packed, targets)
    }

    fn own(&self) -> Option<&Llama> {
        Some(self)
    }
}

/// The model of a Hugging Face folder, for evaluation in this arithmetic.
pub fn load(folder: &Path, numerics: Numerics) -> Result<Box<dyn Causal>> {
    if Evaluated::config(folder)?.is_some() && numerics == Numerics::Fast {
        return Ok(Box::new(Evaluated::load(folder)?));
    }
    Ok(Box::new(Llama::load(folder)?.with_numerics(numerics)))
}

/// The `model_type` of a folder whose model can only be evaluated.
pub fn evaluated_only(folder: &Path) -> Result<Option<&'static str>> {
    Ok(Evaluated::config(folder)?.map(|config| config.family.name()))
}

/// All of them.
pub fn evaluated_families() -> [&'static str; evaluated::Theirs::ALL.len()] {
    evaluated::Theirs::ALL.map(evaluated::Theirs::name)
}

/// Writes the folder's model as one file in binary32, with the configuration as it is.
pub fn copy_evaluated(from: &Path, to: &Path) -> Result<()> {
    files::write(to, &files::config_text(from)?, &Evaluated::tensors(from)?)
}

/// Both models' scores of every target, and the divergence of their next-token distributions there.
///
/// # Panics
/// When the two models have different vocabularies, or are ours with different arithmetics.
pub fn compare(policy: &dyn Causal, reference: &dyn Causal, packed: &Packed, targets: &[Target]) -> Comparison {
    if let (Some(policy), Some(reference)) = (policy.own(), reference.own()) {
        return llama::compare(policy, reference, packed, targets);
    }
    assert_eq!(policy.limits().vocab_size, reference.limits().vocab_size, "policy and reference have one vocabulary");
    let mut found: Vec<Option<(TokenScore, TokenScore, f32)>> = vec![None; targets.len()];
    walk(&[policy, reference], packed, targets, |target, rows| {
        let token = targets[target].token;
        let [p, r] = [rows[0], rows[1]];
        found[target] = Some((logprob::score(p, token), logprob::score(r, token), logprob::kl(p, r)));
    });
    let mut all = Comparison { policy: Vec::new(), reference: Vec::new(), kl: Vec::new() };
    for (policy, reference, kl) in found.into_iter().map(|found| found.expect("a walk reads every target")) {
        all.policy.push(policy);
        all.reference.push(reference);
        all.kl.push(kl);
    }
    all
}

/// [`Causal::score`] of a model that only decodes.
pub(super) fn score_decoding(model: &dyn Causal, packed: &Packed, targets: &[Target]) -> Vec<TokenScore> {
    let mut found = vec![None; targets.len()];
    walk(&[model], packed, targets, |target, rows| found[target] = Some(logprob::score(rows[0], targets[target].token)));
    found.into_iter().map(|score| score.expect("a walk reads every target")).collect()
}

/// Lets the models decode the packed sequences, each token of which is given, and calls `each` with a target's number and every model's
/// logits at its row, in no particular order.
fn walk(models: &[&dyn Causal], packed: &Packed, targets: &[Target], mut each: impl FnMut(usize, &[&[f32]])) {
    let courses = courses(packed, targets);
    let starts: Vec<Vec<u32>> = courses.iter().map(|course| course.start.clone()).collect();
    let mut decoders: Vec<Decoder> = models.iter().map(|model| model.decoder()).collect();
    decoders.iter_mut().for_each(|decoder| decoder.begin(&starts));
    for step in 0..courses.iter().map(|course| course.reads.len()).max().unwrap_or(0) {
        if step > 0 {
            let next: Vec<Option<u32>> = courses.iter().map(|course| course.rest.get(step - 1).copied()).collect();
            let alive: Vec<bool> = next.iter().map(Option::is_some).collect();
            let next: Vec<u32> = next.into_iter().map(Option::unwrap_or_default).collect();
            decoders.iter_mut().for_each(|decoder| decoder.step(&next, &alive));
        }
        for (place, course) in courses.iter().enumerate() {
            for target in course.reads.get(step).into_iter().flatten() {
                let row = |decoder: &'_ Decoder| {
                    let vocabulary = decoder.logits().len() / courses.len();
                    place * vocabulary..(place + 1) * vocabulary
                };
                let rows: Vec<&[f32]> = decoders.iter().map(|decoder| &decoder.logits()[row(decoder)]).collect();
                each(*target, &rows);
            }
        }
    }
}

/// A sequence of a packed batch, as it is decoded.
struct Course {
    /// Up to the first row that is read.
    start: Vec<u32>,
    rest: Vec<u32>,
    /// The targets of the last row of `start` and of each row of `rest`.
    reads: Vec<Vec<usize>>,
}

/// One course for each sequence of the batch that has a row of its own to be read.
fn courses(packed: &Packed, targets: &[Target]) -> Vec<Course> {
    let mut by_row: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    targets.iter().enumerate().for_each(|(index, target)| by_row.entry(target.row).or_default().push(index));
    let segments = packed.segments();
    let parents: BTreeSet<usize> = segments.iter().filter_map(|segment| segment.parent).collect();
    let mut courses = Vec::new();
    for leaf in (0..segments.len()).filter(|index| !parents.contains(index)) {
        let mut chain = vec![leaf];
        while let Some(parent) = segments[chain[chain.len() - 1]].parent {
            chain.push(parent);
        }
        let rows: Vec<usize> = chain.iter().rev().flat_map(|&index| segments[index].rows.clone()).collect();
        let reads: Vec<Vec<usize>> = rows.iter().map(|row| by_row.remove(row).unwrap_or_default()).collect();
        let read = |reads: &Vec<usize>| !reads.is_empty();
        if let (Some(first), Some(last)) = (reads.iter().position(read), reads.iter().rposition(read)) {
            let tokens: Vec<u32> = rows[..=last].iter().map(|row| packed.tokens()[*row]).collect();
            courses.push(Course {
                start: tokens[..=first].to_vec(),
                rest: tokens[first + 1..].to_vec(),
                reads: reads[first..=last].to_vec(),
            });
        }
    }
    courses
}
