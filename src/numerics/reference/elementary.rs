//! Elementary functions: the same few steps of `+ * / fma` and integer operations everywhere, at most 2 ulp from the exact value.

/// 1.5 · 2²³: adding and subtracting it rounds to a whole number, which the low bits of the sum then hold.
pub const ROUNDER: f32 = 12_582_912.0;
/// ln 2 rounded, and what the rounding left.
pub const LN_2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_2e-9];
/// Below the first `exp` is 0, above the second +∞.
pub const EXP_RANGE: [f32; 2] = [-104.0, 89.0];
/// `(e^r − 1 − r) / r²` on ±ln 2 / 2, relative error of `e^r` below 2⁻²⁸. This and the other polynomials are minimax fits
/// (Lawson's algorithm), their coefficients rounded one after the other, lowest power first, and the rest fitted again.
pub const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_274, 0.008_368_686, 0.001_382_013_8];
/// `(ln(1 + f) − f) / f²` on ±1/3, relative error of `ln` below 2⁻²⁷.
pub const LOG: [f32; 9] =
    [-0.5, 0.333_332_15, -0.249_998_05, 0.200_104_43, -0.166_801_77, 0.140_053_76, -0.121_884_63, 0.139_865_03, -0.128_737_6];
/// The bits of 2/3: mantissas are taken from [2/3, 4/3).
pub const TWO_THIRDS: u32 = 0x3f2a_aaab;
/// From here `tanh` goes through `exp`.
pub const TANH_SPLIT: f32 = 0.55;
/// `(tanh √s − √s) / √s³` up to the split, relative error of `tanh` below 2⁻²⁹.
pub const TANH: [f32; 5] = [-0.333_333_16, 0.133_325_49, -0.053_848_553, 0.021_056_958, -0.006_254_406];
/// From the first `erf` goes through `exp`; from the second it is 1.
pub const ERF_SPLIT: [f32; 2] = [0.95, 4.0];
/// `erf(√s) / √s − 1` up to the split, relative error of `erf` below 2⁻³⁰.
pub const ERF: [f32; 7] =
    [0.128_379_17, -0.376_126_3, 0.112_836_26, -0.026_855_74, 0.005_192_460_5, -0.000_805_080_46, 8.002_782e-5];
/// `−ln(1 − erf x)` between the splits, relative error of `erf` below 2⁻³⁴.
pub const ERF_TAIL: [f32; 8] =
    [-0.000_182_466_22, 1.129_552_1, 0.633_272_1, 0.108_362_06, -0.025_172_267, 0.004_191_09, -0.000_438_593_87, 2.145_273_3e-5];

/// `c[0] + x (c[1] + x (c[2] + …))`, one `fma` a step.
fn polynomial(c: &[f32], x: f32) -> f32 {
    let (last, rest) = c.split_last().expect("a polynomial has coefficients");
    rest.iter().rev().fold(*last, |sum, c| sum.mul_add(x, *c))
}

/// `2^n` for `n` in −126..=127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

/// `e^x`.
pub fn exp(x: f32) -> f32 {
    let x = if EXP_RANGE[0] > x { EXP_RANGE[0] } else { x };
    let x = if EXP_RANGE[1] < x { EXP_RANGE[1] } else { x };
    if x.is_nan() {
        return x;
    }
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    let n = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
    let minus_one = (r * r).mul_add(polynomial(&EXP, r), r);
    // Two factors, as 2^n alone may not be a normal number.
    let half = n >> 1;
    minus_one.mul_add(power_of_two(half), power_of_two(half)) * power_of_two(n - half)
}

/// `ln(1 + f) − f` for `f` in ±1/3.
fn log_correction(f: f32) -> f32 {
    (f * f) * polynomial(&LOG, f)
}

/// The natural logarithm: −∞ at zeros, NaN below.
pub fn log(x: f32) -> f32 {
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if x < 0.0 {
        return f32::NAN;
    }
    if x.is_nan() || x == f32::INFINITY {
        return x;
    }
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let exponent = (scaled.to_bits().wrapping_sub(TWO_THIRDS) as i32) >> 23;
    let f = f32::from_bits(scaled.to_bits().wrapping_sub((exponent << 23) as u32)) - 1.0;
    let e = exponent as f32 + if subnormal { -23.0 } else { 0.0 };
    e.mul_add(LN_2[0], f + e.mul_add(LN_2[1], log_correction(f)))
}

/// `ln(1 + e)` for `e` in [0, 1].
fn log_one_plus(e: f32) -> f32 {
    if e > 1.0 / 3.0 {
        let f = (e - 1.0) * 0.5;
        (f + log_correction(f)) + LN_2[0]
    } else {
        (e + log_correction(e)) + 0.0
    }
}

/// `1 / (1 + e^−x)`.
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let above = if x < 0.0 { e } else { 1.0 };
    let below = 1.0 + e;
    // One correction for what the sum and the quotient lost.
    let lost = e - (below - 1.0);
    let inverse = 1.0 / below;
    let quotient = above * inverse;
    let rest = (-quotient).mul_add(lost, (-quotient).mul_add(below, above));
    rest.mul_add(inverse, quotient)
}

/// `−ln(1 + e^−x)`.
pub fn log_sigmoid(x: f32) -> f32 {
    (if 0.0 < x { 0.0 } else { x }) - log_one_plus(exp(-x.abs()))
}

/// `ln(1 + e^x)`.
pub fn softplus(x: f32) -> f32 {
    (if 0.0 > x { 0.0 } else { x }) + log_one_plus(exp(-x.abs()))
}

/// The hyperbolic tangent.
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let s = a * a;
    let value = if a < TANH_SPLIT { (a * s).mul_add(polynomial(&TANH, s), a) } else { 1.0 - 2.0 / (exp(a + a) + 1.0) };
    value.copysign(x)
}

/// The error function.
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let value = if a < ERF_SPLIT[0] {
        a.mul_add(polynomial(&ERF, a * a), a)
    } else {
        let a = if ERF_SPLIT[1] < a { ERF_SPLIT[1] } else { a };
        1.0 - exp(-polynomial(&ERF_TAIL, a))
    };
    value.copysign(x)
}
