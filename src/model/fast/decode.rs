//! Batched decoding with a key-value cache.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::attention::{Layout, attend, sees};
use super::sound;
use super::weights::Weights;
use crate::model::{LlamaConfig, Packed, Parameters, SegmentId};

/// Sequences being continued, one token a step.
///
/// All that still go on stand in the cache, each prompt in the first slots and the tokens of each step in one more slot for all.
pub struct Decoder {
    weights: Weights,
    head: String,
    /// The sequences in the cache, ascending.
    members: Vec<usize>,
    /// The number of tokens of each prompt, and of each sequence so far.
    prompts: Vec<usize>,
    lengths: Vec<usize>,
    /// Slots in use, of which the longest prompt has the first `prompt_slots`.
    slots: usize,
    prompt_slots: usize,
    /// A layer's keys and values: (members, kv_heads, capacity, head_dim) each.
    caches: Vec<[Tensor; 2]>,
    /// (sequences, vocabulary): for each sequence the logits of its next token.
    logits: Vec<f32>,
}

impl Decoder {
    /// Without sequences so far.
    pub fn of(config: &LlamaConfig, parameters: &Parameters, head: &str) -> Self {
        Self {
            weights: sound(Weights::new(config, parameters, false)),
            head: head.to_owned(),
            members: Vec::new(),
            prompts: Vec::new(),
            lengths: Vec::new(),
            slots: 0,
            prompt_slots: 0,
            caches: Vec::new(),
            logits: Vec::new(),
        }
    }

    pub fn begin(&mut self, prompts: &[Vec<u32>]) {
        sound(self.try_begin(prompts));
    }

    fn try_begin(&mut self, prompts: &[Vec<u32>]) -> Result<()> {
        self.caches.clear();
        let weights = &self.weights;
        let (mut packed, mut unique) = (Packed::new(), BTreeMap::new());
        let segments: Vec<SegmentId> =
            prompts.iter().map(|prompt| *unique.entry(prompt).or_insert_with(|| packed.push(prompt))).collect();
        let layout = Layout::new(weights, packed.segments(), packed.rows())?;
        let rotaries = weights.rotaries(packed.positions())?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        // Each sequence's prompt rows, the last one again where the longest prompt has more.
        let rows = |segment: &SegmentId| {
            let rows = packed.rows_of(*segment);
            (0..longest).map(move |slot| (rows.start + slot).min(rows.end - 1))
        };
        let slots = weights.indices(segments.iter().flat_map(rows))?;
        let in_slots = |x: &Tensor| {
            let (_, heads, dim) = x.dims3()?;
            x.index_select(&slots, 0)?.reshape((prompts.len(), longest, heads, dim))?.transpose(1, 2)?.contiguous()
        };
        let (mut x, mut caches) = (weights.embed(packed.tokens(), packed.positions())?, Vec::new());
        for layer in 0..weights.config.num_hidden_layers {
            x = weights.layer(layer, &x, &rotaries, |qkv| {
                caches.push([in_slots(qkv[1])?, in_slots(qkv[2])?]);
                layout.attend(qkv, weights.config.heads_in(layer))
            })?;
        }
        let last = weights.indices(segments.iter().map(|s| packed.last_row(*s)))?;
        self.logits = weights.head(&self.head, &x.index_select(&last, 0)?)?.flatten_all()?.to_vec1()?;
        self.caches = caches;
        self.members = (0..prompts.len()).collect();
        self.prompts = prompts.iter().map(Vec::len).collect();
        self.lengths = self.prompts.clone();
        (self.slots, self.prompt_slots) = (longest, longest);
        Ok(())
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
        let going: Vec<usize> = (0..self.lengths.len()).filter(|i| alive[*i]).collect();
        if going.is_empty() {
            return Ok(());
        }
        self.keep(&going)?;
        self.reserve()?;
        let masks = self.weights.config.windows().into_iter().map(|window| Ok((window, self.mask(window)?)));
        let masks = masks.collect::<Result<BTreeMap<_, _>>>()?;
        let tokens: Vec<u32> = going.iter().map(|i| next[*i]).collect();
        let positions: Vec<u32> = going.iter().map(|i| self.lengths[*i] as u32).collect();
        let rotaries = self.weights.rotaries(&positions)?;
        let (slot, mut x) = (self.slots, self.weights.embed(&tokens, &positions)?);
        for (layer, [keys, values]) in self.caches.iter().enumerate() {
            let heads = self.weights.config.heads_in(layer);
            let mask = &masks[&heads.window];
            x = self.weights.layer(layer, &x, &rotaries, |[q, k, v]| {
                keys.slice_set(&k.unsqueeze(2)?.contiguous()?, 2, slot)?;
                values.slice_set(&v.unsqueeze(2)?.contiguous()?, 2, slot)?;
                let (keys, values) = (keys.narrow(2, 0, slot + 1)?, values.narrow(2, 0, slot + 1)?);
                attend(&q.unsqueeze(2)?, &keys, &values, mask, heads)?.flatten_from(1)
            })?;
        }
        let logits = self.weights.head(&self.head, &x)?.flatten_all()?.to_vec1::<f32>()?;
        let vocabulary = self.weights.config.vocab_size;
        for (i, row) in going.iter().zip(logits.chunks_exact(vocabulary)) {
            self.logits[i * vocabulary..][..vocabulary].copy_from_slice(row);
            self.lengths[*i] += 1;
        }
        self.slots += 1;
        Ok(())
    }

    /// Drops the sequences that no longer go on from the cache.
    fn keep(&mut self, going: &[usize]) -> Result<()> {
        if self.members == going {
            return Ok(());
        }
        let place = |i: &usize| self.members.binary_search(i).expect("a sequence that was left out of a step doesn't come back");
        let kept = self.weights.indices(going.iter().map(place))?;
        for cache in self.caches.iter_mut().flatten() {
            *cache = cache.index_select(&kept, 0)?;
        }
        self.members = going.to_vec();
        Ok(())
    }

    /// Makes room for one more slot.
    fn reserve(&mut self) -> Result<()> {
        for cache in self.caches.iter_mut().flatten().filter(|cache| cache.dims()[2] == self.slots) {
            *cache = Tensor::cat(&[&*cache, &cache.zeros_like()?], 2)?.contiguous()?;
        }
        Ok(())
    }

    /// (members, 1, 1, slots + 1): −∞ between a prompt's end and the longest prompt's, and before the window.
    fn mask(&self, window: Option<usize>) -> Result<Tensor> {
        let row = |i: &usize| {
            let (prompt, last) = (self.prompts[*i], self.lengths[*i]);
            (0..=self.slots).map(move |s| {
                let position = if s < self.prompt_slots { s } else { prompt + s - self.prompt_slots };
                let there = s < prompt || s >= self.prompt_slots;
                if there && sees(last, position, window) { 0.0 } else { f32::NEG_INFINITY }
            })
        };
        self.weights.constant(self.members.iter().flat_map(row).collect(), (self.members.len(), 1, 1, self.slots + 1))
    }
}
