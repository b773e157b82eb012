// The attention kernels for heads of at most 16 · WIDE elements.
//
// Included once for each such width, with SUFFIX, WIDE and KEYS defined: keys that stand in shared memory together, whole vectors of 16.

#define STRIDE (LANES * WIDE + 1)
#define JOINED(name, suffix) name##suffix
#define NAMED(name, suffix) JOINED(name, suffix)

// softmax(scores) v of sixteen queries of one head, each with sixteen threads. Two passes over the keys: the maximum; then exponentials,
// whose sums have a lane a thread, and the chains over the values, each thread holding every sixteenth element of its query's output.
BLOCK_KERNEL(NAMED(dpo_attend_, SUFFIX), Attention, QUERIES * LANES, 1) {
    SHARED float tile[KEYS * STRIDE], weights[QUERIES][KEYS], lanes[QUERIES][LANES];
    int head = (int)blockIdx.x % p.heads, r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    struct QueryTile of = p.query_tiles[blockIdx.x / p.heads];
    const unsigned *keys = p.keys + of.keys;
    int last = of.first + (of.count - 1) * of.step, seen = r < of.count ? of.first + r * of.step : 0;
    int start = window_start(p, seen), at = head * p.dim, key_at = head / p.group * p.dim;
    const float *q = p.q + (i64)(of.place + r) * p.query_width + at;

    float m = -infinity();
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen && key >= start) m = larger(score(p, q, tile + j * STRIDE), m);
        }
        __syncthreads();
    }
    lanes[r][lane] = m;
    __syncthreads();
    m = tree_max(lanes[r]);
    __syncthreads();

    float sums[WIDE], total = 0.0f;
    UNROLL for (int w = 0; w < WIDE; w++) sums[w] = 0.0f;
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen) {
                float s = key < start ? -infinity() : score(p, q, tile + j * STRIDE);
                float e = exponential(sub(s, m));
                total = add(total, e);
                weights[r][j] = e;
            }
        }
        __syncthreads();
        load_rows(p, p.v, keys, base, last, KEYS, STRIDE, key_at, tile);
        __syncthreads();
        for (int j = 0; j < min(KEYS, seen - base); j++) {
            UNROLL for (int w = 0; w < WIDE; w++) sums[w] = fused(weights[r][j], tile[j * STRIDE + lane + LANES * w], sums[w]);
        }
        __syncthreads();
    }
    lanes[r][lane] = total;
    __syncthreads();
    if (r >= of.count) return;
    total = tree_sum(lanes[r]);
    float *out = p.out + (i64)(of.place + r) * p.query_width + at;
    UNROLL for (int w = 0; w < WIDE; w++) {
        if (lane + LANES * w < p.dim) out[lane + LANES * w] = quotient(sums[w], total);
    }
}

// The queries' gradients, and what the keys' gradients need of each query: the maximum, the sum of exponentials, and Σ P dP.
BLOCK_KERNEL(NAMED(dpo_attend_backward_queries_, SUFFIX), Attention, QUERIES * LANES, 1) {
    SHARED float k_tile[KEYS * STRIDE], v_tile[KEYS * STRIDE], ds[QUERIES][KEYS], lanes[QUERIES][LANES];
    int head = (int)blockIdx.x % p.heads, r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    struct QueryTile of = p.query_tiles[blockIdx.x / p.heads];
    const unsigned *keys = p.keys + of.keys;
    int last = of.first + (of.count - 1) * of.step, seen = r < of.count ? of.first + r * of.step : 0;
    int start = window_start(p, seen), at = head * p.dim, key_at = head / p.group * p.dim;
    i64 place = of.place + r;
    const float *q = p.q + place * p.query_width + at, *dout = p.dout + place * p.query_width + at;

    float m = -infinity();
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, k_tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen && key >= start) m = larger(score(p, q, k_tile + j * STRIDE), m);
        }
        __syncthreads();
    }
    lanes[r][lane] = m;
    __syncthreads();
    m = tree_max(lanes[r]);
    __syncthreads();

    float total = 0.0f;
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, k_tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen) {
                float s = key < start ? -infinity() : score(p, q, k_tile + j * STRIDE);
                total = add(total, exponential(sub(s, m)));
            }
        }
        __syncthreads();
    }
    lanes[r][lane] = total;
    __syncthreads();
    total = tree_sum(lanes[r]);
    __syncthreads();

    float mean = 0.0f;
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, k_tile);
        load_rows(p, p.v, keys, base, last, KEYS, STRIDE, key_at, v_tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen) {
                float s = key < start ? -infinity() : score(p, q, k_tile + j * STRIDE);
                float weight = quotient(exponential(sub(s, m)), total);
                mean = fused(weight, product(p, dout, v_tile + j * STRIDE), mean);
            }
        }
        __syncthreads();
    }
    lanes[r][lane] = mean;
    __syncthreads();
    mean = tree_sum(lanes[r]);
    if (r < of.count && lane == 0) {
        float *kept = p.kept + 3 * (place * p.heads + head);
        kept[0] = m;
        kept[1] = total;
        kept[2] = mean;
    }

    float sums[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) sums[w] = 0.0f;
    for (int base = 0; base < last; base += KEYS) {
        load_rows(p, p.k, keys, base, last, KEYS, STRIDE, key_at, k_tile);
        load_rows(p, p.v, keys, base, last, KEYS, STRIDE, key_at, v_tile);
        __syncthreads();
        for (int j = lane; j < KEYS; j += LANES) {
            int key = base + j;
            if (key < seen) {
                float s = score(p, q, k_tile + j * STRIDE), dp = product(p, dout, v_tile + j * STRIDE);
                float weight = quotient(exponential(sub(key < start ? -infinity() : s, m)), total);
                ds[r][j] = product_gradient(p, s, mul(weight, sub(dp, mean)));
            }
        }
        __syncthreads();
        for (int j = 0; j < min(KEYS, seen - base); j++) {
            UNROLL for (int w = 0; w < WIDE; w++) sums[w] = fused(ds[r][j], k_tile[j * STRIDE + lane + LANES * w], sums[w]);
        }
        __syncthreads();
    }
    if (r >= of.count) return;
    float *dq = p.dq + place * p.query_width + at;
    UNROLL for (int w = 0; w < WIDE; w++) {
        if (lane + LANES * w < p.dim) dq[lane + LANES * w] = sums[w];
    }
}

// The gradients of sixteen keys and values: chains over the queries that see them, sixteen of these at a time. First a thread has a query
// and a key, then a key and every sixteenth element.
BLOCK_KERNEL(NAMED(dpo_attend_backward_keys_, SUFFIX), Attention, QUERIES * LANES, 1) {
    SHARED float k_tile[LANES * STRIDE], v_tile[LANES * STRIDE], weights[QUERIES][LANES + 1], ds[QUERIES][LANES + 1];
    int kv_heads = p.heads / p.group, kv_head = (int)blockIdx.x % kv_heads;
    int r = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, key_at = kv_head * p.dim;
    struct KeyTile of = p.key_tiles[blockIdx.x / kv_heads];
    for (int i = (int)threadIdx.x; i < LANES * LANES * WIDE; i += QUERIES * LANES) {
        int j = i / (LANES * WIDE), d = i % (LANES * WIDE), there = j < of.count && d < p.dim;
        i64 from = (i64)(of.row + j) * p.key_width + key_at + d;
        k_tile[j * STRIDE + d] = there ? p.k[from] : 0.0f;
        v_tile[j * STRIDE + d] = there ? p.v[from] : 0.0f;
    }
    __syncthreads();

    float dk[WIDE], dv[WIDE];
    UNROLL for (int w = 0; w < WIDE; w++) dk[w] = dv[w] = 0.0f;
    for (int viewer = of.viewers; viewer < of.viewers_end; viewer++) {
        struct Viewer by = p.viewers[viewer];
        // Queries before this one see none of the keys.
        int begin = by.step == 0 ? 0 : max(0, of.index + 1 - by.first);
        for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; head++) {
            for (int base = begin; base < by.count; base += QUERIES) {
                int query = base + r, seen = query < by.count ? by.first + query * by.step : 0, key = of.index + lane;
                if (lane < of.count && key < seen) {
                    i64 at = (i64)(by.place + query) * p.query_width + head * p.dim;
                    const float *kept = p.kept + 3 * ((i64)(by.place + query) * p.heads + head);
                    float s = score(p, p.q + at, k_tile + lane * STRIDE), dp = product(p, p.dout + at, v_tile + lane * STRIDE);
                    float masked = key < window_start(p, seen) ? -infinity() : s;
                    float weight = quotient(exponential(sub(masked, kept[0])), kept[1]);
                    weights[r][lane] = weight;
                    ds[r][lane] = product_gradient(p, s, mul(weight, sub(dp, kept[2])));
                }
                __syncthreads();
                // Now r is the key.
                for (int i = 0; i < min(QUERIES, by.count - base); i++) {
                    if (r < of.count && of.index + r < by.first + (base + i) * by.step) {
                        i64 at = (i64)(by.place + base + i) * p.query_width + head * p.dim + lane;
                        float weight = weights[i][r], d = ds[i][r];
                        UNROLL for (int w = 0; w < WIDE; w++) {
                            if (lane + LANES * w < p.dim) {
                                dv[w] = fused(weight, p.dout[at + LANES * w], dv[w]);
                                dk[w] = fused(d, p.q[at + LANES * w], dk[w]);
                            }
                        }
                    }
                }
                __syncthreads();
            }
        }
    }
    if (r >= of.count) return;
    i64 to = (i64)(of.row + r) * p.key_width + key_at + lane;
    UNROLL for (int w = 0; w < WIDE; w++) {
        if (lane + LANES * w < p.dim) {
            p.dk[to + LANES * w] = dk[w];
            p.dv[to + LANES * w] = dv[w];
        }
    }
}

#undef NAMED
#undef JOINED
#undef STRIDE
#undef KEYS
#undef WIDE
#undef SUFFIX
