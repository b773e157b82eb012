// Elementary functions: the steps of `reference/elementary.rs`, where the coefficients come from, without branches.

#ifndef DPO_EVAL_ELEMENTARY
#define DPO_EVAL_ELEMENTARY

#include "device.cuh"

#define ROUNDER 12582912.0f
#define LOG2_E 1.44269504088896340736f
#define LN_2_HIGH 0.693147180559945309417f
#define LN_2_LOW -1.9046542e-9f

INLINE float power_of_two(int n) { return __uint_as_float((unsigned)(n + 127) << 23); }

// e^x
INLINE float exponential(float x) {
    // The bound stands first, so that NaN passes.
    x = -104.0f > x ? -104.0f : x;
    x = 89.0f < x ? 89.0f : x;
    float shifted = fused(x, LOG2_E, ROUNDER);
    float whole = sub(shifted, ROUNDER);
    float r = fused(whole, -LN_2_LOW, fused(whole, -LN_2_HIGH, x));
    int n = (int)(__float_as_uint(shifted) - __float_as_uint(ROUNDER));
    float sum = 0.0013820138f;
    sum = fused(sum, r, 0.008368686f);
    sum = fused(sum, r, 0.041668274f);
    sum = fused(sum, r, 0.16666521f);
    sum = fused(sum, r, 0.49999994f);
    float minus_one = fused(mul(r, r), sum, r);
    // Two factors, as 2^n alone may not be a normal number.
    int half = n >> 1;
    float scale = power_of_two(half);
    return mul(fused(minus_one, scale, scale), power_of_two(n - half));
}

// ln(1 + f) − f for f in ±1/3
INLINE float log_correction(float f) {
    float sum = -0.1287376f;
    sum = fused(sum, f, 0.13986503f);
    sum = fused(sum, f, -0.12188463f);
    sum = fused(sum, f, 0.14005376f);
    sum = fused(sum, f, -0.16680177f);
    sum = fused(sum, f, 0.20010443f);
    sum = fused(sum, f, -0.24999805f);
    sum = fused(sum, f, 0.33333215f);
    sum = fused(sum, f, -0.5f);
    return mul(mul(f, f), sum);
}

// The natural logarithm: −∞ at zeros, NaN below.
INLINE float logarithm(float x) {
    int subnormal = x < 1.17549435e-38f;
    float scaled = subnormal ? mul(x, 8388608.0f) : x;
    int exponent = (int)(__float_as_uint(scaled) - 0x3f2aaaabu) >> 23;
    float f = sub(__uint_as_float(__float_as_uint(scaled) - ((unsigned)exponent << 23)), 1.0f);
    float e = add(__int2float_rn(exponent), subnormal ? -23.0f : 0.0f);
    float value = fused(e, LN_2_HIGH, add(f, fused(e, LN_2_LOW, log_correction(f))));
    value = x < infinity() ? value : x;
    value = x < 0.0f ? __uint_as_float(0x7fc00000u) : value;
    return x == 0.0f ? -infinity() : value;
}

// 1 / (1 + e^−x)
INLINE float sigmoid(float x) {
    float e = exponential(-fabsf(x));
    float above = x < 0.0f ? e : 1.0f;
    float below = add(1.0f, e);
    float lost = sub(e, sub(below, 1.0f));
    float inverse = quotient(1.0f, below);
    float value = mul(above, inverse);
    float rest = fused(-value, lost, fused(-value, below, above));
    return fused(rest, inverse, value);
}

// ln(1 + e) for e in [0, 1]
INLINE float log_one_plus(float e) {
    int upper = 0.33333334f < e;
    float f = upper ? mul(sub(e, 1.0f), 0.5f) : e;
    return add(add(f, log_correction(f)), upper ? LN_2_HIGH : 0.0f);
}

INLINE float log_sigmoid(float x) { return sub(0.0f < x ? 0.0f : x, log_one_plus(exponential(-fabsf(x)))); }

INLINE float softplus(float x) { return add(0.0f > x ? 0.0f : x, log_one_plus(exponential(-fabsf(x)))); }

INLINE float tangent(float x) {
    float a = fabsf(x);
    float s = mul(a, a);
    float sum = -0.006254406f;
    sum = fused(sum, s, 0.021056958f);
    sum = fused(sum, s, -0.053848553f);
    sum = fused(sum, s, 0.13332549f);
    sum = fused(sum, s, -0.33333316f);
    float near_zero = fused(mul(a, s), sum, a);
    float beyond = sub(1.0f, quotient(2.0f, add(exponential(add(a, a)), 1.0f)));
    return copysignf(a < 0.55f ? near_zero : beyond, x);
}

INLINE float error_function(float x) {
    float a = fabsf(x);
    float s = mul(a, a);
    float sum = 8.002782e-5f;
    sum = fused(sum, s, -0.00080508046f);
    sum = fused(sum, s, 0.0051924605f);
    sum = fused(sum, s, -0.02685574f);
    sum = fused(sum, s, 0.11283626f);
    sum = fused(sum, s, -0.3761263f);
    sum = fused(sum, s, 0.12837917f);
    float near_zero = fused(a, sum, a);
    float capped = 4.0f < a ? 4.0f : a;
    float tail = 2.1452733e-5f;
    tail = fused(tail, capped, -0.00043859387f);
    tail = fused(tail, capped, 0.00419109f);
    tail = fused(tail, capped, -0.025172267f);
    tail = fused(tail, capped, 0.10836206f);
    tail = fused(tail, capped, 0.6332721f);
    tail = fused(tail, capped, 1.1295521f);
    tail = fused(tail, capped, -0.00018246622f);
    float beyond = sub(1.0f, exponential(-tail));
    return copysignf(a < 0.95f ? near_zero : beyond, x);
}

// cap · tanh(x / cap), and its derivative where its value is y.
INLINE float capped(float x, float cap) { return mul(tangent(quotient(x, cap)), cap); }

INLINE float cap_slope(float y, float cap) {
    float t = quotient(y, cap);
    return fused(t, -t, 1.0f);
}

#endif
