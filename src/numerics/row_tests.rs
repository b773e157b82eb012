//! The row kernels against their definitions in `reference`: equal bits under every instruction set.

use proptest::prelude::*;

use super::gelu::{self, Gelu};
use super::layer_norm::{self, Moments};
use super::mlp::Gated;
use super::rope::Rotary;
use super::testing::{Values, bits, length, random};
use super::{embedding, isa, linear, logprob, mlp, norm, reference, rope, softcap};

const EPS: f32 = 1e-5;

/// A buffer that already holds something, or NaN where a kernel must write without reading.
fn filled(n: usize, with: f32) -> Vec<f32> {
    vec![with; n]
}

fn rms_norm(n: usize, rows: usize, values: Values) {
    let [x, dy] = [0, 1].map(|i| values.draw(rows * n, i));
    let weight = values.draw(n, 2);
    let (mut y, mut dx, mut dweight) = (Vec::new(), filled(rows * n, 0.5), filled(n, 0.25));
    for ((x, dy), dx) in x.chunks(n).zip(dy.chunks(n)).zip(dx.chunks_mut(n)) {
        y.extend(reference::rms_norm(x, &weight, EPS));
        reference::rms_norm_backward(x, &weight, EPS, dy, dx, &mut dweight);
    }
    for isa in isa::available() {
        let mut inverse = filled(rows, f32::NAN);
        norm::inverse_rms_with(isa, &x, n, EPS, &mut inverse);
        let mut out = filled(rows * n, f32::NAN);
        norm::scale_rows_with(isa, &x, &weight, &inverse, &mut out);
        assert_eq!(bits(&out), bits(&y), "{isa}");
        let mut out = filled(rows * n, 0.5);
        norm::backward_rows_with(isa, &x, &weight, &inverse, &dy, &mut out);
        assert_eq!(bits(&out), bits(&dx), "{isa} dx");
        let mut out = filled(n, 0.25);
        norm::weight_gradient_with(isa, &x, &inverse, &dy, &mut out);
        assert_eq!(bits(&out), bits(&dweight), "{isa} dweight");
    }
}

fn layer_norm(n: usize, rows: usize, values: Values) {
    let [x, dy] = [0, 1].map(|i| values.draw(rows * n, i));
    let [weight, bias] = [2, 3].map(|i| values.draw(n, i));
    let (mut y, mut dx) = (Vec::new(), filled(rows * n, 0.5));
    let [mut dweight, mut dbias] = [0.25, -0.5].map(|with| filled(n, with));
    for ((x, dy), dx) in x.chunks(n).zip(dy.chunks(n)).zip(dx.chunks_mut(n)) {
        y.extend(reference::layer_norm(x, &weight, &bias, EPS));
        reference::layer_norm_backward(x, &weight, EPS, dy, dx, &mut dweight, &mut dbias);
    }
    for isa in isa::available() {
        let mut moments = vec![Moments::default(); rows];
        layer_norm::moments_with(isa, &x, n, EPS, &mut moments);
        let mut out = filled(rows * n, f32::NAN);
        layer_norm::scale_rows_with(isa, &x, &weight, &bias, &moments, &mut out);
        assert_eq!(bits(&out), bits(&y), "{isa}");
        let mut out = filled(rows * n, 0.5);
        layer_norm::backward_rows_with(isa, &x, &weight, &moments, &dy, &mut out);
        assert_eq!(bits(&out), bits(&dx), "{isa} dx");
        let [mut a, mut b] = [0.25, -0.5].map(|with| filled(n, with));
        layer_norm::parameter_gradients_with(isa, &x, &moments, &dy, &mut a, &mut b);
        assert_eq!([bits(&a), bits(&b)], [bits(&dweight), bits(&dbias)], "{isa} dweight, dbias");
    }
}

/// `still`: elements of each head that stay as they are, after those that are turned.
fn rotary(half: usize, still: usize, heads: usize, rows: usize, values: Values) {
    let (turning, dim, theta) = (2 * half, 2 * half + still, 10_000.0);
    let x = values.draw(rows * heads * dim, 0);
    let positions: Vec<u32> = (0..rows as u32).map(|r| 5 * r % 8).collect();
    let (mut turned, mut back) = (x.clone(), x.clone());
    for (i, (a, b)) in turned.chunks_mut(dim).zip(back.chunks_mut(dim)).enumerate() {
        reference::turn(&mut a[..turning], positions[i / heads], theta);
        reference::turn_backward(&mut b[..turning], positions[i / heads], theta);
    }
    let table = Rotary::of_frequencies(8, dim, &rope::frequencies(turning, theta));
    for isa in isa::available() {
        for (direction, expected) in [(1.0, &turned), (-1.0, &back)] {
            let mut out = x.clone();
            rope::turn_with(isa, &table, &mut out, heads * dim, &positions, direction);
            assert_eq!(bits(&out), bits(expected), "{isa} {direction}");
        }
    }
}

fn mlp_middles(n: usize, values: Values) {
    let [gate, up, dout] = [0, 1, 2].map(|i| values.draw(n, i));
    type Both = (Gated, fn(f32, f32) -> f32, fn(f32, f32, f32) -> (f32, f32));
    let gated: [Both; 2] = [
        (Gated::SwiGlu, reference::swiglu, reference::swiglu_backward),
        (Gated::GeGlu, reference::geglu, reference::geglu_backward),
    ];
    for (form, forward, backward) in gated {
        let y: Vec<f32> = (0..n).map(|i| forward(gate[i], up[i])).collect();
        let (dgate, dup): (Vec<f32>, Vec<f32>) = (0..n).map(|i| backward(gate[i], up[i], dout[i])).unzip();
        for isa in isa::available() {
            let mut out = filled(n, f32::NAN);
            mlp::forward_part_with(isa, form, &gate, &up, &mut out);
            assert_eq!(bits(&out), bits(&y), "{isa} {form:?}");
            for (again, third) in [(true, &y), (false, &dout)] {
                let (mut a, mut b, mut c) = (gate.clone(), up.clone(), dout.clone());
                mlp::backward_part_with(isa, form, &mut a, &mut b, &mut c, again);
                assert_eq!([bits(&a), bits(&b), bits(&c)], [bits(&dgate), bits(&dup), bits(third)], "{isa} {form:?} gradients");
            }
        }
    }
    type Definition = (Gelu, fn(f32) -> f32, fn(f32, f32) -> f32);
    let forms: [Definition; 2] = [
        (Gelu::Exact, reference::gelu, reference::gelu_backward),
        (Gelu::Tanh, reference::gelu_tanh, reference::gelu_tanh_backward),
    ];
    for (form, forward, backward) in forms {
        let y: Vec<f32> = gate.iter().map(|x| forward(*x)).collect();
        let dx: Vec<f32> = (0..n).map(|i| backward(gate[i], dout[i])).collect();
        for isa in isa::available() {
            let mut out = filled(n, f32::NAN);
            gelu::forward_part_with(isa, form, &gate, &mut out);
            assert_eq!(bits(&out), bits(&y), "{isa} {form:?}");
            let (mut a, mut b) = (gate.clone(), dout.clone());
            gelu::backward_part_with(isa, form, &mut a, &mut b);
            assert_eq!([bits(&a), bits(&b)], [bits(&dx), bits(&y)], "{isa} {form:?} gradients");
        }
    }
}

fn soft_caps(n: usize, cap: f32, values: Values) {
    let [x, dy] = [0, 1].map(|i| values.draw(n, i));
    let y: Vec<f32> = x.iter().map(|x| reference::softcap(*x, cap)).collect();
    let dx: Vec<f32> = (0..n).map(|i| dy[i] * reference::softcap_slope(y[i], cap)).collect();
    for isa in isa::available() {
        let mut out = x.clone();
        softcap::forward_part_with(isa, cap, &mut out);
        assert_eq!(bits(&out), bits(&y), "{isa}");
        let mut out = dy.clone();
        softcap::backward_part_with(isa, cap, &y, &mut out);
        assert_eq!(bits(&out), bits(&dx), "{isa} gradient");
    }
}

fn token_scores(n: usize, token: usize, values: Values) {
    let [logits, other] = [0, 1].map(|i| values.draw(n, i));
    let token = (token % n) as u32;
    let parts = |s: logprob::TokenScore| bits(&[s.logp, s.entropy, s.mean_logit, s.log_sum_squares]);
    let score = parts(reference::token_score(&logits, token));
    let kl = reference::row_kl(&logits, &other);
    let gradient = reference::token_score_backward(&logits, token, 0.7);
    for isa in isa::available() {
        assert_eq!(parts(logprob::score_with(isa, &logits, token)), score, "{isa}");
        assert_eq!(bits(&[logprob::kl_with(isa, &logits, &other)]), bits(&[kl]), "{isa} KL");
        let mut row = logits.clone();
        logprob::backward_with(isa, &mut row, token, 0.7);
        assert_eq!(bits(&row), bits(&gradient), "{isa} gradient");
    }
}

fn bias_and_embedding(n: usize, rows: usize, values: Values) {
    let (dy, start) = (values.draw(rows * n, 0), values.draw(n, 1));
    let mut dbias = start.clone();
    dy.chunks(n).for_each(|dy| _ = reference::linear_backward(&[], &[], dy, &mut [], &mut dbias));
    for isa in isa::available() {
        let mut ours = start.clone();
        linear::backward_bias_with(isa, &dy, &mut ours);
        assert_eq!(bits(&ours), bits(&dbias), "{isa}");
    }
    let table = values.draw(3 * n, 2);
    let tokens: Vec<u32> = (0..rows as u32).map(|r| 2 * r % 3).collect();
    let mut out = filled(rows * n, f32::NAN);
    embedding::forward(&table, n, &tokens, &mut out);
    let (mut dtable, mut expected) = (table.clone(), table.clone());
    embedding::backward(&dy, n, &tokens, &mut dtable);
    for (r, token) in tokens.into_iter().enumerate() {
        assert_eq!(bits(&out[r * n..][..n]), bits(reference::embedding(&table, n, token)));
        reference::embedding_backward(&dy[r * n..][..n], token, &mut expected);
    }
    assert_eq!(bits(&dtable), bits(&expected));
}

/// Forward with and without a bias and all gradients, row by row against the definition. The product's own tests run it under
/// every instruction set.
fn linear_maps(rows: usize, inputs: usize, outputs: usize, values: Values) {
    let [x, weight] = [rows * inputs, outputs * inputs].map(|n| values.draw(n, n as u64));
    let (bias, dy) = (values.draw(outputs, 1), values.draw(rows * outputs, 2));
    let (mut plain, mut biased) = (filled(rows * outputs, f32::NAN), filled(rows * outputs, f32::NAN));
    linear::forward(&x, &weight, inputs, &mut plain, false);
    linear::forward_biased(&x, &weight, &bias, inputs, &mut biased);
    let (mut dx, mut dweight) = (filled(rows * inputs, f32::NAN), filled(outputs * inputs, 0.5));
    linear::backward_input(&dy, &weight, inputs, &mut dx, false);
    linear::backward_weight(&dy, &x, inputs, &mut dweight);
    let (mut expected, mut dbias) = (filled(outputs * inputs, 0.5), filled(outputs, 0.0));
    for r in 0..rows {
        let (x, out) = (&x[r * inputs..][..inputs], r * outputs..(r + 1) * outputs);
        assert_eq!(bits(&plain[out.clone()]), bits(&reference::linear(x, &weight, None)));
        assert_eq!(bits(&biased[out.clone()]), bits(&reference::linear(x, &weight, Some(&bias))), "biased");
        let expected = reference::linear_backward(x, &weight, &dy[out], &mut expected, &mut dbias);
        assert_eq!(bits(&dx[r * inputs..][..inputs]), bits(&expected), "dx");
    }
    assert_eq!(bits(&dweight), bits(&expected), "dweight");
    // The same map by a matrix that is stored the other way round.
    let turned: Vec<f32> = (0..inputs * outputs).map(|i| weight[i % outputs * inputs + i / outputs]).collect();
    let map = linear::Weight::new(&turned, [inputs, outputs], true);
    let mut y = filled(rows * outputs, f32::NAN);
    map.forward(&x, &mut y, false);
    assert_eq!(bits(&y), bits(&plain), "stored the other way round");
    let mut y = filled(rows * outputs, f32::NAN);
    linear::forward_prepared(&x, &map.prepare(), &mut y, false);
    assert_eq!(bits(&y), bits(&plain), "prepared");
    let (mut again, mut dturned) = (filled(rows * inputs, f32::NAN), filled(outputs * inputs, 0.5));
    map.backward_input(&dy, &mut again, false);
    map.backward_weight(&dy, &x, &mut dturned);
    assert_eq!(bits(&again), bits(&dx), "dx stored the other way round");
    let back: Vec<f32> = (0..inputs * outputs).map(|i| dturned[i % inputs * outputs + i / inputs]).collect();
    assert_eq!(bits(&back), bits(&dweight), "dweight stored the other way round");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn rms_norm_gives_the_bits_of_the_definition(n in length(), rows in 1..5usize, values in Values::any()) {
        rms_norm(n, rows, values);
    }

    #[test]
    fn layer_norm_gives_the_bits_of_the_definition(n in length(), rows in 1..5usize, values in Values::any()) {
        layer_norm(n, rows, values);
    }

    #[test]
    fn rotary_turns_give_the_bits_of_the_definition(
        half in 1..70usize, still in prop_oneof![Just(0usize), 1..40usize], heads in 1..4usize, rows in 1..4usize, values in Values::any(),
    ) {
        rotary(half, still, heads, rows, values);
    }

    #[test]
    fn swiglu_geglu_and_gelu_give_the_bits_of_the_definition(n in length(), values in Values::any()) {
        mlp_middles(n, values);
    }

    #[test]
    fn soft_caps_give_the_bits_of_the_definition(n in length(), cap in 0.1..60.0f32, values in Values::any()) {
        soft_caps(n, cap, values);
    }

    #[test]
    fn token_scores_give_the_bits_of_the_definition(n in length(), token in 0..1000usize, values in Values::any()) {
        token_scores(n, token, values);
    }

    #[test]
    fn bias_gradients_and_embeddings_give_the_bits_of_the_definition(n in length(), rows in 1..5usize, values in Values::any()) {
        bias_and_embedding(n, rows, values);
    }

    #[test]
    fn linear_maps_give_the_bits_of_the_definition(
        rows in 1..20usize, inputs in 1..40usize, outputs in 1..40usize, values in Values::any(),
    ) {
        linear_maps(rows, inputs, outputs, values);
    }
}

/// Every lane of Σ g x underflows to −0 here, and the sign of that zero reaches the gradient: lanes beyond the row's end must add −0.
#[test]
fn a_lane_that_underflowed_to_minus_zero_survives_the_tail_of_a_norm() {
    let n = 33;
    let (x, weight, mut dy) = (filled(n, -1e-10), filled(n, 1.0), filled(n, 1e-45));
    dy[0] = -0.0;
    let (mut expected, mut dweight) = (filled(n, -0.0), filled(n, 0.0));
    reference::rms_norm_backward(&x, &weight, 0.0, &dy, &mut expected, &mut dweight);
    assert_eq!(expected[0].to_bits(), (-0.0f32).to_bits());
    for isa in isa::available() {
        let (mut inverse, mut ours) = ([f32::NAN], filled(n, -0.0));
        norm::inverse_rms_with(isa, &x, n, 0.0, &mut inverse);
        norm::backward_rows_with(isa, &x, &weight, &inverse, &dy, &mut ours);
        assert_eq!(bits(&ours), bits(&expected), "{isa}");
    }
}

#[test]
fn pieces_that_threads_take_change_no_bit_of_an_activation() {
    let n = (1 << 14) + 37;
    let [x, up, dout] = [0, 1, 2].map(|seed| random(n, 2.0, seed));
    let run = || {
        let (mut a, mut b, mut c) = (x.clone(), up.clone(), dout.clone());
        mlp::backward(Gated::SwiGlu, &mut a, &mut b, &mut c, true);
        let (mut d, mut e) = (x.clone(), dout.clone());
        gelu::backward(Gelu::Tanh, &mut d, &mut e);
        [a, b, c, d, e].map(|x| bits(&x))
    };
    let [one, three] = [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run));
    assert!(one == three);
}
