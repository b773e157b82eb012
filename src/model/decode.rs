//! Batched decoding with a key-value cache. Logits have the same bits as those of scoring the whole sequence.

use std::collections::BTreeMap;
use std::ops::Range;

use super::trunk::{LayerTape, Prepared, Rotaries, Trunk};
use crate::model::{Llama, Packed, SegmentId};
use crate::numerics::attention::{Heads, PANEL, Rows, SCORE_ROWS, Target, Transposed, attend};
use crate::numerics::buffer::Buffer;
use crate::numerics::parallel::{for_each_rows_with, in_parts};

/// With so many prompts a thread reads them by itself, and with so many sequences it takes a whole step: each thread then reads all
/// weights, which fewer rows don't pay for.
const PROMPTS_OF_A_THREAD: usize = 4;
const SEQUENCES_OF_A_THREAD: usize = 12;

/// Keys and values of one sequence: (layers, kv_heads) times a [`Transposed`] of `capacity` keys, and (layers, kv_heads, capacity,
/// width), of which the first `len` positions are filled. `width` is head_dim filled up to whole vectors.
#[derive(Clone)]
struct Cache {
    len: usize,
    capacity: usize,
    head_dim: usize,
    width: usize,
    keys: Buffer,
    values: Buffer,
}

impl Cache {
    fn new(layers_heads: usize, heads: Heads, capacity: usize) -> Self {
        let (capacity, head_dim, width) = (capacity.next_multiple_of(PANEL), heads.head_dim, heads.width());
        let [keys, values] = [head_dim, width].map(|w| Buffer::zeros(layers_heads * w * capacity));
        Self { len: 0, capacity, head_dim, width, keys, values }
    }

    /// Keys and values of one of the layers' heads.
    fn head(&self, head: usize) -> (Transposed<'_>, &[f32]) {
        let (keys, values) = (self.head_dim * self.capacity, self.width * self.capacity);
        (Transposed(&self.keys[head * keys..][..keys]), &self.values[head * values..][..values])
    }

    /// Writes one head's key and value of the position `at`.
    fn put(&mut self, head: usize, at: usize, key: &[f32], value: &[f32]) {
        let start = head * self.head_dim * self.capacity;
        let keys = &mut self.keys[start..];
        key.iter().enumerate().for_each(|(d, k)| keys[Transposed::place(at, d, self.head_dim)] = *k);
        self.values[(head * self.capacity + at) * self.width..][..self.head_dim].copy_from_slice(value);
    }

    /// Takes a layer's keys and values of a prompt that stands at `rows` of a packed forward pass.
    fn fill(&mut self, layer: usize, heads: Heads, rows: Range<usize>, saved: &LayerTape) {
        self.len = rows.len();
        for (at, row) in rows.enumerate() {
            self.put_row(layer, heads, at, [&saved.k, &saved.v].map(|x| &x[row * heads.key_width()..][..heads.key_width()]));
        }
    }

    /// Writes a layer's keys and values of the position `at`, (kv_heads · head_dim) each.
    fn put_row(&mut self, layer: usize, heads: Heads, at: usize, of: [&[f32]; 2]) {
        for h in 0..heads.kv_heads {
            let [key, value] = of.map(|x| &x[h * heads.head_dim..][..heads.head_dim]);
            self.put(layer * heads.kv_heads + h, at, key, value);
        }
    }

    /// Makes room for one more position.
    fn reserve(&mut self) {
        if self.len == self.capacity {
            self.keys = widened(&self.keys, self.capacity * self.head_dim);
            self.values = widened(&self.values, self.capacity * self.width);
            self.capacity *= 2;
        }
    }
}

/// The same rows of `row` floats, each followed by as many zeros.
fn widened(x: &[f32], row: usize) -> Buffer {
    let mut out = Buffer::zeros(2 * x.len());
    out.chunks_exact_mut(2 * row).zip(x.chunks_exact(row)).for_each(|(out, x)| out[..row].copy_from_slice(x));
    out
}

/// Sequences being continued, one token a step.
pub struct Decoder<'a> {
    model: &'a Llama,
    prepared: Prepared,
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
        let prepared = Prepared::new(&model.config, &model.parameters);
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
        let (config, trunk) = (&self.model.config, Trunk { prepared: Some(&self.prepared), ..self.model.trunk() });
        let (layers_heads, vocabulary) = (config.num_hidden_layers * config.num_key_value_heads, config.vocab_size);
        let empty = |prompt: &&[u32]| Cache::new(layers_heads, config.heads(), 2 * prompt.len());
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
        self.caches[sequence].len
    }

    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Appends `next[i]` to each sequence i that is `alive` and computes its logits; the others cost nothing.
    pub fn step(&mut self, next: &[u32], alive: &[bool]) {
        let longest = self.caches.iter().zip(alive).filter(|(_, alive)| **alive).map(|(cache, _)| cache.len).max();
        let Some(longest) = longest else { return };
        self.reach(longest + 1);
        let Self { model, prepared, caches, logits, states, rotaries } = self;
        let trunk = Trunk { prepared: Some(&*prepared), ..model.trunk() };
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
        for (sequence, segment) in sequences.iter_mut().zip(&segments) {
            sequence.cache.fill(layer, model.config.heads(), packed.rows_of(*segment), &saved);
        }
        layer += 1;
    });
    answer(model, trunk, &trunk.gather(&tape.hidden, &tape.places(last)), sequences);
}

/// The logits after the sequences' last tokens, whose residual streams are `x`: (sequences, hidden).
fn answer(model: &Llama, trunk: Trunk<'_>, x: &[f32], sequences: &mut [Growing<'_>]) {
    let normed = trunk.final_normed(x).0;
    let logits = model.logits_by(trunk, &normed);
    let answers = logits.chunks_exact(model.config.vocab_size).zip(normed.chunks_exact(model.config.hidden_size));
    for (sequence, (logits, state)) in sequences.iter_mut().zip(answers) {
        sequence.logits.copy_from_slice(logits);
        sequence.state.copy_from_slice(state);
    }
}

/// Appends its next token to each sequence.
fn grow(model: &Llama, trunk: Trunk<'_>, rotaries: &Rotaries, sequences: &mut [Growing<'_>]) {
    let tokens: Vec<u32> = sequences.iter().flat_map(|s| s.tokens).copied().collect();
    let positions: Vec<u32> = sequences.iter().map(|s| s.cache.len as u32).collect();
    sequences.iter_mut().for_each(|s| s.cache.reserve());
    let mut x = trunk.embed(&tokens, &positions);
    let asked: Vec<usize> = (0..sequences.len()).collect();
    for layer in 0..model.config.num_hidden_layers {
        let [q, k, v] = trunk.project(layer, &x, &positions, &asked, rotaries).qkv;
        let attended = attend_after_storing(sequences, layer, model.config.heads_in(layer), &q, &k, &v);
        (_, x) = trunk.finish(layer, x, &attended);
    }
    sequences.iter_mut().for_each(|s| s.cache.len += 1);
    answer(model, trunk, &x, sequences);
}

/// (rows, heads · head_dim): each row's query over its sequence's cache, to which the row's key and value have been added.
fn attend_after_storing(sequences: &mut [Growing<'_>], layer: usize, heads: Heads, q: &[f32], k: &[f32], v: &[f32]) -> Buffer {
    let (width, key_width) = (heads.query_width(), heads.key_width());
    let mut attended = Buffer::unspecified(q.len());
    let longest = sequences.iter().map(|s| s.cache.len + 1).max().unwrap_or(0);
    for_each_rows_with(sequences, &mut attended, width, 2 * longest * width / 8, |first, sequences, attended| {
        for (r, (Growing { cache, .. }, out)) in sequences.iter_mut().zip(attended.chunks_exact_mut(width)).enumerate() {
            let row = first + r;
            cache.put_row(layer, heads, cache.len, [k, v].map(|x| &x[row * key_width..][..key_width]));
            attend_cached(cache, layer, heads, &q[row * width..][..width], out);
        }
    });
    attended
}

/// `out`: (heads · head_dim) of one sequence's newest position.
fn attend_cached(cache: &Cache, layer: usize, heads: Heads, q: &[f32], out: &mut [f32]) {
    let (dim, width, group) = (heads.head_dim, heads.width(), heads.group());
    let shape = heads.shape_of_position(cache.len + 1);
    let mut scores = Buffer::unspecified(SCORE_ROWS * shape.score_stride());
    let mut padded = Buffer::unspecified(group * width);
    for (h, (q, out)) in q.chunks_exact(group * dim).zip(out.chunks_exact_mut(group * dim)).enumerate() {
        let (kt, values) = cache.head(layer * heads.kv_heads + h);
        let [q, v] = [(q, dim), (values, width)].map(|(data, stride)| Rows { data, stride });
        attend(shape, q, kt, v, &mut scores, Target::of(&mut padded, width));
        for (out, padded) in out.chunks_exact_mut(dim).zip(padded.chunks_exact(width)) {
            out.copy_from_slice(&padded[..dim]);
        }
    }
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
