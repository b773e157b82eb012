//! Elementary functions over slices, in place: the bits of [`reference`](super::reference), sixteen lanes at a time.
//!
//! [`lanes`] holds them as functions of one vector, for kernels that fuse them with other work.

use super::simd::{F32x16, LANES, dispatch};

/// Elementary functions of sixteen lanes: the same steps as in `reference`, both sides of a branch computed and one selected.
pub mod lanes {
    use super::super::reference::{ERF, ERF_SPLIT, ERF_TAIL, EXP, EXP_RANGE, LN_2, LOG, ROUNDER, TANH, TANH_SPLIT, TWO_THIRDS};
    use super::F32x16;

    #[inline(always)]
    fn polynomial<V: F32x16, const N: usize>(c: &[f32; N], x: V) -> V {
        let mut sum = V::splat(c[N - 1]);
        for i in (0..N - 1).rev() {
            sum = sum.fma(x, V::splat(c[i]));
        }
        sum
    }

    /// `2^n` for lanes that hold `n` as an integer.
    #[inline(always)]
    fn power_of_two<V: F32x16>(n: V) -> V {
        n.add_bits(V::splat_bits(127)).shift_left_bits::<23>()
    }

    #[inline(always)]
    pub fn exp<V: F32x16>(x: V) -> V {
        // The bound stands first, so that NaN passes.
        let x = V::splat(EXP_RANGE[0]).max(x);
        let x = V::splat(EXP_RANGE[1]).min(x);
        let rounder = V::splat(ROUNDER);
        let shifted = x.fma(V::splat(std::f32::consts::LOG2_E), rounder);
        let n = shifted - rounder;
        let r = n.fma(V::splat(-LN_2[1]), n.fma(V::splat(-LN_2[0]), x));
        let n = shifted.sub_bits(rounder);
        let minus_one = (r * r).fma(polynomial(&EXP, r), r);
        let half = n.shift_right_bits::<1>();
        let scale = power_of_two(half);
        minus_one.fma(scale, scale) * power_of_two(n.sub_bits(half))
    }

    #[inline(always)]
    fn log_correction<V: F32x16>(f: V) -> V {
        (f * f) * polynomial(&LOG, f)
    }

    #[inline(always)]
    pub fn log<V: F32x16>(x: V) -> V {
        let zero = V::splat(0.0);
        let subnormal = x.lt(V::splat(f32::MIN_POSITIVE));
        let scaled = V::select(subnormal, x * V::splat(8_388_608.0), x);
        let exponent = scaled.sub_bits(V::splat_bits(TWO_THIRDS)).shift_right_bits::<23>();
        let f = scaled.sub_bits(exponent.shift_left_bits::<23>()) - V::splat(1.0);
        let e = exponent.int_to_float() + V::select(subnormal, V::splat(-23.0), zero);
        let value = e.fma(V::splat(LN_2[0]), f + e.fma(V::splat(LN_2[1]), log_correction(f)));
        let value = V::select(x.lt(V::splat(f32::INFINITY)), value, x);
        let value = V::select(x.lt(zero), V::splat(f32::NAN), value);
        V::select(x.eq(zero), V::splat(f32::NEG_INFINITY), value)
    }

    #[inline(always)]
    fn log_one_plus<V: F32x16>(e: V) -> V {
        let upper = V::splat(1.0 / 3.0).lt(e);
        let f = V::select(upper, (e - V::splat(1.0)) * V::splat(0.5), e);
        (f + log_correction(f)) + V::select(upper, V::splat(LN_2[0]), V::splat(0.0))
    }

    #[inline(always)]
    pub fn sigmoid<V: F32x16>(x: V) -> V {
        let e = exp(x.abs().negate());
        let one = V::splat(1.0);
        let above = V::select(x.lt(V::splat(0.0)), e, one);
        let below = one + e;
        let lost = e - (below - one);
        let inverse = one / below;
        let quotient = above * inverse;
        let rest = quotient.negate().fma(lost, quotient.negate().fma(below, above));
        rest.fma(inverse, quotient)
    }

    #[inline(always)]
    pub fn log_sigmoid<V: F32x16>(x: V) -> V {
        V::splat(0.0).min(x) - log_one_plus(exp(x.abs().negate()))
    }

    #[inline(always)]
    pub fn softplus<V: F32x16>(x: V) -> V {
        V::splat(0.0).max(x) + log_one_plus(exp(x.abs().negate()))
    }

    /// `magnitude` with the sign of `x`.
    #[inline(always)]
    fn with_sign<V: F32x16>(magnitude: V, x: V) -> V {
        magnitude.abs().or_bits(x.and_bits(V::splat(-0.0)))
    }

    #[inline(always)]
    pub fn tanh<V: F32x16>(x: V) -> V {
        let a = x.abs();
        let s = a * a;
        let one = V::splat(1.0);
        let small = (a * s).fma(polynomial(&TANH, s), a);
        let large = one - V::splat(2.0) / (exp(a + a) + one);
        with_sign(V::select(a.lt(V::splat(TANH_SPLIT)), small, large), x)
    }

    #[inline(always)]
    pub fn erf<V: F32x16>(x: V) -> V {
        let a = x.abs();
        let small = a.fma(polynomial(&ERF, a * a), a);
        let capped = V::splat(ERF_SPLIT[1]).min(a);
        let large = V::splat(1.0) - exp(polynomial(&ERF_TAIL, capped).negate());
        with_sign(V::select(a.lt(V::splat(ERF_SPLIT[0])), small, large), x)
    }
}

/// A kernel that applies a function of lanes to a slice in place.
macro_rules! over_slice {
    ($($kernel:ident = $function:path;)+) => {$(
        #[inline(always)]
        fn $kernel<V: F32x16>(xs: &mut [f32]) {
            let mut chunks = xs.chunks_exact_mut(LANES);
            for chunk in &mut chunks {
                $function(V::load(chunk)).store(chunk);
            }
            let rest = chunks.into_remainder();
            if !rest.is_empty() {
                $function(V::load_part(rest, 0.0)).store_part(rest);
            }
        }
    )+};
}

over_slice! {
    exp_slice = lanes::exp;
    log_slice = lanes::log;
    sigmoid_slice = lanes::sigmoid;
    log_sigmoid_slice = lanes::log_sigmoid;
    softplus_slice = lanes::softplus;
    tanh_slice = lanes::tanh;
    erf_slice = lanes::erf;
}

dispatch! {
    /// `x ← e^x`.
    pub fn exp, exp_with(xs: &mut [f32]) = exp_slice;
    /// `x ← ln x`.
    pub fn log, log_with(xs: &mut [f32]) = log_slice;
    /// `x ← 1 / (1 + e^−x)`.
    pub fn sigmoid, sigmoid_with(xs: &mut [f32]) = sigmoid_slice;
    /// `x ← −ln(1 + e^−x)`.
    pub fn log_sigmoid, log_sigmoid_with(xs: &mut [f32]) = log_sigmoid_slice;
    /// `x ← ln(1 + e^x)`.
    pub fn softplus, softplus_with(xs: &mut [f32]) = softplus_slice;
    /// `x ← tanh x`.
    pub fn tanh, tanh_with(xs: &mut [f32]) = tanh_slice;
    /// `x ← erf x`.
    pub fn erf, erf_with(xs: &mut [f32]) = erf_slice;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{self, Isa};
    use crate::reference;

    struct Function {
        name: &'static str,
        fast: fn(Isa, &mut [f32]),
        definition: fn(f32) -> f32,
        truth: fn(f64) -> f64,
    }

    const FUNCTIONS: [Function; 7] = [
        Function { name: "exp", fast: exp_with, definition: reference::exp, truth: libm::exp },
        Function { name: "log", fast: log_with, definition: reference::log, truth: libm::log },
        Function { name: "tanh", fast: tanh_with, definition: reference::tanh, truth: libm::tanh },
        Function { name: "sigmoid", fast: sigmoid_with, definition: reference::sigmoid, truth: |x| 1.0 / (1.0 + libm::exp(-x)) },
        Function { name: "log_sigmoid", fast: log_sigmoid_with, definition: reference::log_sigmoid, truth: |x| -soft(-x) },
        Function { name: "softplus", fast: softplus_with, definition: reference::softplus, truth: soft },
        Function { name: "erf", fast: erf_with, definition: reference::erf, truth: libm::erf },
    ];

    fn soft(x: f64) -> f64 {
        x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
    }

    /// Every `step`-th bit pattern, both signs, and the ends.
    fn sweep(step: usize) -> Vec<f32> {
        let ends = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
        ];
        let splits = [
            reference::TANH_SPLIT,
            reference::ERF_SPLIT[0],
            reference::ERF_SPLIT[1],
            88.722_84,
            88.722_85,
            -87.336_55,
            -103.972_08,
            -103.972_09,
            -104.0,
        ];
        let around = splits.iter().flat_map(|x| [*x, -x, x.next_up(), x.next_down()]);
        (0..=u32::MAX).step_by(step).map(f32::from_bits).chain(ends).chain(around).collect()
    }

    /// The distance of `x` from the exact value in units of the last place of f32 at that value.
    fn ulps(x: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if x == rounded || x.is_nan() && exact.is_nan() {
            return (f64::from(rounded) - exact).abs() / unit(exact);
        }
        (f64::from(x) - exact).abs() / unit(exact)
    }

    fn unit(exact: f64) -> f64 {
        let exponent = libm::ilogb(exact.abs().max(1e-300)).clamp(-126, 127);
        libm::ldexp(1.0, exponent - 23)
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_definition() {
        let xs = sweep(40_009);
        for function in &FUNCTIONS {
            let expected: Vec<f32> = xs.iter().map(|x| (function.definition)(*x)).collect();
            for isa in isa::available() {
                let mut values = xs.clone();
                (function.fast)(isa, &mut values);
                for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
                    let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
                    assert!(same, "{isa} {}({:e}) = {value:e}, not {expected:e}", function.name, xs[i]);
                }
            }
        }
    }

    #[test]
    fn tails_of_every_length_are_computed_and_nothing_beyond_them() {
        for function in &FUNCTIONS {
            for isa in isa::available() {
                for length in 0..40 {
                    let mut values = [0.75; 48];
                    (function.fast)(isa, &mut values[..length]);
                    let expected = (function.definition)(0.75);
                    assert!(values[..length].iter().all(|x| *x == expected) && values[length..].iter().all(|x| *x == 0.75));
                }
            }
        }
    }

    #[test]
    fn errors_stay_within_two_units_of_the_last_place() {
        let xs = sweep(1_009);
        for function in &FUNCTIONS {
            let mut values = xs.clone();
            (function.fast)(isa::active(), &mut values);
            let (mut worst, mut at) = (0.0, 0.0);
            for (x, value) in xs.iter().zip(&values) {
                let exact = (function.truth)(f64::from(*x));
                if exact.is_nan() || (exact as f32).is_infinite() {
                    assert!(
                        value.is_nan() == exact.is_nan() && (exact.is_nan() || *value == exact as f32),
                        "{}({x:e}) = {value:e}",
                        function.name
                    );
                    continue;
                }
                let error = ulps(*value, exact);
                if error > worst {
                    (worst, at) = (error, *x);
                }
            }
            println!("{}: at most {worst:.3} ulp, at {at:e}", function.name);
            assert!(worst <= 2.0, "{}({at:e}) is off by {worst} ulp", function.name);
        }
    }

    #[test]
    fn odd_functions_keep_the_sign_of_zero() {
        for f in [reference::tanh, reference::erf] {
            assert_eq!(f(-0.0).to_bits(), (-0.0f32).to_bits());
            assert_eq!(f(0.0).to_bits(), 0);
        }
    }
}
