//! Keys and values of sequences that are being continued, a token at a time.

use std::ptr;

use super::kernels::PANEL;
use super::{Heads, Rows, SCORE_ROWS, Target, Transposed, attend, on_device};
use crate::buffer::Buffer;
use crate::device::kernels::{ATTEND_CACHED, Cache as CacheOnDevice, Cached, STORE_CACHED, int};
use crate::device::{self, Device, Launch};
use crate::matrix::spread_rows;
use crate::parallel::for_each_rows_with;

/// Keys and values of one sequence: (layers, kv_heads) times a [`Transposed`] of `capacity` keys, and (layers, kv_heads, capacity,
/// width), of which the first `len` positions are filled. `width` is head_dim filled up to whole vectors.
#[derive(Clone)]
pub struct Cache {
    len: usize,
    capacity: usize,
    head_dim: usize,
    width: usize,
    keys: Buffer,
    values: Buffer,
}

impl Cache {
    /// Without positions so far, with room for `capacity` of them.
    pub fn new(layers: usize, heads: Heads, capacity: usize) -> Self {
        let (capacity, head_dim, width) = (capacity.next_multiple_of(PANEL), heads.head_dim, heads.width());
        let [keys, values] = [head_dim, width].map(|w| Buffer::zeros(layers * heads.kv_heads * w * capacity));
        Self { len: 0, capacity, head_dim, width, keys, values }
    }

    /// How many positions it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
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

    /// Writes a layer's keys and values of the position `at`, (kv_heads · head_dim) each.
    fn put_row(&mut self, layer: usize, heads: Heads, at: usize, of: [&[f32]; 2]) {
        for h in 0..heads.kv_heads {
            let [key, value] = of.map(|x| &x[h * heads.head_dim..][..heads.head_dim]);
            self.put(layer * heads.kv_heads + h, at, key, value);
        }
    }

    /// Takes a layer's keys and values of a prompt, (positions, kv_heads · head_dim) each, of which it has room for all.
    pub fn fill(&mut self, layer: usize, heads: Heads, k: &[f32], v: &[f32]) {
        let width = heads.key_width();
        self.len = k.len() / width;
        if let Some(device) = device::active() {
            let (of, positions) = (vec![0; self.len], (0..self.len as u32).collect::<Vec<u32>>());
            return store(device, &mut [self], &of, &positions, layer, heads, k, v);
        }
        for (at, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
            self.put_row(layer, heads, at, [k, v]);
        }
    }

    /// Makes room for one more position.
    pub fn reserve(&mut self) {
        if self.len == self.capacity {
            self.keys = widened(&self.keys, self.capacity * self.head_dim);
            self.values = widened(&self.values, self.capacity * self.width);
            self.capacity *= 2;
        }
    }

    /// The position that every layer has stored counts from here on.
    pub fn advance(&mut self) {
        self.len += 1;
    }

    /// Stores a layer's keys and values of one more position of each sequence, (caches, kv_heads · head_dim), for which there is room, and
    /// returns what its queries, (caches, heads · head_dim), attend to over all positions up to this one.
    pub fn attend(caches: &mut [&mut Self], layer: usize, heads: Heads, q: &[f32], k: &[f32], v: &[f32]) -> Buffer {
        let (width, key_width) = (heads.query_width(), heads.key_width());
        let mut attended = Buffer::unspecified(q.len());
        if let Some(device) = device::active().filter(|_| on_device::fits(heads)) {
            attend_on(device, caches, layer, heads, q, k, v, &mut attended);
            return attended;
        }
        let longest = caches.iter().map(|cache| cache.len + 1).max().unwrap_or(0);
        for_each_rows_with(caches, &mut attended, width, 2 * longest * width / 8, |first, caches, attended| {
            for (r, (cache, out)) in caches.iter_mut().zip(attended.chunks_exact_mut(width)).enumerate() {
                let row = first + r;
                cache.put_row(layer, heads, cache.len, [k, v].map(|x| &x[row * key_width..][..key_width]));
                cache.attend_newest(layer, heads, &q[row * width..][..width], out);
            }
        });
        attended
    }

    /// `out`: (heads · head_dim) of the newest position.
    fn attend_newest(&self, layer: usize, heads: Heads, q: &[f32], out: &mut [f32]) {
        let (dim, width, group) = (heads.head_dim, heads.width(), heads.group());
        let shape = heads.shape_of_position(self.len + 1);
        let mut scores = Buffer::unspecified(SCORE_ROWS * shape.score_stride());
        let mut padded = Buffer::unspecified(group * width);
        for (h, (q, out)) in q.chunks_exact(group * dim).zip(out.chunks_exact_mut(group * dim)).enumerate() {
            let (kt, values) = self.head(layer * heads.kv_heads + h);
            let [q, v] = [(q, dim), (values, width)].map(|(data, stride)| Rows { data, stride });
            attend(shape, q, kt, v, &mut scores, Target::of(&mut padded, width));
            for (out, padded) in out.chunks_exact_mut(dim).zip(padded.chunks_exact(width)) {
                out.copy_from_slice(&padded[..dim]);
            }
        }
    }
}

/// The same rows of `row` floats, each followed by as many zeros.
fn widened(x: &[f32], row: usize) -> Buffer {
    let places: Vec<usize> = (0..x.len() / row).map(|i| 2 * i).collect();
    spread_rows(x, &places, 2 * x.len(), row)
}

/// What the kernels know of the caches, which they read and write.
fn parameters<'a>(
    launch: &mut Launch<'a>,
    caches: &'a mut [&mut Cache],
    layer: usize,
    heads: Heads,
    [k, v]: [&'a [f32]; 2],
) -> Cached {
    let width = heads.width();
    let on_device: Vec<CacheOnDevice> = caches
        .iter_mut()
        .map(|cache| {
            let (length, capacity) = (int(cache.len), int(cache.capacity));
            CacheOnDevice { keys: launch.output(&mut cache.keys), values: launch.output(&mut cache.values), length, capacity }
        })
        .collect();
    Cached {
        caches: launch.list(&on_device),
        q: ptr::null(),
        k: launch.input(k),
        v: launch.input(v),
        out: ptr::null_mut(),
        of: ptr::null(),
        positions: ptr::null(),
        rows: int(k.len() / heads.key_width()),
        layer: int(layer),
        heads: int(heads.heads),
        group: int(heads.group()),
        dim: int(heads.head_dim),
        width: int(width),
        window: heads.window.map_or(0, int),
        scale: heads.scale(),
        cap: heads.cap.unwrap_or(0.0),
    }
}

/// Writes each row of `k` and `v` to a position of one of the caches.
#[allow(clippy::too_many_arguments, reason = "what is stored, and where")]
fn store(
    device: &'static Device,
    caches: &mut [&mut Cache],
    of: &[u32],
    positions: &[u32],
    layer: usize,
    heads: Heads,
    k: &[f32],
    v: &[f32],
) {
    let mut launch = Launch::on(device);
    let cached = parameters(&mut launch, caches, layer, heads, [k, v]);
    let cached = Cached { of: launch.list(of), positions: launch.list(positions), ..cached };
    launch.start_elements(&STORE_CACHED, k.len(), &cached);
    launch.finish();
}

#[allow(clippy::too_many_arguments, reason = "as for `Cache::attend`")]
fn attend_on(
    device: &'static Device,
    caches: &mut [&mut Cache],
    layer: usize,
    heads: Heads,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let of: Vec<u32> = (0..caches.len() as u32).collect();
    let positions: Vec<u32> = caches.iter().map(|cache| cache.len as u32).collect();
    let (mut launch, blocks) = (Launch::on(device), caches.len() * heads.heads);
    let cached = parameters(&mut launch, caches, layer, heads, [k, v]);
    let cached = Cached { of: launch.list(&of), positions: launch.list(&positions), ..cached };
    let cached = Cached { q: launch.input(q), out: launch.output(out), ..cached };
    launch.start_elements(&STORE_CACHED, k.len(), &cached);
    launch.start(&ATTEND_CACHED, blocks, &cached);
    launch.finish();
}
