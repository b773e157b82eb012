//! The attention kernels, and attention over packed trees, against the definition: equal bits.

use proptest::prelude::*;

use super::kernels::{Inputs, PANEL, Rows, SCORE_ROWS, Target, Transposed, attend_backward_with, attend_with, transpose_with};
use super::{Cache, Heads, ProjectionGradients, Projections, Queries, Segment, backward, forward, transpose};
use crate::buffer::Buffer;
use crate::matrix::gather_rows;
use crate::testing::{Values, bits, on_device, random};
use crate::{isa, reference};

/// (rows, width) with values in the first `dim` columns of each row, zeros after them.
fn matrix(rows: usize, heads: Heads, values: Values, index: u64) -> Vec<f32> {
    let mut out = vec![0.0; rows * heads.width()];
    let drawn = values.draw(rows * heads.head_dim, index);
    for (out, drawn) in out.chunks_mut(heads.width()).zip(drawn.chunks(heads.head_dim)) {
        out[..heads.head_dim].copy_from_slice(drawn);
    }
    out
}

/// One head whose queries come after `before` other keys, by its kernels.
fn one_head(heads: Heads, rows: usize, before: usize, values: Values) {
    let (head_dim, scoring) = (heads.head_dim, reference::Scoring::of(heads));
    let (w, keys, shape) = (heads.width(), before + rows, heads.shape(rows, before + rows));
    let [q, dout] = [0, 1].map(|i| matrix(rows, heads, values, i));
    let [k, v] = [2, 3].map(|i| matrix(keys, heads, values, i));
    let split = |x: &[f32]| -> Vec<Vec<f32>> { x.chunks(w).map(|row| row[..head_dim].to_vec()).collect() };
    let [q_rows, dout_rows, k_rows, v_rows] = [&q, &dout, &k, &v].map(|x| split(x));
    let [k_rows, v_rows]: [Vec<&[f32]>; 2] = [&k_rows, &v_rows].map(|rows| rows.iter().map(|r| &r[..]).collect());
    let (mut expected, mut dq) = (Vec::new(), Vec::new());
    let mut dk = vec![vec![0.5f32; head_dim]; keys];
    let mut dv = vec![vec![0.25f32; head_dim]; keys];
    for i in 0..rows {
        let seen = if heads.bidirectional { keys } else { before + i + 1 };
        let (k, v) = (&k_rows[..seen], &v_rows[..seen]);
        expected.push(reference::attend(&q_rows[i], k, v, scoring));
        let (p, ds) = reference::attend_backward(&q_rows[i], k, v, scoring, &dout_rows[i]);
        let chain = |d: usize| ds.iter().zip(k).fold(0.0f32, |sum, (ds, k)| ds.mul_add(k[d], sum));
        dq.push((0..head_dim).map(chain).collect::<Vec<f32>>());
        for (j, d) in (0..k.len()).flat_map(|j| (0..head_dim).map(move |d| (j, d))) {
            dk[j][d] = ds[j].mul_add(q_rows[i][d], dk[j][d]);
            dv[j][d] = p[j].mul_add(dout_rows[i][d], dv[j][d]);
        }
    }
    let all_bits = |rows: &[Vec<f32>]| -> Vec<u32> { rows.iter().flat_map(|row| bits(row)).collect() };
    let [q, dout, k, v] = [&q, &dout, &k, &v].map(|data| Rows { data, stride: w });
    let [kt, vt] = [k, v].map(|x| transpose(x, keys, heads));
    let [kt, vt] = [&kt, &vt].map(|x| Transposed(x));
    for isa in isa::available() {
        let (mut scores, mut out) = (vec![f32::NAN; SCORE_ROWS * shape.score_stride()], vec![f32::NAN; rows * w]);
        attend_with(isa, shape, q, kt, v, &mut scores, Target::of(&mut out, w));
        assert_eq!(all_bits(&split(&out)), all_bits(&expected), "{isa}");
        let [mut p, mut ds] = [0, 1].map(|_| vec![f32::NAN; rows * shape.score_stride()]);
        let mut slopes = vec![f32::NAN; shape.slopes()];
        let mut ours = [vec![f32::NAN; rows * w], vec![0.5; keys * w], vec![0.25; keys * w]];
        let [a, b, c] = &mut ours;
        attend_backward_with(isa, shape, Inputs { q, dout, k, kt, vt }, &mut p, &mut ds, &mut slopes, Target::of(a, w), b, c);
        for ((ours, expected), name) in ours.iter().zip([&dq, &dk, &dv]).zip(["dq", "dk", "dv"]) {
            assert_eq!(all_bits(&split(ours)), all_bits(expected), "{isa} {name}");
        }
    }
}

/// Several query heads of one position over the keys that they share.
fn one_position(heads: Heads, keys: usize, values: Values) {
    let Heads { heads: group, head_dim, .. } = heads;
    let (w, shape) = (heads.width(), heads.shape_of_position(keys));
    let q = values.draw(group * head_dim, 0);
    let [k, v] = [1, 2].map(|i| matrix(keys, heads, values, i));
    let [k_rows, v_rows]: [Vec<&[f32]>; 2] = [&k, &v].map(|x| x.chunks(w).map(|row| &row[..head_dim]).collect());
    let expected: Vec<Vec<f32>> =
        q.chunks(head_dim).map(|q| reference::attend(q, &k_rows, &v_rows, reference::Scoring::of(heads))).collect();
    let (q, v) = (Rows { data: &q, stride: head_dim }, Rows { data: &v, stride: w });
    let kt = transpose(Rows { data: &k, stride: w }, keys, heads);
    for isa in isa::available() {
        let (mut scores, mut out) = (vec![f32::NAN; SCORE_ROWS * shape.score_stride()], vec![f32::NAN; group * w]);
        attend_with(isa, shape, q, Transposed(&kt), v, &mut scores, Target::of(&mut out, w));
        for (out, expected) in out.chunks(w).zip(&expected) {
            assert_eq!(bits(&out[..head_dim]), bits(expected), "{isa}");
        }
    }
}

/// Segments of the given lengths; each parent is any segment before it, or none, as always in both directions.
fn tree(lengths: &[(usize, Option<prop::sample::Index>)], heads: Heads) -> Vec<Segment> {
    let mut start = 0;
    let mut segments = Vec::new();
    for (s, (length, parent)) in lengths.iter().enumerate() {
        let parent = parent.as_ref().filter(|_| s > 0 && !heads.bidirectional).map(|parent| parent.index(s));
        segments.push(Segment { rows: start..start + length, parent });
        start += length;
    }
    segments
}

/// A packed batch of prompts with their continuations, grouped heads and threads, by the functions that models call.
fn packed(segments: &[Segment], heads: Heads, values: Values, threads: usize) {
    let rows = segments.last().map_or(0, |s| s.rows.end);
    let [q, dout] = [0, 1].map(|i| values.draw(rows * heads.query_width(), i));
    let [k, v] = [2, 3].map(|i| values.draw(rows * heads.key_width(), i));
    let from = Projections { q: &q, k: &k, v: &v };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let all = Queries::all(segments);
    pool.install(|| forward(segments, &all, heads, from, &mut out));
    assert_eq!(bits(&out), bits(&reference::attention(segments, heads, from)), "out");
    let ours = pool.install(|| backward(segments, &all, heads, from, &dout));
    let expected = reference::attention_backward(segments, heads, from, &dout);
    let check = |ours: ProjectionGradients| {
        for ((ours, expected), name) in [ours.dq, ours.dk, ours.dv].iter().zip(&expected).zip(["dq", "dk", "dv"]) {
            assert_eq!(bits(ours), bits(expected), "{name}");
        }
    };
    check(ours);
    on_device(|| {
        let mut out = vec![f32::NAN; q.len()];
        forward(segments, &all, heads, from, &mut out);
        assert_eq!(bits(&out), bits(&reference::attention(segments, heads, from)), "out");
        check(backward(segments, &all, heads, from, &dout));
    });
}

/// Rows that don't ask leave those that do as they are, and count as rows whose upstream gradient is zero.
fn some_ask(segments: &[Segment], heads: Heads, wanted: &[prop::sample::Index]) {
    let rows = segments.last().map_or(0, |s| s.rows.end);
    let width = heads.query_width();
    let [q, dout] = [0, 1].map(|i| random(rows * width, 1.0, i));
    let [k, v] = [2, 3].map(|i| random(rows * heads.key_width(), 1.0, i));
    let asking = Queries::covering(segments, wanted.iter().map(|w| w.index(rows)));
    assert!(wanted.iter().all(|w| asking.rows()[asking.place(w.index(rows))] == w.index(rows)));
    let of_asking = |x: &[f32]| gather_rows(x, asking.rows(), width);
    let (all, from) = (Queries::all(segments), Projections { q: &q, k: &k, v: &v });
    let mut whole = vec![f32::NAN; q.len()];
    forward(segments, &all, heads, from, &mut whole);
    let (some_q, some_dout) = (of_asking(&q), of_asking(&dout));
    let some = Projections { q: &some_q, ..from };
    let mut out = vec![f32::NAN; some_q.len()];
    forward(segments, &asking, heads, some, &mut out);
    assert_eq!(bits(&out), bits(&of_asking(&whole)), "out");
    let mut upstream = vec![0.0; dout.len()];
    for r in asking.rows() {
        upstream[r * width..][..width].copy_from_slice(&dout[r * width..][..width]);
    }
    let expected = backward(segments, &all, heads, from, &upstream);
    let ours = backward(segments, &asking, heads, some, &some_dout);
    assert_eq!(bits(&ours.dq), bits(&of_asking(&expected.dq)), "dq");
    on_device(|| {
        let mut out = vec![f32::NAN; some_q.len()];
        forward(segments, &asking, heads, some, &mut out);
        assert_eq!(bits(&out), bits(&of_asking(&whole)), "out");
        let theirs = backward(segments, &asking, heads, some, &some_dout);
        let [theirs, ours] = [&theirs, &ours].map(|d| [&d.dq, &d.dk, &d.dv].map(|d| bits(d)));
        assert_eq!(theirs, ours, "gradients on a device");
    });
    // Skipped rows add nothing where rows of zeros add zeros: only the sign of a zero may differ.
    assert_eq!((&*ours.dk, &*ours.dv), (&*expected.dk, &*expected.dv), "dk, dv");
}

/// Half of them whole vectors, which are worked on where they are.
fn head_dims() -> impl Strategy<Value = usize> {
    prop_oneof![(1..12usize).prop_map(|half| 2 * half), (1..3usize).prop_map(|vectors| 16 * vectors)]
}

/// `group` heads over each of `kv_heads`, half of them without a window, a scale of their own, or a cap; half of them in both directions.
fn scored(
    kv_heads: std::ops::Range<usize>,
    group: std::ops::Range<usize>,
    head_dim: impl Strategy<Value = usize>,
    widest: usize,
) -> impl Strategy<Value = Heads> {
    let own = || prop::option::of(prop::sample::select(vec![0.3f32, 1.0, 7.5, 50.0]));
    let all = (kv_heads, group, head_dim, prop::option::of(1..widest), any::<bool>(), own(), own());
    all.prop_map(|(kv_heads, group, head_dim, window, bidirectional, scale, cap)| Heads {
        heads: kv_heads * group,
        kv_heads,
        head_dim,
        window: window.filter(|_| !bidirectional),
        bidirectional,
        scale,
        cap,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_that_do_not_ask_change_nothing_for_those_that_do(
        lengths in prop::collection::vec((1..9usize, any::<Option<prop::sample::Index>>()), 1..6),
        heads in scored(1..3, 1..3, head_dims(), 20), wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
    ) {
        some_ask(&tree(&lengths, heads), heads, &wanted);
    }

    #[test]
    fn a_head_gives_the_bits_of_the_definition(
        heads in scored(1..2, 1..2, 1..84usize, 70), rows in 1..40usize, before in 0..60usize, values in Values::any(),
    ) {
        one_head(heads, rows, before, values);
    }

    #[test]
    fn the_heads_of_a_position_give_the_bits_of_the_definition(
        heads in scored(1..2, 1..14, 1..84usize, 150), keys in 1..150usize, values in Values::any(),
    ) {
        one_position(heads, keys, values);
    }

    #[test]
    fn a_packed_batch_gives_the_bits_of_the_definition(
        lengths in prop::collection::vec((1..9usize, any::<Option<prop::sample::Index>>()), 1..6),
        heads in scored(1..3, 1..4, head_dims(), 20), threads in 1..3usize, values in Values::any(),
    ) {
        packed(&tree(&lengths, heads), heads, values, threads);
    }
}

/// Sequences of the given lengths whose caches are filled and continued by two positions, all of it under what is active.
fn continued(lengths: &[usize], heads: Heads, values: Values) -> Vec<u32> {
    let layers = 2;
    let drawn = |rows: usize, width: usize, index: u64| Buffer::from(values.draw(rows * width, index));
    let mut caches: Vec<Cache> = lengths.iter().map(|length| Cache::new(layers, heads, *length)).collect();
    let mut found = Vec::new();
    for layer in 0..layers {
        for (i, (cache, length)) in caches.iter_mut().zip(lengths).enumerate() {
            let [k, v] = [0, 1].map(|part| drawn(*length, heads.key_width(), (100 * layer + 10 * i + part) as u64));
            cache.fill(layer, heads, &k, &v);
        }
    }
    for position in 0..2 {
        caches.iter_mut().for_each(Cache::reserve);
        for layer in 0..layers {
            let at = 1000 + 100 * layer as u64 + 10 * position;
            let [k, v] = [0, 1].map(|part| drawn(lengths.len(), heads.key_width(), at + part));
            let q = drawn(lengths.len(), heads.query_width(), at + 2);
            let attended = Cache::attend(&mut caches.iter_mut().collect::<Vec<_>>(), layer, heads, &q, &k, &v);
            found.extend(bits(&attended));
        }
        caches.iter_mut().for_each(Cache::advance);
        caches = caches.clone();
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn caches_on_a_device_give_the_bits_of_the_cpu(
        lengths in prop::collection::vec(prop_oneof![1..9usize, 60..66usize, 250..260usize], 1..4),
        heads in scored(1..3, 1..4, head_dims(), 70), values in Values::any(),
    ) {
        let heads = Heads { bidirectional: false, ..heads };
        let expected = continued(&lengths, heads, values);
        on_device(|| assert_eq!(continued(&lengths, heads, values), expected));
    }

    #[test]
    fn wide_heads_and_many_queries_on_a_device_give_the_bits_of_the_definition(
        lengths in prop::collection::vec((1..40usize, any::<Option<prop::sample::Index>>()), 1..4),
        heads in scored(1..3, 1..3, prop_oneof![Just(80usize), 60..70usize, Just(128usize), Just(144usize), Just(256usize)], 30), values in Values::any(),
    ) {
        packed(&tree(&lengths, heads), heads, values, 1);
    }
}

#[test]
fn an_encoders_rows_see_what_follows_them_and_nothing_of_other_segments() {
    let heads = Heads { heads: 2, kv_heads: 1, head_dim: 4, ..Heads::default() };
    let segments = [Segment { rows: 0..3, parent: None }, Segment { rows: 3..5, parent: None }];
    let [q, k, mut v] = [(0, 8), (1, 4), (2, 4)].map(|(index, width)| random(5 * width, 1.0, index));
    let attended = |v: &[f32], bidirectional| {
        let (heads, mut out) = (Heads { bidirectional, ..heads }, vec![f32::NAN; q.len()]);
        forward(&segments, &Queries::all(&segments), heads, Projections { q: &q, k: &k, v }, &mut out);
        out
    };
    let before = [false, true].map(|bidirectional| attended(&v, bidirectional));
    v[2 * 4] += 1.0;
    let after = [false, true].map(|bidirectional| attended(&v, bidirectional));
    let changed = |i: usize, row: usize| before[i][row * 8..][..8] != after[i][row * 8..][..8];
    assert_eq!([0, 1, 2, 3, 4].map(|row| changed(0, row)), [false, false, true, false, false]);
    assert_eq!([0, 1, 2, 3, 4].map(|row| changed(1, row)), [true, true, true, false, false]);
}

#[test]
fn transposes_hold_every_element_and_zeros_after_them() {
    for (rows, dim) in [(1, 2), (15, 16), (16, 6), (37, 64), (64, 30), (150, 7)] {
        let width = dim + 3;
        let x = random(rows * width, 1.0, 9);
        let element = |key: usize, d: usize| if key < rows { x[key * width + d] } else { 0.0 };
        let keys = 0..rows.next_multiple_of(PANEL);
        let panels: Vec<f32> = keys
            .step_by(PANEL)
            .flat_map(|first| (0..dim).flat_map(move |d| (first..first + PANEL).map(move |key| (key, d))))
            .map(|(key, d)| element(key, d))
            .collect();
        for isa in isa::available() {
            let mut out = vec![f32::NAN; Transposed::length(rows, dim)];
            transpose_with(isa, Rows { data: &x, stride: width }, rows, dim, &mut out);
            assert_eq!(out, panels, "{isa}, {rows} rows, {dim} columns");
        }
    }
}
