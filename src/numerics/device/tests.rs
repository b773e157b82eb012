//! Kernels against the definition and against the CPU's kernels, which have its bits: on the emulated device, or on a real one.

use proptest::prelude::*;

use super::product::{TILINGS, gemm_by};
use super::{Device, elementwise, with};
use crate::buffer::Buffer;
use crate::gelu::{self, Gelu};
use crate::gemm::{MatRef, gemm};
use crate::layer_norm::{self, Moments};
use crate::mlp::{self, Gated};
use crate::optim::{self, AdamwStep, RmspropStep, SgdStep};
use crate::rope::{self, Rotary};
use crate::testing::{Values, bits, length, on_device};
use crate::{dropout, embedding, linear, logprob, matrix, norm, reference, softcap};

/// Values where operations find them: in shared memory if `shared` and a device is active.
#[derive(Debug, Clone, Copy)]
struct Operands {
    values: Values,
    shared: bool,
}

impl Operands {
    fn draw(&self, n: usize, index: u64) -> Buffer {
        let values = self.values.draw(n, index);
        if self.shared { Buffer::from(values) } else { with(None, || Buffer::from(values)) }
    }

    /// The CPU and the device make the same of them.
    fn same<const N: usize>(self, run: impl Fn(Self) -> [Buffer; N]) {
        let expected = run(self).map(|x| bits(&x));
        on_device(|| {
            let found = run(self).map(|x| bits(&x));
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let differs = found.iter().zip(expected).position(|(a, b)| a != b);
                assert_eq!(differs, None, "result {i}: {found:x?} {expected:x?}");
            }
        });
    }
}

fn operands() -> impl Strategy<Value = Operands> {
    (Values::any(), any::<bool>()).prop_map(|(values, shared)| Operands { values, shared })
}

#[cfg(emulated)]
#[test]
fn both_sides_lay_out_parameters_alike() {
    for (name, [ours, compiled]) in super::kernels::layouts() {
        assert_eq!(ours, compiled, "{name}: threads, bytes");
    }
}

#[test]
fn a_device_is_active_where_somebody_said_so_and_nowhere_else() {
    let Some(device) = Device::for_tests() else { return };
    assert!(super::active().is_none());
    with(Some(device), || {
        assert!(super::active().is_some());
        with(None, || assert!(super::active().is_none()));
        assert!(super::active().is_some());
        assert!(std::thread::spawn(|| super::active().is_none()).join().unwrap());
    });
    let pool = super::pool(Some(device), 2).unwrap();
    assert!(super::active().is_none() && pool.install(|| super::active().is_some()));
}

#[test]
fn shared_memory_is_used_again_and_known_as_such() {
    on_device(|| {
        let device = Device::for_tests().unwrap();
        // Of a size that no other test asks for.
        let (first, own) = (Buffer::zeros(300_000), vec![0.0f32; 3000]);
        assert!(device.holds(&first) && device.holds(&first[1..7]) && !device.holds(&own));
        let at = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::unspecified(290_000).as_ptr(), at);
        let copy = Buffer::copy_of(&own).clone();
        assert!(device.holds(&copy) && copy.iter().all(|x| *x == 0.0));
    });
}

#[test]
fn elementary_functions_give_the_bits_of_the_definition() {
    let definitions: [fn(f32) -> f32; 7] = [
        reference::exp,
        reference::log,
        reference::sigmoid,
        reference::log_sigmoid,
        reference::softplus,
        reference::tanh,
        reference::erf,
    ];
    let ends = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        1e-45,
        88.722_84,
        88.722_85,
        -103.972_08,
        -104.0,
    ];
    let xs: Vec<f32> = (0..=u32::MAX).step_by(40_009).map(f32::from_bits).chain(ends).collect();
    let Some(device) = Device::for_tests() else { return };
    for (function, definition) in definitions.into_iter().enumerate() {
        let mut found = xs.clone();
        elementwise::elementary(device, function as i32, &mut found);
        for (x, found) in xs.iter().zip(&found) {
            assert_eq!(bits(&[*found]), bits(&[definition(*x)]), "function {function} of {x:e}");
        }
    }
}

fn view(data: &[f32], stride: usize, turned: bool) -> MatRef<'_> {
    if turned { MatRef::rows(data, stride).transposed() } else { MatRef::rows(data, stride) }
}

/// Every tiling against the definition, with matrices laid out either way and gaps between rows.
fn products([m, n, k]: [usize; 3], turned: [bool; 2], gap: usize, accumulate: bool, of: Operands) {
    let Some(device) = Device::for_tests() else { return };
    let laid = |rows: usize, columns: usize, turned: bool| match turned {
        false => (rows * (columns + gap), columns + gap),
        true => (columns * (rows + gap), rows + gap),
    };
    let [(a_len, a_stride), (b_len, b_stride)] = [laid(m, k, turned[0]), laid(k, n, turned[1])];
    let values = of.values;
    let (a, b, start) = (values.draw(a_len, 0), values.draw(b_len, 1), values.draw(m * (n + gap), 2));
    let mut expected = start.clone();
    reference::gemm(m, n, k, view(&a, a_stride, turned[0]), view(&b, b_stride, turned[1]), &mut expected, n + gap, accumulate);
    with(Some(device), || {
        let place = |values: &[f32]| if of.shared { Buffer::copy_of(values) } else { with(None, || Buffer::copy_of(values)) };
        let (a, b) = (place(&a), place(&b));
        let [a, b] = [view(&a, a_stride, turned[0]), view(&b, b_stride, turned[1])];
        for tiling in TILINGS {
            let mut c = place(&start);
            gemm_by(tiling, device, [m, n, k], a, b, &mut c, [n + gap, 1], accumulate);
            assert_eq!(bits(&c), bits(&expected), "{m}x{n}x{k} {turned:?}");
        }
        let mut c = place(&start);
        gemm(m, n, k, a, b, &mut c, n + gap, accumulate);
        assert_eq!(bits(&c), bits(&expected), "{m}x{n}x{k} {turned:?}");
    });
}

fn norms(n: usize, rows: usize, of: Operands) {
    of.same(|of| {
        let ([x, dy], [weight, bias]) = ([0, 1].map(|i| of.draw(rows * n, i)), [2, 3].map(|i| of.draw(n, i)));
        let [mut dx, mut again] = [4, 4].map(|i| of.draw(rows * n, i));
        let [mut dweight, mut layer_dweight, mut dbias] = [5, 6, 7].map(|i| of.draw(n, i));
        let mut inverse = Buffer::unspecified(rows);
        norm::inverse_rms(&x, n, 1e-5, &mut inverse);
        let [mut y, mut layer_y] = [0, 1].map(|_| Buffer::unspecified(rows * n));
        norm::scale(&x, &weight, &inverse, &mut y);
        norm::backward(&x, &weight, &inverse, &dy, &mut dx, &mut dweight);
        let mut moments = vec![Moments::default(); rows];
        layer_norm::moments(&x, n, 1e-5, &mut moments);
        layer_norm::scale(&x, &weight, &bias, &moments, &mut layer_y);
        layer_norm::backward(&x, &weight, &moments, &dy, &mut again, &mut layer_dweight, &mut dbias);
        [inverse, y, dx, dweight, layer_y, again, layer_dweight, dbias]
    });
}

fn activations(n: usize, cap: f32, of: Operands) {
    for form in [Gated::SwiGlu, Gated::GeGlu] {
        for again in [false, true] {
            of.same(|of| {
                let [mut gate, mut up, mut dout] = [0, 1, 2].map(|i| of.draw(n, i));
                let mut out = Buffer::unspecified(n);
                mlp::forward(form, &gate, &up, &mut out);
                mlp::backward(form, &mut gate, &mut up, &mut dout, again);
                [out, gate, up, dout]
            });
        }
    }
    for form in [Gelu::Exact, Gelu::Tanh] {
        of.same(|of| {
            let ([mut x, mut dout], mut out) = ([0, 1].map(|i| of.draw(n, i)), Buffer::unspecified(n));
            gelu::forward(form, &x, &mut out);
            gelu::backward(form, &mut x, &mut dout);
            [out, x, dout]
        });
    }
    of.same(|of| {
        let [mut x, mut dy] = [0, 1].map(|i| of.draw(n, i));
        softcap::forward(cap, &mut x);
        softcap::backward(cap, &x, &mut dy);
        [x, dy]
    });
}

fn rotary(half: usize, still: usize, heads: usize, rows: usize, of: Operands) {
    of.same(|of| {
        let (width, positions) = (heads * (2 * half + still), (0..rows as u32).map(|r| 5 * r % 8).collect::<Vec<_>>());
        let table = Rotary::of_frequencies(8, 2 * half + still, &rope::frequencies(2 * half, 10_000.0));
        let [mut turned, mut back] = [0, 0].map(|i| of.draw(rows * width, i));
        table.forward(&mut turned, width, &positions);
        table.backward(&mut back, width, &positions);
        [turned, back]
    });
}

fn logits(width: usize, rows: usize, of: Operands) {
    of.same(|of| {
        let [mut x, other, dlogps] = [(0, rows * width), (1, rows * width), (2, rows)].map(|(i, n)| of.draw(n, i));
        let tokens: Vec<u32> = (0..rows).map(|r| (7 * r % width) as u32).collect();
        let scores = logprob::scores(&x, width, &tokens);
        let scores: Vec<f32> = scores.iter().flat_map(|s| [s.logp, s.entropy, s.mean_logit, s.log_sum_squares]).collect();
        let mut kls = Buffer::unspecified(rows);
        logprob::kls(&x, &other, width, &mut kls);
        logprob::backward_rows(&mut x, width, &tokens, &dlogps);
        [Buffer::from(scores), kls, x]
    });
}

fn rows_moved(width: usize, rows: usize, of: Operands) {
    of.same(|of| {
        let [x, mut sums, mut summed, mut table] = [rows, rows, 3, 3].map(|rows| of.draw(rows * width, rows as u64));
        let [row, mut bias] = [8, 9].map(|i| of.draw(width, i));
        let tokens: Vec<u32> = (0..rows as u32).map(|r| 2 * r % 3).collect();
        let places: Vec<usize> = tokens.iter().map(|token| *token as usize).collect();
        let mut out = Buffer::unspecified(rows * width);
        embedding::forward(&table, width, &tokens, &mut out);
        embedding::backward(&x, width, &tokens, &mut table);
        matrix::scatter_add_rows(&x, &places, width, &mut summed);
        linear::backward_bias(&x, &mut bias);
        matrix::add(&mut sums, &x);
        matrix::add_to_rows(&row, &mut sums);
        matrix::add_gathered_rows(&table, &tokens, width, &mut sums);
        matrix::scale(&mut sums, 0.3);
        matrix::add_value(&mut summed, 1.5);
        let apart: Vec<usize> = (0..rows).map(|r| 2 * r + 1).collect();
        let spread = matrix::spread_rows(&x, &apart, 2 * rows * width + width, width);
        let gathered = matrix::gather_rows(&spread, &apart, width);
        let states: Vec<u64> = (0..rows as u64).map(dropout::mix).collect();
        let [mut dropped, mut filled] = [0, 1].map(|_| Buffer::unspecified(rows * width));
        dropout::apply(&x, width, &states, 1 << 31, 2.0, &mut dropped);
        matrix::fill_rows(&row, &mut filled);
        [out, table, summed, bias, sums, spread, gathered, dropped, filled]
    });
}

fn updates(n: usize, of: Operands) {
    let adamw = AdamwStep { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 3, grad_scale: 0.5 };
    let rmsprop = RmspropStep { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.1, grad_scale: 0.5 };
    let sgd = SgdStep { lr: 0.1, weight_decay: 0.01, grad_scale: 0.5 };
    of.same(|of| {
        let [mut a, mut b, mut c, mut d] = [0, 0, 0, 0].map(|i| of.draw(n, i));
        let [mut m, mut v, mut buffer] = [2, 3, 4].map(|i| of.draw(n, i));
        let (grad, mut square) = (of.draw(n, 1), of.draw(n, 3));
        optim::adamw(&mut a, &grad, &mut m, &mut v, &adamw);
        optim::rmsprop(&mut b, &grad, &mut square, &rmsprop);
        optim::sgd(&mut c, &grad, &sgd);
        optim::sgd_momentum(&mut d, &grad, &mut buffer, 0.9, &sgd);
        let norm = optim::global_norm([&grad[..], &m[..], &[]]);
        // Both halves of the number.
        let norm = if norm.is_nan() { f64::NAN } else { norm }.to_bits();
        let halves = [norm as u32, (norm >> 32) as u32].map(|half| (half >> 8) as f32);
        [a, b, c, d, m, v, square, buffer, Buffer::from(halves.to_vec())]
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn products_give_the_bits_of_the_definition(
        m in 1..150usize, n in 1..150usize, k in 0..40usize, turned in any::<[bool; 2]>(), gap in 0..3usize, accumulate: bool, of in operands(),
    ) {
        products([m, n, k], turned, gap, accumulate, of);
    }

    #[test]
    fn norms_give_the_bits_of_the_cpu(n in length(), rows in 1..40usize, of in operands()) {
        norms(n, rows, of);
    }

    #[test]
    fn activations_give_the_bits_of_the_cpu(n in 1..600usize, cap in 0.1..60.0f32, of in operands()) {
        activations(n, cap, of);
    }

    #[test]
    fn rotary_turns_give_the_bits_of_the_cpu(
        half in 1..20usize, still in prop_oneof![Just(0usize), 1..9usize], heads in 1..4usize, rows in 1..9usize, of in operands(),
    ) {
        rotary(half, still, heads, rows, of);
    }

    #[test]
    fn logits_give_the_bits_of_the_cpu(width in prop_oneof![1..100usize, 1000..3000usize], rows in 1..5usize, of in operands()) {
        logits(width, rows, of);
    }

    #[test]
    fn rows_are_moved_and_added_up_as_on_the_cpu(width in 1..50usize, rows in 1..20usize, of in operands()) {
        rows_moved(width, rows, of);
    }

    #[test]
    fn optimizers_give_the_bits_of_the_cpu(n in prop_oneof![1..300usize, 4000..9000usize], of in operands()) {
        updates(n, of);
    }
}
