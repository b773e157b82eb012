//! The fused multiply-add for CPUs without one.

use super::LANES;

/// [`in_binary64`] lane by lane. Not inlined: at every fused multiply-add of every kernel it would multiply the time to compile.
#[inline(never)]
pub fn of_lanes(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|l| in_binary64(a[l], b[l], c[l]))
}

/// `a * b + c` rounded once, from binary64 operations.
///
/// The product is exact in binary64 (24 + 24 bits, and its exponent in range). The sum is rounded to odd there: where it isn't
/// exact, the one of its two neighbours whose last bit is 1. That bit keeps the sum off every halfway case of binary32, which is
/// more than two bits narrower, so that rounding it again rounds the exact value (Boldo and Melquiond 2008, theorem 3).
#[inline]
pub fn in_binary64(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the sum lost, exactly (Knuth's TwoSum). NaN where an operand is infinite or NaN.
    let back = sum - product;
    let lost = (product - (sum - back)) + (c - back);
    // To the even sum's neighbour on the side of what was lost: away from zero when the signs agree.
    let bits = sum.to_bits();
    let step = 1 - 2 * ((bits ^ lost.to_bits()) >> 63) as i64;
    let inexact_and_even = lost.abs() > 0.0 && bits & 1 == 0;
    f64::from_bits(bits.wrapping_add_signed(if inexact_and_even { step } else { 0 })) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::in_binary64;

    /// Against `f32::mul_add`: the CPU's instruction where this machine has one.
    fn check(a: f32, b: f32, c: f32) -> Result<(), String> {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "fma")]
        fn hardware(a: f32, b: f32, c: f32) -> f32 {
            a.mul_add(b, c)
        }
        #[cfg(target_arch = "x86_64")]
        let expected = match is_x86_feature_detected!("fma") {
            // SAFETY: the CPU was just asked.
            true => unsafe { hardware(a, b, c) },
            false => a.mul_add(b, c),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let expected = a.mul_add(b, c);
        let ours = in_binary64(a, b, c);
        match ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan() {
            true => Ok(()),
            false => Err(format!("fma({a:e}, {b:e}, {c:e}) = {expected:e}, not {ours:e}")),
        }
    }

    const SPECIAL: [f32; 22] = [
        0.0,
        1.0,
        1.5,
        3.0,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        f32::EPSILON,
        f32::EPSILON / 2.0,
        1e-45,
        3e-45,
        1e-40,
        f32::MIN_POSITIVE,
        2.0 * f32::MIN_POSITIVE,
        1e-30,
        3.14159e-23,
        0.333_333_34,
        16_777_215.0,
        16_777_216.0,
        1e30,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];

    #[test]
    fn special_values_give_the_bits_of_the_instruction() {
        let all = || SPECIAL.into_iter().flat_map(|x| [x, -x]);
        for a in all() {
            for b in all() {
                for c in all() {
                    check(a, b, c).unwrap();
                }
            }
        }
    }

    /// Sums a hair (2⁻⁴⁶ of the half unit) beside the middle of two neighbours, with the last place `2^exponent` of the sum at every
    /// exponent and the result normal or not. Binary64 can't hold the hair, so rounding there first goes wrong where the
    /// tie that it makes is broken to the other side.
    #[test]
    fn halfway_cases_are_decided_by_a_hair_that_binary64_does_not_hold() {
        let mut hard = 0;
        for exponent in -149..=104 {
            for i in 1..200 {
                let by = |factor: f32, exponent: i32| libm::ldexp(f64::from(factor), exponent) as f32;
                // (1 + iε)(1 − iε) = 1 − i²ε²
                let hair = i as f32 * f32::EPSILON;
                let (a, b) = (by(1.0 + hair, exponent / 2), by(1.0 - hair, exponent - exponent / 2 - 1));
                for whole in [i, 8_388_608 + i] {
                    let c = by(whole as f32, exponent);
                    for (b, c) in [(b, c), (-b, c), (b, -c), (-b, -c)] {
                        check(a, b, c).unwrap();
                        let twice = (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
                        hard += u32::from(twice.to_bits() != in_binary64(a, b, c).to_bits());
                    }
                }
            }
        }
        assert!(hard > 10_000, "only {hard} cases in which rounding twice goes wrong");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_values_give_the_bits_of_the_instruction(
            a in any::<u32>(), b in any::<u32>(), c in any::<u32>(), near in -60i32..60,
        ) {
            let [a, b, c] = [a, b, c].map(f32::from_bits);
            check(a, b, c).map_err(TestCaseError::fail)?;
            // An addend of the product's size, a few binary places apart: sums that cancel, round and underflow.
            let product = f64::from(a) * f64::from(b);
            let close = libm::ldexp(1.0 + libm::fabs(f64::from(c)).fract(), libm::ilogb(product).clamp(-200, 200) + near) as f32;
            check(a, b, close).map_err(TestCaseError::fail)?;
            check(a, b, -close).map_err(TestCaseError::fail)?;
            check(a, b, -product as f32).map_err(TestCaseError::fail)?;
        }
    }
}
