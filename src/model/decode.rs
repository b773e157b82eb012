//! Batched decoding with a key-value cache. Logits have the same bits as those of scoring the whole sequence.

use std::collections::BTreeMap;
use std::ops::Range;

use super::trunk::{LayerTape, Prepared, Trunk};
use crate::model::{Llama, Packed, SegmentId};
use crate::numerics::attention::{Heads, PANEL, Rows, SCORE_ROWS, Target, Transposed, attend};
use crate::numerics::buffer::Buffer;
use crate::numerics::parallel::for_each_rows_with;
use crate::numerics::rope::Rotary;

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
    rotary: Rotary,
}

impl<'a> Decoder<'a> {
    /// Without sequences so far.
    pub fn of(model: &'a Llama) -> Self {
        let rotary = model.trunk().rotary(model.config.max_position_embeddings);
        Self { model, prepared: Prepared::new(&model.parameters), caches: Vec::new(), logits: Vec::new(), rotary }
    }

    /// Lets go of all sequences and reads these prompts (each at least one token); equal ones are computed once.
    pub fn begin(&mut self, prompts: &[Vec<u32>]) {
        self.caches.clear();
        let mut unique: BTreeMap<&[u32], usize> = BTreeMap::new();
        let mut packed = Packed::new();
        let mut segments = Vec::new();
        for prompt in prompts {
            unique.entry(prompt).or_insert_with(|| {
                segments.push(packed.push(prompt));
                segments.len() - 1
            });
        }
        let (config, trunk) = (&self.model.config, Trunk { prepared: Some(&self.prepared), ..self.model.trunk() });
        let last: Vec<usize> = segments.iter().map(|s| packed.last_row(*s)).collect();
        let (heads, layers_heads) = (config.heads(), config.num_hidden_layers * config.num_key_value_heads);
        let empty = |s: &SegmentId| Cache::new(layers_heads, heads, 2 * packed.rows_of(*s).len());
        let mut caches: Vec<Cache> = segments.iter().map(empty).collect();
        let mut layer = 0;
        let tape = trunk.forward_with(&packed, last.iter().copied(), |saved| {
            for (cache, segment) in caches.iter_mut().zip(&segments) {
                cache.fill(layer, heads, packed.rows_of(*segment), &saved);
            }
            layer += 1;
        });
        let last = trunk.gather(&tape.hidden, &tape.places(last));
        let first = self.model.logits_by(trunk, &trunk.normed("model.norm.weight", &last).0);
        let of = |prompt: &Vec<u32>| unique[prompt.as_slice()];
        let logits = prompts.iter().flat_map(|p| first[of(p) * config.vocab_size..][..config.vocab_size].to_vec()).collect();
        self.caches = one_each(caches, prompts.iter().map(of).collect());
        self.logits = logits;
    }

    /// (sequences, vocabulary). The rows of sequences that took no part in the last step keep their old values.
    pub fn logits(&self) -> &[f32] {
        &self.logits
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
        let rows: Vec<usize> = (0..self.caches.len()).filter(|i| alive[*i]).collect();
        if rows.is_empty() {
            return;
        }
        let tokens: Vec<u32> = rows.iter().map(|i| next[*i]).collect();
        let positions: Vec<u32> = rows.iter().map(|i| self.caches[*i].len as u32).collect();
        self.reach(positions.iter().max().map_or(0, |p| *p as usize + 1));
        let (heads, trunk) = (self.model.config.heads(), Trunk { prepared: Some(&self.prepared), ..self.model.trunk() });
        let mut caches: Vec<&mut Cache> =
            self.caches.iter_mut().zip(alive).filter(|(_, alive)| **alive).map(|(cache, _)| cache).collect();
        caches.iter_mut().for_each(|cache| cache.reserve());
        let mut x = trunk.embed(&tokens);
        let asked: Vec<usize> = (0..rows.len()).collect();
        for layer in 0..self.model.config.num_hidden_layers {
            let (_, [q, k, v]) = trunk.project(layer, &x, &positions, &asked, &self.rotary);
            let attended = attend_after_storing(&mut caches, layer, heads, &q, &k, &v);
            trunk.add_attended(layer, &attended, &mut x);
            let middle = Buffer::copy_of(&x);
            trunk.add_mlp(layer, &middle, &mut x);
        }
        caches.iter_mut().for_each(|cache| cache.len += 1);
        let logits = self.model.logits_by(trunk, &trunk.normed("model.norm.weight", &x).0);
        let vocabulary = self.model.config.vocab_size;
        for (i, row) in rows.iter().zip(logits.chunks_exact(vocabulary)) {
            self.logits[i * vocabulary..][..vocabulary].copy_from_slice(row);
        }
    }

    /// Rotary tables for `positions` positions.
    fn reach(&mut self, positions: usize) {
        if positions > self.rotary.positions() {
            self.rotary = self.model.trunk().rotary(2 * positions);
        }
    }
}

/// (rows, heads · head_dim): each row's query over its cache, to which the row's key and value have been added.
fn attend_after_storing(caches: &mut [&mut Cache], layer: usize, heads: Heads, q: &[f32], k: &[f32], v: &[f32]) -> Buffer {
    let (width, key_width) = (heads.query_width(), heads.key_width());
    let mut attended = Buffer::unspecified(q.len());
    let longest = caches.iter().map(|cache| cache.len + 1).max().unwrap_or(0);
    for_each_rows_with(caches, &mut attended, width, 2 * longest * width / 8, |first, caches, attended| {
        for (r, (cache, out)) in caches.iter_mut().zip(attended.chunks_exact_mut(width)).enumerate() {
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
