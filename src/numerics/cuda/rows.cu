// What works on rows: RMSNorm, LayerNorm (the arithmetic contract, 3), biases, and rows moved between matrices.
//
// A row reduction has sixteen threads, its lanes; a block has sixteen rows. The gradient of a parameter is a chain over the rows: a
// thread a column.

#include "device.cuh"

#define ROWS 16

struct Norm {
    const float *x, *weight, *bias, *dy;
    // Inverse root mean squares (rows,), or means and inverse standard deviations (rows, 2).
    float *spread;
    // y, or dx.
    float *out;
    float *dweight, *dbias;
    int rows, hidden;
    float eps;
};

BLOCK_KERNEL(dpo_rms_inverse, Norm, ROWS * LANES, 1) {
    SHARED float lanes[ROWS][LANES];
    int r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, row = (int)blockIdx.x * ROWS + r;
    float squares = 0.0f;
    if (row < p.rows) {
        const float *x = p.x + (i64)row * p.hidden;
        for (int i = lane; i < p.hidden; i += LANES) squares = fused(x[i], x[i], squares);
    }
    lanes[r][lane] = squares;
    __syncthreads();
    if (lane == 0 && row < p.rows) {
        float mean = quotient(tree_sum(lanes[r]), __int2float_rn(p.hidden));
        p.spread[row] = quotient(1.0f, root(add(mean, p.eps)));
    }
}

PLAIN_KERNEL(dpo_rms_scale, Norm, 256) {
    u64 at = element();
    if (at >= (u64)p.rows * p.hidden) return;
    int row = (int)(at / p.hidden), i = (int)(at % p.hidden);
    p.out[at] = mul(mul(p.x[at], p.spread[row]), p.weight[i]);
}

// out += dx = s · g − x · s³ · Σ(g x) / hidden, g = dy · w.
BLOCK_KERNEL(dpo_rms_backward, Norm, ROWS * LANES, 1) {
    SHARED float lanes[ROWS][LANES];
    int r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, row = (int)blockIdx.x * ROWS + r;
    const float *x = p.x + (i64)row * p.hidden, *dy = p.dy + (i64)row * p.hidden;
    float along = 0.0f;
    if (row < p.rows) {
        for (int i = lane; i < p.hidden; i += LANES) along = fused(mul(dy[i], p.weight[i]), x[i], along);
    }
    lanes[r][lane] = along;
    __syncthreads();
    if (row >= p.rows) return;
    float s = p.spread[row], *dx = p.out + (i64)row * p.hidden;
    float pull = mul(-quotient(tree_sum(lanes[r]), __int2float_rn(p.hidden)), mul(mul(s, s), s));
    for (int i = lane; i < p.hidden; i += LANES) {
        float g = mul(dy[i], p.weight[i]);
        dx[i] = add(dx[i], fused(pull, x[i], mul(s, g)));
    }
}

PLAIN_KERNEL(dpo_rms_weight, Norm, 64) {
    u64 i = element();
    if (i >= (u64)p.hidden) return;
    float sum = p.dweight[i];
    UNROLL for (int row = 0; row < p.rows; row++) {
        i64 at = (i64)row * p.hidden + (i64)i;
        sum = fused(mul(p.x[at], p.spread[row]), p.dy[at], sum);
    }
    p.dweight[i] = sum;
}

BLOCK_KERNEL(dpo_layer_moments, Norm, ROWS * LANES, 1) {
    SHARED float lanes[2][ROWS][LANES];
    int r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, row = (int)blockIdx.x * ROWS + r;
    const float *x = p.x + (i64)row * p.hidden;
    float n = __int2float_rn(p.hidden), sum = 0.0f, squares = 0.0f;
    if (row < p.rows) {
        for (int i = lane; i < p.hidden; i += LANES) sum = add(sum, x[i]);
    }
    lanes[0][r][lane] = sum;
    __syncthreads();
    float mean = quotient(tree_sum(lanes[0][r]), n);
    if (row < p.rows) {
        for (int i = lane; i < p.hidden; i += LANES) {
            float centred = sub(x[i], mean);
            squares = fused(centred, centred, squares);
        }
    }
    lanes[1][r][lane] = squares;
    __syncthreads();
    if (lane == 0 && row < p.rows) {
        p.spread[2 * row] = mean;
        p.spread[2 * row + 1] = quotient(1.0f, root(add(quotient(tree_sum(lanes[1][r]), n), p.eps)));
    }
}

INLINE float normed(float x, const float *moments) { return mul(sub(x, moments[0]), moments[1]); }

PLAIN_KERNEL(dpo_layer_scale, Norm, 256) {
    u64 at = element();
    if (at >= (u64)p.rows * p.hidden) return;
    int row = (int)(at / p.hidden), i = (int)(at % p.hidden);
    p.out[at] = fused(normed(p.x[at], p.spread + 2 * (i64)row), p.weight[i], p.bias[i]);
}

// out += dx = s · (g − mean(g) − x̂ · mean(g x̂)), g = dy · w.
BLOCK_KERNEL(dpo_layer_backward, Norm, ROWS * LANES, 1) {
    SHARED float lanes[2][ROWS][LANES];
    int r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, row = (int)blockIdx.x * ROWS + r;
    const float *x = p.x + (i64)row * p.hidden, *dy = p.dy + (i64)row * p.hidden, *moments = p.spread + 2 * (i64)row;
    float level = 0.0f, along = 0.0f;
    if (row < p.rows) {
        for (int i = lane; i < p.hidden; i += LANES) {
            float g = mul(dy[i], p.weight[i]);
            level = add(level, g);
            along = fused(g, normed(x[i], moments), along);
        }
    }
    lanes[0][r][lane] = level;
    lanes[1][r][lane] = along;
    __syncthreads();
    if (row >= p.rows) return;
    float n = __int2float_rn(p.hidden), s = moments[1], *dx = p.out + (i64)row * p.hidden;
    level = quotient(tree_sum(lanes[0][r]), n);
    float pull = -quotient(tree_sum(lanes[1][r]), n);
    for (int i = lane; i < p.hidden; i += LANES) {
        float g = mul(dy[i], p.weight[i]);
        float d = fused(pull, normed(x[i], moments), sub(g, level));
        dx[i] = fused(s, d, dx[i]);
    }
}

PLAIN_KERNEL(dpo_layer_parameters, Norm, 64) {
    u64 i = element();
    if (i >= (u64)p.hidden) return;
    float weight = p.dweight[i], bias = p.dbias[i];
    for (int row = 0; row < p.rows; row++) {
        i64 at = (i64)row * p.hidden + (i64)i;
        weight = fused(normed(p.x[at], p.spread + 2 * (i64)row), p.dy[at], weight);
        bias = add(bias, p.dy[at]);
    }
    p.dweight[i] = weight;
    p.dbias[i] = bias;
}

struct Matrix {
    const float *from;
    float *to;
    // Rows of `from` or `to`, one for each row of the other.
    const unsigned *places;
    int rows, width;
};

// to: (width,) += the rows of from, one after the other.
PLAIN_KERNEL(dpo_add_columns, Matrix, 64) {
    u64 i = element();
    if (i >= (u64)p.width) return;
    float sum = p.to[i];
    for (int row = 0; row < p.rows; row++) sum = add(sum, p.from[(i64)row * p.width + (i64)i]);
    p.to[i] = sum;
}

// Every row of to ← from: (width,), or += it.
PLAIN_KERNEL(dpo_fill_rows, Matrix, 256) {
    u64 at = element();
    if (at < (u64)p.rows * p.width) p.to[at] = p.from[at % p.width];
}

PLAIN_KERNEL(dpo_add_to_rows, Matrix, 256) {
    u64 at = element();
    if (at < (u64)p.rows * p.width) p.to[at] = add(p.to[at], p.from[at % p.width]);
}

// to[r] ← from[places[r]]
PLAIN_KERNEL(dpo_gather_rows, Matrix, 256) {
    u64 at = element();
    if (at >= (u64)p.rows * p.width) return;
    p.to[at] = p.from[(i64)p.places[at / p.width] * p.width + (i64)(at % p.width)];
}

// to[places[r]] ← from[r]; no place twice.
PLAIN_KERNEL(dpo_spread_rows, Matrix, 256) {
    u64 at = element();
    if (at >= (u64)p.rows * p.width) return;
    p.to[(i64)p.places[at / p.width] * p.width + (i64)(at % p.width)] = p.from[at];
}

// to[r] += from[places[r]]
PLAIN_KERNEL(dpo_add_gathered_rows, Matrix, 256) {
    u64 at = element();
    if (at >= (u64)p.rows * p.width) return;
    p.to[at] = add(p.to[at], p.from[(i64)p.places[at / p.width] * p.width + (i64)(at % p.width)]);
}

struct Scatter {
    const float *from;
    float *to;
    // For each of `targets`: a row of `to`, and where its rows of `from` start in `sources` (one more than there are targets).
    const unsigned *targets, *starts, *sources;
    int count, width;
};

// to[targets[t]] += from[s] for its sources s, one after the other.
PLAIN_KERNEL(dpo_scatter_add, Scatter, 256) {
    u64 at = element();
    if (at >= (u64)p.count * p.width) return;
    int t = (int)(at / p.width), i = (int)(at % p.width);
    float *to = p.to + (i64)p.targets[t] * p.width + i, sum = *to;
    for (unsigned s = p.starts[t]; s < p.starts[t + 1]; s++) sum = add(sum, p.from[(i64)p.sources[s] * p.width + i]);
    *to = sum;
}
