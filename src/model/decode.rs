//! Batched decoding with a key-value cache. Logits have the same bits as those of scoring the whole sequence.

use std::collections::BTreeMap;

use super::trunk::{Prepared, Rotaries, Trunk};
use crate::model::{Llama, Packed, SegmentId};
use crate::numerics::attention::Cache;
use crate::numerics::buffer::Buffer;
use crate::numerics::device;
use crate::numerics::parallel::in_parts;

/// With so many prompts a thread reads them by itself, and with so many sequences it takes a whole step: each thread then reads all
/// weights, which fewer rows don't pay for.
const PROMPTS_OF_A_THREAD: usize = 4;
const SEQUENCES_OF_A_THREAD: usize = 12;

/// Sequences being continued, one token a step.
pub struct Decoder<'a> {
    model: &'a Llama,
    /// On the CPU.
    prepared: Option<Prepared>,
    caches: Vec<Cache>,
    /// (sequences, vocabulary): for each sequence the logits of its next token.
    logits: Vec<f32>,
    /// (sequences, hidden): the last layer's states, after the final norm, that these logits come from.
    states: Vec<f32>,
    rotaries: Rotaries,
}

impl<'a> Decoder<'a> {
    /// Without sequences so far.
    pub fn of(model: &'a Llama) -> Self {
        let rotaries = model.trunk().rotaries(model.config.max_position_embeddings);
        let prepared = device::active().is_none().then(|| Prepared::new(&model.config, &model.parameters));
        Self { model, prepared, caches: Vec::new(), logits: Vec::new(), states: Vec::new(), rotaries }
    }

    /// Lets go of all sequences and reads these prompts (each at least one token); equal ones are computed once.
    pub fn begin(&mut self, prompts: &[Vec<u32>]) {
        self.caches.clear();
        let mut places: BTreeMap<&[u32], usize> = BTreeMap::new();
        let mut unique: Vec<&[u32]> = Vec::new();
        for prompt in prompts {
            places.entry(prompt).or_insert_with(|| {
                unique.push(prompt);
                unique.len() - 1
            });
        }
        let (config, trunk) = (&self.model.config, Trunk { prepared: self.prepared.as_ref(), ..self.model.trunk() });
        let vocabulary = config.vocab_size;
        let empty = |prompt: &&[u32]| Cache::new(config.num_hidden_layers, config.heads(), 2 * prompt.len());
        let mut caches: Vec<Cache> = unique.iter().map(empty).collect();
        let width = config.hidden_size;
        let (mut first, mut states) = (Buffer::unspecified(unique.len() * vocabulary), Buffer::unspecified(unique.len() * width));
        let answers = first.chunks_exact_mut(vocabulary).zip(states.chunks_exact_mut(width));
        let all = caches.iter_mut().zip(&unique).zip(answers);
        let all = all.map(|((cache, tokens), (logits, state))| Growing { cache, tokens, logits, state });
        in_parts(&mut all.collect::<Vec<_>>(), PROMPTS_OF_A_THREAD, |sequences| read(self.model, trunk, sequences));
        let of = |prompt: &Vec<u32>| places[prompt.as_slice()];
        self.logits = prompts.iter().flat_map(|p| &first[of(p) * vocabulary..][..vocabulary]).copied().collect();
        self.states = prompts.iter().flat_map(|p| &states[of(p) * width..][..width]).copied().collect();
        self.caches = one_each(caches, prompts.iter().map(of).collect());
    }

    /// (sequences, vocabulary). The rows of sequences that took no part in the last step keep their old values.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// (sequences, hidden): what the logits come from.
    pub fn states(&self) -> &[f32] {
        &self.states
    }

    /// Number of tokens of a sequence so far.
    pub fn len(&self, sequence: usize) -> usize {
        self.caches[sequence].len()
    }

    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Appends `next[i]` to each sequence i that is `alive` and computes its logits; the others cost nothing.
    pub fn step(&mut self, next: &[u32], alive: &[bool]) {
        let longest = self.caches.iter().zip(alive).filter(|(_, alive)| **alive).map(|(cache, _)| cache.len()).max();
        let Some(longest) = longest else { return };
        self.reach(longest + 1);
        let Self { model, prepared, caches, logits, states, rotaries } = self;
        let trunk = Trunk { prepared: prepared.as_ref(), ..model.trunk() };
        let answers = logits.chunks_exact_mut(model.config.vocab_size).zip(states.chunks_exact_mut(model.config.hidden_size));
        let all = caches.iter_mut().zip(next.chunks_exact(1)).zip(answers).zip(alive);
        let alive = all.filter(|(_, alive)| **alive);
        let alive = alive.map(|(((cache, tokens), (logits, state)), _)| Growing { cache, tokens, logits, state });
        in_parts(&mut alive.collect::<Vec<_>>(), SEQUENCES_OF_A_THREAD, |sequences| grow(model, trunk, rotaries, sequences));
    }

    /// Rotary tables for `positions` positions.
    fn reach(&mut self, positions: usize) {
        if self.rotaries.positions().is_some_and(|reached| positions > reached) {
            self.rotaries = self.model.trunk().rotaries(2 * positions);
        }
    }
}

/// A sequence that gets further tokens: its prompt, or the next one.
struct Growing<'a> {
    cache: &'a mut Cache,
    tokens: &'a [u32],
    /// (vocabulary,): of what follows them.
    logits: &'a mut [f32],
    /// (hidden,): what these come from.
    state: &'a mut [f32],
}

/// Begins the sequences with their prompts.
fn read(model: &Llama, trunk: Trunk<'_>, sequences: &mut [Growing<'_>]) {
    let mut packed = Packed::new();
    let segments: Vec<SegmentId> = sequences.iter().map(|s| packed.push(s.tokens)).collect();
    let last: Vec<usize> = segments.iter().map(|s| packed.last_row(*s)).collect();
    let mut layer = 0;
    let tape = trunk.forward_with(&packed, last.iter().copied(), |saved| {
        let heads = model.config.heads();
        for (sequence, segment) in sequences.iter_mut().zip(&segments) {
            let (rows, width) = (packed.rows_of(*segment), heads.key_width());
            let [k, v] = [&saved.k, &saved.v].map(|x| &x[rows.start * width..rows.end * width]);
            sequence.cache.fill(layer, heads, k, v);
        }
        layer += 1;
    });
    answer(model, trunk, &trunk.gather(&tape.hidden, &tape.places(last)), sequences);
}

/// The logits after the sequences' last tokens, whose residual streams are `x`: (sequences, hidden).
fn answer(model: &Llama, trunk: Trunk<'_>, x: &[f32], sequences: &mut [Growing<'_>]) {
    let normed = trunk.final_normed(x).0;
    let logits = model.logits_by(trunk, &normed);
    let (normed, logits) = (normed.to_read(), logits.to_read());
    let answers = logits.chunks_exact(model.config.vocab_size).zip(normed.chunks_exact(model.config.hidden_size));
    for (sequence, (logits, state)) in sequences.iter_mut().zip(answers) {
        sequence.logits.copy_from_slice(logits);
        sequence.state.copy_from_slice(state);
    }
}

/// Appends its next token to each sequence.
fn grow(model: &Llama, trunk: Trunk<'_>, rotaries: &Rotaries, sequences: &mut [Growing<'_>]) {
    let tokens: Vec<u32> = sequences.iter().flat_map(|s| s.tokens).copied().collect();
    let positions: Vec<u32> = sequences.iter().map(|s| s.cache.len() as u32).collect();
    sequences.iter_mut().for_each(|s| s.cache.reserve());
    let mut x = trunk.embed(&tokens, &positions);
    let asked: Vec<usize> = (0..sequences.len()).collect();
    for layer in 0..model.config.num_hidden_layers {
        let [q, k, v] = trunk.project(layer, &x, &positions, &asked, rotaries).qkv;
        let mut caches: Vec<&mut Cache> = sequences.iter_mut().map(|s| &mut *s.cache).collect();
        let attended = Cache::attend(&mut caches, layer, model.config.heads_in(layer), &q, &k, &v);
        (_, x) = trunk.finish(layer, x, &attended);
    }
    sequences.iter_mut().for_each(|s| s.cache.advance());
    answer(model, trunk, &x, sequences);
}

/// The items at `places`, copied where one is wanted more than once.
fn one_each<T: Clone>(items: Vec<T>, places: Vec<usize>) -> Vec<T> {
    let mut wanted = vec![0; items.len()];
    places.iter().for_each(|p| wanted[*p] += 1);
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    let each = |place: usize| {
        wanted[place] -= 1;
        let item = if wanted[place] == 0 { items[place].take() } else { items[place].clone() };
        item.expect("an item until it was last wanted")
    };
    places.into_iter().map(each).collect()
}
