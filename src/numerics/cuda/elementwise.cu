// What works on each element by itself: activations, soft-capping, the rotary turn, optimizers, and elementary functions for their own sake.

#include "elementary.cuh"

struct Activation {
    // x, or gate and up; they become gradients in the backward pass.
    float *gate, *up;
    // The output, or its gradient.
    float *out;
    u64 n;
    // Of `Gated` or `Gelu` in their order.
    int form;
    // Whether the output is wanted again.
    int again;
};

struct Sloped {
    float weight, slope;
};

// What x is multiplied by to make silu(x), and the derivative of the product.
INLINE struct Sloped silu(float x) {
    float s = sigmoid(x), silu = mul(x, s);
    struct Sloped both = {s, fused(s, -silu, add(silu, s))};
    return both;
}

#define GELU_LINEAR 1.595769f
#define GELU_CUBIC 0.071354814f
#define HALF_ROOT 0.70710678118654752440f
#define DENSITY 0.3989423f

INLINE struct Sloped gelu_exact(float x) {
    float cdf = fused(error_function(mul(x, HALF_ROOT)), 0.5f, 0.5f);
    float density = mul(exponential(mul(mul(x, x), -0.5f)), DENSITY);
    struct Sloped both = {cdf, fused(x, density, cdf)};
    return both;
}

INLINE struct Sloped gelu_tanh(float x) {
    float s = sigmoid(mul(x, fused(mul(x, x), GELU_CUBIC, GELU_LINEAR)));
    float slope = fused(mul(x, x), mul(3.0f, GELU_CUBIC), GELU_LINEAR);
    struct Sloped both = {s, fused(mul(mul(x, s), sub(1.0f, s)), slope, s)};
    return both;
}

INLINE struct Sloped gated(int form, float x) { return form == 0 ? silu(x) : gelu_tanh(x); }

INLINE struct Sloped gelu(int form, float x) { return form == 0 ? gelu_exact(x) : gelu_tanh(x); }

PLAIN_KERNEL(dpo_gated_forward, Activation, 256) {
    u64 i = element();
    if (i < p.n) p.out[i] = mul(mul(p.gate[i], gated(p.form, p.gate[i]).weight), p.up[i]);
}

PLAIN_KERNEL(dpo_gated_backward, Activation, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float gate = p.gate[i], up = p.up[i], d = p.out[i];
    struct Sloped both = gated(p.form, gate);
    float activated = mul(gate, both.weight);
    p.gate[i] = mul(mul(d, up), both.slope);
    p.up[i] = mul(d, activated);
    if (p.again) p.out[i] = mul(activated, up);
}

PLAIN_KERNEL(dpo_gelu_forward, Activation, 256) {
    u64 i = element();
    if (i < p.n) p.out[i] = mul(p.gate[i], gelu(p.form, p.gate[i]).weight);
}

PLAIN_KERNEL(dpo_gelu_backward, Activation, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float x = p.gate[i], d = p.out[i];
    struct Sloped both = gelu(p.form, x);
    p.gate[i] = mul(d, both.slope);
    p.out[i] = mul(x, both.weight);
}

struct Scalar {
    const float *from;
    float *to;
    u64 n;
    float value;
};

// to ← value · tanh(to / value)
PLAIN_KERNEL(dpo_softcap_forward, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = capped(p.to[i], p.value);
}

// to ← to · the derivative where the capped value is `from`.
PLAIN_KERNEL(dpo_softcap_backward, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = mul(p.to[i], cap_slope(p.from[i], p.value));
}

PLAIN_KERNEL(dpo_scale, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = mul(p.to[i], p.value);
}

PLAIN_KERNEL(dpo_add, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = add(p.to[i], p.from[i]);
}

PLAIN_KERNEL(dpo_add_value, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = add(p.to[i], p.value);
}

PLAIN_KERNEL(dpo_copy, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = p.from[i];
}

PLAIN_KERNEL(dpo_fill, Scalar, 256) {
    u64 i = element();
    if (i < p.n) p.to[i] = p.value;
}

struct Turn {
    // (rows, width), heads of head_dim elements of which the first 2 · half are turned.
    float *x;
    const unsigned *positions;
    // (positions, half) each.
    const float *cosines, *sines;
    int rows, width, head_dim, half;
    // 1, or −1 for the turn back.
    float direction;
};

// A thread a pair: (a, b) ← (a cos − b sin, b cos + a sin).
PLAIN_KERNEL(dpo_turn, Turn, 256) {
    u64 at = element();
    int pairs = p.width / p.head_dim * p.half;
    if (at >= (u64)p.rows * pairs) return;
    int row = (int)(at / pairs), pair = (int)(at % pairs), head = pair / p.half, i = pair % p.half;
    float *first = p.x + (i64)row * p.width + head * p.head_dim + i, *second = first + p.half;
    i64 angle = (i64)p.positions[row] * p.half + i;
    float a = *first, b = *second, c = p.cosines[angle], s = mul(p.sines[angle], p.direction);
    *first = fused(a, c, -mul(b, s));
    *second = fused(b, c, mul(a, s));
}

struct Dropout {
    const float *from;
    float *to;
    // One a row.
    const u64 *states;
    u64 n;
    u64 threshold;
    int width;
    float keep;
};

// SplitMix64's output function.
INLINE u64 mixed(u64 state) {
    u64 z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Element i of a row falls away where the i-th output of the row's generator lies below the threshold.
PLAIN_KERNEL(dpo_dropout, Dropout, 256) {
    u64 at = element();
    if (at >= p.n) return;
    u64 state = p.states[at / p.width] + (at % p.width + 1) * 0x9e3779b97f4a7c15ull;
    p.to[at] = mixed(state) >> 32 < p.threshold ? 0.0f : mul(p.from[at], p.keep);
}

struct Update {
    float *parameter;
    const float *gradient;
    float *first, *second;
    u64 n;
    // As `optim.rs` works them out.
    float c[8];
};

PLAIN_KERNEL(dpo_adamw, Update, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float scale = p.c[0], one_minus_beta1 = p.c[1], beta2 = p.c[2], one_minus_beta2 = p.c[3];
    float correction = p.c[4], eps = p.c[5], step = p.c[6], decay = p.c[7];
    float g = mul(p.gradient[i], scale), mean = p.first[i];
    mean = fused(one_minus_beta1, sub(g, mean), mean);
    float square = fused(mul(one_minus_beta2, g), g, mul(p.second[i], beta2));
    float denominator = add(quotient(root(square), correction), eps);
    p.parameter[i] = fused(-step, quotient(mean, denominator), mul(p.parameter[i], decay));
    p.first[i] = mean;
    p.second[i] = square;
}

PLAIN_KERNEL(dpo_rmsprop, Update, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float scale = p.c[0], lr = p.c[1], alpha = p.c[2], one_minus_alpha = p.c[3], eps = p.c[4], decay = p.c[5];
    float w = p.parameter[i], g = fused(decay, w, mul(p.gradient[i], scale));
    float square = fused(mul(one_minus_alpha, g), g, mul(p.first[i], alpha));
    p.parameter[i] = fused(-lr, quotient(g, add(root(square), eps)), w);
    p.first[i] = square;
}

// With momentum where there is a buffer for it.
PLAIN_KERNEL(dpo_sgd, Update, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float scale = p.c[0], lr = p.c[1], decay = p.c[2], momentum = p.c[3];
    float w = p.parameter[i], g = fused(decay, w, mul(p.gradient[i], scale));
    if (p.first) p.first[i] = g = fused(momentum, p.first[i], g);
    p.parameter[i] = fused(-lr, g, w);
}

// x ← function(x), in the order of `elementary.rs`.
PLAIN_KERNEL(dpo_elementary, Activation, 256) {
    u64 i = element();
    if (i >= p.n) return;
    float x = p.out[i];
    switch (p.form) {
        case 0: p.out[i] = exponential(x); break;
        case 1: p.out[i] = logarithm(x); break;
        case 2: p.out[i] = sigmoid(x); break;
        case 3: p.out[i] = log_sigmoid(x); break;
        case 4: p.out[i] = softplus(x); break;
        case 5: p.out[i] = tangent(x); break;
        default: p.out[i] = error_function(x);
    }
}
