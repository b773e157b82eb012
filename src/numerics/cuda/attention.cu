// Attention over packed trees of segments, and over the caches of decoding (the arithmetic contract, 5).
//
// Scores are never kept: they are chains of a head's few elements, and are worked out again where they are needed.

#include "elementary.cuh"

#define QUERIES 16

// Queries of one segment that follow each other.
struct QueryTile {
    // Where the packed rows of their keys start.
    int keys;
    // The first one's place among those that ask, and how many there are.
    int place, count;
    // Keys that the first one sees, and how many more each one after it.
    int first, step;
};

// Keys of one segment that follow each other, and the segments whose queries see them, in packed order.
struct KeyTile {
    // Of the first key: the packed row, and its number in its sequence.
    int row, index;
    int count;
    int viewers, viewers_end;
};

// The queries of a segment, as in a tile of them.
struct Viewer {
    int place, count, first, step;
};

struct Attention {
    // (asking rows, query_width) and (rows, key_width), and gradients of the same shapes.
    const float *q, *k, *v, *dout;
    float *out, *dq, *dk, *dv;
    // (asking rows, heads, 3)
    float *kept;
    const unsigned *keys;
    const struct QueryTile *query_tiles;
    const struct KeyTile *key_tiles;
    const struct Viewer *viewers;
    int heads, group, dim, query_width, key_width;
    // How many keys up to a query's own count; 0: all.
    int window;
    float scale;
    // What scores are capped at; 0: they aren't.
    float cap;
};

// The first key that counts for a query that sees so many.
INLINE int window_start(struct Attention p, int seen) { return p.window == 0 ? 0 : max(0, seen - p.window); }

INLINE float product(struct Attention p, const float *a, const float *b) {
    float sum = 0.0f;
    for (int d = 0; d < p.dim; d++) sum = fused(a[d], b[d], sum);
    return sum;
}

INLINE float score(struct Attention p, const float *q, const float *k) {
    float scaled = mul(product(p, q, k), p.scale);
    return p.cap == 0.0f ? scaled : capped(scaled, p.cap);
}

// The gradient of a product of query and key whose score is s, from that of the score.
INLINE float product_gradient(struct Attention p, float s, float ds) {
    return mul(p.cap == 0.0f ? ds : mul(ds, cap_slope(s, p.cap)), p.scale);
}

// One head's columns of the keys base, base + 1, … up to `last`, at most `count`, zeros after them.
INLINE void load_rows(struct Attention p, const float *x, const unsigned *keys, int base, int last, int count, int stride, int at, float *tile) {
    int width = stride - 1;
    for (int i = (int)threadIdx.x; i < count * width; i += QUERIES * LANES) {
        int j = i / width, d = i % width;
        int there = base + j < last && d < p.dim;
        tile[j * stride + d] = there ? x[(i64)keys[base + j] * p.key_width + at + d] : 0.0f;
    }
}

#define SUFFIX 64
#define WIDE 4
#define KEYS 64
#include "attention.cuh"

#define SUFFIX 128
#define WIDE 8
#define KEYS 32
#include "attention.cuh"

#define SUFFIX 256
#define WIDE 16
#define KEYS 16
#include "attention.cuh"

// Keys that stand together in a cache, along memory (see `attention/kernels.rs`).
#define PANEL 64
#define CACHE_THREADS 256

struct Cache {
    // (layers · kv_heads) times panels of `capacity` keys, and (layers · kv_heads, capacity, width).
    float *keys, *values;
    int length, capacity;
};

struct Cached {
    const struct Cache *caches;
    // (rows, query_width), (rows, key_width)
    const float *q, *k, *v;
    float *out;
    // For each row that is stored: which cache, and which position.
    const unsigned *of, *positions;
    int rows, layer, heads, group, dim;
    // From a value to the next.
    int width;
    int window;
    float scale, cap;
};

PLAIN_KERNEL(dpo_store_cached, Cached, 256) {
    u64 at = element();
    int kv_heads = p.heads / p.group, key_width = kv_heads * p.dim;
    if (at >= (u64)p.rows * key_width) return;
    int row = (int)(at / key_width), column = (int)(at % key_width), d = column % p.dim;
    struct Cache cache = p.caches[p.of[row]];
    i64 head = (i64)p.layer * kv_heads + column / p.dim, position = p.positions[row];
    cache.keys[head * p.dim * cache.capacity + (position / PANEL * p.dim + d) * PANEL + position % PANEL] = p.k[at];
    cache.values[(head * cache.capacity + position) * p.width + d] = p.v[at];
}

// One query of each sequence over its cache and the key and value that were just stored: a block a head of a sequence.
BLOCK_KERNEL(dpo_attend_cached, Cached, CACHE_THREADS, 1) {
    SHARED float most[CACHE_THREADS], e[CACHE_THREADS], lanes[LANES];
    int t = (int)threadIdx.x, row = (int)blockIdx.x / p.heads, head = (int)blockIdx.x % p.heads;
    struct Cache cache = p.caches[row];
    int seen = cache.length + 1, start = p.window == 0 ? 0 : max(0, seen - p.window);
    i64 of = (i64)p.layer * (p.heads / p.group) + head / p.group;
    const float *keys = cache.keys + of * p.dim * cache.capacity, *values = cache.values + of * p.width * cache.capacity;
    const float *q = p.q + ((i64)row * p.heads + head) * p.dim;

#define SCORE(key, s)                                                                                            \
    float s = 0.0f;                                                                                              \
    const float *k = keys + (key) / PANEL * p.dim * PANEL + (key) % PANEL;                                       \
    for (int d = 0; d < p.dim; d++) s = fused(q[d], k[d * PANEL], s);                                            \
    s = mul(s, p.scale);                                                                                         \
    if (p.cap != 0.0f) s = capped(s, p.cap);

    float own = -infinity();
    for (int key = start + t; key < seen; key += CACHE_THREADS) {
        SCORE(key, s)
        own = larger(s, own);
    }
    most[t] = own;
    __syncthreads();
    for (int half = CACHE_THREADS / 2; half > 0; half /= 2) {
        if (t < half) most[t] = larger(most[t], most[t + half]);
        __syncthreads();
    }
    float m = most[0], lane = 0.0f, sum = 0.0f;
    for (int base = 0; base < seen; base += CACHE_THREADS) {
        int key = base + t, count = min(CACHE_THREADS, seen - base);
        if (t < count) {
            float masked = -infinity();
            if (key >= start) {
                SCORE(key, s)
                masked = s;
            }
            e[t] = exponential(sub(masked, m));
        }
        __syncthreads();
        if (t < LANES) {
            for (int j = t; j < count; j += LANES) lane = add(lane, e[j]);
        }
        if (t < p.dim) {
            for (int j = 0; j < count; j++) sum = fused(e[j], values[(i64)(base + j) * p.width + t], sum);
        }
        __syncthreads();
    }
    if (t < LANES) lanes[t] = lane;
    __syncthreads();
    if (t < p.dim) p.out[((i64)row * p.heads + head) * p.dim + t] = quotient(sum, tree_sum(lanes));
}
