//! Decoding with the caches that candle's models keep for themselves.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};

use super::Evaluated;
use super::candle::Steps;

/// Sequences being continued, one token a step.
pub struct Stepper<'a> {
    model: &'a Evaluated,
    /// Sequences of one length, which go through a model together.
    groups: Vec<Group>,
    lengths: Vec<usize>,
    /// (sequences, vocabulary): for each sequence the logits of its next token.
    logits: Vec<f32>,
}

struct Group {
    model: Box<dyn Steps>,
    members: Vec<usize>,
    /// Tokens that the model has read of each.
    read: usize,
}

impl<'a> Stepper<'a> {
    pub fn of(model: &'a Evaluated) -> Self {
        Self { model, groups: Vec::new(), lengths: Vec::new(), logits: Vec::new() }
    }

    pub fn begin(&mut self, prompts: &[Vec<u32>]) {
        sound(self.try_begin(prompts));
    }

    fn try_begin(&mut self, prompts: &[Vec<u32>]) -> Result<()> {
        self.groups.clear();
        self.lengths = prompts.iter().map(Vec::len).collect();
        self.logits = vec![0.0; prompts.len() * self.model.limits.vocab_size];
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        self.lengths.iter().enumerate().for_each(|(i, length)| by_length.entry(*length).or_default().push(i));
        for (length, members) in by_length {
            for members in members.chunks(self.model.together) {
                let mut group = Group { model: (self.model.fresh)()?, members: members.to_vec(), read: 0 };
                let tokens: Vec<u32> = members.iter().flat_map(|i| &prompts[*i]).copied().collect();
                let found = group.forward(tokens, length)?;
                self.take(&group.members, &found, |_| true);
                self.groups.push(group);
            }
        }
        Ok(())
    }

    /// `found`: (members, vocabulary), of which those that are `wanted` are kept.
    fn take(&mut self, members: &[usize], found: &[f32], wanted: impl Fn(usize) -> bool) {
        let vocabulary = self.model.limits.vocab_size;
        for (member, row) in members.iter().zip(found.chunks_exact(vocabulary)).filter(|(member, _)| wanted(**member)) {
            self.logits[member * vocabulary..][..vocabulary].copy_from_slice(row);
        }
    }

    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    pub fn len(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    pub fn step(&mut self, next: &[u32], alive: &[bool]) {
        sound(self.try_step(next, alive));
    }

    fn try_step(&mut self, next: &[u32], alive: &[bool]) -> Result<()> {
        // Its cache can't be parted, so a group goes on as long as one of its sequences does; the others read anything.
        self.groups.retain(|group| group.members.iter().any(|i| alive[*i]));
        for mut group in std::mem::take(&mut self.groups) {
            let tokens = group.members.iter().map(|i| if alive[*i] { next[*i] } else { 0 }).collect();
            let found = group.forward(tokens, 1)?;
            self.take(&group.members, &found, |i| alive[i]);
            self.groups.push(group);
        }
        (0..alive.len()).filter(|i| alive[*i]).for_each(|i| self.lengths[i] += 1);
        Ok(())
    }
}

impl Group {
    /// Reads `length` tokens more of each member. Returns (members, vocabulary).
    fn forward(&mut self, tokens: Vec<u32>, length: usize) -> Result<Vec<f32>> {
        let ids = Tensor::from_vec(tokens, (self.members.len(), length), &Device::Cpu)?;
        let logits = self.model.forward(&ids, self.read)?;
        self.read += length;
        logits.flatten_all()?.to_vec1()
    }
}

/// Of a model that was tried out: it fails for want of memory, or by a defect.
fn sound<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("candle failed: {error}"))
}
